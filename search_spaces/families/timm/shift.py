"""What moves features between frames without convolving them: TSM's shift and TIN's interlacing.

Lin et al. 2019, "TSM: Temporal Shift Module for Efficient Video Understanding" (https://arxiv.org/abs/1811.08383), and
Shao et al. 2020, "Temporal Interlacing Network" (https://arxiv.org/abs/2001.06499). Both stand before the first
convolution of a residual branch, so that the shortcut sees every frame as it is; TSM can stand before the whole block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.errors import ClipError

if TYPE_CHECKING:
    from search_spaces.families.timm.layers import Clock

# The furthest that TIN moves a feature, in frames: its offsets are 4 (sigmoid - 1/2).
_REACH = 2
# Makes the first offsets half a frame.
_HALF_A_FRAME = 0.5108


class Shift(nn.Module):
    """Some planes take the frame after, as many the frame before, the rest their own; zeros beyond the ends."""

    def __init__(self, planes: int, share: int, clock: Clock) -> None:
        """Makes the layer.

        Args:
            planes: Planes in and out.
            share: One plane in `share` is shifted one way, and one the other.
            clock: The clock of the part that it is in.
        """
        super().__init__()
        self.moved, self.clock = planes // share, clock

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (N*T, C, H, W) to the same shape."""
        from search_spaces.families.timm.layers import fold, unfold

        clips, n = unfold(x, self.clock.frames), self.moved
        after = F.pad(clips[:, :n, 1:], (0, 0, 0, 0, 0, 1))
        before = F.pad(clips[:, n : 2 * n, :-1], (0, 0, 0, 0, 1, 0))
        return fold(torch.cat((after, before, clips[:, 2 * n :]), dim=1))


class Interlace(nn.Module):
    """A quarter of the planes is shifted by what a small network makes of them, in four groups of their own offset.

    The offset network sees means over rows and columns: a convolution over frames to one plane, two linear layers over
    all frames, and offsets o1, o2 of up to two frames either way. The four groups move by o1, o2, -o1, -o2, with linear
    interpolation between frames and zeros beyond the ends. The weight network gives each frame of a group a factor in
    (0, 2).
    """

    def __init__(self, planes: int, frames: int, clock: Clock) -> None:
        """Makes the layer.

        Args:
            planes: Planes in and out.
            frames: Frames of a clip, which the linear layers are made for.
            clock: The clock of the part that it is in.
        """
        super().__init__()
        self.frames, self.clock = frames, clock
        self.moved = planes // 4
        self.offset_conv = nn.Conv1d(self.moved, 1, 3, padding=1)
        self.offset_fc1 = nn.Linear(frames, frames)
        self.offset_fc2 = nn.Linear(frames, 2)
        self.weight_conv = nn.Conv1d(self.moved, 2, 3, padding=1)
        # As the authors start: a frame weighs 1 but for what its features say, and moves by half a frame.
        assert self.weight_conv.bias is not None
        nn.init.zeros_(self.weight_conv.bias)
        nn.init.constant_(self.offset_fc2.bias, _HALF_A_FRAME)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (N*T, C, H, W) to the same shape.

        Raises:
            ClipError: The clips have another number of frames than the layer was made for.
        """
        from search_spaces.families.timm.layers import fold, unfold

        if self.clock.frames != self.frames:
            raise ClipError(f"tin was made for {self.frames} frames here, but the clip has {self.clock.frames}")
        clips = unfold(x, self.frames)
        moved = clips[:, : self.moved]
        means = moved.mean((3, 4))
        hidden = F.relu(self.offset_fc1(self.offset_conv(means)[:, 0]))
        offsets = 4 * (self.offset_fc2(hidden).sigmoid() - 0.5)
        factors = 2 * self.weight_conv(means).sigmoid()
        offsets = self._by_plane(torch.cat((offsets, -offsets), 1)[:, :, None])
        factors = self._by_plane(torch.cat((factors, factors), 1))
        padded = F.pad(moved, (0, 0, 0, 0, _REACH, _REACH))
        found = torch.zeros_like(moved)
        for step in range(-_REACH, _REACH + 1):
            # Linear interpolation: a frame that is `step` away has a share of 1 less its distance from the offset.
            share = (1 - (offsets - step).abs()).clamp(min=0) * factors
            seen = padded[:, :, _REACH + step : _REACH + step + self.frames]
            found = torch.addcmul(found, share[..., None, None], seen)
        return fold(torch.cat((found, clips[:, self.moved :]), dim=1))

    def _by_plane(self, groups: Tensor) -> Tensor:
        """Repeats what four groups have, (N, 4, T), for each of their planes: (N, moved, T)."""
        sizes = [self.moved * (i + 1) // 4 - self.moved * i // 4 for i in range(4)]
        return torch.cat([groups[:, i : i + 1].expand(-1, size, -1) for i, size in enumerate(sizes)], dim=1)
