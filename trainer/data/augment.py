"""From the bytes of frames to the numbers of a clip: crops, mirroring, scaling, and what a network sees of them.

Flow lies in bytes as TSN keeps it (Wang et al. 2016): (v / bound) * 128 + 128, rounded and cut off at 0 and 255, so
that 128 is exactly no motion and one level is bound / 128 pixels (0.16 at 20). Its sign follows the picture: a mirrored
clip negates u, and a clip that is played backwards negates both, in the opposite order. A byte b is negated by 256 - b,
which is exact but for the outermost one. (255 - b, as TSN's authors have it, makes a little motion out of none.)
Numbers of a flow are pixels of the frames that it was computed on, also where these are resized afterwards.

Difference t is frame t + 1 minus frame t, of the frames that are shown, after all augmentation; the last one is shown
twice. So the frames read are those of RGB, at the same cost, and the same videos are long enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainer.config import Clip, DataConfig
from trainer.data.kinds import BOUND, ZERO, Input


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A rectangle of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, as they index a frame."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def train_box(
    height: int,
    width: int,
    clip: Clip,
    crop_scale: tuple[float, float] | None,
    rng: np.random.Generator,
    *,
    crop_ratio: tuple[float, float] | None = None,
) -> Box:
    """Draws the part of the frame that a training clip shows.

    Args:
        height: Rows of the frame.
        width: Columns of the frame.
        clip: Gives the size of the crop.
        crop_scale: Range of the box's side as a share of the largest box of the clip's aspect; `None` takes
            exactly `clip.height` x `clip.width` pixels, or that largest box where the frame is too small
            for them.
        rng: Source of randomness.
        crop_ratio: Range of the box's aspect (width to height) as a multiple of the clip's; its area stays, where the
            frame is large enough. `None` keeps the aspect.

    Returns:
        The box, within the frame.
    """
    share = None if crop_scale is None else rng.uniform(*crop_scale)
    rows, columns = _box_size(height, width, clip, share)
    if crop_ratio is not None:
        # Even in the logarithm, so that wide and tall are equally likely.
        side = math.sqrt(math.exp(rng.uniform(math.log(crop_ratio[0]), math.log(crop_ratio[1]))))
        rows, columns = min(max(round(rows / side), 1), height), min(max(round(columns * side), 1), width)
    return Box(
        top=int(rng.integers(height - rows + 1)),
        left=int(rng.integers(width - columns + 1)),
        height=rows,
        width=columns,
    )


def eval_boxes(
    height: int, width: int, clip: Clip, *, crops: int = 1, side: int = 0, full: bool = False
) -> tuple[Box, ...]:
    """Gives the parts of a frame that evaluation clips show.

    Three crops lie at both ends and in the middle of the axis along which there is more room (SlowFast's uniform
    crops), so that together they show the whole frame where its short side is the clip's and its long side at most
    three times that; along the other axis they are centred.

    Args:
        height: Rows of the frame.
        width: Columns.
        clip: Gives the size of the crop; where the frame is too small for it, the largest box of its aspect is taken.
        crops: 1 for the middle alone, or 3.
        side: Short side to which the frame is resized, in pixels; 0 leaves it as it is.
        full: Take the largest box of the clip's aspect, whatever its size.

    Returns:
        The boxes, in pixels of the frame as it is.
    """
    largest = min(height / clip.height, width / clip.width)
    scale = largest if full else min(min(height, width) / side if side else 1.0, largest)
    rows = min(max(round(clip.height * scale), 1), height)
    columns = min(max(round(clip.width * scale), 1), width)
    down, right = height - rows, width - columns
    shares = (1,) if crops == 1 else (0, 1, 2)  # halves of the room before the crop
    return tuple(
        Box(top=down * share // 2, left=right // 2, height=rows, width=columns)
        if down > right
        else Box(top=down // 2, left=right * share // 2, height=rows, width=columns)
        for share in shares
    )


def cut(
    video: NDArray[np.uint8], indices: NDArray[np.int64], box: Box, out: NDArray[np.uint8], *, mirror: bool
) -> None:
    """Copies one clip out of a video.

    Args:
        video: Frames (F, H, W, C).
        indices: Numbers of the T frames to take.
        box: What to take of each; resized (bilinear, antialiased) where its size is not that of `out`.
        out: Receives the clip (T, height, width, C).
        mirror: Swap left and right.
    """
    rows, columns = box.slices
    place(video[indices, rows, columns], out, mirror=mirror)


def place(pixels: NDArray[np.uint8], out: NDArray[np.uint8], *, mirror: bool) -> None:
    """Copies the pixels of a box into a clip.

    Args:
        pixels: What the box shows (T, h, w, C); resized (bilinear, antialiased) where its size is not that of `out`.
        out: Receives the clip (T, height, width, C).
        mirror: Swap left and right.
    """
    if pixels.shape != out.shape:
        # (T, H, W, C) seen as (T, C, H, W): channels-last, which is what the uint8 kernel is fast on.
        planes = torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2)
        planes = functional.interpolate(planes, out.shape[1:3], mode="bilinear", antialias=True)
        pixels = planes.permute(0, 2, 3, 1).numpy()
    out[...] = pixels[:, :, ::-1] if mirror else pixels


def normalise(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Turns values of 0 to 255 into normalised ones.

    Args:
        pixels: Clips (N, T, H, W, C) on the device that computes; floats are changed in place.
        mean: Mean of each of the C channels, of values in 0..1.
        std: Standard deviation of each channel.

    Returns:
        (value / 255 - mean) / std as float32 (N, C, T, H, W), laid out in memory as channels_last_3d.
    """
    size = pixels.shape
    # Rows of W * C numbers: broadcasting over a last dimension of two or three alone would be several times slower.
    factor = torch.tensor([1 / (255 * s) for s in std], dtype=torch.float32).repeat(size[3])
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=torch.float32).repeat(size[3])
    rows = pixels.reshape(-1, size[3] * size[4]).to(torch.float32)
    rows.mul_(factor.to(pixels.device)).add_(shift.to(pixels.device))
    return rows.reshape(size).permute(0, 4, 1, 2, 3)


def _box_size(height: int, width: int, clip: Clip, share: float | None) -> tuple[int, int]:
    if share is None and height >= clip.height and width >= clip.width:
        return clip.height, clip.width
    scale = min(height / clip.height, width / clip.width) * (1.0 if share is None else share)
    rows, columns = round(clip.height * scale), round(clip.width * scale)
    return min(max(rows, 1), height), min(max(columns, 1), width)


Floats = tuple[float, ...]


def normalisation(config: DataConfig) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each plane, of values in 0..1.

    RGB has those of the data. The zero of flow is byte 128, and its deviation is the mean of the three colours', as
    TSN has it. The mean of differences is 0; their deviations are those of the colours, so that a difference is that of
    two normalised frames.
    """
    if config.input == "flow":
        return (ZERO / 255,) * config.planes, (sum(config.std) / len(config.std),) * config.planes
    if config.input == "difference":
        return (0.0,) * config.planes, config.std
    return config.mean, config.std


def shown(pixels: Tensor, config: DataConfig) -> Tensor:
    """Turns the bytes of clips into what a network sees.

    Args:
        pixels: (N, T, H, W, C), uint8, on the device that computes; C is 2 of flow, else 3.
        config: Says what the input is.

    Returns:
        (N, C, T, H, W), float32, normalised, laid out in memory as channels_last_3d.
    """
    mean, std = normalisation(config)
    if config.input == "difference":
        frames = pixels.to(torch.float32)
        pixels = torch.empty_like(frames)
        torch.sub(frames[:, 1:], frames[:, :-1], out=pixels[:, :-1])
        pixels[:, -1] = pixels[:, -2]
    return normalise(pixels, mean, std)


def turned(pixels: NDArray[np.uint8], config: DataConfig, *, mirror: bool, backwards: bool) -> None:
    """Gives flow the signs of a clip that was mirrored or is played backwards, in place; leaves other inputs alone.

    Args:
        pixels: A clip (T, H, W, C), its places and frames already in the order that they are shown in.
        config: Says what the input is.
        mirror: Left and right were swapped.
        backwards: The order of the frames was turned around.
    """
    if config.input != "flow":
        return
    for plane, negated in enumerate((mirror != backwards, backwards)):
        if negated:
            pixels[..., plane] = _NEGATED[pixels[..., plane]]


_NEGATED = np.minimum(256 - np.arange(256), 255).astype(np.uint8)


def reordered(clips: Tensor, order: Tensor, kind: Input, *, test: str) -> Tensor:
    """What a network sees of clips whose frames are shown in another order, from what it sees of them in theirs.

    Of differences the frames are added up, put into the order, and subtracted again: this is what showing other frames
    would give, up to rounding. Flow backwards is the negated flow in the opposite order, and frames that stand still
    have none; of a shuffled clip nobody knows the flow, so that the fields themselves are shuffled.

    Args:
        clips: (N, C, T, H, W) as `shown` gives them.
        order: (N, T) numbers of the frames to show.
        kind: What the input is.
        test: The name of the order among those of `trainer.outcomes`.

    Returns:
        (N, C, T, H, W) in the same memory order.
    """
    if kind == "difference":
        frames = torch.zeros_like(clips)
        frames[:, :, 1:] = clips[:, :, :-1].cumsum(2)
        frames = _gathered(frames, order)
        found = torch.empty_like(clips)
        found[:, :, :-1] = frames[:, :, 1:] - frames[:, :, :-1]
        found[:, :, -1] = found[:, :, -2]
        return found
    if kind == "flow" and test in ("frozen", "single"):
        return torch.zeros_like(clips)
    found = _gathered(clips, order)
    return found.neg_() if kind == "flow" and test == "reversed" else found


def _gathered(clips: Tensor, order: Tensor) -> Tensor:
    places = order.to(clips.device)[:, None, :, None, None].expand(clips.shape)
    # The same memory order: a network then computes with the same kernels in every test.
    return torch.empty_like(clips).copy_(clips.gather(2, places))


def to_bytes(flow: NDArray[np.float32], bound: float = BOUND) -> NDArray[np.uint8]:
    """Flow in pixels per frame, of any shape, as bytes."""
    return np.asarray(np.clip(np.rint(flow * (ZERO / bound)) + ZERO, 0, 255), dtype=np.uint8)


def to_pixels(flow: NDArray[np.uint8], bound: float = BOUND) -> NDArray[np.float32]:
    """Bytes of flow, of any shape, in pixels per frame."""
    return (flow.astype(np.float32) - ZERO) * np.float32(bound / ZERO)
