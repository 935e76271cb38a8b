"""Parts of residual networks for the eye: as text and as rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search_spaces.operators import FLAT, POINTWISE_KINDS, SEPARATED_KINDS, TemporalOp

if TYPE_CHECKING:
    from search_spaces.families.resnet.blocks import Block, Stem


def stem_row(stem: Stem) -> dict[str, object]:
    """Returns the stem as a row."""
    return {
        "site": "stem",
        "block": stem.kind,
        "in": 3,
        "out": stem.width,
        "operator": stem_text(stem),
        "kernel": f"{stem.temporal_kernel}x{stem.spatial_kernel}x{stem.spatial_kernel}",
        "dilation": "1",
        "stride": f"{stem.temporal_stride}x{stem.spatial_stride}x{stem.spatial_stride}",
    }


def block_row(site: str, block: Block, in_planes: int) -> dict[str, object]:
    """Returns a block as a row."""
    op = block.temporal
    return {
        "site": site,
        "block": f"{block.kind} {block.width}",
        "in": in_planes,
        "out": block.out_planes,
        "operator": (kind_text(op) if op.midplanes == "per_conv" else f"{kind_text(op)} {op.midplanes}")
        + ("" if block.attention == "none" else f" + {block.attention}"),
        "kernel": kernel_text(op),
        "dilation": dilation_text(op.dilation),
        "stride": f"{block.temporal_stride}x{block.spatial_stride}x{block.spatial_stride}"
        + (" on 1x1" if block.stride_on == "1x1" else "")
        + (", padded shortcut" if block.shortcut == "pad" else ""),
    }


def pool_row(site: str, frames: int, planes: int) -> dict[str, object]:
    """Returns a max pool over time as a row; `frames` become one."""
    return {
        "site": site,
        "block": "pool",
        "in": planes,
        "out": planes,
        "operator": "max pool",
        "kernel": f"{frames}x1x1",
        "dilation": "1",
        "stride": f"{frames}x1x1",
    }


def kind_text(op: TemporalOp) -> str:
    """Returns the operator's kind; `1plus2d` is a `2plus1d` whose temporal convolution comes first."""
    return "1plus2d" if op.time_first else op.kind


def kernel_text(op: TemporalOp, spatial: str = "3x3") -> str:
    """Returns the kernels of an operator's convolutions, such as `1x3x3, 3x1x1`."""
    if op.kind == "3d" or op.kind in SEPARATED_KINDS:
        return f"{'1x1x1, ' if op.kind == 'csn_ip' else ''}{op.kernel}x{spatial}"
    if op.kind == "2d":
        return f"1x{spatial}"
    flat, time = f"1x{spatial}", f"{op.kernel}x1x1"
    if op.kind in POINTWISE_KINDS:
        return f"{time}, {flat}" if op.kind == "t1x1_first" else f"{time}, {flat}, {time}"
    return f"{time}, {flat}" if op.time_first else f"{flat}, {time}"


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
    if stem.pool != "none":
        text += f" {stem.pool} pool"
    return text if stem.pool_frames == 1 else f"{text} {stem.pool_frames}x3x3"


def block_text(block: Block) -> str:
    """Returns the block as `64 3d.3`, with strides where they are not 1."""
    text = str(block.width) if block.kind == "basic" else f"({block.width})"
    if block.spatial_stride > 1:
        text += f"/{block.spatial_stride}"
    if block.temporal_stride > 1:
        text += f" t/{block.temporal_stride}"
    if block.stride_on == "1x1":
        text += " on 1x1"
    if block.shortcut == "pad":
        text += " pad"
    text += f" {op_text(block.temporal)}"
    return text if block.attention == "none" else f"{text} {block.attention}"


def op_text(op: TemporalOp) -> str:
    """Returns the operator as `3d.5 d1|2|4`: kind, kernel, dilation where it is not 1."""
    text = op.kind if op == FLAT else f"{kind_text(op)}.{op.kernel}"
    if op.dilation != (1,):
        text += f" d{dilation_text(op.dilation)}"
    return text if op.midplanes == "per_conv" else f"{text} {op.midplanes}"


def dilation_text(dilation: tuple[int, ...]) -> str:
    """Returns dilations as the label that search spaces use, such as `1|2|4`."""
    return "|".join(map(str, dilation))
