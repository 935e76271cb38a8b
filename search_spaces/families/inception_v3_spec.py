"""Inception-v3 networks for clips as values: frame by frame (torchvision's), inflated, and with separable convolutions.

Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision" (https://arxiv.org/abs/1512.00567), as
torchvision has it; Gupta, Dharmaraj and Hayes, "Reproducing Action Recognition Experiments with Modern Classification
Networks", for S3D-v3. Layers have torchvision's numbers: 1a, 2a, 2b, 3b, 4a; blocks 5b to 5d, 6a to 6e, 7a to 7c.

How table 1 of the report comes from 64 frames of 224x224 to 8, 3 and 1 frames of 28x28, 13x13 and 6x6: the stem is
padded and halves frames with conv 1a and both pools (32, 16, 8); the two reductions stride by 2 with kernels of 3x3x3
and no padding, over rows and columns as in 2D and over frames as well: (8 - 3) // 2 + 1 = 3, (3 - 3) // 2 + 1 = 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from search_spaces.families.inception_units import AuxHead, FramePool
from search_spaces.families.inception_v3_blocks import (
    PADDINGS,
    Layer,
    Mixed,
    Padding,
    Stage,
    canonical_block,
    canonical_layer,
    scaled_block,
)
from search_spaces.families.inception_v3_show import describe, rows
from search_spaces.families.inception_v3_units import TWINS, MixedUnit, stem_1x1, stem_conv, stem_pool
from search_spaces.parts import Attend, Head
from search_spaces.spec import ATTENTIONS, ArchSpec, Attention, Link, SpecError, Twin, at_least, one_of, scale

if TYPE_CHECKING:
    from torch import nn


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
        """Returns one line that differs wherever specs differ; see `inception_v3_show`."""
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
        from search_spaces.families.inception_layers import initialise

        initialise(network)

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
