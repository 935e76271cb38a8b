"""What the scheduler knows of a search: its trials as frozen values, every objective minimised."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One trial.

    Attributes:
        number: Order in which the trials were started, from 0.
        stratum: Which class of cost the network is in, from 0 (cheapest).
        results: One vector of objectives for each rung that was reached, all to be minimised.
        running: A job is under way towards rung `len(results)`.
        failed: The trial ended in failure and does not go on; what it reached before still counts.
    """

    number: int
    stratum: int = 0
    results: tuple[tuple[float, ...], ...] = ()
    running: bool = False
    failed: bool = False

    def left(self, rung: int) -> bool:
        """Whether the trial was promoted from `rung`: it got beyond, is under way beyond, or failed on the way."""
        return len(self.results) > rung + 1 or (len(self.results) == rung + 1 and (self.running or self.failed))


@dataclass(frozen=True, slots=True)
class Ledger:
    """All trials of a search, in order of their numbers."""

    entries: tuple[Entry, ...] = field(default=())

    def __post_init__(self) -> None:
        """Raises AssertionError unless entry i has number i."""
        assert all(entry.number == i for i, entry in enumerate(self.entries))

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def num_running(self) -> int:
        """Jobs under way."""
        return sum(entry.running for entry in self.entries)

    def members(self, rung: int) -> tuple[Entry, ...]:
        """The trials that have a result at `rung`."""
        return tuple(entry for entry in self.entries if len(entry.results) > rung)

    def counts(self, num_rungs: int) -> tuple[int, ...]:
        """Trials with a result, for each rung."""
        return tuple(len(self.members(rung)) for rung in range(num_rungs))

    def replace(self, entry: Entry) -> Ledger:
        """The ledger with `entry` in the place of the one with its number, or appended as the next."""
        entries = list(self.entries)
        entries[entry.number : entry.number + 1] = [entry]
        return Ledger(tuple(entries))


def ledger_of(entries: Iterable[Entry]) -> Ledger:
    """A ledger of `entries` in any order."""
    return Ledger(tuple(sorted(entries, key=lambda entry: entry.number)))
