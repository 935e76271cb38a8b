"""Costs as values: of a network, and of a unit of one with what it keeps of what goes in and comes out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

_FLOAT = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Cost of one clip.

    Attributes:
        params: Parameters.
        macs: Multiply-accumulates in evaluation mode, every dilation of a random set included.
        train_macs: Multiply-accumulates of one forward pass in training mode, with one dilation of each set.
        activation_bytes: Bytes that a forward pass in training keeps for the backward pass, in float32: what
            grows with each clip of a batch. Parameters, running statistics and a batch's statistics are not
            in it.
    """

    params: int = 0
    macs: int = 0
    train_macs: int = 0
    activation_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            params=self.params + other.params,
            macs=self.macs + other.macs,
            train_macs=self.train_macs + other.train_macs,
            activation_bytes=self.activation_bytes + other.activation_bytes,
        )


class Made(NamedTuple):
    """An output that a unit makes: its bytes for one clip, and whether the unit keeps it, and so counts it."""

    size: int
    kept: bool


class Counted(NamedTuple):
    """A unit on an input shape.

    Attributes:
        cost: Its cost, with activations that it makes and keeps.
        shape: Of its output, (C, T, H, W) or a tuple of such.
        keeps: Which of its inputs it keeps.
        gives: Its outputs, each one that it makes or the index of the input that it is.
    """

    cost: Cost
    shape: Any
    keeps: tuple[bool, ...]
    gives: tuple[Made | int, ...]


def size_of(shape: tuple[int, ...]) -> int:
    """Returns the bytes of numbers of this shape."""
    return _FLOAT * prod(shape)


def by(sizes: Iterable[int]) -> str:
    """Returns sizes as text, such as 16x112x112."""
    return "x".join(map(str, sizes))
