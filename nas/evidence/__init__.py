"""The statistics of ablations: paired differences, their noise, and what may be said of them."""
