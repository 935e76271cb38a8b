"""SlowFast networks."""
