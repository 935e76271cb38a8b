"""One-shot weight sharing: one set of weights for the networks of a study's pool, and the order that it gives them."""
