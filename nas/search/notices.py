"""Notices of a search: its rungs against the data before it begins, its progress, and levels that it has not tried."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nas.errors import SearchError
from nas.places import lines_of
from nas.search.budget import Budget
from nas.search.model.encoding import plain_settings
from nas.search.pool import CandidatePool
from nas.search.record import Record
from nas.search.rows import Job
from nas.search.time_left import NOT_YET, search_left
from nas.store.records import SessionRow
from nas.study.fidelity import Fidelity
from nas.study.study import Study
from nas.train.left import Left
from nas.train.session import Listener, News
from trainer.data.clips import VideoData
from trainer.data.dataset import chosen


def check_rungs(study: Study, data: VideoData, listener: Listener) -> None:
    """Makes sure that the rungs can be trained and differ; says what each of them is.

    Raises:
        SearchError: The schedule ends before the last rung, or two shares take the same videos.
    """
    fidelity, recipe = study.search.fidelity, study.recipe
    if fidelity.continues:
        if recipe.has_horizon and recipe.epochs < fidelity.full_epochs:
            raise SearchError(
                f"recipe.epochs must be at least the last of search.rungs, {fidelity.full_epochs}, with schedule "
                f"{recipe.schedule}, which cannot be prolonged, but is {recipe.epochs}"
            )
        return
    texts = [fidelity.label(rung) for rung in range(len(fidelity))]
    if fidelity.kind == "data":
        counts = _videos(study, data)
        for rung in range(1, len(counts)):
            if counts[rung] == counts[rung - 1]:
                raise SearchError(
                    f"the shares of search.rungs must take different videos, but {texts[rung - 1]} and {texts[rung]} "
                    f"both are {counts[rung]} of the {len(data.split('train'))} training videos"
                )
        texts = [f"{text} ({count:,} training videos)" for text, count in zip(texts, counts, strict=True)]
    each = "1 epoch" if fidelity.epochs == 1 else f"{fidelity.epochs} epochs"
    listener(News(kind="rungs", text=f"rungs: {', '.join(texts)}; {each} of training at each"))


def too_small(pool: CandidatePool) -> list[str]:
    """What the user is told of networks that the clip of a lower rung leaves out, or that cannot be built."""
    return [
        f"{count} {'network does' if count == 1 else 'networks do'} not fit {reason.text}, a rung of this search, "
        f"and {'is' if count == 1 else 'are'} left out"
        for reason, count in pool.dropped.items()
        if reason.kind == "rung"
    ] + [f"{count} left out, since it {reason}" for reason, count in pool.dropped.items() if reason.kind == "network"]


def _videos(study: Study, data: VideoData) -> list[int]:
    """Training videos at each rung."""
    entries = data.split("train").entries
    shares = (study.search.fidelity.data_at(rung, study.data).share for rung in range(len(study.search.fidelity)))
    return [len(entries) if share == 1 else len(chosen(entries, share, study.seed)) for share in shares]


LEFT_EVERY = 5.0  # seconds after which the time that is left is reckoned anew, or
LEFT_SHARE = 100  # times the duration of the estimate itself, where that is long


class SearchProgress:
    """How far a search is, from the record in memory and from what jobs under way have written to their folders.

    Args:
        record: Of the search.
        budget: Of the search.
        fidelity: What the rungs are.
    """

    def __init__(self, record: Record, budget: Budget, fidelity: Fidelity) -> None:
        """No job is under way."""
        self.session: SessionRow | None = None  # of the driver
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
        assert self.session is not None
        if self._left_at is None or time.monotonic() - self._left_at > self._left_every:
            began = time.monotonic()
            running = (job for job in self._record.running.values() if job.number in self._folders)
            epochs = {job.number: self.epoch_of(job) for job in running}
            jobs = [job.row() for job in self._record.jobs.values()]
            self._left = search_left(self._record.study, self.session, jobs, epochs, datetime.now(UTC))
            self._left_at = time.monotonic()
            self._left_every = max(LEFT_EVERY, LEFT_SHARE * (self._left_at - began))
        return NOT_YET if self._left is None else self._left.after(time.monotonic() - self._left_at)


SHOWN = 8
Levels = Mapping[str, frozenset[Any]]


def gaps(pool: Iterable[Mapping[str, Any]], tried: Sequence[Mapping[str, Any]]) -> list[str]:
    """Says which levels were never tried, or only together with a level of another domain.

    Args:
        pool: Settings of each network that could have been tried.
        tried: Settings of each network that was.

    Returns:
        At most two lines. Levels that no network could have had apart, as a kernel and an operator that has one, are
        not held against the search.
    """
    possible, rows = [_levels(params) for params in pool], [_levels(params) for params in tried if params]
    offered, seen = _union(possible), _union(rows)
    if not rows:
        return []
    never = [f"{name}={value}" for name, values in offered.items() for value in values - seen.get(name, frozenset())]
    tied: dict[frozenset[str], None] = {}
    for name, values in seen.items():
        for value in values:
            mine = [row for row in rows if value in row.get(name, ())]
            for other, level in _constant(mine, name, seen):
                others = seen[other] - {level}
                if any(value in row.get(name, ()) and row.get(other, frozenset()) & others for row in possible):
                    tied.setdefault(frozenset((f"{name}={value}", f"{other}={level}")))
    lines = []
    if never:
        lines.append(f"never tried: {_listed(sorted(never))} (of {len(rows)} networks)")
    if tied:
        pairs = sorted(" with ".join(sorted(pair)) for pair in tied)
        lines.append(f"tried only together, so that their effects cannot be told apart: {_listed(pairs)}")
    return lines


def _levels(params: Mapping[str, Any]) -> Levels:
    """The values of each domain, at whichever stages and blocks."""
    found: dict[str, set[Any]] = {}
    for name, value in plain_settings(params).items():
        found.setdefault(name.partition(".stage")[0], set()).add(value)
    return {name: frozenset(values) for name, values in found.items()}


def _union(rows: Iterable[Levels]) -> dict[str, frozenset[Any]]:
    found: dict[str, frozenset[Any]] = {}
    for row in rows:
        for name, values in row.items():
            found[name] = found.get(name, frozenset()) | values
    return found


def _constant(rows: Sequence[Levels], name: str, seen: Levels) -> list[tuple[str, Any]]:
    """Levels of other domains that all of some networks have, though others were tried."""
    found = []
    for other, values in seen.items():
        if other == name or len(values) < 2 or any(other not in row for row in rows):
            continue
        together = frozenset().union(*(row[other] for row in rows))
        if len(together) == 1:
            found.append((other, next(iter(together))))
    return found


def _listed(items: Sequence[str]) -> str:
    rest = len(items) - SHOWN
    return ", ".join(items[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
