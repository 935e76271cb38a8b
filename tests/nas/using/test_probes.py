"""What a probe may set is chosen on train alone, and the split that is reported has no say in it."""

from __future__ import annotations

import numpy as np

from nas.using.features import Features
from nas.using.probe import COSTS, probed
from nas.using.views import Views

VIDEOS = 60


def hidden(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """The class is the small difference of two features that are nearly one: it takes weak regularisation to see it."""
    common = rng.normal(size=len(labels))
    sign = np.where(labels == 1, 0.02, -0.02)
    return np.stack([common + sign, common - sign], axis=1)


def plain(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """The class is what each feature says: any regularisation will do, and of equal ones the strongest is taken."""
    return np.where(labels == 1, 1.0, -1.0)[:, None] + rng.normal(size=(len(labels), 2)) * 0.1


def features(train: np.ndarray, val: np.ndarray, labels: np.ndarray) -> Features:
    return Features(
        kind="clip",
        layer="head.fc",
        classes=("a", "b"),
        splits=("train",) * VIDEOS + ("val",) * VIDEOS,
        paths=tuple(f"{number}.mp4" for number in range(2 * VIDEOS)),
        labels=np.concatenate([labels, labels]),
        values=np.concatenate([train, val]).astype(np.float32)[:, None],
        predictions=np.full(2 * VIDEOS, -1),
        views=Views(clips=1),
        network="n",
        checksum="",
    )


def test_settings_are_chosen_on_train_whatever_is_reported() -> None:
    rng, labels = np.random.default_rng(0), np.arange(VIDEOS) % 2
    kinds = {"hidden": hidden(rng, labels), "plain": plain(rng, labels)}
    chosen = {}
    for train in kinds:
        for val in kinds:
            (probe,) = probed(features(kinds[train], kinds[val], labels), kinds=("svm",)).probes
            chosen[train, val] = float(probe.setting.removeprefix("C = "))
            assert probe.cross_validated == 1
            assert (probe.accuracy.value == 1) == (train == val)
    assert chosen["hidden", "plain"] == chosen["hidden", "hidden"] >= 1
    assert chosen["plain", "hidden"] == chosen["plain", "plain"] == min(COSTS)
