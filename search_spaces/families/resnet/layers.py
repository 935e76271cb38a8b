"""Modules of residual networks: the stem and the residual block.

The family of Tran et al. 2018, "A Closer Look at Spatiotemporal Convolutions for Action Recognition"
(https://arxiv.org/abs/1711.11248): R2D, f-R2D, MCx, rMCx, R3D and R(2+1)D; with bottlenecks, P3D (Qiu et al. 2017),
the pathways of SlowFast (Feichtenhofer et al. 2019), BesNet and channel-separated networks (Tran et al. 2019); and with
them every network whose blocks each choose their own temporal operator.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.convolutions import Conv3d, Spatial, Triple, spatial_conv, temporal_conv
from search_spaces.errors import ClipError
from search_spaces.families.resnet.blocks import Block, Stem, block_midplanes, has_projection
from search_spaces.layers import NORM, Conv2Plus1D, ConvNorm, Norm, end_norms, temporal_unit
from search_spaces.operators import NONLOCALS, POINTWISE_KINDS, Attention, TemporalOp


class StemLayers(ConvNorm):
    """Convolution (or spatial and temporal pair), norm, ReLU and, where the spec says so, max pooling."""

    def __init__(self, stem: Stem, in_planes: int = 3, *, norm: Norm = NORM) -> None:
        """Makes the stem for clips of so many planes, with norms of these settings."""
        size, kernel = stem.spatial_kernel, stem.temporal_kernel
        stride = stem.spatial_stride
        padding = kernel // 2 if stem.temporal_padding else 0
        if stem.kind == "2plus1d":
            temporal = temporal_conv(stem.midplanes, stem.width, kernel, stride=(stem.temporal_stride, 1, 1))
            temporal.padding = (padding, 0, 0)
            conv: nn.Module = Conv2Plus1D(
                spatial_conv(in_planes, stem.midplanes, Spatial(kernel=(size, size), stride=stride)),
                temporal,
                norm=norm,
            )
        else:
            conv = temporal_conv(
                in_planes, stem.width, kernel, stride=(stem.temporal_stride, stride, stride), size=(size, size)
            )
            conv.padding = (padding, size // 2, size // 2)
        super().__init__(conv, stem.width, act=True, norm=norm)
        self.pool: nn.Module = nn.Identity()
        self.min_frames, frames = stem.min_frames, stem.pool_frames
        if stem.pool == "max":
            self.pool = nn.MaxPool3d((frames, 3, 3), stride=(frames, 2, 2), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps clips (N, in_planes, T, H, W) to (N, width, T', H', W').

        Raises:
            ClipError: The clip is shorter than an unpadded temporal kernel, or has too few frames for the pool.
        """
        if x.shape[2] < self.min_frames:
            raise ClipError(f"the stem needs a clip of at least {self.min_frames} frames, but got {x.shape[2]}")
        out: Tensor = self.pool(super().forward(x))
        return out


class PaddedShortcut(nn.Module):
    """The input at every stride-th place, with zeros for the planes that it lacks; planes too many are left out."""

    def __init__(self, planes: int, stride: Triple) -> None:
        """Makes it for so many planes out and a stride over (T, H, W)."""
        super().__init__()
        self.planes, self.stride = planes, stride

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, T, H, W) to (N, planes, T', H', W')."""
        t, h, w = self.stride
        seen = x[:, : self.planes, ::t, ::h, ::w]
        return F.pad(seen, (0, 0, 0, 0, 0, 0, 0, max(0, self.planes - x.shape[1])))


class ResidualBlock(nn.Module):
    """A basic block (two temporal units) or a bottleneck (one between two 1x1x1), and its shortcut."""

    def __init__(self, block: Block, in_planes: int, *, norm: Norm = NORM) -> None:
        """Makes the block.

        Args:
            block: Its spec.
            in_planes: Planes into it.
            norm: Settings of its norms.
        """
        super().__init__()
        op, width, out = block.temporal, block.width, block.out_planes
        s_stride, t_stride = block.spatial_stride, block.temporal_stride
        strided = Spatial(stride=s_stride)
        mids = block_midplanes(block, in_planes)
        unit, conv_norm = partial(temporal_unit, op, norm=norm), partial(ConvNorm, norm=norm)
        if block.kind == "basic":
            self.conv1 = unit(in_planes, width, midplanes=mids[0], spatial=strided, temporal_stride=t_stride, act=True)
            self.conv2 = unit(width, width, midplanes=mids[1], act=norm.relu_first)
            self.conv3: nn.Module = nn.Identity()
        else:
            early = block.stride_on == "1x1"
            first = (t_stride, s_stride, s_stride) if early else (1, 1, 1)
            self.conv1 = conv_norm(_pointwise(op, 0, in_planes, width, first), width, act=True)
            self.conv2 = unit(
                width,
                width,
                midplanes=mids[0],
                spatial=Spatial() if early else strided,
                temporal_stride=1 if early else t_stride,
                act=True,
            )
            self.conv3 = conv_norm(_pointwise(op, 1, width, out, (1, 1, 1)), out, act=norm.relu_first)
        self.shortcut: nn.Module = nn.Identity()
        if has_projection(block, in_planes) and block.shortcut == "pad":
            self.shortcut = PaddedShortcut(out, (t_stride, s_stride, s_stride))
        elif has_projection(block, in_planes):
            conv = _pointwise(op, 2, in_planes, out, (t_stride, s_stride, s_stride))
            self.shortcut = conv_norm(conv, out, act=False)
        behind = block.attention in NONLOCALS
        self.gate = nn.Identity() if behind else _attention(block.attention, out)
        self.last = _attention(block.attention, out) if behind else nn.Identity()
        self.act: nn.Module = nn.Identity() if norm.relu_first else nn.ReLU(inplace=True)

    def last_norms(self) -> list[nn.Module]:
        """Returns the norms at the end of its branch."""
        return end_norms(self.conv2 if isinstance(self.conv3, nn.Identity) else self.conv3)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_planes, T, H, W) to (N, out_planes, T', H', W')."""
        out: Tensor = self.gate(self.conv3(self.conv2(self.conv1(x))))
        # In place is safe: the branch ends in a batch norm, a sum or a product, none of which keeps its output.
        out += self.shortcut(x)
        activated: Tensor = self.last(self.act(out))
        return activated


def _attention(kind: Attention, planes: int) -> nn.Module:
    if kind == "none":
        return nn.Identity()
    from search_spaces.attention import attention_unit

    return attention_unit(kind, planes)


def _pointwise(op: TemporalOp, place: int, in_planes: int, out_planes: int, stride: Triple) -> nn.Module:
    """Returns a 1x1x1 convolution of a block, kx1x1 if the operator is of a pointwise kind that reaches it.

    Args:
        op: Operator of the block.
        place: 0 is the first convolution of the branch, 1 its last, 2 the shortcut's.
        in_planes: Planes in.
        out_planes: Planes out.
        stride: Stride over (T, H, W).
    """
    if op.kind in POINTWISE_KINDS and place <= POINTWISE_KINDS.index(op.kind):
        return temporal_conv(in_planes, out_planes, op.kernel, stride=stride, dilations=op.dilation)
    return Conv3d(in_planes, out_planes, (1, 1, 1), stride=stride)
