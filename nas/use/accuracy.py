"""From class probabilities to what is published: accuracies with intervals, a table by class, a confusion matrix."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.evidence.paired import interval_over_seeds_and_videos, interval_over_videos
from nas.study.metric import MAP, VIDEO1
from nas.study.views import Views
from nas.use.probabilities import Scores

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """A share of videos with its bootstrap interval over videos.

    Attributes:
        value: In 0..1; of a difference in -1..1.
        low: Of the interval.
        high: Of the interval.
        num_videos: Videos that it is a mean of.
    """

    value: float
    low: float
    high: float
    num_videos: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRow:
    """One class of a test.

    Attributes:
        name: The class.
        accuracy: Share of its videos that are right; None where it has none.
        predicted: Videos of any class that are taken for it.
        taken_for: The other class that its videos are most often taken for; empty where all are right.
        taken: How many are.
        precision: Where videos have several labels, the average precision of the videos' order by this class, and
            `accuracy` is then the share of its videos whose most probable class is one of theirs.
    """

    name: str
    accuracy: Share | None
    predicted: int
    taken_for: str
    taken: int
    precision: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """What a test of one network on one split came to.

    Attributes:
        split: Name of the split.
        views: How each video was looked at.
        num_videos: Videos.
        num_clips: Views of all videos together.
        clip1: Share of single views whose most probable class is right (clip@1, "clip hit@1").
        video1: Share of videos whose class is the most probable one of the mean over views (video@1).
        video5: Share of videos whose class is among the five most probable ones, or among all if fewer (video@5).
        loss: Mean cross-entropy of the means over views, in nats; with several labels per video the binary one, a mean
            over videos and classes.
        confidence: Of the intervals.
        classes: One row a class, in the order of the network's outputs.
        confusion: Counts; rows are true classes, columns predicted ones. Empty where videos have several labels.
        map_sample: Where videos have several labels, the mean over videos of the average precision of their classes'
            order. Videos without a label are left out. All three shares above then count one of a video's labels as
            right.
        map_class: Where videos have several labels, the mean over classes of the average precision of the videos'
            order.
    """

    split: str
    views: Views
    num_videos: int
    num_clips: int
    clip1: Share
    video1: Share
    video5: Share
    loss: float
    confidence: float
    classes: tuple[ClassRow, ...]
    confusion: tuple[tuple[int, ...], ...]
    map_sample: Share | None = None
    map_class: float | None = None

    @property
    def balanced(self) -> float | None:
        """Mean over classes of video@1, of those that have a video; None where videos have several labels."""
        if self.map_sample is not None:
            return None
        found = [row.accuracy.value for row in self.classes if row.accuracy is not None]
        return sum(found) / len(found)

    @property
    def accuracy(self) -> Share:
        """What networks are compared by: video@1, or `map_sample` where videos have several labels."""
        return self.video1 if self.map_sample is None else self.map_sample

    @property
    def metric(self) -> str:
        """What that is called."""
        return VIDEO1 if self.map_sample is None else MAP


@dataclass(frozen=True, kw_only=True, slots=True)
class OverSeeds:
    """One network, trained with several seeds and tested on the same videos.

    Attributes:
        seeds: How many.
        clip1: Mean over seeds.
        video1: Mean over seeds, with the interval over videos: that of these very trainings on other videos.
        video5: Mean over seeds.
        std: Standard deviation of `accuracy` over seeds; None of one seed.
        both: Interval of `accuracy` over seeds and videos together; None of one seed.
        map_sample: Mean over seeds, with its interval, where videos have several labels.
        map_class: Mean over seeds.
    """

    seeds: int
    clip1: Share
    video1: Share
    video5: Share
    std: float | None
    both: tuple[float, float] | None
    map_sample: Share | None = None
    map_class: float | None = None

    @property
    def accuracy(self) -> Share:
        """What networks are compared by: video@1, or `map_sample` where videos have several labels."""
        return self.video1 if self.map_sample is None else self.map_sample


def in_top(probabilities: NDArray[np.float32], labels: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """(V,) 1 where fewer than k classes are more probable than the true one; of equal ones the first goes first."""
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return np.asarray((order == labels[:, None]).any(1), dtype=np.float64)


def five(scores: Scores) -> NDArray[np.float64]:
    """(V,) 1 where the true class, or one of them, is among the five most probable."""
    if scores.targets is None:
        return in_top(scores.probabilities, scores.labels, 5)
    order = np.argsort(-scores.probabilities, axis=1, kind="stable")[:, :5]
    return np.asarray(np.take_along_axis(scores.targets, order, axis=1).any(1), dtype=np.float64)


def precisions(probabilities: NDArray[np.float32], targets: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(R',) average precision of the rows that have a true entry; see `trainer.metrics.average_precisions`."""
    import torch

    from trainer.metrics import average_precisions

    return np.asarray(average_precisions(torch.from_numpy(probabilities), torch.from_numpy(targets)).numpy())


def worth(scores: Scores) -> NDArray[np.float64]:
    """What each video earns in `accuracy`: 1 or 0, or its average precision; videos without any label have none."""
    return scores.right if scores.targets is None else precisions(scores.probabilities, scores.targets)


def share(values: NDArray[np.float64], *, least: float = 0.0, confidence: float = CONFIDENCE) -> Share:
    """The mean of what each video is worth, with its interval over videos.

    Args:
        values: (V,) in `least`..1, V at least 1.
        least: Smallest value that a video can have; -1 for a difference.
        confidence: Of the interval.
    """
    low, high = interval_over_videos(values, least=least, confidence=confidence)
    return Share(value=float(values.mean()), low=low, high=high, num_videos=len(values))


def difference(a: Scores, b: Scores, *, confidence: float = CONFIDENCE) -> Share:
    """Accuracy of `a` minus that of `b` on the same videos in the same order, paired by video."""
    assert a.paths == b.paths, "scores that are compared are of the same videos"
    return share(worth(a) - worth(b), least=-1.0, confidence=confidence)


def judged(scores: Scores, *, confidence: float = CONFIDENCE) -> Judged:
    """Everything that a test reports, from the scores of at least one video."""
    num_videos, num_classes = scores.probabilities.shape
    several = scores.targets is not None
    confusion = np.zeros((0, 0), dtype=np.int64) if several else confusion_of(scores)
    rows = (
        _several_rows(scores, confidence)
        if several
        else [_row(scores, confusion, k, confidence) for k in range(num_classes)]
    )
    known = [row.precision for row in rows if row.precision is not None]
    return Judged(
        split=scores.split,
        views=scores.views,
        num_videos=num_videos,
        num_clips=num_videos * scores.views.per_video,
        clip1=share(scores.clips_right, confidence=confidence),
        video1=share(scores.right, confidence=confidence),
        video5=share(five(scores), confidence=confidence),
        # A probability of exactly 0 costs 87 nats, not infinitely many, as in training.
        loss=float(-np.log(np.maximum(given_to_truth(scores), np.finfo(np.float32).tiny)).mean()),
        confidence=confidence,
        classes=tuple(rows),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        map_sample=share(worth(scores), confidence=confidence) if several else None,
        map_class=float(np.mean(known)) if several else None,
    )


def given_to_truth(scores: Scores) -> NDArray[np.float64]:
    """Probabilities of what is true: (V,) of the class, or (V, K) of each class being there or not."""
    given = scores.probabilities.astype(np.float64)
    if scores.targets is None:
        return np.asarray(given[np.arange(len(given)), scores.labels])
    truths: NDArray[np.float64] = np.where(scores.targets, given, 1 - given)
    return truths


def confusion_of(scores: Scores) -> NDArray[np.int64]:
    """(K, K) counts; rows are true classes, columns predicted ones."""
    size = len(scores.classes)
    counts = np.bincount(scores.labels * size + scores.predictions, minlength=size * size)
    return counts.reshape(size, size)


def confused(result: Judged, names: Sequence[str]) -> list[tuple[str, str, int]]:
    """Pairs of classes that are mixed up: the true one, the predicted one and how often, the most frequent first."""
    pairs = [
        (names[true], names[said], count)
        for true, row in enumerate(result.confusion)
        for said, count in enumerate(row)
        if true != said and count
    ]
    return sorted(pairs, key=lambda pair: -pair[2])


def over_seeds(scores: Sequence[Scores], *, confidence: float = CONFIDENCE) -> OverSeeds:
    """What several trainings of one network come to, tested on the same videos in the same order."""
    assert len({s.paths for s in scores}) == 1, "seeds are compared on the same videos"
    right = np.stack([s.right for s in scores])
    table = np.stack([worth(s) for s in scores])  # (seeds, V)
    each = table.mean(1)
    several = scores[0].targets is not None
    return OverSeeds(
        seeds=len(scores),
        clip1=share(np.stack([s.clips_right for s in scores]).mean(0), confidence=confidence),
        video1=share(right.mean(0), confidence=confidence),
        video5=share(np.stack([five(s) for s in scores]).mean(0), confidence=confidence),
        std=float(each.std(ddof=1)) if len(each) > 1 else None,
        both=interval_over_seeds_and_videos(table, confidence=confidence) if len(each) > 1 else None,
        map_sample=share(table.mean(0), confidence=confidence) if several else None,
        map_class=float(np.mean([judged(s, confidence=confidence).map_class for s in scores])) if several else None,
    )


def as_plain(result: Judged) -> dict[str, Any]:
    """A test as plain values, for JSON."""
    plain = asdict(result)
    plain["views"]["text"] = str(result.views)
    if result.map_sample is None:
        del plain["map_sample"], plain["map_class"]
    return plain


def save_tests(path: Path, results: Sequence[Judged]) -> None:
    """Writes tests as JSON by split; the file appears whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    content = {result.split: as_plain(result) for result in results}
    part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def _row(scores: Scores, confusion: NDArray[np.int64], k: int, confidence: float) -> ClassRow:
    mine = scores.right[scores.labels == k]
    others = confusion[k].copy()
    others[k] = 0
    most = int(others.argmax())
    return ClassRow(
        name=scores.classes[k],
        accuracy=share(mine, confidence=confidence) if len(mine) else None,
        predicted=int(confusion[:, k].sum()),
        taken_for=scores.classes[most] if others[most] else "",
        taken=int(others[most]),
    )


def _several_rows(scores: Scores, confidence: float) -> list[ClassRow]:
    assert scores.targets is not None
    rows = []
    for k, name in enumerate(scores.classes):
        mine = scores.targets[:, k]
        found = mine.any()
        column = np.ascontiguousarray(scores.probabilities[:, k])[None]
        rows.append(
            ClassRow(
                name=name,
                accuracy=share(scores.right[mine], confidence=confidence) if found else None,
                predicted=int((scores.predictions == k).sum()),
                taken_for="",
                taken=0,
                precision=float(precisions(column, mine[None])[0]) if found else None,
            )
        )
    return rows
