"""What a network is, and which networks may be searched."""
