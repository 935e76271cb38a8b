"""Ensembles: a weighted mean of networks' class probabilities, the weights being chosen on val."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.errors import NasError, NotFoundError
from nas.use.accuracy import Judged, Share, difference, judged
from nas.use.multi_view import kept_scores
from nas.use.probabilities import Scores, scores_file

FOLDS = 5
Labels = NDArray[np.int64] | NDArray[np.bool_]
_TINY = float(np.finfo(np.float32).tiny)
_NONE = 1e-4  # a weight below is as good as none


@dataclass(frozen=True, kw_only=True, slots=True)
class Ensemble:
    """An ensemble beside its members.

    Attributes:
        names: Of the members.
        weights: Of the members, from all videos of val; they add up to 1.
        split: What is reported.
        cross_fitted: Whether val is reported, where each video is judged with weights that others of val gave.
        singles: The members' tests.
        best: Which member is the best on val.
        weighted: The test with these weights.
        equal: The test with equal weights.
        gain: Accuracy of the weighted ensemble (video@1, or mAP where videos have several labels) minus that of the
            best single member, paired by video.
        gain_equal: The same with equal weights.
    """

    names: tuple[str, ...]
    weights: tuple[float, ...]
    split: str
    cross_fitted: bool
    singles: tuple[Judged, ...]
    best: int
    weighted: Judged
    equal: Judged
    gain: Share
    gain_equal: Share


def ensemble(
    names: Sequence[str], val: Sequence[Scores], reported: Sequence[Scores] | None = None, *, seed: int = 0
) -> Ensemble:
    """Weighs networks by val, and reports the ensemble beside them.

    Args:
        names: Of the networks, at least two.
        val: Their scores on val.
        reported: Their scores on the split to report. Without them val is reported, and so that no video is judged with
            weights that it chose itself, each fifth of val is judged with weights from the others.
        seed: Of the fifths.

    Raises:
        NasError: There are fewer than two networks, or their scores are not of the same videos and classes.
    """
    if len(names) < 2:
        raise NasError(f"an ensemble has at least 2 networks, but got {len(names)}")
    val = aligned(names, val)
    weights = best_weights(_stacked(val), _labels(val[0]))
    shown = aligned(names, reported) if reported is not None else val
    if reported is None:
        probabilities = cross_fitted(_stacked(val), _labels(val[0]), seed=seed)
    else:
        probabilities = mixed(_stacked(shown), weights)
    weighted = _scores_of(shown, probabilities)
    same = np.full(len(names), 1 / len(names))
    equal = _scores_of(shown, mixed(_stacked(shown), same))
    best = max(range(len(val)), key=lambda k: _rank(judged(val[k])))
    return Ensemble(
        names=tuple(names),
        weights=tuple(weights.tolist()),
        split=shown[0].split,
        cross_fitted=reported is None,
        singles=tuple(judged(one) for one in shown),
        best=best,
        weighted=judged(weighted),
        equal=judged(equal),
        gain=difference(weighted, shown[best]),
        gain_equal=difference(equal, shown[best]),
    )


def best_weights(probabilities: NDArray[np.float64], labels: Labels) -> NDArray[np.float64]:
    """The weights of a mean of probabilities that make the labels most likely.

    The mean cross-entropy of a mixture is convex in its weights, so that there is one best value; it is found by SLSQP
    on the simplex. Accuracy itself is a step function, and on few videos many weights share its best value.

    Args:
        probabilities: (M, V, K) of M networks.
        labels: (V,) true classes; or (V, K) which classes a video has.

    Returns:
        (M,) at least 0, adding up to 1; what is below 0.0001 is set to 0.
    """
    from scipy.optimize import minimize

    if labels.ndim == 1:
        given = probabilities[:, np.arange(len(labels)), labels]  # (M, V)
    else:  # the binary cross-entropy of a mixture is convex in its weights as well
        given = np.where(labels, probabilities, 1 - probabilities).reshape(len(probabilities), -1)
    chosen = np.maximum(given, _TINY)
    count = len(chosen)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        mixture = np.maximum(weights @ chosen, _TINY)
        return float(-np.log(mixture).mean()), -(chosen / mixture).mean(1)

    start = np.full(count, 1 / count)
    found = minimize(
        loss,
        start,
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * count,
        constraints=[{"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}],
        options={"ftol": 1e-10, "maxiter": 200},
    )
    weights = np.where(found.x < _NONE, 0.0, found.x)
    candidates = [start, *np.eye(count)] + ([weights / weights.sum()] if np.isfinite(weights).all() else [])
    return np.asarray(min(candidates, key=lambda w: loss(w)[0]), dtype=np.float64)


def mixed(probabilities: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weighted mean (V, K) of probabilities (M, V, K)."""
    return np.asarray(np.tensordot(weights, probabilities, 1), dtype=np.float64)


def cross_fitted(
    probabilities: NDArray[np.float64], labels: Labels, *, folds: int = FOLDS, seed: int = 0
) -> NDArray[np.float64]:
    """The weighted mean (V, K), where each video's weights come from the videos of the other folds."""
    folds = min(folds, len(labels))
    if folds < 2:
        raise NasError("weights need at least 2 videos of val, but there is 1")
    part = np.random.default_rng(seed).permutation(np.arange(len(labels)) % folds)
    out = np.empty(probabilities.shape[1:])
    for fold in range(folds):
        here = part == fold
        weights = best_weights(probabilities[:, ~here], labels[~here])
        out[here] = mixed(probabilities[:, here], weights)
    return out


def aligned(names: Sequence[str], scores: Sequence[Scores]) -> list[Scores]:
    """The scores with classes in one order and videos in one order.

    Raises:
        NasError: Classes, videos or labels differ.
    """
    first = scores[0]
    done = [first]
    for name, other in zip(names[1:], scores[1:], strict=True):
        if set(other.classes) != set(first.classes):
            odd = sorted(set(other.classes) ^ set(first.classes))
            raise NasError(
                f"an ensemble's networks have the same classes, but {odd[0]!r} is only of {names[0]} or {name}"
            )
        if sorted(other.paths) != sorted(first.paths):
            missing = sorted(set(first.paths) ^ set(other.paths))
            raise NasError(
                f"an ensemble's networks are tested on the same videos, but {len(missing)} of {first.split} are only "
                f"of {names[0]} or {name} (such as {missing[0]}); test all on one data set with --data DATA"
            )
        if other.decoded == first.decoded and other.checksum != first.checksum:
            raise NasError(
                f"an ensemble's networks are tested on the same videos, but those of {names[0]} and {name} have equal "
                "names and other frames; test all on one data set with --data DATA"
            )
        place = {path: number for number, path in enumerate(other.paths)}
        rows = np.array([place[path] for path in first.paths])
        columns = np.array([other.classes.index(name) for name in first.classes])
        if (other.targets is None) != (first.targets is None):
            raise NasError(
                f"an ensemble's networks all give one label per video or several, but {names[0]} or {name} not"
            )
        odd_ones = _differ(first, other, rows, columns)
        if odd_ones.any():
            odd_one = first.paths[int(np.argmax(odd_ones))]
            raise NasError(f"a video has the same labels everywhere, but {odd_one} has others in {names[0]} and {name}")
        done.append(
            dataclasses.replace(
                other,
                classes=first.classes,
                paths=first.paths,
                labels=first.labels,
                targets=first.targets,
                probabilities=other.probabilities[rows][:, columns],
                clips_right=other.clips_right[rows],
            )
        )
    return done


def stored_scores(folder: str, split: str) -> Scores | None:
    """The scores that a promotion kept of a split; None where its data has no such split.

    Raises:
        NotFoundError: The folder holds none at all.
    """
    kept = kept_scores(Path(folder), split)
    if kept is not None:
        return kept
    if not scores_file(Path(folder), "val").is_file():
        raise NotFoundError(
            f"{folder} must be a folder with the scores that `nas promote` keeps, but there are none; name the videos "
            "with --data DATA, and they are tested anew"
        )
    return None


def _differ(first: Scores, other: Scores, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(V,) where two networks' scores name other labels."""
    if first.targets is not None and other.targets is not None:
        return np.asarray((other.targets[rows][:, columns] != first.targets).any(1))
    return np.asarray(np.argsort(columns)[other.labels[rows]] != first.labels)


def _rank(result: Judged) -> tuple[float, float]:
    return result.accuracy.value, -result.loss


def _labels(scores: Scores) -> Labels:
    return scores.labels if scores.targets is None else scores.targets


def _stacked(scores: Sequence[Scores]) -> NDArray[np.float64]:
    return np.stack([one.probabilities.astype(np.float64) for one in scores])


def _scores_of(shown: Sequence[Scores], probabilities: NDArray[np.float64]) -> Scores:
    """Scores of an ensemble; it is asked once for a video, so that its clip@1 is its video@1 and means nothing more."""
    whole = dataclasses.replace(shown[0], probabilities=probabilities.astype(np.float32))
    return dataclasses.replace(whole, clips_right=whole.right)
