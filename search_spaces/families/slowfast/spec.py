"""SlowFast as values: Feichtenhofer et al. 2019, "SlowFast Networks for Video Recognition", section 3.

https://arxiv.org/abs/1812.03982. A slow pathway sees few frames with many planes; a fast one sees all of them with few,
and its features are joined to the slow one's after the stem and each stage but the last. Between the links of the chain
goes a pair of tensors, of the slow pathway (C, T / alpha, H, W) and of the fast one (C', T, H, W).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from typing import Literal

from search_spaces.errors import SpecError, at_least, one_of
from search_spaces.families.resnet.blocks import Block, Pool, Stem, canonical_block
from search_spaces.families.resnet.show import block_row, op_text, stem_row
from search_spaces.families.resnet.units import BlockUnit, StemUnit
from search_spaces.graph import (
    Concat,
    Convolution,
    GlobalMean,
    GraphBuilder,
    Link,
    SlowFrames,
    StackedFrames,
    Subsample,
    Unit,
    join,
)
from search_spaces.operators import ADDED, ATTENTIONS, KERNELS, Attention, TemporalOp
from search_spaces.parts import classifier, conv_norm
from search_spaces.spec import ArchSpec, scale

FusionKind = Literal["conv", "sample", "time_to_channel", "none"]

FUSIONS: tuple[FusionKind, ...] = ("conv", "sample", "time_to_channel", "none")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fusion:
    """How features of the fast pathway reach the slow one (section 3.4). They are joined as further planes.

    Attributes:
        kind: `conv` is a kx1x1 convolution of stride alpha, norm and ReLU ("T-conv"); `sample` every alpha-th frame
            ("T-sample");
            `time_to_channel` alpha frames stacked as planes; `none` keeps the pathways apart up to the head.
        kernel: k of `conv`, in frames.
        ratio: Planes that `conv` gives for each plane of the fast pathway.
    """

    kind: FusionKind = "conv"
    kernel: int = 5
    ratio: int = 2

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        one_of("kind", self.kind, FUSIONS)
        one_of("kernel", self.kernel, KERNELS)
        at_least("ratio", self.ratio, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class SlowFastStem:
    """The first convolution of both pathways: kx7x7 of stride 2 in space.

    Attributes:
        width: Planes of the slow pathway.
        slow_kernel: Temporal kernel of the slow pathway, odd.
        fast_kernel: Temporal kernel of the fast pathway, odd.
        pool: `max` appends a 1x3x3 max pool of stride (1, 2, 2).
    """

    width: int
    slow_kernel: int = 1
    fast_kernel: int = 5
    pool: Pool = "max"

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        at_least("width", self.width, 1)
        one_of("slow_kernel", self.slow_kernel, KERNELS)
        one_of("fast_kernel", self.fast_kernel, KERNELS)
        one_of("pool", self.pool, ("none", "max"))


@dataclass(frozen=True, kw_only=True, slots=True)
class SlowFastBlock:
    """A bottleneck in each pathway.

    Attributes:
        slow: Operator of the slow pathway's. The paper's is `t1x1_first`, time in the first 1x1.
        fast: Operator of the fast pathway's.
        attention: In the slow pathway's block, as the authors' non-local networks have it.
    """

    slow: TemporalOp
    fast: TemporalOp
    attention: Attention = "none"

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        one_of("attention", self.attention, ATTENTIONS)


@dataclass(frozen=True, kw_only=True, slots=True)
class SlowFastStage:
    """Blocks at one level of the network.

    Attributes:
        width: Planes of the slow pathway's 3x3 convolutions; four times as many go out.
        blocks: The blocks in order.
    """

    width: int
    blocks: tuple[SlowFastBlock, ...]

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range, or there is no block."""
        at_least("width", self.width, 1)
        if not self.blocks:
            raise SpecError("blocks must hold at least 1 block, but is empty")


@dataclass(frozen=True, kw_only=True, slots=True)
class SlowFastSpec(ArchSpec):
    """A SlowFast network. Its clip is the fast pathway's; every stage but the first halves the image.

    Attributes:
        family: `slowfast`.
        alpha: Frames of the fast pathway for each of the slow one.
        beta: Planes of the slow pathway for each of the fast one (the paper's beta is one part in this); rounded down,
            but at least 2 planes.
        fusion: How fast features reach the slow pathway.
        stem: Layers before the first block.
        stages: Residual stages in order.
        zero_init: As published, the last norm of every residual branch begins with a weight of 0.
    """

    family: Literal["slowfast"] = "slowfast"
    alpha: int
    beta: int = 8
    fusion: Fusion
    stem: SlowFastStem
    stages: tuple[SlowFastStage, ...]
    zero_init: bool = field(default=False, metadata=ADDED)

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range, or there is no stage."""
        at_least("alpha", self.alpha, 1)
        at_least("beta", self.beta, 1)
        if not self.stages:
            raise SpecError("stages must hold at least 1 stage, but is empty")

    def begins_at_zero(self) -> bool:
        """Returns `zero_init`."""
        return self.zero_init

    def fast_width(self, width: int) -> int:
        """Returns the fast pathway's width where the slow one's is this.

        Two planes are the least: a convolution of a single one has nothing to learn in front of a norm.
        """
        return max(2, width // self.beta)

    def fused(self, fast_planes: int) -> int:
        """Returns planes that a fusion adds to the slow pathway, given those of the fast one."""
        per_plane = {"conv": self.fusion.ratio, "sample": 1, "time_to_channel": self.alpha, "none": 0}
        return fast_planes * per_plane[self.fusion.kind]

    def stems(self) -> tuple[Stem, Stem]:
        """Returns the stems of the slow and the fast pathway."""
        slow = Stem(
            width=self.stem.width,
            temporal_kernel=self.stem.slow_kernel,
            spatial_kernel=7,
            spatial_stride=2,
            pool=self.stem.pool,
        )
        fast = self.fast_width(self.stem.width)
        return slow, replace(slow, width=fast, temporal_kernel=self.stem.fast_kernel)

    def walk(self) -> Iterator[tuple[int, int, PairUnit]]:
        """Yields (stage index, block index, blocks of both pathways and planes into them) in order."""
        slow, fast = (stem.width for stem in self.stems())
        for s, stage in enumerate(self.stages):
            slow += self.fused(fast)
            for b, block in enumerate(stage.blocks):
                unit = _pair(block, stage.width, self.fast_width(stage.width), 2 if s > 0 and b == 0 else 1, slow, fast)
                yield s, b, unit
                slow, fast = unit.slow.out_planes, unit.fast.out_planes

    def canonical(self) -> SlowFastSpec:
        """Returns the one spec that stands for all specs of the same network.

        What has no effect in a block takes its default, and so do kernel and ratio of a fusion that is not `conv`;
        `time_to_channel` is `sample` where alpha is 1; beta is the least that gives the same widths.
        """
        fusion = self.fusion if self.fusion.kind == "conv" else Fusion(kind=self.fusion.kind)
        if fusion.kind == "time_to_channel" and self.alpha == 1:
            fusion = Fusion(kind="sample")
        blocks: list[list[SlowFastBlock]] = [[] for _ in self.stages]
        for s, _, unit in self.walk():
            blocks[s].append(
                SlowFastBlock(slow=unit.slow.temporal, fast=unit.fast.temporal, attention=unit.slow.attention)
            )
        widths = (self.stem.width, *(stage.width for stage in self.stages))
        return replace(
            self,
            beta=max(width // (self.fast_width(width) + 1) + 1 for width in widths),
            fusion=fusion,
            stages=tuple(replace(stage, blocks=tuple(group)) for stage, group in zip(self.stages, blocks, strict=True)),
        )

    def links(self, *, num_classes: int, dropout: float = 0.0, planes: int = 3) -> tuple[Link, ...]:
        """Returns stems, fusions, pairs of blocks, and head."""
        slow, fast = self.stems()
        links = [Link("stem", StemsUnit(slow, fast, self.alpha, planes))]
        planes = fast.width
        for s, b, unit in self.walk():
            if b == 0 and self.fusion.kind != "none":
                links.append(Link(f"fusion.{s}", FusionUnit(self.fusion, planes, self.alpha)))
            links.append(Link(f"stages.{s}.{b}", unit))
            planes = unit.fast.out_planes
            both = planes + unit.slow.out_planes
        return (*links, Link("head", HeadUnit(both, num_classes, dropout)))

    def describe(self) -> str:
        """Returns one line that differs wherever canonical specs differ.

        For example `slowfast a4 b8 conv.7 x2 | 1+5x7x7/2-64 max pool | (64) 2d + t1x1_first.3 x3`: alpha, beta, fusion;
        temporal kernels of both stems; for each stage its width, then runs of equal blocks as the operators of the
        slow and the fast pathway.
        """
        fusion, stem = self.fusion, self.stem
        how = f"{fusion.kind}.{fusion.kernel} x{fusion.ratio}" if fusion.kind == "conv" else fusion.kind
        parts = [
            f"slowfast a{self.alpha} b{self.beta} {how}",
            f"{stem.slow_kernel}+{stem.fast_kernel}x7x7/2-{stem.width}" + (" max pool" if stem.pool == "max" else ""),
        ]
        for stage in self.stages:
            runs = [(text, len(list(group))) for text, group in groupby(map(_block_text, stage.blocks))]
            parts.append(f"({stage.width}) " + ", ".join(f"{text} x{n}" if n > 1 else text for text, n in runs))
        return " | ".join([*parts, "zero init"] if self.zero_init else parts)

    def rows(self) -> list[dict[str, object]]:
        """Returns a row for the stem of each pathway, for each fusion, and for each block of each pathway."""
        slow, fast = self.stems()
        rows = [{**stem_row(slow), "block": "slow"}, {**stem_row(fast), "block": "fast"}]
        planes = fast.width
        for s, b, unit in self.walk():
            if b == 0 and self.fusion.kind != "none":
                rows.append(self._fusion_row(planes))
            site = f"stages.{s}.blocks.{b}"
            rows.append(block_row(f"{site}.slow", unit.slow, unit.slow_planes))
            rows.append(block_row(f"{site}.fast", unit.fast, unit.fast_planes))
            planes = unit.fast.out_planes
        return rows

    def scaled(self, multiplier: float, *, multiple: int = 8) -> SlowFastSpec:
        """Returns the network with the slow pathway's widths times a multiplier, as multiples of `multiple`."""
        return replace(
            self,
            stem=replace(self.stem, width=scale(self.stem.width, multiplier, multiple)),
            stages=tuple(replace(stage, width=scale(stage.width, multiplier, multiple)) for stage in self.stages),
        ).canonical()

    def _fusion_row(self, planes: int) -> dict[str, object]:
        conv = self.fusion.kind == "conv"
        return {
            "site": "fusion",
            "block": "fusion",
            "in": planes,
            "out": self.fused(planes),
            "operator": self.fusion.kind,
            "kernel": f"{self.fusion.kernel}x1x1" if conv else "",
            "dilation": "1",
            "stride": f"{self.alpha}x1x1",
        }


@dataclass(frozen=True, slots=True)
class StemsUnit(Unit):
    """The stems of both pathways; of the clip's frames, the slow one sees those of `SlowFrames`."""

    slow: Stem
    fast: Stem
    alpha: int
    in_planes: int = 3

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws both, the clip being their input."""
        seen = builder.add(SlowFrames(self.alpha), *inputs, scope=name)
        slow = StemUnit(self.slow, self.in_planes).draw(builder, seen, name=join(name, "slow"))
        return (*slow, *StemUnit(self.fast, self.in_planes).draw(builder, *inputs, name=join(name, "fast")))


@dataclass(frozen=True, kw_only=True, slots=True)
class PairUnit(Unit):
    """The residual blocks of both pathways at one place, with the planes into each."""

    inputs = 2
    slow: Block
    fast: Block
    slow_planes: int
    fast_planes: int

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws both."""
        slow = BlockUnit(self.slow, self.slow_planes).draw(builder, inputs[0], name=join(name, "slow"))
        return (*slow, *BlockUnit(self.fast, self.fast_planes).draw(builder, inputs[1], name=join(name, "fast")))


@dataclass(frozen=True, slots=True)
class FusionUnit(Unit):
    """Fast features joined to the slow ones; see `Fusion`."""

    inputs = 2
    fusion: Fusion
    in_planes: int
    alpha: int

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws what widens the slow pathway; the fast one goes on as it is."""
        slow, fast = inputs
        if self.fusion.kind == "sample":
            found = builder.add(Subsample((self.alpha, 1, 1)), fast, scope=name)
        elif self.fusion.kind == "time_to_channel":
            found = builder.add(StackedFrames(self.alpha), fast, scope=name)
        else:
            k, out = self.fusion.kernel, self.in_planes * self.fusion.ratio
            conv = Convolution(self.in_planes, out, (k, 1, 1), (self.alpha, 1, 1), (k // 2, 0, 0))
            found = conv_norm(builder, fast, join(name, "lateral"), conv, act=True)
        return builder.add(Concat(), slow, found, scope=name), fast


@dataclass(frozen=True, slots=True)
class HeadUnit(Unit):
    """Each pathway averaged over space and time, both joined, dropout, linear classifier."""

    inputs = 2
    in_planes: int
    num_classes: int
    dropout: float

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws the head."""
        means = [builder.add(GlobalMean(), path, scope=name) for path in inputs]
        features = builder.add(Concat(), *means, scope=name)
        return (classifier(builder, features, self.in_planes, self.num_classes, dropout=self.dropout, name=name),)


@lru_cache(maxsize=65536)
def _pair(
    block: SlowFastBlock, slow_width: int, fast_width: int, stride: int, slow_planes: int, fast_planes: int
) -> PairUnit:
    slow = Block(
        kind="bottleneck",
        width=slow_width,
        spatial_stride=stride,
        temporal_stride=1,
        temporal=block.slow,
        attention=block.attention,
    )
    fast = replace(slow, width=fast_width, temporal=block.fast, attention="none")
    return PairUnit(
        slow=canonical_block(slow, slow_planes),
        fast=canonical_block(fast, fast_planes),
        slow_planes=slow_planes,
        fast_planes=fast_planes,
    )


def _block_text(block: SlowFastBlock) -> str:
    text = f"{op_text(block.slow)} + {op_text(block.fast)}"
    return text if block.attention == "none" else f"{text} {block.attention}"
