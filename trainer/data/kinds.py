"""What a network sees of a video, as values: frames, their differences or optical flow, and what each can go with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, get_args

Input = Literal["rgb", "flow", "difference"]
FlowMethod = Literal["dis", "farneback", "images"]

INPUTS: tuple[Input, ...] = get_args(Input)
PLANES: Mapping[str, int] = MappingProxyType({"rgb": 3, "flow": 2, "difference": 3})
"""Planes of a frame: red, green and blue; u (to the right) and v (down) of flow; differences of the three colours."""

ZERO = 128
"""The byte that stands for no motion; 0 and 256 would be the two ends of the bound."""

BOUND = 20.0
"""Pixels per frame that flow is cut off at, as TSN cuts it off (Wang et al. 2016)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowSettings:
    """How flow was computed, as it is recorded beside it.

    Attributes:
        method: `dis` or `farneback` of OpenCV; `images` were there already.
        bound: Pixels per frame that the ends of a byte stand for.
    """

    method: FlowMethod
    bound: float = BOUND


def problem_of(
    kind: str, *, frames: int, colour: float = 0.0, randaugment: tuple[int, int] | None = None
) -> str | None:
    """Says in one line why an input cannot be had with other settings of the data; None if it can.

    Args:
        kind: One of `INPUTS`.
        frames: Frames of a clip.
        colour: Strength of the change of colours.
        randaugment: Number and magnitude of RandAugment's operations.
    """
    if kind not in INPUTS:
        return f"data.input must be one of {', '.join(INPUTS)}, but is {kind}"
    if kind == "difference" and frames < 2:
        return f"data.clip.frames must be at least 2 with data.input difference, but is {frames}"
    if kind == "flow" and colour > 0:
        return f"data.colour must be 0 with data.input flow, which has no colours, but is {colour:g}"
    if kind == "flow" and randaugment is not None:
        return (
            "data.randaugment must be [] with data.input flow, which has no colours and turns with what is turned, but"
            f" is {list(randaugment)}; crops, flips and erasing go with it"
        )
    return None


def clip_text(kind: str, size: str) -> str:
    """The shape of a clip as it is recorded beside costs: `16x112x112`, of two planes `2x16x112x112`."""
    planes = PLANES[kind]
    return size if planes == PLANES["rgb"] else f"{planes}x{size}"
