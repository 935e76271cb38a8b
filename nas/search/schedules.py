"""Schedulers by name: pure functions of the ledger, of one shape, that say what a free worker does next.

`asha` stands in `nas.search.scheduler`; `freeze_thaw`, which needs a model and so more than a ledger, in
`nas.search.freeze_thaw`. The others here are what they are held against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nas.search.ledger import Entry, Ledger
from nas.search.scheduler import Action, Done, Promote, Rules, Start, Wait, next_action, promotable

_ENOUGH = 1e12  # networks of a bracket in turn: no search begins as many, however large its reduction factor


def in_full(ledger: Ledger, rules: Rules) -> Action:
    """Every network is trained to the last rung."""
    return _next_rung(ledger, range(rules.num_rungs - 1)) or _start(ledger, rules)


def iepoch(ledger: Ledger, rules: Rules) -> Action:
    """Everything to the first rung; then the best floor(n / eta) of it in full (Egele et al., arXiv 2404.04111)."""
    if rules.num_rungs == 1 or len(ledger) < rules.num_trials:
        return _start(ledger, rules)
    if any(entry.running and not entry.results for entry in ledger.entries):
        return Wait()
    chosen = promotable(ledger, 0, rules)
    if chosen is not None:
        return Promote(chosen.number, 1)
    return _next_rung(ledger, range(1, rules.num_rungs - 1)) or _start(ledger, rules)


def hyperband(ledger: Ledger, rules: Rules) -> Action:
    """Brackets of asynchronous halving, each of which begins at another rung (Li et al., arXiv 1603.06560).

    A network of bracket b goes to rung b without being compared, and from there as by `asha` among its bracket. Of the
    networks, a share falls to bracket b that takes all brackets about the same epochs.
    """
    counts = brackets(rules)
    for own in range(1, rules.num_rungs):  # those that have not got to where their bracket begins
        action = _next_rung(ledger, range(own), counts, own)
        if action is not None:
            return action
    for own in range(rules.num_rungs - 1):
        for rung in reversed(range(own, rules.num_rungs - 1)):
            members = bracket_of(ledger.rung(rung).numbers, counts) == own
            chosen = promotable(ledger, rung, rules, among=members)
            if chosen is not None:
                return Promote(chosen.number, rung + 1)
    return _start(ledger, rules)


def brackets(rules: Rules) -> tuple[int, ...]:
    """How many networks in turn are of each bracket: eta ** (s - b) times (s + 1) / (s - b + 1) of bracket b."""
    last = rules.num_rungs - 1
    return tuple(max(1, round((last + 1) / (last - b + 1) * rules.eta ** (last - b))) for b in range(last + 1))


def bracket_of(numbers: NDArray[np.int64], counts: Sequence[int]) -> NDArray[np.int64]:
    """The bracket of each network, by its number.

    Args:
        numbers: From 0.
        counts: Of `brackets`.
    """
    ends = np.cumsum(np.minimum(np.asarray(counts, dtype=float), _ENOUGH))
    return np.asarray(np.searchsorted(ends, numbers % ends[-1], side="right"), dtype=np.int64)


def _next_rung(ledger: Ledger, rungs: Iterable[int], counts: Sequence[int] = (1,), bracket: int = 0) -> Promote | None:
    """Takes the first network of a bracket that stands at one of `rungs` to the next, without a comparison."""
    standing = list[tuple[int, int]]()
    for rung in rungs:
        here = ledger.rung(rung)
        numbers = here.numbers[~here.left]
        numbers = numbers[bracket_of(numbers, counts) == bracket]
        standing += [(int(numbers[0]), rung)] if len(numbers) else []
    return Promote(min(standing)[0], min(standing)[1] + 1) if standing else None


def _start(ledger: Ledger, rules: Rules) -> Action:
    if len(ledger) < rules.num_trials:
        return Start()
    return Wait() if ledger.num_running else Done()


LEDGER_SCHEDULERS: Mapping[str, Callable[[Ledger, Rules], Action]] = {
    "asha": next_action,
    "iepoch": iepoch,
    "hyperband": hyperband,
    "none": in_full,
}


def spent(ledger: Ledger, ends: tuple[int, ...]) -> int:
    """Epochs of all jobs that have ended or are under way; one that failed counts whole, however far it got."""

    def of(entry: Entry) -> int:
        reached = len(entry.results) + (entry.running or entry.failed)
        return ends[reached - 1] if reached else 0

    return sum(map(of, ledger.entries))
