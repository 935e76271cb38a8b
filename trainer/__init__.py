"""How a network is trained and measured; sees an `nn.Module`, never a spec."""
