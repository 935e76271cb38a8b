"""RandAugment, colour and erasing: one draw of parameters for all frames of a clip, applied by torchvision.

What is drawn is a function of the generator alone, and the generator is one of the sample's own, so a clip comes out
the same whatever batch, process or epoch order it is made in. torchvision is imported when the first clip needs it: its
import costs a loader process 160 MB that nobody should pay for flips and crops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.config import DataConfig
from trainer.data.kinds import ZERO

_BINS = 31
"""Magnitudes of RandAugment, 0 to 30."""

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "colour",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
"""The operations of RandAugment (Cubuk et al., 2020, section 3.1)."""

# Share of the clip's area and aspect of an erased rectangle (Zhong et al., 2020, and torchvision's defaults).
_ERASED_AREA = (0.02, 0.33)
_ERASED_RATIO = (0.3, 3.3)
_ATTEMPTS = 10


def changes_pixels(config: DataConfig) -> bool:
    """Says whether training clips go through `transform` at all."""
    return config.randaugment is not None or config.colour > 0 or config.erasing > 0


def transform(pixels: Tensor, config: DataConfig, rng: np.random.Generator) -> Tensor:
    """Applies RandAugment, then colour, then erasing, as far as they are on.

    Args:
        pixels: One clip (T, H, W, C), uint8, on any device; flow has two planes, and erasing alone.
        config: Says which are on, and how strong.
        rng: Source of randomness, of this sample alone.

    Returns:
        The changed clip (T, H, W, C), uint8, on the same device.
    """
    frames = pixels.permute(0, 3, 1, 2)
    if config.randaugment is not None:
        count, magnitude = config.randaugment
        for _ in range(count):
            name = OPERATIONS[int(rng.integers(len(OPERATIONS)))]
            frames = operate(frames, name, magnitude, sign=-1 if rng.integers(2) else 1, fill=_fill(config))
    if config.colour > 0:
        frames = jitter(frames, config.colour, rng)
    if config.erasing > 0 and rng.uniform() < config.erasing:
        frames = erase(frames, _fill(config), rng)
    return frames.permute(0, 2, 3, 1)


def operate(frames: Tensor, name: str, magnitude: int, *, sign: int, fill: list[float]) -> Tensor:
    """One operation of RandAugment, with the ranges of torchvision's.

    Args:
        frames: (T, 3, H, W), uint8; all get the same parameters.
        name: One of `OPERATIONS`.
        magnitude: Strength, 0 to 30.
        sign: -1 or 1: the direction, where the operation has one.
        fill: Colour of what comes into view, 0 to 255 a channel.

    Returns:
        (T, 3, H, W), uint8.
    """
    from torchvision.transforms.v2 import functional

    height, width = frames.shape[-2:]
    share = magnitude / (_BINS - 1)

    def moved(*, angle: float = 0.0, x: float = 0.0, y: float = 0.0, shear: tuple[float, float] = (0.0, 0.0)) -> Tensor:
        corner = [0, 0] if any(shear) else None
        moves = {"angle": angle, "translate": [int(x), int(y)], "scale": 1.0, "shear": list(shear)}
        return torch.as_tensor(functional.affine(frames, **moves, fill=fill, center=corner))

    tilt, factor = math.degrees(math.atan(0.3 * share * sign)), 1 + 0.9 * share * sign
    operations: dict[str, Callable[[], Any]] = {
        "identity": lambda: frames,
        "shear_x": lambda: moved(shear=(tilt, 0.0)),
        "shear_y": lambda: moved(shear=(0.0, tilt)),
        "translate_x": lambda: moved(x=sign * share * 150 / 331 * width),
        "translate_y": lambda: moved(y=sign * share * 150 / 331 * height),
        "rotate": lambda: functional.rotate(frames, angle=30 * share * sign, fill=fill),
        "brightness": lambda: functional.adjust_brightness(frames, brightness_factor=factor),
        "colour": lambda: functional.adjust_saturation(frames, saturation_factor=factor),
        "contrast": lambda: functional.adjust_contrast(frames, contrast_factor=factor),
        "sharpness": lambda: functional.adjust_sharpness(frames, sharpness_factor=factor),
        "posterize": lambda: functional.posterize(frames, bits=8 - round(magnitude / ((_BINS - 1) / 4))),
        "solarize": lambda: functional.solarize(frames, threshold=255.0 * (1 - share)),
        "autocontrast": lambda: functional.autocontrast(frames),
        "equalize": lambda: functional.equalize(frames),
    }
    return torch.as_tensor(operations[name]())


def jitter(frames: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """Changes brightness, contrast and saturation, in a random order.

    Hue stays: it is what tells some classes apart, and video recipes leave it alone.

    Args:
        frames: (T, 3, H, W), uint8.
        strength: Factors are drawn from 1 - strength to 1 + strength.
        rng: Source of randomness.

    Returns:
        (T, 3, H, W), uint8.
    """
    from torchvision.transforms.v2 import functional

    factors = rng.uniform(1 - strength, 1 + strength, size=3)
    steps = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    for number in rng.permutation(3).tolist():
        frames = steps[number](frames, float(factors[number]))
    return torch.as_tensor(frames)


def erase(frames: Tensor, fill: list[float], rng: np.random.Generator) -> Tensor:
    """Fills one random rectangle, the same in all frames.

    Args:
        frames: (T, 3, H, W), uint8.
        fill: Its colour, 0 to 255 a channel.
        rng: Source of randomness.

    Returns:
        (T, 3, H, W), uint8; unchanged where ten rectangles in a row were drawn that do not fit.
    """
    from torchvision.transforms.v2 import functional

    height, width = frames.shape[-2:]
    for _ in range(_ATTEMPTS):
        area = rng.uniform(*_ERASED_AREA) * height * width
        ratio = math.exp(rng.uniform(math.log(_ERASED_RATIO[0]), math.log(_ERASED_RATIO[1])))
        rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < rows < height and 0 < columns < width:
            top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
            colour = torch.tensor(fill, device=frames.device).to(frames.dtype)[:, None, None]
            return torch.as_tensor(functional.erase(frames, top, left, rows, columns, colour))
    return frames


def _fill(config: DataConfig) -> list[float]:
    """The mean colour, which is zero once a clip is normalised; of flow, no motion."""
    if config.input == "flow":
        return [float(ZERO)] * config.planes
    return [float(round(255 * min(max(value, 0.0), 1.0))) for value in config.mean]
