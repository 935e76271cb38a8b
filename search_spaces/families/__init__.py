"""The families of networks, a file or a folder each: specs, spaces, published networks, as values."""
