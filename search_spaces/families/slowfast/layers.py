"""SlowFast as modules: Feichtenhofer et al. 2019, "SlowFast Networks for Video Recognition", section 3.

https://arxiv.org/abs/1812.03982, and the authors' code. The two pathways are residual networks; what is here puts them
side by side. Between the links of the chain goes a pair of tensors, of the slow pathway and of the fast one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.convolutions import temporal_conv
from search_spaces.errors import ClipError
from search_spaces.families.resnet.blocks import Block, Stem
from search_spaces.families.resnet.layers import ResidualBlock, StemLayers
from search_spaces.layers import ConvNorm


class Paths(NamedTuple):
    """Features of the slow pathway (N, C, T / alpha, H, W) and of the fast one (N, C', T, H, W)."""

    slow: Tensor
    fast: Tensor


class Stems(nn.Module):
    """Takes the slow pathway's frames out of the clip, and begins both pathways.

    Of T frames the slow pathway sees T / alpha, rounded up: those nearest below evenly spaced positions from the first
    frame to the last, as the authors take them. (They ask for T to be a multiple of alpha. Rounded up it is what a
    fusion of stride alpha leaves of the fast pathway.)
    """

    def __init__(self, slow: Stem, fast: Stem, *, alpha: int, in_planes: int = 3) -> None:
        """Makes both stems.

        Args:
            slow: The slow pathway's.
            fast: The fast pathway's.
            alpha: Frames of the fast pathway for each of the slow one.
            in_planes: Planes of the clip.
        """
        super().__init__()
        self.slow = StemLayers(slow, in_planes)
        self.fast = StemLayers(fast, in_planes)
        self.alpha = alpha

    def forward(self, x: Tensor) -> Paths:
        """Maps clips (N, in_planes, T, H, W) to features of both pathways.

        Raises:
            ClipError: The clip has fewer than alpha frames.
        """
        frames = x.shape[2]
        if frames < self.alpha:
            raise ClipError(f"the slow pathway needs a clip of at least alpha = {self.alpha} frames, but got {frames}")
        index = torch.tensor(slow_frames(frames, self.alpha), device=x.device)
        return Paths(self.slow(x.index_select(2, index)), self.fast(x))


class BlockPair(nn.Module):
    """The residual blocks of both pathways at one place."""

    def __init__(self, slow: Block, fast: Block, *, slow_planes: int, fast_planes: int) -> None:
        """Makes both blocks.

        Args:
            slow: The slow pathway's.
            fast: The fast pathway's.
            slow_planes: Planes into the former, those that were fused included.
            fast_planes: Planes into the latter.
        """
        super().__init__()
        self.slow = ResidualBlock(slow, slow_planes)
        self.fast = ResidualBlock(fast, fast_planes)

    def forward(self, x: Paths) -> Paths:
        """Maps features of both pathways to features of both."""
        slow, fast = x
        return Paths(self.slow(slow), self.fast(fast))


class ConvFusion(nn.Module):
    """Fast features joined to the slow ones after a kx1x1 convolution of stride alpha, norm and ReLU ("T-conv")."""

    def __init__(self, in_planes: int, out_planes: int, *, kernel: int, alpha: int) -> None:
        """Makes the layer.

        Args:
            in_planes: Planes of the fast pathway.
            out_planes: Planes that are joined to the slow pathway's.
            kernel: Temporal kernel.
            alpha: Frames of the fast pathway for each of the slow one.
        """
        super().__init__()
        conv = temporal_conv(in_planes, out_planes, kernel, stride=(alpha, 1, 1))
        self.lateral = ConvNorm(conv, out_planes, act=True)

    def forward(self, x: Paths) -> Paths:
        """Widens the slow pathway by `out_planes`."""
        slow, fast = x
        return Paths(torch.cat([slow, self.lateral(fast)], dim=1), fast)


class SampleFusion(nn.Module):
    """Every alpha-th frame of the fast features joined to the slow ones ("T-sample")."""

    def __init__(self, alpha: int) -> None:
        """Makes the layer for alpha frames of the fast pathway for each of the slow one."""
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Paths) -> Paths:
        """Widens the slow pathway by the fast one's planes."""
        slow, fast = x
        return Paths(torch.cat([slow, fast[:, :, :: self.alpha]], dim=1), fast)


class TimeToChannelFusion(nn.Module):
    """Alpha frames of the fast features stacked as planes and joined to the slow ones ("TtoC").

    Where the frames are no multiple of alpha, zeros follow the last one.
    """

    def __init__(self, alpha: int) -> None:
        """Makes the layer for alpha frames of the fast pathway for each of the slow one."""
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Paths) -> Paths:
        """Widens the slow pathway by alpha times the fast one's planes."""
        slow, fast = x
        num, planes, frames, height, width = fast.shape
        padded = F.pad(fast, (0, 0, 0, 0, 0, -frames % self.alpha))
        # To (N, alpha, planes, T / alpha, H, W), then the two before time as one.
        apart = padded.reshape(num, planes, -1, self.alpha, height, width).permute(0, 3, 1, 2, 4, 5)
        stacked = apart.reshape(num, self.alpha * planes, -1, height, width)
        return Paths(torch.cat([slow, stacked], dim=1), fast)


class TwoPathClassifier(nn.Module):
    """Each pathway averaged over space and time, both joined, dropout, linear classifier."""

    def __init__(self, in_planes: int, num_classes: int, *, dropout: float) -> None:
        """Makes the head.

        Args:
            in_planes: Planes of both pathways together.
            num_classes: Classes.
            dropout: Share of features dropped in training.
        """
        super().__init__()
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_planes, num_classes)

    def forward(self, x: Paths) -> Tensor:
        """Maps features of both pathways to logits (N, num_classes)."""
        features = torch.cat([self.pool(path) for path in x], dim=1).flatten(1)
        logits: Tensor = self.fc(self.dropout(features))
        return logits


def slow_frames(frames: int, alpha: int) -> list[int]:
    """Returns which frames of a clip the slow pathway sees."""
    count = -(-frames // alpha)
    return [i * (frames - 1) // max(1, count - 1) for i in range(count)]
