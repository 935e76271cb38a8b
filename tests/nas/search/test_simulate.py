"""Searches on recorded trainings: the decisions of a real search, and what is wrong with a table in one line."""

from __future__ import annotations

import gzip
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas.cli.main import main
from nas.errors import SearchError
from nas.search import simulation as recorded
from nas.search.curves import Curve, read_curves, write_curves
from nas.search.driver import run_search
from nas.search.simulation import CurveTable, simulate
from nas.store.database import Store
from nas.study.files import load_study
from nas.study.study import Study
from tests.nas.studies import write_study

MODEL = {"sampler": "pool", "scheduler": "freeze_thaw", "initial": 4, "trials": 16}


def study_at(folder: Path, motion: Path, search: dict[str, Any] | None = None) -> Study:
    """The tiny study on the shared videos."""
    places = [f"data.root='{motion}'", f"data.cache='{motion.parent / 'cache'}'"]
    return load_study(write_study(folder / "tiny.yaml", {"search": search or {}}), places)


def made_up(study: Study, seeds: int = 2, epochs: int = 3, without: int = 0) -> list[Curve]:
    """Curves that hang on the digest, some of them left out."""
    from nas.search.pool import build_pool

    pool = build_pool(study, num_classes=8).candidates
    return [
        Curve(
            digest=one.digest,
            seed=seed,
            top1=tuple(round((int(one.digest[:4], 16) % 40 + 10 * epoch + seed) / 80, 6) for epoch in range(epochs)),
            loss=(1.0,) * epochs,
            seconds=(0.5 + i % 3,) * epochs,
            videos=80,
        )
        for i, one in enumerate(pool[without:])
        for seed in range(seeds)
    ]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, motion: Path) -> Path:
    """Every network of the tiny space, trained in full and recorded by the command."""
    folder = tmp_path_factory.mktemp("table")
    study = study_at(folder, motion, {"scheduler": "none", "trials": 100})
    run_search(study, folder / "study.db", workers=0)
    assert main(["record", str(folder / "study.db"), "-o", str(folder / "table.jsonl.gz")]) == 0
    return folder / "table.jsonl.gz"


@pytest.mark.parametrize("search", [{"trials": 12}, MODEL, {"sampler": "tpe", "scheduler": "hyperband", "trials": 12}])
def test_a_search_on_a_table_takes_the_decisions_of_a_real_one(
    tmp_path: Path, motion: Path, table: Path, search: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_at(tmp_path, motion, search)
    run_search(study, tmp_path / "study.db", workers=0)
    with Store(tmp_path / "study.db") as store:
        digests = {row["number"]: row["digest"] for row in store.trials(1)}
        real = [(e["kind"], digests[e["trial"]], e["rung"]) for e in store.events(1)]
    events: list[tuple[str, str, int]] = []

    class Watched(Store):
        def close(self) -> None:
            known = {row["number"]: row["digest"] for row in self.trials(1)}
            events.extend((e["kind"], known[e["trial"]], e["rung"]) for e in self.events(1))
            super().close()

    monkeypatch.setattr(recorded, "Store", Watched)
    found = simulate(CurveTable(study, read_curves(table)), seed=study.seed, workers=1)
    assert events == real
    assert found.epochs == sum(study.search.rungs[rung] - (rung and study.search.rungs[rung - 1])
                               for kind, _, rung in real if kind == "result")  # fmt: skip


def test_time_is_that_of_the_table_and_workers_share_it(tmp_path: Path, motion: Path) -> None:
    study = study_at(tmp_path, motion, {"trials": 12})
    table = CurveTable(study, made_up(study))
    one, four = (simulate(table, seed=0, workers=workers) for workers in (1, 4))
    assert one.epochs == four.epochs == 12 + 4 + 1
    assert one.seconds / 4 <= four.seconds < one.seconds
    again = simulate(table, seed=0, workers=4)
    assert again == four


def test_a_search_of_everything_finds_the_front(tmp_path: Path, motion: Path) -> None:
    study = study_at(tmp_path, motion, {"trials": 100, "scheduler": "none"})
    table = CurveTable(study, made_up(study))
    found = simulate(table, seed=0, workers=3)
    assert found.networks == len(table.pool.candidates)
    assert found.gap == pytest.approx(0.0, abs=1e-9)
    assert [gap for _, gap in found.curve] == sorted((gap for _, gap in found.curve), reverse=True)


def test_files_are_read_as_they_were_written(tmp_path: Path, motion: Path) -> None:
    curves = made_up(study_at(tmp_path, motion))
    for name in ("table.jsonl", "table.jsonl.gz"):
        write_curves(reversed(curves), tmp_path / name)
        assert read_curves(tmp_path / name) == sorted(curves, key=lambda curve: (curve.digest, curve.seed))
    first = (tmp_path / "table.jsonl.gz").read_bytes()
    write_curves(curves, tmp_path / "table.jsonl.gz")
    assert (tmp_path / "table.jsonl.gz").read_bytes() == first


def test_the_command_prints_a_line_for_each_seed(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_at(tmp_path, motion)
    write_curves(made_up(study), tmp_path / "table.jsonl")
    command = ["simulate", str(tmp_path / "tiny.yaml"), "--table", str(tmp_path / "table.jsonl"), "--seeds", "2"]
    assert main([*command, "--scheduler", "iepoch"]) == 0
    text = capsys.readouterr().out
    assert "random, iepoch" in text
    assert "median" in text
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["seed"] for row in rows] == [3, 4]
    assert all(row["counts"][0] == 9 for row in rows)


GOOD = '{"digest":"a","seed":0,"top1":[0.5],"loss":[1.0],"seconds":[1.0]}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold a curve, but is empty"),
        (f"{GOOD}\n[1]", r"line 2 of .*table.jsonl must be an object with digest, seed and lists .* but is '\[1\]'"),
        (GOOD.replace("0.5", "NaN"), "line 1"),
        (GOOD.replace("0.5", "1.5"), "line 1"),
        (GOOD.replace("[1.0]", "[1.0, 2.0]", 1), "line 1"),
        (GOOD.replace('"seed":0', '"seed":true'), "line 1"),
        ("[" * 100_000, "line 1"),
        (GOOD.replace("[0.5]", '"1"'), "line 1"),
        (GOOD.replace("[0.5]", '{"1": 0.5}'), "line 1"),
        (GOOD.replace('"loss":[1.0]', f'"loss":[1{"0" * 400}]'), "line 1"),
        (GOOD.replace('"seconds":[1.0]', '"seconds":[1e308]'), "line 1"),
        (GOOD.replace("}", f', "videos": 1{"0" * 30}}}'), "line 1"),
        (f"{GOOD}\n{GOOD.replace('0.5', '0.6')}", "line 2 of .* is of a with seed 0, as is line 1; a training stands"),
    ],
)
def test_a_table_that_is_none_gets_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "table.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SearchError, match=message) as caught:
        read_curves(path)
    assert len(str(caught.value)) < 500


def test_a_table_that_is_cut_off_gets_one_line(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD.encode())[:-4])
    with pytest.raises(SearchError, match=r"the table .*table.jsonl.gz cannot be read"):
        read_curves(path)
    with pytest.raises(SearchError, match="cannot be read"):
        read_curves(tmp_path / "none.jsonl")
    whole = gzip.compress(GOOD.encode() * 20)
    path.write_bytes(whole[:12] + b"\xff" * 20 + whole[32:])
    with pytest.raises(SearchError, match="cannot be read"):
        read_curves(path)


def test_a_table_must_have_every_network_and_epoch_of_the_space(tmp_path: Path, motion: Path) -> None:
    study = study_at(tmp_path, motion)
    with pytest.raises(SearchError, match=r"the table lacks [0-9a-f]{10} .* of \d+ networks of the space"):
        CurveTable(study, made_up(study, without=1))
    with pytest.raises(SearchError, match="must end at most after the 2 epochs that the table has"):
        CurveTable(study, made_up(study, epochs=2))


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (
            {"objectives": ["top5", "macs"]},
            "a table has top-1 and exact costs, but the study searches by top5",
        ),
        ({"objectives": ["error", "motion_gap"]}, "searches by motion_gap"),
        ({"accuracy": "balanced"}, "searches by balanced"),
        ({"pool": 5}, "search.pool must hold every network of the space for a simulation, but is 5"),
    ],
)
def test_what_a_table_does_not_hold_is_refused(
    tmp_path: Path, motion: Path, search: dict[str, Any], message: str
) -> None:
    curves = made_up(study_at(tmp_path, motion))
    with pytest.raises(SearchError, match=message):
        CurveTable(study_at(tmp_path, motion, search), curves)


def test_a_table_without_a_front_is_refused_in_true_words(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    curves = [replace(curve, top1=(0.125,) * 3) for curve in made_up(study_at(tmp_path, motion))]
    write_curves(curves, tmp_path / "table.jsonl")
    assert main(["simulate", str(tmp_path / "tiny.yaml"), "--table", str(tmp_path / "table.jsonl")]) == 2
    assert "no network of the table is better than chance" in capsys.readouterr().err


def test_a_fault_in_a_simulation_is_not_told_as_damage_of_its_database(
    tmp_path: Path, motion: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_curves(made_up(study_at(tmp_path, motion)), tmp_path / "table.jsonl")

    def failing(*_: Any) -> float:
        raise ZeroDivisionError("made up")

    monkeypatch.setattr(CurveTable, "gap", failing)
    assert main(["simulate", str(tmp_path / "tiny.yaml"), "--table", str(tmp_path / "table.jsonl")]) == 3
    err = capsys.readouterr().err
    assert "ZeroDivisionError" in err and "damaged" not in err


def test_the_gap_is_of_the_objectives_of_the_study(tmp_path: Path, motion: Path) -> None:
    study = study_at(tmp_path, motion, {"objectives": ["error"]})
    table = CurveTable(study, made_up(study))
    best = max(table.points, key=lambda digest: table.mean(digest, 3))
    assert table.gap([best]) == pytest.approx(0.0)
    three = CurveTable(study_at(tmp_path, motion, {"objectives": ["error", "macs", "params"]}), made_up(study))
    assert three.gap([best]) > 0 and three.gap(list(three.points)) == pytest.approx(0.0)


@pytest.mark.parametrize("seeds", [1, 2, 3, 4])
def test_the_median_is_the_median(tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str], seeds: int) -> None:
    write_curves(made_up(study_at(tmp_path, motion)), tmp_path / "table.jsonl")
    command = ["simulate", str(tmp_path / "tiny.yaml"), "--table", str(tmp_path / "table.jsonl"), "--seeds", str(seeds)]
    assert main([*command, "--json"]) == 0
    gaps = [row["gap"] for row in json.loads(capsys.readouterr().out)]
    assert main(command) == 0
    out = capsys.readouterr().out
    told = float(out.rpartition("median ")[2].split()[0])
    assert told == pytest.approx(statistics.median(gaps), abs=0.0051)


@pytest.mark.parametrize("scheduler", ["iepoch", "hyperband", "asha", "none"])
def test_a_space_smaller_than_the_budget_is_trained_on(tmp_path: Path, motion: Path, scheduler: str) -> None:
    """That there are fewer networks than trials is as if no more had been asked for."""
    study = study_at(tmp_path, motion, {"scheduler": scheduler, "trials": 500})
    table = CurveTable(study, made_up(study))
    found = simulate(table, seed=0, workers=2)
    count = len(table.pool.candidates)
    assert found.counts[0] == count
    assert found.counts[-1] >= {"none": count, "iepoch": count // 3}.get(scheduler, 1)


def test_a_search_that_is_not_over_is_recorded_as_far_as_it_got(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_at(tmp_path, motion)
    run_search(study, tmp_path / "study.db", workers=0)
    assert main(["record", str(tmp_path / "study.db"), "-o", str(tmp_path / "table.jsonl")]) == 0
    assert "1 networks to 3 epochs" in capsys.readouterr().out
    (curve,) = read_curves(tmp_path / "table.jsonl")
    assert len(curve.top1) == 3


@pytest.mark.parametrize(
    ("search", "recipe", "message"),
    [
        (
            {"fidelity": "data", "rungs": [0.5, 1.0], "epochs": 1},
            {},
            "search.fidelity must be epochs for a table of learning curves",
        ),
        ({"rungs": [2]}, {"eval_every": 2}, "was measured after each epoch (recipe.eval_every)"),
    ],
)
def test_what_is_no_curve_by_epochs_is_not_recorded(
    tmp_path: Path,
    motion: Path,
    capsys: pytest.CaptureFixture[str],
    search: dict[str, Any],
    recipe: dict[str, Any],
    message: str,
) -> None:
    places = [f"data.root='{motion}'", f"data.cache='{motion.parent / 'cache'}'"]
    over = {"search": {"trials": 2, "initial": 2, **search}, "recipe": recipe}
    run_search(load_study(write_study(tmp_path / "t.yaml", over), places), tmp_path / "study.db", workers=0)
    assert main(["record", str(tmp_path / "study.db"), "-o", str(tmp_path / "table.jsonl")]) == 2
    assert message in capsys.readouterr().err
