"""Each class as a question of yes or no: AUC, average precision, calibration, and a threshold that val chooses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import NotFoundError, unknown
from nas.use.accuracy import CONFIDENCE, Share, share
from nas.use.probabilities import Scores
from trainer.config import ConfigError

RESAMPLES = 1000
BINS = 15
MOST_CLASSES = 20  # whose intervals are computed, and whose curves are drawn
_CELLS = 500_000  # of resamples at once: 4 MB


@dataclass(frozen=True, kw_only=True, slots=True)
class Detection:
    """How well the probability of a class tells its videos from the others.

    Attributes:
        name: The class.
        positives: Videos that have it.
        negatives: Videos that have not.
        auc: Area under the ROC curve: how often a video of the class has the higher probability of two.
        auc_interval: Percentile bootstrap over videos; None of many classes.
        precision: Average precision.
        precision_interval: As that of the AUC.
    """

    name: str
    positives: int
    negatives: int
    auc: float
    auc_interval: tuple[float, float] | None
    precision: float
    precision_interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """What every threshold on the probability of a class comes to, the highest threshold first.

    Attributes:
        name: The class.
        false_alarms: Share of the other videos that are called.
        recall: Share of its videos that are called.
        precision: Share of the calls that are right.
        share: Of its videos among all: the precision of calling every one.
    """

    name: str
    false_alarms: tuple[float, ...]
    recall: tuple[float, ...]
    precision: tuple[float, ...]
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class AtThreshold:
    """A class that is called where its probability reaches a threshold.

    Attributes:
        threshold: On the probability.
        recall: Share of its videos that are called.
        precision: Share of the calls that are right; None where nothing is called.
        false_alarms: Share of the other videos that are called; None where there is none.
    """

    threshold: float
    recall: Share
    precision: Share | None
    false_alarms: Share | None


def is_detection(scores: Scores) -> bool:
    """Whether classes are questions of yes or no: there are two, or a video may have several."""
    return scores.targets is not None or len(scores.classes) == 2


def truth_of(scores: Scores, k: int) -> NDArray[np.bool_]:
    """(V,) which videos have class k."""
    return np.asarray(scores.labels == k if scores.targets is None else scores.targets[:, k])


def questions(scores: Scores) -> list[tuple[int, NDArray[np.bool_], NDArray[np.float32]]]:
    """Each class that some videos have and others have not: its index, (V,) which have it, (V,) its probabilities."""
    if not np.isfinite(scores.probabilities).all():
        return []
    found = ((k, truth_of(scores, k), scores.probabilities[:, k]) for k in range(len(scores.classes)))
    return [(k, truth, given) for k, truth, given in found if 0 < truth.sum() < len(truth)]


def detections(scores: Scores) -> tuple[Detection, ...]:
    """One row per class that some videos have and others have not."""
    few = len(scores.classes) <= MOST_CLASSES
    rows: list[Detection] = []
    for k, truth, given in questions(scores):
        auc, precision = areas(truth, given, np.ones((1, len(truth))))
        drawn = _drawn_areas(truth, given) if few else None
        rows.append(
            Detection(
                name=scores.classes[k],
                positives=int(truth.sum()),
                negatives=int((~truth).sum()),
                auc=float(auc[0]),
                auc_interval=None if drawn is None else _middle(drawn[0]),
                precision=float(precision[0]),
                precision_interval=None if drawn is None else _middle(drawn[1]),
            )
        )
    return tuple(rows)


def _drawn_areas(
    truth: NDArray[np.bool_], given: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`areas` of each resample of the videos, some at a time."""
    draw, step = np.random.default_rng(0), max(1, _CELLS // len(truth))
    parts = [
        areas(truth, given, _resamples(truth, min(step, RESAMPLES - start), draw))
        for start in range(0, RESAMPLES, step)
    ]
    return np.concatenate([auc for auc, _ in parts]), np.concatenate([precision for _, precision in parts])


def curves(scores: Scores) -> tuple[Curves, ...]:
    """The points of the ROC and the precision-recall curve of classes; of many, those with the most videos."""
    most = sorted(questions(scores), key=lambda one: -int(one[1].sum()))[:MOST_CLASSES]
    found = []
    for k, truth, given in sorted(most, key=lambda one: one[0]):
        rights, wrongs = _called(truth, given, np.ones((1, len(truth))))
        positives, negatives = int(truth.sum()), int((~truth).sum())
        found.append(
            Curves(
                name=scores.classes[k],
                false_alarms=tuple((wrongs[0] / negatives).tolist()),
                recall=tuple((rights[0] / positives).tolist()),
                precision=tuple((rights[0] / (rights[0] + wrongs[0])).tolist()),
                share=positives / len(truth),
            )
        )
    return tuple(found)


def _called(
    truth: NDArray[np.bool_], given: NDArray[np.floating[Any]], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(B, N) videos of the class and others that each of N thresholds calls, the highest first; see `areas`."""
    order = np.argsort(-given, kind="stable")
    starts = np.flatnonzero(np.diff(given[order], prepend=np.inf))  # of each probability, the highest first
    right = np.add.reduceat((weights * truth)[:, order], starts, axis=1)
    wrong = np.add.reduceat((weights * ~truth)[:, order], starts, axis=1)
    return right.cumsum(1), wrong.cumsum(1)


def areas(
    truth: NDArray[np.bool_], given: NDArray[np.floating[Any]], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Area under the ROC curve and average precision, for many weightings of the videos at once.

    Args:
        truth: (V,) which videos have the class.
        given: (V,) its probabilities; videos of one probability are called together.
        weights: (B, V) how often each video counts; some of either kind in each row.

    Returns:
        (B,) areas, and (B,) average precisions: the mean precision over the steps of recall.
    """
    rights, wrongs = _called(truth, given, weights)
    right, wrong = np.diff(rights, axis=1, prepend=0), np.diff(wrongs, axis=1, prepend=0)
    total = rights[:, -1]
    auc = (right * (wrongs[:, -1:] - wrongs + wrong / 2)).sum(1) / (total * wrongs[:, -1])
    called = rights + wrongs
    precision = np.divide(rights, called, out=np.ones_like(rights), where=called > 0)
    return auc, (right * precision).sum(1) / total


def _resamples(truth: NDArray[np.bool_], number: int, draw: np.random.Generator) -> NDArray[np.float64]:
    """(B, V) how often each video is drawn: a bootstrap over videos; draws of one kind alone are left out."""
    count = len(truth)
    drawn = draw.multinomial(count, np.full(count, 1 / count), size=number).astype(np.float64)
    inside = drawn @ truth
    return np.asarray(drawn[(inside > 0) & (inside < count)])


def _middle(values: NDArray[np.float64]) -> tuple[float, float]:
    """The percentile interval (Efron 1979)."""
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def calibration_error(scores: Scores) -> float | None:
    """Expected calibration error over bins of equal width (Naeini et al. 2015; Guo et al. 2017, section 2).

    Of one label per video, the probability of the most probable class is held against how often that is right; of
    several, each probability against how often the class is there. None where a probability is not finite.
    """
    if not np.isfinite(scores.probabilities).all():
        return None
    if scores.targets is None:
        given, right = scores.probabilities.max(1), scores.right
    else:
        given, right = scores.probabilities.ravel(), scores.targets.ravel().astype(np.float64)
    bins = np.minimum((given.astype(np.float64) * BINS).astype(int), BINS - 1)
    count = np.bincount(bins, minlength=BINS)
    gap = np.abs(np.bincount(bins, right, BINS) - np.bincount(bins, given.astype(np.float64), BINS))
    return float(gap.sum() / max(1, count.sum()))


def class_of(scores: Scores, name: str) -> int:
    """The index of a class; raises NotFoundError with the nearest if there is none of that name."""
    if name not in scores.classes:
        raise NotFoundError(unknown("class", name, scores.classes))
    return scores.classes.index(name)


def threshold_for(scores: Scores, k: int, *, recall: float | None = None, precision: float | None = None) -> float:
    """The threshold on the probability of class k that gives a wished recall or precision on these videos.

    Of a recall it is the highest that gives it, of a precision the lowest, which has the most recall.

    Raises:
        ConfigError: No video has the class, or no threshold has that precision.
    """
    from sklearn.metrics import precision_recall_curve

    truth, given = truth_of(scores, k), scores.probabilities[:, k]
    if not np.isfinite(given).all():
        raise ConfigError(f"a threshold needs probabilities, but some of {scores.classes[k]} are not finite")
    if not truth.any():
        raise ConfigError(f"a threshold needs videos of {scores.classes[k]} in {scores.split}, but there is none")
    precisions, recalls, thresholds = precision_recall_curve(truth, given)
    if recall is not None:
        return float(thresholds[np.flatnonzero(recalls[:-1] >= recall)[-1]])
    assert precision is not None
    able = np.flatnonzero(precisions[:-1] >= precision)
    if not len(able):
        raise ConfigError(
            f"no threshold gives {scores.classes[k]} a precision of {precision:g} on {scores.split}; the highest is "
            f"{precisions[:-1].max():.3f}"
        )
    return float(thresholds[able[0]])


def at_threshold(scores: Scores, k: int, threshold: float) -> AtThreshold:
    """What calling class k at a threshold comes to on these videos.

    Raises:
        ConfigError: No video has the class.
    """
    truth, called = truth_of(scores, k), scores.probabilities[:, k] >= np.float32(threshold)
    if not truth.any():
        raise ConfigError(f"recall needs videos of {scores.classes[k]} in {scores.split}, but there is none")
    return AtThreshold(
        threshold=threshold,
        recall=share(called[truth].astype(np.float64)),
        precision=share(truth[called].astype(np.float64)) if called.any() else None,
        false_alarms=share(called[~truth].astype(np.float64)) if not truth.all() else None,
    )
