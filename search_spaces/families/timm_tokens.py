"""Transformers of timm for each frame: their attention with a layer of its own for the matrix products.

Without it, a count of operations that asks layers would not find those products.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class Lookup(nn.Module):
    """Values averaged by the softmax of scaled products of queries and keys."""

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Maps three tensors (N, heads, L, D) to one."""
        return F.scaled_dot_product_attention(queries, keys, values)

    def macs(self, queries: Tensor, keys: Tensor, values: Tensor, *, out: Tensor) -> int:
        """Multiply-accumulates of one call, the whole batch."""
        return (queries.numel() + out.numel()) * keys.shape[2]


class CountedAttention(nn.Module):
    """timm's self-attention without mask, dropout or gate: its layers under its names, computed the same way."""

    def __init__(self, theirs: Any) -> None:
        """Makes it of the layers of timm's."""
        super().__init__()
        self.num_heads: int = theirs.num_heads
        self.lookup = Lookup()
        for name, layer in theirs.named_children():
            self.add_module(name, layer)
        if "norm" not in self._modules:
            self.norm = nn.Identity()

    def forward(self, x: Tensor, attn_mask: None = None, is_causal: bool = False) -> Tensor:
        """Maps tokens (N, L, C) to (N, L, C)."""
        assert attn_mask is None and not is_causal
        layers = self._modules
        qkv = _run(layers["qkv"], x)
        qkv = qkv.reshape(*qkv.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        queries, keys, values = qkv.unbind(0)
        found = self.lookup(_run(layers["q_norm"], queries), _run(layers["k_norm"], keys), values)
        joined = _run(self.norm, found.transpose(1, 2).flatten(2))
        return _run(layers["proj_drop"], _run(layers["proj"], joined))


def count_attention(network: nn.Module) -> None:
    """Makes the attention of a network countable, in place, where it is timm's usual one."""
    for path, module in list(network.named_modules()):
        layer: Any = module
        usual = type(module).__name__ == "Attention" and {"qkv", "q_norm", "k_norm", "proj"} <= set(module._modules)
        if usual and getattr(layer, "gate", None) is None and layer.attn_drop.p == 0 and path:
            owner, _, name = path.rpartition(".")
            network.get_submodule(owner).add_module(name, CountedAttention(layer))


def _run(layer: nn.Module | None, x: Tensor) -> Tensor:
    assert layer is not None
    out: Tensor = layer(x)
    return out
