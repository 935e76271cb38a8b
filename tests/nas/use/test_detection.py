"""Classes as questions of yes or no: AUC, average precision, calibration, thresholds that val chooses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from nas.cli.main import main
from nas.errors import NotFoundError
from nas.study.views import Views
from nas.use.detection import (
    BINS,
    MOST_CLASSES,
    areas,
    at_threshold,
    calibration_error,
    class_of,
    curves,
    detections,
    is_detection,
    threshold_for,
    truth_of,
)
from nas.use.probabilities import Scores
from tests.nas.use.conftest import Place, said_json
from trainer.config import ConfigError


def scores_of(probabilities: NDArray[np.float32], labels: NDArray[np.int64], split: str = "val") -> Scores:
    return Scores(
        split=split,
        classes=tuple("ab" if probabilities.shape[1] == 2 else "abc"),
        paths=tuple(f"{i}.mp4" for i in range(len(labels))),
        labels=labels,
        probabilities=probabilities,
        clips_right=(probabilities.argmax(1) == labels).astype(np.float64),
        views=Views(),
    )


def drawn(seed: int, count: int = 60, classes: int = 2) -> Scores:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    labels[:classes] = np.arange(classes)
    logits = rng.normal(size=(count, classes)) + 1.2 * np.eye(classes)[labels]
    odds = np.exp(np.round(logits, 1))  # some are equal
    return scores_of((odds / odds.sum(1, keepdims=True)).astype(np.float32), labels)


@given(st.integers(0, 50))
def test_the_auc_is_how_often_a_video_of_the_class_has_more(seed: int) -> None:
    scores = drawn(seed)
    for k, row in enumerate(detections(scores)):
        truth, given = truth_of(scores, k), scores.probabilities[:, k].astype(np.float64)
        pairs = given[truth][:, None] - given[~truth][None, :]
        assert row.auc == pytest.approx((pairs > 0).mean() + (pairs == 0).mean() / 2)
        assert row.auc == pytest.approx(roc_auc_score(truth, given))
        assert row.precision == pytest.approx(average_precision_score(truth, given))
        assert (row.positives, row.negatives) == (truth.sum(), (~truth).sum())


@given(st.integers(0, 50))
def test_weights_are_repetitions(seed: int) -> None:
    scores, rng = drawn(seed), np.random.default_rng(seed)
    truth, given = truth_of(scores, 0), scores.probabilities[:, 0]
    weights = rng.integers(0, 3, (4, len(truth)))
    weights[:, :2] = 1  # one of either kind
    auc, precision = areas(truth, given, weights.astype(np.float64))
    for row, weight in enumerate(weights):
        some, values = np.repeat(truth, weight), np.repeat(given, weight)
        assert auc[row] == pytest.approx(roc_auc_score(some, values))
        assert precision[row] == pytest.approx(average_precision_score(some, values))


@given(st.integers(0, 50))
def test_curves_are_those_of_scikit_learn(seed: int) -> None:
    scores = drawn(seed)
    for k, one in enumerate(curves(scores)):
        truth, given = truth_of(scores, k), scores.probabilities[:, k]
        alarms, recall, _ = roc_curve(truth, given, drop_intermediate=False)
        assert one.false_alarms == pytest.approx(alarms[1:]) and one.recall == pytest.approx(recall[1:])
        precision, _, _ = precision_recall_curve(truth, given)
        assert one.precision == pytest.approx(precision[:-1][::-1])
        assert one.share == pytest.approx(truth.mean())


@pytest.mark.parametrize("ending", ["svg", "html"])
def test_curves_are_drawn(place: Place, tmp_path: Path, ending: str) -> None:
    roc, pr = tmp_path / f"roc.{ending}", tmp_path / f"pr.{ending}"
    command = ["evaluate", str(place.folders[0]), str(place.data), "--roc", str(roc), "--pr", str(pr)]
    assert main(command) == 0
    for file, axes in ((roc, ("recall", "false alarms")), (pr, ("precision", "recall"))):
        text = file.read_text("utf-8")
        assert all(axis in text for axis in axes)
        assert text.count("<polyline") == 3 + (file == roc)  # of three classes, and chance
    assert main([*command, "--detect", "move left", "--recall", "0.5"]) == 0
    assert roc.read_text("utf-8").count("<polyline") == 2
    assert main(["evaluate", str(place.folders[0]), str(place.data), "--roc", str(tmp_path / "roc.pdf")]) == 2


def test_plots_are_refused_before_anything_is_tested(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.use.networks.judged_network", lambda *args, **kwargs: pytest.fail("a test began"))
    command = ["evaluate", str(place.folders[0]), str(place.data)]
    for options, message in (
        (["--roc", "roc.pdf"], "a plot must end in .html, .svg or .png, but is roc.pdf"),
        (["--roc", f"{tmp_path}/a.svg", "--pr", f"{tmp_path}/a.svg"], "two plots would be"),
        (["--detect", "move lef", "--recall", "0.9"], "did you mean move left?"),
    ):
        assert main([*command, *options]) == 2
        assert message in capsys.readouterr().err


def test_of_many_classes_those_with_the_most_videos_are_drawn() -> None:
    rng = np.random.default_rng(0)
    labels = np.concatenate([np.repeat(np.arange(MOST_CLASSES), 3), np.arange(MOST_CLASSES, MOST_CLASSES + 5)])
    probabilities = rng.dirichlet(np.ones(MOST_CLASSES + 5), len(labels)).astype(np.float32)
    scores = replace(scores_of(probabilities, labels), classes=tuple(f"class {k:02d}" for k in range(MOST_CLASSES + 5)))
    assert [one.name for one in curves(scores)] == [f"class {k:02d}" for k in range(MOST_CLASSES)]
    assert len(detections(scores)) == MOST_CLASSES + 5


def test_intervals_hold_their_value_and_narrow_with_videos() -> None:
    widths = []
    for count in (40, 400):
        row = detections(drawn(3, count))[0]
        assert row.auc_interval is not None and row.precision_interval is not None
        assert row.auc_interval[0] < row.auc < row.auc_interval[1]
        assert row.precision_interval[0] < row.precision < row.precision_interval[1]
        widths.append(row.auc_interval[1] - row.auc_interval[0])
    assert widths[1] < widths[0] / 2


def test_a_class_that_all_or_none_have_is_no_question() -> None:
    scores = scores_of(np.full((4, 2), 0.5, dtype=np.float32), np.zeros(4, dtype=np.int64))
    assert detections(scores) == ()


def test_probabilities_that_are_none_have_no_figures() -> None:
    scores = scores_of(np.full((4, 2), np.nan, dtype=np.float32), np.arange(4) % 2)
    assert detections(scores) == ()
    assert calibration_error(scores) is None
    with pytest.raises(ConfigError, match="some of b are not finite"):
        threshold_for(scores, 1, recall=0.5)


def test_what_a_detection_is() -> None:
    assert is_detection(drawn(0))
    assert not is_detection(drawn(0, classes=3))


@given(st.integers(0, 50))
def test_the_calibration_error_is_that_of_its_bins(seed: int) -> None:
    scores = drawn(seed, classes=3)
    most, total = scores.probabilities.max(1).astype(np.float64), 0.0
    for low in np.arange(BINS) / BINS:
        here = (most >= low) & (most < low + 1 / BINS)
        if here.any():
            total += here.sum() * abs(scores.right[here].mean() - most[here].mean())
    assert calibration_error(scores) == pytest.approx(total / len(most), abs=1e-6)


def test_a_sure_network_that_is_right_is_calibrated() -> None:
    labels = np.arange(6) % 2
    assert calibration_error(scores_of(np.eye(2, dtype=np.float32)[labels], labels)) == 0
    assert calibration_error(scores_of(np.eye(2, dtype=np.float32)[1 - labels], labels)) == 1


@given(st.integers(0, 50), st.floats(0.05, 1.0))
def test_a_threshold_gives_the_recall_that_is_wished_for_and_no_more_alarms_than_needed(
    seed: int, wished: float
) -> None:
    scores = drawn(seed)
    found = threshold_for(scores, 1, recall=wished)
    assert at_threshold(scores, 1, found).recall.value >= wished
    higher = scores.probabilities[:, 1][scores.probabilities[:, 1] > np.float32(found)]
    if len(higher):
        assert at_threshold(scores, 1, float(higher.min())).recall.value < wished


@given(st.integers(0, 50), st.floats(0.1, 0.9))
def test_a_threshold_gives_the_precision_that_is_wished_for_with_the_most_recall(seed: int, wished: float) -> None:
    scores = drawn(seed)
    able = [at_threshold(scores, 1, float(value)) for value in np.unique(scores.probabilities[:, 1])]
    good = [one for one in able if one.precision is not None and one.precision.value >= wished]
    if not good:
        with pytest.raises(ConfigError, match="no threshold gives b a precision of"):
            threshold_for(scores, 1, precision=wished)
        return
    found = at_threshold(scores, 1, threshold_for(scores, 1, precision=wished))
    assert found.precision is not None and found.precision.value >= wished
    assert found.recall.value == max(one.recall.value for one in good)


def test_false_alarms_are_of_the_other_videos() -> None:
    labels = np.array([1, 1, 0, 0, 0, 0])
    given = np.array([0.9, 0.4, 0.6, 0.1, 0.2, 0.3], dtype=np.float32)
    found = at_threshold(scores_of(np.stack([1 - given, given], 1), labels), 1, 0.5)
    assert found.precision is not None and found.false_alarms is not None
    assert (found.recall.value, found.precision.value, found.false_alarms.value) == (0.5, 0.5, 0.25)
    nothing = at_threshold(scores_of(np.stack([1 - given, given], 1), labels), 1, 0.95)
    assert nothing.precision is None and nothing.recall.value == 0


def test_an_unknown_class_gets_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="class 'c' is not known"):
        class_of(drawn(0), "c")
    with pytest.raises(ConfigError, match="a threshold needs videos of b in val"):
        threshold_for(scores_of(np.full((4, 2), 0.5, dtype=np.float32), np.zeros(4, dtype=np.int64)), 1, recall=0.5)


def test_the_command_chooses_on_val_and_reports_on_test(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    folder, data = str(place.folders[0]), str(place.data)
    options = ["--detect", "move left", "--recall", "0.9"]
    found = said_json("evaluate", folder, data, "--split", "test", *options, "--json")
    val = said_json("evaluate", folder, data, *options, "--json")
    assert found["threshold"]["threshold"] == val["threshold"]["threshold"]
    assert val["threshold"]["recall"]["value"] >= 0.9
    assert found["detection"] == []  # of three classes
    assert 0 <= found["calibration_error"] <= 1
    assert main(["evaluate", folder, data, *options]) == 0
    said = capsys.readouterr().out
    assert "move left where its probability is at least" in said
    assert "chosen on these very videos" in said
    assert "calibration error: " in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--detect", "move left"], "--detect CLASS goes with one of --recall and --precision"),
        (["--recall", "0.9"], "--detect CLASS goes with one of --recall and --precision"),
        (["--detect", "a", "--recall", "0.9", "--precision", "0.9"], "--detect CLASS goes with one of"),
        (["--detect", "move lefd", "--recall", "0.9"], "class 'move lefd' is not known; did you mean move left?"),
    ],
)
def test_bad_input_is_one_line(
    place: Place, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(place.folders[0]), str(place.data), *options]) == 2
    assert message in capsys.readouterr().err


def test_several_labels_are_questions_each(tmp_path: Path) -> None:
    targets = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1]], dtype=bool)
    given = np.array([[0.9, 0.2, 0.8], [0.1, 0.7, 0.4], [0.6, 0.6, 0.5], [0.3, 0.1, 0.7]], dtype=np.float32)
    scores = Scores(
        split="val",
        classes=("a", "b", "c"),
        paths=("0", "1", "2", "3"),
        labels=targets.argmax(1),
        probabilities=given,
        clips_right=np.ones(4),
        views=Views(),
        targets=targets,
    )
    assert is_detection(scores)
    rows = detections(scores)
    assert [row.name for row in rows] == ["a", "b", "c"]
    assert [row.auc for row in rows] == [1.0, 1.0, pytest.approx(2 / 3)]
    assert [row.positives for row in rows] == [2, 2, 3]
