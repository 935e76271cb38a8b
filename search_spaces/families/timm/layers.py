"""Parts of timm's image networks on clips, and temporal operators inside them.

timm's modules see frames as a batch of images (N*T, C, H, W). In channels-last order that is the memory of a clip
(N, C, T, H, W), so going from one to the other moves nothing. Batch norm over N*T images is batch norm over N clips;
squeeze-excitation stays with each frame.

An operator inside a part needs to know how many frames per clip has. All operators of a part share a `Clock`, which the
part sets before it runs.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.convolutions import Conv3d
from search_spaces.graph import Convolution
from search_spaces.modules import operation
from search_spaces.operators import PORT_KINDS, TemporalOp, midplanes

Conv = TypeVar("Conv", nn.Conv2d, Conv3d)


class Clock:
    """Frames of the clips that are being computed."""

    def __init__(self) -> None:
        """Makes a clock of clips of one frame."""
        self.frames = 1


def fold(x: Tensor) -> Tensor:
    """Returns clips (N, C, T, H, W) as images (N*T, C, H, W), a view of clips in channels-last order."""
    if x.is_meta:
        # Without numbers there is nothing to move: seen as the network would have handed it on.
        _, c, t, h, w = x.shape
        x = x.as_strided(x.shape, (c * t * h * w, 1, c * h * w, c * w, c))
    return x.transpose(1, 2).flatten(0, 1)


def unfold(x: Tensor, frames: int) -> Tensor:
    """Returns images (N*T, C, H, W) as clips (N, C, T, H, W), a view."""
    return x.reshape(x.shape[0] // frames, frames, *x.shape[1:]).transpose(1, 2)


class FrameWise(nn.Module):
    """Modules of timm's network on every frame of a clip.

    Attributes:
        origins: For each module of ours that is timm's, by its path here, its path in timm's network.
        clock: Tells the operators within how many frames there are.
    """

    def __init__(self, parts: Mapping[str, nn.Module], clock: Clock, *, entry: bool) -> None:
        """Makes it.

        Args:
            parts: The modules, which run one after the other, by name.
            clock: The clock of the operators within.
            entry: Whether clips come from outside, so that they may be in any memory order.
        """
        super().__init__()
        self.origins: dict[str, str] = {}
        self.clock, self.entry = clock, entry
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        """Maps clips (N, C, T, H, W) to clips (N, C', T, H', W')."""
        frames = self.clock.frames = x.shape[2]
        if self.entry and not x.is_meta:
            x = x.contiguous(memory_format=torch.channels_last_3d)
        x = fold(x)
        for part in self.children():
            x = part(x)
        return unfold(x, frames)


class StridedConv2d(nn.Conv2d):
    """A 2D convolution that is right in bfloat16 on a CPU, too, on maps that are narrower than its stride.

    There, the weight gradients of oneDNN's bfloat16 kernels (torch 2.15) are noise. With the zeros put around the input
    beforehand they are right, as in `convolutions.Conv3d`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_planes, H, W) to (N, out_planes, H', W')."""
        if (
            x.shape[3] < self.stride[1]
            and x.device.type == "cpu"
            and torch.is_grad_enabled()
            and (torch.is_autocast_enabled("cpu") or x.dtype == torch.bfloat16)
        ):
            rows, columns = _padding(self)
            x = F.pad(x, (columns, columns, rows, rows))
            return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
        return super().forward(x)


class Over(nn.Module):
    """A convolution over clips among images."""

    def __init__(self, conv: nn.Module, clock: Clock, origin: str = "") -> None:
        """Makes it.

        Args:
            conv: Maps clips (N, C, T, H, W) to clips (N, C', T, H', W').
            clock: The clock of the part that it is in.
            origin: Path of the 2D convolution that it stands for; empty if it is an addition.
        """
        super().__init__()
        self.conv, self.clock, self.origin = conv, clock, origin

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (N*T, C, H, W) to images (N*T, C', H', W')."""
        return fold(self.conv(unfold(x, self.clock.frames)))


class Factorised(nn.Module):
    """(2+1)D: spatial convolution, norm, ReLU, temporal convolution, in the place of a 2D convolution."""

    def __init__(self, spatial: nn.Conv2d, temporal: Over, origin: str) -> None:
        """Makes it from its convolutions; `origin` is the path of the 2D convolution that it stands for."""
        super().__init__()
        self.spatial, self.temporal, self.origin = spatial, temporal, origin
        self.norm = nn.BatchNorm2d(spatial.out_channels)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (N*T, C, H, W) to images (N*T, C', H', W')."""
        out: Tensor = self.temporal(self.act(self.norm(self.spatial(x))))
        return out


class Pseudo3d(nn.Module):
    """P3D among images. A: act(T(S(x))). B: act(S(x) + T(x)). C: act(S(x) + T(S(x))).

    S is timm's own: convolution and, where they follow it, norm and activation. T is a k x 1 x 1 convolution with the
    groups of S and a batch norm if S has one (else a bias). The activation at the end is that of S. Where that is not
    idempotent (SiLU) there is none: else a network whose T does nothing would not be its 2D parent. In the blocks of
    the port, T of B and C has an activation of its own, and their sum has none.
    """

    def __init__(
        self,
        form: str,
        spatial: nn.Sequential,
        temporal: nn.Sequential,
        crop: tuple[int, int, int, int],
        *,
        act: nn.Module | None = None,
    ) -> None:
        """Makes it.

        Args:
            form: Which of the three blocks: `a`, `b` or `c`.
            spatial: S.
            temporal: T.
            crop: What to pad the input of a parallel T by, less than 0 where S does not pad: left, right, top, bottom.
            act: Behind the sum of B and C.
        """
        super().__init__()
        assert form in ("a", "b", "c"), f"P3D has no form {form!r}"
        self.form, self.crop = form, crop
        self.spatial, self.temporal = spatial, temporal
        self.act = nn.Identity() if act is None else act

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (N*T, C, H, W) to images (N*T, C', H', W')."""
        s: Tensor = self.spatial(x)
        seen = s
        if self.form == "b":
            seen = F.pad(x, self.crop) if any(self.crop) else x
        t: Tensor = self.temporal(seen)
        if self.form == "a":
            return t
        out: Tensor = self.act(s + t)
        return out


def inflated(conv: nn.Conv2d, op: TemporalOp, clock: Clock, origin: str) -> Over:
    """Returns a k x h x w convolution in the place of an h x w one.

    It is drawn with the variance of the 2D kernel over k, so as drawing a k x h x w kernel by fan-out would.
    """
    size = (conv.kernel_size[0], conv.kernel_size[1])
    over = _over_time(
        conv.in_channels,
        conv.out_channels,
        op,
        stride=_stride(conv),
        size=size,
        padding=_padding(conv),
        groups=conv.groups,
        bias=conv.bias is not None,
        deviation=_deviation(conv.weight) / math.sqrt(op.kernel),
    )
    if over.bias is not None and conv.bias is not None:
        with torch.no_grad():
            over.bias.copy_(conv.bias)
    return Over(over, clock, origin)


def factorised(conv: nn.Conv2d, op: TemporalOp, clock: Clock, origin: str) -> Factorised:
    """Returns a (2+1)D pair in the place of a 2D convolution; of a grouped one, with as many planes between as out."""
    height, width = conv.kernel_size
    between = conv.out_channels
    if conv.groups == 1:
        between = midplanes(op.kernel, conv.in_channels, conv.out_channels, height * width)
    with torch.device("meta"):
        spatial = nn.Conv2d(
            conv.in_channels,
            between,
            (height, width),
            stride=_stride(conv),
            padding=_padding(conv),
            groups=conv.groups,
            bias=False,
        )
    bias = conv.bias is not None
    over = _over_time(between, conv.out_channels, op, groups=conv.groups, bias=bias)
    return Factorised(_drawn(spatial), Over(over, clock), origin)


def pseudo3d(
    conv: nn.Conv2d, norm: nn.Module | None, act: nn.Module | None, op: TemporalOp, clock: Clock, *, behind: bool
) -> Pseudo3d:
    """Returns a P3D block in the place of a 2D convolution and of the norm and activation that follow it.

    Args:
        conv: The convolution.
        norm: Its norm.
        act: Its activation, if that is not in the norm.
        op: The operator.
        clock: The clock of the part.
        behind: Whether the activation goes on being computed behind the block, because others use it too.
    """
    used = act if act is not None else getattr(norm, "act", None)
    spatial = nn.Sequential(OrderedDict(_named(conv=conv, norm=norm, act=act)))
    parallel = op.form == "b"
    over = _over_time(
        conv.in_channels if parallel else conv.out_channels,
        conv.out_channels,
        op,
        stride=_stride(conv) if parallel else (1, 1),
        groups=conv.groups,
        bias=norm is None,
    )
    settings = norm if isinstance(norm, nn.BatchNorm2d) else nn.BatchNorm2d(1)
    twin = nn.BatchNorm2d(conv.out_channels, eps=settings.eps, momentum=settings.momentum) if norm is not None else None
    port = op.kind in PORT_KINDS
    again = None
    if used is not None and (port or (is_idempotent(used) and not behind)):
        again = copy.deepcopy(used)
    inside, last = (again, None) if port or op.form == "a" else (None, again)
    temporal = nn.Sequential(OrderedDict(_named(conv=Over(over, clock), norm=twin, act=inside)))
    (height, width), (rows, columns) = conv.kernel_size, _padding(conv)
    crop = (columns - (width - 1) // 2, columns - width // 2, rows - (height - 1) // 2, rows - height // 2)
    return Pseudo3d(op.form, spatial, temporal, crop if parallel else (0, 0, 0, 0), act=last)


def is_zero_padded(conv: nn.Conv2d) -> bool:
    """Returns whether a convolution puts a number of zeros around its input."""
    return not isinstance(conv.padding, str) and conv.padding_mode == "zeros"


def is_idempotent(act: nn.Module) -> bool:
    """Returns whether applying an activation twice is applying it once."""
    return isinstance(act, nn.ReLU | nn.ReLU6 | nn.Hardtanh | nn.Identity)


def _over_time(
    in_planes: int,
    out_planes: int,
    op: TemporalOp,
    *,
    stride: tuple[int, int] = (1, 1),
    size: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
    bias: bool = False,
    deviation: float = 0.0,
) -> Conv3d:
    with torch.device("meta"):
        k = op.kernel
        conv = operation(
            Convolution(
                in_planes,
                out_planes,
                (k, *size),
                (1, *stride),
                (k // 2, *padding),
                groups=groups,
                dilations=op.dilation,
            )
        )
        assert isinstance(conv, Conv3d)
        if bias:
            conv.bias = nn.Parameter(torch.empty(out_planes))
    return _drawn(conv, deviation)


def _drawn(conv: Conv, deviation: float = 0.0) -> Conv:
    """Returns a convolution of the meta device on the default device, drawn by fan-out or with a deviation; no bias."""
    device = torch.get_default_device()
    if device.type == "meta":
        return conv
    conv = conv.to_empty(device=device)
    with torch.no_grad():
        fan_out = conv.weight.numel() // conv.weight.shape[1] // conv.groups
        nn.init.normal_(conv.weight, 0, deviation or math.sqrt(2 / fan_out))
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
    return conv


def _deviation(weight: Tensor) -> float:
    return float(weight.detach().std()) if weight.numel() > 1 and not weight.is_meta else 1.0


def _named(**modules: nn.Module | None) -> dict[str, nn.Module]:
    return {name: module for name, module in modules.items() if module is not None}


def _padding(conv: nn.Conv2d) -> tuple[int, int]:
    padding = conv.padding
    assert not isinstance(padding, str)
    return padding[0], padding[1]


def _stride(conv: nn.Conv2d) -> tuple[int, int]:
    return conv.stride[0], conv.stride[1]
