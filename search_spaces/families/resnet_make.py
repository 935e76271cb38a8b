"""The labels that choices in residual networks are written as: depths, stems, placements, strides and time pools.

Groups are numbered as in Tran et al. 2018: conv1 is the stem and conv2 the first residual stage.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from search_spaces.domains import Scalar
from search_spaces.families.resnet_blocks import BlockKind, Stem
from search_spaces.spec import SpecError

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
        depth: 10, 18, 26, 34 (basic blocks), 50, 101, 152 (bottlenecks), or blocks a stage: `1-2-1` of basic ones,
            `b1-2-1` of bottlenecks.

    Raises:
        SpecError: Neither of these.
    """
    if isinstance(depth, int) and depth in DEPTHS:
        return DEPTHS[depth]
    if isinstance(depth, str) and (match := _BLOCKS.fullmatch(depth)) and 0 not in (counts := ints(match[2])):
        return ("bottleneck" if match[1] else "basic"), counts
    raise SpecError(
        f"depth must be one of {', '.join(map(str, DEPTHS))}, or blocks a stage as 1-2-1 (basic) or b1-2-1"
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
        label: `none`, or frames a stage such as `2-2-2-1`.
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
