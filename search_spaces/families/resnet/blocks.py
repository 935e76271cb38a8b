"""Parts of residual networks as values: stem, block, stage, and their canonical forms."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

from search_spaces.errors import SpecError, at_least, one_of
from search_spaces.operators import (
    ADDED,
    ATTENTIONS,
    MIDPLANES,
    POINTWISE_KINDS,
    PORT_KINDS,
    SEPARATED_KINDS,
    Attention,
    Kind,
    TemporalOp,
    canonical_op,
    midplanes,
)

BlockKind = Literal["basic", "bottleneck"]
StemKind = Literal["conv", "2plus1d"]
Pool = Literal["none", "max"]
StrideOn = Literal["3x3", "1x1"]
Shortcut = Literal["conv", "pad"]
SHORTCUTS: tuple[Shortcut, ...] = ("conv", "pad")

EXPANSION = {"basic": 1, "bottleneck": 4}
_SPATIAL = 9  # weights of a 3x3 kernel
# A basic block has no 1x1x1 to hold time or to mix planes.
BOTTLENECK_KINDS: tuple[Kind, ...] = (*SEPARATED_KINDS, *POINTWISE_KINDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One residual block.

    Attributes:
        kind: `basic` is two 3x3 units; `bottleneck` one between two 1x1x1, with four times `width` planes
            out.
        width: Planes of the 3x3 units.
        spatial_stride: Stride over rows and columns, on the first 3x3 unit and the shortcut.
        temporal_stride: Stride over frames, at the same places.
        temporal: Operator of the 3x3 units.
        stride_on: Where a bottleneck has its strides: on the `3x3` unit (as torchvision, "v1.5") or on the first `1x1`
            (He et al. 2016, Caffe; P3D).
        shortcut: Where planes or size change: `conv`, a 1x1x1 convolution and norm (type B of He et al. 2016); `pad`,
            the input at every stride-th place, with zeros for the planes that it lacks (type A).
        attention: At the end of the residual branch, before the sum: `se` squeeze-excitation, `gate` that of S3D-G;
            `nonlocal` is a non-local block behind the sum.
    """

    kind: BlockKind
    width: int
    spatial_stride: int
    temporal_stride: int
    temporal: TemporalOp
    stride_on: StrideOn = field(default="3x3", metadata=ADDED)
    attention: Attention = field(default="none", metadata=ADDED)
    shortcut: Shortcut = field(default="conv", metadata=ADDED)

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        one_of("kind", self.kind, tuple(EXPANSION))
        at_least("width", self.width, 1)
        at_least("spatial_stride", self.spatial_stride, 1)
        at_least("temporal_stride", self.temporal_stride, 1)
        one_of("stride_on", self.stride_on, ("3x3", "1x1"))
        one_of("attention", self.attention, ATTENTIONS)
        one_of("shortcut", self.shortcut, SHORTCUTS)
        if self.kind == "basic" and self.temporal.kind in BOTTLENECK_KINDS:
            raise SpecError(f"temporal.kind {self.temporal.kind} needs the 1x1x1 convolutions of a bottleneck")

    @property
    def out_planes(self) -> int:
        """Planes that the block gives."""
        return self.width * EXPANSION[self.kind]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stem:
    """The layers before the first residual block.

    Attributes:
        kind: `conv` is one convolution; `2plus1d` a spatial one, BN, ReLU and a temporal one.
        width: Planes out.
        midplanes: Planes between the two convolutions of `2plus1d`; unused by `conv`.
        temporal_kernel: In frames; odd where padded.
        spatial_kernel: In pixels; odd.
        spatial_stride: Stride over rows and columns.
        temporal_stride: Stride over frames.
        temporal_padding: Pad so that frames are kept; without, a kernel of all L frames makes them one (R2D).
        pool: `max` appends a max pool of 3x3 pixels and `pool_frames` frames, of stride 2 in space and `pool_frames` in
            time.
        pool_frames: Frames that the pool makes one.
    """

    kind: StemKind = "conv"
    width: int
    midplanes: int = 0
    temporal_kernel: int
    spatial_kernel: int
    spatial_stride: int
    temporal_stride: int = 1
    temporal_padding: bool = True
    pool: Pool = "none"
    pool_frames: int = field(default=1, metadata=ADDED)

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        one_of("kind", self.kind, ("conv", "2plus1d"))
        one_of("pool", self.pool, ("none", "max"))
        for name in ("width", "temporal_kernel", "spatial_kernel", "spatial_stride", "temporal_stride", "pool_frames"):
            at_least(name, getattr(self, name), 1)
        at_least("midplanes", self.midplanes, 1 if self.kind == "2plus1d" else 0)
        if self.spatial_kernel % 2 == 0:
            raise SpecError(f"spatial_kernel must be odd, but is {self.spatial_kernel}")
        if self.temporal_padding and self.temporal_kernel % 2 == 0:
            raise SpecError(f"temporal_kernel must be odd where it is padded, but is {self.temporal_kernel}")

    @property
    def min_frames(self) -> int:
        """Frames that a clip has to have: those of an unpadded kernel, as often as the pool asks for."""
        frames = self.pool_frames if self.pool == "max" else 1
        return (1 if self.temporal_padding else self.temporal_kernel) + (frames - 1) * self.temporal_stride


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Blocks at one level of the network (conv2, conv3, ... in the papers).

    Attributes:
        blocks: The blocks in order.
        time_pool: Frames that a max pool behind them makes one (P3D, I3D), the rest at the end of a clip too; 1 is no
            pool.
    """

    blocks: tuple[Block, ...]
    time_pool: int = field(default=1, metadata=ADDED)

    def __post_init__(self) -> None:
        """Raises SpecError if there is no block."""
        at_least("time_pool", self.time_pool, 1)
        if not self.blocks:
            raise SpecError("blocks must hold at least 1 block, but is empty")


def rectified_first(op: TemporalOp) -> TemporalOp:
    """The operator where ReLUs come before norms, so that P3D blocks of the port are the authors'."""
    return replace(op, kind=f"p3d_{op.form}") if op.kind in PORT_KINDS else op  # type: ignore[arg-type]


def block_midplanes(block: Block, in_planes: int) -> tuple[int, ...]:
    """Midplanes of every 3x3 unit of a block, were it (2+1)D.

    Args:
        block: The block.
        in_planes: Planes into it.

    Returns:
        Two numbers for a basic block, one for a bottleneck. The shared convention takes torchvision's, whose
        bottleneck computes M from the planes into the block although its 3x3 unit sees `width` planes.
    """
    kernel, width = block.temporal.kernel, block.width
    ins = (in_planes, width) if block.kind == "basic" else (width,)
    if block.temporal.midplanes == "equal":
        return (width,) * len(ins)
    # The convolution that comes first sees the planes in: hw weights for each if it is the spatial one.
    first, last = (kernel, _SPATIAL) if block.temporal.time_first else (_SPATIAL, kernel)
    if block.temporal.midplanes == "shared":
        return (midplanes(last, in_planes, width, first),) * len(ins)
    return tuple(midplanes(last, planes, width, first) for planes in ins)


def has_projection(block: Block, in_planes: int) -> bool:
    """Returns whether the shortcut has to change planes or size, given the planes into the block."""
    return in_planes != block.out_planes or block.spatial_stride > 1 or block.temporal_stride > 1


@lru_cache(maxsize=65536)
def canonical_block(block: Block, in_planes: int) -> Block:
    """The block without what has no effect, given the planes into it."""
    op = canonical_op(block.temporal)
    strided = block.spatial_stride > 1 or block.temporal_stride > 1
    stride_on = block.stride_on if block.kind == "bottleneck" and strided else "3x3"
    if op.kind == "2plus1d" and op.midplanes != "per_conv":
        # One name for each set of planes: the paper's, then torchvision's.
        for convention in MIDPLANES[: MIDPLANES.index(op.midplanes)]:
            other = replace(op, midplanes=convention)
            if block_midplanes(replace(block, temporal=other), in_planes) == block_midplanes(block, in_planes):
                op = other
                break
    shortcut = block.shortcut if has_projection(block, in_planes) else "conv"
    if op.kind == "t1x1_all" and (shortcut == "pad" or not has_projection(block, in_planes)):
        op = replace(op, kind="t1x1_both")
    return replace(block, temporal=op, stride_on=stride_on, shortcut=shortcut)


@lru_cache(maxsize=4096)
def canonical_stem(stem: Stem) -> Stem:
    """The stem without what has no effect."""
    return replace(
        stem,
        midplanes=stem.midplanes if stem.kind == "2plus1d" else 0,
        pool_frames=stem.pool_frames if stem.pool == "max" else 1,
        temporal_padding=stem.temporal_padding or stem.temporal_kernel == 1,
    )
