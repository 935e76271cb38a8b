"""Ablations: which decision earned what, and with what certainty."""
