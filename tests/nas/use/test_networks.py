"""Promoted networks in use: tests, ensembles, features, probes; each with networks that were really trained."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import nas
from nas.cli.main import main
from nas.errors import NotFoundError
from nas.store.database import Store
from nas.study.views import Views
from nas.train.folder import read_content, write_content
from nas.use.ensemble import best_weights, cross_fitted, mixed
from nas.use.probabilities import Scores, read_scores, save_videos, scores_file
from tests.nas.use.conftest import CLASSES, Place, said_json, write_moving


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line in which a command refuses what it was given."""
    capsys.readouterr()
    assert main(list(argv)) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said


# --- nas promote ---------------------------------------------------------------------------------------------------


def test_a_promotion_keeps_its_test_beside_the_network(place: Place) -> None:
    folder = place.folders[0]
    kept = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    assert set(kept) == {"val", "test"}
    test = kept["test"]
    assert test["views"]["text"] == "3 clips x 3 crops"
    assert (test["num_videos"], test["num_clips"]) == (18, 162)
    for name in ("clip1", "video1", "video5"):
        assert test[name]["low"] <= test[name]["value"] <= test[name]["high"]
        assert test[name]["num_videos"] == 18
    assert np.array(test["confusion"]).sum() == 18
    assert [row["name"] for row in test["classes"]] == list(CLASSES)
    store = Store(place.database)
    rows = store.evaluations(1, purpose="promotion", split="test")
    store.close()
    assert rows[0]["top1"] == test["video1"]["value"]
    assert (rows[0]["loss"], rows[0]["num_clips"]) == (pytest.approx(test["loss"]), 18)


def test_the_end_of_a_promotion_says_mean_deviation_and_interval_over_its_seeds(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = place.said["networks"]
    scores = [read_scores(scores_file(folder, "test")) for folder in place.folders[:2]]
    each = [float((s.predictions == s.labels).mean()) for s in scores]
    assert row["top1"] == pytest.approx(np.mean(each))
    assert row["std"] == pytest.approx(np.std(each, ddof=1))
    assert row["low"] <= row["top1"] <= row["high"]
    assert row["clip1"] == pytest.approx(np.mean([s.clips_right.mean() for s in scores]))
    assert row["views"] == "3 clips x 3 crops"
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["promote", str(place.database), row["digest"], "--seeds", "2", "promote.test.clips=1"]) == 0
    text = capsys.readouterr().out
    assert "95 % over videos" in text
    assert "a test is looked at once, so what was tested earlier is not tested again with 1 clip x 3 crops" in text


def test_views_that_cannot_be_are_refused_before_training(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    digest = place.said["networks"][0]["digest"]
    base = ("promote", str(place.database), digest, "promote.epochs=1")
    assert "crops must be one of 1, 3, but is 2" in refused(capsys, *base, "promote.test.crops=2")
    assert "at least the crop's (12 pixels), but are [4]" in refused(capsys, *base, "promote.test.short_sides=[4]")
    store = Store(place.database)
    assert {row["epochs"] for row in store.promotions(1)} == {12}
    store.close()


# --- nas evaluate --------------------------------------------------------------------------------------------------


def test_an_evaluation_on_the_same_videos_gives_what_the_promotion_reported(place: Place) -> None:
    kept = json.loads((place.folders[0] / "evaluation.json").read_text(encoding="utf-8"))
    said = said_json("evaluate", str(place.folders[0]), str(place.data), "--split", "test", "--json")
    assert {key: said[key] for key in kept["test"]} == kept["test"]
    of_study = said_json("evaluate", str(place.folders[0]), str(place.database), "--split", "test", "--json")
    assert of_study["video1"] == said["video1"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_each_video_is_written_with_its_label_and_probabilities(place: Place, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "made" / f"out{suffix}"
    said = said_json(
        "evaluate", str(place.folders[0]), str(place.data), "--split", "test", "--videos", str(path), "--json"
    )
    kept = read_scores(scores_file(place.folders[0], "test"))
    if suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        assert list(table[0]) == ["path", "label", *(f"p:{name}" for name in CLASSES)]
        rows = [(row["path"], row["label"], [float(row[f"p:{name}"]) for name in CLASSES]) for row in table]
    else:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        rows = [(one["path"], one["label"], [one["probabilities"][name] for name in CLASSES]) for one in lines]
    assert [row[0] for row in rows] == list(kept.paths)
    assert [row[1] for row in rows] == [Path(row[0]).parent.name for row in rows]
    assert (np.array([row[2] for row in rows], dtype=np.float32) == kept.probabilities).all(), "bit for bit"
    right = [max(zip(row[2], CLASSES, strict=True))[1] == row[1] for row in rows]
    assert np.mean(right) == said["video1"]["value"]
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_file_of_videos_appears_whole_or_not_at_all(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.csv"
    path.write_text("of before")

    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    kept = read_scores(scores_file(place.folders[0], "test"))
    with pytest.raises(NotFoundError, match=r"out\.csv cannot be written: No space left on device"):
        save_videos(path, kept)
    assert [one.name for one in tmp_path.iterdir()] == ["out.csv"]
    assert path.read_text() == "of before"


def test_names_of_classes_and_several_labels_are_told_apart(tmp_path: Path) -> None:
    scores = Scores(
        split="val",
        classes=("path", 'a, "b"', "c\nd"),
        paths=("val/x,y.mp4", "val/é.mp4"),
        labels=np.array([0, -1]),
        probabilities=np.array([[0.1, 0.2, 0.7], [1 / 3, 1e-30, 0.5]], dtype=np.float32),
        clips_right=np.zeros(2),
        views=Views(),
        targets=np.array([[True, True, False], [False, False, False]]),
    )
    save_videos(tmp_path / "a.csv", scores)
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert (first["path"], first["label"], second["label"]) == ("val/x,y.mp4", 'path; a, "b"', "")
    assert np.float32(second["p:path"]) == np.float32(1 / 3)
    save_videos(tmp_path / "a.jsonl", scores)
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["label"] for line in lines] == [["path", 'a, "b"'], []]
    assert np.float32(lines[1]["probabilities"]['a, "b"']) == np.float32(1e-30)


def test_a_folder_is_read_as_its_settings_say(place: Place, tmp_path: Path) -> None:
    videos = sorted(str(path.relative_to(place.data)) for path in (place.data / "val").glob("*/*.mp4"))
    (tmp_path / "exclude.txt").write_text(videos[0] + "\n", encoding="utf-8")
    settings = ("data.layout=folders", f"data.exclude={tmp_path / 'exclude.txt'}")
    said = said_json("evaluate", str(place.folders[0]), str(place.data), *settings, "--json")
    assert said["num_videos"] == len(videos) - 1
    again = said_json(
        "ensemble",
        *map(str, place.folders),
        "--data",
        str(place.data),
        "--set",
        settings[0],
        "--set",
        settings[1],
        "--json",
    )
    assert again["num_videos"] == len(videos) - 1


def test_predict_of_a_file_gives_what_the_promotion_reported(place: Place) -> None:
    network = nas.load(place.folders[2])
    scores = read_scores(scores_file(place.folders[2], "test"))
    for path, expected in list(zip(scores.paths, scores.probabilities, strict=True))[::5]:
        found = network.predict(place.data / path)
        assert [found[name] for name in CLASSES] == pytest.approx(expected.tolist(), abs=1e-5)


def test_more_views_are_looked_at_when_they_are_asked_for(place: Place) -> None:
    path, data = str(place.folders[2]), str(place.data)
    one = said_json("evaluate", path, data, "--clips", "1", "--crops", "1", "--json")
    many = said_json("evaluate", path, data, "--clips", "4", "--crops", "3", "--short-sides", "14,16", "--json")
    assert (one["num_clips"], many["num_clips"]) == (18, 18 * 24)
    assert one["loss"] != many["loss"]
    full = said_json("evaluate", path, data, "--clips", "1", "--crops", "1", "--short-sides", "20", "--full", "--json")
    assert full["views"]["text"] == "1 clip x 1 crop x short side 20, full crops"
    assert full["loss"] != one["loss"]


def test_left_and_right_exchange_backwards_and_a_flat_network_does_not_care(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = said_json("evaluate", str(place.folders[0]), str(place.data), "--backwards", "--json")["backwards"]
    found = {row["name"]: (row["becomes"], row["exchanges"]) for row in deep}
    assert found == {
        "it's still": ("it's still", False),
        "move left": ("move right", True),
        "move right": ("move left", True),
    }
    flat = said_json("evaluate", str(place.folders[2]), str(place.data), "--backwards", "--json")["backwards"]
    assert all(row["right"] == row["right_backwards"] for row in flat)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["evaluate", str(place.folders[0]), str(place.data), "--backwards"]) == 0
    text = capsys.readouterr().out
    assert "move right (6 of 6)" in text
    assert "clip@1" in text
    assert "true \\ predicted" in text


def test_classes_are_matched_by_name_and_others_are_refused(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The two classes of the folder have other numbers there than in the network, and names as another layout has them.
    for old, new in (("move right", "Move_Right"), ("move left", "move_left")):
        for split in ("train", "val"):
            shutil.copytree(place.data / split / old, tmp_path / "two" / split / new)
    cache = ("--cache", str(tmp_path / "cache"))
    said = said_json("evaluate", str(place.folders[0]), str(tmp_path / "two"), *cache, "--json")
    assert said["video1"]["value"] == 1.0
    assert [row["accuracy"] is None for row in said["classes"]] == [True, False, False]
    other = write_moving(tmp_path / "other", classes=("move left", "jump"))
    line = refused(capsys, "evaluate", str(place.folders[0]), str(other), *cache)
    assert "class 'jump' is not known (choices: it's still, move left, move right)" in line


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["evaluate", "{data}", "{data}"], "must be a folder that `nas promote` wrote"),
        (["evaluate", "{net}", "nowhere"], "there is no nowhere"),
        (["evaluate", "{net}", "{data}", "--videos", "out.txt"], "must end in .csv or .jsonl, but is out.txt"),
        (["evaluate", "{net}", "{data}", "--videos", "x" * 300 + ".csv"], "cannot be written: File name too long"),
        (["evaluate", "{net}", "{data}", "--split", "tset"], "split 'tset' is not known; did you mean test?"),
        (["evaluate", "{net}", "{data}", "--crops", "2"], "crops must be one of 1, 3, but is 2"),
        (["evaluate", "{net}", "{data}", "--short-sides", "a"], "must be pixels such as 128,144,160"),
        (["evaluate", "{net}", "{data}", "data.root=x"], "setting 'data.root' is not known; did you mean"),
        (["evaluate", "{net}", "{data}", "data.layout=folder"], "data.layout must be one of auto, folders"),
        (["ensemble", "{net}", "{other}", "--set", "data.layout=folders"], "name the videos with --data"),
        (["ensemble", "{net}"], "at least 2 networks, but got 1"),
        (["ensemble", "{net}", "{data}"], "scores that `nas promote` keeps, but there are none"),
        (["ensemble", "{net}", "{other}", "--clips", "3"], "name the videos with --data"),
        (["features", "{data}/x", "{data}", "-o", "f.npz"], "is no folder; a preset needs --weights"),
        (["features", "tsn_r18", "{data}", "-o", "f.npz", "--weights", "w"], "a study file or a database is needed"),
        (["probe", "nothing.npz"], "nothing.npz is no file of features"),
        (["probe", "{net}", "{data}", "--kind", "smv"], "probe 'smv' is not known; did you mean svm?"),
        (["probe", "{net}/scores-val.npz"], "must hold features that `nas features` wrote, but lacks"),
        (["predict", "{net}", "nothing.mp4"], "VIDEO must be a file, but nothing.mp4 is not there"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    place: Place, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    words = [word.format(net=place.folders[0], other=place.folders[1], data=place.data) for word in argv]
    assert message in refused(capsys, *words)


# --- nas ensemble --------------------------------------------------------------------------------------------------


def test_an_ensemble_of_kept_scores_is_reported_beside_its_members(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(folder) for folder in place.folders]
    said = said_json("ensemble", *paths, "--json")
    assert (said["split"], said["cross_fitted"]) == ("test", False)
    assert sum(one["weight"] for one in said["members"]) == pytest.approx(1)
    scores = [read_scores(scores_file(folder, "test")) for folder in place.folders]
    weights = [one["weight"] for one in said["members"]]
    mean = sum(w * s.probabilities.astype(float) for w, s in zip(weights, scores, strict=True))
    assert said["weighted"]["video1"]["value"] == pytest.approx((mean.argmax(1) == scores[0].labels).mean())
    for one, own in zip(said["members"], scores, strict=True):
        assert one["video1"]["value"] == own.right.mean()
    best = next(one for one in said["members"] if one["best_on_val"])
    gain = said["weighted"]["gain"]
    assert gain["value"] == pytest.approx(said["weighted"]["video1"]["value"] - best["video1"]["value"])
    assert gain["low"] <= gain["value"] <= gain["high"]
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["ensemble", *paths, "--split", "val"]) == 0
    text = capsys.readouterr().out
    assert "each video was judged with weights that other videos of val gave" in text
    assert "against the best on val" in text


def test_an_ensemble_that_is_tested_anew_is_that_of_the_kept_scores(place: Place) -> None:
    paths = [str(folder) for folder in place.folders[1:]]
    kept = said_json("ensemble", *paths, "--json")
    anew = said_json("ensemble", *paths, "--data", str(place.data), "--split", "test", "--json")
    assert anew["weighted"]["video1"] == kept["weighted"]["video1"]
    assert [one["weight"] for one in anew["members"]] == pytest.approx([one["weight"] for one in kept["members"]])


def test_networks_of_other_videos_make_no_ensemble(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(place.folders[1], other)
    path = scores_file(other, "val")
    with np.load(path) as file:
        arrays: dict[str, Any] = dict(file)
    arrays["paths"] = np.array([name.replace("00.mp4", "99.mp4") for name in arrays["paths"].tolist()])
    np.savez(path, **arrays)
    argv = ("ensemble", str(place.folders[0]), str(other), "--split", "val")
    assert "scores-val.npz was changed or damaged after it was written" in refused(capsys, *argv)
    content = read_content(other)
    content["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    write_content(other, content)
    line = refused(capsys, *argv)
    assert "6 of val are only of" in line


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 4), st.integers(3, 40), st.integers(2, 5), st.integers(0, 10_000))
def test_the_weights_of_val_are_the_best_of_all(members: int, videos: int, classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    some = rng.dirichlet(np.ones(classes) * 0.5, (members, videos))
    labels = rng.integers(0, classes, videos)

    def loss(weights: np.ndarray) -> float:
        chosen = mixed(some, weights)[np.arange(videos), labels]
        return float(-np.log(np.maximum(chosen, 1e-38)).mean())

    weights = best_weights(some, labels)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    others = [*np.eye(members), *rng.dirichlet(np.ones(members), 200)]
    assert loss(weights) <= min(map(loss, others)) + 1e-4


def test_the_weight_goes_to_the_network_that_knows_and_a_video_does_not_judge_itself() -> None:
    labels = np.arange(40) % 4
    knows = np.eye(4)[labels] * 0.8 + 0.05
    guesses = np.full((40, 4), 0.25)
    assert best_weights(np.stack([guesses, knows]), labels).tolist() == pytest.approx([0, 1], abs=1e-3)
    # Each of two networks knows one half; the fold of a video has no say in its weights.
    probabilities = np.stack([knows, np.roll(knows, 1, axis=1)])
    fair = cross_fitted(probabilities, labels, seed=1)
    changed = labels.copy()
    changed[7] = (changed[7] + 1) % 4
    assert np.array_equal(cross_fitted(probabilities, changed, seed=1)[7], fair[7])


# --- nas features and nas probe ------------------------------------------------------------------------------------


def test_features_are_what_the_classifier_saw(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "features.npz"
    argv = ("features", str(place.folders[0]), str(place.data), "-o", str(file))
    said = said_json(*argv, "--clips", "3", "--crops", "3", "--split", "val", "--split", "test", "--json")
    assert (said["layer"], said["kind"], said["shape"]) == ("head.fc", "clip", [36, 9, 16])
    with np.load(file, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    assert found["features"].dtype == np.float32
    assert found["splits"].tolist() == ["val"] * 18 + ["test"] * 18
    assert found["classes"].tolist() == list(CLASSES)
    network = nas.load(place.folders[0])
    scores = read_scores(scores_file(place.folders[0], "test"))
    assert found["paths"].tolist()[18:] == list(scores.paths)
    with torch.inference_mode():
        logits = network.model.head.fc(torch.from_numpy(found["features"][18:]))  # type: ignore[union-attr, operator]
    assert np.allclose(logits.softmax(2).mean(1).numpy(), scores.probabilities, atol=1e-5)
    assert found["predictions"][18:].tolist() == scores.predictions.tolist()


def test_frame_features_of_a_flat_network_are_its_clip_features_and_those_of_a_deep_one_know_no_motion(
    place: Place, tmp_path: Path
) -> None:
    def read(folder: Path, *more: str) -> np.ndarray:
        said_json("features", str(folder), str(place.data), "-o", str(tmp_path / "f.npz"), *more, "--json")
        with np.load(tmp_path / "f.npz") as arrays:
            return np.asarray(arrays["features"])

    assert np.allclose(read(place.folders[2]), read(place.folders[2], "--frames"), rtol=1e-3, atol=1e-4)
    assert not np.allclose(read(place.folders[0]), read(place.folders[0], "--frames"), rtol=1e-3, atol=1e-4)


def test_probes_are_reported_beside_the_network(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = said_json("probe", str(place.folders[0]), str(place.data), "--split", "test", "--json")
    found = {one["name"]: one for one in said["probes"]}
    assert set(found) == {"svm", "mlp", "network"}
    assert found["svm"]["accuracy"]["value"] >= 0.9
    assert found["mlp"]["accuracy"]["value"] >= 0.9
    assert found["svm"]["setting"].startswith("C = ")
    argv = ("evaluate", str(place.folders[0]), str(place.data), "--split", "test")
    one_clip = said_json(*argv, "--clips", "1", "--crops", "1", "--json")
    assert found["network"]["accuracy"] == one_clip["video1"]
    assert len(found["svm"]["right"]) == 18
    said_json("features", str(place.folders[2]), str(place.data), "-o", str(tmp_path / "f.npz"), "--json")
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["probe", str(tmp_path / "f.npz"), "--kind", "svm"]) == 0
    text = capsys.readouterr().out
    assert "16 features of clips (head.fc), fitted on 36 videos of train" in text
    assert "linear SVM" in text


def test_features_are_of_use_for_classes_that_the_network_does_not_know(place: Place, tmp_path: Path) -> None:
    for old, new in (("move right", "a"), ("move left", "b")):
        for split in ("train", "val"):
            shutil.copytree(place.data / split / old, tmp_path / "two" / split / new)
    said = said_json("probe", str(place.folders[0]), str(tmp_path / "two"), "--cache", str(tmp_path / "c"), "--json")
    assert {one["name"] for one in said["probes"]} == {"svm", "mlp"}
    assert said["probes"][0]["accuracy"]["value"] >= 0.9


def test_a_preset_with_2d_weights_gives_frame_features_without_training(place: Place, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    torch.save(timm.create_model("resnet18", num_classes=5).state_dict(), tmp_path / "resnet18.pt")
    said = said_json(
        *("features", "tsn_r18", str(place.database), "-o", str(tmp_path / "f.npz"), "--split", "val"),
        *("--weights", str(tmp_path / "resnet18.pt"), "--frames", "--json"),
    )
    assert (said["kind"], said["shape"]) == ("frames", [18, 1, 512])
    assert said["network"] == f"tsn_r18, {tmp_path / 'resnet18.pt'}"
