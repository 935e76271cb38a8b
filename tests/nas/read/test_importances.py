"""Importances over a search: Optuna's, per rung, factor and pair; stored and shown alike."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.search import importance as module
from nas.search.importance import Forest, importances, keep
from nas.search.levels import MIN_NETWORKS
from nas.store.database import Store
from nas.train.session import locked
from tests.nas.read.conftest import Run
from tests.nas.read.made import made


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("importances") / "study.db")


def single(found: Any, method: str, objective: str = "accuracy") -> dict[str, float]:
    return {i.factor: i.importance for i in found if (i.method, i.objective, i.other) == (method, objective, "")}


def test_the_factor_that_decides_comes_first_by_both_methods(database: Path) -> None:
    store = Store(database)
    first = importances(store, store.study())[0]
    assert first.networks == 40
    for method in ("pedanova", "fanova"):
        found = single(first.found, method)
        assert max(found, key=lambda factor: found[factor]) == "kind.stage1"
        assert found["kind.stage1"] > 0.6
        assert set(found) == {"kind.stage0", "kind.stage1", "kernel"}
        assert list(found.values()) == sorted(found.values(), reverse=True)
    assert sum(single(first.found, "pedanova").values()) == pytest.approx(1)
    assert sum(i.importance for i in first.found if (i.method, i.objective) == ("fanova", "accuracy")) <= 1 + 1e-9
    assert first.forest_explains["accuracy"] > 0.7
    assert "PED-ANOVA of accuracy: beyond chance is kind.stage1" in first.notes


def test_what_is_only_dear_does_not_decide_at_equal_cost(tmp_path: Path) -> None:
    def by_cost(settings: Mapping[str, Any], rung: int, rng: random.Random) -> float:
        dear = {"2d": 0, "3d": 3, "2plus1d": 2, "p3d_a": 1, "p3d_b": 1.585}[settings["kind.stage0"]]
        kernel = 0.05 if settings.get("kernel") == 5 else 0.0
        return 0.3 + 0.15 * dear + kernel + rng.uniform(-0.003, 0.003)

    store = Store(made(tmp_path / "study.db", score=by_cost))
    first = importances(store, store.study())[0]
    assert single(first.found, "fanova")["kind.stage0"] > 0.7
    beyond = single(first.found, "fanova", "accuracy given MACs")
    assert beyond["kernel"] > beyond["kind.stage0"]
    assert first.cost_explains is not None and first.cost_explains > 0.8


def test_rungs_with_too_few_networks_say_how_many_are_needed(database: Path) -> None:
    store = Store(database)
    for rung in importances(store, store.study())[1:]:
        assert rung.networks < MIN_NETWORKS
        assert rung.found == ()
        assert rung.notes == (f"{rung.networks} networks with settings, and importances need {MIN_NETWORKS}",)


def test_noise_has_no_importances_by_fanova(tmp_path: Path) -> None:
    store = Store(made(tmp_path / "study.db", score=lambda settings, rung, rng: rng.random()))
    first = importances(store, store.study())[0]
    assert first.found == ()
    assert any(note.startswith("PED-ANOVA of accuracy is left out") for note in first.notes)
    assert any(note.startswith("fANOVA of accuracy is left out") for note in first.notes)


def test_nothing_decides_where_all_networks_are_equal(tmp_path: Path) -> None:
    store = Store(made(tmp_path / "study.db", score=lambda settings, rung, rng: 0.5))
    first = importances(store, store.study())[0]
    assert first.found == ()
    assert first.notes[0] == "every network has the same accuracy, so nothing decides"


def test_a_ledger_without_copies_for_optuna_is_named_not_guessed(tmp_path: Path) -> None:
    store = Store(made(tmp_path / "study.db", optuna=False))
    assert [rung.found for rung in importances(store, store.study())] == [(), (), ()]


def forest_of(target: Any, n: int = 400) -> Forest:
    rng = np.random.default_rng(0)
    sizes = {"a": 2, "b": 2, "c": 3}
    points = np.column_stack([rng.integers(size, size=n) for size in sizes.values()]).astype(float)
    return Forest(points, target(points), sizes)


def test_what_two_factors_do_only_together_is_in_their_pair() -> None:
    forest = forest_of(lambda x: (x[:, 0] != x[:, 1]).astype(float))
    assert forest.pairs()["a", "b"] > 0.95
    assert max(forest.singles().values()) < 0.02
    assert forest.unseen > 0.95


def test_what_factors_add_is_in_them_and_not_in_pairs() -> None:
    forest = forest_of(lambda x: 2.0 * x[:, 0] + x[:, 2])
    singles = forest.singles()
    assert max(forest.pairs().values()) < 1e-3
    assert singles["a"] == pytest.approx(1 / (1 + 2 / 3), abs=0.01)  # variances 1 and 2/3
    assert singles["c"] == pytest.approx((2 / 3) / (1 + 2 / 3), abs=0.01)


def test_single_factors_of_the_forest_are_those_of_optuna(database: Path) -> None:
    store = Store(database)
    row = store.study()
    storage = module.RDBStorage(f"sqlite:///{database}")
    trials = module.optuna.load_study(study_name=f"{row['name']}/rung-0-1-epochs", storage=storage).get_trials()
    choices = module._choices(trials)
    forest, singles = module._fanova(trials, choices, np.array([trial.values[0] for trial in trials]))
    assert forest.singles() == pytest.approx(singles)
    storage.engine.dispose()


def test_factors_that_do_not_apply_are_a_level_of_their_own(database: Path) -> None:
    """The kernel is not asked for where both stages are 2d."""
    store = Store(database)
    levels = [json.loads(json.dumps(row["settings"])) for row in store.evaluations(1) if row["rung"] == 0]
    assert any("kernel" not in settings for settings in levels)
    assert "kernel" in single(importances(store, store.study())[0].found, "fanova")


def test_the_view_shows_what_the_command_shows(database: Path, run: Run) -> None:
    for _ in range(2):  # the second time replaces the first
        code, out, err = run("importance", database, "--json")
        assert code == 0, err
    report = json.loads(out)
    assert report["stored"]
    shown = [item for rung in report["rungs"] for item in rung["found"]]
    plain = sqlite3.connect(database)
    try:
        names = ("rung", "epochs", "method", "objective", "factor", "other", "importance", "networks")
        stored = plain.execute(f"SELECT {', '.join(names)} FROM importance").fetchall()
    finally:
        plain.close()
    key = ("rung", "method", "objective", "factor", "other")
    assert sorted(stored) == sorted(tuple(item[name] for name in names) for item in shown)
    assert len({tuple(item[name] for name in key) for item in shown}) == len(shown)


def test_a_search_that_holds_the_database_is_left_alone(tmp_path: Path, run: Run) -> None:
    database = made(tmp_path / "study.db")
    with locked(database):
        code, out, _ = run("importance", database)
        assert code == 0
        assert "kind.stage1" in out
        assert out.rstrip().endswith("not stored: a running search holds the database")
        assert not json.loads(run("importance", database, "--json")[1])["stored"]
    assert Store(database).view("importance", "tiny") == []
    assert keep(database, importances(Store(database), Store(database).study())[0].found) is None
    assert Store(database).view("importance", "tiny")


def test_the_command_prints_importances_effects_and_fronts(database: Path, run: Run) -> None:
    code, out, _ = run("importance", database)
    assert code == 0
    for text in (
        "tiny, rung 0 (1 epoch): importance of settings for top-1, 40 networks",
        "PED-ANOVA given MACs",
        "tiny, rung 1 (2 epochs): 13 networks with settings, and importances need 20",
        "what levels earn after 1 epoch (rung 0)",
        "the front if only one level were allowed, after 3 epochs (rung 2)",
    ):
        assert text in out
    report = json.loads(run("importance", database, "--json")[1])
    assert {effect["rung"] for effect in report["effects"]} == {0, 1}
    assert {front["rung"] for front in report["marginal_fronts"]} == {2}


def test_a_search_without_results_says_so(tmp_path: Path, run: Run) -> None:
    database = made(tmp_path / "study.db", rungs=0)
    assert run("importance", database)[1] == "tiny: no network has reached a rung yet\n"
