"""How far a search is: epochs done of how many, and the time that is left."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path

from nas.budget import Budget
from nas.eta import NOT_YET, Left, search_left
from nas.fidelity import Fidelity
from nas.places import lines_of
from nas.search.record import Record
from nas.search.rows import Job
from nas.store import Row

LEFT_EVERY = 5.0  # seconds after which the time that is left is reckoned anew, or
LEFT_SHARE = 100  # so many times what that takes, where it takes long


class Progress:
    """How far a search is, from the record in memory and from what jobs under way have written to their folders.

    Args:
        record: Of the search.
        budget: Of the search.
        fidelity: What the rungs are.
    """

    def __init__(self, record: Record, budget: Budget, fidelity: Fidelity) -> None:
        """No job is under way."""
        self.session: Row = {}  # of the driver
        self._record, self._budget, self._fidelity = record, budget, fidelity
        self._folders: dict[int, Path] = {}  # trial number -> where it trains
        self._before: dict[int, int] = {}  # trial number -> epochs stored
        self._left: Left | None = None
        self._left_at: float | None = None  # when that was reckoned
        self._left_every = LEFT_EVERY

    def begun(self, job: Job, folder: Path) -> None:
        """A job trains in a folder."""
        self._folders[job.number] = folder
        self._before[job.number] = self._record.epochs_of(job.number) - self._fidelity.before(job.rung)

    def epoch_of(self, job: Job) -> int:
        """Epochs of its trial that a job has reached, as its folder says."""
        return self._fidelity.before(job.rung) + lines_of(self._folders[job.number])

    def epochs(self) -> tuple[int, int]:
        """Epochs trained, those of running jobs included, and epochs of the whole search."""
        total = self._budget.epochs
        reached = self._record.ledger().counts(len(self._budget.ends))
        done = sum(count * step for count, step in zip(reached, self._budget.steps, strict=True))
        for job in self._record.running.values():
            if job.number in self._folders:
                done += max(0, lines_of(self._folders[job.number]) - self._before[job.number])
        return min(done, total), total

    def left(self) -> Left:
        """The time that is left, reckoned anew every few seconds."""
        if self._left_at is None or time.monotonic() - self._left_at > self._left_every:
            began = time.monotonic()
            running = (job for job in self._record.running.values() if job.number in self._folders)
            epochs = {job.number: self.epoch_of(job) for job in running}
            jobs = [job.row() for job in self._record.jobs.values()]
            self._left = search_left(self._record.study, self.session, jobs, epochs, datetime.now(UTC))
            self._left_at = time.monotonic()
            self._left_every = max(LEFT_EVERY, LEFT_SHARE * (self._left_at - began))
        return NOT_YET if self._left is None else self._left.after(time.monotonic() - self._left_at)
