"""Attention on clips: units (N, C, T, H, W) -> the same shape, put behind what they reweigh.

Papers: Hu et al. 2018, "Squeeze-and-Excitation Networks"; Xie et al. 2018, "Rethinking Spatiotemporal Feature
Learning" (the gate of S3D-G); Wang et al. 2018, "Non-local Neural Networks".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from search_spaces.convolutions import Conv3d, pointwise
from search_spaces.errors import SpecError, nearest
from search_spaces.layers import NORM, Norm
from search_spaces.operators import ATTENTIONS, NONLOCALS, Attention, squeezed_planes


class SqueezeExcite(nn.Module):
    """Planes times what two linear layers make of their means over space and time: x * sigmoid(W2 relu(W1 mean(x))).

    Between them are `squeezed_planes`.
    """

    def __init__(self, planes: int) -> None:
        """Makes the unit for so many planes in and out."""
        super().__init__()
        hidden = squeezed_planes(planes)
        self.fc1 = nn.Linear(planes, hidden)
        self.act = nn.ReLU(inplace=True)
        self.fc2 = nn.Linear(hidden, planes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, planes, T, H, W) to the same shape."""
        return _scaled(x, self.fc2(self.act(self.fc1(x.mean((2, 3, 4))))))


class Gate(nn.Module):
    """The feature gate of S3D-G: x * sigmoid(W mean(x)), the mean over space and time, W a matrix without bias."""

    def __init__(self, planes: int) -> None:
        """Makes the unit for so many planes in and out."""
        super().__init__()
        self.fc = nn.Linear(planes, planes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, planes, T, H, W) to the same shape."""
        return _scaled(x, self.fc(x.mean((2, 3, 4))))


class SoftLookup(nn.Module):
    """Values averaged by the softmax of scaled products of queries and keys.

    The two matrix products have a layer of their own, so that every counter of operations finds them.
    """

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Maps queries (N, D, P), keys (N, D, K) and values (N, D, K) to (N, D, P)."""
        shares = torch.bmm(queries.transpose(1, 2) * queries.shape[1] ** -0.5, keys).softmax(2)
        return torch.bmm(values, shares.transpose(1, 2))

    def macs(self, queries: Tensor, keys: Tensor, values: Tensor, *, out: Tensor) -> int:
        """Multiply-accumulates of one call, the whole batch."""
        return (queries.numel() + out.numel()) * keys.shape[2]


class FaintNorm(nn.BatchNorm3d):
    """The norm at the end of a residual branch that starts near nothing.

    Wang et al. start from a weight of 0. Then no other weight of the branch has a gradient in the first step, so this
    one starts from 0.1; where 2D weights are inflated, whose network the branch must not change, `inflate` sets 0.
    """

    def reset_parameters(self) -> None:
        """Sets the weight to 0.1, the bias to 0, and forgets the running statistics."""
        super().reset_parameters()
        nn.init.constant_(self.weight, 0.1)


class NonLocal(nn.Module):
    """A non-local block: x + BN(W y), y at each position a mean over all positions, weighted by similarity.

    The embedded Gaussian of section 3.2 with the bottleneck and the subsampling of section 3.3, as in the authors'
    released code: half the planes inside, products scaled by the root of their length, keys and values taken from x
    after a max pool of 2x2 pixels. Differences: a map below 4x4 is not subsampled, since hardly a key would be left,
    and of the convolutions' biases only that of the queries is there: softmax and norm cancel all others.
    """

    def __init__(self, planes: int, *, bias: bool = True, norm: Norm = NORM) -> None:
        """Makes the block.

        Args:
            planes: Planes in and out.
            bias: Queries have one.
            norm: Settings of its norm.
        """
        super().__init__()
        inside = max(1, planes // 2)
        self.query = Conv3d(planes, inside, (1, 1, 1), bias=bias)
        self.key = pointwise(planes, inside)
        self.value = pointwise(planes, inside)
        self.lookup = SoftLookup()
        self.out = pointwise(inside, planes)
        self.norm = FaintNorm(planes, eps=norm.eps, momentum=norm.momentum)
        self.pool = nn.MaxPool3d((1, 2, 2))

    def last_norms(self) -> list[nn.Module]:
        """Returns the norm at the end of its branch."""
        return [self.norm]

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, planes, T, H, W) to the same shape."""
        seen = self.pool(x) if min(x.shape[3:]) >= 4 else x
        found = self.lookup(self.query(x).flatten(2), self.key(seen).flatten(2), self.value(seen).flatten(2))
        out: Tensor = x + self.norm(self.out(found.unflatten(2, x.shape[2:])))
        return out


def attention_unit(kind: Attention, planes: int) -> nn.Module:
    """Returns the unit of a kind for so many planes; `none` is the identity.

    Raises:
        SpecError: There is no such kind.
    """
    if kind == "none":
        return nn.Identity()
    if kind == "se":
        return SqueezeExcite(planes)
    if kind == "gate":
        return Gate(planes)
    if kind in NONLOCALS:
        return NonLocal(planes, bias=kind == "nonlocal")
    raise SpecError(f"attention must be one of its choices, but is {kind}{nearest(kind, ATTENTIONS)}")


def _scaled(x: Tensor, logits: Tensor) -> Tensor:
    return x * logits.sigmoid()[:, :, None, None, None]
