"""What a network makes of clips that are played backwards: which predictions exchange."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nas.using.scores import Scores


@dataclass(frozen=True, kw_only=True, slots=True)
class BackwardsRow:
    """One true class, forwards and backwards.

    Attributes:
        name: The class.
        num_videos: Its videos.
        right: Videos that are right forwards.
        right_backwards: Videos that are right backwards.
        becomes: What its videos that are right forwards are most often taken for backwards; empty if none is right.
        becoming: How many of them are.
        exchanges: Whether `becomes` is another class, whose own videos most often become this one.
    """

    name: str
    num_videos: int
    right: int
    right_backwards: int
    becomes: str
    becoming: int
    exchanges: bool


def backwards_table(forward: Scores, backward: Scores) -> tuple[BackwardsRow, ...]:
    """Compares the same videos forwards and backwards, class by class.

    A class whose motion played backwards is that of another class should become it, and the other way round: left and
    right exchange. A class that does not depend on order, or on its direction, stays.

    Args:
        forward: Scores of clips as they are.
        backward: Scores of the same videos backwards, in the same order.
    """
    assert forward.paths == backward.paths, "the same videos, forwards and backwards"
    said, then, labels = forward.predictions, backward.predictions, forward.labels
    becomes: dict[int, tuple[int, int]] = {}
    for k in range(len(forward.classes)):
        later = np.bincount(then[(labels == k) & (said == k)], minlength=len(forward.classes))
        if later.sum():
            becomes[k] = int(later.argmax()), int(later.max())
    rows = []
    for k, name in enumerate(forward.classes):
        mine = labels == k
        if not mine.any():
            continue
        other, count = becomes.get(k, (k, 0))
        rows.append(
            BackwardsRow(
                name=name,
                num_videos=int(mine.sum()),
                right=int((said[mine] == k).sum()),
                right_backwards=int((then[mine] == k).sum()),
                becomes=forward.classes[other] if k in becomes else "",
                becoming=count,
                exchanges=other != k and becomes.get(other, (other, 0))[0] == k,
            )
        )
    return tuple(rows)
