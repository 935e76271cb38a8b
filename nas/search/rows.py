"""Rows of the record as a driver holds them while it searches, and what a sampler learns from them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.search.ledger import Entry
from nas.search.model.belief import Reason
from nas.search.sampler import Observation

UNDER_WAY = ("running", "preempted")  # states of a trial that goes on before anything is decided


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A network that is tried.

    Attributes:
        id: Key in the database.
        number: Order in which the trials were started, from 0.
        digest: Of the network.
        seed: Of its trainings.
        stratum: Class of cost.
        settings: What gave the network, as Optuna sees it.
        description: Of the network, in words.
        macs: Of the network at the study's clip, as stored.
        num_params: Parameters of the network, as stored.
        activation_bytes: Of the network at the study's clip, as stored.
        state: `running`, `preempted`, `paused`, `stopped`, `finished` or `failed`.
        reason: Of a failure, or of being cut short.
        detail: The failure in one line.
    """

    id: int
    number: int
    digest: str
    seed: int
    stratum: int
    settings: Mapping[str, Any]
    description: str
    macs: int
    num_params: int
    activation_bytes: int
    state: str = "running"
    reason: str | None = None
    detail: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Trial:
        """From a row of `Store.described` of the table of trials."""
        names = (name for name in cls.__slots__ if name != "settings")
        return cls(settings=row["params"], **{name: row[name] for name in names})


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Training of a trial towards a rung.

    Attributes:
        id: Key in the database, ascending.
        number: Of the trial.
        rung: That it leads to.
        epochs: Of the trial in all, once it is there.
        macs: Of the network.
        state: `running`, `done`, `failed` or `preempted`.
        started_at: In UTC.
        seconds: That it took.
        reason: Why it failed or was cut short.
        detail: The same in one line, or where that was.
        expected_error: What the model expected at the last rung when the job was begun; None without a model.
        expected_spread: Standard deviation of the logarithm of that error.
        expected_gain: Of the hypervolume, as a share of what it was.
    """

    id: int
    number: int
    rung: int
    epochs: int
    macs: int | None
    started_at: str
    state: str = "running"
    seconds: float | None = None
    reason: str | None = None
    detail: str | None = None
    expected_error: float | None = None
    expected_spread: float | None = None
    expected_gain: float | None = None

    @property
    def expected(self) -> Reason | None:
        """What the model expected."""
        if self.expected_error is None or self.expected_spread is None or self.expected_gain is None:
            return None
        return Reason(error=self.expected_error, deviation=self.expected_spread, gain=self.expected_gain)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Job:
        """From a row of `Store.jobs`."""
        return cls(**{name: row[name] for name in cls.__slots__})

    def row(self) -> dict[str, Any]:
        """The other way round."""
        return {name: getattr(self, name) for name in self.__slots__}


class Histories:
    """What a sampler may learn from at each rung: one observation per trial, in order of the trials' numbers.

    Args:
        num_rungs: Rungs.
    """

    def __init__(self, num_rungs: int) -> None:
        """Nothing was tried."""
        self._numbers: list[list[int]] = [[] for _ in range(num_rungs)]
        self._rows: list[list[Observation]] = [[] for _ in range(num_rungs)]

    def at(self, rung: int) -> Sequence[Observation]:
        """Those of one rung, as they are until the next event; not to be changed."""
        return self._rows[rung]

    def put(self, trial: Trial, entry: Entry) -> None:
        """Takes up how a trial stands now.

        One that has not got so far is left out, save while it is in its first training: an observation without result.
        """
        first = trial.state == "running" and not entry.results
        for rung in range(len(self._rows)):
            if rung < len(entry.results):
                self._set(rung, trial.number, Observation(params=trial.settings, objectives=entry.results[rung]))
            else:
                self._set(rung, trial.number, Observation(params=trial.settings, objectives=None) if first else None)

    def _set(self, rung: int, number: int, row: Observation | None) -> None:
        numbers, rows = self._numbers[rung], self._rows[rung]
        at = bisect_left(numbers, number)
        found = at < len(numbers) and numbers[at] == number
        if row is None:
            if found:
                del numbers[at], rows[at]
        elif found:
            rows[at] = row
        else:
            numbers.insert(at, number)
            rows.insert(at, row)
