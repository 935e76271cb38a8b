"""Modules of Inception networks on clips (N, C, T, H, W)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.convolutions import Conv3d, Spatial, Triple, pointwise, same_padded, spatial_conv, temporal_conv
from search_spaces.layers import ConvNorm, Norm
from search_spaces.network import SideHead
from search_spaces.parts import Conv

_NORM = Norm(eps=1e-3)


class SpatialNormSeparable(nn.Module):
    """1xkxk, norm, ReLU, then kx1x1 with bias, ReLU: slim's form; it begins as the identity in time."""

    def __init__(self, unit: Conv) -> None:
        """Makes it from a convolution whose operator is `p3d_a`."""
        super().__init__()
        spatial = Spatial(kernel=unit.kernel, stride=unit.spatial_stride, padding=unit.padding)
        planes, op = unit.out_planes, unit.op
        self.spatial = ConvNorm(
            spatial_conv(unit.in_planes, planes, spatial),
            planes,
            act=True,
            norm=Norm(eps=unit.eps, momentum=unit.momentum),
        )
        stride = (unit.temporal_stride, 1, 1)
        self.temporal = temporal_conv(planes, planes, op.kernel, stride=stride, dilations=op.dilation)
        self.temporal.bias = nn.Parameter(torch.zeros(planes))
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_planes, T, H, W) to (N, out_planes, T', H', W')."""
        out: Tensor = self.act(self.temporal(self.spatial(x)))
        return out

    def begin_as_identity(self) -> None:
        """Sets the temporal convolution to pass every frame on as it is."""
        nn.init.dirac_(self.temporal.weight)
        assert self.temporal.bias is not None
        nn.init.zeros_(self.temporal.bias)


class LocalClassifier(nn.Module):
    """Average over 2x7x7 at stride 1, dropout, the same linear classifier at every place, mean of the logits.

    The head of I3D and S3D. Where less than its kernel is left of a clip, the average is over what is left.
    """

    def __init__(self, in_planes: int, num_classes: int, *, kernel: Triple, dropout: float = 0.0) -> None:
        """Makes the head.

        Args:
            in_planes: Planes into it.
            num_classes: Classes.
            kernel: What is averaged at every place, over (T, H, W).
            dropout: Share of features dropped in training.
        """
        super().__init__()
        self.kernel = kernel
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_planes, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_planes, T, H, W) to logits (N, num_classes)."""
        kernel = [min(most, size) for most, size in zip(self.kernel, x.shape[2:], strict=True)]
        features = self.dropout(F.avg_pool3d(x, kernel, stride=1))
        logits: Tensor = self.fc(features.movedim(1, -1)).mean((1, 2, 3))
        return logits


class AveragePool(nn.Module):
    """Average over windows at stride 1 that keeps the size.

    Zeros around rows and columns are counted, as in torchvision's networks; frames before the first and behind the last
    are not, so that a clip of identical frames stays one.
    """

    def __init__(self, kernel: Triple) -> None:
        """Makes the pool.

        Args:
            kernel: Odd, over (T, H, W).
        """
        super().__init__()
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, T, H, W) to the same shape."""
        t, h, w = (size // 2 for size in self.kernel)
        if all(size >= window for size, window in zip(x.shape[2:], self.kernel, strict=True)):
            out = F.avg_pool3d(x, self.kernel, stride=1, padding=(t, h, w))
        else:
            # Torch's own refuses an input smaller than the window, however it is padded.
            out = F.avg_pool3d(F.pad(x, (w, w, h, h, t, t)), self.kernel, stride=1)
        if t == 0:
            return out
        frames, last = torch.arange(x.shape[2], device=x.device), x.shape[2] - 1
        counted = (frames + t).clamp(max=last) - (frames - t).clamp(min=0) + 1
        return out * (self.kernel[0] / counted)[:, None, None].to(out.dtype)

    def extra_repr(self) -> str:
        """Returns the kernel."""
        return f"kernel={self.kernel}"


class AuxClassifier(SideHead):
    """Average 5x5 of stride 3, 1x1x1, 1x5x5 without padding, average over what is left, linear classifier.

    As torchvision's, frame by frame. Its 5x5 convolution needs 5x5 cells, which maps below 17x17 do not leave: they are
    averaged to 5x5 instead.
    """

    def __init__(
        self, in_planes: int, mid_planes: int, out_planes: int, num_classes: int, *, cells: int, grid: int
    ) -> None:
        """Makes the head.

        Args:
            in_planes: Planes into it.
            mid_planes: Planes of the 1x1x1 convolution.
            out_planes: Planes of the 1x5x5 convolution.
            num_classes: Classes.
            cells: Rows and columns of a map that is averaged by windows; a smaller one is averaged to the grid.
            grid: Rows and columns of what the second convolution sees.
        """
        super().__init__()
        self.cells, self.grid = cells, grid
        self.conv0 = ConvNorm(pointwise(in_planes, mid_planes), mid_planes, act=True, norm=_NORM)
        conv1 = spatial_conv(mid_planes, out_planes, Spatial(kernel=(grid, grid), padding=(0, 0)))
        self.conv1 = ConvNorm(conv1, out_planes, act=True, norm=_NORM)
        self.fc = nn.Linear(out_planes, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_planes, T, H, W) to logits (N, num_classes)."""
        if min(x.shape[3:]) < self.cells:
            cells = F.adaptive_avg_pool3d(x, (x.shape[2], self.grid, self.grid))
        else:
            cells = F.avg_pool3d(x, (1, 5, 5), stride=(1, 3, 3))
        logits: Tensor = self.fc(self.conv1(self.conv0(cells)).mean((2, 3, 4)))
        return logits


def without_time_padding(module: nn.Module) -> nn.Module:
    """Returns the module after taking the padding over frames from its convolutions."""
    for layer in module.modules():
        if isinstance(layer, Conv3d):
            padding = layer.padding
            assert not isinstance(padding, str)
            layer.padding = (0, *padding[1:])
    return module


class SameMaxPool(nn.MaxPool3d):
    """A max pool with TensorFlow's SAME padding."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, C, T, H, W) to (N, C, ceil(T / stride), ...)."""
        kernel, stride = self.kernel_size, self.stride
        assert isinstance(kernel, tuple)
        assert isinstance(stride, tuple)
        x, padding = same_padded(x, kernel, stride, value=-torch.inf)
        return F.max_pool3d(x, kernel, stride, padding)


def with_same_padding(module: nn.Module) -> nn.Module:
    """Returns the module after giving its convolutions SAME padding; of a max pool, another one."""
    if isinstance(module, nn.MaxPool3d):
        return SameMaxPool(module.kernel_size, stride=module.stride)
    for layer in module.modules():
        if isinstance(layer, Conv3d):
            layer.same = True
    return module


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """Gives a network that was just made its initial values.

    Convolutions are Kaiming uniform by fan-in: what torch drew when it made them, U(-1, 1) / sqrt(fan-in), times the
    root of 6. By fan-out, as in residual networks, the 1x1x1 convolutions that reduce planes, up to 17 to one, would
    make each block's output larger than its input; running statistics do not follow until after many steps, so in
    evaluation the network would explode. Linear layers are normal by 0.01; slim's temporal convolutions are identities.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d):
            layer.weight.mul_(6**0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    for layer in network.modules():
        if isinstance(layer, SpatialNormSeparable):
            layer.begin_as_identity()
