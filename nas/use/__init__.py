"""Trained networks at work: tests, features, probes, ensembles, predictions."""
