"""What a scheduler knows of a search: its trials as frozen values, every objective minimised, and the rungs they make.

A ledger is a value: `replace` gives another one and leaves the old as it was. Behind the values of one search there is
one book, which shows the newest of them and is changed by what changed, so that a step costs the same after ten trials
and after ten thousand. An older value remembers how it differs from the newer, and turns the book back when it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


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


class Rung:
    """The trials that have a result at one rung, in order of their numbers.

    It shows the ledger that it was asked of until another ledger of the same search is read: use it at once.

    Attributes:
        num_members: Trials that have a result here.
        num_left: Of them, those that were promoted from here.
    """

    def __init__(self) -> None:
        """Nobody has got here."""
        self.num_members = self.num_left = 0
        self._values = np.zeros((0, 0))  # rows by the number of the trial, as all of these
        self._strata = np.zeros(0, dtype=np.int64)
        self._member, self._left = np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)
        self._remembered: dict[Hashable, Any] = {}

    @property
    def numbers(self) -> NDArray[np.int64]:
        """(members,) numbers of the trials, ascending."""
        return self.remembered("numbers", lambda: np.flatnonzero(self._member))

    @property
    def values(self) -> NDArray[np.float64]:
        """(members, objectives)."""
        return self._values[self.numbers]

    @property
    def strata(self) -> NDArray[np.int64]:
        """(members,)."""
        return self._strata[self.numbers]

    @property
    def left(self) -> NDArray[np.bool_]:
        """(members,) whether each was promoted from here."""
        return self._left[self.numbers]

    def remembered(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returns, made once for as long as the members and their results stay the same.

        Args:
            key: What it is.
            make: A function of members, results and strata; not of who has left.
        """
        if key not in self._remembered:
            self._remembered[key] = make()
        found: T = self._remembered[key]
        return found

    def change(self, rung: int, number: int, old: Entry | None, new: Entry | None) -> None:
        """Takes up that trial `number` is `new` instead of `old`; None where there is no such trial."""
        had = old.results[rung] if old is not None and len(old.results) > rung else None
        has = new.results[rung] if new is not None and len(new.results) > rung else None
        if number >= len(self._member):
            self._grow(number, len(has or had or ()))
        if had != has or (old is not None and new is not None and old.stratum != new.stratum):
            self._remembered.clear()
            self.num_members += (has is not None) - (had is not None)
            self._member[number] = has is not None
            if has is not None and new is not None:
                self._values[number], self._strata[number] = has, new.stratum
        left = has is not None and new is not None and new.left(rung)
        self.num_left += int(left) - int(self._left[number])
        self._left[number] = left

    def _grow(self, number: int, objectives: int) -> None:
        more = max(64, 2 * (number + 1)) - len(self._member)
        self._values = np.concatenate([self._values.reshape(-1, objectives), np.zeros((more, objectives))])
        self._strata = np.concatenate([self._strata, np.zeros(more, dtype=np.int64)])
        self._member, self._left = (
            np.concatenate([mask, np.zeros(more, dtype=bool)]) for mask in (self._member, self._left)
        )


class _Book:
    """The newest ledger of a search, changed in place."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.num_running = self.num_failed = 0
        self.rungs: list[Rung] = []

    def put(self, number: int, entry: Entry | None) -> Entry | None:
        """Puts an entry in its place, or takes away the last one; returns what was there."""
        assert entry is None or entry.number == number <= len(self.entries)
        old = self.entries[number] if number < len(self.entries) else None
        if entry is None:
            self.entries.pop()
        else:
            self.entries[number : number + 1] = [entry]
        for one, sign in ((old, -1), (entry, 1)):
            if one is not None:
                self.num_running += sign * one.running
                self.num_failed += sign * one.failed
        for rung in range(max(len(one.results) for one in (old, entry) if one is not None)):
            if rung == len(self.rungs):
                self.rungs.append(Rung())
            self.rungs[rung].change(rung, number, old, entry)
        return old


class Ledger:
    """All trials of a search, in order of their numbers.

    Args:
        entries: Entry i has number i.
    """

    __slots__ = ("_change", "_newer", "_own")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        """Raises AssertionError unless entry i has number i."""
        book = _Book()
        for number, entry in enumerate(entries):
            book.put(number, entry)
        self._own: _Book | None = book  # only the ledger that was read last has it
        self._newer: Ledger | None = None  # the others are like another one ...
        self._change: tuple[int, Entry | None] = (0, None)  # ... save this entry

    @property
    def _book(self) -> _Book:
        """The book, turned to this ledger."""
        if self._own is None:
            way: list[Ledger] = [self]
            while (newer := way[-1]._newer) is not None:
                way.append(newer)
            for newer, older in zip(way[:0:-1], way[-2::-1], strict=True):
                book, newer._own, number = newer._own, None, older._change[0]
                assert book is not None
                newer._newer, newer._change = older, (number, book.put(*older._change))
                older._own, older._newer = book, None
        assert self._own is not None
        return self._own

    def __len__(self) -> int:
        return len(self._book.entries)

    def __getitem__(self, number: int) -> Entry:
        return self._book.entries[number]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ledger) and self.entries == other.entries

    def __hash__(self) -> int:
        return hash(self.entries)

    def __repr__(self) -> str:
        return f"Ledger({self.entries!r})"

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All trials; who wants one of them takes `ledger[number]`."""
        return tuple(self._book.entries)

    @property
    def num_running(self) -> int:
        """Jobs under way."""
        return self._book.num_running

    @property
    def num_failed(self) -> int:
        """Trials that failed."""
        return self._book.num_failed

    def rung(self, rung: int) -> Rung:
        """Who has a result at `rung`, as arrays."""
        rungs = self._book.rungs
        return rungs[rung] if rung < len(rungs) else Rung()

    def counts(self, num_rungs: int) -> tuple[int, ...]:
        """Trials with a result, for each rung."""
        return tuple(self.rung(rung).num_members for rung in range(num_rungs))

    def replace(self, entry: Entry) -> Ledger:
        """The ledger with `entry` in the place of the one with its number, or appended as the next."""
        book, ledger = self._book, Ledger.__new__(Ledger)
        ledger._own, ledger._newer, ledger._change = book, None, (0, None)
        self._change = (entry.number, book.put(entry.number, entry))
        self._own, self._newer = None, ledger
        return ledger
