"""The search's side of the store: what the driver writes, one transaction a decision, and the ledger read back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nas import store as s
from nas import tables as m
from nas.accuracies import accuracy_of
from nas.jobs import JobResult
from nas.search.ledger import Entry, Ledger, ledger_of
from nas.search.pool import Candidate
from nas.search.sampler import Observation
from nas.store import Row, Store


class Record:
    """Trials, jobs, evaluations and events of one study.

    Args:
        store: The database, open for writing.
        study: The study's row.
        objectives: Names of the objectives, `error` first.
        rungs: Epochs of each rung.
    """

    def __init__(self, store: Store, study: Row, objectives: Sequence[str], rungs: Sequence[int]) -> None:
        """Nothing is read yet."""
        self.store = store
        self.study = study
        self.objectives = tuple(objectives)
        self.rungs = tuple(rungs)

    def ledger(self) -> Ledger:
        """What the scheduler decides on."""
        results = self._results()
        return ledger_of(
            Entry(
                number=row["number"],
                stratum=row["stratum"],
                results=tuple(results.get(row["number"], ())),
                running=row["state"] in ("running", "preempted"),  # it goes on before anything is decided
                failed=row["state"] == "failed",
            )
            for row in self.store.trials(self.study["id"])
        )

    def history(self, startup: int) -> list[Observation]:
        """What a sampler learns from: results at the highest rung that has `startup` of them, else at the lowest.

        Trials that have not got so far are left out, save those in their first training, which are observations without
        result.
        """
        results = self._results()
        counts = [sum(len(r) > rung for r in results.values()) for rung in range(len(self.rungs))]
        rung = max((i for i, count in enumerate(counts) if count >= startup), default=0)
        history = []
        for row in self.store.trials(self.study["id"]):
            reached = results.get(row["number"], [])
            if len(reached) > rung:
                history.append(Observation(params=row["params"], objectives=reached[rung]))
            elif row["state"] == "running" and not reached:
                history.append(Observation(params=row["params"], objectives=None))
        return history

    def start(self, candidate: Candidate, origin: str, *, number: int, seed: int) -> int:
        """A new trial and its first job; returns the job's id."""
        network = s.Network.of(candidate.spec, candidate.cost)
        with self.store.write() as connection:
            s.put_network(connection, network, clip=self.study["clip"], num_classes=self.study["num_classes"])
            trial = s.insert(
                connection,
                m.trial,
                study_id=self.study["id"],
                number=number,
                digest=candidate.digest,
                seed=seed,
                stratum=candidate.stratum,
                params=dict(candidate.params),
                origin=origin,
                state="running",
            )
            return self._begin(connection, "start", trial, number, 0)

    def promote(self, number: int, rung: int) -> int:
        """A job that trains a trial on to `rung`; returns its id."""
        trial = self._trial(number)
        with self.store.write() as connection:
            return self._begin(connection, "promote", trial["id"], number, rung)

    def resubmit(self, job: Row) -> int:
        """A new job in the place of a pre-empted one; returns its id."""
        with self.store.write() as connection:
            return self._begin(connection, "resume", job["trial_id"], job["number"], job["rung"])

    def preempt(self, job: int, reason: str, detail: str | None = None) -> None:
        """The job was cut short; its trial goes on later from the last checkpoint."""
        row = self._job(job)
        with self.store.write() as connection:
            self._end(connection, job, "preempted", reason=reason, detail=detail)
            self._state(connection, row["trial_id"], "preempted", reason=reason)
            s.put_event(connection, self.study["id"], "preempt", trial=row["number"], rung=row["rung"])

    def finish(self, job: int, result: JobResult) -> None:
        """The outcome of a job: an evaluation, or a failure."""
        row = self._job(job)
        with self.store.write() as connection:
            if result.reason is not None:
                self._end(connection, job, "failed", reason=result.reason, detail=result.detail, seconds=result.seconds)
                self._state(connection, row["trial_id"], "failed", reason=result.reason, detail=result.detail)
                s.put_event(connection, self.study["id"], "fail", trial=row["number"], rung=row["rung"])
                return
            last = result.epochs[-1]
            assert last.epoch == row["epochs"] and last.val is not None
            s.put_epochs(connection, row["trial_id"], [_epoch(epoch) for epoch in result.epochs])
            s.insert(
                connection,
                m.evaluation,
                study_id=self.study["id"],
                digest=row["digest"],
                seed=self._trial(row["number"])["seed"],
                purpose="search",
                trial_id=row["trial_id"],
                rung=row["rung"],
                epochs=last.epoch,
                split="val",
                **last.val.plain(),
            )
            self._end(connection, job, "done", detail=result.detail, seconds=result.seconds)
            state = "finished" if row["rung"] == len(self.rungs) - 1 else "paused"
            self._state(connection, row["trial_id"], state)
            s.put_event(connection, self.study["id"], "result", trial=row["number"], rung=row["rung"])

    def close(self) -> None:
        """The search is over: what was not promoted is early-stopped."""
        with self.store.write() as connection:
            connection.execute(
                m.trial.update()
                .where(m.trial.c.study_id == self.study["id"], m.trial.c.state == "paused")
                .values(state="stopped")
            )

    def times_preempted(self, job: Row, reason: str, detail: str) -> int:
        """How often the same trial was cut short for this reason with this detail."""
        return sum(
            (row["trial_id"], row["reason"], row["detail"]) == (job["trial_id"], reason, detail)
            for row in self.store.jobs(self.study["id"], "preempted")
        )

    def unfinished(self) -> list[Row]:
        """The last job of every trial that is under way, as an earlier driver left them."""
        trials = self.store.trials(self.study["id"])
        under_way = {row["number"] for row in trials if row["state"] in ("running", "preempted")}
        last = {row["number"]: row for row in self.store.jobs(self.study["id"])}
        return [last[number] for number in sorted(under_way)]

    def _results(self) -> dict[int, list[tuple[float, ...]]]:
        results: dict[int, list[tuple[float, ...]]] = {}
        rows = self.store.evaluations(self.study["id"])
        for row in sorted(rows, key=lambda row: (row["number"], row["rung"])):
            results.setdefault(row["number"], []).append(objectives_of(row, self.objectives))
        return results

    def _begin(self, connection: Any, kind: str, trial: int, number: int, rung: int) -> int:
        job = s.insert(
            connection,
            m.job,
            trial_id=trial,
            rung=rung,
            epochs=self.rungs[rung],
            state="running",
            started_at=s.now(),
        )
        self._state(connection, trial, "running")
        s.put_event(connection, self.study["id"], kind, trial=number, rung=rung)
        return job

    def _end(self, connection: Any, job: int, state: str, **values: Any) -> None:
        connection.execute(m.job.update().where(m.job.c.id == job).values(state=state, ended_at=s.now(), **values))

    def _state(
        self, connection: Any, trial: int, state: str, *, reason: str | None = None, detail: str | None = None
    ) -> None:
        connection.execute(
            m.trial.update().where(m.trial.c.id == trial).values(state=state, reason=reason, detail=detail)
        )

    def _trial(self, number: int) -> Row:
        return next(row for row in self.store.trials(self.study["id"]) if row["number"] == number)

    def _job(self, job: int) -> Row:
        return next(row for row in self.store.jobs(self.study["id"]) if row["id"] == job)


def objectives_of(row: Row, names: Sequence[str]) -> tuple[float, ...]:
    """The minimised objectives of an evaluation: error, and log10 of costs, since what counts there is the ratio."""
    return tuple(1.0 - accuracy_of(row) if name == "error" else math.log10(row[name]) for name in names)


def replay(
    events: Sequence[Row], results: Mapping[tuple[int, int], tuple[float, ...]], strata: Mapping[int, int]
) -> Any:
    """Yields (event, ledger before it) for every decision, so that each can be held against the rules.

    Args:
        events: Rows of `Store.events`.
        results: Objectives by (trial, rung).
        strata: Stratum by trial.
    """
    ledger = Ledger()
    for event in events:
        number, rung, kind = event["trial"], event["rung"], event["kind"]
        yield event, ledger
        old = ledger[number] if number < len(ledger) else Entry(number=number, stratum=strata[number])
        known = (*old.results, results[number, rung]) if kind == "result" else old.results
        # A pre-empted job still stands for its promotion: it is submitted again before anything is decided.
        running = kind in ("start", "promote", "resume", "preempt")
        ledger = ledger.replace(replace(old, results=known, running=running, failed=kind == "fail"))


def _epoch(epoch: Any) -> dict[str, Any]:
    names = ("top1", "top5", "loss", "num_clips", "map_sample", "map_class", "balanced")
    return {
        "epoch": epoch.epoch,
        "train_loss": epoch.train_loss,
        "lr": epoch.lr,
        "seconds": epoch.seconds,
        **dict.fromkeys(names),
        **(epoch.val.plain() if epoch.val is not None else {}),
    }
