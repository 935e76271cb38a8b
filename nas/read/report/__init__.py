"""The report: a study as one HTML file that works offline, prints, and can be sent to a colleague."""
