"""Units that Inception networks share, as values, and their text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import Literal

from search_spaces.errors import at_least, one_of
from search_spaces.graph import (
    AuxPool,
    Convolution,
    Dropout,
    GraphBuilder,
    Linear,
    Mean,
    PlanesLast,
    SameAvgPool,
    Unit,
    ValidAvgPool,
    join,
)
from search_spaces.operators import FLAT, Attention, TemporalOp, canonical_op, check_order, midplanes
from search_spaces.parts import Attend, Branches, Chain, Conv, NormConfig, conv_norm, relu

Separable = Literal["norm_both", "norm_spatial"]
SEPARABLE: tuple[Separable, ...] = ("norm_both", "norm_spatial")
Padding = Literal["symmetric", "same"]
PADDINGS: tuple[Padding, ...] = ("symmetric", "same")
# Added to the variance in the norms of Inception networks, in torchvision as in slim.
EPS = 1e-3
# What the head of Inception-v1 averages at every place: two frames of what is left of 224x224.
LOCAL = (2, 7, 7)
# The auxiliary head of Inception-v3 averages 17x17 cells, what is left of 299x299, to 5x5.
AUX_CELLS, AUX_GRID = 17, 5


@dataclass(frozen=True, kw_only=True, slots=True)
class FramePool:
    """What a max pool over rows and columns does to frames.

    Attributes:
        kernel: In frames; an odd one is padded so that frames are kept up to the stride, an even one is not.
        stride: Over frames.
    """

    kernel: int
    stride: int

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        at_least("kernel", self.kernel, 1)
        at_least("stride", self.stride, 1)

    @property
    def padding(self) -> int:
        """Padding on each side of the frames."""
        return self.kernel // 2 if self.kernel % 2 else 0


@lru_cache(maxsize=65536)
def conv(
    in_planes: int,
    out_planes: int,
    op: TemporalOp = FLAT,
    *,
    kernel: tuple[int, int] = (1, 1),
    stride: int = 1,
    temporal_stride: int = 1,
    padding: tuple[int, int] | None = None,
    momentum: float = 0.1,
    separable: Separable = "norm_both",
    pad_frames: bool = True,
    same: bool = False,
) -> Conv | SpatialNormConv:
    """Returns a convolution of an Inception network: with norm and ReLU, and time as the operator says.

    Args:
        in_planes: Planes in.
        out_planes: Planes out.
        op: The operator.
        kernel: Rows and columns.
        stride: Over rows and columns.
        temporal_stride: Over frames.
        padding: Rows and columns of zeros on each side; None keeps the size.
        momentum: Of the norms.
        separable: `norm_spatial` makes the `p3d_a` operator that of slim; see `SpatialNormConv`.
        pad_frames: Pad over frames.
        same: TensorFlow's SAME padding.
    """
    mid = 0
    if op.kind == "2plus1d":
        per_conv = midplanes(op.kernel, in_planes, out_planes, spatial=kernel[0] * kernel[1])
        mid = out_planes if op.midplanes == "equal" else per_conv
    unit = Conv(
        in_planes=in_planes,
        out_planes=out_planes,
        kernel=kernel,
        op=op,
        spatial_stride=stride,
        temporal_stride=temporal_stride,
        padding=padding,
        midplanes=mid,
        norms=NormConfig(EPS, momentum),
        pad_frames=pad_frames,
        same=same,
    )
    return SpatialNormConv(unit) if op.kind == "p3d_a" and separable == "norm_spatial" else unit


@dataclass(frozen=True, slots=True)
class SpatialNormConv(Unit):
    """A separable convolution as TF slim's S3D-G has it: 1xkxk, norm, ReLU; then kx1x1 with bias and ReLU, but no norm.

    It begins as the identity in time.

    Attributes:
        conv: The convolution, whose operator is `p3d_a`.
    """

    conv: Conv

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws its layers."""
        (x,), unit, t, s = inputs, self.conv, self.conv.temporal_stride, self.conv.spatial_stride
        x = conv_norm(builder, x, join(name, "spatial"), unit.spatial((1, s, s)), act=True, norms=unit.norms)
        over = replace(unit.temporal(unit.out_planes, unit.out_planes, (t, 1, 1)), bias=True, identity=True)
        return (relu(builder, builder.add(over, x, name=join(name, "temporal")), name),)


@dataclass(frozen=True, slots=True)
class Average(Unit):
    """An average over 3x3 pixels of a number of frames that keeps the size."""

    frames: int

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws the layer."""
        return (builder.add(SameAvgPool((self.frames, 3, 3)), *inputs, scope=name),)


@dataclass(frozen=True, slots=True)
class LocalHead(Unit):
    """Average over 2x7x7 at stride 1, dropout, the same linear classifier at every place, mean of the logits.

    The head of I3D and S3D. Where less than its kernel is left of a clip, the average is over what is left.
    """

    in_planes: int
    num_classes: int
    dropout: float = 0.0

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws the head."""
        x = builder.add(ValidAvgPool(LOCAL), *inputs, scope=name)
        x = builder.add(PlanesLast(), builder.add(Dropout(self.dropout), x, name=join(name, "dropout")), scope=name)
        x = builder.add(Linear(self.in_planes, self.num_classes), x, name=join(name, "fc"))
        return (builder.add(Mean((0, 1, 2)), x, scope=name),)


@dataclass(frozen=True, slots=True)
class AuxHead(Unit):
    """The auxiliary classifier of Inception-v3.

    Average 5x5 of stride 3, 1x1x1, 1x5x5 without padding, average over what is left, linear classifier: as
    torchvision's, frame by frame. Its 5x5 convolution needs 5x5 cells, which maps below 17x17 do not leave: they are
    averaged to 5x5 instead.

    Attributes:
        in_planes: Planes in.
        mid_planes: Planes of the 1x1x1 convolution.
        out_planes: Planes of the 1x5x5 convolution.
        num_classes: Classes.
    """

    aside = True
    in_planes: int
    mid_planes: int
    out_planes: int
    num_classes: int

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws the head."""
        x = builder.add(AuxPool(AUX_CELLS, AUX_GRID), *inputs, scope=name)
        conv0 = Convolution(self.in_planes, self.mid_planes)
        conv1 = Convolution(self.mid_planes, self.out_planes, (1, AUX_GRID, AUX_GRID))
        x = conv_norm(builder, x, join(name, "conv0"), conv0, act=True, norms=NormConfig(EPS))
        x = conv_norm(builder, x, join(name, "conv1"), conv1, act=True, norms=NormConfig(EPS))
        x = builder.add(Mean((1, 2, 3)), x, scope=name)
        return (builder.add(Linear(self.out_planes, self.num_classes), x, name=join(name, "fc")),)


@lru_cache(maxsize=65536)
def canonical(op: TemporalOp, separable: Separable = "norm_both") -> TemporalOp:
    """The operator without what has no effect in an Inception network.

    There is no block in whose convolutions planes could be shared, so `shared` midplanes are `per_conv`. With as many
    planes between its convolutions as behind them, `2plus1d` is `p3d_a` (unless that is slim's form).
    """
    op = canonical_op(op)
    if op.kind != "2plus1d":
        return op
    if op.midplanes == "equal" and separable == "norm_both":
        return TemporalOp(kind="p3d_a", kernel=op.kernel, dilation=op.dilation)
    if op.midplanes == "shared":
        return TemporalOp(kind="2plus1d", kernel=op.kernel, dilation=op.dilation)
    return op


def attended(branches: Sequence[tuple[Unit, ...]], planes: Sequence[int], kind: Attention) -> Chain | Branches:
    """Returns branches side by side, with attention: a gate behind each branch (S3D-G), other kinds behind them all.

    Args:
        branches: The branches.
        planes: Planes that each of them gives.
        kind: Of the attention.
    """
    if kind == "gate":
        pairs = zip(branches, planes, strict=True)
        return Branches(branches=tuple((*branch, Attend(kind, width)) for branch, width in pairs))
    joined = Branches(branches=tuple(branches))
    return joined if kind == "none" else Chain(parts=(joined, Attend(kind, sum(planes))))


def check_op(op: TemporalOp, kinds: tuple[str, ...]) -> None:
    """Raises SpecError unless the operator is one that an Inception network can have.

    Most of its convolutions change the number of planes, so they cannot be depthwise, and a block has many 1x1x1
    convolutions without an order, so none is "the first".
    """
    one_of("temporal.kind", op.kind, kinds)
    check_order(op, "Inception networks")


def op_text(op: TemporalOp) -> str:
    """Returns an operator as `3d.5 d1|2`."""
    text = op.kind if op == FLAT else f"{op.kind}.{op.kernel}"
    if op.dilation != (1,):
        text += f" d{dilation_text(op)}"
    return text if op.midplanes == "per_conv" else f"{text} {op.midplanes}"


def kernel_text(op: TemporalOp, spatial: str) -> str:
    """Returns the kernels of an operator's convolutions, such as `1x3x3, 3x1x1`."""
    if op.kind == "3d":
        return f"{op.kernel}x{spatial}"
    return f"1x{spatial}" if op.kind == "2d" else f"1x{spatial}, {op.kernel}x1x1"


def dilation_text(op: TemporalOp) -> str:
    """Returns an operator's dilations, such as `1|2|4`."""
    return "|".join(map(str, op.dilation))


def runs(named: Iterable[tuple[str, str]]) -> str:
    """Joins names of equal text: `3b-4f 2d, 5b-5c 3d.3`."""
    parts = []
    for text, group in groupby(named, key=lambda pair: pair[1]):
        names = [name for name, _ in group]
        parts.append(f"{names[0] if len(names) == 1 else f'{names[0]}-{names[-1]}'} {text}")
    return ", ".join(parts)


def with_attention(text: str, attention: Attention) -> str:
    """Returns a layer's text with the name of its attention behind it."""
    return text if attention == "none" else f"{text} {attention}"


def row(
    site: str,
    block: str,
    in_planes: int,
    out_planes: int,
    op: TemporalOp,
    size: str,
    stride: str = "1x1x1",
    *,
    attention: Attention = "none",
) -> dict[str, object]:
    """Returns a row of the table of a network.

    Args:
        site: Path in the spec.
        block: What it is.
        in_planes: Planes in.
        out_planes: Planes out.
        op: Its operator.
        size: Rows and columns of its kernel.
        stride: Stride over (T, H, W).
        attention: Behind it.
    """
    return {
        "site": site,
        "block": block,
        "in": in_planes,
        "out": out_planes,
        "operator": (op.kind if op.midplanes == "per_conv" else f"{op.kind} {op.midplanes}")
        + ("" if attention == "none" else f" + {attention}"),
        "kernel": kernel_text(op, size),
        "dilation": dilation_text(op),
        "stride": stride,
    }
