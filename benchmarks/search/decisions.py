"""The same scheduler on a table of known results instead of a trainer: how search methods are measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nas.search.decide import Begin, Decider, GoOn
from nas.search.ledger import Entry, Ledger
from nas.search.model.belief import Result
from nas.search.pool import Candidate, strata_of
from nas.search.rows import Histories, Trial
from nas.search.sampler import STARTUP, History
from nas.search.scheduler import Promote, Rules, Start, asha

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
        action = asha(ledger, rules)
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


def decide_on_table(
    decider: Decider,
    *,
    num_rungs: int,
    costs: Sequence[str],
    train: Callable[[Candidate, int], tuple[float, int]],
) -> Ledger:
    """Runs a search with one worker by the decisions of a real one.

    Args:
        decider: Sampler and scheduler, with their budget.
        num_rungs: Of the table.
        costs: Names of the exact objectives.
        train: From a network and a rung to its error and the videos that it was measured on; what it raises ends the
            search.
    """
    ledger, networks = Ledger(), dict[str, Candidate]()
    digests, results, histories, gains = list[str](), list[Result](), Histories(num_rungs), list[float]()
    while True:
        counts = ledger.counts(num_rungs)
        rung = max((i for i, count in enumerate(counts) if count >= STARTUP), default=0)
        seen = History(
            digests=digests,
            networks=networks,
            results=results,
            pending=[],
            history=histories.at(rung),
            gains=gains,
        )
        match decider.decide(ledger, seen):
            case Begin(proposal=proposal):
                candidate, rung, reason = proposal.candidate, 0, proposal.reason
                entry = Entry(number=len(ledger), stratum=candidate.stratum)
                digests.append(candidate.digest)
                networks[candidate.digest] = candidate
            case GoOn(number=number, rung=rung, reason=reason):
                entry, candidate = ledger[number], networks[digests[number]]
            case _:
                return ledger
        gains += [] if reason is None else [reason.gain]
        error, videos = train(candidate, rung)
        objectives = (error, *(math.log10(candidate.quantity(name)) for name in costs))
        entry = replace(entry, results=(*entry.results, objectives))
        ledger = ledger.replace(entry)
        results.append(Result(digest=candidate.digest, rung=rung, errors=(error,), videos=videos))
        histories.put(_trial(entry, candidate), entry)


def _trial(entry: Entry, candidate: Candidate) -> Trial:
    return Trial(
        id=entry.number,
        number=entry.number,
        digest=candidate.digest,
        seed=0,
        stratum=entry.stratum,
        settings=candidate.params,
        description="",
        macs=0,
        num_params=0,
        activation_bytes=0,
        state="paused",
    )
