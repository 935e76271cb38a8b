"""Drivers of a study: which one is at work, whether it lives, and the time and epochs that each has spent."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from nas.places import lines_of
from nas.study.fidelity import Fidelity

if TYPE_CHECKING:
    from nas.store.database import Store
    from nas.store.records import JobRow, ResultRow, SessionRow

FRESH_SECONDS = 60.0  # how old a sign of life may be where the lock cannot be asked


@dataclass(frozen=True, kw_only=True, slots=True)
class CommandStart:
    """One start of a command that trains.

    Attributes:
        session: Its row of `nas_session`.
        kind: `search`, `ablation` or `promotion`.
        alive: Whether it is at work now.
        seen: When it last gave a sign of life, with a time zone.
        seconds: Its wall time: until now where it lives, until its last sign of life where it was killed.
    """

    session: SessionRow
    kind: str
    alive: bool
    seen: datetime
    seconds: float

    @property
    def died(self) -> bool:
        """Whether it was killed: it is not at work, and has not said that it ended."""
        return not self.alive and self.session["ended_at"] is None


def drivers_of(store: Store, study: int, now: datetime) -> list[CommandStart]:
    """Every driver of a study, oldest first.

    Args:
        store: The database.
        study: Id of the study.
        now: With a time zone.
    """
    sessions = store.sessions(study)
    signs = _signs(store, study)
    found = []
    for place, session in enumerate(sessions):
        began = datetime.fromisoformat(session["started_at"])
        if session["ended_at"] is not None:
            seen, alive = datetime.fromisoformat(session["ended_at"]), False
            recorded = session["wall_seconds"]
            seconds = (seen - began).total_seconds() if recorded is None else float(recorded)
        else:
            last = place == len(sessions) - 1
            until = now if last else datetime.fromisoformat(sessions[place + 1]["started_at"])
            seen = max([began, *(sign for sign in signs if began <= sign <= until)])
            if session["seen_at"] is not None:
                seen = max(seen, datetime.fromisoformat(session["seen_at"]))
            alive = last and _lives(Path(store.location), (now - seen).total_seconds())
            seconds = ((now if alive else seen) - began).total_seconds()
        found.append(
            CommandStart(session=session, kind=_kind(session), alive=alive, seen=seen, seconds=max(0.0, seconds))
        )
    return found


def training_seconds(store: Store, study: int, drivers: Sequence[CommandStart], now: datetime) -> float:
    """Seconds of all jobs of the search together, those that were cut short and those under way included."""
    total = 0.0
    for job in store.jobs(study):
        began = datetime.fromisoformat(job["started_at"])
        if job["seconds"] is not None:
            total += job["seconds"]
            continue
        own = [one for one in drivers if datetime.fromisoformat(one.session["started_at"]) <= began]
        ended = now if job["ended_at"] is None else datetime.fromisoformat(job["ended_at"])
        if own and not own[-1].alive:  # the next driver has written the end of what a killed one had under way
            ended = min(ended, own[-1].seen)
        total += max(0.0, (ended - began).total_seconds())
    return total


def died_text(seen: str) -> str:
    """What is said of a driver that was killed.

    Args:
        seen: When it last gave a sign of life, in UTC.
    """
    return f"its driver is dead, last seen at {seen[:19].replace('T', ' ')} UTC; the same command goes on with it"


def is_held(database: Path) -> bool | None:
    """Whether a driver holds the lock of a database; None where that cannot be told.

    The lock is asked for as one of several readers, and given back at once: drivers wait a moment for it.
    """
    try:
        file = os.open(f"{database}.lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return None
    else:
        return False
    finally:
        os.close(file)


def _lives(database: Path, silent_for: float) -> bool:
    held = is_held(database)
    return silent_for < FRESH_SECONDS if held is None else held


def _signs(store: Store, study: int) -> list[datetime]:
    """Every moment at which a driver has written something."""
    rows = [*store.jobs(study), *store.runs(study), *store.promotions(study)]
    ended = [row for row in rows if row["reason"] != "driver_died"]  # which the next driver has written
    texts = [row["started_at"] for row in rows] + [row["ended_at"] for row in ended if row["ended_at"] is not None]
    return [datetime.fromisoformat(text) for text in [*texts, *(event["at"] for event in store.events(study))]]


def _kind(session: SessionRow) -> str:
    """What a driver was started for, by the command that is recorded with it."""
    command = (session["environment"] or {}).get("command") or []
    words = [word for word in command[1:] if not str(word).startswith("-")]
    kinds = {"ablate": "ablation", "versus": "ablation", "promote": "promotion", "supernet": "supernet"}
    return kinds.get(str(words[0]), "search") if words else "search"


@dataclass(frozen=True, kw_only=True, slots=True)
class Begun:
    """The last job of a trial, where it has no result.

    Attributes:
        job: Its row.
        epoch: Epochs of the trial that are trained, at most those that the job is to reach.
        gained: Of these, the ones since the trial's last result.
    """

    job: JobRow
    epoch: int
    gained: int


def begun_of(
    location: str, jobs: Sequence[JobRow], evaluations: Sequence[ResultRow], fidelity: Fidelity
) -> Mapping[int, Begun]:
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
