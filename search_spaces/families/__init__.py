"""The families of networks: a file or a folder each; modules are in `layers`, the rest is values."""
