"""Inception-v3 networks for the eye: as a line and as a table."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from search_spaces.families.inception_units import FramePool, kernel_text, op_text, row, runs, with_attention
from search_spaces.families.inception_v3_blocks import PAIRED, REDUCTIONS, Layer, Mixed, MixedKind
from search_spaces.spec import FLAT, scale

if TYPE_CHECKING:
    from search_spaces.families.inception_v3_spec import InceptionV3Spec

_STEM = (32, 32, 64, 80, 192)
_TYPE1 = (64, 48, 64, 64, 96, 96)
_TYPE3 = (320, 384, 384, 448, 384, 384, 192)
# Kinds and widths of the blocks, as published.
BLOCKS: tuple[tuple[tuple[MixedKind, tuple[int, ...]], ...], ...] = (
    tuple(("type1", (*_TYPE1, pool)) for pool in (32, 64, 64)),
    (("reduction1", (384, 64, 96, 96)), *(("type2", (192, c, 192, 192, 192)) for c in (128, 160, 160, 192))),
    (("reduction2", (192, 320, 192, 192)), ("type3", _TYPE3), ("type3", _TYPE3)),
)
STEM_NAMES = ("1a", "2a", "2b", "4a")

# Multiples of the published widths that have a short name.
_TIMES = tuple(i / 16 for i in range(1, 33))


def describe(spec: InceptionV3Spec) -> str:
    """Returns one line that differs wherever specs differ.

    For example `inception_v3 x1 | stem same, pools 3/2 3/2 | 1a p3d_a.3 t/2, 2a-4a p3d_a.3, 5b-5d p3d_a.3 pool 3, ...`:
    widths as a multiple of the published ones (all of them where they are none), then runs of layers, each with its
    operator and what is not as in 2D: `t/2` a temporal stride, `pool 3` frames of the pool, `same` the padding of a
    reduction, how its pairs of 1x7 and 7x1 get time, `reach` the kernel of all of its convolutions.
    """
    stem = spec.stem
    text = f"{spec.family} {_width_text(spec)} | stem {stem.padding}, pools "
    text += " ".join(f"{pool.kernel}/{pool.stride}" for pool in (stem.pool1, stem.pool2))
    named = [(at, _layer_text(layer)) for at, layer in zip(STEM_NAMES, stem.layers, strict=True)]
    named[-1] = (named[-1][0], with_attention(named[-1][1], stem.attention))
    named += [(name(s, b), _block_text(block)) for s, b, _, block in spec.walk()]
    text += f" | {runs(named)}"
    if spec.aux is None:
        return text
    return f"{text} | aux {spec.aux.width}-{spec.aux.features}"


def rows(spec: InceptionV3Spec) -> list[dict[str, object]]:
    """Returns one row for each layer of the stem, each block and the auxiliary classifier."""
    stem = spec.stem
    out = []
    planes = 3
    for at, layer in zip(("conv1a", "conv2a", "conv2b"), stem.layers, strict=False):
        out.append(_stem_row(at, planes, layer, 2 if at == "conv1a" else 1))
        planes = layer.width
    out += [_pool_row("stem.pool1", planes, stem.pool1), row("stem.conv3b", "1x1", planes, stem.conv3b, FLAT, "1x1")]
    last = _stem_row("conv4a", stem.conv3b, stem.conv4a, 1)
    out.append({**last, "operator": with_attention(str(last["operator"]), stem.attention)})
    out.append(_pool_row("stem.pool2", stem.conv4a.width, stem.pool2))
    for s, b, in_planes, block in spec.walk():
        out.append(_block_row(f"stages.{s}.blocks.{b}", name(s, b), in_planes, block))
        if (s, b) == (1, len(spec.stages[1].blocks) - 1) and spec.aux is not None:
            planes = block.out_planes(in_planes)
            out.append(
                {**row("aux", "classifier in training", planes, spec.aux.features, FLAT, "5x5"), "operator": "2d"}
            )
    return out


def name(s: int, b: int) -> str:
    """Returns a block's name in torchvision's Inception-v3, such as `6a`."""
    return f"{s + 5}{chr(ord('b' if s == 0 else 'a') + b)}"


def _block_row(site: str, named: str, in_planes: int, block: Mixed) -> dict[str, object]:
    stride = f"{block.temporal_stride}x2x2" if block.kind in REDUCTIONS else "1x1x1"
    after = block.out_planes(in_planes)
    found = row(
        site, f"{block.kind} {named}", in_planes, after, block.temporal, "3x3", stride, attention=block.attention
    )
    if block.kind not in PAIRED:
        return found
    first, second = block.pair_ops()
    pair = f"{kernel_text(first, '1x7')}, {kernel_text(second, '7x1')}"
    return {**found, "kernel": pair if block.kind == "type2" else f"{found['kernel']}; {pair}"}


def _stem_row(at: str, planes: int, layer: Layer, stride: int) -> dict[str, object]:
    strides = f"{layer.temporal_stride}x{stride}x{stride}"
    return row(f"stem.{at}", "3x3", planes, layer.width, layer.temporal, "3x3", strides)


def _pool_row(site: str, planes: int, pool: FramePool) -> dict[str, object]:
    found = row(site, "pool", planes, planes, FLAT, "3x3", f"{pool.stride}x2x2")
    return {**found, "operator": "max", "kernel": f"{pool.kernel}x3x3"}


def _layer_text(layer: Layer) -> str:
    text = op_text(layer.temporal)
    return f"{text} t/{layer.temporal_stride}" if layer.temporal_stride > 1 else text


def _block_text(block: Mixed) -> str:
    text = op_text(block.temporal)
    if block.pair != "appended":
        text += f" {block.pair}"
    if block.reach != "spatial":
        text += " reach"
    if block.temporal_stride > 1:
        text += f" t/{block.temporal_stride}"
    if block.padding != "valid":
        text += f" {block.padding}"
    if block.pool_kernel > 1:
        text += f" pool {block.pool_kernel}"
    return with_attention(text, block.attention)


def _width_text(spec: InceptionV3Spec) -> str:
    widths = tuple(layer.width for layer in spec.stem.layers)
    stem = (*widths[:3], spec.stem.conv3b, widths[3])
    blocks = tuple(tuple((block.kind, block.widths) for block in stage.blocks) for stage in spec.stages)
    for times in _TIMES:
        if (stem, blocks) == _published(times):
            return f"x{times:g}"
    texts = [f"{kind} {'-'.join(map(str, sizes))}" for stage in blocks for kind, sizes in stage]
    return ", ".join(["-".join(map(str, stem)), *texts])


@lru_cache(maxsize=1024)
def _published(times: float) -> tuple[tuple[int, ...], tuple[tuple[tuple[str, tuple[int, ...]], ...], ...]]:
    stem = tuple(scale(width, times) for width in _STEM)
    return stem, tuple(
        tuple((kind, tuple(scale(width, times) for width in widths)) for kind, widths in stage) for stage in BLOCKS
    )
