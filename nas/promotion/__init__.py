"""Full training of chosen networks, and the test of what came of it."""
