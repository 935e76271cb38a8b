"""What a network costs, exactly and before it is trained."""
