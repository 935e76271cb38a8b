"""Labels that choices in residual networks are written as, and networks from them, stage by stage.

Groups are numbered as in Tran et al. 2018: conv1 is the stem and conv2 the first residual stage.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from search_spaces.domains import Scalar
from search_spaces.errors import SpecError
from search_spaces.families.resnet.blocks import (
    EXPANSION,
    Block,
    BlockKind,
    Shortcut,
    Stage,
    Stem,
    StrideOn,
    canonical_block,
    canonical_stem,
    rectified_first,
)
from search_spaces.families.resnet.spec import ResNetSpec
from search_spaces.operators import NORM_EPS, NORM_MOMENTUM, Attention, TemporalOp, canonical_op
from search_spaces.parts import HeadPool


@lru_cache(maxsize=65536)
def _block(
    kind: BlockKind, width: int, s_stride: int, op: TemporalOp, on: StrideOn, attention: Attention, shortcut: Shortcut
) -> Block:
    return Block(
        kind=kind,
        width=width,
        spatial_stride=s_stride,
        temporal_stride=1,
        temporal=op,
        stride_on=on,
        attention=attention,
        shortcut=shortcut,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Extras:
    """What only some residual networks have.

    Attributes:
        stride_on: Where a bottleneck has its strides, by stage and block index.
        attention: Attention, by stage and block index.
        pools: How many frames the pool behind each stage makes one; empty where there is none.
        head: How the classifier pools.
        first_stride: Spatial stride of the first stage.
        shortcut: Where planes or size change.
        norm_eps: Of the norms.
        norm_momentum: Of the norms.
        zero_init: Whether residual branches add nothing at first, as published.
        relu_first: ReLUs come before norms.
    """

    stride_on: Callable[[int, int], StrideOn] = lambda s, b: "3x3"
    attention: Callable[[int, int], Attention] = lambda s, b: "none"
    pools: Sequence[int] = ()
    head: HeadPool = "avg"
    first_stride: int = 1
    shortcut: Shortcut = "conv"
    norm_eps: float = NORM_EPS
    norm_momentum: float = NORM_MOMENTUM
    zero_init: bool = False
    relu_first: bool = False


def make_resnet(
    *,
    kind: BlockKind = "basic",
    counts: Sequence[int],
    widths: Sequence[int],
    stem: Stem,
    op_at: Callable[[int, int, int], TemporalOp],
    strides: Callable[[Sequence[bool]], Sequence[int]] = lambda groups: (1,) * len(groups),
    extras: Extras = Extras(),
) -> ResNetSpec:
    """Returns a canonical spec: every stage but the first halves the image in its first block.

    Args:
        kind: Kind of all blocks.
        counts: Blocks of each stage.
        widths: Width of each stage.
        stem: The stem.
        op_at: Operator by stage index, block index in the stage, and global block index.
        strides: Temporal stride of each stage, given which stages begin with a temporal operator; 1 unless given.
        extras: What only some networks have.
    """
    planes, index = stem.width, 0
    stages: list[list[Block]] = []
    # A block's canonical form needs its temporal stride, which asks whether its operator has time.
    inputs = []
    for s, (count, width) in enumerate(zip(counts, widths, strict=True)):
        blocks = []
        for b in range(count):
            stride = 1 if b > 0 else 2 if s > 0 else extras.first_stride
            on, attention = extras.stride_on(s, b), extras.attention(s, b)
            op = rectified_first(op_at(s, b, index)) if extras.relu_first else op_at(s, b, index)
            blocks.append(_block(kind, width, stride, op, on, attention, extras.shortcut))
            inputs.append(planes)
            planes, index = width * EXPANSION[kind], index + 1
        stages.append(blocks)
    per_stage = strides([canonical_op(blocks[0].temporal).kind != "2d" for blocks in stages])
    for blocks, stride in zip(stages, per_stage, strict=True):
        if stride != 1:
            blocks[0] = _with_stride(blocks[0], stride)
    planes_in = iter(inputs)
    pools = extras.pools or (1,) * len(stages)
    return ResNetSpec(
        stem=canonical_stem(stem),
        stages=tuple(
            Stage(blocks=tuple(canonical_block(block, next(planes_in)) for block in blocks), time_pool=pool)
            for blocks, pool in zip(stages, pools, strict=True)
        ),
        head=extras.head,
        norm_eps=extras.norm_eps,
        norm_momentum=extras.norm_momentum,
        zero_init=extras.zero_init,
        relu_first=extras.relu_first,
    )


@lru_cache(maxsize=65536)
def _with_stride(block: Block, stride: int) -> Block:
    return replace(block, temporal_stride=stride)


def of_depth(depth: int, *, width: int = 64, **parts: Any) -> ResNetSpec:
    """Returns a network of one of the usual depths, whose stages double in width.

    Args:
        depth: One of `DEPTHS`.
        width: Of the first stage.
        parts: The others that `make_resnet` takes.
    """
    kind, counts = depth_blocks(depth)
    widths = tuple(width * 2**s for s in range(len(counts)))
    return make_resnet(kind=kind, counts=counts, widths=widths, **parts)


DEPTHS: dict[int, tuple[BlockKind, tuple[int, ...]]] = {
    10: ("basic", (1, 1, 1, 1)),
    18: ("basic", (2, 2, 2, 2)),
    26: ("basic", (3, 3, 3, 3)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
PLACEMENTS = ("all", "none", "mc2", "mc3", "mc4", "mc5", "rmc2", "rmc3", "rmc4", "rmc5")
# Placements whose k is a choice of its own.
HEAVY = ("top_heavy", "bottom_heavy")
PLACEMENT_FORMS = (*PLACEMENTS, "top_heavy:k", "bottom_heavy:k", "0,1,4", "stem,0,1,4")
STEM_FORMS = ("3x7x7", "1x5x5", "1x3x3/1", "3x7x7/2+max", "1x7x7/2+max2", "16x7x7-unpadded", "r2plus1d")

_STEM = re.compile(r"(\d+)x(\d+)x(\d+)(?:/([124]))?(-unpadded)?(?:\+max([2-9]?))?")
_HEAVY = re.compile(r"(top|bottom)_heavy:(\d+)")
_EXPLICIT = re.compile(r"(stem|\d+)(,\d+)*")
_INTS = re.compile(r"\d+(-\d+)*")
_BLOCKS = re.compile(r"(b?)(\d+(?:-\d+)+)")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where time is.

    Attributes:
        blocks: Global indices of the blocks with a temporal operator.
        stem: Whether the stem may be temporal.
    """

    blocks: frozenset[int]
    stem: bool


@lru_cache(maxsize=1024)
def depth_blocks(depth: Scalar) -> tuple[BlockKind, tuple[int, ...]]:
    """Returns kind and number of blocks of each stage.

    Args:
        depth: 10, 18, 26, 34 (basic blocks), 50, 101, 152 (bottlenecks), or blocks per stage: `1-2-1` of basic ones,
            `b1-2-1` of bottlenecks.

    Raises:
        SpecError: Neither of these.
    """
    if isinstance(depth, int) and depth in DEPTHS:
        return DEPTHS[depth]
    if isinstance(depth, str) and (match := _BLOCKS.fullmatch(depth)) and 0 not in (counts := ints(match[2])):
        return ("bottleneck" if match[1] else "basic"), counts
    raise SpecError(
        f"depth must be one of {', '.join(map(str, DEPTHS))}, or blocks per stage as 1-2-1 (basic) or b1-2-1"
        f" (bottlenecks), but is {depth}"
    )


@lru_cache(maxsize=1024)
def ints(label: str) -> tuple[int, ...]:
    """Reads a label such as `1-2-1`; raises SpecError for anything else."""
    if not _INTS.fullmatch(label):
        raise SpecError(f"a list must be written as whole numbers joined by -, such as 1-2-1, but is {label}")
    return tuple(int(part) for part in label.split("-"))


@lru_cache(maxsize=1024)
def make_stem(label: str, *, width: int = 64, temporal: bool = True) -> Stem:
    """Returns a stem by name.

    Args:
        label: `TxSxS`, then optionally `/stride` (2 unless said), then optionally `-unpadded`, so that T frames become
            one (R2D), then optionally `+max` for the max pool of 1x3x3, or `+max2` for one of 2x3x3 that halves the
            frames, too; or `r2plus1d`: 1x7x7 to 45 planes for 64 (in proportion for other widths), BN, ReLU, 3x1x1.
        width: Planes out.
        temporal: False makes the temporal kernel 1.

    Raises:
        SpecError: The name has another form.
    """
    if label == "r2plus1d":
        if not temporal:
            return make_stem("1x7x7", width=width)
        return Stem(
            kind="2plus1d",
            width=width,
            midplanes=max(1, 45 * width // 64),
            temporal_kernel=3,
            spatial_kernel=7,
            spatial_stride=2,
        )
    match = _STEM.fullmatch(label)
    if match is None or match[2] != match[3]:
        raise SpecError(f"stem must have a form such as {', '.join(STEM_FORMS)}, but is {label}")
    return Stem(
        width=width,
        temporal_kernel=int(match[1]) if temporal else 1,
        spatial_kernel=int(match[2]),
        spatial_stride=int(match[4] or 2),
        temporal_padding=match[5] is None or not temporal,
        pool="none" if match[6] is None else "max",
        pool_frames=int(match[6] or 1),
    )


@lru_cache(maxsize=4096)
def place(label: str, counts: tuple[int, ...]) -> Placement:
    """Returns which blocks and whether the stem are temporal.

    Args:
        label: `all`; `none`; `mcX`: conv1 to convX-1; `rmcX`: convX to the last; `top_heavy:k`: blocks from
            index k on; `bottom_heavy:k`: the stem and blocks before index k; or the blocks' indices, such as
            `0,1,4`, with `stem` before them where the stem is temporal too. Indices count blocks over all
            stages from 0.
        counts: Blocks of each stage.

    Raises:
        SpecError: The label has another form or does not fit the number of stages or blocks.
    """
    groups = [stage + 2 for stage, n in enumerate(counts) for _ in range(n)]
    every = range(len(groups))
    if label in ("all", "none"):
        return Placement(frozenset(every if label == "all" else ()), label == "all")
    if label in PLACEMENTS:
        cut = int(label[-1])
        if cut > len(counts) + 1:
            raise SpecError(f"placement {label} needs conv{cut}, but the network ends at conv{len(counts) + 1}")
        above = label.startswith("rmc")
        return Placement(frozenset(i for i in every if (groups[i] >= cut) == above), not above)
    if heavy := _HEAVY.fullmatch(label):
        cut, top = int(heavy[2]), heavy[1] == "top"
        if cut > len(groups):
            raise SpecError(f"placement {label} must cut at 0 to {len(groups)} in {len(groups)} blocks")
        return Placement(frozenset(i for i in every if (i >= cut) == top), not top)
    if _EXPLICIT.fullmatch(label):
        parts = label.split(",")
        blocks = frozenset(int(part) for part in parts if part != "stem")
        if blocks and max(blocks) >= len(groups):
            raise SpecError(f"placement {label} must name blocks 0 to {len(groups) - 1} in {len(groups)} blocks")
        return Placement(blocks, "stem" in parts)
    raise SpecError(f"placement must have a form such as {', '.join(PLACEMENT_FORMS)}, but is {label}")


def temporal_strides(label: str, groups_3d: Sequence[bool]) -> tuple[int, ...]:
    """Returns the temporal stride of each stage's first block.

    Args:
        label: `none` is 1 everywhere; `as_paper` is 2 in each stage but the first whose first block has a
            temporal operator, else 1 (Tran et al. 2018, table 1, and the authors' code); or a stride a stage,
            such as `1-1-2-2`.
        groups_3d: For each stage, whether its first block has a temporal operator.

    Raises:
        SpecError: The label has another form or another number of stages.
    """
    if label == "none":
        return (1,) * len(groups_3d)
    if label == "as_paper":
        return tuple(2 if temporal and s > 0 else 1 for s, temporal in enumerate(groups_3d))
    strides = ints(label)
    if len(strides) != len(groups_3d) or 0 in strides:
        raise SpecError(f"temporal_stride must have {len(groups_3d)} strides of at least 1, but is {label}")
    return strides


@lru_cache(maxsize=4096)
def time_pools(label: str, num_stages: int) -> tuple[int, ...]:
    """Returns how many frames the pool behind each stage makes one.

    Args:
        label: `none`, or frames per stage such as `2-2-2-1`.
        num_stages: Stages.

    Raises:
        SpecError: The label has another form or another number of stages.
    """
    if label == "none":
        return (1,) * num_stages
    pools = ints(label)
    if len(pools) != num_stages or 0 in pools:
        raise SpecError(f"time_pool must be none or have {num_stages} pools of at least 1 frame, but is {label}")
    return pools
