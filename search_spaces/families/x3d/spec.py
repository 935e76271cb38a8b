"""X3D as values: Feichtenhofer 2020, "X3D: Expanding Architectures for Efficient Video Recognition".

https://arxiv.org/abs/2004.04730. A tiny 2D network is expanded along one axis at a time; what came out is a residual
network whose middle convolutions see one plane each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from search_spaces.errors import SpecError, at_least, one_of
from search_spaces.families.resnet.show import dilation_text, kernel_text, op_text
from search_spaces.graph import (
    Activation,
    Convolution,
    Flatten,
    GlobalMean,
    GraphBuilder,
    Link,
    Sum,
    Triple,
    Unit,
    join,
)
from search_spaces.operators import ADDED, ATTENTIONS, FLAT, NONLOCALS, Attention, Kind, TemporalOp, canonical_op
from search_spaces.parts import Attend, classifier, conv_norm, factorised, normed, relu
from search_spaces.spec import ArchSpec, scale

if TYPE_CHECKING:
    from torch import nn

KINDS: tuple[Kind, ...] = ("csn", "2plus1d", "2d")
STEM_KERNELS = (1, 3, 5, 7)


@dataclass(frozen=True, kw_only=True, slots=True)
class X3DBlock:
    """A residual block: 1x1x1 to the inner planes, the operator on each of them alone, 1x1x1 back.

    Attributes:
        temporal: Operator of the middle, channelwise: `csn` kx3x3, `2d` 1x3x3, `2plus1d` 1x3x3, norm, ReLU, kx1x1
            (which is P3D-A here, as the planes are the same throughout).
        attention: Behind the operator's norm, `se` squeeze-excitation or `gate` that of S3D-G; `nonlocal` is a
            non-local block behind the sum with the shortcut.
    """

    temporal: TemporalOp
    attention: Attention = "none"

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        one_of("temporal.kind", self.temporal.kind, KINDS)
        one_of("attention", self.attention, ATTENTIONS)


@dataclass(frozen=True, kw_only=True, slots=True)
class X3DStage:
    """Blocks at one level of the network.

    Attributes:
        width: Planes out of every block.
        midplanes: Planes that the operators see.
        spatial_stride: Stride over rows and columns, in the first block.
        temporal_stride: Stride over frames, in the first block.
        blocks: The blocks in order.
    """

    width: int
    midplanes: int
    spatial_stride: int = 2
    temporal_stride: int = 1
    blocks: tuple[X3DBlock, ...]

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range, or there is no block."""
        for name in ("width", "midplanes", "spatial_stride", "temporal_stride"):
            at_least(name, getattr(self, name), 1)
        if not self.blocks:
            raise SpecError("blocks must hold at least 1 block, but is empty")


@dataclass(frozen=True, kw_only=True, slots=True)
class X3DStem:
    """A dense 1x3x3 convolution, a channelwise kx1x1, norm, ReLU.

    Attributes:
        width: Planes out.
        temporal_kernel: k in frames, odd; 1 leaves that convolution out.
        spatial_stride: Stride over rows and columns.
    """

    width: int
    temporal_kernel: int = 5
    spatial_stride: int = 2

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        at_least("width", self.width, 1)
        at_least("spatial_stride", self.spatial_stride, 1)
        one_of("temporal_kernel", self.temporal_kernel, STEM_KERNELS)


@dataclass(frozen=True, kw_only=True, slots=True)
class X3DHead:
    """A 1x1x1 convolution, average over space and time, a linear layer to many features, the classifier.

    Attributes:
        midplanes: Planes that are averaged.
        width: Features that are classified.
    """

    midplanes: int
    width: int = 2048

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        at_least("midplanes", self.midplanes, 1)
        at_least("width", self.width, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class X3DSpec(ArchSpec):
    """An X3D.

    Attributes:
        family: `x3d`.
        stem: Layers before the first block.
        stages: Residual stages in order.
        head: Layers behind the last block.
        shortcut_norm: A norm behind the convolution of every shortcut, as in the authors' repository; else only where
            the number of planes changes, as in pytorchvideo.
        zero_init: Initial values as published: a weight of 0 in the last norm of every residual branch, and layers of
            squeeze-excitation drawn as convolutions are.
    """

    family: Literal["x3d"] = "x3d"
    stem: X3DStem
    stages: tuple[X3DStage, ...]
    head: X3DHead
    shortcut_norm: bool = field(default=False, metadata=ADDED)
    zero_init: bool = field(default=False, metadata=ADDED)

    def __post_init__(self) -> None:
        """Raises SpecError if there is no stage."""
        if not self.stages:
            raise SpecError("stages must hold at least 1 stage, but is empty")

    def walk(self) -> Iterator[tuple[int, int, BlockUnit]]:
        """Yields (stage index, block index, block with all that it is built from) in order."""
        planes = self.stem.width
        for s, stage in enumerate(self.stages):
            for b, block in enumerate(stage.blocks):
                yield (
                    s,
                    b,
                    BlockUnit(
                        block=block,
                        in_planes=planes,
                        midplanes=stage.midplanes,
                        out_planes=stage.width,
                        spatial_stride=stage.spatial_stride if b == 0 else 1,
                        temporal_stride=stage.temporal_stride if b == 0 else 1,
                        shortcut_norm=self.shortcut_norm,
                    ),
                )
                planes = stage.width

    def canonical(self) -> X3DSpec:
        """Returns the one spec of this network.

        What has no effect in an operator takes its default, and `csn` of kernel 1 is `2d`; so does `shortcut_norm`
        where no shortcut has a convolution that keeps the number of planes.
        """
        stages = tuple(replace(stage, blocks=tuple(map(_canonical_block, stage.blocks))) for stage in self.stages)
        matters = any(unit.has_projection and unit.in_planes == unit.out_planes for _, _, unit in self.walk())
        return replace(self, stages=stages, shortcut_norm=self.shortcut_norm and matters)

    def links(self, *, num_classes: int, dropout: float = 0.0, planes: int = 3) -> tuple[Link, ...]:
        """Returns stem, blocks and head."""
        head = HeadUnit(in_planes=self.stages[-1].width, head=self.head, num_classes=num_classes, dropout=dropout)
        return (
            Link("stem", StemUnit(self.stem, planes)),
            *(Link(f"stages.{s}.{b}", unit) for s, b, unit in self.walk()),
            Link("head", head),
        )

    def describe(self) -> str:
        """Returns one line that differs wherever canonical specs differ.

        For example `x3d 24 5x3x3/2 | 24(54)/2 csn.3 se, csn.3 | 432-2048`: stem; for each stage its planes, inner
        planes in brackets and strides, then runs of equal blocks; planes and features of the head.
        """
        stem, head = self.stem, self.head
        parts = [f"x3d {stem.width} {stem.temporal_kernel}x3x3/{stem.spatial_stride}"]
        for stage in self.stages:
            runs = [(text, len(list(group))) for text, group in groupby(map(_block_text, stage.blocks))]
            time = f" t/{stage.temporal_stride}" if stage.temporal_stride > 1 else ""
            parts.append(
                f"{stage.width}({stage.midplanes})/{stage.spatial_stride}{time} "
                + ", ".join(f"{text} x{n}" if n > 1 else text for text, n in runs)
            )
        parts.append(f"{head.midplanes}-{head.width}")
        parts += ["shortcut norm"] if self.shortcut_norm else []
        return " | ".join([*parts, "zero init"] if self.zero_init else parts)

    def begins_at_zero(self) -> bool:
        """Returns `zero_init`."""
        return self.zero_init

    def initialise(self, network: nn.Module) -> None:
        """Draws initial values; where they are as published, squeeze-excitation is drawn as convolutions are."""
        from search_spaces.modules import draw_by_fan_out, initialise

        initialise(network)
        if self.zero_init:
            # The authors have convolutions there.
            draw_by_fan_out(network, ("gate.fc1", "gate.fc2"))

    def rows(self) -> list[dict[str, object]]:
        """Returns one row for the stem, one for each block, one for the head."""
        stem, head = self.stem, self.head
        return [
            _row(
                "stem",
                block="stem",
                planes=(3, stem.width),
                operator="2d, csn" if stem.temporal_kernel > 1 else "2d",
                kernel="1x3x3" + (f", {stem.temporal_kernel}x1x1" if stem.temporal_kernel > 1 else ""),
                stride=(1, stem.spatial_stride),
            ),
            *(
                _row(
                    f"stages.{s}.blocks.{b}",
                    block=f"x3d {unit.midplanes}",
                    planes=(unit.in_planes, unit.out_planes),
                    operator=unit.block.temporal.kind
                    + ("" if unit.block.attention == "none" else f" + {unit.block.attention}"),
                    kernel=kernel_text(unit.block.temporal),
                    dilation=dilation_text(unit.block.temporal.dilation),
                    stride=(unit.temporal_stride, unit.spatial_stride),
                )
                for s, b, unit in self.walk()
            ),
            _row(
                "head",
                block=f"x3d {head.midplanes}",
                planes=(self.stages[-1].width, head.width),
                operator="linear",
                kernel="1x1x1, 1x1x1",
            ),
        ]

    def scaled(self, multiplier: float, *, multiple: int = 8) -> X3DSpec:
        """Returns the network with all widths times a multiplier, as multiples of `multiple`."""
        return replace(
            self,
            stem=replace(self.stem, width=scale(self.stem.width, multiplier, multiple)),
            stages=tuple(
                replace(
                    stage,
                    width=scale(stage.width, multiplier, multiple),
                    midplanes=scale(stage.midplanes, multiplier, multiple),
                )
                for stage in self.stages
            ),
            head=X3DHead(
                midplanes=scale(self.head.midplanes, multiplier, multiple),
                width=scale(self.head.width, multiplier, multiple),
            ),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockUnit(Unit):
    """A block as a link of the chain, with planes and strides."""

    block: X3DBlock
    in_planes: int
    midplanes: int
    out_planes: int
    spatial_stride: int
    temporal_stride: int
    shortcut_norm: bool = False

    @property
    def has_projection(self) -> bool:
        """Whether the shortcut is a convolution."""
        return self.in_planes != self.out_planes or self.spatial_stride > 1 or self.temporal_stride > 1

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws 1x1x1, ReLU; the operator; attention; Swish; 1x1x1; the shortcut; ReLU."""
        (x,), mid, out = inputs, self.midplanes, self.out_planes
        stride = (self.temporal_stride, self.spatial_stride, self.spatial_stride)
        attention, behind = self.block.attention, self.block.attention in NONLOCALS
        found = conv_norm(builder, x, join(name, "conv1"), Convolution(self.in_planes, mid), act=True)
        found = self._channelwise(builder, found, join(name, "conv2.conv"), stride)
        found = normed(builder, found, join(name, "conv2"), mid)
        if not behind:
            # The paper does not say how many planes are inside squeeze-excitation; the authors' code does.
            gate = Attend(attention, mid, hidden=round_width(mid, 1 / 16) if attention == "se" else 0)
            (found,) = gate.draw(builder, found, name=join(name, "gate"))
        found = builder.add(Activation("silu"), found, name=join(name, "swish"))
        found = conv_norm(builder, found, join(name, "conv3"), Convolution(mid, out), act=False, last=True)
        shortcut = x
        if self.has_projection:
            conv, path = Convolution(self.in_planes, out, stride=stride), join(name, "shortcut")
            if self.shortcut_norm or self.in_planes != out:
                shortcut = conv_norm(builder, x, path, conv, act=False)
            else:
                shortcut = builder.add(conv, x, name=path)
        found = relu(builder, builder.add(Sum(in_place=True), found, shortcut, scope=name), name)
        return Attend(attention, out).draw(builder, found, name=join(name, "last")) if behind else (found,)

    def _channelwise(self, builder: GraphBuilder, x: int, name: str, stride: Triple) -> int:
        """Draws the operator, whose convolutions see one plane each."""
        op, mid, (t, h, w) = self.block.temporal, self.midplanes, stride
        k = 1 if op.kind == "2d" else op.kernel
        if op.kind != "2plus1d":
            conv = Convolution(mid, mid, (k, 3, 3), stride, (k // 2, 1, 1), groups=mid, dilations=op.dilation)
            return builder.add(conv, x, name=name)
        flat = Convolution(mid, mid, (1, 3, 3), (1, h, w), (0, 1, 1), groups=mid)
        over = Convolution(mid, mid, (k, 1, 1), (t, 1, 1), (k // 2, 0, 0), groups=mid, dilations=op.dilation)
        return factorised(builder, x, name, flat, over, time_first=op.time_first)


@dataclass(frozen=True, slots=True)
class StemUnit(Unit):
    """The stem with the planes of the clip: a dense 1x3x3, a channelwise kx1x1 with nothing in between, norm, ReLU."""

    stem: X3DStem
    in_planes: int = 3

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws its layers."""
        width, s, k = self.stem.width, self.stem.spatial_stride, self.stem.temporal_kernel
        flat = Convolution(self.in_planes, width, (1, 3, 3), (1, s, s), (0, 1, 1))
        x = builder.add(flat, *inputs, name=join(name, "spatial"))
        if k > 1:
            over = Convolution(width, width, (k, 1, 1), padding=(k // 2, 0, 0), groups=width)
            x = builder.add(over, x, name=join(name, "temporal"))
        return (normed(builder, x, name, width, act=True),)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadUnit(Unit):
    """1x1x1, norm, ReLU; average over space and time; linear to many features, ReLU; dropout; classifier."""

    in_planes: int
    head: X3DHead
    num_classes: int
    dropout: float

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws its layers."""
        (x,), mid, features = inputs, self.head.midplanes, self.head.width
        x = conv_norm(builder, x, join(name, "conv"), Convolution(self.in_planes, mid), act=True)
        x = builder.add(GlobalMean(keep=True), x, scope=name)
        # A convolution of one position, so that it is drawn as the others are.
        x = builder.add(Convolution(mid, features), x, name=join(name, "expand"))
        x = builder.add(Flatten(), relu(builder, x, name), scope=name)
        return (classifier(builder, x, features, self.num_classes, dropout=self.dropout, name=name),)


def round_width(width: int, factor: float) -> int:
    """Returns a width times a factor as the authors round it: to a multiple of 8, at least 8 and 90 percent."""
    exact = width * factor
    rounded = max(8, int(exact + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * exact else rounded


@lru_cache(maxsize=65536)
def _canonical_block(block: X3DBlock) -> X3DBlock:
    op = canonical_op(replace(block.temporal, midplanes="per_conv"))
    return replace(block, temporal=FLAT if op.kind == "csn" and op.kernel == 1 else op)


def _block_text(block: X3DBlock) -> str:
    return op_text(block.temporal) + _behind(block, " ")


def _behind(block: X3DBlock, sign: str) -> str:
    return "" if block.attention == "none" else f"{sign}{block.attention}"


def _row(
    site: str,
    *,
    block: str,
    planes: tuple[int, int],
    operator: str,
    kernel: str,
    dilation: str = "1",
    stride: tuple[int, int] = (1, 1),
) -> dict[str, object]:
    return {
        "site": site,
        "block": block,
        "in": planes[0],
        "out": planes[1],
        "operator": operator,
        "kernel": kernel,
        "dilation": dilation,
        "stride": f"{stride[0]}x{stride[1]}x{stride[1]}",
    }
