"""Probes: how well classes can be told apart by a network's features, with classifiers of scikit-learn.

A linear SVM on the features of clips is how P3D is judged as a representation (Qiu et al. 2017, section 5.4); an MLP on
frame features that were pooled over time is the baseline that BesNet's authors name beside their network.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import NasError
from nas.use.accuracy import Share, share
from nas.use.features import Features

PROBES = ("svm", "mlp")
COSTS = tuple(float(10.0**power) for power in range(-4, 3))  # C of the SVM, from strong to weak regularisation
PENALTIES = (1e-4, 1e-2, 1.0)  # alpha of the MLP
HIDDEN = 256
_FOLDS = 5

Matrix = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Probe:
    """One classifier on features.

    Attributes:
        name: `svm`, `mlp`, or `network` for what the network itself says of the same videos.
        accuracy: On the split that is reported.
        setting: What cross-validation on train chose, in words; empty for the network.
        cross_validated: Mean accuracy over the folds; None where a class has one video, so that nothing was chosen.
        converged: Whether the fit ended by itself.
        right: (V,) 1 where a video is right.
    """

    name: str
    accuracy: Share
    setting: str
    cross_validated: float | None
    converged: bool
    right: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Probed:
    """Probes of one set of features.

    Attributes:
        kind: Of the features.
        layer: Whose input they are.
        num_features: C.
        num_train: Videos of train.
        split: That is reported.
        probes: What came of each.
    """

    kind: str
    layer: str
    num_features: int
    num_train: int
    split: str
    probes: tuple[Probe, ...]


def probed(features: Features, *, split: str = "val", kinds: tuple[str, ...] = PROBES, seed: int = 0) -> Probed:
    """Fits probes on train and judges them on another split.

    Features are means over the views of a video, standardised by train. What a probe may set (C, alpha) is chosen by
    stratified cross-validation on train alone.

    Args:
        features: Of train and of `split`.
        split: What is reported.
        kinds: Which of `PROBES`.
        seed: Of the folds and of the MLP.

    Raises:
        NotFoundError: A split has no features.
        NasError: Train is what is to be reported, or has a single class.
    """
    if split == "train":
        raise NasError("a probe is fitted on train, so it is judged on val or test, not on train")
    train, labels, _ = features.of("train")
    x, y, own = features.of(split)
    if len(np.unique(labels)) < 2:
        raise NasError("a probe needs two classes in train, but there is one")
    makers: dict[str, Callable[[], tuple[Any, dict[str, list[Any]], str]]] = {
        "svm": lambda: _svm(seed),
        "mlp": lambda: _mlp(seed),
    }
    probes = [_fitted(name, *makers[name](), train, labels, x, y, seed=seed) for name in kinds]
    if (own >= 0).any():
        right = np.asarray(own == y, dtype=np.float64)
        probes.append(
            Probe(name="network", accuracy=share(right), setting="", cross_validated=None, converged=True, right=right)
        )
    return Probed(
        kind=features.kind,
        layer=features.layer,
        num_features=train.shape[1],
        num_train=len(train),
        split=split,
        probes=tuple(probes),
    )


def _svm(seed: int) -> tuple[Any, dict[str, list[Any]], str]:
    from sklearn.svm import LinearSVC

    return LinearSVC(dual="auto", max_iter=10_000, random_state=seed), {"last__C": list(COSTS)}, "C"


def _mlp(seed: int) -> tuple[Any, dict[str, list[Any]], str]:
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(hidden_layer_sizes=(HIDDEN,), max_iter=500, random_state=seed)
    return model, {"last__alpha": list(PENALTIES)}, "alpha"


def _fitted(
    name: str,
    model: Any,
    grid: dict[str, list[Any]],
    symbol: str,
    train: Matrix,
    labels: Labels,
    x: Matrix,
    y: Labels,
    *,
    seed: int,
) -> Probe:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline = Pipeline([("scale", StandardScaler()), ("last", model)])
    folds = min(_FOLDS, int(np.unique(labels, return_counts=True)[1].min()))
    with warnings.catch_warnings():
        # In a fold, a poor setting that does not converge is no news; of the last fit it is told.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if folds >= 2:
            parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
            search = GridSearchCV(pipeline, grid, cv=parts, refit=False).fit(train, labels)
            pipeline.set_params(**search.best_params_)
            score: float | None = float(search.best_score_)
        else:
            score = None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ConvergenceWarning)
        pipeline.fit(train, labels)
    right = np.asarray(pipeline.predict(x) == y, dtype=np.float64)
    (key,) = grid
    return Probe(
        name=name,
        accuracy=share(right),
        setting=f"{symbol} = {pipeline.get_params()[key]:g}",
        cross_validated=score,
        converged=not any(issubclass(one.category, ConvergenceWarning) for one in said),
        right=right,
    )
