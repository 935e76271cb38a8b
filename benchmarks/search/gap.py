"""The score of a search: how much of the hypervolume of the true front the networks that it tried lack.

Axes: mean error of the table over its reference error, and log MACs scaled to 0..1 with the reference 1.05. What counts
are the networks that were trained in full, by their error over all seeds, not by what the search saw of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.purse import Event
from benchmarks.search.tables import Table
from nas.study.front import hypervolume

REFERENCE = (1.0, 1.05)


@lru_cache(maxsize=16)
def _axes(table: Table) -> tuple[NDArray[np.float64], float]:
    points = np.column_stack([table.truth / table.reference, table.place])
    return points, hypervolume(points, REFERENCE)


def gap(table: Table, networks: Sequence[int]) -> float:
    """Percent of the hypervolume of the true front that these networks lack."""
    points, best = _axes(table)
    return 100 * (1 - hypervolume(points[list(networks)], REFERENCE) / best)


def curve(table: Table, events: Sequence[Event]) -> list[tuple[int, float]]:
    """(epochs spent, gap) at the start and wherever a full training made the gap smaller."""
    steps, tried, last = [(0, 100.0)], list[int](), 100.0
    for event in events:
        if event.fidelity != table.top or event.network in tried:
            continue
        tried.append(event.network)
        now = gap(table, tried)
        if now < last - 1e-12:
            steps.append((event.epochs, now))
            last = now
    return steps


def at(steps: Sequence[tuple[int, float]], epochs: int) -> float:
    """The gap after so many epochs."""
    return next(value for spent, value in reversed(steps) if spent <= epochs)


def started(events: Sequence[Event]) -> list[int]:
    """Networks of the trainings from scratch, in their order: at the lowest fidelity that the search has used."""
    lowest = min((event.fidelity for event in events), default=0)
    return [event.network for event in events if event.fidelity == lowest]


def duplicates(events: Sequence[Event]) -> float:
    """Percent of the trainings from scratch that trained a network which was trained before."""
    networks = started(events)
    return 100 * (1 - len(set(networks)) / len(networks)) if networks else 0.0
