"""Fronts of several searches: what may be compared, bands over seeds, hypervolume with one reference."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.read.compare import Group, SearchFront, band_of, best_within, budgets, grouped, volumes
from nas.store import tables as m
from nas.store.database import Store
from nas.study.front import front
from tests.nas.read.conftest import Run
from tests.nas.read.made import kind_decides, made

ONE = SearchFront(
    path="a.db",
    study="a",
    seed=0,
    config={},
    clip="8x32x32",
    num_classes=4,
    checksum="c",
    epochs=9,
    num_clips=100,
    macs=(10, 20, 40),
    accuracy=(0.3, 0.2, 0.6),
)


def searches(count: int) -> st.SearchStrategy[list[SearchFront]]:
    points = st.lists(
        st.tuples(st.integers(1, 1000), st.integers(0, 50).map(lambda x: x / 50)), min_size=1, max_size=12
    )
    return st.lists(points, min_size=count, max_size=count).map(
        lambda found: [
            dataclasses.replace(
                ONE, path=f"{i}.db", seed=i, macs=tuple(m for m, _ in own), accuracy=tuple(t for _, t in own)
            )
            for i, own in enumerate(found)
        ]
    )


@given(searches(1), st.lists(st.integers(1, 1200), min_size=1, max_size=5))
def test_the_best_within_a_budget_is_the_best_of_what_it_pays_for(found: list[SearchFront], macs: list[int]) -> None:
    for budget, best in zip(macs, best_within(found[0], macs).tolist(), strict=True):
        inside = [t for m, t in zip(found[0].macs, found[0].accuracy, strict=True) if m <= budget]
        assert best == max(inside, default=-np.inf)


@given(searches(1))
def test_the_band_of_one_search_is_its_front(found: list[SearchFront]) -> None:
    one = found[0]
    band = band_of(Group(label="a", members=(one,)))
    assert band.median == band.low == band.high
    points = [(1 - top1, macs) for macs, top1 in zip(one.macs, one.accuracy, strict=True)]
    assert set(zip(band.macs, band.median, strict=True)) == {(one.macs[i], one.accuracy[i]) for i in front(points)}


@given(searches(4))
def test_a_band_lies_between_its_searches_and_never_falls(found: list[SearchFront]) -> None:
    band = band_of(Group(label="a", members=tuple(found)))
    each = np.array([best_within(one, band.macs) for one in found])
    assert np.isfinite(each).all()
    assert (np.array(band.low) <= np.array(band.median)).all()
    assert (np.array(band.median) <= np.array(band.high)).all()
    assert (each.min(axis=0) <= band.low).all() and (band.high <= each.max(axis=0)).all()
    assert np.median(each, axis=0).tolist() == pytest.approx(list(band.median))
    for values in (band.low, band.median, band.high):
        assert list(values) == sorted(values)


@given(searches(3))
def test_volumes_are_shares_of_one_box_and_more_networks_never_lower_them(found: list[SearchFront]) -> None:
    accuracy = (*found[0].accuracy, *found[1].accuracy)
    more = dataclasses.replace(found[0], path="more.db", macs=(*found[0].macs, *found[1].macs), accuracy=accuracy)
    shares = volumes([*found, more]).by_path
    assert all(0 <= share <= 1 + 1e-9 for share in shares.values())
    assert shares["more.db"] >= max(shares["0.db"], shares["1.db"]) - 1e-12


@given(searches(2))
def test_every_budget_of_the_table_can_be_paid_by_every_search(found: list[SearchFront]) -> None:
    groups = grouped([dataclasses.replace(one, study=f"s{i}") for i, one in enumerate(found)])
    for budget in budgets(groups):
        assert all(min(one.macs) <= budget for one in found)
    assert max(budgets(groups)) == max(max(one.macs) for one in found)


def better(settings: Mapping[str, Any], rung: int, rng: random.Random) -> float:
    return kind_decides(settings, rung, rng) + 0.1


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("compare")
    return {
        "a1": made(folder / "a1.db", seed=1, optuna=False),
        "a2": made(folder / "a2.db", seed=2, optuna=False),
        "b1": made(folder / "b1.db", seed=1, score=better, over={"search": {"sampler": "tpe"}}, optuna=False),
        "b2": made(folder / "b2.db", seed=2, score=better, over={"search": {"sampler": "tpe"}}, optuna=False),
        "short": made(folder / "short.db", seed=4, rungs=2, optuna=False),
        "data": made(folder / "data.db", seed=5, checksum="beef", optuna=False),
        "clip": made(folder / "clip.db", seed=6, over={"data": {"clip": {"frames": 8}}}, optuna=False),
        "empty": made(folder / "empty.db", seed=7, rungs=0, optuna=False),
    }


def test_seeds_of_one_study_are_a_band_and_other_settings_another_group(databases: dict[str, Path], run: Run) -> None:
    code, out, err = run("compare", *(databases[name] for name in ("a1", "a2", "b1", "b2")), "--json")
    assert code == 0, err
    report = json.loads(out)
    assert [[one["seed"] for one in group["searches"]] for group in report["groups"]] == [[1, 2], [1, 2]]
    assert [group["label"] for group in report["groups"]] == [
        "tiny (search.sampler=random)",
        "tiny (search.sampler=tpe)",
    ]
    (difference,) = report["differences"]
    assert difference["hypervolume"] > 0.02
    assert (difference["larger_in"], difference["common_seeds"]) == (2, 2)
    assert report["settings"] == {"search.sampler": ["random", "tpe"]}
    assert report["epochs"] == 3


def test_the_table_shows_bands_differences_and_the_reference(databases: dict[str, Path], run: Run) -> None:
    code, out, _ = run("compare", *(databases[name] for name in ("a1", "a2", "b1")))
    assert code == 0
    for text in (
        "best top-1 after 3 epochs, on 400 val clips of 4x16x16",
        "less the first",
        "hypervolume of error and log MACs, up to error",
        "tiny (search.sampler=tpe) less tiny (search.sampler=random): +0.",
        "in the median; larger in 1 of 1 common seeds",
        "differs in search.sampler: random, tpe",
    ):
        assert text in out


def test_unequal_budgets_are_no_band_and_are_said(databases: dict[str, Path], tmp_path: Path, run: Run) -> None:
    few = made(tmp_path / "few.db", seed=2, over={"search": {"trials": 20}}, optuna=False)
    code, out, _ = run("compare", databases["a1"], few)
    assert code == 0
    assert "differs in search.trials: 40, 20" in out
    (row,) = [line.split() for line in out.splitlines() if line.rstrip().endswith("few.db")]
    assert row[:5] == ["tiny", "(search.trials=20)", "2", "20", "28"]  # 20, 6 and 2 networks reach epochs 1, 2, 3
    report = json.loads(run("compare", databases["a1"], few, "--json")[1])
    assert [group["label"] for group in report["groups"]] == ["tiny (search.trials=40)", "tiny (search.trials=20)"]
    assert [one["epochs_trained"] for group in report["groups"] for one in group["searches"]] == [57, 28]
    assert report["settings"] == {"search.trials": ["40", "20"]}


def test_a_search_that_went_on_counts_what_it_has_tried(databases: dict[str, Path], tmp_path: Path, run: Run) -> None:
    longer = made(tmp_path / "longer.db", seed=3, optuna=False)
    store = Store(longer, create=True)
    config = store.study()["config"]
    with store.write() as connection:  # it began with 10, and the record keeps that
        connection.execute(m.study.update().values(config={**config, "search": {**config["search"], "trials": 10}}))
    store.close()
    code, out, _ = run("compare", databases["a1"], longer)
    assert (code, "differs in" in out) == (0, False)
    assert json.loads(run("compare", databases["a1"], longer, "--json")[1])["settings"] == {}


def test_unequal_fidelities_need_a_common_rung(databases: dict[str, Path], run: Run) -> None:
    code, _, err = run("compare", databases["a1"], databases["short"])
    assert code == 2
    assert "fronts are compared at equal training only, but it is 3 epochs in" in err
    assert "give --fidelity 2 (all have: 1, 2)" in err
    code, out, _ = run("compare", databases["a1"], databases["short"], "--fidelity", "2", "--json")
    assert (code, json.loads(out)["epochs"]) == (0, 2)
    code, _, err = run("compare", databases["a1"], databases["short"], "--fidelity", "3")
    assert code == 2
    assert "short.db has no rung of 3 epochs (epochs that it has: 1, 2)" in err


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a1", "data"], "fronts are compared on one data, by checksum, only, but it is c0ffee0000 in"),
        (["a1", "clip"], "fronts are compared on one clip only, but it is 4x16x16 in"),
        (["a1"], "a comparison needs two databases or more, but got 1"),
        (["a1", "b1", "a1"], "each database stands once, but"),
        (["a1", "empty"], "has no front yet; run `nas search` first"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    databases: dict[str, Path], run: Run, names: list[str], message: str
) -> None:
    for more in ([], ["--fidelity", "1"]):  # a common rung mends fidelities only
        if more and names[-1] == "empty":
            continue
        code, _, err = run("compare", *(databases[name] for name in names), *more)
        assert code == 2
        assert [line for line in err.splitlines() if line.startswith("error: ") and message in line]


def test_searches_by_different_accuracies_are_not_compared(
    databases: dict[str, Path], tmp_path: Path, run: Run
) -> None:
    other = tmp_path / "balanced.db"
    other.write_bytes(databases["b1"].read_bytes())
    with Store(other, create=True) as store, store.write() as connection:
        connection.execute(m.study.update().values(accuracy="balanced"))
        connection.execute(m.evaluation.update().values(balanced=0.5))
    code, _, err = run("compare", databases["a1"], other)
    assert code == 2
    assert "fronts are compared on one accuracy only, but it is top-1 in" in " ".join(err.split())


def test_one_seed_twice_is_no_band(databases: dict[str, Path], tmp_path: Path, run: Run) -> None:
    copy = tmp_path / "copy.db"
    copy.write_bytes(databases["a1"].read_bytes())
    code, _, err = run("compare", databases["a1"], copy)
    assert code == 2
    assert "both hold tiny with seed 1" in err


@pytest.mark.parametrize(
    ("name", "magic"), [("fronts.html", b"<html"), ("fronts.svg", b"<svg"), ("fronts.png", b"\x89PNG")]
)
def test_fronts_are_drawn_whole(databases: dict[str, Path], tmp_path: Path, run: Run, name: str, magic: bytes) -> None:
    code, out, err = run("compare", databases["a1"], databases["a2"], databases["b1"], "--plot", tmp_path / name)
    assert code == 0, err
    assert f"plot: {tmp_path / name}" in out
    assert magic in (tmp_path / name).read_bytes()[:40]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert run("compare", databases["a1"], databases["b1"], "--plot", tmp_path / "fronts.gif")[0] == 2
