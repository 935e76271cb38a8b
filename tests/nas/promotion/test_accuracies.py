"""One place says which number decides, and what it is called."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

import nas
from nas.cli.main import main
from nas.errors import NotFoundError, SearchError
from nas.promotion.promotion import rivals
from nas.read.report.charts import curves_chart, front_chart
from nas.read.report.gather import gather
from nas.read.report.values import Curve, Point
from nas.store import tables
from nas.store.database import Store
from nas.store.migrations import CHOSEN
from nas.study.metric import (
    CHOICES,
    accuracy_of,
    broken_text,
    check_choice,
    few_videos,
    field_of,
    in_points,
    interval_of,
    largest_share,
    metric_in,
    metric_of,
    said,
    told,
    wilson,
)
from nas.study.objectives import minimised
from tests.nas.read.report.generated import full_study
from tests.nas.studies import write_study
from trainer.config import ConfigError
from trainer.metrics import Metrics, measure

SHARES = st.floats(0, 1)


@given(top1=SHARES, found=st.one_of(st.none(), SHARES))
def test_a_row_decides_by_what_training_decides_by(top1: float, found: float | None) -> None:
    metrics = Metrics(top1=top1, top5=1.0, loss=0.0, num_clips=8, map_sample=found)
    row = {"top1": top1, "map_sample": found}
    assert accuracy_of(row) == metrics.accuracy
    assert said(row) == told(metrics)
    assert said(row).startswith("top-1 " if found is None else "mAP ")
    assert accuracy_of({"top1": top1}) == top1  # as a row of an earlier version


@given(
    top1=SHARES,
    balanced=st.one_of(st.none(), SHARES),
    found=st.one_of(st.none(), SHARES),
    stated=st.sampled_from([None, *CHOICES]),
)
def test_a_row_is_chosen_by_what_the_study_says(
    top1: float, balanced: float | None, found: float | None, stated: str | None
) -> None:
    metrics = Metrics(top1=top1, top5=1.0, loss=0.0, num_clips=8, map_sample=found, balanced=balanced)
    row = {**asdict(metrics), "chosen_by": stated}
    names = {
        "top1": (top1, "top-1"),
        "top5": (1.0, "top-5"),
        "balanced": (balanced, "balanced accuracy"),
        "map": (found, "mAP"),
    }
    value, name = names.get(stated or "auto", names["top1" if found is None else "map"])
    assert metric_of([row]) == name
    if value is None:  # never another number in its place
        with pytest.raises(NotFoundError, match=f"search.accuracy is {stated}"):
            accuracy_of(row)
        with pytest.raises(ConfigError):
            metrics.by(field_of(stated))
    else:
        assert accuracy_of(row) == metrics.by(field_of(stated)) == value
        assert said(row) == told(metrics, stated) == f"{name} {value:.3f}"
    with contextlib.closing(sqlite3.connect(":memory:")) as connection, connection:  # and the view does the same
        connection.execute("CREATE TABLE s (accuracy)")
        connection.execute("INSERT INTO s VALUES (?)", (None if stated == "auto" else stated,))
        connection.execute("CREATE TABLE e (top1, top5, balanced, map_sample)")
        connection.execute("INSERT INTO e VALUES (?, ?, ?, ?)", (top1, 1.0, balanced, found))
        assert connection.execute(f"SELECT {CHOSEN} FROM s, e").fetchone() == (value,)
    connection.close()


@pytest.mark.parametrize(
    ("stated", "several", "refused"),
    [
        ("map", False, "one \\(choices"),
        ("balanced", True, "several \\(choices"),
        ("top1", True, ""),
        ("auto", True, ""),
    ],
)
def test_an_accuracy_that_the_data_has_no_sense_for_is_refused(stated: str, several: bool, refused: str) -> None:
    if not refused:
        check_choice(stated, multi_label=several)
        return
    with pytest.raises(SearchError, match=f"search.accuracy is {stated}.* {refused}"):
        check_choice(stated, multi_label=several)


@given(st.integers(2, 6), st.data())
def test_balanced_accuracy_is_that_of_scikit_learn(num_classes: int, data: st.DataObject) -> None:
    labels = data.draw(st.lists(st.integers(0, num_classes - 1), min_size=1, max_size=40))
    order = data.draw(st.randoms(use_true_random=False))
    rows = [order.sample(range(num_classes), num_classes) for _ in labels]
    probabilities = torch.tensor(rows, dtype=torch.float32).softmax(1)
    found = measure(probabilities, torch.tensor(labels)).balanced
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that only predictions have
        expected = balanced_accuracy_score(labels, probabilities.argmax(1).numpy())
    assert found == pytest.approx(expected, abs=1e-12)


def test_always_naming_the_largest_class_earns_its_share_and_balanced_chance() -> None:
    labels = torch.tensor([0] * 40 + [1] * 4 + [2] * 4)
    metrics = measure(torch.tensor([[0.8, 0.1, 0.1]]).repeat(48, 1), labels)
    assert metrics.top1 == pytest.approx(40 / 48) and metrics.balanced == pytest.approx(1 / 3)
    assert largest_share(48, (40, 4, 4)) == metrics.top1


def test_no_row_at_all_is_of_one_label() -> None:
    assert metric_of([]) == "top-1"
    assert metric_of([{"map_sample": None}, {"map_sample": 0.5}]) == "mAP"


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0234, "+2.3"), (-0.0041, "-0.4"), (-0.0004, "0.0"), (0.0004, "0.0"), (-0.0, "0.0"), (1.0, "+100.0")],
)
def test_a_difference_in_points_has_its_sign_and_nothing_has_none(share: float, text: str) -> None:
    assert in_points(share) == text


def test_an_accuracy_has_wilson_s_interval_and_average_precision_none() -> None:
    assert interval_of(0.5, 100, "top-1") == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert interval_of(1.0, 6, "top-1") == (pytest.approx(0.6097, abs=1e-4), 1.0)
    assert interval_of(0.0, 6, "video@1") == (0.0, pytest.approx(0.3903, abs=1e-4))
    assert interval_of(0.5, 0, "top-1") == (0.0, 1.0)
    assert interval_of(0.5, 100, "mAP") is None


@pytest.mark.parametrize("top1", [0.0, 1.0])
def test_nothing_prints_an_error_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], top1: float) -> None:
    path, page, plot = tmp_path / "study.db", tmp_path / "page.html", tmp_path / "front.html"
    store = full_study(path, trials=12)
    with store.write() as connection:
        connection.execute(tables.evaluation.update().values(top1=top1, num_clips=6, low=None, high=None))
    assert next(point.interval for point in gather(store).points) == interval_of(top1, 6, "top-1")
    store.close()
    shown = "0.610 to 1.000" if top1 else "0.000 to 0.390"
    commands = [["status"], ["pareto", "--plot", str(plot)], ["export", "--latex", "--table", "front"]]
    for words in [*commands, ["report", "-o", str(page)]]:
        assert main([words[0], str(path), *words[1:]]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert "±" not in text and (shown in text or words[0] not in ("status", "pareto"))
    shown = "61.0 to 100.0" if top1 else "0.0 to 39.0"
    text = page.read_text("utf-8").replace("\u00a0", " ")
    assert shown in text
    with nas.open(path) as study:
        front = study.front()
        assert (front["high"] - front["low"] > 0.3).all() and "±" not in study._repr_html_()


@pytest.mark.parametrize(
    ("videos", "per_class", "said"),
    [
        (6, (2, 4), "val has 6 videos, 2 of its rarest class"),
        (1, (1,), "val has 1 video, 1 of its rarest class"),
        (48, (40, 4, 4), "val has 48 videos, 4 of its rarest class"),
        (99, (49, 50), "val has 99 videos; with under 100 in all"),
        (1000, (971, 29), "val has 1,000 videos, 29 of its rarest class"),
        (99, (), "val has 99 videos; with"),
        (100, (50, 50), None),
        (60_000, (), None),
    ],
)
def test_few_videos_of_val_are_warned_of(videos: int, per_class: tuple[int, ...], said: str | None) -> None:
    text = few_videos(videos, per_class)
    assert (text is None) == (said is None) and (said or "") in (text or "") and len(text or "") <= 500


def test_the_runner_up_within_the_error_of_the_best_is_named(tmp_path: Path) -> None:
    store = full_study(tmp_path / "study.db")
    study = store.study("demo")
    rows = [row for row in store.evaluations(1) if row["epochs"] == 27]
    best, second = sorted(rows, key=lambda row: -row["top1"])[:2]
    text = rivals(store, study, best["digest"], 10**15)
    low, high = wilson(best["top1"], best["num_clips"])
    assert (text is not None) == (second["top1"] >= low)
    with store.write() as connection:
        table = tables.evaluation
        connection.execute(table.update().where(table.c.id == second["id"]).values(top1=low + 1e-6))
    text = rivals(store, study, best["digest"], 10**15) or ""
    assert best["digest"][:10] in text and second["digest"][:10] in text and f"({low:.3f} to {high:.3f})" in text
    assert "fresh seeds" in text
    assert rivals(store, study, best["digest"], best["macs"] - 1) is None
    with store.write() as connection:  # beyond its error
        connection.execute(table.update().where(table.c.id != best["id"]).values(top1=low - 0.01))
    assert rivals(store, study, best["digest"], 10**15) is None
    store.close()


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        (None, ""),
        ({"num_clips": 0, "videos": {}}, ""),
        ({"num_clips": 1, "videos": {"a": "empty"}}, "1 clip of 1 video could not be read (the first, a: empty)"),
        (
            {"num_clips": 1234, "videos": {"a": "empty", "b": "gone"}},
            "1,234 clips of 2 videos could not be read (the first, a: empty)",
        ),
    ],
)
def test_broken_clips_in_words(broken: dict[str, Any] | None, text: str) -> None:
    assert broken_text(broken) == text


def test_a_chart_of_average_precision_names_it_and_draws_no_chance() -> None:
    usual: dict[str, Any] = {"number": 0, "rung": 0, "epochs": 1, "num_clips": 9, "settings": {}, "front": True}
    usual["values"] = (0.5, 1.0)
    points = [Point(digest="a", accuracy=0.5, interval=(0.4, 0.6), macs=10, **usual)]
    curves = [Curve(number=0, digest="a", kind="front", values=((1, 0.5),))]
    for metric, rules in (("top-1", 1), ("mAP", 0)):
        points = [replace(point, interval=(0.4, 0.6) if rules else None) for point in points]
        assert [mark.bar is not None for mark in front_chart(points, 4, metric).marks] == [bool(rules)]
        assert any("95 %" in text for _, text in front_chart(points, 4, metric).legend) == bool(rules)
        for chart in (front_chart(points, 4, metric), curves_chart(curves, 4, metric)):
            assert chart.y_title == f"{metric} on val"
            assert len(chart.rules) == rules
            labels = [mark.label for mark in chart.marks] + [line.label for line in chart.lines if line.label]
            assert all(f"{metric} 50.0" in label for label in labels) and labels


def test_a_study_is_searched_and_read_by_balanced_accuracy(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uneven = tmp_path / "uneven"  # val has four videos of the first class, and one of each other
    shutil.copytree(motion, uneven)
    first, *others = sorted(path for path in (uneven / "val").iterdir() if path.is_dir())
    for place in others:
        for path in sorted(place.iterdir())[1:]:
            path.unlink()
    for number, path in enumerate(sorted((uneven / "train" / first.name).iterdir())[:2]):
        shutil.copy(path, first / f"more{number}{path.suffix}")
    search = {"trials": 3, "initial": 3, "rungs": [1], "accuracy": "balanced"}
    data = {"root": str(uneven), "cache": str(tmp_path / "cache")}
    settings = {"family": "resnet", "depth": "1-1", "stem_width": 8, "stem": "1x3x3/2", "kind": "3d"}
    ablation = {
        "base": settings,
        "factors": {"kind": ["2d"]},
        "seeds": 2,
        "min_seeds": 2,
        "epochs": 1,
        "control": False,
    }
    file, db = write_study(tmp_path / "tiny.yaml", {"search": search, "data": data, "ablation": ablation}), "study.db"
    assert main(["search", str(file), "--db", db, "--workers", "0"]) == 0
    captured = capsys.readouterr()
    assert "balanced accuracy 0." in captured.out + captured.err
    assert "val has 11 videos, 1 of its rarest class" in captured.out + captured.err
    store = Store(db)
    study = store.study()
    assert study["accuracy"] == "balanced" and study["data"]["by_class"]["val"] == [4, 1, 1, 1, 1, 1, 1, 1]
    rows = store.evaluations(1)
    assert any(row["balanced"] != row["top1"] for row in rows) and metric_in(store, 1) == "balanced accuracy"
    assert [row["accuracy"] for row in store.front("tiny")][-1] == max(row["balanced"] for row in rows)
    assert all(epoch["balanced"] is not None for epoch in store.epoch_rows(1))
    assert minimised(rows[0], ["error"]) == (1 - rows[0]["balanced"],)
    store.close()
    assert main(["status", db]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "always naming the largest class: 0.364 of val" in text and "best balanced accuracy" in text
    assert main(["status", db, "--trials", "--json"]) == 0
    shown = {row["digest"]: row["accuracy"] for row in json.loads(capsys.readouterr().out)["networks"]}
    assert shown == {row["digest"]: row["balanced"] for row in rows}
    assert main(["data", "check", str(uneven)]) == 1  # two videos of val are copies of train's
    text = " ".join(capsys.readouterr().out.split())
    assert "largest class" in text and "0.364" in text and "warning: val has 11 videos, 1 of its rarest class" in text
    assert main(["data", "check", str(uneven), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["largest_class"]["val"] == pytest.approx(4 / 11)
    assert main(["ablate", str(file), "--db", db, "--dry-run"]) == 0
    assert "warning: val has 11 videos, 1 of its rarest class" in " ".join(capsys.readouterr().out.split())
    assert main(["export", db, "--table", "front", "--latex"]) == 0
    text = capsys.readouterr().out
    assert "balanced" in text and "low" not in text
    assert main(["ablate", str(file), "--db", db, "--workers", "0"]) == 0
    assert "differences of val balanced accuracy in points" in " ".join(capsys.readouterr().out.split())
    store = Store(db)
    runs = store.arm_runs(1)
    assert [accuracy_of(run) for run in runs] == [run["balanced"] for run in runs]
    assert all(effect["se_clips"] is None for effect in store.effects(1))  # marks of videos say nothing of it
    store.close()
    page = tmp_path / "page.html"
    assert main(["report", db, "-o", str(page)]) == 0
    assert "Balanced accuracy against MACs" in page.read_text("utf-8")
    assert main(["search", str(file), "search.accuracy=top1", "--db", db, "--workers", "0"]) == 2
    assert "search.accuracy=balanced" in capsys.readouterr().err  # one database, one question
    assert main(["search", str(file), "search.accuracy=map", "--db", "other.db", "--workers", "0"]) == 2
    assert "several labels" in capsys.readouterr().err
    assert main(["search", str(file), "search.accuracy=balancd", "--db", "other.db"]) == 2
    assert "did you mean balanced" in capsys.readouterr().err
