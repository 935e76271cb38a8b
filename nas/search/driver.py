"""The driver: the one process that decides and writes, while executors train."""

from __future__ import annotations

import dataclasses
import time
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path

import optuna

from nas.errors import SearchError, StoreError
from nas.search.budget import budget_of
from nas.search.decide import LITTLE, Begin, Decider, Exhausted, GoOn, Settled, rules_of, still
from nas.search.notices import SearchProgress, check_rungs, gaps, too_small
from nas.search.optuna_copies import OptunaCopies
from nas.search.pool import Candidate, CandidatePool, Supply, build_pool
from nas.search.record import LOGGED, Record, as_recorded, logged
from nas.search.rows import Job
from nas.search.sampler import STARTUP, History
from nas.search.sampler.foreign import ready
from nas.search.sampler.optuna_samplers import rehearse
from nas.search.scheduler import Done, Wait
from nas.search.scores.data import training_batches
from nas.search.scores.score import StudyScores
from nas.store.database import Store
from nas.store.records import StudyRow
from nas.study.metric import told
from nas.study.objectives import MOTION_GAP
from nas.study.study import Study
from nas.train.crew import Crew, joined
from nas.train.jobs import ENVIRONMENT, JobResult, TrainJob, after_cut, job_key
from nas.train.machines import Machines
from nas.train.session import (
    Heartbeat,
    Listener,
    News,
    left_out,
    locked,
    opened_data,
    session_of,
    study_row,
    with_budget,
)
from nas.train.weights import check_layers, check_networks, settled_study, words
from search_spaces import codec
from trainer.logs import Logs, check_logs
from trainer.optim import check_optimizer
from trainer.ready import check_ready

COPY_EVERY = 5.0  # seconds at least between two times that results are copied for Optuna


@dataclass(kw_only=True, slots=True)
class Summary:
    """What a search has come to.

    Attributes:
        counts: Results at each rung.
        failed: Trials that failed.
        wall_seconds: Of this session.
        busy_seconds: Of this session, with a job under way.
        decide_seconds: Of this session, spent in decisions.
        exhausted: The pool ran out of networks before the budget.
        settled: The share of the hypervolume that may still be there, where the search ended for it was little.
    """

    counts: tuple[int, ...] = ()
    failed: int = 0
    wall_seconds: float = 0.0
    busy_seconds: float = 0.0
    decide_seconds: float = 0.0
    exhausted: bool = False
    settled: float | None = None


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
    check_logs(study.search.logs)
    note = ready(study.search.sampler, study.search.objectives)
    if note:
        listener(News(kind="pack", text=note))
    study.space.check()
    rehearse(study.search.sampler, study.space, num_objectives=len(study.search.objectives), seed=study.seed)
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
            for text in too_small(pool):
                listener(News(kind="cost", text=text))
            _check_weights(study, pool, len(data.classes), listener)
            scores = StudyScores(
                study,
                num_classes=len(data.classes),
                store=(store, row["id"]),
                clips=lambda: training_batches(data, study.data, study.seed),
                checksum=data.checksum,
                progress=lambda done, total: listener(News(kind="score", done=done, total=total)),
            )
            with joined(machines, database, study, listener) as cluster, _logs(study, database, row) as logs:
                crew = Crew(workers, cluster, say=lambda text: listener(News(kind="loaders", text=text)))
                driver = Driver(study, database, store, row, pool, crew, listener, scores, logs)
                return driver.run()


def _logs(study: Study, database: Path, row: StudyRow) -> Logs:
    """The logs that the study asks for, in a folder beside its database."""
    return Logs(
        database.with_suffix(".logs"),
        study.search.logs,
        (),
        columns=LOGGED,
        table="search",
        title=study.name,
        settings=study.config,
        owner=f"{row['id']} {row['created_at']}",
    )


def _check_weights(study: Study, pool: CandidatePool, num_classes: int, listener: Listener) -> None:
    """Makes sure that every network can begin with the study's initial weights, and says what becomes of them."""
    init = study.recipe.init
    specs = [candidate.spec for candidate in pool.candidates]
    check_layers(study.recipe, specs, num_classes=num_classes)
    begun = check_networks(init, specs, num_classes=num_classes, planes=study.data.planes)
    if begun is not None:
        listener(News(kind="init", text=words(init, begun)))


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
        scores: Of networks, where the study has features.
        logs: That get the results, too.
    """

    def __init__(
        self,
        study: Study,
        database: Path,
        store: Store,
        row: StudyRow,
        pool: CandidatePool,
        crew: Crew,
        listener: Listener,
        scores: StudyScores | None = None,
        logs: Logs | None = None,
    ) -> None:
        """Reads what the record holds."""
        self.study, self.database, self.store, self.row, self.pool = study, database, store, row, pool
        self.listener, self.logs = listener, logs
        search = study.search
        assert scores is not None or not search.features
        self.rules = rules_of(search)
        self.supply = Supply(study, pool, num_classes=row["num_classes"])
        self.decider = Decider(search, study.space, self.supply, study.seed, scores)
        self.fidelity = search.fidelity
        self.record = Record(store, row, search.objectives, search.rungs)
        self.copies = OptunaCopies(str(database), study.name, search.fidelity, search.objectives, study.space)
        self.crew = crew
        self.summary = Summary()
        self.networks: dict[str, Candidate] = {}  # of the trials that the space knows
        self.num_known = 0  # trials that were looked at for that
        self.progress = SearchProgress(self.record, budget_of(search), search.fidelity)
        self.copied_at = -inf
        self.beat: Heartbeat

    def run(self) -> Summary:
        """Searches to the end of the budget; see `run_search`."""
        session = session_of(
            self.store,
            self.row,
            workers=self.crew.workers,
            busy=lambda: self.crew.busy_seconds,
            also=lambda: {"decide_seconds": self.summary.decide_seconds},
        )
        with session as self.beat:
            self.progress.session = self.store.sessions(self.row["id"])[-1]
            self._search(self._take_over())
        self.summary.wall_seconds = self.beat.wall_seconds
        self.summary.busy_seconds = self.crew.busy_seconds
        tried = [trial.settings for trial in self.record.trials]
        for text in gaps([candidate.params for candidate in self.pool.candidates], tried):
            self._say("coverage", f"note: {text}")
        ledger = self.record.ledger()
        self.summary.counts = ledger.counts(self.rules.num_rungs)
        self.summary.failed = ledger.num_failed
        return self.summary

    def _search(self, waiting: list[Job]) -> None:
        """Takes up the jobs of an earlier driver, then decides and collects until nothing is left to do."""
        self._copy()
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
            self._copy()
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
            with suppress(StoreError):  # what is missing is copied at the next start
                self._copy()
            self.copies.close()

    def _decide(self) -> bool:
        """Takes one decision; returns whether a job was submitted."""
        if self.summary.exhausted and not self.crew:
            return False
        ledger, seen = self.record.ledger(), self._seen()
        began = time.perf_counter()
        decision = self.decider.decide(ledger, seen)
        self.summary.decide_seconds += time.perf_counter() - began
        match decision:
            case GoOn(number=number, rung=rung, reason=reason):
                job = self.record.promote(number, rung, reason)
                self._say("promote", f"trial {number} goes on to {self.fidelity.label(rung)}")
            case Begin(proposal=proposal):
                job = self.record.start(proposal, seed=self.study.seed + proposal.repeat)
                trial = self.record.trials[job.number]
                text = f"trial {job.number} {trial.digest[:10]} {trial.description} ({proposal.origin})"
                self._say("start", text)
            case Exhausted():
                self.summary.exhausted = True
                return False
            case Settled(gain=gain):
                if self.summary.settled is None:
                    patience = self.study.search.patience
                    self._say(
                        "settled", f"none of the last {patience} steps was expected to add {LITTLE:.1%}: {still(gain)}"
                    )
                self.summary.settled = gain
                return False
            case Wait() | Done():
                return False
        self._submit(job)
        return True

    def _seen(self) -> History:
        """What a sampler may know; networks that the pool lacks are made again of their settings."""
        record = self.record
        for trial in record.trials[self.num_known :]:
            known = self.supply.of(trial.digest, trial.settings)
            self.networks |= {} if known is None else {trial.digest: known}
        self.num_known = len(record.trials)
        return History(
            digests=record.digests,
            networks=self.networks,
            results=record.results,
            pending=record.pending(),
            history=record.history(STARTUP),
            gains=record.gains,
        )

    def _submit(self, job: Job) -> None:
        before = self.fidelity.before(job.rung)
        task = TrainJob(
            spec=self._spec(self.record.trials[job.number].digest),
            num_classes=self.row["num_classes"],
            data=self.fidelity.data_at(job.rung, self.study.data),
            recipe=self.study.recipe,
            seed=self.record.trials[job.number].seed,
            folder="",
            until_epoch=job.epochs - before,
            device=self.crew.device,
            opened=self.study.data,
            checksum=self.row["data"]["checksum"],
            left_out=left_out(self.row),
            motion=("shuffled",) if self._measures_motion(job.rung) else (),
        )
        key = job_key(task, self.row["data"]["checksum"])
        folder = self.database.parent / "trials" / f"{job.number:05d}-{key}"
        self.progress.begun(job, folder)
        self.crew.submit(job.id, dataclasses.replace(task, folder=str(folder)), self._tick)

    def _measures_motion(self, rung: int) -> bool:
        """Whether the accuracy on shuffled frames is an objective; clips of one frame have no order."""
        frames = self.fidelity.data_at(rung, self.study.data).clip.frames
        return MOTION_GAP in self.record.objectives and frames > 1

    def _spec(self, digest: str) -> str:
        """A network as canonical JSON; one that was tried may have left the pool."""
        found = self.pool.by_digest.get(digest)
        return codec.dumps(found.spec if found is not None else codec.decode(self.store.find(digest)["spec"]))

    def _collect(self) -> None:
        """Waits for a job to end, and records what came of those that did."""
        for job, result in self.crew.collect():
            self._finished(self.record.running[job], result)
        self._tick()

    def _finished(self, job: Job, result: JobResult) -> None:
        if result.reason in ENVIRONMENT:
            self._cut_short(job, result)
            return
        self.record.finish(job, _later(result, self.fidelity.before(job.rung)))
        if result.reason is not None:
            self._say("fail", f"trial {job.number} failed: {result.reason}: {result.detail}")
            self._give_up_if_hopeless()
            return
        val = result.epochs[-1].val
        assert val is not None
        self._say(
            "result",
            f"trial {job.number} has {told(val, self.row['accuracy'])} on {val.num_clips} clips "
            f"{self.fidelity.at(job.rung)} ({result.seconds:.1f} s){f'; {result.detail}' if result.detail else ''}",
        )

    def _copy(self) -> None:
        """Copies results for Optuna and for logs; where they come fast, many at a time."""
        self.copied_at = time.monotonic()
        rows = self.record.fresh()
        self.copies.sync(rows)
        if self.logs is not None:
            self.logs.extend([logged(row) for row in sorted(rows, key=lambda row: row["id"])])

    def _cut_short(self, job: Job, result: JobResult) -> None:
        """Records that a job was cut short for a reason that is not its own, and submits it once more."""
        reason = str(result.reason)
        place = f"after epoch {self.progress.epoch_of(job)}"
        self.record.preempt(job, reason, place)
        tries = self.record.times_preempted(job, reason, place)
        failed = after_cut(
            result, tries, place, lambda text: self._say("preempt", f"trial {job.number} was cut short: {text}")
        )
        again = self.record.resubmit(job)
        if failed is None:
            self._submit(again)
            return
        self.record.finish(again, failed)
        self._say("fail", f"trial {job.number} failed: {failed.detail}")
        self._give_up_if_hopeless()

    def _give_up_if_hopeless(self, few: int = 3) -> None:
        """A mistake that meets every network alike is not searched to the end of the budget, nor called a success."""
        ledger = self.record.ledger()
        if ledger.num_failed < few or any(one.results and not one.failed for one in ledger.entries):
            return
        last = next(trial for trial in reversed(self.record.trials) if trial.state == "failed")
        count = f"first {ledger.num_failed} networks" if ledger.num_failed > 1 else "first network"
        raise SearchError(
            f"the {count} {'all ' if ledger.num_failed > 1 else ''}failed, the last with {last.reason}: {last.detail} "
            f"(the rest is in {self.database.parent}/trials)"
        )

    def _take_over(self) -> list[Job]:
        """Jobs that were under way when an earlier driver ended."""
        left = self.record.unfinished()
        for job in left:
            if job.state == "running":
                self.record.preempt(job, "driver_died")
        return left

    def _resubmit(self, job: Job) -> None:
        place = self.fidelity.label(job.rung)
        self._say("resume", f"trial {job.number} goes on to {place} from its last checkpoint")
        self._submit(self.record.resubmit(job))

    def _preempt_all(self, reason: str) -> None:
        self.crew.close()
        for job in list(self.record.running.values()):
            self.record.preempt(job, reason)

    def _say(self, kind: str, text: str) -> None:
        done, total = self.progress.epochs()
        self.listener(News(kind=kind, text=text, done=done, total=total, left=self.progress.left()))

    def _tick(self) -> None:
        self.beat()
        if time.monotonic() - self.copied_at > COPY_EVERY:
            self._copy()
        done, total = self.progress.epochs()
        self.listener(News(kind="tick", done=done, total=total, left=self.progress.left()))


def _later(result: JobResult, before: int) -> JobResult:
    """The result of a rung's training with its epochs numbered as those of the trial."""
    if not before:
        return result
    epochs = tuple(dataclasses.replace(epoch, epoch=epoch.epoch + before) for epoch in result.epochs)
    return dataclasses.replace(result, epochs=epochs)
