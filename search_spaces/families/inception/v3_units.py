"""Mixed blocks of Inception-v3 as links of the chain: their layers, drawn in the graph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from search_spaces.families.inception.units import Average, FramePool, attended, conv
from search_spaces.families.inception.v3_blocks import Layer, Mixed, Padding, branch_planes, stride_reach
from search_spaces.graph import GraphBuilder, Unit
from search_spaces.parts import Branches, Pool

_ROW, _COLUMN, _3X3 = (1, 7), (7, 1), (3, 3)
# For each kind of block, torchvision's (and timm's) names of the convolutions, by branch and position.
TWINS = {
    "type1": (
        ("0.0", "branch1x1"),
        *((f"1.{i}", f"branch5x5_{i + 1}") for i in range(2)),
        *((f"2.{i}", f"branch3x3dbl_{i + 1}") for i in range(3)),
        ("3.1", "branch_pool"),
    ),
    "reduction1": (("0.0", "branch3x3"), *((f"1.{i}", f"branch3x3dbl_{i + 1}") for i in range(3))),
    "type2": (
        ("0.0", "branch1x1"),
        *((f"1.{i}", f"branch7x7_{i + 1}") for i in range(3)),
        *((f"2.{i}", f"branch7x7dbl_{i + 1}") for i in range(5)),
        ("3.1", "branch_pool"),
    ),
    "reduction2": (
        *((f"0.{i}", f"branch3x3_{i + 1}") for i in range(2)),
        *((f"1.{i}", f"branch7x7x3_{i + 1}") for i in range(4)),
    ),
    "type3": (
        ("0.0", "branch1x1"),
        ("1.0", "branch3x3_1"),
        *((f"1.1.branch{i}.0", f"branch3x3_2{'ab'[i]}") for i in range(2)),
        *((f"2.{i}", f"branch3x3dbl_{i + 1}") for i in range(2)),
        *((f"2.2.branch{i}.0", f"branch3x3dbl_3{'ab'[i]}") for i in range(2)),
        ("3.1", "branch_pool"),
    ),
}


@dataclass(frozen=True, slots=True)
class MixedUnit(Unit):
    """A mixed block: its branches, their planes joined, and its attention."""

    block: Mixed
    in_planes: int

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws its layers."""
        make = {
            "type1": _type1,
            "reduction1": _reduction1,
            "type2": _type2,
            "reduction2": _reduction2,
            "type3": _type3,
        }[self.block.kind]
        branches = make(self.block, self.in_planes)
        whole = attended(branches, branch_planes(self.block, self.in_planes), self.block.attention)
        return whole.draw(builder, *inputs, name=name)


def _type1(block: Mixed, planes: int) -> tuple[tuple[Unit, ...], ...]:
    b1, r5, b5, r3, a3, b3, pool = block.widths
    op = block.temporal
    return (
        (conv(planes, b1),),
        (conv(planes, r5), conv(r5, b5, block.sized(5), kernel=(5, 5))),
        (conv(planes, r3), conv(r3, a3, op, kernel=_3X3), conv(a3, b3, op, kernel=_3X3)),
        (Average(block.pool_kernel), conv(planes, pool)),
    )


def _reduction1(block: Mixed, planes: int) -> tuple[tuple[Unit, ...], ...]:
    b3, r, a, b = block.widths
    return (
        (_strided(block, planes, b3),),
        (conv(planes, r), conv(r, a, block.temporal, kernel=_3X3), _strided(block, a, b)),
        (_maximum(block),),
    )


def _type2(block: Mixed, planes: int) -> tuple[tuple[Unit, ...], ...]:
    b1, c, b7, b77, pool = block.widths
    return (
        (conv(planes, b1),),
        (conv(planes, c), *_pair(block, c, b7, _ROW, _COLUMN)),
        (conv(planes, c), *_pair(block, c, c, _COLUMN, _ROW), *_pair(block, c, b77, _COLUMN, _ROW)),
        (Average(block.pool_kernel), conv(planes, pool)),
    )


def _reduction2(block: Mixed, planes: int) -> tuple[tuple[Unit, ...], ...]:
    r3, b3, r7, b7 = block.widths
    return (
        (conv(planes, r3), _strided(block, r3, b3)),
        (conv(planes, r7), *_pair(block, r7, r7, _ROW, _COLUMN), _strided(block, r7, b7)),
        (_maximum(block),),
    )


def _type3(block: Mixed, planes: int) -> tuple[tuple[Unit, ...], ...]:
    b1, r3, s3, r33, b33, s33, pool = block.widths
    op = block.temporal

    def side_by_side(before: int, after: int) -> Unit:
        return Branches(branches=((conv(before, after, op, kernel=(1, 3)),), (conv(before, after, op, kernel=(3, 1)),)))

    return (
        (conv(planes, b1),),
        (conv(planes, r3), side_by_side(r3, s3)),
        (conv(planes, r33), conv(r33, b33, op, kernel=_3X3), side_by_side(b33, s33)),
        (Average(block.pool_kernel), conv(planes, pool)),
    )


def _pair(
    block: Mixed, planes: int, out_planes: int, first: tuple[int, int], second: tuple[int, int]
) -> tuple[Unit, Unit]:
    ops = block.pair_ops()
    return conv(planes, planes, ops[0], kernel=first), conv(planes, out_planes, ops[1], kernel=second)


def _strided(block: Mixed, in_planes: int, out_planes: int) -> Unit:
    return conv(
        in_planes,
        out_planes,
        block.stride_op,
        kernel=_3X3,
        stride=2,
        temporal_stride=block.temporal_stride,
        padding=(0, 0) if block.padding == "valid" else None,
        pad_frames=not block.unpadded or stride_reach(block.stride_op) == 1,
    )


def _maximum(block: Mixed) -> Pool:
    k, edge = block.pool_kernel, 0 if block.padding == "valid" else 1
    padding = (0 if block.unpadded else k // 2, edge, edge)
    return Pool(kernel=(k, 3, 3), stride=(block.temporal_stride, 2, 2), padding=padding)


@lru_cache(maxsize=65536)
def stem_conv(layer: Layer, in_planes: int, *, stride: int, padding: Padding) -> Unit:
    """Returns a 3x3 convolution of the stem, padded over frames."""
    return conv(
        in_planes,
        layer.width,
        layer.temporal,
        kernel=_3X3,
        stride=stride,
        temporal_stride=layer.temporal_stride,
        padding=(0, 0) if padding == "valid" else None,
    )


@lru_cache(maxsize=1024)
def stem_pool(pool: FramePool, *, padding: Padding) -> Pool:
    """Returns a 3x3 max pool of the stem, padded over frames."""
    edge = 0 if padding == "valid" else 1
    return Pool(kernel=(pool.kernel, 3, 3), stride=(pool.stride, 2, 2), padding=(pool.padding, edge, edge))


@lru_cache(maxsize=65536)
def stem_1x1(in_planes: int, out_planes: int) -> Unit:
    """Returns the 1x1x1 convolution of the stem."""
    return conv(in_planes, out_planes)
