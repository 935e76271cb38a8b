"""X3D as modules: Feichtenhofer 2020, "X3D: Expanding Architectures for Efficient Video Recognition".

https://arxiv.org/abs/2004.04730, and the authors' code, which decides where the paper is silent (the planes of
squeeze-excitation).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from search_spaces.attention import SqueezeExcite, attention_unit
from search_spaces.convolutions import Spatial, Triple, pointwise, spatial_conv, temporal_conv
from search_spaces.layers import Conv2Plus1D, ConvNorm
from search_spaces.operators import NONLOCALS

if TYPE_CHECKING:
    from search_spaces.operators import Attention, TemporalOp


class X3DStemLayers(nn.Module):
    """A dense 1x3x3, a channelwise kx1x1 with nothing in between, norm, ReLU."""

    def __init__(self, in_planes: int, width: int, *, stride: int, kernel: int) -> None:
        """Makes the stem.

        Args:
            in_planes: Planes of the clip.
            width: Planes out.
            stride: Over rows and columns.
            kernel: Temporal kernel k.
        """
        super().__init__()
        self.spatial = spatial_conv(in_planes, width, Spatial(stride=stride))
        self.temporal: nn.Module = nn.Identity()
        if kernel > 1:
            self.temporal = temporal_conv(width, width, kernel, groups=width)
        self.norm = nn.BatchNorm3d(width)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps clips (N, in_planes, T, H, W) to (N, width, T, H', W')."""
        out: Tensor = self.act(self.norm(self.temporal(self.spatial(x))))
        return out


class RoundedSqueezeExcite(SqueezeExcite):
    """Squeeze-excitation whose inner planes are given, because the authors round them in their own way."""

    def __init__(self, planes: int, hidden: int) -> None:
        """Makes the unit.

        Args:
            planes: Planes in and out.
            hidden: Planes between the two linear layers.
        """
        super().__init__(planes)
        self.fc1 = nn.Linear(planes, hidden)
        self.fc2 = nn.Linear(hidden, planes)


class X3DBlockLayers(nn.Module):
    """1x1x1 to the inner planes, ReLU; the channelwise operator; attention; Swish; 1x1x1; shortcut; ReLU."""

    def __init__(
        self,
        op: TemporalOp,
        in_planes: int,
        midplanes: int,
        out_planes: int,
        *,
        attention: Attention,
        hidden: int,
        spatial_stride: int,
        temporal_stride: int,
        shortcut_norm: bool = False,
    ) -> None:
        """Makes the block.

        Args:
            op: Operator of the middle.
            in_planes: Planes in.
            midplanes: Planes of the middle.
            out_planes: Planes out.
            attention: `se` and `gate` stand behind the operator's norm, `nonlocal` behind the block.
            hidden: Inner planes of squeeze-excitation.
            spatial_stride: Stride over rows and columns, of the operator and the shortcut.
            temporal_stride: Stride over frames, of the same.
            shortcut_norm: A norm behind the shortcut's convolution where it keeps the number of planes, too.
        """
        super().__init__()
        stride = (temporal_stride, spatial_stride, spatial_stride)
        self.conv1 = ConvNorm(pointwise(in_planes, midplanes), midplanes, act=True)
        self.conv2 = ConvNorm(channelwise(op, midplanes, stride=stride), midplanes, act=False)
        behind = attention in NONLOCALS
        if attention == "se":
            self.gate: nn.Module = RoundedSqueezeExcite(midplanes, hidden)
        else:
            self.gate = nn.Identity() if behind else attention_unit(attention, midplanes)
        self.swish = nn.SiLU()
        self.conv3 = ConvNorm(pointwise(midplanes, out_planes), out_planes, act=False)
        self.shortcut: nn.Module = nn.Identity()
        if in_planes != out_planes or stride != (1, 1, 1):
            conv = pointwise(in_planes, out_planes, stride=stride)
            has_norm = shortcut_norm or in_planes != out_planes
            self.shortcut = ConvNorm(conv, out_planes, act=False) if has_norm else conv
        self.act = nn.ReLU(inplace=True)
        self.last = attention_unit(attention, out_planes) if behind else nn.Identity()

    def last_norms(self) -> list[nn.Module]:
        """Returns the norm at the end of its branch."""
        return [self.conv3.norm]

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_planes, T, H, W) to (N, out_planes, T', H', W')."""
        out: Tensor = self.conv3(self.swish(self.gate(self.conv2(self.conv1(x)))))
        # In place is safe: the branch ends in a batch norm, which does not keep its output.
        out += self.shortcut(x)
        activated: Tensor = self.last(self.act(out))
        return activated


class X3DHeadLayers(nn.Module):
    """1x1x1, norm, ReLU; average over space and time; linear to many features, ReLU; dropout; classifier."""

    def __init__(self, in_planes: int, midplanes: int, features: int, num_classes: int, dropout: float) -> None:
        """Makes the head.

        Args:
            in_planes: Planes in.
            midplanes: Planes that are averaged.
            features: Features that are classified.
            num_classes: Classes.
            dropout: Share of features dropped in training.
        """
        super().__init__()
        self.conv = ConvNorm(pointwise(in_planes, midplanes), midplanes, act=True)
        self.pool = nn.AdaptiveAvgPool3d(1)
        # A convolution of one position, so that it is drawn as the others are.
        self.expand = pointwise(midplanes, features)
        self.act = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_planes, T, H, W) to logits (N, num_classes)."""
        features: Tensor = self.act(self.expand(self.pool(self.conv(x))))
        logits: Tensor = self.fc(self.dropout(features.flatten(1)))
        return logits


def draw_squeeze_excitation(network: nn.Module) -> None:
    """Draws the linear layers of squeeze-excitation as the authors do, who have convolutions there: by fan-out."""
    for unit in network.modules():
        if isinstance(unit, RoundedSqueezeExcite):
            for layer in (unit.fc1, unit.fc2):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")


def channelwise(op: TemporalOp, planes: int, *, stride: Triple) -> nn.Module:
    """Returns an operator whose convolutions see one plane each.

    Args:
        op: `2d` 1x3x3, `csn` kx3x3, or `2plus1d` 1x3x3, norm, ReLU, kx1x1.
        planes: Planes in and out.
        stride: Stride over (T, H, W).
    """
    if op.kind != "2plus1d":
        kernel = 1 if op.kind == "2d" else op.kernel
        return temporal_conv(planes, planes, kernel, stride=stride, dilations=op.dilation, size=(3, 3), groups=planes)
    t, h, w = stride
    return Conv2Plus1D(
        temporal_conv(planes, planes, 1, stride=(1, h, w), size=(3, 3), groups=planes),
        temporal_conv(planes, planes, op.kernel, stride=(t, 1, 1), dilations=op.dilation, groups=planes),
        time_first=op.time_first,
    )
