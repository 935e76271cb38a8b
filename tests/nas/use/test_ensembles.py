"""What chooses in an ensemble: val alone, by class names and not by the order of outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.cli.main import main
from nas.errors import NotFoundError
from nas.study.views import Views
from nas.train.folder import write_content
from nas.use.ensemble import aligned, best_weights, ensemble
from nas.use.probabilities import Scores, read_scores, save_scores, scores_file
from tests.nas.use.conftest import said_json

CLASSES = ("a", "b", "c")
VIDEOS = 30


def knowing(split: str, right: float, *, seed: int = 0, sure: float = 0.8) -> Scores:
    """Scores of a network that is right about a share of the videos, and as sure of what is wrong."""
    labels = np.arange(VIDEOS) % 3
    said = np.where(np.random.default_rng(seed).permutation(VIDEOS) < right * VIDEOS, labels, (labels + 1) % 3)
    probabilities = np.full((VIDEOS, 3), (1 - sure) / 2)
    probabilities[np.arange(VIDEOS), said] = sure
    return Scores(
        split=split,
        classes=CLASSES,
        paths=tuple(f"{split}/{number:02d}.mp4" for number in range(VIDEOS)),
        labels=labels.astype(np.int64),
        probabilities=probabilities.astype(np.float32),
        clips_right=(said == labels).astype(np.float64),
        views=Views(clips=1),
    )


def in_another_order(scores: Scores) -> Scores:
    """The same, with outputs and videos in another order."""
    columns, rows = np.array([2, 0, 1]), np.arange(VIDEOS)[::-1]
    back = np.argsort(columns)
    return dataclasses.replace(
        scores,
        classes=tuple(scores.classes[k] for k in columns),
        paths=tuple(scores.paths[k] for k in rows),
        labels=back[scores.labels[rows]],
        probabilities=scores.probabilities[rows][:, columns],
        clips_right=scores.clips_right[rows],
    )


# The first is the better one on val, the second on test.
VAL = (knowing("val", 0.9, seed=1), knowing("val", 0.4, seed=2))
TEST = (knowing("test", 0.3, seed=3), knowing("test", 0.9, seed=4))


def test_val_says_which_member_is_the_best_and_what_each_weighs_whatever_test_says() -> None:
    found = ensemble(("one", "two"), VAL, TEST)
    assert found.split == "test"
    assert [round(single.video1.value, 3) for single in found.singles] == [0.3, 0.9]
    assert found.best == 0
    stacked = np.stack([one.probabilities.astype(np.float64) for one in VAL])
    assert found.weights == pytest.approx(best_weights(stacked, VAL[0].labels).tolist())
    assert found.weights[0] > 0.5
    assert found.gain.value == pytest.approx(found.weighted.video1.value - 0.3)
    assert found.gain_equal.value == pytest.approx(found.equal.video1.value - 0.3)
    turned = ensemble(("two", "one"), VAL[::-1], TEST[::-1])
    assert (turned.best, turned.weights) == (1, pytest.approx(found.weights[::-1], abs=1e-4))


def test_members_may_have_their_classes_and_videos_in_other_orders() -> None:
    plain = ensemble(("one", "two"), VAL, TEST)
    mixed_up = ensemble(("one", "two"), (VAL[0], in_another_order(VAL[1])), (TEST[0], in_another_order(TEST[1])))
    assert mixed_up.weights == pytest.approx(plain.weights)
    assert [one.video1 for one in mixed_up.singles] == [one.video1 for one in plain.singles]
    assert (mixed_up.weighted, mixed_up.equal) == (plain.weighted, plain.equal)
    _, second = aligned(("one", "two"), (VAL[0], in_another_order(VAL[1])))
    assert np.array_equal(second.probabilities, VAL[1].probabilities)
    assert np.array_equal(second.clips_right, VAL[1].clips_right)
    assert (second.paths, second.labels.tolist()) == (VAL[1].paths, VAL[1].labels.tolist())


def test_the_command_goes_by_val_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for folder, val, test in zip(folders, VAL, (TEST[0], in_another_order(TEST[1])), strict=True):
        for scores in (val, test):
            save_scores(scores_file(folder, scores.split), scores)
    assert main(["ensemble", *map(str, folders)]) == 2  # without its record, nothing says whose scores they are
    assert "must be a folder that `nas promote` wrote, but network.json" in capsys.readouterr().err
    for folder in folders:
        write_content(folder, {"format": 1})
    said = said_json("ensemble", *map(str, folders), "--json")
    assert [one["best_on_val"] for one in said["members"]] == [True, False]
    assert [one["video1"]["value"] for one in said["members"]] == pytest.approx([0.3, 0.9])
    other = dataclasses.replace(VAL[1], classes=("a", "b", "d"))
    save_scores(scores_file(folders[1], "val"), other)
    capsys.readouterr()
    assert main(["ensemble", *map(str, folders), "--split", "val"]) == 2
    assert "an ensemble's networks have the same classes, but 'c' is only of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("labels", lambda a: a + 3),
        ("labels", lambda a: a - 1),
        ("labels", lambda a: a[:-1]),
        ("labels", lambda a: a.astype(np.float32)),
        ("probabilities", lambda a: a[:-1]),
        ("probabilities", lambda a: a[:, :2]),
        ("probabilities", lambda a: a[:, 0]),
        ("probabilities", lambda a: a.astype(np.str_)),
        ("probabilities", lambda a: -a),
        ("probabilities", lambda a: 7 * a),
        ("probabilities", lambda a: np.where(np.arange(a.size).reshape(a.shape) == 4, np.nan, a)),
        ("clips_right", lambda a: np.full_like(a, np.nan)),
        ("clips_right", lambda a: a[:-1]),
        ("clips_right", lambda a: a.astype(np.str_)),
        ("paths", lambda a: np.arange(len(a))),
        ("targets", lambda a: np.zeros(3)),
        ("about", lambda a: np.array(str(a).replace('"b"', "5"))),
        ("about", lambda a: np.array(str(a).replace('"b"', '"a"'))),
        ("about", lambda a: np.array(str(a).replace('"val"', "5"))),
        ("about", lambda a: np.array(str(a).replace('"clips": 1', '"clips": 0'))),
    ],
)
def test_scores_that_cannot_be_are_refused_in_one_line(tmp_path: Path, name: str, change: Callable[[Any], Any]) -> None:
    save_scores(tmp_path / "whole.npz", knowing("val", 0.5))
    assert read_scores(tmp_path / "whole.npz").split == "val"
    with np.load(tmp_path / "whole.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "edited.npz", **{**arrays, name: change(arrays.get(name))})
    with pytest.raises(NotFoundError, match=r"^.*edited\.npz must hold scores that `nas promote` wrote, but") as caught:
        read_scores(tmp_path / "edited.npz")
    assert len(str(caught.value).splitlines()) == 1
