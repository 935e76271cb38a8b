"""Promotions as recorded: one training as a value, trainings of a network over their seeds, and their recipes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.store.records import PromotionRow, TestedRow
from nas.study.metric import MAP, VIDEO1
from nas.use.accuracy import judged
from nas.use.multi_view import kept_over_seeds, kept_scores


@dataclass(frozen=True, kw_only=True, slots=True)
class Promoted:
    """One network, trained in full with one seed.

    Attributes:
        digest: Of the network.
        description: In one line.
        seed: Of the training.
        split: What was reported: `test`, or `val` where the data has no test split.
        top1: video@1, share of 1 on `split`; where videos have several labels, one of them counts.
        top5: video@5, share of 1 on `split`.
        num_clips: Videos of `split`.
        epochs: Trained.
        folder: What `nas.load` opens.
        fresh: False where an earlier promotion was found.
        map_sample: Where videos have several labels, mAP as the mean over videos; else None.
        map_class: Where videos have several labels, mAP as the mean over classes; else None.
        clip1: Share of single views that are right; None where an earlier version did not count it.
        low: Of the interval of the accuracy over videos.
        high: Of it.
        views: How each video was looked at.
        broken: Clips that training could not read: their number, and the reason by video; None if there were none.
    """

    digest: str
    description: str
    seed: int
    split: str
    top1: float
    top5: float
    num_clips: int
    epochs: int
    folder: str
    fresh: bool
    map_sample: float | None = None
    map_class: float | None = None
    clip1: float | None = None
    low: float | None = None
    high: float | None = None
    views: str = ""
    broken: Mapping[str, Any] | None = None

    @property
    def accuracy(self) -> float:
        """video@1, or `map_sample` where videos have several labels."""
        return self.top1 if self.map_sample is None else self.map_sample


def promoted_of(row: PromotionRow, evaluation: TestedRow, *, description: str, folder: Path, fresh: bool) -> Promoted:
    """A promotion that is done.

    Args:
        row: Of `Store.promotions`.
        evaluation: Row of `Store.evaluations`: its test on the split to report.
        description: The network in one line.
        folder: That it left.
        fresh: False where it was done earlier.
    """
    scores = kept_scores(folder, evaluation["split"])
    # Earlier versions kept the scores of each video without what they come to.
    test = judged(scores) if scores is not None else None
    known = evaluation["clip1"] is not None or test is None
    return Promoted(
        digest=row["digest"],
        description=description,
        seed=row["seed"],
        split=evaluation["split"],
        top1=evaluation["top1"],
        top5=evaluation["top5"],
        num_clips=evaluation["num_clips"],
        epochs=evaluation["epochs"],
        folder=str(folder),
        fresh=fresh,
        map_sample=evaluation["map_sample"],
        map_class=evaluation["map_class"],
        clip1=evaluation["clip1"] if known or test is None else test.clip1.value,
        low=evaluation["low"] if known or test is None else test.accuracy.low,
        high=evaluation["high"] if known or test is None else test.accuracy.high,
        views=str(test.views) if test is not None else evaluation["views"] or "",
        broken=row["broken"],
    )


def summarise(results: Sequence[Promoted]) -> list[dict[str, Any]]:
    """One row a network: mean and standard deviation of accuracy over its seeds, with intervals.

    `accuracy` is video@1, or mAP where videos have several labels; `metric` says which, and `std`, `low` and `high` are
    of it. `low` and `high` are of the mean over seeds on other videos; `low_both` and `high_both` are of other seeds
    and other videos. These, clip@1 and the views are None where an earlier version did not keep the scores of each
    video.
    """
    rows = []
    for digest in dict.fromkeys(result.digest for result in results):
        mine = [result for result in results if result.digest == digest]
        mean = _mean([r.accuracy for r in mine])
        spread = math.sqrt(sum((r.accuracy - mean) ** 2 for r in mine) / (len(mine) - 1)) if len(mine) > 1 else None
        first = mine[0]
        several = first.map_sample is not None
        over = kept_over_seeds([Path(result.folder) for result in mine], first.split)
        rows.append(
            {
                "digest": digest,
                "description": first.description,
                "split": first.split,
                "metric": MAP if several else VIDEO1,
                "accuracy": mean,
                "top1": _mean([r.top1 for r in mine]),
                "std": spread,
                "seeds": len(mine),
                "num_clips": first.num_clips,
                "epochs": first.epochs,
                "top5": _mean([r.top5 for r in mine]),
                "map_sample": mean if several else None,
                "map_class": _mean([r.map_class or 0.0 for r in mine]) if several else None,
                "clip1": over.clip1.value if over else None,
                "low": over.accuracy.low if over else None,
                "high": over.accuracy.high if over else None,
                "low_both": over.both[0] if over and over.both else None,
                "high_both": over.both[1] if over and over.both else None,
                "views": "; ".join(dict.fromkeys(r.views for r in mine)) if over else None,
            }
        )
    return rows


def joined(before: Mapping[str, Any] | None, num_clips: int, videos: Mapping[str, str]) -> dict[str, Any] | None:
    """Clips that a training could not read, those of its earlier starts included; None if there were none.

    Args:
        before: Of the earlier starts.
        num_clips: Clips of this one.
        videos: The reason by video.
    """
    earlier = before or {"num_clips": 0, "videos": {}}
    found = {"num_clips": earlier["num_clips"] + num_clips, "videos": {**earlier["videos"], **videos}}
    return found if found["videos"] else None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
