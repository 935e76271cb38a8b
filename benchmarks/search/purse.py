"""What a search on a table may spend, and what it did: the one place where epochs are counted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.search.tables import Table


class Event(NamedTuple):
    """A result that a search got: a network reached a fidelity, and so many epochs were spent by then, all in all."""

    network: int
    fidelity: int
    epochs: int


class SpentError(Exception):
    """The next training would cost more than is left."""


@dataclass(kw_only=True)
class Purse:
    """Trains on a table and pays for it.

    Attributes:
        table: Known results.
        seed: Of the search, and of the accuracies that it sees.
        budget: Epochs.
        spent: Epochs so far.
        events: So far.
    """

    table: Table
    seed: int
    budget: int
    spent: int = 0
    events: list[Event] = field(default_factory=list)

    def train(self, network: int, fidelity: int | None = None, *, after: int | None = None) -> float:
        """The error in percent of a network at a fidelity.

        A network that is trained again is paid for again, as a user would who trains what a sampler proposes.

        Args:
            network: Row of the table.
            fidelity: Index; a full training if it is None.
            after: The fidelity of the checkpoint that the training goes on from; from scratch if it is None.

        Raises:
            SpentError: The budget does not reach; nothing was paid.
        """
        table = self.table
        fidelity = table.top if fidelity is None else fidelity
        cost = table.fidelities[fidelity] - (0 if after is None else table.fidelities[after])
        if self.spent + cost > self.budget:
            raise SpentError
        self.spent += cost
        self.events.append(Event(network, fidelity, self.spent))
        return table.error(network, fidelity, self.seed)


Search = Callable[[Purse], None]
Method = Callable[[Table, int, int], Sequence[Event]]


def method(search: Search) -> Method:
    """A method of a search that trains until the purse is empty, or ends by itself."""

    def run(table: Table, seed: int, budget: int) -> Sequence[Event]:
        purse = Purse(table=table, seed=seed, budget=budget)
        with contextlib.suppress(SpentError):
            search(purse)
        return purse.events

    return run
