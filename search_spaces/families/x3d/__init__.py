"""X3D networks."""
