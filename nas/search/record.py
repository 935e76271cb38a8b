"""The search's side of the store: what the driver writes, one transaction per event, and the ledger of it in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nas.cost.cost import cost_of
from nas.errors import StoreError
from nas.search.ledger import Entry, Ledger
from nas.search.model.belief import Reason, Result
from nas.search.pool import CandidatePool
from nas.search.rows import UNDER_WAY, Histories, Job, Trial
from nas.search.sampler import Observation, Proposal
from nas.store import tables as m
from nas.store import write as s
from nas.store.database import Store
from nas.store.records import StudyRow, TrialRow
from nas.study.metric import accuracy_of
from nas.study.objectives import MOTION_GAP, measured, minimised
from nas.study.study import Study
from nas.train.jobs import JobResult
from search_spaces import codec, edit

if TYPE_CHECKING:
    from trainer.metrics import EpochResult


class Record:
    """Trials, jobs, evaluations and events of one study.

    The store is read once. After that, what an event changes is changed here too, once the transaction has ended that
    writes it, so that at any moment the two say the same.

    Args:
        store: The database, open for writing; nobody else writes trials to it meanwhile.
        study: The study's row.
        objectives: Names of the objectives, `error` first.
        rungs: Epochs of each rung.

    Attributes:
        trials: By number.
        digests: Of the trials, by number.
        jobs: By id, oldest first.
        running: Those of them that are under way.
        results: What was measured, in that order.
        gains: What the model expected of each step that it chose, in that order.
    """

    def __init__(self, store: Store, study: StudyRow, objectives: Sequence[str], rungs: Sequence[int]) -> None:
        """Reads what the store holds."""
        self.store = store
        self.study = study
        self.objectives = tuple(objectives)
        self.rungs = tuple(rungs)
        rows = sorted(store.described(study["id"], m.trial), key=lambda row: row["number"])
        self.trials = [Trial.of(row) for row in rows]
        self.digests = [trial.digest for trial in self.trials]
        self.jobs = {row["id"]: Job.of(row) for row in store.jobs(study["id"])}
        self.running = {job.id: job for job in self.jobs.values() if job.state == "running"}
        cut = (job for job in self.jobs.values() if job.state == "preempted")
        self._cut = Counter((job.number, job.reason, job.detail) for job in cut)
        self._fresh: list[Mapping[str, Any]] = [*store.evaluations(study["id"])]
        results: dict[int, list[tuple[float, ...]]] = {}
        for row in sorted(self._fresh, key=lambda row: (row["number"], row["rung"])):
            results.setdefault(row["number"], []).append(minimised(row, self.objectives))
        self.results = [self._result(row) for row in sorted(self._fresh, key=lambda row: row["id"])]
        # A job that was taken up again is the same step.
        self.gains = [job.expected_gain for job in self._steps() if job.expected_gain is not None]
        self._under_way = {trial.number: trial for trial in self.trials if trial.state in UNDER_WAY}
        self._histories = Histories(len(self.rungs))
        entries = [_entry(trial, tuple(results.get(trial.number, ()))) for trial in self.trials]
        for trial, entry in zip(self.trials, entries, strict=True):
            self._histories.put(trial, entry)
        self._ledger = Ledger(entries)

    def ledger(self) -> Ledger:
        """What the scheduler decides on."""
        return self._ledger

    def history(self, startup: int) -> Sequence[Observation]:
        """What a sampler learns from: results at the highest rung that has `startup` of them, else at the lowest.

        Trials that have not got so far are left out, save those in their first training, which are observations without
        result. It is not to be changed, and good until the next event.
        """
        counts = self._ledger.counts(len(self.rungs))
        return self._histories.at(max((i for i, count in enumerate(counts) if count >= startup), default=0))

    def fresh(self) -> list[Mapping[str, Any]]:
        """Evaluations that were read or made since this was asked for last, with what Optuna's copies need of a row."""
        rows, self._fresh = self._fresh, []
        return rows

    def epochs_of(self, number: int) -> int:
        """Epochs of a trial that are stored."""
        reached = len(self._ledger[number].results)
        return self.rungs[reached - 1] if reached else 0

    def _steps(self) -> list[Job]:
        first: dict[tuple[int, int], Job] = {}
        for job in self.jobs.values():
            first.setdefault((job.number, job.rung), job)
        return list(first.values())

    def pending(self) -> list[tuple[str, int]]:
        """Digest and rung of trainings that are under way, or were and are to be taken up again."""
        return [(t.digest, len(self._ledger[number].results)) for number, t in sorted(self._under_way.items())]

    def start(self, proposal: Proposal, *, seed: int) -> Job:
        """A new trial and its first job."""
        candidate = proposal.candidate
        number, params = len(self.trials), dict(sorted(candidate.params.items()))  # as they are read back
        with self.store.write() as connection:
            network = s.put_network(
                connection,
                s.Architecture.of(candidate.spec, candidate.cost),
                clip=self.study["clip"],
                num_classes=self.study["num_classes"],
            )
            key = s.insert(
                connection,
                m.trial,
                study_id=self.study["id"],
                number=number,
                digest=candidate.digest,
                seed=seed,
                stratum=candidate.stratum,
                params=params,
                origin=proposal.origin,
                state="running",
            )
            trial = Trial(
                id=key,
                number=number,
                digest=candidate.digest,
                seed=seed,
                stratum=candidate.stratum,
                settings=params,
                description=network.description,
                macs=network.macs,
                num_params=network.params,
                activation_bytes=candidate.cost.activation_bytes,
            )
            job = self._begin(connection, "start", trial, 0, proposal.reason)
        self.gains += [] if proposal.reason is None else [proposal.reason.gain]
        self.trials.append(trial)
        self.digests.append(trial.digest)
        self._keep(job, trial)
        return job

    def promote(self, number: int, rung: int, reason: Reason | None = None) -> Job:
        """A job that trains a trial on to `rung`."""
        job = self._go_on("promote", self.trials[number], rung, reason)
        self.gains += [] if reason is None else [reason.gain]
        return job

    def resubmit(self, job: Job) -> Job:
        """A new job in the place of a pre-empted one."""
        return self._go_on("resume", self.trials[job.number], job.rung, job.expected)

    def preempt(self, job: Job, reason: str, detail: str | None = None) -> None:
        """The job was cut short; its trial goes on later from the last checkpoint."""
        trial = replace(self.trials[job.number], state="preempted", reason=reason, detail=None)
        job = replace(job, state="preempted", reason=reason, detail=detail)
        with self.store.write() as connection:
            self._write(connection, "preempt", job, trial)
        self._cut[job.number, reason, detail] += 1
        self._keep(job, trial)

    def finish(self, job: Job, result: JobResult) -> None:
        """The outcome of a job: an evaluation, or a failure."""
        trial, failed = self.trials[job.number], result.reason is not None
        job = replace(
            job,
            state="failed" if failed else "done",
            reason=result.reason,
            detail=result.detail,
            seconds=result.seconds,
        )
        if failed:
            trial = replace(trial, state="failed", reason=result.reason, detail=result.detail)
            with self.store.write() as connection:
                self._write(connection, "fail", job, trial)
            self._keep(job, trial)
            return
        last = result.epochs[-1]
        assert last.epoch == job.epochs and last.val is not None
        state = "finished" if job.rung == len(self.rungs) - 1 else "paused"
        trial = replace(trial, state=state, reason=None, detail=None)
        stored = {
            "digest": trial.digest,
            "seed": trial.seed,
            "trial_id": trial.id,
            "rung": job.rung,
            "epochs": last.epoch,
            **last.val.plain(),
        }
        if MOTION_GAP in self.objectives:  # a clip of one frame has no order
            tests = {one.test: one.top1 for one in result.motion}
            stored["shuffled"] = tests.get("shuffled", last.val.top1)
        with self.store.write() as connection:
            s.put_epochs(connection, trial.id, [_epoch(epoch) for epoch in result.epochs])
            key = s.insert(connection, m.evaluation, study_id=self.study["id"], purpose="search", split="val", **stored)
            self._write(connection, "result", job, trial)
        row = (
            dict.fromkeys(_MEASURED)
            | stored
            | {
                "id": key,
                "number": trial.number,
                "settings": trial.settings,
                "description": trial.description,
                "macs": trial.macs,
                "params": trial.num_params,
                "activation_bytes": trial.activation_bytes,
                "chosen_by": self.study["accuracy"],
            }
        )
        self._fresh.append(row)
        self.results.append(self._result(row))
        self._keep(job, trial, minimised(row, self.objectives))

    def close(self) -> None:
        """The search is over: what was not promoted is early-stopped."""
        with self.store.write() as connection:
            connection.execute(
                m.trial.update()
                .where(m.trial.c.study_id == self.study["id"], m.trial.c.state == "paused")
                .values(state="stopped")
            )
        self.trials = [replace(one, state="stopped") if one.state == "paused" else one for one in self.trials]

    def times_preempted(self, job: Job, reason: str, detail: str) -> int:
        """How often the same trial was cut short for this reason with this detail."""
        return self._cut[job.number, reason, detail]

    def unfinished(self) -> list[Job]:
        """The last job of every trial that is under way, as an earlier driver left them."""
        last = {job.number: job for job in self.jobs.values()}
        return [last[trial.number] for trial in self.trials if trial.state in UNDER_WAY]

    def _go_on(self, kind: str, trial: Trial, rung: int, reason: Reason | None) -> Job:
        trial = replace(trial, state="running", reason=None, detail=None)
        with self.store.write() as connection:
            job = self._begin(connection, kind, trial, rung, reason)
            self._state(connection, trial)
        self._keep(job, trial)
        return job

    def _begin(self, connection: Any, kind: str, trial: Trial, rung: int, reason: Reason | None) -> Job:
        begun: dict[str, Any] = {"rung": rung, "epochs": self.rungs[rung], "started_at": s.now()}
        if reason is not None:
            begun |= {"expected_error": reason.error, "expected_spread": reason.deviation, "expected_gain": reason.gain}
        key = s.insert(connection, m.job, trial_id=trial.id, state="running", **begun)
        s.put_event(connection, self.study["id"], kind, trial=trial.number, rung=rung)
        return Job(id=key, number=trial.number, macs=trial.macs, **begun)

    def _write(self, connection: Any, kind: str, job: Job, trial: Trial) -> None:
        """Stores how a job has ended, and how its trial stands after it."""
        values = {"state": job.state, "reason": job.reason, "detail": job.detail, "seconds": job.seconds}
        connection.execute(m.job.update().where(m.job.c.id == job.id).values(ended_at=s.now(), **values))
        self._state(connection, trial)
        s.put_event(connection, self.study["id"], kind, trial=trial.number, rung=job.rung)

    def _result(self, row: Mapping[str, Any]) -> Result:
        values = minimised(row, measured(self.objectives))
        return Result(digest=row["digest"], rung=row["rung"], errors=values, videos=max(1, row["num_clips"]))

    def _state(self, connection: Any, trial: Trial) -> None:
        values = {"state": trial.state, "reason": trial.reason, "detail": trial.detail}
        connection.execute(m.trial.update().where(m.trial.c.id == trial.id).values(**values))

    def _keep(self, job: Job, trial: Trial, result: tuple[float, ...] | None = None) -> None:
        """Takes up what an event has changed, which is stored by now."""
        self.jobs[job.id] = job
        if job.state == "running":
            self.running[job.id] = job
        else:
            self.running.pop(job.id, None)
        self.trials[trial.number] = trial
        if trial.state in UNDER_WAY:
            self._under_way[trial.number] = trial
        else:
            self._under_way.pop(trial.number, None)
        known = self._ledger[trial.number].results if trial.number < len(self._ledger) else ()
        entry = _entry(trial, known if result is None else (*known, result))
        self._ledger = self._ledger.replace(entry)
        self._histories.put(trial, entry)


def _entry(trial: Trial, results: tuple[tuple[float, ...], ...]) -> Entry:
    return Entry(
        number=trial.number,
        stratum=trial.stratum,
        results=results,
        running=trial.state in UNDER_WAY,
        failed=trial.state == "failed",
    )


LOGGED = (
    "trial",
    "digest",
    "network",
    "seed",
    "rung",
    "epochs",
    "accuracy",
    "top1",
    "top5",
    "balanced",
    "map_sample",
    "map_class",
    "shuffled",
    "loss",
    "num_clips",
    "macs",
    "params",
    "activation_bytes",
)
"""What a log holds of a result."""


def logged(row: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation as a row of `LOGGED`; what was not measured is missing.

    Args:
        row: Of `Record.fresh`.
    """
    found = {**row, "trial": row["number"], "network": row["description"], "accuracy": accuracy_of(row)}
    return {name: found[name] for name in LOGGED if found.get(name) is not None}


_MEASURED = ("top1", "top5", "loss", "num_clips", "map_sample", "map_class", "balanced")


def _epoch(epoch: EpochResult) -> dict[str, Any]:
    return {
        "epoch": epoch.epoch,
        "train_loss": epoch.train_loss,
        "lr": epoch.lr,
        "seconds": epoch.seconds,
        **dict.fromkeys(_MEASURED),
        **(epoch.val.plain() if epoch.val is not None else {}),
    }


def as_recorded(store: Store, row: StudyRow, study: Study, pool: CandidatePool) -> CandidatePool:
    """The pool of a search that may have begun under an earlier definition of its names.

    A named network that was tried is the one of the record, whatever a preset of that name is now.

    Raises:
        StoreError: The settings of a recorded network give another network now, so that results would be mixed.
    """
    named, stale = list(pool.named), set[str]()
    tried = [trial for trial in store.trials(row["id"]) if trial["origin"] == "named"]
    for i, (trial, candidate) in enumerate(zip(tried, pool.named, strict=False)):
        if trial["digest"] != candidate.digest:
            spec = codec.decode(store.find(trial["digest"])["spec"])
            price = cost_of(spec, study.data.clip, num_classes=row["num_classes"], planes=study.data.planes)
            old = replace(candidate, digest=trial["digest"], spec=spec, params=trial["params"], cost=price)
            named[i] = pool.by_digest.get(old.digest, old)
            stale |= set() if candidate.params else {candidate.digest}
    for trial in store.trials(row["id"]):
        if trial["params"]:
            _check_settings(store, study, trial)
    if tuple(named) == pool.named:
        return pool
    kept = {c.digest: c for c in (*pool.candidates, *named) if c.digest not in stale}
    ordered = sorted(kept.values(), key=lambda c: (c.cost.macs, c.digest))
    return replace(pool, candidates=tuple(ordered), named=tuple(named))


def _check_settings(store: Store, study: Study, trial: TrialRow) -> None:
    now = study.space.point(trial["params"]).spec
    if codec.digest(now) == trial["digest"]:
        return
    then = codec.decode(store.find(trial["digest"])["spec"])
    differ = min(edit.diff(then, now.canonical()), default="digest")
    values = [edit.leaves(spec).get(differ, "none") for spec in (then, now.canonical())]
    raise StoreError(
        f"{store.location} was made when the settings of trial {trial['number']} meant another network ({differ} "
        f"{values[0]}, and {values[1]} now), so results would be mixed; what is stored can be read, but to search on, "
        "give --db another file"
    )
