"""Epochs that a search has trained: those behind its results, and those of jobs under way or cut short."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.fidelity import Fidelity
from nas.places import lines_of
from nas.store import Row


@dataclass(frozen=True, kw_only=True, slots=True)
class Begun:
    """The last job of a trial, where it has no result.

    Attributes:
        job: Its row.
        epoch: Epochs of the trial that are trained, at most those that the job is to reach.
        gained: Of these, the ones since the trial's last result.
    """

    job: Row
    epoch: int
    gained: int


def begun_of(location: str, jobs: Sequence[Row], evaluations: Sequence[Row], fidelity: Fidelity) -> Mapping[int, Begun]:
    """What is trained beyond the results, by the number of the trial.

    The record has epochs of jobs that ended; those of others are in the files that their trainings write.

    Args:
        location: Of the database, beside which the trials have their folders.
        jobs: Rows of `Store.jobs`.
        evaluations: Rows of `Store.evaluations`.
        fidelity: The rungs.
    """
    folder = Path(location).parent / "trials"
    latest = {job["number"]: job for job in jobs}
    results = {row["number"]: row["epochs"] for row in evaluations}  # of a trial's highest rung: later rows are higher
    found = {}
    for number, job in latest.items():
        if job["state"] == "done":
            continue
        lines = [lines_of(path) for path in folder.glob(f"{number:05d}-*")]
        # Where a rung is a training of its own, it has a folder of its own, too.
        trained = max(lines, default=0) if fidelity.continues else sum(lines)
        epoch = min(trained, job["epochs"])
        found[number] = Begun(job=job, epoch=epoch, gained=max(0, epoch - results.get(number, 0)))
    return found


def worth_of_begun(fidelity: Fidelity, begun: Iterable[Begun]) -> float:
    """What is trained beyond the results, in epochs with all videos and the full clip."""
    return sum(one.gained * fidelity.worth(one.job["rung"]) for one in begun)
