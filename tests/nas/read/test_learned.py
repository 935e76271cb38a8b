"""What a search has learned, from rows as the record has them, and as `nas status` and `nas watch` say it."""

from __future__ import annotations

import csv
import io
import json
import math
import random
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from nas.read.compare import searched
from nas.read.learned import VolumeBox, deciding, learned_of, origins, volume
from nas.read.ranks import agreements, spearman
from nas.read.ranks import interval as interval_of_ranks
from nas.search.calibration import calibration, expectations, interval
from nas.search.levels import rungs_of
from nas.store import tables as m
from nas.store import write as s
from nas.store.database import Store
from nas.store.drivers import CommandStart
from tests.nas.read import widths
from tests.nas.read.conftest import Run
from tests.nas.read.made import made


def result(trial: int, rung: int, top1: float, *, macs: int = 10**6, videos: int = 400) -> dict[str, Any]:
    """A row of `Store.evaluations`."""
    return {
        "trial_id": trial,
        "number": trial,
        "digest": f"d{trial}",
        "rung": rung,
        "epochs": 3**rung,
        "top1": top1,
        "macs": macs,
        "num_clips": videos,
    }


def job(trial: int, rung: int, expected: tuple[float, float, float] | None = None) -> dict[str, Any]:
    """A row of `Store.jobs`."""
    values = dict(zip(("expected_error", "expected_spread", "expected_gain"), expected or (None,) * 3, strict=True))
    times = {"started_at": None, "ended_at": None}
    return {"trial_id": trial, "number": trial, "digest": f"d{trial}", "rung": rung, **times, **values}


@pytest.mark.parametrize("levels", [3, 10_000])
def test_the_rank_correlation_is_that_of_scipy_with_ties_too(levels: int) -> None:
    rng = np.random.default_rng(0)
    for count in (5, 8, 40):
        a, b = rng.integers(0, levels, (2, count))
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert spearman([1, 2, 3, 4], [1, 2, 3, 4]) is None
    assert spearman([1] * 9, range(9)) is None


@pytest.mark.parametrize("true", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("count", [6, 13, 40])
def test_the_interval_of_a_rank_correlation_holds_it_in_about_95_of_100(true: float, count: int) -> None:
    rng = np.random.default_rng(count)
    whole = 6 / math.pi * math.asin(true / 2)  # Spearman's of normal pairs
    held = 0
    for _ in range(1000):
        x, y = rng.multivariate_normal([0, 0], [[1, true], [true, 1]], count).T
        value = spearman(x, y)
        assert value is not None
        low, high = interval_of_ranks(value, count)
        assert -1 <= low <= value <= high <= 1
        assert high - low > 0.01
        held += low <= whole <= high
    assert 0.92 <= held / 1000 <= 0.995


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([], []),
        ([(0, 0), (1, 0)], []),  # nobody is at a second rung
        ([(0, 0), (0, 1)], [(0, 1, 1, "too few (1 network)"), (1, 2, 0, "too few (0 networks)"), (0, 2, 0, None)]),
        ([(n, rung) for n in range(6) for rung in range(2)], [(0, 1, 6, "1.00 ("), (1, 2, 0, None), (0, 2, 0, None)]),
        (
            [(n, rung) for n in range(6) for rung in range(3)],
            [(0, 1, 6, "1.00 ("), (1, 2, 6, "1.00 ("), (0, 2, 6, "1")],
        ),
    ],
)
def test_rungs_are_held_against_the_next_and_the_last(rows: list[tuple[int, int]], found: list[Any]) -> None:
    made_ = agreements([result(n, rung, 0.1 * n + 0.01 * rung) for n, rung in rows], 3)
    assert [(one.low, one.high, one.networks) for one in made_] == [item[:3] for item in found]
    for one, item in zip(made_, found, strict=True):
        assert one.text.startswith(item[3] or "")


def test_two_rungs_are_compared_once_and_one_with_nothing() -> None:
    assert [(one.low, one.high) for one in agreements([result(0, 1, 0.5)], 2)] == [(0, 1)]
    assert agreements([result(0, 0, 0.5)], 1) == ()
    alike = agreements([result(n, rung, 0.5) for n in range(7) for rung in range(2)], 2)
    assert alike[0].text == "all alike (7 networks)"


def test_the_hypervolume_is_of_the_last_rung_in_the_box_of_all_that_was_tried() -> None:
    assert volume([]) is None
    assert volume([result(0, 0, 0.5), result(0, 1, 0.6)]) is None  # one network
    rows = [result(0, 0, 0.2, macs=10**6), result(1, 0, 0.6, macs=10**8), result(1, 1, 0.8, macs=10**8)]
    found = volume(rows)
    assert found is not None
    assert (found.rung, found.epochs) == (1, 3)
    assert found.worst == {"error": pytest.approx(0.8), "macs": 10**8}
    assert found.share == pytest.approx(1.05 * 0.05 / 1.05**2)  # the best error, and the dearest
    rows.append(result(0, 1, 0.8, macs=10**6))
    best = volume(rows)
    assert best is not None
    assert best.share == pytest.approx(1.0)


def test_a_box_of_one_value_has_a_hypervolume_too() -> None:
    assert VolumeBox.of([(0.5, 2.0)] * 2).share([(0.5, 2.0)]) == pytest.approx(1.0)
    assert VolumeBox.of([(0.5, 2.0)]).share([]) == 0.0


def test_proposals_are_counted_by_origin_with_the_best_at_the_highest_rung_of_each() -> None:
    names = ["named", "pool", "random", "initial", "pool", "pool, near", "initial", "tpe, nearest"]
    trials = [{"id": i, "origin": name} for i, name in enumerate(names)]
    rows = [result(i, 0, 0.1 * i) for i in range(6)] + [result(1, 1, 0.3), result(4, 1, 0.2)]
    found = origins(trials, rows)
    assert [(one.origin, one.networks, one.rung, one.there, one.best) for one in found] == [
        ("named", 1, 0, 1, 0.0),
        ("initial", 2, 0, 1, pytest.approx(0.3)),
        ("random", 1, 0, 1, pytest.approx(0.2)),
        ("pool", 2, 1, 2, 0.3),
        ("pool, near", 1, 0, 1, 0.5),
        ("tpe, nearest", 1, None, 0, None),
    ]
    assert origins([], []) == ()


@pytest.mark.parametrize("spread", [0.05, 0.3])
@pytest.mark.parametrize("videos", [40, 1000])
def test_90_of_100_measurements_lie_within_what_was_rightly_expected(spread: float, videos: int) -> None:
    rng = np.random.default_rng(videos)
    jobs, rows = [], []
    for trial in range(1500):
        error = float(rng.uniform(0.1, 0.6))
        true = min(1.0, error * math.exp(rng.normal(0, spread)))
        jobs.append(job(trial, 0, (error, spread, 0.01)))
        rows.append(result(trial, 1, 1 - rng.binomial(videos, true) / videos, videos=videos))
    found = calibration(expectations(jobs, rows, 2))
    assert found is not None
    assert (found.expectations, found.networks) == (1500, 1500)
    assert found.share == pytest.approx(0.9, abs=0.035)
    assert found.low < found.share < found.high
    assert found.ratio == pytest.approx(1.0, abs=0.05)


def test_a_network_of_several_seeds_counts_once() -> None:
    """Trainings 0 to 5 are of three networks, each with two seeds."""
    rows = [{**result(i, rung, 0.1 * i + 0.01 * rung), "digest": f"d{i % 3}"} for i in range(6) for rung in range(2)]
    assert [one.networks for one in agreements(rows, 2)] == [3]
    assert [len(of) for of in rungs_of(rows).values()] == [3, 3]
    assert max(row["top1"] for row in rungs_of(rows)[0]) == pytest.approx(0.35)
    jobs = [{**job(i, 0, (0.5, 0.1, 0.01)), "digest": f"d{i % 3}"} for i in range(6)]
    told = calibration(expectations(jobs, rows, 2))
    assert told is not None and (told.expectations, told.networks) == (6, 3)
    study = {"name": "s", "seed": 0, "clip": "", "num_classes": 8, "data": {}, "config": {"search": {"rungs": [1, 3]}}}
    rows = [{**row, "chosen_by": None, "map_sample": None, "balanced": None} for row in rows]
    found = searched("s.db", study, rows, trials=6)
    assert sorted(found.accuracy) == pytest.approx([0.16, 0.26, 0.36])


@pytest.mark.parametrize("wrong", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("workers", [1, 4])
def test_intervals_adapt_to_how_the_model_fared(wrong: float, workers: int) -> None:
    """Of a model whose deviations are half or twice what they should be, 85 to 95 % of 150 intervals are right."""
    rng, spread = np.random.default_rng(5), 0.2
    jobs, rows = [], []
    for trial in range(150):
        error = float(rng.uniform(0.2, 0.4))
        true = error * math.exp(rng.normal(0, spread * wrong))
        times = {"started_at": f"t{trial:04}", "ended_at": f"t{trial + workers:04}"}
        jobs.append({**job(trial, 0, (error, spread, 0.01)), **times})
        rows.append(result(trial, 0, 1 - min(1.0, true), videos=10**6))
    found = expectations(jobs, rows, 1)
    told = calibration(found)
    assert told is not None and 0.85 <= told.share <= 0.95
    assert all(one.widening == 1.0 for one in found[:workers])
    late = statistics.mean(math.log(one.widening) for one in found[75:])
    assert late == pytest.approx(math.log(wrong), abs=0.35)
    untimed = expectations([{**one, "started_at": None} for one in jobs], rows, 1)
    assert {one.widening for one in untimed} == {1.0}


@pytest.mark.parametrize(
    ("error", "spread", "videos"), [(0.0, 0.0, 0), (0.0, 0.1, 50), (1.0, 2.0, 50), (1.7, 0.1, 9), (0.3, 1e9, 50)]
)
def test_an_interval_of_an_error_is_one_of_shares_whatever_was_expected(
    error: float, spread: float, videos: int
) -> None:
    low, high = interval(error, spread, videos)
    assert 0 <= low <= high <= 1


def test_an_expectation_is_counted_once_for_each_rung_and_held_against_the_last_one() -> None:
    stated = (0.5, 0.1, 0.02)
    jobs = [job(0, 0, stated), job(0, 0, stated), job(0, 1, (0.4, 0.05, 0.01)), job(1, 0, stated), job(2, 0)]
    rows = [result(0, 0, 0.2), result(1, 0, 0.5)]
    before = expectations(jobs, rows, 2)
    assert [(one.number, one.rung, one.measured) for one in before] == [(0, 0, None), (0, 1, None), (1, 0, None)]
    assert calibration(before) is None
    after = calibration(expectations(jobs, [*rows, result(0, 1, 0.62)], 2))
    assert after is not None
    assert (after.expectations, after.networks, after.inside) == (2, 1, 1)  # 0.38 is too far from 0.5, not from 0.4


def driver(kind: str, seconds: float, decided: float | None) -> CommandStart:
    """One start of a driver."""
    session = {"decide_seconds": decided}
    return CommandStart(session=session, kind=kind, alive=False, seen=datetime.now(UTC), seconds=seconds)


@pytest.mark.parametrize(
    ("drivers", "found"),
    [
        ([], None),
        ([("search", 100.0, None)], None),
        ([("search", 100.0, None), ("search", 50.0, 2.0), ("search", 10.0, 1.0), ("ablation", 9.0, None)], (3.0, 60.0)),
    ],
)
def test_decisions_are_shared_by_those_sessions_that_kept_their_time(drivers: list[Any], found: Any) -> None:
    assert deciding([driver(*one) for one in drivers]) == found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("plain") / "study.db", optuna=False)


@pytest.fixture(scope="module")
def expecting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search whose model said what it expects of the trials from 10 on; every third of them it got wrong."""
    path = made(tmp_path_factory.mktemp("expecting") / "study.db", optuna=False)
    rng = random.Random(0)
    with Store(path) as store:
        measured = {row["trial_id"]: 1 - row["top1"] for row in store.evaluations(1)}
        with store.write() as connection:
            took = {"started_at": s.now(), "ended_at": s.now(), "wall_seconds": 200.0, "decide_seconds": 5.0}
            s.insert(connection, m.session, study_id=1, workers=1, environment={}, **took)
            for trial in store.trials(1)[10:]:
                origin = "pool, near" if trial["number"] % 2 else "pool"
                connection.execute(m.trial.update().where(m.trial.c.id == trial["id"]).values(origin=origin))
                error = measured[trial["id"]] * (rng.uniform(0.95, 1.05) if trial["number"] % 3 else 1.8)
                stated = {"expected_error": error, "expected_spread": 0.1, "expected_gain": 0.0123}
                begun = {"rung": 0, "epochs": 1, "state": "done", "started_at": s.now()}
                s.insert(connection, m.job, trial_id=trial["id"], **begun, **stated)
    return path


def test_status_and_watch_say_what_a_search_has_learned(expecting: Path, run: Run) -> None:
    code, status, _ = run("status", expecting)
    assert code == 0
    _, watch, _ = run("watch", expecting, "--once")
    report = json.loads(run("status", expecting, "--json")[1])
    assert "budget: 57 epochs (asha; networks at the rungs: 40, 13, 4)" in status
    assert (report["epochs_total"], report["scheduler"], report["planned"]) == (57, "asha", [40, 13, 4])
    first, second, both = report["ranks"]
    assert (first["networks"], second["networks"], both["networks"]) == (13, 4, 4)
    said = f"1 with 2 epochs {first['correlation']:.2f} ("
    for out in (status, watch):
        assert f"rank correlation: {said}" in out
        assert "2 with 3 epochs too few (4 networks)" in out
        assert f"hypervolume: {report['hypervolume']['share']:.3f} after 3 epochs" in out
        assert "the reference is 5 % of the range beyond error 0.7" in " ".join(out.split())
        own = report["calibration"]
        assert f"calibration: {own['inside']} of {own['expectations']} within the 90 % interval" in out
    assert 0 < report["calibration"]["inside"] <= report["calibration"]["expectations"] <= 4
    assert "proposals: 10 random, 15 pool, 15 pool near" in watch
    assert [(one["origin"], one["networks"]) for one in report["proposals"]] == [
        ("random", 10), ("pool", 15), ("pool, near", 15)
    ]  # fmt: skip
    assert "pool near" in status
    assert "deciding what is trained: 5s, 2.5 % of the time of its sessions" in status
    assert report["deciding"] == {"seconds": 5.0, "of": 200.0}


def test_networks_stand_beside_what_was_expected_of_them(expecting: Path, plain: Path, run: Run) -> None:
    _, out, _ = run("status", expecting, "--trials")
    networks = json.loads(run("status", expecting, "--trials", "--json")[1])["networks"]
    assert "expected top-1" in out
    assert "expected" in networks[0] and networks[0]["expected"] is None
    one = networks[10]
    assert one["expected_low"] < one["expected"] < one["expected_high"]
    assert f"{one['expected']:.3f}  {one['expected_low']:.3f} to {one['expected_high']:.3f}" in out
    assert "0.012" in out
    rows = list(csv.DictReader(io.StringIO(run("export", expecting, "--table", "trials", "--csv")[1])))
    assert rows[0]["expected"] == ""
    assert float(rows[10]["expected"]) == pytest.approx(one["expected"])
    assert float(rows[10]["expected_gain"]) == 0.0123
    plainly = json.loads(run("status", plain, "--trials", "--json")[1])["networks"]
    assert not any("expected" in row for row in plainly)
    assert "expected" not in run("export", plain, "--table", "trials", "--csv")[1]


def test_a_search_without_a_model_shows_nothing_of_one(plain: Path, run: Run) -> None:
    for command in (("status", "--trials"), ("watch", "--once")):
        code, out, _ = run(command[0], plain, *command[1:])
        assert code == 0
        assert "hypervolume: " in out
        assert "calibration" not in out and "expected" not in out and "deciding" not in out
    report = json.loads(run("status", plain, "--json")[1])
    assert (report["calibration"], report["deciding"]) == (None, None)


def test_a_search_that_has_just_begun_has_learned_nothing(tmp_path: Path, run: Run) -> None:
    path = made(tmp_path / "study.db", rungs=0, optuna=False)
    with Store(path) as store, store.write() as connection:
        connection.execute(m.trial.delete().where(m.trial.c.number > 1))
        begun = {"rung": 0, "epochs": 1, "state": "running", "started_at": s.now()}
        s.insert(connection, m.job, trial_id=1, **begun, expected_error=0.4, expected_spread=0.1, expected_gain=0.1)
    for command in (("status", "--trials"), ("watch", "--once")):
        code, out, err = run(command[0], path, *command[1:])
        assert (code, err) == (0, "")
        assert "hypervolume" not in out and "rank correlation" not in out and "calibration" not in out
    assert learned_of([], [], [], 3).origins == ()
    with Store(path) as store, store.write() as connection:
        connection.execute(m.job.delete())
        connection.execute(m.trial.delete())
    assert run("status", path)[0] == run("watch", path, "--once")[0] == 0


@pytest.mark.parametrize("wide", widths.WIDTHS)
def test_no_line_is_wider_than_the_window(
    expecting: Path, run: Run, monkeypatch: pytest.MonkeyPatch, wide: int
) -> None:
    monkeypatch.chdir(expecting.parent)
    monkeypatch.setenv("COLUMNS", str(wide))
    tables = widths.record(monkeypatch)
    for command in (("status", "--trials"), ("watch", "--once")):
        out = run(command[0], expecting.name, *command[1:])[1]
        assert [line for line in out.splitlines()[1:] if len(line) > wide] == []
    assert tables
    assert widths.faults(tables) == []
