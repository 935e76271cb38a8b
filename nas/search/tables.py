"""The same scheduler on a table of known results instead of a trainer: how search methods are measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nas.search.ledger import Entry, Ledger
from nas.search.pool import strata_of
from nas.search.scheduler import Promote, Rules, Start, next_action

Evaluate = Callable[[int, int], float]
Choose = Callable[[Sequence[int]], int | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRun:
    """A search on a table.

    Attributes:
        ledger: Its end.
        networks: Row of the table for each trial.
        spent: Units of training after each result, cumulative, with (trial, rung) of the result.
    """

    ledger: Ledger
    networks: tuple[int, ...]
    spent: tuple[tuple[int, int, int], ...]


def run_on_table(
    *,
    macs: Sequence[int],
    error: Evaluate,
    choose: Choose,
    rules: Rules,
    rungs: Sequence[int],
    strata: int,
) -> TableRun:
    """Runs a search with one worker.

    Args:
        macs: Cost of each row.
        error: Validation error of a row at a rung; called once for each.
        choose: The next row to try, given those tried; None ends the search early.
        rules: As on real training.
        rungs: Units of training at each rung.
        strata: Classes of cost that take turns.
    """
    stratum = strata_of(macs, strata)
    ledger, networks, spent, total = Ledger(), list[int](), list[tuple[int, int, int]](), 0
    while True:
        action = next_action(ledger, rules)
        if isinstance(action, Start):
            row = choose(networks)
            if row is None:
                break
            networks.append(row)
            entry, rung = Entry(number=len(ledger), stratum=stratum[row]), 0
        elif isinstance(action, Promote):
            entry, rung = ledger[action.number], action.rung
            row = networks[entry.number]
        else:
            break
        total += rungs[rung] - (rungs[rung - 1] if rung else 0)
        result = (error(row, rung), math.log10(macs[row]))
        ledger = ledger.replace(replace(entry, results=(*entry.results, result)))
        spent.append((total, entry.number, rung))
    return TableRun(ledger=ledger, networks=tuple(networks), spent=tuple(spent))
