"""Parts of Inception-v1 networks as values: the first layers, mixed blocks, stages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from search_spaces.errors import SpecError, at_least, one_of
from search_spaces.families.inception.units import (
    FramePool,
    Separable,
    attended,
    canonical,
    check_op,
    conv,
)
from search_spaces.graph import GraphBuilder, Unit
from search_spaces.operators import ATTENTIONS, FLAT, PORT_KINDS, Attention, Kind, TemporalOp
from search_spaces.parts import Pool
from search_spaces.spec import scale

KINDS: tuple[Kind, ...] = ("2d", "3d", "2plus1d", "p3d_a", "p3d_b", "p3d_c", *PORT_KINDS)
WIDTHS = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
_SIZES = ("b0", "b1_reduce", "b1", "b2_reduce", "b2", "b3")


@dataclass(frozen=True, kw_only=True, slots=True)
class First:
    """Layer conv1: 7x7 of stride 2.

    Attributes:
        width: Planes out.
        temporal: Its operator.
        temporal_stride: Over frames.
    """

    width: int
    temporal: TemporalOp
    temporal_stride: int

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        at_least("width", self.width, 1)
        at_least("temporal_stride", self.temporal_stride, 1)
        check_op(self.temporal, KINDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Second:
    """Layer conv2c: 3x3.

    Attributes:
        width: Planes out.
        temporal: Its operator.
        attention: Behind it.
    """

    width: int
    temporal: TemporalOp
    attention: Attention = "none"

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        at_least("width", self.width, 1)
        check_op(self.temporal, KINDS)
        one_of("attention", self.attention, ATTENTIONS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixed:
    """A mixed block: four branches side by side.

    Attributes:
        b0: Planes of the 1x1x1 convolution of branch 0.
        b1_reduce: Planes of the 1x1x1 convolution of branch 1.
        b1: Planes of the 3x3 convolution behind it.
        b2_reduce: Planes of the 1x1x1 convolution of branch 2.
        b2: Planes of the 3x3 convolution behind it.
        b3: Planes of the 1x1x1 convolution behind the 3x3x3 max pool of branch 3. The pool sees three frames in 2D
            blocks, too, as in the 2D networks that the S3D paper measures.
        temporal: Operator of the 3x3 convolutions.
        all_branches: Branches 0 and 3 have time, too: the operator stands at their 1x1x1 convolutions as well.
        attention: `gate` behind each branch (S3D-G); `se` and `nonlocal` behind the block.
    """

    b0: int
    b1_reduce: int
    b1: int
    b2_reduce: int
    b2: int
    b3: int
    temporal: TemporalOp
    all_branches: bool = False
    attention: Attention = "none"

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        for name in _SIZES:
            at_least(name, getattr(self, name), 1)
        check_op(self.temporal, KINDS)
        one_of("attention", self.attention, ATTENTIONS)

    @property
    def widths(self) -> tuple[int, ...]:
        """Planes of the six convolutions."""
        return self.b0, self.b1_reduce, self.b1, self.b2_reduce, self.b2, self.b3

    @property
    def out_planes(self) -> int:
        """Planes that the block gives."""
        return self.b0 + self.b1 + self.b2 + self.b3


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A max pool that halves rows and columns, and the mixed blocks behind it.

    Attributes:
        pool: What the pool does to frames; it is 3x3 over rows and columns, in the last stage 2x2.
        blocks: The blocks in order.
    """

    pool: FramePool
    blocks: tuple[Mixed, ...]

    def __post_init__(self) -> None:
        """Raises SpecError if there is no block."""
        if not self.blocks:
            raise SpecError("blocks must hold at least 1 block, but is empty")


@dataclass(frozen=True, slots=True)
class MixedUnit(Unit):
    """A mixed block: its branches, their planes joined, and its attention."""

    block: Mixed
    in_planes: int
    separable: Separable
    momentum: float

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws its layers."""
        b, planes = self.block, self.in_planes
        op = b.temporal
        single = op if b.all_branches else FLAT

        def make(in_planes: int, out_planes: int, op: TemporalOp = FLAT, size: int = 1) -> Unit:
            form, momentum = self.separable, self.momentum
            return conv(in_planes, out_planes, op, kernel=(size, size), momentum=momentum, separable=form)

        branches = (
            (make(planes, b.b0, single),),
            (make(planes, b.b1_reduce), make(b.b1_reduce, b.b1, op, 3)),
            (make(planes, b.b2_reduce), make(b.b2_reduce, b.b2, op, 3)),
            (Pool(kernel=(3, 3, 3), stride=(1, 1, 1), padding=(1, 1, 1)), make(planes, b.b3, single)),
        )
        whole = attended(branches, (b.b0, b.b1, b.b2, b.b3), b.attention)
        return whole.draw(builder, *inputs, name=name)


@lru_cache(maxsize=1024)
def pool_unit(pool: FramePool, *, last: bool = False, same: bool = False) -> Pool:
    """Returns the max pool: 3x3, in front of the last stage 2x2; with SAME padding if `same`."""
    size, pad = (2, 0) if last else (3, 1)
    padding = (pool.padding, pad, pad)
    return Pool(kernel=(pool.kernel, size, size), stride=(pool.stride, 2, 2), padding=padding, same=same)


@lru_cache(maxsize=4096)
def canonical_first(layer: First, separable: Separable) -> First:
    """The layer with its canonical operator."""
    return replace(layer, temporal=canonical(layer.temporal, separable))


@lru_cache(maxsize=4096)
def canonical_second(layer: Second, separable: Separable) -> Second:
    """The layer with its canonical operator."""
    return replace(layer, temporal=canonical(layer.temporal, separable))


@lru_cache(maxsize=65536)
def canonical_stage(stage: Stage, separable: Separable) -> Stage:
    """The stage with canonical operators; a 2D block has no time in any branch."""
    blocks = []
    for block in stage.blocks:
        op = canonical(block.temporal, separable)
        blocks.append(replace(block, temporal=op, all_branches=block.all_branches and op != FLAT))
    return replace(stage, blocks=tuple(blocks))


def scaled_block(block: Mixed, multiplier: float, multiple: int) -> Mixed:
    """Returns the block with its widths times a multiplier."""
    b0, r1, b1, r2, b2, b3 = (scale(width, multiplier, multiple) for width in block.widths)
    return replace(block, b0=b0, b1_reduce=r1, b1=b1, b2_reduce=r2, b2=b2, b3=b3)
