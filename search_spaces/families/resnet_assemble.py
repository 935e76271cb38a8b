"""Residual networks from their parts: blocks stage by stage, each with its own operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from search_spaces.families.resnet_blocks import (
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
from search_spaces.families.resnet_make import depth_blocks
from search_spaces.families.resnet_spec import ResNetSpec
from search_spaces.parts import HeadPool
from search_spaces.spec import NORM_EPS, NORM_MOMENTUM, Attention, TemporalOp, canonical_op


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
