"""The families of networks, one file each; what a file needs beyond values is in its `_layers` neighbour."""
