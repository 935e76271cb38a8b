"""Units that Inception networks share, as values, and their text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING, Literal

from search_spaces.errors import at_least, one_of
from search_spaces.flow import (
    Aside,
    Convolved,
    Flow,
    Linear,
    Mapped,
    Pooled,
    Shape,
    Step,
    Summed,
    classified,
    convolved,
    dropped,
)
from search_spaces.operators import FLAT, Attention, TemporalOp, canonical_op, midplanes, same_padding
from search_spaces.parts import Attend, Chain, Concat, Conv, Pool
from search_spaces.spec import Unit

if TYPE_CHECKING:
    from torch import nn

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
        eps=EPS,
        momentum=momentum,
    )
    return SpatialNormConv(unit) if op.kind == "p3d_a" and separable == "norm_spatial" else unit


@dataclass(frozen=True, slots=True)
class SpatialNormConv:
    """A separable convolution as TF slim's S3D-G has it: 1xkxk, norm, ReLU; then kx1x1 with bias and ReLU, but no norm.

    Attributes:
        conv: The convolution, whose operator is `p3d_a`.
    """

    conv: Conv

    def build(self) -> nn.Module:
        """Returns the module."""
        from search_spaces.families.inception.layers import SpatialNormSeparable

        return SpatialNormSeparable(self.conv)

    def whole(self, shape: Shape) -> Flow:
        """Returns what it is made of, for its cost."""
        unit, op = self.conv, self.conv.op
        s, t, planes = unit.spatial_stride, unit.temporal_stride, unit.out_planes
        over = convolved(
            planes, planes, (op.kernel, 1, 1), stride=(t, 1, 1), dilations=op.dilation, norm=False, bias=True
        )
        spatial = convolved(unit.in_planes, planes, (1, *unit.kernel), stride=(1, s, s), padding=unit.padding)
        return Flow((*spatial, *over))


@dataclass(frozen=True, slots=True)
class UnpaddedConv:
    """A convolution that is not padded over frames, so that T becomes (T - k) // stride + 1.

    Attributes:
        conv: The convolution, with one dilation.
    """

    conv: Conv

    def build(self) -> nn.Module:
        """Returns the module."""
        from search_spaces.families.inception.layers import without_time_padding

        return without_time_padding(self.conv.build())

    def whole(self, shape: Shape) -> Flow:
        """Returns what it is made of, for its cost."""
        steps = self.conv.whole(shape).steps
        return Flow(tuple(replace(x, padding=(0, *x.padding[1:])) if isinstance(x, Convolved) else x for x in steps))


@dataclass(frozen=True, slots=True)
class SamePadded:
    """A unit whose convolutions and max pools have TensorFlow's SAME padding; see `spec.same_padding`.

    Without stride it is what the unit has anyway, for an odd kernel. With one, it depends on the size of the input:
    windows of an even size lie one place further on than symmetric padding has them.

    Attributes:
        unit: The unit.
    """

    unit: Conv | SpatialNormConv | Pool

    def build(self) -> nn.Module:
        """Returns the module."""
        from search_spaces.families.inception.layers import with_same_padding

        return with_same_padding(self.unit.build())

    def whole(self, shape: Shape) -> Flow:
        """Returns what it is made of, for its cost."""
        return Flow(_same_padded(self.unit.whole(shape).steps, shape))


def _same_padded(steps: tuple[Step, ...], shape: Shape) -> tuple[Step, ...]:
    """Returns steps on an input of a shape with SAME padding: what a layer does not pad itself goes before it."""
    found: list[Step] = []
    for step in steps:
        if isinstance(step, Summed):
            found.append(replace(step, branches=tuple(_same_padded(branch, shape) for branch in step.branches)))
        elif isinstance(step, Convolved | Pooled):
            planes, sizes = shape[0], shape[1:]
            pads, ends = zip(*map(same_padding, sizes, step.kernel, step.stride), strict=True)
            if any(ends):
                found.append(Mapped((planes, *(size + end for size, end in zip(sizes, ends, strict=True)))))
            found.append(replace(step, padding=pads))
            planes = step.out_planes if isinstance(step, Convolved) else planes
            shape = (planes, *(-(-size // stride) for size, stride in zip(sizes, step.stride, strict=True)))
        else:
            found.append(step)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Average:
    """An average over so many frames of 3x3 pixels that keeps the size."""

    frames: int

    def build(self) -> nn.Module:
        """Returns the module."""
        from search_spaces.families.inception.layers import AveragePool

        return AveragePool((self.frames, 3, 3))

    def whole(self, shape: Shape) -> Flow:
        """Returns what it is made of, for its cost."""
        kernel = (self.frames, 3, 3)
        edges = (self.frames // 2, 1, 1)
        steps: tuple[Step, ...] = (Pooled("avg", kernel, (1, 1, 1), edges),)
        if any(size < window for size, window in zip(shape[1:], kernel, strict=True)):
            padded = (shape[0], *(size + 2 * edge for size, edge in zip(shape[1:], edges, strict=True)))
            steps = (Mapped(padded), Pooled("avg", kernel, (1, 1, 1), (0, 0, 0)))
        # A factor for each frame, of which there is one for a batch; where it is measured, that is of two clips.
        return Flow((*steps, Mapped(keeps_bytes=2 * shape[1])) if self.frames > 1 else steps)


@dataclass(frozen=True, slots=True)
class LocalHead:
    """Average over 2x7x7 at every place, dropout, linear classifier, mean of the logits; see the layer."""

    in_planes: int
    num_classes: int
    dropout: float = 0.0

    def build(self) -> nn.Module:
        """Returns the module."""
        from search_spaces.families.inception.layers import LocalClassifier

        return LocalClassifier(self.in_planes, self.num_classes, kernel=LOCAL, dropout=self.dropout)

    def whole(self, shape: Shape) -> Flow:
        """Returns what it is made of, for its cost."""
        kernel = tuple(min(most, size) for most, size in zip(LOCAL, shape[1:], strict=True))
        places = (shape[0], *(size - k + 1 for size, k in zip(shape[1:], kernel, strict=True)))
        average = Mapped(places, keeps_input=True)
        fc = Linear(self.in_planes, self.num_classes)
        return Flow((average, *dropped(places, self.dropout), fc, Mapped((self.num_classes,))))


@dataclass(frozen=True, slots=True)
class AuxHead:
    """The auxiliary classifier of Inception-v3; see the layer."""

    in_planes: int
    mid_planes: int
    out_planes: int
    num_classes: int

    def build(self) -> nn.Module:
        """Returns the module."""
        from search_spaces.families.inception.layers import AuxClassifier

        planes = (self.in_planes, self.mid_planes, self.out_planes)
        return AuxClassifier(*planes, self.num_classes, cells=AUX_CELLS, grid=AUX_GRID)

    def whole(self, shape: Shape) -> Flow:
        """Returns what it is made of, for its cost."""
        planes, frames, *size = shape
        cells: Step = Pooled("avg", (1, 5, 5), (1, 3, 3), (0, 0, 0))
        if min(size) < AUX_CELLS:
            cells = Mapped((planes, frames, AUX_GRID, AUX_GRID), keeps_input=True)
        conv0 = convolved(planes, self.mid_planes, (1, 1, 1))
        conv1 = convolved(self.mid_planes, self.out_planes, (1, AUX_GRID, AUX_GRID), padding=(0, 0))
        return Flow((Aside((cells, *conv0, *conv1, *classified(self.out_planes, self.out_planes, self.num_classes))),))


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


def attended(branches: Sequence[tuple[Unit, ...]], planes: Sequence[int], kind: Attention) -> Chain | Concat:
    """Returns branches side by side, with attention: a gate behind each branch (S3D-G), other kinds behind them all.

    Args:
        branches: The branches.
        planes: Planes that each of them gives.
        kind: Of the attention.
    """
    if kind == "gate":
        pairs = zip(branches, planes, strict=True)
        return Concat(branches=tuple((*branch, Attend(kind, width)) for branch, width in pairs))
    joined = Concat(branches=tuple(branches))
    return joined if kind == "none" else Chain(parts=(joined, Attend(kind, sum(planes))))


def check_op(op: TemporalOp, kinds: tuple[str, ...]) -> None:
    """Raises SpecError unless the operator is one that an Inception network can have.

    Most of its convolutions change the number of planes, so they cannot be depthwise, and a block has many 1x1x1
    convolutions without an order, so none is "the first".
    """
    one_of("temporal.kind", op.kind, kinds)


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
