"""Inception-v3 networks for clips as values, and as text: frame by frame, inflated, and with time by layer.

How table 1 of the report comes from 64 frames of 224x224 to 8, 3 and 1 frames of 28x28, 13x13 and 6x6: the stem is
padded and halves frames with conv 1a and both pools (32, 16, 8); the two reductions stride by 2 with kernels of 3x3x3
and no padding, over rows and columns as in 2D and over frames as well: (8 - 3) // 2 + 1 = 3, (3 - 3) // 2 + 1 = 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from search_spaces.errors import SpecError, at_least, one_of
from search_spaces.families.inception.units import AuxHead, FramePool, kernel_text, op_text, row, runs, with_attention
from search_spaces.families.inception.v3_blocks import (
    PADDINGS,
    PAIRED,
    REDUCTIONS,
    Layer,
    Mixed,
    MixedKind,
    Padding,
    Stage,
    canonical_block,
    canonical_layer,
    scaled_block,
)
from search_spaces.families.inception.v3_units import TWINS, MixedUnit, stem_1x1, stem_conv, stem_pool
from search_spaces.graph import Link
from search_spaces.operators import ATTENTIONS, FLAT, Attention
from search_spaces.parts import Attend, Head
from search_spaces.spec import ArchSpec, Twin, scale

if TYPE_CHECKING:
    from torch import nn


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Stem:
    """The layers before the mixed blocks.

    Attributes:
        conv1a: 3x3 of stride 2.
        conv2a: 3x3.
        conv2b: 3x3, always padded.
        pool1: What the 3x3 max pool behind it does to frames.
        conv3b: Planes of the 1x1x1 convolution.
        conv4a: 3x3.
        pool2: What the 3x3 max pool behind it does to frames.
        padding: Of rows and columns: `valid` is none but in conv2b (torchvision), `same` everywhere (the report's
            sizes). Frames are padded in both.
        attention: Behind conv4a.
    """

    conv1a: Layer
    conv2a: Layer
    conv2b: Layer
    pool1: FramePool
    conv3b: int
    conv4a: Layer
    pool2: FramePool
    padding: Padding
    attention: Attention = "none"

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        at_least("conv3b", self.conv3b, 1)
        one_of("padding", self.padding, PADDINGS)
        one_of("attention", self.attention, ATTENTIONS)

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Its 3x3 convolutions."""
        return self.conv1a, self.conv2a, self.conv2b, self.conv4a

    def mapped(self, layers: tuple[Layer, ...], conv3b: int) -> Stem:
        """Returns the stem with other convolutions."""
        conv1a, conv2a, conv2b, conv4a = layers
        return replace(self, conv1a=conv1a, conv2a=conv2a, conv2b=conv2b, conv3b=conv3b, conv4a=conv4a)


@dataclass(frozen=True, kw_only=True, slots=True)
class Aux:
    """The auxiliary classifier behind the last block before the second reduction; it runs in training only.

    Attributes:
        width: Planes of its 1x1x1 convolution.
        features: Planes of its 5x5 convolution, which the classifier sees.
    """

    width: int = 128
    features: int = 768

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        at_least("width", self.width, 1)
        at_least("features", self.features, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class InceptionV3Spec(ArchSpec):
    """An Inception-v3 network for clips.

    Attributes:
        family: `inception_v3`.
        stem: Layers before the mixed blocks.
        stages: Three stages: blocks 5b and on, 6a and on, 7a and on.
        aux: The auxiliary classifier, if there is one.
    """

    family: Literal["inception_v3"] = "inception_v3"
    stem: Stem
    stages: tuple[Stage, ...]
    aux: Aux | None = None

    def __post_init__(self) -> None:
        """Raises SpecError unless there are three stages."""
        if len(self.stages) != 3:
            raise SpecError(f"stages must hold 3 stages, but hold {len(self.stages)}")

    def walk(self) -> Iterator[tuple[int, int, int, Mixed]]:
        """Yields (stage index, block index, planes into the block, block) in order."""
        planes = self.stem.conv4a.width
        for s, stage in enumerate(self.stages):
            for b, block in enumerate(stage.blocks):
                yield s, b, planes, block
                planes = block.out_planes(planes)

    def canonical(self) -> InceptionV3Spec:
        """Returns the one spec that stands for all specs of the same network: see `canonical_block`."""
        stem = self.stem.mapped(tuple(canonical_layer(layer) for layer in self.stem.layers), self.stem.conv3b)
        stages = tuple(
            replace(stage, blocks=tuple(canonical_block(block) for block in stage.blocks)) for stage in self.stages
        )
        return replace(self, stem=stem, stages=stages)

    def links(self, *, num_classes: int, dropout: float = 0.0, planes: int = 3) -> tuple[Link, ...]:
        """Returns stem, mixed blocks, the auxiliary classifier and the head."""
        stem, padding = self.stem, self.stem.padding
        links = [
            Link("conv1a", stem_conv(stem.conv1a, planes, stride=2, padding=padding)),
            Link("conv2a", stem_conv(stem.conv2a, stem.conv1a.width, stride=1, padding=padding)),
            Link("conv2b", stem_conv(stem.conv2b, stem.conv2a.width, stride=1, padding="same")),
            Link("pool1", stem_pool(stem.pool1, padding=padding)),
            Link("conv3b", stem_1x1(stem.conv2b.width, stem.conv3b)),
            Link("conv4a", stem_conv(stem.conv4a, stem.conv3b, stride=1, padding=padding)),
        ]
        planes = stem.conv4a.width
        if stem.attention != "none":
            links.append(Link("attention4a", Attend(stem.attention, planes)))
        links.append(Link("pool2", stem_pool(stem.pool2, padding=padding)))
        for s, b, in_planes, block in self.walk():
            if (s, b) == (2, 0) and self.aux is not None:
                links.append(Link("aux", AuxHead(in_planes, self.aux.width, self.aux.features, num_classes)))
            links.append(Link(f"stages.{s}.{b}", MixedUnit(block, in_planes)))
            planes = block.out_planes(in_planes)
        return (*links, Link("head", Head(in_planes=planes, num_classes=num_classes, dropout=dropout)))

    def describe(self) -> str:
        """Returns one line that differs wherever specs differ."""
        return describe(self)

    def rows(self) -> list[dict[str, object]]:
        """Returns one row for each layer of the stem, each block and the auxiliary classifier."""
        return rows(self)

    def scaled(self, multiplier: float, *, multiple: int = 8) -> InceptionV3Spec:
        """Returns the network with all widths times a multiplier, as multiples of `multiple`."""
        layers = tuple(replace(layer, width=scale(layer.width, multiplier, multiple)) for layer in self.stem.layers)
        stages = tuple(
            replace(stage, blocks=tuple(scaled_block(block, multiplier, multiple) for block in stage.blocks))
            for stage in self.stages
        )
        aux = self.aux and Aux(
            width=scale(self.aux.width, multiplier, multiple), features=scale(self.aux.features, multiplier, multiple)
        )
        stem = self.stem.mapped(layers, scale(self.stem.conv3b, multiplier, multiple))
        return replace(self, stem=stem, stages=stages, aux=aux).canonical()

    def initialise(self, network: nn.Module) -> None:
        """Draws initial values, Kaiming by fan-in."""
        from search_spaces.modules import initialise_by_fan_in

        initialise_by_fan_in(network)

    def twin(self) -> tuple[Twin, ...]:
        """Returns the layers of torchvision's and timm's Inception-v3, by their names there."""
        theirs = {
            "conv1a": "Conv2d_1a_3x3",
            "conv2a": "Conv2d_2a_3x3",
            "conv2b": "Conv2d_2b_3x3",
            "conv3b": "Conv2d_3b_1x1",
            "conv4a": "Conv2d_4a_3x3",
        }
        for s, b, _, block in self.walk():
            # Attention behind the block makes it the first of two parts.
            ours = f"stages.{s}.{b}" if block.attention in ("none", "gate") else f"stages.{s}.{b}.0"
            name = f"Mixed_{s + 5}{chr(ord('b' if s == 0 else 'a') + b)}"
            theirs |= {f"{ours}.branch{at}": f"{name}.{its}" for at, its in TWINS[block.kind]}
        if self.aux is not None:
            theirs |= {f"aux.conv{i}": f"AuxLogits.conv{i}" for i in range(2)}
        pairs = [Twin(path, f"{its}.conv", f"{its}.bn") for path, its in theirs.items()]
        # Without a place for it here, theirs is left out.
        pairs.append(Twin("", "AuxLogits") if self.aux is None else Twin("aux.fc", "AuxLogits.fc"))
        return (*pairs, Twin("head.fc", "fc"))
