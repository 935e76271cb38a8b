"""What a probe may set is chosen on train alone, and the split that is reported has no say in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.errors import NotFoundError
from nas.study.views import Views
from nas.use.features import Features, read_features, save_features
from nas.use.probe import COSTS, probed

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


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("labels", lambda a: a + 2),
        ("labels", lambda a: a - 1),
        ("labels", lambda a: a[:-1]),
        ("labels", lambda a: a.astype(np.float32)),
        ("labels", lambda a: a[:, None]),
        ("predictions", lambda a: a[:-1]),
        ("predictions", lambda a: a.astype(np.str_)),
        ("predictions", lambda a: a + 7),
        ("features", lambda a: a[:-1]),
        ("features", lambda a: a[:, 0]),
        ("features", lambda a: a[:, :0]),
        ("features", lambda a: a.astype(np.str_)),
        ("features", lambda a: np.full_like(a, np.nan)),
        ("splits", lambda a: a[:-1]),
        ("splits", lambda a: a[0]),
        ("paths", lambda a: a[0]),
        ("classes", lambda a: np.arange(2)),
        ("classes", lambda a: a[0]),
        ("classes", lambda a: a[[0, 0]]),
        ("about", lambda a: np.array("[" * 100_000)),
        ("about", lambda a: np.array('{"format": "' + "x" * 900 + '"}')),
        ("about", lambda a: np.array(str(a).replace('"clips": 1', '"clips": 0'))),
        ("about", lambda a: np.array(str(a).replace('"clips": 1', '"clips": "x"'))),
        ("about", lambda a: np.array(str(a).replace('"head.fc"', "5"))),
    ],
)
def test_features_that_cannot_be_are_refused_in_one_line(
    tmp_path: Path, name: str, change: Callable[[Any], Any]
) -> None:
    labels = np.arange(VIDEOS) % 2
    x = plain(np.random.default_rng(0), labels)
    save_features(tmp_path / "whole.npz", features(x, x, labels))
    assert len(read_features(tmp_path / "whole.npz").labels) == 2 * VIDEOS
    with np.load(tmp_path / "whole.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "edited.npz", **{**arrays, name: change(arrays[name])})
    with pytest.raises(
        NotFoundError, match=r"^.*edited\.npz (must hold features that `nas features` wrote, but|has format)"
    ) as caught:
        read_features(tmp_path / "edited.npz")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 500


def test_a_named_pipe_holds_no_features(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "f.npz")
    with pytest.raises(NotFoundError, match="not a regular file"):
        read_features(tmp_path / "f.npz")
