"""From the bytes of a clip to what a network sees: RGB, optical flow, or the differences of frames.

Flow lies in bytes as TSN keeps it (Wang et al. 2016): (v / bound) * 128 + 128, rounded and cut off at 0 and 255, so
that 128 is exactly no motion and one level is bound / 128 pixels (0.16 at 20). Its sign follows the picture: a mirrored
clip negates u, and a clip that is played backwards negates both, in the opposite order. A byte b is negated by 256 - b,
which is exact but for the outermost one. (255 - b, as TSN's authors have it, makes a little motion out of none.)
Numbers of a flow are pixels of the frames that it was computed on, also where these are resized afterwards.

Difference t is frame t + 1 minus frame t, of the frames that are shown, after all augmentation; the last one is shown
twice. So the frames read are those of RGB, at the same cost, and the same videos are long enough.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.config import DataConfig
from trainer.data.augment import normalise
from trainer.inputs import BOUND, ZERO, Input

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
    """Flow in pixels a frame, of any shape, as bytes."""
    return np.asarray(np.clip(np.rint(flow * (ZERO / bound)) + ZERO, 0, 255), dtype=np.uint8)


def to_pixels(flow: NDArray[np.uint8], bound: float = BOUND) -> NDArray[np.float32]:
    """Bytes of flow, of any shape, in pixels a frame."""
    return (flow.astype(np.float32) - ZERO) * np.float32(bound / ZERO)
