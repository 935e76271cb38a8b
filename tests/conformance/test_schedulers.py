"""Conformance of schedulers: what holds of every search, whatever its networks turn out to be."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.search.decisions import decide_on_table
from nas.search.budget import budget_of
from nas.search.curves import Curve
from nas.search.decide import Decider
from nas.search.driver import Driver, Summary
from nas.search.estimate import expected_front
from nas.search.ledger import Entry, Ledger
from nas.search.pool import Supply, build_pool
from nas.search.scheduler import spent
from nas.search.simulation import CurveTable, TableCrew
from nas.store.database import Store
from nas.store.records import Row
from nas.study.files import load_study
from nas.study.objectives import floors_of
from nas.study.samplers import sampler_of
from nas.study.schema import SCHEDULERS
from nas.study.study import Study
from nas.train.crew import Crew
from nas.train.jobs import JobResult
from tests.nas.studies import write_study

SEARCHES: dict[str, dict[str, Any]] = {
    **{name: {"scheduler": name, "sampler": "random"} for name in SCHEDULERS if name != "freeze_thaw"},
    "freeze_thaw": {"scheduler": "freeze_thaw", "sampler": "pool"},
    "freeze_thaw, repeats": {"scheduler": "freeze_thaw", "sampler": "pool", "repeats": 2},
}
OBJECTIVES = (["error"], ["error", "macs"], ["error", "macs", "params"])
RUNGS = [1, 3, 9]


class Crews(TableCrew):
    """Trains by a table; some trainings fail, but for the first ones, without which a search gives up."""

    failing: float = 0.0

    def collect(self) -> list[tuple[int, JobResult]]:
        """The next job that ends, or fails."""
        _, _, task = min(self._jobs)
        ((job, result),) = super().collect()
        if (
            int(Path(task.folder).name[:5]) > 2
            and random.Random(f"{task.spec} {task.seed} {task.until_epoch}").random() < self.failing
        ):
            self.ended.pop()
            return [(job, JobResult(epochs=(), seconds=1.0, reason="non_finite_loss", detail="the loss is nan"))]
        return [(job, result)]


@pytest.fixture(scope="module")
def study_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Study]:
    """A study for each scheduler."""
    folder, found = tmp_path_factory.mktemp("studies"), dict[str, Study]()
    for number, (name, search) in enumerate(SEARCHES.items()):
        over = {"search": {"trials": 24, "initial": 4, "rungs": RUNGS, **search}, "constraints": ["macs <= 900k"]}
        found[name] = load_study(write_study(folder / f"{number}.yaml", over))
    return found.__getitem__


def curves_of(study: Study, kind: str, seed: int) -> list[Curve]:
    """Made-up curves of three seeds: by chance, all alike, all at chance until the end, or all right."""
    found = []
    for candidate in build_pool(study, num_classes=8).candidates:
        own = random.Random(f"{seed} {candidate.digest}")
        level = own.random()
        for of in range(3):
            wrong = [level * (0.5 + 2 / epoch) / 2.5 + own.gauss(0, 0.02) for epoch in range(1, RUNGS[-1] + 1)]
            top1 = {
                "curves": [round(80 * min(1.0, max(0.0, 1 - one))) / 80 for one in wrong],
                "alike": [0.5] * RUNGS[-1],
                "late": [0.125] * (RUNGS[-1] - 1) + [round(80 * level) / 80],
                "right": [1.0] * RUNGS[-1],
            }[kind]
            count = len(top1)
            found.append(
                Curve(
                    digest=candidate.digest,
                    seed=of,
                    top1=tuple(top1),
                    loss=(1.0,) * count,
                    seconds=(1.0 + level,) * count,
                    videos=80,
                )
            )
    return found


def searched(
    table: CurveTable, folder: Path, *, seed: int, workers: int, failing: float = 0.0, stops: tuple[int, ...] = ()
) -> tuple[Summary, Store, Row]:
    """A search on a table, stopped after so many of its news and taken up again."""
    study, database = replace(table.study, seed=seed), folder / "study.db"
    with Store(database, create=True) as store:
        store.add_study(
            name=study.name,
            seed=seed,
            clip=study.data.shape,
            num_classes=8,
            config=json.loads(json.dumps({**study.config, "seed": seed})),
            data={"checksum": "table", "classes": [], "clips": {}},
        )
    for stop in (*stops, None):
        heard = [0]

        def listen(news: Any, stop: int | None = stop, heard: list[int] = heard) -> None:
            heard[0] += news.kind in ("start", "promote", "result", "fail")
            if stop is not None and heard[0] >= stop:
                raise KeyboardInterrupt

        crew = Crews(table, workers)
        crew.failing = failing
        with Store(database, create=True) as store:
            row = store.study(study.name)
            driver = Driver(study, database, store, row, table.pool, cast(Crew, crew), listen, table.scores)
            with contextlib.suppress(KeyboardInterrupt):
                summary = driver.run()
                assert spent(driver.record.ledger(), study.search.rungs) <= budget_of(study.search).epochs
    return summary, Store(database), row


def decisions(store: Store) -> list[tuple[str, int, str, int, float | None]]:
    """What was begun or gone on with, in order: without what was taken up again."""
    trials = {row["number"]: row for row in store.trials(1)}
    gains: dict[tuple[int, int], float | None] = {}
    for job in store.jobs(1):
        gains.setdefault((job["number"], job["rung"]), job["expected_gain"])
    return [
        (e["kind"], e["trial"], trials[e["trial"]]["digest"], e["rung"], gains[e["trial"], e["rung"]])
        for e in store.events(1)
        if e["kind"] in ("start", "promote")
    ]


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["curves", "alike", "late", "right"]),
    objectives=st.sampled_from(OBJECTIVES),
    seed=st.integers(0, 5),
    workers=st.integers(1, 4),
    failing=st.sampled_from([0.0, 0.2]),
)
@pytest.mark.parametrize("name", SEARCHES)
def test_what_holds_of_every_search(
    study_of: Callable[[str], Study],
    name: str,
    kind: str,
    objectives: list[str],
    seed: int,
    workers: int,
    failing: float,
) -> None:
    study = study_of(name)
    study = replace(
        study,
        search=replace(study.search, objectives=tuple(objectives)),
        config={**study.config, "search": {**study.config["search"], "objectives": objectives}},
    )
    table = CurveTable(study, curves_of(study, kind, seed))
    found = []
    for _ in range(2):
        with TemporaryDirectory() as folder:
            summary, store, row = searched(table, Path(folder), seed=seed, workers=workers, failing=failing)
            with contextlib.closing(store):
                found.append(decisions(store))
                trials, jobs = store.trials(1), store.jobs(1)
                evaluations, front = store.evaluations(1), store.front(row["name"])
    assert found[0] == found[1]  # a function of the study and the seed
    assert summary.failed == sum(trial["state"] == "failed" for trial in trials)
    assert {trial["state"] for trial in trials} <= {"stopped", "finished", "failed"}
    check_trials(study, trials, evaluations)
    by_trial: dict[int, list[int]] = {}
    for job in jobs:
        by_trial.setdefault(job["trial_id"], []).append(job["rung"])
    for rungs in by_trial.values():
        assert rungs == sorted(set(rungs))  # none twice, none back
    assert all(candidate.cost.macs <= 900_000 for candidate in table.pool.candidates)
    top = max((one["rung"] for one in evaluations), default=0)
    seeds = {
        one["digest"]: sum(e["digest"] == one["digest"] and e["rung"] == top for e in evaluations) for one in front
    }
    assert {one["digest"]: one["seeds"] for one in front} == seeds


def check_trials(study: Study, trials: list[Row], evaluations: list[Row]) -> None:
    """No network twice but by a repeat: with another seed, of one that was measured at the last rung."""
    whole = {e["digest"] for e in evaluations if e["rung"] == len(study.search.rungs) - 1}
    first: dict[str, int] = {}
    for trial in sorted(trials, key=lambda trial: trial["number"]):
        assert (trial["origin"] == "repeat") == (trial["digest"] in first)
        first[trial["digest"]] = first.get(trial["digest"], -1) + 1
        assert trial["seed"] == trials[0]["seed"] + first[trial["digest"]]
        assert trial["origin"] != "repeat" or trial["digest"] in whole
    assert max(first.values(), default=0) <= study.search.repeats
    assert len(trials) <= study.search.trials


@pytest.mark.parametrize("name", SEARCHES)
def test_a_search_that_was_stopped_decides_as_if_it_had_not_been(
    study_of: Callable[[str], Study], name: str, tmp_path: Path
) -> None:
    table = CurveTable(study_of(name), curves_of(study_of(name), "curves", 1))
    found = []
    for stops in ((), (1, 7, 12, 13)):
        folder = tmp_path / str(len(stops))
        folder.mkdir()
        _, store, _ = searched(table, folder, seed=2, workers=1, failing=0.1, stops=stops)
        with contextlib.closing(store):
            found.append(decisions(store))
    assert found[0] == found[1]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_repeat_that_was_begun_is_trained_to_the_last_rung(
    study_of: Callable[[str], Study], tmp_path: Path, workers: int
) -> None:
    study = study_of("freeze_thaw, repeats")
    found = 0
    for seed in range(3):
        table = CurveTable(replace(study, search=replace(study.search, trials=30)), curves_of(study, "curves", seed))
        folder = tmp_path / str(seed)
        folder.mkdir()
        _, store, _ = searched(table, folder, seed=seed, workers=workers)
        with contextlib.closing(store):
            repeats = [trial["state"] for trial in store.trials(1) if trial["origin"] == "repeat"]
        assert set(repeats) <= {"finished"}
        found += len(repeats)
    assert found


@pytest.mark.parametrize(("name", "initial"), [("freeze_thaw", 4), ("none", 14)])
def test_a_search_does_not_settle_while_all_are_at_chance(
    study_of: Callable[[str], Study], tmp_path: Path, name: str, initial: int
) -> None:
    """Most networks are at chance, and a few are not: that the first ones were equal says nothing of the rest."""
    study = study_of(name)
    search = replace(study.search, sampler=sampler_of("pool"), patience=1, initial=initial, trials=60)
    for seed in range(4):
        good = random.Random(seed).sample([one.digest for one in build_pool(study, num_classes=8).candidates], 3)
        curves = [
            replace(curve, top1=(0.9 if curve.digest in good else 0.125,) * RUNGS[-1], videos=400)
            for curve in curves_of(study, "curves", 0)
        ]
        folder = tmp_path / str(seed)
        folder.mkdir()
        _, store, _ = searched(CurveTable(replace(study, search=search), curves), folder, seed=seed, workers=1)
        with contextlib.closing(store):
            assert max(row["top1"] for row in store.evaluations(1)) == 0.9


@pytest.mark.parametrize("scheduler", ["iepoch", "asha"])
def test_a_search_that_settles_still_trains_its_best_in_full(tmp_path: Path, scheduler: str) -> None:
    """That nothing new is expected says nothing of those that were promised to go on."""
    over = {
        "space": {"domains": {"depth": ["2-2"], "kind": {"values": ["2d", "3d", "2plus1d"], "per": "block"}}},
        "search": {
            "sampler": "pool", "scheduler": scheduler, "trials": 70, "rungs": [1, 2], "initial": 3, "patience": 2,
        },
    }  # fmt: skip
    study = load_study(write_study(tmp_path / "t.yaml", over))
    pool = build_pool(study, num_classes=8)
    cheapest = min(one.cost.macs for one in pool.candidates)
    decider = Decider(study.search, study.space, Supply(study, pool, num_classes=8), study.seed)
    ledger = decide_on_table(
        decider,
        num_rungs=2,
        costs=("macs",),
        train=lambda one, rung: (0.02 if one.cost.macs == cheapest else 0.6, 2000),
    )
    first, last = ledger.counts(2)
    assert first < 70, "it did not settle"
    assert last == first // 3


def test_what_begins_without_rungs_can_be_trained_to_the_end(study_of: Callable[[str], Study], tmp_path: Path) -> None:
    study = study_of("none")
    table = CurveTable(replace(study, search=replace(study.search, max_epochs=20)), curves_of(study, "curves", 0))
    for workers in (1, 3):
        folder = tmp_path / str(workers)
        folder.mkdir()
        summary, store, _ = searched(table, folder, seed=0, workers=workers)
        store.close()
        assert summary.counts == (2, 2, 2)


def test_freeze_thaw_trains_something_whatever_little_was_asked_for(
    study_of: Callable[[str], Study], tmp_path: Path
) -> None:
    study = study_of("freeze_thaw")
    table = CurveTable(replace(study, search=replace(study.search, trials=2)), curves_of(study, "curves", 0))
    summary, store, _ = searched(table, tmp_path, seed=0, workers=1)
    store.close()
    assert summary.counts[-1] == 1


def test_the_strictest_of_several_constraints_counts(study_of: Callable[[str], Study]) -> None:
    study = study_of("freeze_thaw")
    floors = floors_of(["accuracy >= 0.8", "accuracy >= 0.5"], study.search.objectives, "auto")
    supply = Supply(study, build_pool(study, num_classes=8), num_classes=8)
    decider = Decider(replace(study.search, floors=floors), study.space, supply, study.seed)
    assert decider._model.most == (pytest.approx(0.2),)


def test_failures_count_as_spent() -> None:
    entries = [
        Entry(number=0, stratum=0, results=((0.5,),), failed=True),
        Entry(number=1, stratum=0, failed=True),
        Entry(number=2, stratum=0, results=((0.5,),), running=True),
        Entry(number=3, stratum=0, results=((0.5,), (0.4,))),
    ]
    assert spent(Ledger(entries), (1, 3, 9)) == 3 + 1 + 3 + 3


def test_a_lucky_network_is_trained_again_and_its_mean_counts(study_of: Callable[[str], Study], tmp_path: Path) -> None:
    study = study_of("freeze_thaw, repeats")
    study = replace(study, search=replace(study.search, trials=60))
    table = CurveTable(study, curves_of(study, "curves", 4))
    _, store, row = searched(table, tmp_path, seed=0, workers=1)
    with contextlib.closing(store):
        repeats = [trial for trial in store.trials(1) if trial["origin"] == "repeat"]
        assert repeats
        finished = {trial["digest"] for trial in repeats if trial["state"] == "finished"}
        assert finished
        for one in store.front(row["name"]):
            own = [e["top1"] for e in store.evaluations(1) if e["digest"] == one["digest"] and e["rung"] == 2]
            assert one["seeds"] == len(own)
            assert one["accuracy"] == pytest.approx(sum(own) / len(own))
        assert any(job["expected_gain"] for job in store.jobs(1) if job["number"] == repeats[0]["number"])


def test_what_is_expected_of_networks_does_not_follow_one_lucky_seed(
    study_of: Callable[[str], Study], tmp_path: Path
) -> None:
    """A network that was lucky once at the last rung is expected to be as good as its likes."""
    study = study_of("none")
    table = CurveTable(study, curves_of(study, "alike", 0))
    _, store, row = searched(table, tmp_path, seed=0, workers=1)
    with contextlib.closing(store):
        evaluations = [dict(one) for one in store.evaluations(1)]
        specs = {one["digest"]: one["spec"] for one in store.architectures(row["clip"], row["num_classes"])}
    top = [one for one in evaluations if one["rung"] == 2]
    assert len(top) > 5
    lucky = top[3]
    lucky["top1"] = 0.8
    found = expected_front(evaluations, specs, ("error", "macs"))
    assert all(one["expected_low"] < one["expected"] < one["expected_high"] for one in found)
    own = [one for one in found if one["digest"] == lucky["digest"]]
    assert [one["accuracy"] for one in own] in ([], [0.8])
    assert all(one["expected"] < 0.75 for one in own)
    assert expected_front([], {}, ("error", "macs")) == []


def test_freeze_thaw_holds_a_gain_against_all_epochs_to_the_last_rung(study_of: Callable[[str], Study]) -> None:
    """By those of the next rung alone a new network is always the cheapest, and none goes on."""
    study = study_of("freeze_thaw")
    pool = build_pool(study, num_classes=8)
    supply, candidate = Supply(study, pool, num_classes=8), pool.candidates[0]
    for unit, factor in (("epochs", 1), ("macs", candidate.cost.train_macs)):
        decider = Decider(replace(study.search, step_cost=unit), study.space, supply, study.seed)
        assert [decider._cost(candidate, rung) for rung in range(3)] == [9 * factor, 8 * factor, 6 * factor]
