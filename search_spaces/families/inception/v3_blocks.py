"""Parts of Inception-v3 networks as values: layers of the stem, and mixed blocks of five kinds.

Blocks as torchvision has them (Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision",
https://arxiv.org/abs/1512.00567); how they get time as in the report "Reproducing Action Recognition Experiments with
Modern Classification Networks" (Gupta, Dharmaraj and Hayes), section 5 and table 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from search_spaces.errors import SpecError, at_least, one_of
from search_spaces.families.inception.units import canonical, check_op
from search_spaces.operators import ATTENTIONS, FLAT, KERNELS, Attention, Kind, TemporalOp
from search_spaces.spec import scale

MixedKind = Literal["type1", "reduction1", "type2", "reduction2", "type3"]
Pair = Literal["appended", "inflated", "each", "none"]
Reach = Literal["spatial", "kernel"]
Padding = Literal["valid", "same"]

# Not p3d_b: its temporal path would need the padding that the spatial one does not have.
KINDS: tuple[Kind, ...] = ("2d", "3d", "2plus1d", "p3d_a", "p3d_c", "p3d_c_port")
PAIRS: tuple[Pair, ...] = ("appended", "inflated", "each", "none")
REACHES: tuple[Reach, ...] = ("spatial", "kernel")
PADDINGS: tuple[Padding, ...] = ("valid", "same")
_NUM_WIDTHS = {"type1": 7, "reduction1": 4, "type2": 5, "reduction2": 4, "type3": 7}
REDUCTIONS = ("reduction1", "reduction2")
# Blocks with pairs of 1x7 and 7x1, and those with any kernel of more than 3.
PAIRED = ("type2", "reduction2")
_WIDE = ("type1", *PAIRED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A 3x3 convolution of the stem.

    Attributes:
        width: Planes out.
        temporal: Its operator.
        temporal_stride: Over frames.
    """

    width: int
    temporal: TemporalOp
    temporal_stride: int = 1

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        at_least("width", self.width, 1)
        at_least("temporal_stride", self.temporal_stride, 1)
        check_op(self.temporal, KINDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixed:
    """A mixed block: branches side by side, the last of them a 3x3 pool.

    Attributes:
        kind: `type1` (torchvision's A): 1x1 | 1x1, 5x5 | 1x1, 3x3, 3x3 | average, 1x1.
            `reduction1` (B): 3x3/2 | 1x1, 3x3, 3x3/2 | max/2.
            `type2` (C): 1x1 | 1x1, pair | 1x1, pair, pair | average, 1x1, where a pair is 1x7 and 7x1.
            `reduction2` (D): 1x1, 3x3/2 | 1x1, pair, 3x3/2 | max/2.
            `type3` (E): 1x1 | 1x1, {1x3, 3x1} | 1x1, 3x3, {1x3, 3x1} | average, 1x1.
        widths: Planes of its convolutions in this order; those of `type2` are of the first 1x1, of all inside the two
            pair branches, of the end of each of them, and of the last 1x1; in `reduction2` a pair keeps the planes.
        temporal: Operator of the 3x3 and 5x5 convolutions, and of 1x3 and 3x1.
        pair: How a pair gets time. `appended`: the operator stands at its second convolution, so that `p3d_a` makes
            1x1x7, 1x7x1, 7x1x1 (the report's). `inflated`: 7x1x7, 7x7x1, whatever the operator (the report's future
            work). `each`: the operator stands at both. `none`: 2D.
        reach: Temporal kernel of convolutions of 5 and 7 pixels, unless the operator's is 1: `spatial` is 5 and 7
            (the report's), `kernel` the operator's.
        pool_kernel: Temporal kernel of the pool, odd. In a reduction that strides over frames without padding, it is
            the operator's, so that all branches give as many frames.
        temporal_stride: Over frames, of a reduction.
        padding: Of the convolutions and the pool with which a reduction strides: `valid` is none over rows and columns,
            nor over frames where it strides over them; a convolution without padding over frames has no dilation.
        attention: `gate` behind each branch (S3D-G); `se` and `nonlocal` behind the block.
    """

    kind: MixedKind
    widths: tuple[int, ...]
    temporal: TemporalOp
    pair: Pair = "appended"
    reach: Reach = "spatial"
    pool_kernel: int = 1
    temporal_stride: int = 1
    padding: Padding = "valid"
    attention: Attention = "none"

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        one_of("kind", self.kind, tuple(_NUM_WIDTHS))
        one_of("pair", self.pair, PAIRS)
        one_of("reach", self.reach, REACHES)
        one_of("pool_kernel", self.pool_kernel, KERNELS)
        one_of("padding", self.padding, PADDINGS)
        one_of("attention", self.attention, ATTENTIONS)
        check_op(self.temporal, KINDS)
        if len(self.widths) != _NUM_WIDTHS[self.kind] or min(self.widths) < 1:
            num = _NUM_WIDTHS[self.kind]
            raise SpecError(f"widths of {self.kind} must be {num} of at least 1, but are {list(self.widths)}")
        at_least("temporal_stride", self.temporal_stride, 1)
        if self.temporal_stride > 1 and self.kind not in REDUCTIONS:
            raise SpecError(f"temporal_stride of {self.kind} must be 1, but is {self.temporal_stride}")

    @property
    def unpadded(self) -> bool:
        """Whether it strides over frames without padding."""
        return self.kind in REDUCTIONS and self.padding == "valid" and self.temporal_stride > 1

    @property
    def stride_op(self) -> TemporalOp:
        """Operator of the convolutions with which a reduction strides."""
        return replace(self.temporal, dilation=(1,)) if self.unpadded else self.temporal

    def sized(self, size: int) -> TemporalOp:
        """Returns the operator of a convolution whose kernel is `size` pixels wide."""
        op = self.temporal
        return replace(op, kernel=size) if self.reach == "spatial" and op.kernel > 1 and op != FLAT else op

    def pair_ops(self) -> tuple[TemporalOp, TemporalOp]:
        """Returns the operators of the two convolutions of a pair."""
        op = self.sized(7)
        if self.pair == "none" or op == FLAT:
            return FLAT, FLAT
        if self.pair == "inflated":
            whole = canonical(TemporalOp(kind="3d", kernel=op.kernel, dilation=op.dilation))
            return whole, whole
        return (FLAT, op) if self.pair == "appended" else (op, op)

    def out_planes(self, in_planes: int) -> int:
        """Returns the planes that the block gives."""
        return sum(branch_planes(self, in_planes))


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Mixed blocks at one size; the later two stages begin with a reduction."""

    blocks: tuple[Mixed, ...]

    def __post_init__(self) -> None:
        """Raises SpecError if there is no block."""
        if not self.blocks:
            raise SpecError("blocks must hold at least 1 block, but is empty")


def branch_planes(block: Mixed, in_planes: int) -> tuple[int, ...]:
    """Returns the planes of each branch; a max pool keeps those that come in."""
    w = block.widths
    if block.kind == "type1":
        return w[0], w[2], w[5], w[6]
    if block.kind == "type2":
        return w[0], w[2], w[3], w[4]
    if block.kind == "type3":
        return w[0], 2 * w[2], 2 * w[5], w[6]
    return (w[0], w[3], in_planes) if block.kind == "reduction1" else (w[1], w[3], in_planes)


def stride_reach(op: TemporalOp) -> int:
    """Frames that a convolution with which a reduction strides looks at, where it is not padded over them.

    The stride of P3D-C is on its spatial convolution.
    """
    return 1 if op.kind in ("2d", "p3d_c", "p3d_c_port") else op.kernel


@lru_cache(maxsize=65536)
def canonical_block(block: Mixed) -> Mixed:
    """The block without what has no effect."""
    block = replace(block, temporal=canonical(block.temporal))
    kind = block.kind
    if kind not in REDUCTIONS:
        block = replace(block, padding="valid")
    if kind not in PAIRED or block.temporal == FLAT:
        block = replace(block, pair="appended")
    elif block.pair == "inflated" and block.temporal.kernel == 1:
        block = replace(block, pair="none")
    elif block.pair == "each" and block.temporal.kind == "3d":
        block = replace(block, pair="inflated")
    if kind == "type2":
        block = _canonical_pairs(block)
    elif kind == "reduction2" and block.pair == "none" and block.unpadded:
        block = replace(block, temporal=canonical(block.stride_op))
    op = block.temporal
    size = 5 if kind == "type1" else 7
    if op == FLAT or op.kernel in (1, size) or kind not in _WIDE or block.pair == "none":
        block = replace(block, reach="spatial")
    return replace(block, pool_kernel=stride_reach(op)) if block.unpadded else block


def _canonical_pairs(block: Mixed) -> Mixed:
    """The block of `type2`, whose operator is that of its pairs alone."""
    op = block.temporal
    if block.pair == "none":
        return replace(block, temporal=FLAT, pair="appended", reach="spatial")
    if block.pair == "inflated":
        op = canonical(TemporalOp(kind="3d", kernel=op.kernel, dilation=op.dilation))
    if op != FLAT and op.kernel > 1 and (block.reach == "spatial" or op.kernel == 7):
        # The size of the pair is the temporal kernel, whatever the operator says.
        return replace(block, temporal=replace(op, kernel=3), reach="spatial")
    return replace(block, temporal=op)


@lru_cache(maxsize=4096)
def canonical_layer(layer: Layer) -> Layer:
    """The layer with its canonical operator."""
    return replace(layer, temporal=canonical(layer.temporal))


def scaled_block(block: Mixed, multiplier: float, multiple: int) -> Mixed:
    """Returns the block with its widths times a multiplier."""
    return replace(block, widths=tuple(scale(width, multiplier, multiple) for width in block.widths))
