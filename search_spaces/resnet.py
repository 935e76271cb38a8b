"""Residual networks for clips: from a spec to modules.

The family of Tran et al. 2018, "A Closer Look at Spatiotemporal Convolutions for Action Recognition"
(https://arxiv.org/abs/1711.11248): R2D, f-R2D, MCx, rMCx, R3D and R(2+1)D, and with them every network whose
blocks each choose their own temporal operator. Global average pooling over space and time, then one linear
layer.

A network is a chain of units (stem, blocks, head). Each can be built alone, which is how cost is counted once
a unit.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from search_spaces.layers import Conv2Plus1D, ConvNorm, spatial_conv, temporal_conv, temporal_unit
from search_spaces.spec import ArchSpec, Block, SpecError, Stem, block_midplanes


class StemLayers(ConvNorm):
    """Convolution (or spatial and temporal pair), norm, ReLU and, where the spec says so, max pooling."""

    def __init__(self, stem: Stem) -> None:
        """Makes the stem for clips of 3 channels."""
        size, kernel = stem.spatial_kernel, stem.temporal_kernel
        spatial_stride = (stem.spatial_stride, stem.spatial_stride)
        padding = kernel // 2 if stem.temporal_padding else 0
        if stem.kind == "2plus1d":
            temporal = temporal_conv(stem.midplanes, stem.width, kernel, stride=(stem.temporal_stride, 1, 1))
            temporal.padding = (padding, 0, 0)
            spatial = spatial_conv(3, stem.midplanes, stride=(1, *spatial_stride), kernel=size)
            conv: nn.Module = Conv2Plus1D(spatial, temporal)
        else:
            stride = (stem.temporal_stride, *spatial_stride)
            conv = temporal_conv(3, stem.width, kernel, stride=stride, size=size)
            conv.padding = (padding, size // 2, size // 2)
        super().__init__(conv, stem.width, act=True)
        self.min_frames = 1 if stem.temporal_padding else kernel
        max_pool = stem.pool == "max"
        self.pool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)) if max_pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps clips (N, 3, T, H, W) to (N, width, T', H', W').

        Raises:
            SpecError: The clip is shorter than an unpadded temporal kernel.
        """
        if x.shape[2] < self.min_frames:
            raise SpecError(f"the stem needs a clip of at least {self.min_frames} frames, but got {x.shape[2]}")
        out: Tensor = self.pool(super().forward(x))
        return out


class ResidualBlock(nn.Module):
    """A basic block (two temporal units) or a bottleneck (one between two 1x1x1), and its shortcut."""

    def __init__(self, block: Block, in_planes: int) -> None:
        """Makes the block.

        Args:
            block: Its spec.
            in_planes: Planes into it.
        """
        super().__init__()
        op, width, out = block.temporal, block.width, block.out_planes
        s_stride, t_stride = block.spatial_stride, block.temporal_stride
        mids = block_midplanes(block, in_planes)
        if block.kind == "basic":
            self.conv1 = temporal_unit(
                op,
                in_planes,
                width,
                midplanes=mids[0],
                spatial_stride=s_stride,
                temporal_stride=t_stride,
                act=True,
            )
            self.conv2 = temporal_unit(op, width, width, midplanes=mids[1], act=False)
            self.conv3: nn.Module = nn.Identity()
        else:
            self.conv1 = ConvNorm(pointwise(in_planes, width), width, act=True)
            self.conv2 = temporal_unit(
                op,
                width,
                width,
                midplanes=mids[0],
                spatial_stride=s_stride,
                temporal_stride=t_stride,
                act=True,
            )
            self.conv3 = ConvNorm(pointwise(width, out), out, act=False)
        if in_planes != out or s_stride > 1 or t_stride > 1:
            conv = pointwise(in_planes, out, stride=(t_stride, s_stride, s_stride))
            self.shortcut: nn.Module = ConvNorm(conv, out, act=False)
        else:
            self.shortcut = nn.Identity()
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_planes, T, H, W) to (N, out_planes, T', H', W')."""
        out: Tensor = self.conv3(self.conv2(self.conv1(x)))
        # In place is safe: the branch ends in a batch norm or a sum, neither of which keeps its output.
        out += self.shortcut(x)
        activated: Tensor = self.act(out)
        return activated


class Head(nn.Module):
    """Average over space and time, dropout, linear classifier."""

    def __init__(self, in_planes: int, num_classes: int, dropout: float = 0.0) -> None:
        """Makes the head.

        Args:
            in_planes: Planes into it.
            num_classes: Classes.
            dropout: Share of features dropped in training.
        """
        super().__init__()
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_planes, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_planes, T, H, W) to logits (N, num_classes)."""
        out: Tensor = self.fc(self.dropout(self.pool(x).flatten(1)))
        return out


class ResNet(nn.Module):
    """A residual network for clips."""

    def __init__(self, spec: ArchSpec, *, num_classes: int, dropout: float = 0.0) -> None:
        """Makes and initialises the network from torch's generator.

        Args:
            spec: Its spec.
            num_classes: Classes.
            dropout: Share of features dropped before the classifier.
        """
        super().__init__()
        self.stem = StemLayers(spec.stem)
        stages: list[list[nn.Module]] = [[] for _ in spec.stages]
        planes = spec.stem.width
        for s, _, in_planes, block in spec.walk():
            stages[s].append(ResidualBlock(block, in_planes))
            planes = block.out_planes
        self.stages = nn.Sequential(*(nn.Sequential(*blocks) for blocks in stages))
        self.head = Head(planes, num_classes, dropout)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Maps clips (N, 3, T, H, W) to logits (N, num_classes)."""
        out: Tensor = self.head(self.stages(self.stem(x)))
        return out


@dataclass(frozen=True, slots=True)
class StemUnit:
    """The stem as a link of the chain."""

    stem: Stem

    def build(self) -> nn.Module:
        """Returns the module."""
        return StemLayers(self.stem)


@dataclass(frozen=True, slots=True)
class BlockUnit:
    """A block as a link of the chain."""

    block: Block
    in_planes: int

    def build(self) -> nn.Module:
        """Returns the module."""
        return ResidualBlock(self.block, self.in_planes)


@dataclass(frozen=True, slots=True)
class HeadUnit:
    """The head as a link of the chain."""

    in_planes: int
    num_classes: int

    def build(self) -> nn.Module:
        """Returns the module."""
        return Head(self.in_planes, self.num_classes)


def units(spec: ArchSpec, *, num_classes: int) -> tuple[StemUnit | BlockUnit | HeadUnit, ...]:
    """Returns the links whose chain is the network that the spec builds."""
    links: list[StemUnit | BlockUnit | HeadUnit] = [StemUnit(spec.stem)]
    planes = spec.stem.width
    for _, _, in_planes, block in spec.walk():
        links.append(BlockUnit(block, in_planes))
        planes = block.out_planes
    return (*links, HeadUnit(planes, num_classes))


def build(spec: ArchSpec, *, num_classes: int, dropout: float = 0.0) -> nn.Module:
    """Returns the network; see `ResNet`."""
    return ResNet(spec, num_classes=num_classes, dropout=dropout)


def pointwise(in_planes: int, out_planes: int, *, stride: tuple[int, int, int] = (1, 1, 1)) -> nn.Conv3d:
    """Returns a 1x1x1 convolution."""
    return nn.Conv3d(in_planes, out_planes, 1, stride=stride, bias=False)


def initialise(module: nn.Module) -> None:
    """Draws weights as torchvision does: Kaiming normal by fan-out, norms at identity, linear by 0.01."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.BatchNorm3d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
            nn.init.zeros_(layer.bias)
