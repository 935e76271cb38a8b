"""A model of error over settings, exact cost and fidelity, and what a training is expected to be worth under it."""
