"""Temporal operators as modules on clips of shape (N, C, T, H, W).

Every operator stands where a 3x3 convolution and its norm stand in a 2D residual network, keeps T up to its
stride, and brings its norms along. Convolutions have no bias, because a norm follows each of them.

Papers: Tran et al. 2018, "A Closer Look at Spatiotemporal Convolutions for Action Recognition" (2d, 3d,
2plus1d); Qiu et al. 2017, "Learning Spatio-Temporal Representation with Pseudo-3D Residual Networks" (p3d_a,
p3d_b, p3d_c); the BesNet report of the 2017 ActivityNet challenge (random dilation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.convolutions import Conv3d, Spatial, Triple, pointwise, spatial_conv, temporal_conv
from search_spaces.errors import SpecError
from search_spaces.operators import (
    NORM_EPS,
    NORM_MOMENTUM,
    POINTWISE_KINDS,
    PORT_KINDS,
    SEPARATED_KINDS,
    TemporalOp,
)

_USUAL = Spatial()


@dataclass(frozen=True, kw_only=True, slots=True)
class Norm:
    """Settings of batch norms.

    Attributes:
        eps: Added to the variance. It changes neither parameters nor cost, but outputs.
        momentum: Share of a batch in the running statistics.
        relu_first: Where a unit has both, its ReLU comes before its norm.
    """

    eps: float = NORM_EPS
    momentum: float = NORM_MOMENTUM
    relu_first: bool = False

    def __call__(self, planes: int) -> nn.BatchNorm3d:
        """Returns a norm of so many planes."""
        return nn.BatchNorm3d(planes, eps=self.eps, momentum=self.momentum)


NORM = Norm()


class ConvNorm(nn.Module):
    """Convolution, norm and, with `act`, ReLU: the unit of which everything is made."""

    def __init__(self, conv: nn.Module, planes: int, *, act: bool, norm: Norm = NORM) -> None:
        """Makes the unit.

        Args:
            conv: Any module that gives (N, planes, T, H, W).
            planes: Planes that it gives.
            act: End with a ReLU.
            norm: Settings of its norm.
        """
        super().__init__()
        self.conv = conv
        self.norm = norm(planes)
        # In place is safe: for the backward pass, batch norm and convolution keep their inputs and never their outputs.
        self.act = nn.ReLU(inplace=True) if act else nn.Identity()
        self.relu_first = norm.relu_first

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, T, H, W) to (N, planes, T', H', W')."""
        found = self.conv(x)
        out: Tensor = self.norm(self.act(found)) if self.relu_first else self.act(self.norm(found))
        return out


class Conv2Plus1D(nn.Module):
    """Spatial convolution, norm, ReLU, temporal convolution: together in the place of one convolution.

    With `time_first`, the temporal one comes before the norm and the spatial one behind the ReLU.
    """

    def __init__(self, spatial: Conv3d, temporal: Conv3d, *, norm: Norm = NORM, time_first: bool = False) -> None:
        """Makes the pair from its two convolutions."""
        super().__init__()
        self.time_first = time_first
        self.spatial = spatial
        self.norm = norm(temporal.out_channels if time_first else spatial.out_channels)
        self.act = nn.ReLU(inplace=True)
        self.temporal = temporal
        self.relu_first = norm.relu_first

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, T, H, W) to (N, out_planes, T', H', W')."""
        first, last = (self.temporal, self.spatial) if self.time_first else (self.spatial, self.temporal)
        found = first(x)
        out: Tensor = last(self.norm(self.act(found)) if self.relu_first else self.act(self.norm(found)))
        return out


class MixedConv(nn.Module):
    """A 1x1x1 convolution and its norm before a convolution of each plane alone, so that planes meet (ip-CSN)."""

    def __init__(self, conv: Conv3d, *, norm: Norm = NORM) -> None:
        """Makes it from the convolution of each plane."""
        super().__init__()
        self.mix = pointwise(conv.in_channels, conv.in_channels)
        self.norm = norm(conv.in_channels)
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, planes, T, H, W) to (N, planes, T', H', W')."""
        out: Tensor = self.conv(self.norm(self.mix(x)))
        return out


class P3D(nn.Module):
    """The three pseudo-3D blocks. A: relu(T(S(x))). B: relu(S(x) + T(x)). C: relu(S(x) + T(S(x))).

    S is 1x3x3, norm, ReLU and T is kx1x1 and norm: so it stands in all blocks of the authors' prototxt, and T can take
    away from S. In the blocks of the port, T has a ReLU of its own and the sum has none: relu(S) + relu(T).

    With `act=False` the unit closes the residual branch of a basic block, a place that the paper does not have (its
    blocks are bottlenecks, with a 1x1x1 behind). There no ReLU stands before or behind the sum: the branch could only
    ever add to the shortcut, never take away from it, and the ReLU after the shortcut's addition would do nothing. T
    still sees a rectified S in A and C. Where ReLUs come before norms (`Norm.relu_first`), S and T each have theirs,
    and none follows the sum.

    The temporal stride is on T in A. B needs both strides on both paths. C adds S to T(S), so S has both
    strides.
    """

    def __init__(
        self,
        op: TemporalOp,
        in_planes: int,
        out_planes: int,
        *,
        spatial: Spatial,
        temporal_stride: int,
        act: bool,
        norm: Norm = NORM,
    ) -> None:
        """Makes the unit.

        Args:
            op: Operator of a p3d kind.
            in_planes: Planes in.
            out_planes: Planes out, of S and of T.
            spatial: Spatial kernel, stride and padding.
            temporal_stride: Stride over frames.
            act: End with a ReLU, and have those before the sum.
            norm: Settings of the norms.

        Raises:
            SpecError: The kind is B, and the spatial convolution is not padded to keep the size, so that S and T would
                differ in theirs.
        """
        super().__init__()
        self.form = op.form
        parallel = op.form == "b"
        s_stride = 1 if op.form == "a" else temporal_stride
        t_stride = 1 if op.form == "c" else temporal_stride
        stride = spatial.stride
        if parallel and spatial.padded() != Spatial(kernel=spatial.kernel).padded():
            raise SpecError(f"{op.kind} needs a spatial convolution that keeps the size, so padding, but it has none")
        self.spatial = ConvNorm(
            spatial_conv(in_planes, out_planes, spatial, frames=s_stride),
            out_planes,
            act=act or op.form == "a",
            norm=norm,
        )
        self.temporal = ConvNorm(
            temporal_conv(
                in_planes if parallel else out_planes,
                out_planes,
                op.kernel,
                stride=(t_stride, stride, stride) if parallel else (t_stride, 1, 1),
                dilations=op.dilation,
            ),
            out_planes,
            act=act and (op.form == "a" or op.kind in PORT_KINDS or norm.relu_first),
            norm=norm,
        )
        summed = act and op.form != "a" and op.kind not in PORT_KINDS and not norm.relu_first
        self.act: nn.Module = nn.ReLU(inplace=True) if summed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_planes, T, H, W) to (N, out_planes, T', H', W')."""
        s = self.spatial(x)
        if self.form == "a":
            out: Tensor = self.temporal(s)
        elif self.form == "b":
            out = s + self.temporal(x)
        else:
            # Not in place: without act, the sum needs S as it was. With it, S is rectified already and this
            # is idle.
            out = s + self.temporal(s if isinstance(self.spatial.act, nn.ReLU) else F.relu(s))
        activated: Tensor = self.act(out)
        return activated


def temporal_unit(
    op: TemporalOp,
    in_planes: int,
    out_planes: int,
    *,
    midplanes: int = 0,
    spatial: Spatial = _USUAL,
    temporal_stride: int = 1,
    act: bool,
    norm: Norm = NORM,
) -> nn.Module:
    """Returns what stands for a spatial convolution, its norm and, with `act`, its ReLU.

    Args:
        op: The operator. A pointwise kind leaves this convolution as it is.
        in_planes: Planes in.
        out_planes: Planes out.
        midplanes: Planes between the two convolutions of `2plus1d`.
        spatial: Spatial kernel, stride and padding.
        temporal_stride: Stride over frames.
        act: ReLU behind; False in a unit that closes a residual branch.
        norm: Settings of the norms.

    Raises:
        SpecError: A channel-separated convolution would change the number of planes.
    """
    both = (temporal_stride, spatial.stride, spatial.stride)
    if op.kind == "2d" or op.kind in POINTWISE_KINDS:
        flat = spatial_conv(in_planes, out_planes, spatial, frames=temporal_stride)
        return ConvNorm(flat, out_planes, act=act, norm=norm)
    if op.kind == "3d" or op.kind in SEPARATED_KINDS:
        if op.kind in SEPARATED_KINDS and in_planes != out_planes:
            raise SpecError(f"{op.kind} must keep the number of planes, but is asked for {in_planes} to {out_planes}")
        conv = temporal_conv(
            in_planes,
            out_planes,
            op.kernel,
            stride=both,
            dilations=op.dilation,
            size=spatial.kernel,
            padding=spatial.padded(),
            groups=in_planes if op.kind in SEPARATED_KINDS else 1,
        )
        whole = MixedConv(conv, norm=norm) if op.kind == "csn_ip" else conv
        return ConvNorm(whole, out_planes, act=act, norm=norm)
    if op.kind == "2plus1d":
        ends = (in_planes, midplanes, out_planes)
        s_planes, t_planes = (ends[1:], ends[:2]) if op.time_first else (ends[:2], ends[1:])
        pair = Conv2Plus1D(
            spatial_conv(*s_planes, spatial),
            temporal_conv(*t_planes, op.kernel, stride=(temporal_stride, 1, 1), dilations=op.dilation),
            norm=norm,
            time_first=op.time_first,
        )
        return ConvNorm(pair, out_planes, act=act, norm=norm)
    return P3D(op, in_planes, out_planes, spatial=spatial, temporal_stride=temporal_stride, act=act, norm=norm)


class Branches(nn.Module):
    """Branches side by side on the same input, their planes joined in order."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        """Makes it; the branches are called branch0, branch1, ..."""
        super().__init__()
        self.num = len(branches)
        for i, branch in enumerate(branches):
            self.add_module(f"branch{i}", branch)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, T, H, W) to (N, sum of the branches' planes, T', H', W')."""
        return torch.cat([self.get_submodule(f"branch{i}")(x) for i in range(self.num)], dim=1)


class GridAverage(nn.Module):
    """The average of each cell of a grid over (T, H, W): adaptive pooling, in windows that every exporter can write.

    Cell i of k on an axis of n places is the average from place floor(i n / k) to place ceil((i + 1) n / k).
    """

    def __init__(self, grid: Triple) -> None:
        """Makes the layer.

        Args:
            grid: Cells over (T, H, W).
        """
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, T, H, W) to (N, C, *grid)."""
        sizes = x.shape[2:]
        if all(size % cells == 0 for size, cells in zip(sizes, self.grid, strict=True)):
            return F.avg_pool3d(x, [size // cells for size, cells in zip(sizes, self.grid, strict=True)])
        t, h, w = (
            [slice(i * n // k, -(-(i + 1) * n // k)) for i in range(k)] for n, k in zip(sizes, self.grid, strict=True)
        )
        cells = [x[:, :, i, j, k] for i in t for j in h for k in w]
        means = [F.avg_pool3d(cell, cell.shape[2:]).flatten(2) for cell in cells]
        return torch.cat(means, 2).reshape(*x.shape[:2], *self.grid)

    def extra_repr(self) -> str:
        """Returns the grid."""
        return f"grid={self.grid}"


class Classifier(nn.Module):
    """Pooling over space and time, dropout, linear classifier."""

    def __init__(self, in_planes: int, num_classes: int, *, dropout: float = 0.0, pool: str = "avg") -> None:
        """Makes the head.

        Args:
            in_planes: Planes into it.
            num_classes: Classes.
            dropout: Share of features dropped in training.
            pool: `avg` over space and time; `avg_max` is the average over space, then the maximum over time.
        """
        super().__init__()
        self.pool = nn.AdaptiveAvgPool3d(1) if pool == "avg" else None
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_planes, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_planes, T, H, W) to logits (N, num_classes)."""
        features = x.mean((3, 4)).amax(2) if self.pool is None else self.pool(x).flatten(1)
        out: Tensor = self.fc(self.dropout(features))
        return out


@runtime_checkable
class Residual(Protocol):
    """A module that adds a branch to what it sees."""

    def last_norms(self) -> list[nn.Module]:
        """Returns the norms at the end of its branch; where their weights are 0, it adds nothing."""


def initialise(module: nn.Module) -> None:
    """Draws weights as torchvision does: Kaiming normal by fan-out, norms at identity, linear by 0.01, biases at 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm3d):
            layer.reset_parameters()
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def zero_last_norms(module: nn.Module) -> None:
    """Sets the weights of the last norm of every residual branch to 0 (Goyal et al. 2017, section 5.1)."""
    for layer in module.modules():
        if isinstance(layer, Residual):
            for norm in layer.last_norms():
                nn.init.zeros_(norm.get_parameter("weight"))


def end_norms(unit: nn.Module) -> list[nn.Module]:
    """Returns the norms that a unit of this module ends in; those of P3D-B and C are two, whose outputs are added."""
    if isinstance(unit, P3D):
        return [*end_norms(unit.spatial), *end_norms(unit.temporal)] if unit.form != "a" else end_norms(unit.temporal)
    assert isinstance(unit, ConvNorm)
    return [unit.norm]
