"""Inception-v1 networks for the eye: as a line and as a table."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from search_spaces.families.inception_units import FramePool, op_text, row, runs, with_attention
from search_spaces.families.inception_v1_blocks import WIDTHS, Mixed
from search_spaces.spec import FLAT, number_text, scale

if TYPE_CHECKING:
    from search_spaces.families.inception_v1_spec import InceptionV1Spec

_FIRST = (64, 64, 192)

# Multiples of the published widths that have a short name.
_TIMES = tuple(i / 16 for i in range(1, 33))


def describe(spec: InceptionV1Spec) -> str:
    """Returns one line that differs wherever specs differ.

    For example `inception_v1 x1 | conv1 t/2 3d.7, 2c-5c 3d.3 | pools 1/1 1/1 3/2 2/2`: widths as a multiple of the
    published ones (all of them where they are none), operators of runs of layers, frames and strides of pools.
    """
    text = f"{spec.family} {_width_text(spec)} | conv1"
    if spec.conv1.temporal_stride > 1:
        text += f" t/{spec.conv1.temporal_stride}"
    named = [("2c", with_attention(op_text(spec.conv2c.temporal), spec.conv2c.attention))]
    named += [(name(s, b), _block_text(block)) for s, b, _, block in spec.walk()]
    pools = " ".join(f"{p.kernel}/{p.stride}" for p in (spec.pool1, *(stage.pool for stage in spec.stages)))
    text += f" {op_text(spec.conv1.temporal)}, {runs(named)} | pools {pools}"
    if spec.separable != "norm_both":
        text += f" | {spec.separable}"
    if spec.padding != "symmetric":
        text += f" | {spec.padding} padding"
    return text if spec.norm_momentum == 0.1 else f"{text} | momentum {number_text(spec.norm_momentum)}"


def rows(spec: InceptionV1Spec) -> list[dict[str, object]]:
    """Returns one row for each convolution before the blocks, each pool and each block."""
    first, second = spec.conv1, spec.conv2c
    op = second.temporal
    out = [
        row("conv1", "7x7", 3, first.width, first.temporal, "7x7", f"{first.temporal_stride}x2x2"),
        _pool_row("pool1", first.width, spec.pool1),
        row("conv2b", "1x1", first.width, spec.conv2b, FLAT, "1x1"),
        row("conv2c", "3x3", spec.conv2b, second.width, op, "3x3", attention=second.attention),
    ]
    for s, b, in_planes, block in spec.walk():
        if b == 0:
            out.append(_pool_row(f"stages.{s}.pool", in_planes, spec.stages[s].pool, last=s == 2))
        site, op = f"stages.{s}.blocks.{b}", block.temporal
        kind = f"mixed {name(s, b)} {'in all branches' if block.all_branches else ''}".strip()
        out.append(row(site, kind, in_planes, block.out_planes, op, "3x3", attention=block.attention))
    return out


def name(s: int, b: int) -> str:
    """Returns a block's name in Inception-v1, such as `4b`."""
    return f"{s + 3}{chr(ord('b') + b)}"


def _width_text(spec: InceptionV1Spec) -> str:
    first = (spec.conv1.width, spec.conv2b, spec.conv2c.width)
    blocks = tuple(tuple(block.widths for block in stage.blocks) for stage in spec.stages)
    for times in _TIMES:
        if (first, blocks) == _published(times):
            return f"x{times:g}"
    texts = ("-".join(map(str, widths)) for widths in (first, *(widths for stage in blocks for widths in stage)))
    return " ".join(texts)


@lru_cache(maxsize=1024)
def _published(times: float) -> tuple[tuple[int, ...], tuple[tuple[tuple[int, ...], ...], ...]]:
    first = tuple(scale(width, times) for width in _FIRST)
    return first, tuple(tuple(tuple(scale(w, times) for w in block) for block in stage) for stage in WIDTHS)


def _block_text(block: Mixed) -> str:
    text = op_text(block.temporal)
    return with_attention(f"{text} all" if block.all_branches else text, block.attention)


def _pool_row(site: str, planes: int, pool: FramePool, *, last: bool = False) -> dict[str, object]:
    kernel = f"{pool.kernel}x{'2x2' if last else '3x3'}"
    return {**row(site, "pool", planes, planes, FLAT, "", f"{pool.stride}x2x2"), "operator": "max", "kernel": kernel}
