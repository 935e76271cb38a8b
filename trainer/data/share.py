"""A share of the training videos, drawn within each class: nested, and the same in whatever order videos are listed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trainer.data.dataset import VideoData
from trainer.data.pack import Entry

T = TypeVar("T")
_TRAIN = "train"


def with_share(data: T, share: float, seed: int) -> T:
    """The data with a share of its training videos; its other splits stay whole.

    Args:
        data: The opened data; with a share of 1 it may be anything, and comes back as it is.
        share: Above 0, at most 1.
        seed: Of the training.
    """
    if share == 1:
        return data
    assert isinstance(data, VideoData)
    train = data.split(_TRAIN)
    rows = chosen(train.entries, share, seed)
    return replace(data, splits=MappingProxyType({**data.splits, _TRAIN: train.keep(rows)}))


def chosen(entries: Sequence[Entry], share: float, seed: int) -> NDArray[np.int64]:
    """The numbers of the videos that a share takes, ascending.

    The videos of a class stand in an order that the seed and their paths give, and the first of them are taken: the
    share of their number, rounded. The first one of every class always is. So a smaller share is part of every larger
    one, and a video is taken or not whatever the order of the list is. A video with several labels is counted with the
    first of them (those without any together), but may stand for each of its classes.

    Args:
        entries: The videos.
        share: Above 0, at most 1.
        seed: Draws the order.
    """
    keys = [hashlib.sha256(f"{seed} {entry.path}".encode()).digest() for entry in entries]
    counted: dict[int, list[int]] = {}
    first: dict[int, int] = {}
    for row in sorted(range(len(entries)), key=lambda row: (keys[row], entries[row].path)):
        entry = entries[row]
        counted.setdefault(entry.label, []).append(row)
        for label in entry.labels or (entry.label,):
            first.setdefault(label, row)
    taken = set(first.values())
    for rows in counted.values():
        taken.update(rows[: int(len(rows) * share + 0.5)])
    return np.array(sorted(taken), dtype=np.int64)
