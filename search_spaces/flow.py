"""What units are made of, as far as their cost goes: a few steps whose cost follows from their values.

A unit that has a `whole` says so, for the shape of its input. It is a second description of what `build` makes, much
faster to count, and without torch; tests hold the two to the same cost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any, Literal

from search_spaces.operators import POINTWISE_KINDS, PORT_KINDS, SEPARATED_KINDS, TemporalOp
from search_spaces.spec import Unit

Triple = tuple[int, int, int]
# Of one clip: (C, T, H, W), fewer dimensions behind a mean; or a tuple of such between links that pass on several.
Shape = Any

_FLOAT = 4


@dataclass(frozen=True, slots=True)
class Convolved:
    """A convolution over (T, H, W) and its batch norm.

    Attributes:
        in_planes: Planes in.
        out_planes: Planes out.
        kernel: Over (T, H, W).
        stride: Over (T, H, W).
        padding: Zeros on each side of (T, H, W), at a dilation of 1; the dilation of the kernel over frames leaves the
            size, and so the cost, as it is.
        groups: Groups of planes that are convolved apart.
        passes: Convolutions of one call in evaluation; one in training.
        norm: Whether the batch norm is there.
        bias: Whether the convolution has one.
    """

    in_planes: int
    out_planes: int
    kernel: Triple
    stride: Triple
    padding: Triple
    groups: int = 1
    passes: int = 1
    norm: bool = True
    bias: bool = False


@dataclass(frozen=True, slots=True)
class Rectified:
    """A ReLU, in place unless said otherwise."""

    in_place: bool = True


@dataclass(frozen=True, slots=True)
class Pooled:
    """A max or average pool; the attributes are those of `parts.Pool`."""

    kind: Literal["max", "avg"]
    kernel: Triple
    stride: Triple
    padding: Triple
    ceil: bool = False


@dataclass(frozen=True, slots=True)
class Mapped:
    """What has no weights and multiplies nothing that is counted: a mean, an activation, another order of values.

    Attributes:
        shape: What it gives, a new tensor; None is what goes in.
        keeps_input: Its backward pass needs what goes in.
        keeps_output: Its backward pass needs what comes out.
        keeps_bytes: What else it needs of one clip.
    """

    shape: Shape = None
    keeps_input: bool = False
    keeps_output: bool = False
    keeps_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer on the planes at every place; the mean over space and time before it is a `Mapped`."""

    in_planes: int
    out_planes: int
    bias: bool = True


@dataclass(frozen=True, slots=True)
class NonLocal:
    """The block of `attention.NonLocal`, its shortcut included, for so many planes."""

    planes: int
    bias: bool = True


@dataclass(frozen=True, slots=True)
class Summed:
    """Branches on the same input, each a chain of steps, added up.

    Attributes:
        branches: The branches; an empty one is the input itself.
        in_place: The others are added to what the first gave, in its own memory.
    """

    branches: tuple[tuple[Step, ...], ...]
    in_place: bool = False


@dataclass(frozen=True, slots=True)
class Weighed:
    """The input times what a chain makes of it, one factor for each plane."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Aside:
    """A chain of steps beside the others: it sees the input in training, and nobody sees what it gives."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Forked:
    """Branches on the same input; what they give is passed on as a tuple."""

    branches: tuple[tuple[Step, ...], ...]


@dataclass(frozen=True, slots=True)
class Parallel:
    """One chain of steps for each tensor of a tuple; what they give is passed on as a tuple."""

    chains: tuple[tuple[Step, ...], ...]


@dataclass(frozen=True, slots=True)
class Fused:
    """Of two tensors, what a chain makes of the second is joined to the planes of the first; the second stays."""

    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Stretched:
    """A unit that differs from another one in the kernel and the dilations of its temporal convolutions alone.

    Attributes:
        unit: The other, whose temporal convolutions each have a set of two dilations.
        measured: Its temporal kernel.
        kernel: The temporal kernel.
        passes: Dilations.
    """

    unit: Unit
    measured: int
    kernel: int
    passes: int


Joint = Summed | Weighed | Aside | Forked | Parallel | Fused
Step = Unit | Convolved | Rectified | Pooled | Mapped | Linear | NonLocal | Joint | Stretched


@dataclass(frozen=True, slots=True)
class Flow:
    """Steps one after the other."""

    steps: tuple[Step, ...]


def unrectified(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Returns steps without their ReLUs: one in place between a convolution and its norm keeps and makes no tensor."""
    kept = (step for step in steps if not isinstance(step, Rectified))
    return tuple(
        replace(step, branches=tuple(map(unrectified, step.branches))) if isinstance(step, Summed) else step
        for step in kept
    )


def dropped(shape: Shape, share: float) -> tuple[Step, ...]:
    """Returns a dropout on values of a shape, which keeps its mask; nothing where nothing is dropped."""
    return (Mapped(keeps_bytes=_FLOAT * prod(shape)),) if share > 0 else ()


def classified(given: int, planes: int, num_classes: int, *, dropout: float = 0.0) -> tuple[Step, ...]:
    """Returns the mean over space and time, dropout, and a linear layer with bias.

    Args:
        given: Planes that go in.
        planes: Those that the linear layer is made for.
        num_classes: Classes.
        dropout: Share of features dropped in training.
    """
    return (Mapped((given,)), *dropped((given,), dropout), Linear(planes, num_classes))


def squeezed(planes: int, hidden: int) -> Step:
    """Returns squeeze-excitation with so many planes between its linear layers; see `attention.SqueezeExcite`."""
    sigmoid = Mapped(keeps_output=True)
    return Weighed((Mapped((planes,)), Linear(planes, hidden), Rectified(), Linear(hidden, planes), sigmoid))


def gated(planes: int) -> Step:
    """Returns the gate of S3D-G; see `attention.Gate`."""
    return Weighed((Mapped((planes,)), Linear(planes, planes, bias=False), Mapped(keeps_output=True)))


@lru_cache(maxsize=65536)
def convolved(
    in_planes: int,
    out_planes: int,
    kernel: Triple,
    *,
    stride: Triple = (1, 1, 1),
    padding: tuple[int, int] | None = None,
    groups: int = 1,
    dilations: tuple[int, ...] = (1,),
    act: bool = True,
    norm: bool = True,
    bias: bool = False,
    pad_frames: bool = True,
) -> tuple[Step, ...]:
    """Returns a convolution that is padded over frames to keep them, its norm and, with `act`, its ReLU.

    Args:
        in_planes: Planes in.
        out_planes: Planes out.
        kernel: Over (T, H, W).
        stride: Over (T, H, W).
        padding: Rows and columns of zeros on each side; None is as many as keep the size.
        groups: Groups of planes that are convolved apart.
        dilations: Temporal dilations; of several, one is drawn in training.
        act: ReLU behind.
        norm: Whether the norm is there.
        bias: Whether the convolution has one.
        pad_frames: Pad over frames.
    """
    rows, columns = (kernel[1] // 2, kernel[2] // 2) if padding is None else padding
    pads = (kernel[0] // 2 if pad_frames else 0, rows, columns)
    conv = Convolved(in_planes, out_planes, kernel, stride, pads, groups, len(dilations), norm, bias)
    return (conv, Rectified()) if act else (conv,)


def temporal_steps(
    op: TemporalOp,
    in_planes: int,
    out_planes: int,
    *,
    midplanes: int = 0,
    kernel: tuple[int, int] = (3, 3),
    stride: int = 1,
    padding: tuple[int, int] | None = None,
    temporal_stride: int = 1,
    act: bool,
) -> tuple[Step, ...]:
    """Returns the steps of `layers.temporal_unit`; the arguments are those."""
    k, h, w = op.kernel, *kernel
    sides, both = (1, stride, stride), (temporal_stride, stride, stride)
    over, behind = (k, 1, 1), (temporal_stride, 1, 1)
    if op.kind == "2d" or op.kind in POINTWISE_KINDS:
        return convolved(in_planes, out_planes, (1, h, w), stride=both, padding=padding, act=act)
    if op.kind == "3d" or op.kind in SEPARATED_KINDS:
        groups = in_planes if op.kind in SEPARATED_KINDS else 1
        mix = convolved(in_planes, in_planes, (1, 1, 1), act=False) if op.kind == "csn_ip" else ()
        return mix + convolved(
            in_planes,
            out_planes,
            (k, h, w),
            stride=both,
            padding=padding,
            groups=groups,
            dilations=op.dilation,
            act=act,
        )
    if op.kind == "2plus1d" and op.time_first:
        first = convolved(in_planes, midplanes, over, stride=behind, dilations=op.dilation)
        return (*first, *convolved(midplanes, out_planes, (1, h, w), stride=sides, padding=padding, act=act))
    if op.kind == "2plus1d":
        first = convolved(in_planes, midplanes, (1, h, w), stride=sides, padding=padding)
        return (*first, *convolved(midplanes, out_planes, over, stride=behind, dilations=op.dilation, act=act))
    # P3D, see `layers.P3D`.
    s_stride = sides if op.form == "a" else both
    s_act = act or op.form == "a"
    s = convolved(in_planes, out_planes, (1, h, w), stride=s_stride, padding=padding, act=s_act)
    if op.form == "a":
        return (*s, *convolved(out_planes, out_planes, over, stride=behind, dilations=op.dilation, act=act))
    port = op.kind in PORT_KINDS
    t_act, last = act and port, (Rectified(),) if act and not port else ()
    if op.form == "b":
        t = convolved(in_planes, out_planes, over, stride=both, dilations=op.dilation, act=t_act)
        return (Summed((s, t)), *last)
    t = convolved(out_planes, out_planes, over, dilations=op.dilation, act=t_act)
    # Without a ReLU of its own, what T sees is S rectified, and a tensor of its own.
    return (*s, Summed(((), t if act else (Rectified(in_place=False), *t))), *last)
