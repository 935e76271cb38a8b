"""Temporal operators, attention and norms as values, and the widths and paddings that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Literal, get_args

from search_spaces.errors import SpecError, one_of

Kind = Literal[
    "2d",
    "3d",
    "2plus1d",
    "p3d_a",
    "p3d_b",
    "p3d_c",
    "csn",
    "csn_ip",
    "t1x1_first",
    "t1x1_both",
    "t1x1_all",
    "p3d_b_port",
    "p3d_c_port",
]
Midplanes = Literal["per_conv", "shared", "equal"]
Attention = Literal["none", "se", "gate", "nonlocal", "nonlocal_unbiased"]

KINDS: tuple[Kind, ...] = get_args(Kind)

# Channel-separated, so that they give as many planes as they see.
SEPARATED_KINDS: tuple[Kind, ...] = ("csn", "csn_ip")

# For comparison with the authors' blocks, and for networks that were trained when `p3d_b` and `p3d_c` meant these.
PORT_KINDS: tuple[Kind, ...] = ("p3d_b_port", "p3d_c_port")

_FORMS: Mapping[str, Literal["a", "b", "c"]] = MappingProxyType(
    {"p3d_a": "a", "p3d_b": "b", "p3d_c": "c", "p3d_b_port": "b", "p3d_c_port": "c"}
)

# Those whose time is in the 1x1x1 convolutions of a bottleneck, so that a block without them cannot have it.
POINTWISE_KINDS: tuple[Kind, ...] = ("t1x1_first", "t1x1_both", "t1x1_all")

KERNELS: tuple[int, ...] = (1, 3, 5, 7)

MIDPLANES: tuple[Midplanes, ...] = get_args(Midplanes)

ATTENTIONS: tuple[Attention, ...] = get_args(Attention)

# Blocks with a shortcut of their own, which stand behind the sum of a residual block. The second is that of networks
# that were trained when `nonlocal` had no bias for its queries.
NONLOCALS: tuple[Attention, ...] = ("nonlocal", "nonlocal_unbiased")

# Of batch norms where a spec says nothing else: torch's defaults.
NORM_EPS = 1e-5
NORM_MOMENTUM = 0.1

# Fields that came later. They are left out of a spec's JSON at their default, so that digests stay.
ADDED: Mapping[str, bool] = MappingProxyType({"added": True})


@dataclass(frozen=True, kw_only=True, slots=True)
class TemporalOp:
    """How a spatial convolution, 3x3 for example, gets time.

    Attributes:
        kind: `2d` 1x3x3; `3d` kx3x3; `2plus1d` 1x3x3, BN, ReLU, kx1x1 (Tran et al. 2018, section 3.5);
            `p3d_a`, `p3d_b`, `p3d_c` the three blocks of Qiu et al. 2017, section 3.2, as in the authors' prototxts
            (`p3d_a` is the separable unit of S3D, too); `p3d_b_port`, `p3d_c_port` those of a port to PyTorch
            (https://github.com/qijiezhao/pseudo-3d-pytorch), with their ReLUs at other places; `csn` kx3x3 for each
            plane alone (channel-separated, interaction-reduced, Tran et al. 2019), `csn_ip` 1x1x1 and BN before it
            (interaction-preserved). The others leave the 3x3 convolution as it is and put kx1x1 into the 1x1x1
            convolutions of a bottleneck: `t1x1_first` into the first (SlowFast), `t1x1_both` into both, `t1x1_all` into
            those and the shortcut's (three readings of BesNet).
        kernel: Temporal kernel k, in frames.
        dilation: Temporal dilations. One is fixed; from several, each layer draws one per mini-batch in
            training and averages its outputs over all of them in evaluation (BesNet).
        midplanes: Width between the two convolutions of `2plus1d`: `per_conv` computes it for each
            convolution as the paper does, `shared` for each block from its input and width, as torchvision
            does, `equal` is the width of the convolution's output.
        time_first: The temporal convolution of `2plus1d` comes before the spatial one, as in pytorchvideo's R(2+1)D.
    """

    kind: Kind
    kernel: int = 3
    dilation: tuple[int, ...] = (1,)
    midplanes: Midplanes = "per_conv"
    time_first: bool = field(default=False, metadata=ADDED)

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        one_of("kind", self.kind, KINDS)
        one_of("kernel", self.kernel, KERNELS)
        one_of("midplanes", self.midplanes, MIDPLANES)
        if not self.dilation or min(self.dilation) < 1:
            raise SpecError(f"dilation must be one or more integers of at least 1, but is {list(self.dilation)}")

    @property
    def form(self) -> Literal["", "a", "b", "c"]:
        """Which of the three P3D blocks it is, the authors' or the port's; empty for another kind."""
        return _FORMS.get(self.kind, "")


FLAT = TemporalOp(kind="2d")


@lru_cache(maxsize=65536)
def canonical_op(op: TemporalOp) -> TemporalOp:
    """The operator without what has no effect, its midplanes aside unless they are unused.

    A 3d or pointwise one of kernel 1 is 2d. Kernel, dilation, midplanes and order of 2d take their defaults, the kernel
    too, so that an edit of `kind` alone makes such an operator temporal. Dilation is sorted without repeats.
    """
    if op.kind == "2d" or (op.kernel == 1 and (op.kind == "3d" or op.kind in POINTWISE_KINDS)):
        return FLAT
    dilation = tuple(sorted(set(op.dilation))) if op.kernel > 1 else (1,)
    if op.kind == "2plus1d":
        return replace(op, dilation=dilation)
    return TemporalOp(kind=op.kind, kernel=op.kernel, dilation=dilation)


def check_order(op: TemporalOp, networks: str) -> None:
    """Raises SpecError for an operator with time first in networks whose convolutions have space first."""
    if op.kind == "2plus1d" and op.time_first:
        raise SpecError(f"temporal.time_first must be false in {networks}, but is true")


@lru_cache(maxsize=4096)
def midplanes(kernel: int, in_planes: int, out_planes: int, spatial: int = 9) -> int:
    """Width M that gives k x h x w and (2+1)D the same number of weights.

    M = floor(k h w Ni No / (h w Ni + k No)), Tran et al. 2018, section 3.5 with d^2 = h w and t = k; at least 1.

    Args:
        kernel: Temporal kernel k.
        in_planes: Planes in, Ni.
        out_planes: Planes out, No.
        spatial: Weights of the spatial kernel, h w.
    """
    return max(1, (spatial * kernel * in_planes * out_planes) // (spatial * in_planes + kernel * out_planes))


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one axis, which gives ceil(size / stride) places whatever the kernel is.

    Args:
        size: Places of the input.
        kernel: Places that the kernel reaches over, dilation included.
        stride: Of the kernel.

    Returns:
        Zeros on each side, and 1 where one more is at the end, else 0.
    """
    return divmod(max(0, (-(-size // stride) - 1) * stride + kernel - size), 2)


def squeezed_planes(planes: int) -> int:
    """Returns planes between the two linear layers of squeeze-excitation: one for every 16, but at least 8.

    Narrow networks are not to be closed by a few rectified units.
    """
    return max(8, planes // 16)
