"""The driver: the one process that decides and writes, while executors train."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import optuna

from nas.accuracies import told
from nas.errors import SearchError, StoreError
from nas.eta import NOT_YET, Left, search_left
from nas.jobs import ENVIRONMENT, JobResult, TrainJob, job_key, next_step, pause, stopped, told_again
from nas.places import lines_of
from nas.search.cluster import joined
from nas.search.coverage import gaps
from nas.search.crew import Crew
from nas.search.machines import Machines
from nas.search.pool import Pool, build_pool
from nas.search.record import Record
from nas.search.resources import check_rungs, too_small
from nas.search.rungs import Rungs
from nas.search.sampler import STARTUP, propose
from nas.search.scheduler import Done, Promote, Rules, Start, Wait, next_action
from nas.search.session import (
    Heartbeat,
    Listener,
    News,
    as_recorded,
    close_session,
    left_out,
    locked,
    open_session,
    opened_data,
    study_row,
    with_budget,
)
from nas.store import Row, Store
from nas.study import SearchConfig, Study
from nas.weights import check_networks, settled_study
from search_spaces import codec
from trainer.optim import check_optimizer
from trainer.ready import check_ready

LEFT_EVERY = 5.0  # seconds after which the time that is left is reckoned anew


@dataclass(kw_only=True, slots=True)
class Summary:
    """What a search has come to.

    Attributes:
        counts: Results at each rung.
        failed: Trials that failed.
        wall_seconds: Of this session.
        busy_seconds: Of this session, with a job under way.
        exhausted: The pool ran out of networks before the budget.
    """

    counts: tuple[int, ...] = ()
    failed: int = 0
    wall_seconds: float = 0.0
    busy_seconds: float = 0.0
    exhausted: bool = False


def run_search(
    study: Study,
    database: Path,
    *,
    workers: int,
    machines: Machines | None = None,
    listener: Listener = lambda news: None,
) -> Summary:
    """Runs a search to its end, or goes on with one.

    Args:
        study: The question.
        database: The SQLite file; its folder also holds checkpoints.
        workers: Processes that train; 0 trains here.
        machines: A Ray cluster that trains instead.
        listener: Hears of progress.

    Raises:
        SearchError: The search cannot start or go on, for a reason that the user can mend.
        StoreError: The database is not ours, belongs to another study, is in use, or cannot be written.
        ConfigError: The recipe and the data do not go together.
        KeyboardInterrupt: The user stopped it; all that was done is stored.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    check_optimizer(study.recipe)  # before videos are decoded, which may take hours
    study = settled_study(study)
    with locked(database):
        data = opened_data(study, listener)
        check_ready(data, study.data, study.recipe)
        with Store(database, create=True) as store:
            check_rungs(study, data, listener)
            row = with_budget(store, study_row(store, study, data, listener), study)
            pool = build_pool(
                study,
                num_classes=len(data.classes),
                progress=lambda done, total: listener(News(kind="cost", done=done, total=total)),
            )
            pool = as_recorded(store, row, study, pool)
            if pool.note:
                listener(News(kind="cost", text=pool.note))
            for text in too_small(pool, study):
                listener(News(kind="cost", text=text))
            _check_weights(study, pool, len(data.classes), listener)
            with joined(machines, database, study, listener) as cluster:
                crew = Crew(workers, cluster, say=lambda text: listener(News(kind="loaders", text=text)))
                driver = Driver(study, database, store, row, pool, crew, listener)
                return driver.run()


def _check_weights(study: Study, pool: Pool, num_classes: int, listener: Listener) -> None:
    """Makes sure that every network can begin with the study's initial weights, and says what becomes of them."""
    init = study.recipe.init
    done = check_networks(init, [candidate.spec for candidate in pool.candidates], num_classes=num_classes)
    if done is not None:
        left = f"; {', '.join(done.left)} as drawn" if done.left else ""
        text = f"networks begin with {done.taken} tensors of {init.weights} ({init.checksum[:10]}), {init.mode}{left}"
        listener(News(kind="init", text=text))


class Driver:
    """Decides, gives jobs to a crew, and writes down what comes of them.

    Args:
        study: The question.
        database: The SQLite file, whose folder also holds what is trained.
        store: The same, open for writing.
        row: The study's row.
        pool: Networks that may be tried.
        crew: Who trains.
        listener: Hears of progress.
    """

    def __init__(
        self,
        study: Study,
        database: Path,
        store: Store,
        row: Row,
        pool: Pool,
        crew: Crew,
        listener: Listener,
    ) -> None:
        """Reads what the record holds."""
        self.study, self.database, self.store, self.row, self.pool = study, database, store, row, pool
        self.listener = listener
        search = study.search
        self.rules = rules_of(search)
        self.fidelity = search.fidelity
        self.record = Record(store, row, search.objectives, search.rungs)
        self.rungs = Rungs(str(database), study.name, search.fidelity, search.objectives, study.space)
        self.crew = crew
        self.summary = Summary()
        self.left: Left | None = None
        self.left_at: float | None = None  # when that was reckoned
        self.epochs_before: dict[int, int] = {}  # trial number -> epochs stored
        self.folders: dict[int, Path] = {}  # trial number -> where it trains
        self.beat: Callable[[], None] = lambda: None

    def run(self) -> Summary:
        """Searches to the end of the budget; see `run_search`."""
        began = time.perf_counter()
        session = open_session(self.store, self.row, workers=self.crew.workers)
        self.beat = Heartbeat(self.store, session)
        waiting = self._take_over()
        self.rungs.sync(self.store.evaluations(self.row["id"]))
        try:
            while True:
                while self.crew.free:
                    if waiting:
                        self._resubmit(waiting.pop(0))
                    elif not self._decide():
                        break
                if not self.crew:
                    break
                self._collect()
            self._give_up_if_hopeless(few=1)
            self.record.close()
        except KeyboardInterrupt:
            self._preempt_all("interrupted")
            raise
        except Exception:
            with suppress(StoreError):  # the disk may be full; the next start finds the jobs all the same
                self._preempt_all("stopped")
            raise
        finally:
            self.crew.close()
            self.rungs.close()
            self.summary.wall_seconds = time.perf_counter() - began
            self.summary.busy_seconds = self.crew.busy_seconds
            close_session(
                self.store,
                session,
                wall_seconds=self.summary.wall_seconds,
                busy_seconds=self.summary.busy_seconds,
            )
        trials = self.store.trials(self.row["id"])
        for text in gaps([candidate.params for candidate in self.pool.candidates], [row["params"] for row in trials]):
            self._say("coverage", f"note: {text}")
        ledger = self.record.ledger()
        self.summary.counts = ledger.counts(self.rules.num_rungs)
        self.summary.failed = sum(entry.failed for entry in ledger.entries)
        return self.summary

    def _decide(self) -> bool:
        """Takes one decision; returns whether a job was submitted."""
        ledger = self.record.ledger()
        match next_action(ledger, self.rules):
            case Promote(number, rung):
                job = self.record.promote(number, rung)
                self._say("promote", f"trial {number} goes on to {self.fidelity.label(rung)}")
                self._submit(job)
                return True
            case Start() if not self.summary.exhausted:
                return self._start(len(ledger))
            case Start() | Wait() | Done():
                return False

    def _start(self, number: int) -> bool:
        trials = self.store.trials(self.row["id"])
        proposal = propose(
            sampler=self.study.search.sampler,
            space=self.study.space,
            pool=self.pool,
            seen=[row["digest"] for row in trials],
            history=self.record.history(STARTUP),
            num_objectives=len(self.study.search.objectives),
            initial=self.study.search.initial,
            seed=self.study.seed,
        )
        if proposal is None:
            self.summary.exhausted = True
            return False
        candidate, origin = proposal
        job = self.record.start(candidate, origin, number=number, seed=self.study.seed)
        row = self.store.find(candidate.digest)
        self._say("start", f"trial {number} {candidate.digest[:10]} {row['description']} ({origin})")
        self._submit(job)
        return True

    def _submit(self, job: int) -> None:
        row = next(row for row in self.store.jobs(self.row["id"], "running") if row["id"] == job)
        network = self.store.find(row["digest"])
        before = self.fidelity.before(row["rung"])
        self.epochs_before[row["number"]] = len(self.store.epochs(row["trial_id"])) - before
        task = TrainJob(
            spec=codec.dumps(codec.decode(network["spec"])),
            num_classes=self.row["num_classes"],
            data=self.fidelity.data_at(row["rung"], self.study.data),
            recipe=self.study.recipe,
            seed=self.study.seed,
            folder="",
            until_epoch=row["epochs"] - before,
            device=self.crew.device,
            opened=self.study.data,
            checksum=self.row["data"]["checksum"],
            left_out=left_out(self.row),
        )
        key = job_key(task, self.row["data"]["checksum"])
        folder = self.database.parent / "trials" / f"{row['number']:05d}-{key}"
        self.folders[row["number"]] = folder
        self.crew.submit(job, dataclasses.replace(task, folder=str(folder)), self._tick)

    def _collect(self) -> None:
        """Waits for a job to end, and records what came of those that did."""
        for job, result in self.crew.collect():
            self._finished(job, result)
        self._tick()

    def _finished(self, job: int, result: JobResult) -> None:
        if result.reason in ENVIRONMENT:
            self._cut_short(job, result)
            return
        row = next(row for row in self.store.jobs(self.row["id"]) if row["id"] == job)
        self.record.finish(job, _later(result, self.fidelity.before(row["rung"])))
        if result.reason is not None:
            self._say("fail", f"trial {row['number']} failed: {result.reason}: {result.detail}")
            self._give_up_if_hopeless()
            return
        self.rungs.sync(self.store.evaluations(self.row["id"]))
        val = result.epochs[-1].val
        assert val is not None
        self._say(
            "result",
            f"trial {row['number']} has {told(val, self.row['accuracy'])} on {val.num_clips} clips "
            f"{self.fidelity.at(row['rung'])} ({result.seconds:.1f} s){f'; {result.detail}' if result.detail else ''}",
        )

    def _cut_short(self, job: int, result: JobResult) -> None:
        """Records that a job was cut short for a reason that is not its own, and submits it once more."""
        reason = str(result.reason)
        row = next(row for row in self.store.jobs(self.row["id"]) if row["id"] == job)
        epoch = self.fidelity.before(row["rung"]) + lines_of(self.folders[row["number"]])
        place = f"after epoch {epoch}"
        self.record.preempt(job, reason, place)
        tries = self.record.times_preempted(row, reason, place)
        step = next_step(reason, tries)
        if step == "stop":
            raise stopped(result)
        self._say("preempt", f"trial {row['number']} was cut short: {told_again(result)}")
        again = self.record.resubmit(row)
        if step == "fail":
            detail = f"cut short {tries} times {place}: {result.detail}"
            self.record.finish(again, dataclasses.replace(result, detail=detail))
            self._say("fail", f"trial {row['number']} failed: {detail}")
            self._give_up_if_hopeless()
        else:
            pause(reason, tries)
            self._submit(again)

    def _give_up_if_hopeless(self, few: int = 3) -> None:
        """A mistake that meets every network alike is not searched to the end of the budget, nor called a success."""
        trials = self.store.trials(self.row["id"])
        failed = [row for row in trials if row["state"] == "failed"]
        if len(failed) >= few and len(failed) == len(
            [row for row in trials if row["state"] not in ("running", "preempted")]
        ):
            count = f"first {len(failed)} networks" if len(failed) > 1 else "first network"
            raise SearchError(
                f"the {count} {'all ' if len(failed) > 1 else ''}failed, the last with {failed[-1]['reason']}: "
                f"{failed[-1]['detail']} (the rest is in {self.database.parent}/trials)"
            )

    def _take_over(self) -> list[Row]:
        """Jobs that were under way when an earlier driver ended."""
        left = self.record.unfinished()
        for row in left:
            if row["state"] == "running":
                self.record.preempt(row["id"], "driver_died")
        return left

    def _resubmit(self, row: Row) -> None:
        place = self.fidelity.label(row["rung"])
        self._say("resume", f"trial {row['number']} goes on to {place} from its last checkpoint")
        self._submit(self.record.resubmit(row))

    def _preempt_all(self, reason: str) -> None:
        self.crew.close()
        for row in self.store.jobs(self.row["id"], "running"):
            self.record.preempt(row["id"], reason)

    def _say(self, kind: str, text: str) -> None:
        done, total = self._progress()
        self.listener(News(kind=kind, text=text, done=done, total=total, left=self._left()))

    def _tick(self) -> None:
        self.beat()
        done, total = self._progress()
        self.listener(News(kind="tick", done=done, total=total, left=self._left()))

    def _progress(self) -> tuple[int, int]:
        """Epochs trained, those of running jobs included, and epochs of the whole search."""
        counts = [self.rules.num_trials]
        for _ in range(self.rules.num_rungs - 1):
            counts.append(counts[-1] // self.rules.eta)
        steps = [b - a for a, b in zip((0, *self.record.rungs), self.record.rungs, strict=False)]
        total = sum(count * step for count, step in zip(counts, steps, strict=True))
        done = sum(sum(steps[: len(entry.results)]) for entry in self.record.ledger().entries)
        for row in self.store.jobs(self.row["id"], "running"):
            if row["number"] in self.folders:
                done += max(0, lines_of(self.folders[row["number"]]) - self.epochs_before.get(row["number"], 0))
        return min(done, total), total

    def _left(self) -> Left:
        """The time that is left, reckoned anew every few seconds."""
        if self.left_at is None or time.monotonic() - self.left_at > LEFT_EVERY:
            epochs = {
                number: self.fidelity.before(row["rung"]) + lines_of(self.folders[number])
                for row in self.store.jobs(self.row["id"], "running")
                if (number := row["number"]) in self.folders
            }
            session = self.store.sessions(self.row["id"])[-1]
            self.left = search_left(self.row, session, self.store.jobs(self.row["id"]), epochs, datetime.now(UTC))
            self.left_at = time.monotonic()
        return NOT_YET if self.left is None else self.left.after(time.monotonic() - self.left_at)


def _later(result: JobResult, before: int) -> JobResult:
    """The result of a rung's training with its epochs numbered as those of the trial."""
    if not before:
        return result
    epochs = tuple(dataclasses.replace(epoch, epoch=epoch.epoch + before) for epoch in result.epochs)
    return dataclasses.replace(result, epochs=epochs)


def rules_of(search: SearchConfig) -> Rules:
    """What a study tells the scheduler."""
    return Rules(num_rungs=len(search.rungs), eta=search.eta, num_trials=search.trials, order=search.order)
