"""Multi-objective search methods against each other, on tables of known results."""
