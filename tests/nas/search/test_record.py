"""What a driver holds in memory is at any moment what its database says, and the copies for Optuna are whole.

Searches here train nothing: results are drawn, some jobs fail or are cut short, and drivers are stopped at any moment.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from nas.errors import StoreError
from nas.search import driver
from nas.search import optuna_copies as rungs
from nas.search.budget import budget_of
from nas.search.pool import CandidatePool, build_pool
from nas.search.record import Record
from nas.search.sampler import STARTUP, History
from nas.search.scheduler import spent
from nas.store.database import Store
from nas.study.files import load_study
from nas.study.study import Study
from nas.train import crew
from nas.train.executors import InProcess, WorkerLost
from nas.train.jobs import JobResult
from tests.nas.studies import write_study
from trainer.metrics import EpochResult, Metrics

KINDS = {"values": ["2d", "3d", "p3d_a", "p3d_b"], "per": "block"}
OVER: dict[str, Any] = {
    "data": {"root": "none"},
    "space": {"domains": {"depth": ["1-1", "2-2"], "kind": KINDS}},
    "search": {"trials": 50, "initial": 5, "strata": 2, "rungs": [1, 3, 6]},
}


class Simulated(InProcess):
    """Trains nothing; a job's outcome hangs on its folder and on how often it was tried.

    Args:
        slots: Jobs at a time.
        harm: Share of jobs that fail, and of those whose worker dies.
    """

    def __init__(self, slots: int, harm: float) -> None:
        self.slots = slots
        self.harm = harm
        self.tries: dict[str, int] = {}

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """What comes of the job."""
        task = args[0]
        name = f"{Path(task.folder).name} {task.until_epoch}"
        self.tries[name] = self.tries.get(name, 0) + 1
        rng = random.Random(f"{name} {self.tries[name]}")
        future: Future[Any] = Future()
        if rng.random() < self.harm:
            future.set_exception(WorkerLost("worker 0 died"))
        elif rng.random() < self.harm:
            future.set_result(JobResult(epochs=(), seconds=1.0, reason="out_of_memory", detail="out of memory"))
        else:
            future.set_result(JobResult(epochs=tuple(map(_epoch(task), range(1, task.until_epoch + 1))), seconds=1.0))
        return future


def _epoch(task: Any) -> Callable[[int], EpochResult]:
    luck = int(hashlib.sha256(task.spec.encode()).hexdigest()[:4], 16) / 16**4

    def result(epoch: int) -> EpochResult:
        top1 = round(40 * luck * epoch / (epoch + 1)) / 40
        val = Metrics(top1=top1, top5=1.0, loss=1.0 - top1, num_clips=40)
        return EpochResult(epoch=epoch, train_loss=1.0, lr=0.1, seconds=0.1, steps=1, clips_per_s=9.0, val=val)

    return result


def study_at(folder: Path, over: dict[str, Any] | None = None) -> tuple[Study, CandidatePool]:
    """A study of some hundred small networks, and its pool."""
    study = load_study(write_study(folder / "tiny.yaml", OVER), [f"{k}={v}" for k, v in (over or {}).items()])
    return study, build_pool(study, num_classes=8)


@contextlib.contextmanager
def driver_of(study: Study, pool: CandidatePool, path: Path, listener: Any = lambda news: None) -> Any:
    """A driver with its database open, which is made where it is not there."""
    with Store(path, create=True) as store:
        if not store.studies():
            values = {"clip": study.data.shape, "num_classes": 8, "config": study.config, "data": {"checksum": "none"}}
            store.add_study(name=study.name, seed=study.seed, **values)
        yield driver.Driver(study, path, store, store.study(), pool, crew.Crew(0), listener)


def check_same(mine: Record, other: Record) -> None:
    """Holds a record in memory against one that was just read."""
    assert mine.ledger() == other.ledger()
    assert (mine.trials, mine.digests) == (other.trials, other.digests)
    assert [list(trial.settings) for trial in mine.trials] == [list(trial.settings) for trial in other.trials]
    assert (mine.jobs, mine.running) == (other.jobs, other.running)
    assert mine.history(STARTUP) == other.history(STARTUP)
    assert (mine.results, mine.pending(), mine.gains) == (other.results, other.pending(), other.gains)
    for number in range(len(mine.trials)):
        assert mine.epochs_of(number) == len(mine.store.epochs(mine.trials[number].id))
    for job in mine.jobs.values():
        assert mine.times_preempted(job, str(job.reason), str(job.detail)) == other.times_preempted(
            job, str(job.reason), str(job.detail)
        )


def rows_of_optuna(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What Optuna's tables of trials hold, save when."""
    columns = {
        "trials": "trial_id, number, study_id, state",
        "trial_values": "trial_id, objective, value, value_type",
        "trial_params": "trial_id, param_name, param_value, distribution_json",
        "trial_user_attributes": "trial_id, key, value_json",
    }
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {name: list(connection.execute(f"SELECT {what} FROM {name}")) for name, what in columns.items()}


SEARCHES = [
    ("random", "asha", "hypervolume", 1),
    ("tpe", "asha", "fronts", 3),
    ("pool", "asha", "hypervolume", 2),
    ("optuna:QMCSampler", "asha", "hypervolume", 2),
    ("{optuna: TPESampler, multivariate: true, group: true}", "none", "hypervolume", 2),
    ("pool", "freeze_thaw", "hypervolume", 1),
    ("pool", "freeze_thaw", "hypervolume", 3),
    ("random", "hyperband", "hypervolume", 2),
    ("random", "iepoch", "hypervolume", 2),
    ("random", "none", "hypervolume", 2),
]


@pytest.mark.parametrize(("sampler", "scheduler", "order", "slots"), SEARCHES)
def test_every_decision_is_that_of_a_record_that_was_just_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, scheduler: str, order: str, slots: int
) -> None:
    """Also after interrupts: it is a function of the study, of what is stored and of the seed."""
    over = {"search.sampler": sampler, "search.scheduler": scheduler, "search.order": order}
    study, pool = study_at(tmp_path, over)
    executor = Simulated(slots, harm=0.1)
    monkeypatch.setattr(crew, "executor", lambda workers: executor)
    decisions, own = [0], list[Any]()

    def read() -> Record:
        return Record(own[-1].store, own[-1].row, study.search.objectives, study.search.rungs)

    decide = driver.Decider.decide

    def checked(self: driver.Decider, ledger: Any, seen: Any) -> Any:
        other = read()
        check_same(own[-1].record, other)
        decisions[0] += 1
        decision = decide(self, ledger, seen)
        if decisions[0] % 5 == 0:
            fresh = driver.Decider(study.search, study.space, own[-1].supply, study.seed)
            again = History(
                digests=other.digests,
                networks=seen.networks,
                results=other.results,
                pending=other.pending(),
                history=other.history(STARTUP),
                gains=other.gains,
            )
            assert decision == decide(fresh, other.ledger(), again)
        return decision

    monkeypatch.setattr(driver.Decider, "decide", checked)
    stops = iter([5, 20, 33])

    def stopper() -> Any:
        left, heard = next(stops, None), [0]

        def listen(news: Any) -> None:
            heard[0] += news.kind != "tick"
            if left is not None and heard[0] > left:
                raise KeyboardInterrupt

        return listen

    for _ in range(4):
        with driver_of(study, pool, tmp_path / "study.db", stopper()) as one:
            own.append(one)
            with contextlib.suppress(KeyboardInterrupt):
                summary = one.run()
            check_same(one.record, read())
    assert summary.failed and decisions[0] > 50
    ends = study.search.rungs
    if scheduler == "freeze_thaw":
        assert spent(one.record.ledger(), ends) <= budget_of(study.search).epochs
        assert summary.counts[-1] >= 3
        started = [job for job in one.record.jobs.values() if job.rung == 0]
        assert any(job.expected is not None for job in started)
        assert not any(job.expected for job in started[: study.search.initial])
    else:
        assert summary.counts[0] + summary.failed >= 50
    if scheduler == "none":
        assert summary.counts[-1] + summary.failed >= 50
    assert len(set(one.record.digests)) == len(one.record.digests)
    with Store(tmp_path / "study.db") as store:
        evaluations = store.evaluations(1)
        assert {row["reason"] for row in store.jobs(1, "preempted")} >= {"worker_died", "interrupted"}
    notes = rows_of_optuna(tmp_path / "study.db")["trial_user_attributes"]
    assert sorted(int(text) for _, key, text in notes if key == "evaluation") == [row["id"] for row in evaluations]


def test_the_store_is_read_once_however_long_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "executor", lambda workers: Simulated(2, harm=0.0))
    reads, rows, counts = [0], Store.rows, list[int]()

    def counted(self: Store, query: Any) -> Any:
        reads[0] += 1
        return rows(self, query)

    monkeypatch.setattr(Store, "rows", counted)
    for trials in (10, 60):
        study, pool = study_at(tmp_path, {"search.trials": trials})
        reads[0] = 0
        with driver_of(study, pool, tmp_path / f"{trials}.db") as one:
            assert one.run().counts[0] == trials
        counts.append(reads[0])
        with Store(tmp_path / f"{trials}.db") as store:
            (session,) = store.sessions(1)
            assert 0 < session["decide_seconds"] < session["wall_seconds"]
    assert counts[0] == counts[1]


def test_copies_for_optuna_are_to_the_letter_those_of_its_own_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "executor", lambda workers: Simulated(1, harm=0.1))
    study, pool = study_at(tmp_path, {"search.trials": 20, "search.objectives": "[error, macs, params]"})
    with driver_of(study, pool, tmp_path / "study.db") as one:
        one.run()
    with Store(tmp_path / "study.db") as store:
        evaluations = store.evaluations(1)
    found = []
    for name, known in (("bulk", True), ("own", False)):
        if not known:
            monkeypatch.setattr(rungs, "can_write", lambda storage: False)
        path = tmp_path / f"{name}.db"
        search = study.search
        for part in (evaluations[:9], evaluations):  # the second adds what is missing
            copies = rungs.OptunaCopies(str(path), study.name, search.fidelity, search.objectives, study.space)
            assert bool(copies._writers) == known
            copies.sync(part)
            copies.close()
        found.append({table: sorted(rows) for table, rows in rows_of_optuna(path).items()})
    assert found[0] == found[1]
    assert len(found[0]["trials"]) == len(evaluations)


def test_copies_that_a_driver_could_not_make_are_made_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "executor", lambda workers: Simulated(1, harm=0.0))
    study, pool = study_at(tmp_path, {"search.trials": 12})
    sync = rungs.OptunaCopies.sync

    def refused(self: rungs.OptunaCopies, rows: Any) -> None:
        if list(rows):
            raise StoreError("the disk is full")

    monkeypatch.setattr(rungs.OptunaCopies, "sync", refused)
    with driver_of(study, pool, tmp_path / "study.db") as one, pytest.raises(StoreError, match="the disk is full"):
        one.run()
    assert not rows_of_optuna(tmp_path / "study.db")["trials"]
    monkeypatch.setattr(rungs.OptunaCopies, "sync", sync)
    with driver_of(study, pool, tmp_path / "study.db") as one:
        counts = one.run().counts
    assert counts == (12, 4, 1)
    assert len(rows_of_optuna(tmp_path / "study.db")["trials"]) == sum(counts)
