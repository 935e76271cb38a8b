"""Objectives by name: what may stand together, what an evaluation says of each, and fronts of them."""

from __future__ import annotations

import html
import json
import math
from pathlib import Path
from typing import Any

import pytest

from nas.cli.main import main
from nas.errors import NotFoundError, SearchError, StudyError
from nas.search.driver import run_search
from nas.search.estimate import MOST, expected_front
from nas.store.database import Store
from nas.study.objectives import (
    check_objectives,
    floors_of,
    front_rows,
    minimised,
    objectives_of,
    recorded_floors,
    recorded_objectives,
    value_of,
)
from tests.fronts import dominates
from tests.nas.search.test_search import study_at

ROW = {"top1": 0.5, "top5": 0.9, "balanced": 0.4, "map_sample": None, "macs": 1000, "params": 10, "shuffled": 0.2}


@pytest.mark.parametrize(
    ("names", "accuracy", "expected"),
    [
        (["error", "macs"], "auto", (("error", "macs"), "auto")),
        (["error"], "balanced", (("error",), "balanced")),
        (["top5", "macs"], "auto", (("error", "macs"), "top5")),
        (["top1", "motion_gap", "activation_bytes"], "top1", (("error", "motion_gap", "activation_bytes"), "top1")),
        (["balanced", "params", "top1"], "auto", (("error", "params", "top1"), "balanced")),
    ],
)
def test_the_first_objective_is_what_networks_are_chosen_by(
    names: list[str], accuracy: str, expected: tuple[tuple[str, ...], str]
) -> None:
    assert objectives_of(names, accuracy) == expected


@pytest.mark.parametrize(
    ("names", "accuracy", "message"),
    [
        (["error", "mcas"], "auto", "did you mean macs"),
        (["macs", "error"], "auto", r"must begin with an accuracy \(error, top1, top5, balanced, map\)"),
        (["motion_gap", "macs"], "auto", "must begin with an accuracy"),
        ([], "auto", "must be 1 to 3 names"),
        (["error", "macs", "macs"], "auto", "each once"),
        (["error", "macs", "params", "top5"], "auto", "must be 1 to 3 names"),
        (["top1", "macs"], "balanced", "begins with top1, but search.accuracy is balanced"),
        (["top1", "error"], "auto", "has that of its first place twice"),
        (["error", "top1"], "top1", "has that of its first place twice"),
        (["error", "top1"], "auto", "has that of its first place twice"),
        (["error", "macs", "map"], "auto", "has that of its first place twice"),
    ],
)
def test_what_does_not_go_together_is_refused(names: list[str], accuracy: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        objectives_of(names, accuracy)


def test_an_evaluation_says_each_objective() -> None:
    assert value_of(ROW, "error") == value_of(ROW, "top1") == 0.5
    assert value_of({**ROW, "chosen_by": "top5"}, "error") == 0.9
    assert value_of(ROW, "motion_gap") == pytest.approx(0.3)
    assert minimised(ROW, ["error", "motion_gap", "macs"]) == (0.5, pytest.approx(0.7), 3.0)
    with pytest.raises(NotFoundError, match="has map, but a result of the study lacks it"):
        value_of(ROW, "map")


@pytest.mark.parametrize(
    ("names", "multi_label", "frames", "message"),
    [
        (["error", "map"], False, 8, "several labels"),
        (["error", "balanced"], True, 8, "one label"),
        (["error", "motion_gap"], True, 8, "one label"),
        (["error", "motion_gap"], False, 1, "2 frames or more"),
    ],
)
def test_what_the_data_has_no_sense_for_is_refused(
    names: list[str], multi_label: bool, frames: int, message: str
) -> None:
    with pytest.raises(SearchError, match=message):
        check_objectives(names, multi_label=multi_label, frames=frames)


def test_a_front_is_of_the_objectives_and_rows_that_lack_one_are_not_on_it() -> None:
    rows = [
        {**ROW, "digest": "a", "macs": 100},
        {**ROW, "digest": "b", "macs": 50, "shuffled": 0.4},  # cheaper, with a smaller gap
        {**ROW, "digest": "c", "macs": 200},
        {**ROW, "digest": "d", "macs": 10, "shuffled": None},
    ]
    found = front_rows(rows, ["error", "motion_gap", "macs"])
    assert [row["digest"] for row in found] == ["b", "a"]
    assert found[1]["motion_gap"] == pytest.approx(0.3)
    assert [row["digest"] for row in front_rows(rows[:3], ["error", "macs"])] == ["b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy >= 80", "must read like 'accuracy >= 0.8'"),
        ("accuracy >=", "must read like"),
        ("macs >= 0.5", "choices: accuracy, motion_gap"),
        ("motion_gab >= 0.5", "did you mean motion_gap"),
        ("top5 >= 0.5", "choices: accuracy, motion_gap"),
    ],
)
def test_constraints_on_what_is_not_measured_are_refused(text: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        floors_of([text], ["error", "motion_gap", "macs"], "auto")


def test_a_front_has_what_meets_the_constraints() -> None:
    rows = [{**ROW, "digest": "a", "top1": 0.8, "macs": 100}, {**ROW, "digest": "b", "top1": 0.5, "macs": 10}]
    assert len(front_rows(rows, ["error", "macs"])) == 2
    floors = floors_of(["accuracy >= 0.8"], ["error", "macs"], "auto")
    assert [row["digest"] for row in front_rows(rows, ["error", "macs"], floors)] == ["a"]
    study = {"config": {"constraints": ["macs <= 1G", "top5 >= 0.25"], "search": {"objectives": ["top5", "macs"]}}}
    assert [str(one) for one in recorded_floors(study)] == ["accuracy >= 0.25"]


def test_what_is_just_enough_meets_a_constraint() -> None:
    """Means and differences of shares are off by their rounding."""
    rows = [{**ROW, "digest": "a", "rung": 0, "top1": 0.94, "shuffled": 0.84} for _ in range(5)]
    floors = floors_of(["accuracy >= 0.94", "motion_gap >= 0.1"], ["error", "motion_gap"], "auto")
    assert [row["seeds"] for row in front_rows(rows, ["error", "motion_gap"], floors)] == [5]


@pytest.fixture(scope="module")
def below(tmp_path_factory: pytest.TempPathFactory, motion: Path) -> Path:
    """A search of which no network meets the constraint."""
    folder = tmp_path_factory.mktemp("below")
    study = study_at(
        folder, motion, {"search": {"trials": 3, "initial": 3, "rungs": [1]}, "constraints": ["accuracy >= 0.99"]}
    )
    run_search(study, folder / "study.db", workers=0)
    return folder / "study.db"


def test_a_search_without_a_front_says_why(below: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    why = "no network of tiny at the highest rung meets accuracy >= 0.99"
    for words, code in (
        (["pareto", str(below)], 0),
        (["pareto", str(below), "--expected"], 0),
        (["promote", str(below), "--front"], 2),
        (["promote", str(below), "--best-under", "10G"], 2),
        (["compare", str(below), str(below)], 2),
    ):
        assert main(words) == code, words
        out, err = capsys.readouterr()
        assert why in (err if code else out), words
    assert main(["report", str(below), "-o", str(tmp_path / "report.html")]) == 0
    assert f"There is no front: {html.escape(why)}" in (tmp_path / "report.html").read_text("utf-8")
    capsys.readouterr()
    for words in (["status", str(below)], ["watch", str(below), "--once"]):
        assert main(words) == 0
        assert "hypervolume: 0.000" in capsys.readouterr().out
    assert main(["export", str(below), "--table", "front", "--csv"]) == 0


def test_what_is_expected_keeps_to_constraints_and_holds_the_measured_front(below: Path) -> None:
    with Store(below) as store:
        row = store.study()
        rows = [dict(one) for one in store.evaluations(row["id"])]
        specs = {one["digest"]: one["spec"] for one in store.architectures(row["clip"], row["num_classes"])}
    many = [{**rows[i % 3], "id": i, "top1": 0.2, "digest": f"{i:064}"} for i in range(MOST + 20)]
    many[5]["top1"] = many[-1]["top1"] = 0.95
    some = {one["digest"]: specs[rows[i % 3]["digest"]] for i, one in enumerate(many)}
    found = expected_front(many, some, ("error",))
    assert found[0]["accuracy"] == 0.95
    floors = floors_of(["accuracy >= 0.9"], ("error",), "auto")
    few = many[:30]
    allowed = expected_front(few, some, ("error", "macs"), floors=floors)
    assert all(one["expected"] >= 0.9 for one in allowed)
    assert expected_front(few, some, ("error", "macs"))


@pytest.mark.parametrize("fidelity", [{"fidelity": "frames", "rungs": [1, 4], "epochs": 1}])
def test_a_rung_of_one_frame_has_no_motion_gap(tmp_path: Path, motion: Path, fidelity: dict[str, Any]) -> None:
    search = {"objectives": ["error", "motion_gap"], "trials": 3, "initial": 3, "eta": 2, **fidelity}
    run_search(study_at(tmp_path, motion, {"search": search}), tmp_path / "study.db", workers=0)
    with Store(tmp_path / "study.db") as store:
        rows = store.evaluations(store.study()["id"])
    assert all(row["shuffled"] == row["top1"] for row in rows if row["rung"] == 0)
    assert any(row["rung"] == 1 for row in rows)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, motion: Path) -> Path:
    """A search for accuracy, motion gap and MACs, by the model."""
    folder = tmp_path_factory.mktemp("objectives")
    search = {
        "objectives": ["top1", "motion_gap", "macs"],
        "sampler": "pool",
        "scheduler": "freeze_thaw",
        "initial": 3,
        "trials": 5,
        "rungs": [1, 2],
    }
    database = folder / "study.db"
    run_search(study_at(folder, motion, {"search": search}), database, workers=0)
    return database


def test_a_search_measures_the_gap_and_models_it(searched: Path) -> None:
    with Store(searched) as store:
        study = store.study()
        names = recorded_objectives(study)
        assert names == ("error", "motion_gap", "macs")
        rows = store.evaluations(study["id"])
        assert all(0.0 <= row["shuffled"] <= 1.0 for row in rows)
        assert [job for job in store.jobs(study["id"]) if job["expected_gain"] is not None]
        top = [row for row in rows if row["rung"] == max(row["rung"] for row in rows)]
        front = store.front(study["name"])
    values = {row["digest"]: minimised(row, names) for row in top}
    on = {row["digest"] for row in front}
    assert on == {key for key, own in values.items() if not any(dominates(other, own) for other in values.values())}


def test_commands_show_the_objectives(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def out(*args: str) -> str:
        assert main([*args]) == 0
        return capsys.readouterr().out

    text = " ".join(out("pareto", str(searched)).split())
    assert "Pareto front of top-1, motion gap, MACs" in text
    rows: list[dict[str, Any]] = json.loads(out("pareto", str(searched), "--json"))
    assert all(math.isfinite(row["motion_gap"]) for row in rows)
    assert "error, 1 - motion gap and log MACs scaled" in " ".join(out("status", str(searched)).split())
    assert "motion_gap" in out("export", str(searched), "--table", "front", "--csv").splitlines()[0]
