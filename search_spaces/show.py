"""Specs for the eye: one line, and a table of one row a block."""

from __future__ import annotations

from itertools import groupby

from search_spaces.spec import ArchSpec, Block, Stem, TemporalOp


def describe(spec: ArchSpec) -> str:
    """Returns one line that differs wherever specs differ.

    For example `resnet 3x7x7/2-64 | 64 3d.3 x2 | 128/2 t/2 3d.3, 128 3d.3`: the stem's kernel, stride and
    width, then for each stage runs of equal blocks as width, strides and operator with its kernel. `/` is a
    spatial stride, `t/` a temporal one, `d` a dilation or set of them, `(64)` a bottleneck of width 64.
    """
    parts = [f"{spec.family} {stem_text(spec.stem)}"]
    for stage in spec.stages:
        runs = [(text, len(list(group))) for text, group in groupby(block_text(block) for block in stage.blocks)]
        parts.append(", ".join(f"{text} x{n}" if n > 1 else text for text, n in runs))
    return " | ".join(parts)


def table(spec: ArchSpec) -> list[dict[str, object]]:
    """Returns one row for the stem and one for each block, all with the same columns."""
    stem = spec.stem
    rows: list[dict[str, object]] = [
        {
            "site": "stem",
            "block": stem.kind,
            "in": 3,
            "out": stem.width,
            "operator": stem_text(stem),
            "kernel": f"{stem.temporal_kernel}x{stem.spatial_kernel}x{stem.spatial_kernel}",
            "dilation": "1",
            "stride": f"{stem.temporal_stride}x{stem.spatial_stride}x{stem.spatial_stride}",
        }
    ]
    for s, b, planes, block in spec.walk():
        op = block.temporal
        rows.append(
            {
                "site": f"stages.{s}.blocks.{b}",
                "block": f"{block.kind} {block.width}",
                "in": planes,
                "out": block.out_planes,
                "operator": op.kind if op.midplanes == "per_conv" else f"{op.kind} shared",
                "kernel": _kernel_text(op),
                "dilation": dilation_text(op.dilation),
                "stride": f"{block.temporal_stride}x{block.spatial_stride}x{block.spatial_stride}",
            }
        )
    return rows


def _kernel_text(op: TemporalOp) -> str:
    if op.kind == "3d":
        return f"{op.kernel}x3x3"
    return "1x3x3" if op.kind == "2d" else f"1x3x3, {op.kernel}x1x1"


def stem_text(stem: Stem) -> str:
    """Returns the stem as `3x7x7/2-64`, with what is unusual behind it."""
    kernel = f"{stem.temporal_kernel}x{stem.spatial_kernel}x{stem.spatial_kernel}/{stem.spatial_stride}"
    text = f"{kernel}-{stem.width}"
    if stem.kind == "2plus1d" or stem.midplanes:
        text += f" {stem.kind} m{stem.midplanes}"
    if stem.temporal_stride > 1:
        text += f" t/{stem.temporal_stride}"
    if not stem.temporal_padding:
        text += " unpadded"
    return text if stem.pool == "none" else f"{text} {stem.pool} pool"


def block_text(block: Block) -> str:
    """Returns the block as `64 3d.3`, with strides where they are not 1."""
    text = str(block.width) if block.kind == "basic" else f"({block.width})"
    if block.spatial_stride > 1:
        text += f"/{block.spatial_stride}"
    if block.temporal_stride > 1:
        text += f" t/{block.temporal_stride}"
    return f"{text} {op_text(block.temporal)}"


def op_text(op: TemporalOp) -> str:
    """Returns the operator as `3d.5 d1|2|4`: kind, kernel, dilation where it is not 1."""
    text = op.kind if op == TemporalOp(kind="2d") else f"{op.kind}.{op.kernel}"
    if op.dilation != (1,):
        text += f" d{dilation_text(op.dilation)}"
    return text if op.midplanes == "per_conv" else f"{text} {op.midplanes}"


def dilation_text(dilation: tuple[int, ...]) -> str:
    """Returns dilations as the label that search spaces use, such as `1|2|4`."""
    return "|".join(map(str, dilation))
