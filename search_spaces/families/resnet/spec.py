"""Residual networks as values: a stem, stages of residual blocks, a head; and the chain of units that they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal

from search_spaces.errors import SpecError, one_of, within
from search_spaces.families.resnet.blocks import Block, Stage, Stem, canonical_block, canonical_stem, rectified_first
from search_spaces.families.resnet.show import block_row, block_text, pool_row, stem_row, stem_text
from search_spaces.families.resnet.units import BlockUnit, StemUnit
from search_spaces.graph import Link
from search_spaces.operators import ADDED, NORM_EPS, NORM_MOMENTUM
from search_spaces.parts import HEAD_POOLS, Head, HeadPool, NormConfig, Pool
from search_spaces.spec import ArchSpec, Twin, number_text, scale


@dataclass(frozen=True, kw_only=True, slots=True)
class ResNetSpec(ArchSpec):
    """A residual network.

    Attributes:
        family: `resnet`.
        stem: Layers before the first block.
        stages: Residual stages in order.
        head: `avg` over space and time; `avg_max` is the average over space, then the maximum over time (BesNet).
        norm_eps: Added to the variance in norms. Torch's default, which torchvision has; every release of VMZ has 1e-3.
        norm_momentum: Share of a batch in the running statistics of norms.
        zero_init: As published, the last norm of every residual branch begins with a weight of 0.
        relu_first: In every layer the ReLU comes before the norm, at the end of a residual branch too, and none follows
            the sum: "ReLU activation followed by a Batch-Normalization" (BesNet).
    """

    family: Literal["resnet"] = "resnet"
    stem: Stem
    stages: tuple[Stage, ...]
    head: HeadPool = field(default="avg", metadata=ADDED)
    norm_eps: float = field(default=NORM_EPS, metadata=ADDED)
    norm_momentum: float = field(default=NORM_MOMENTUM, metadata=ADDED)
    zero_init: bool = field(default=False, metadata=ADDED)
    relu_first: bool = field(default=False, metadata=ADDED)

    def __post_init__(self) -> None:
        """Raises SpecError if there is no stage."""
        one_of("head", self.head, HEAD_POOLS)
        within("norm_eps", self.norm_eps)
        within("norm_momentum", self.norm_momentum)
        if not self.stages:
            raise SpecError("stages must hold at least 1 stage, but is empty")

    def walk(self) -> Iterator[tuple[int, int, int, Block]]:
        """Yields (stage index, block index, planes into the block, block) in order."""
        planes = self.stem.width
        for s, stage in enumerate(self.stages):
            for b, block in enumerate(stage.blocks):
                yield s, b, planes, block
                planes = block.out_planes

    def canonical(self) -> ResNetSpec:
        """Returns the one spec that stands for all specs of the same network.

        What has no effect takes its default: kernel, dilation and midplanes of a 2d operator; a 3d one of kernel
        1 is 2d; dilation of a kernel of 1; dilation is sorted without repeats; shared or equal midplanes are per
        convolution where both conventions give the same planes; time in the convolution of a shortcut that has none;
        where a block without strides has them; midplanes, padding and frames of the pool of a stem where unused.
        """
        blocks: list[list[Block]] = [[] for _ in self.stages]
        for s, _, planes, block in self.walk():
            op = rectified_first(block.temporal) if self.relu_first else block.temporal
            blocks[s].append(canonical_block(replace(block, temporal=op), planes))
        return replace(
            self,
            stem=canonical_stem(self.stem),
            stages=tuple(
                Stage(blocks=tuple(group), time_pool=stage.time_pool)
                for group, stage in zip(blocks, self.stages, strict=True)
            ),
        )

    def links(self, *, num_classes: int, dropout: float = 0.0, planes: int = 3) -> tuple[Link, ...]:
        """Returns stem, blocks, time pools and head."""
        norms = NormConfig(self.norm_eps, self.norm_momentum, self.relu_first)
        links = [Link("stem", StemUnit(self.stem, planes, norms))]
        planes = self.stem.width
        for s, b, in_planes, block in self.walk():
            links.append(Link(f"stages.{s}.{b}", BlockUnit(block, in_planes, norms)))
            planes = block.out_planes
            pool = self.stages[s].time_pool
            if pool > 1 and b == len(self.stages[s].blocks) - 1:
                links.append(Link(f"stages.{s}.pool", _time_pool(pool)))
        return (*links, Link("head", Head(in_planes=planes, num_classes=num_classes, dropout=dropout, pool=self.head)))

    def describe(self) -> str:
        """Returns one line that differs wherever specs differ.

        For example `resnet 3x7x7/2-64 | 64 3d.3 x2 | 128/2 t/2 3d.3, 128 3d.3`: the stem's kernel, stride and
        width, then for each stage runs of equal blocks as width, strides and operator with its kernel. `/` is a
        spatial stride, `t/` a temporal one, `d` a dilation or set of them, `(64)` a bottleneck of width 64.
        """
        parts = [f"{self.family} {stem_text(self.stem)}"]
        for stage in self.stages:
            runs = [(text, len(list(group))) for text, group in groupby(block_text(block) for block in stage.blocks)]
            pool = f" pool {stage.time_pool}" if stage.time_pool > 1 else ""
            parts.append(", ".join(f"{text} x{n}" if n > 1 else text for text, n in runs) + pool)
        parts += [] if self.head == "avg" else [self.head]
        parts += ["relu first"] if self.relu_first else []
        parts += [] if self.norm_eps == NORM_EPS else [f"eps {number_text(self.norm_eps)}"]
        parts += [] if self.norm_momentum == NORM_MOMENTUM else [f"momentum {number_text(self.norm_momentum)}"]
        return " | ".join([*parts, "zero init"] if self.zero_init else parts)

    def begins_at_zero(self) -> bool:
        """Returns `zero_init`."""
        return self.zero_init

    def rows(self) -> list[dict[str, object]]:
        """Returns one row for the stem, one for each block and one for each time pool, all with the same columns."""
        rows = [stem_row(self.stem)]
        for s, b, planes, block in self.walk():
            rows.append(block_row(f"stages.{s}.blocks.{b}", block, planes))
            if self.stages[s].time_pool > 1 and b == len(self.stages[s].blocks) - 1:
                rows.append(pool_row(f"stages.{s}.time_pool", self.stages[s].time_pool, block.out_planes))
        return rows

    def scaled(self, multiplier: float, *, multiple: int = 8) -> ResNetSpec:
        """Returns the network with all widths times a multiplier, as multiples of `multiple`."""
        stem = replace(
            self.stem,
            width=scale(self.stem.width, multiplier, multiple),
            midplanes=scale(self.stem.midplanes, multiplier, multiple) if self.stem.kind == "2plus1d" else 0,
        )
        stages = tuple(
            replace(
                stage,
                blocks=tuple(replace(block, width=scale(block.width, multiplier, multiple)) for block in stage.blocks),
            )
            for stage in self.stages
        )
        return replace(self, stem=stem, stages=stages).canonical()

    def twin(self) -> tuple[Twin, ...]:
        """Returns the layers of torchvision's and timm's ResNet of the same depth, by their names there."""
        if self.relu_first:
            return ()
        pairs = [Twin("stem", "conv1", "bn1")]
        for s, b, in_planes, block in self.walk():
            ours, theirs = f"stages.{s}.{b}", f"layer{s + 1}.{b}"
            convs = 2 if block.kind == "basic" else 3
            pairs += [Twin(f"{ours}.conv{i}", f"{theirs}.conv{i}", f"{theirs}.bn{i}") for i in range(1, convs + 1)]
            # A temporal stride alone asks for a projection that the 2D network does not have.
            if block.shortcut == "conv" and (in_planes != block.out_planes or block.spatial_stride > 1):
                pairs.append(Twin(f"{ours}.shortcut", f"{theirs}.downsample.0", f"{theirs}.downsample.1"))
        return (*pairs, Twin("head.fc", "fc"))


def _time_pool(frames: int) -> Pool:
    # Rounded up, as Caffe does (Qiu et al.'s networks): no clip is too short.
    return Pool(kind="max", kernel=(frames, 1, 1), stride=(frames, 1, 1), ceil=True)
