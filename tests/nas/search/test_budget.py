"""Epochs of a whole search: what its scheduler takes when it is run to the end on made-up results."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from nas.search.budget import Budget, recorded_budget
from nas.search.ledger import Entry, Ledger
from nas.search.scheduler import LEDGER_SCHEDULERS, Promote, Rules, Start, spent

ENDS = (1, 3, 9)


def run(budget: Budget, *, failing: frozenset[tuple[int, int]] = frozenset()) -> tuple[Ledger, list[int]]:
    """A search with one worker as a driver decides it; its end, and how many networks began each rung."""
    rules = Rules(num_rungs=len(budget.ends), eta=budget.eta, num_trials=budget.trials)
    ledger, begun, rng = Ledger(), [0] * len(budget.ends), random.Random(budget.trials)
    while True:
        action = LEDGER_SCHEDULERS[budget.scheduler](ledger, rules)
        if not isinstance(action, Start | Promote):
            return ledger, begun
        rung = action.rung if isinstance(action, Promote) else 0
        if budget.max_epochs and spent(ledger, budget.ends) + budget.steps[rung] > budget.max_epochs:
            return ledger, begun
        entry = ledger[action.number] if isinstance(action, Promote) else Entry(number=len(ledger), stratum=0)
        begun[rung] += 1
        if (entry.number, rung) in failing:
            ledger = ledger.replace(replace(entry, failed=True))
        else:
            ledger = ledger.replace(replace(entry, results=(*entry.results, (rng.random(), rng.random()))))


SCHEDULERS = ("asha", "iepoch", "hyperband", "none")


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("trials", [1, 2, 7, 27, 40])
@pytest.mark.parametrize("ends", [(2,), (1, 3), ENDS])
def test_the_epochs_are_those_that_the_scheduler_takes(scheduler: str, trials: int, ends: tuple[int, ...]) -> None:
    budget = Budget(scheduler=scheduler, trials=trials, ends=ends, eta=3)
    ledger, begun = run(budget)
    assert budget.epochs == spent(ledger, ends)
    assert budget.networks() == tuple(begun)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_networks_that_failed_do_not_go_on(scheduler: str) -> None:
    failing = frozenset({(0, 0), (5, 0), (7, 0), (2, 0), (3, 1), (30, 0), (1, 1)})
    budget = Budget(scheduler=scheduler, trials=40, ends=ENDS, eta=3)
    ledger, begun = run(budget, failing=failing)
    failed = [
        [entry.number for entry in ledger.entries if entry.failed and len(entry.results) == rung] for rung in range(3)
    ]
    assert budget.networks(failed) == tuple(begun)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("most", [9, 17, 25, 60, 100, 10_000])
def test_a_limit_of_epochs_ends_a_search_early(scheduler: str, most: int) -> None:
    budget = Budget(scheduler=scheduler, trials=40, ends=ENDS, eta=3, max_epochs=most)
    whole = replace(budget, max_epochs=0)
    ledger, begun = run(budget)
    assert budget.epochs == min(most, whole.epochs)
    assert 0 <= budget.epochs - spent(ledger, ENDS) < max(budget.steps)
    counts = budget.networks()
    assert counts is not None
    assert sum(n * step for n, step in zip(counts, budget.steps, strict=True)) <= most
    assert all(abs(planned - true) <= 3 for planned, true in zip(counts, begun, strict=True))


@pytest.mark.parametrize(
    ("most", "epochs"),
    [(0, 40 + 13 * 2 + 4 * 6), (30, 30), (100_000, 40 * 9)],  # no more than all networks in full
)
def test_freeze_thaw_has_what_halving_takes_or_its_limit(most: int, epochs: int) -> None:
    budget = Budget(scheduler="freeze_thaw", trials=40, ends=ENDS, eta=3, max_epochs=most)
    assert (budget.epochs, budget.networks()) == (epochs, None)


@pytest.mark.parametrize("scheduler", [*SCHEDULERS, "freeze_thaw"])
def test_it_takes_no_time_however_many_trials_are_asked_for(scheduler: str) -> None:
    budget = Budget(scheduler=scheduler, trials=10**9, ends=ENDS, eta=2, max_epochs=10**8)
    assert budget.epochs == 10**8
    budget.networks([[1, 2, 3]])


def test_brackets_take_no_room_however_large_the_factor() -> None:
    budget = Budget(scheduler="hyperband", trials=20, ends=ENDS, eta=10**9)
    assert budget.networks() == (20, 0, 0)


def test_freeze_thaw_can_always_train_one_network() -> None:
    assert Budget(scheduler="freeze_thaw", trials=2, ends=(1, 3, 9), eta=3).epochs == 9


def test_a_record_of_before_is_one_of_halving() -> None:
    study = {"config": {"search": {"rungs": [1, 3, 9], "trials": 40, "eta": 3}}}
    assert recorded_budget(study).epochs == 40 + 13 * 2 + 4 * 6
    assert recorded_budget({"config": {}}).epochs == 0
