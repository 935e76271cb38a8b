"""Study files: their keys, and a study as frozen values."""
