"""Schedulers by name: pure functions of the ledger, of one shape, that say what a free worker does next.

`asha` stands in `nas.search.scheduler`; `freeze_thaw`, which needs a model and so more than a ledger, in
`nas.search.freeze_thaw`. The others here are what they are held against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from nas.search.ledger import Entry, Ledger
from nas.search.scheduler import Action, Done, Promote, Rules, Start, Wait, next_action, promotable


def in_full(ledger: Ledger, rules: Rules) -> Action:
    """Every network is trained to the last rung."""
    for entry in ledger.entries:
        if 0 < len(entry.results) < rules.num_rungs and not entry.running and not entry.failed:
            return Promote(entry.number, len(entry.results))
    return _start(ledger, rules)


def iepoch(ledger: Ledger, rules: Rules) -> Action:
    """Everything to the first rung; then the best floor(n / eta) of it in full (Egele et al., arXiv 2404.04111)."""
    if rules.num_rungs == 1 or len(ledger) < rules.num_trials:
        return _start(ledger, rules)
    if any(entry.running and not entry.results for entry in ledger.entries):
        return Wait()
    chosen = promotable(ledger, 0, rules)
    if chosen is not None:
        return Promote(chosen.number, 1)
    going = [e for e in ledger.entries if 1 < len(e.results) < rules.num_rungs and not e.running and not e.failed]
    if going:
        return Promote(going[0].number, len(going[0].results))
    return Wait() if ledger.num_running else Done()


def hyperband(ledger: Ledger, rules: Rules) -> Action:
    """Brackets of asynchronous halving, each of which begins at another rung (Li et al., arXiv 1603.06560).

    A network of bracket b goes to rung b without being compared, and from there as by `asha` among its bracket. Of the
    networks, a share falls to bracket b that takes all brackets about the same epochs.
    """
    counts = brackets(rules)
    bracket = [bracket_of(entry.number, counts) for entry in ledger.entries]
    for own in range(1, rules.num_rungs):  # those that have not got to where their bracket begins
        for entry in ledger.entries:
            ready = not entry.running and not entry.failed and 0 < len(entry.results) <= own
            if ready and bracket[entry.number] == own:
                return Promote(entry.number, len(entry.results))
    for own in range(rules.num_rungs - 1):
        members = [e for e in ledger.entries if bracket[e.number] == own]
        for rung in reversed(range(own, rules.num_rungs - 1)):
            alone = Ledger(replace(entry, number=i) for i, entry in enumerate(members))
            chosen = promotable(alone, rung, rules)
            if chosen is not None:
                return Promote(members[chosen.number].number, rung + 1)
    return _start(ledger, rules)


def brackets(rules: Rules) -> tuple[int, ...]:
    """How many networks in turn are of each bracket: eta ** (s - b) times (s + 1) / (s - b + 1) of bracket b."""
    last = rules.num_rungs - 1
    return tuple(max(1, round((last + 1) / (last - b + 1) * rules.eta ** (last - b))) for b in range(last + 1))


def bracket_of(number: int, counts: Sequence[int]) -> int:
    """The bracket of a network, by its number.

    Args:
        number: From 0.
        counts: Of `brackets`.
    """
    place = number % sum(counts)
    return next(b for b in range(len(counts)) if place < sum(counts[: b + 1]))


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
