"""Units that families share, as values: what a network is a chain of. Torch is imported only where they are built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from search_spaces.flow import (
    Flow,
    Linear,
    Mapped,
    NonLocal,
    Pooled,
    Shape,
    classified,
    dropped,
    gated,
    squeezed,
    temporal_steps,
)
from search_spaces.operators import FLAT, NONLOCALS, Attention, TemporalOp, squeezed_planes
from search_spaces.spec import Unit

if TYPE_CHECKING:
    from torch import nn

Triple = tuple[int, int, int]
HeadPool = Literal["avg", "avg_max"]

HEAD_POOLS: tuple[HeadPool, ...] = ("avg", "avg_max")


@dataclass(frozen=True, kw_only=True, slots=True)
class Conv:
    """A spatial convolution with its temporal form, norm and ReLU; see `layers.temporal_unit`.

    Attributes:
        in_planes: Planes in.
        out_planes: Planes out.
        kernel: Rows and columns of the spatial kernel.
        op: How it gets time.
        spatial_stride: Stride over rows and columns.
        temporal_stride: Stride over frames.
        padding: Rows and columns of zeros on each side; None keeps the size.
        midplanes: Planes between the two convolutions of `2plus1d`.
        act: ReLU behind.
        eps: Of the norms.
        momentum: Of the norms.
    """

    in_planes: int
    out_planes: int
    kernel: tuple[int, int] = (3, 3)
    op: TemporalOp = FLAT
    spatial_stride: int = 1
    temporal_stride: int = 1
    padding: tuple[int, int] | None = None
    midplanes: int = 0
    act: bool = True
    eps: float = 1e-5
    momentum: float = 0.1

    def build(self) -> nn.Module:
        """Returns the module."""
        from search_spaces.convolutions import Spatial
        from search_spaces.layers import Norm, temporal_unit

        return temporal_unit(
            self.op,
            self.in_planes,
            self.out_planes,
            midplanes=self.midplanes,
            spatial=Spatial(kernel=self.kernel, stride=self.spatial_stride, padding=self.padding),
            temporal_stride=self.temporal_stride,
            act=self.act,
            norm=Norm(eps=self.eps, momentum=self.momentum),
        )

    def whole(self, shape: Shape) -> Flow:
        """Returns what it is made of, for its cost."""
        return Flow(
            temporal_steps(
                self.op,
                self.in_planes,
                self.out_planes,
                midplanes=self.midplanes,
                kernel=self.kernel,
                stride=self.spatial_stride,
                padding=self.padding,
                temporal_stride=self.temporal_stride,
                act=self.act,
            )
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """A max or average pool over (T, H, W).

    Attributes:
        kind: `max` or `avg`.
        kernel: Kernel over (T, H, W).
        stride: Stride over (T, H, W).
        padding: Padding on each side of (T, H, W).
        ceil: Round sizes up instead of down.
    """

    kind: Literal["max", "avg"] = "max"
    kernel: Triple
    stride: Triple
    padding: Triple = (0, 0, 0)
    ceil: bool = False

    def build(self) -> nn.Module:
        """Returns the module."""
        from torch import nn

        pool = nn.MaxPool3d if self.kind == "max" else nn.AvgPool3d
        return pool(self.kernel, stride=self.stride, padding=self.padding, ceil_mode=self.ceil)

    def whole(self, shape: Shape) -> Flow:
        """Returns what it is made of, for its cost."""
        return Flow((Pooled(self.kind, self.kernel, self.stride, self.padding, self.ceil),))


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain:
    """Units one after the other, under the names 0, 1, ..."""

    parts: tuple[Unit, ...]

    def build(self) -> nn.Module:
        """Returns the module."""
        from torch import nn

        return nn.Sequential(*(part.build() for part in self.parts))


@dataclass(frozen=True, kw_only=True, slots=True)
class Concat:
    """Branches side by side, each a chain of units under the names `branch0.0`, ...; their planes are joined."""

    branches: tuple[tuple[Unit, ...], ...]

    def build(self) -> nn.Module:
        """Returns the module."""
        from search_spaces.layers import Branches

        return Branches([Chain(parts=parts).build() for parts in self.branches])


@dataclass(frozen=True, slots=True)
class Attend:
    """Attention on planes; see `search_spaces.attention`.

    Attributes:
        kind: Its kind.
        planes: Planes in and out.
    """

    kind: Attention
    planes: int

    def build(self) -> nn.Module:
        """Returns the module."""
        from search_spaces.attention import attention_unit

        return attention_unit(self.kind, self.planes)

    def whole(self, shape: Shape) -> Flow:
        """Returns what it is made of, for its cost."""
        if self.kind == "se":
            return Flow((squeezed(self.planes, squeezed_planes(self.planes)),))
        if self.kind == "gate":
            return Flow((gated(self.planes),))
        return Flow((NonLocal(self.planes, bias=self.kind == "nonlocal"),) if self.kind in NONLOCALS else ())


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """Pooling over space and time, dropout, linear classifier.

    Attributes:
        in_planes: Planes in.
        num_classes: Classes.
        dropout: Share of features dropped in training.
        pool: `avg` over space and time, or `avg_max`: average over space, then maximum over time.
    """

    in_planes: int
    num_classes: int
    dropout: float = 0.0
    pool: HeadPool = "avg"

    def build(self) -> nn.Module:
        """Returns the module."""
        from search_spaces.layers import Classifier

        return Classifier(self.in_planes, self.num_classes, dropout=self.dropout, pool=self.pool)

    def whole(self, shape: Shape) -> Flow:
        """Returns what it is made of, for its cost."""
        if self.pool == "avg":
            return Flow(classified(shape[0], self.in_planes, self.num_classes, dropout=self.dropout))
        # What is largest over time is looked for in the maps' means, and found by being equal to it.
        peak = Mapped(shape[:1], keeps_input=True, keeps_output=True)
        drop = dropped(shape[:1], self.dropout)
        return Flow((Mapped(shape[:2]), peak, *drop, Linear(self.in_planes, self.num_classes)))
