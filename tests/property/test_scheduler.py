"""Promotion-type Pareto ASHA on random ledgers: one to three objectives, any strata, any order of outcomes."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.search.ledger import Entry, Ledger
from nas.search.scheduler import Done, Promote, Rules, Start, Wait, asha, order, promotable
from nas.study.front import front, front_ranks, hypervolume
from nas.study.schema import OrderBy
from tests.fronts import dominates

ORDERS: tuple[OrderBy, ...] = ("hypervolume", "fronts")


@st.composite
def searches(draw: st.DrawFn) -> tuple[Rules, int, int, int, int, float]:
    rules = Rules(
        num_rungs=draw(st.integers(1, 4)),
        eta=draw(st.integers(2, 4)),
        num_trials=draw(st.integers(1, 40)),
        order=draw(st.sampled_from(ORDERS)),
    )
    objectives, strata, slots = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    return rules, objectives, strata, slots, draw(st.integers(0, 10**6)), draw(st.sampled_from([0.0, 0.0, 0.2]))


def members_of(ledger: Ledger, rung: int) -> tuple[Entry, ...]:
    """The trials that have a result at a rung."""
    return tuple(ledger[int(number)] for number in ledger.rung(rung).numbers)


def run(
    rules: Rules, objectives: int, strata: int, slots: int, seed: int, failing: float
) -> tuple[Ledger, list[tuple[Ledger, Promote]]]:
    """A whole search on random outcomes; returns its end, and every promotion with the ledger before it."""
    rng = random.Random(seed)
    ledger, running, promotions = Ledger(), list[int](), list[tuple[Ledger, Promote]]()
    for _ in range(10_000):
        while len(running) < slots:
            action = asha(ledger, rules)
            if isinstance(action, Promote):
                promotions.append((ledger, action))
                ledger = ledger.replace(replace(ledger.entries[action.number], running=True))
                running.append(action.number)
            elif isinstance(action, Start):
                running.append(len(ledger))
                ledger = ledger.replace(Entry(number=len(ledger), stratum=rng.randrange(strata), running=True))
            else:
                break
        if not running:
            assert isinstance(asha(ledger, rules), Done)
            return ledger, promotions
        entry = ledger.entries[running.pop(rng.randrange(len(running)))]
        if rng.random() < failing:
            ledger = ledger.replace(replace(entry, running=False, failed=True))
        else:
            result = tuple(rng.choice([rng.random(), 0.5]) for _ in range(objectives))
            ledger = ledger.replace(replace(entry, running=False, results=(*entry.results, result)))
    raise AssertionError("the search does not end")


@settings(max_examples=150, deadline=None)
@given(searches())
def test_a_search_ends_with_the_counts_of_successive_halving(search: tuple[Rules, int, int, int, int, float]) -> None:
    rules, failing = search[0], search[-1]
    ledger, _ = run(*search)
    assert len(ledger) == rules.num_trials
    counts = ledger.counts(rules.num_rungs)
    for lower, upper in pairwise(counts):
        assert upper <= lower // rules.eta
        if not failing:
            assert upper == lower // rules.eta


@settings(max_examples=150, deadline=None)
@given(searches())
def test_every_promotion_is_the_best_free_member_and_never_one_too_many(
    search: tuple[Rules, int, int, int, int, float],
) -> None:
    rules = search[0]
    _, promotions = run(*search)
    for ledger, action in promotions:
        rung = action.rung - 1
        members = members_of(ledger, rung)
        allowed = len(members) // rules.eta
        assert sum(m.left(rung) for m in members) < allowed
        places = order([m.results[rung] for m in members], [m.stratum for m in members], by=rules.order)
        ranked = [members[i] for i in places]
        assert action.number == next(m.number for m in ranked if not m.left(rung))
        assert action.number in {m.number for m in ranked[:allowed]}
        for higher in range(rung + 1, rules.num_rungs - 1):
            assert promotable(ledger, higher, rules) is None, "a higher rung goes first"


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 3).flatmap(
        lambda m: st.lists(st.tuples(*[st.sampled_from([0.0, 0.25, 0.5, 1.0])] * m), min_size=1, max_size=25)
    ),
    st.randoms(use_true_random=False),
    st.sampled_from(ORDERS),
)
def test_the_order_is_a_permutation_that_never_puts_a_dominated_member_of_a_stratum_first(
    values: list[tuple[float, ...]], rng: random.Random, by: OrderBy
) -> None:
    strata = [rng.randrange(3) for _ in values]
    places = {member: place for place, member in enumerate(order(values, strata, by=by))}
    assert sorted(places) == list(range(len(values)))
    for a in range(len(values)):
        for b in range(len(values)):
            if strata[a] == strata[b] and dominates(values[a], values[b]):
                assert places[a] < places[b]
    if by == "fronts":
        assert values[order(values, strata, by=by)[0]][0] == min(values)[0], "the best of the first objective leads"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from([0.0, 0.2, 0.4, 0.7, 1.0])] * 2), min_size=2, max_size=12, unique=True))
def test_ordering_by_hypervolume_takes_what_adds_most(values: list[tuple[float, float]]) -> None:
    """The lazy queue against looking at every member every time."""
    low = [min(axis) for axis in zip(*values, strict=True)]
    high = [max(axis) for axis in zip(*values, strict=True)]
    unit = [tuple((x - a) / ((b - a) or 1) for x, a, b in zip(v, low, high, strict=True)) for v in values]
    taken: list[int] = []
    for place in order(values, [0] * len(values), by="hypervolume"):
        left = [i for i in range(len(values)) if i not in taken]
        volumes = {i: hypervolume([unit[j] for j in [*taken, i]], (1.05, 1.05)) for i in left}
        assert volumes[place] == pytest.approx(max(volumes.values()))
        taken.append(place)


def by_looking_at_all(values: list[tuple[float, ...]], strata: list[int]) -> list[int]:
    """The order by hypervolume, every member looked at for every place; the strata take turns."""
    axes = [(min(axis), max(axis) - min(axis) or 1.0) for axis in zip(*values, strict=True)]
    unit = [[(x - low) / span for x, (low, span) in zip(v, axes, strict=True)] for v in values]
    reference, ranks = [1.05] * len(axes), dict[int, int]()
    queues: list[list[int]] = []
    for stratum in sorted(set(strata)):
        rest = [i for i, own in enumerate(strata) if own == stratum]
        ranks |= dict(zip(rest, front_ranks([unit[i] for i in rest]).tolist(), strict=True))
        queue: list[int] = []
        while rest:
            before = hypervolume([unit[i] for i in queue], reference)
            gains = {i: hypervolume([unit[j] for j in [*queue, i]], reference) - before for i in rest}
            queue.append(min(rest, key=lambda i: (-round(gains[i], 12), ranks[i], unit[i][0], i)))
            rest.remove(queue[-1])
        queues.append(queue)
    queues.sort(key=lambda queue: (min(values[i][0] for i in queue), queue[0]))
    return [queue[place] for place in range(len(values)) for queue in queues if place < len(queue)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 40), st.integers(1, 3), st.sampled_from([0, 6, 40]), st.integers(0, 10**6))
def test_the_order_is_that_of_looking_at_every_member_for_every_place(
    objectives: int, count: int, classes: int, levels: int, seed: int
) -> None:
    rng = random.Random(seed)
    choices = [level / levels for level in range(levels)]
    values = [tuple(rng.choice(choices) if choices else rng.random() for _ in range(objectives)) for _ in range(count)]
    strata = [rng.randrange(classes) for _ in values]
    assert order(values, strata) == by_looking_at_all(values, strata)


@settings(max_examples=60, deadline=None)
@given(searches(), st.integers(0, 10**6))
def test_a_ledger_stays_as_it_was_whatever_is_made_of_it(
    search: tuple[Rules, int, int, int, int, float], seed: int
) -> None:
    """Read in any order, and gone on from again, each is like one that was made of its entries."""
    rules = search[0]
    ledgers = [ledger for ledger, _ in run(*search)[1]] or [Ledger()]
    copies = [ledger.entries for ledger in ledgers]
    rng = random.Random(seed)
    for _ in range(20):
        at = rng.randrange(len(ledgers))
        ledger, fresh = ledgers[at], Ledger(copies[at])
        assert ledger == fresh
        assert asha(ledger, rules) == asha(fresh, rules)
        assert (ledger.num_running, ledger.num_failed) == (fresh.num_running, fresh.num_failed)
        assert ledger.counts(rules.num_rungs) == fresh.counts(rules.num_rungs)
        for rung in range(rules.num_rungs):
            mine, other = ledger.rung(rung), fresh.rung(rung)
            assert (mine.num_members, mine.num_left) == (other.num_members, other.num_left)
            assert mine.numbers.tolist() == [entry.number for entry in copies[at] if len(entry.results) > rung]
            assert mine.left.tolist() == [entry.left(rung) for entry in members_of(fresh, rung)]
            assert [tuple(row) for row in mine.values] == [entry.results[rung] for entry in members_of(fresh, rung)]
            assert mine.strata.tolist() == [entry.stratum for entry in members_of(fresh, rung)]
        ledgers.append(ledger.replace(Entry(number=len(ledger), stratum=1, running=True)))
        copies.append((*copies[at], ledgers[-1][len(ledger)]))


def test_a_good_late_starter_is_promoted() -> None:
    rules = Rules(num_rungs=2, eta=3, num_trials=30)
    ledger = Ledger()
    while not isinstance(action := asha(ledger, rules), Done):
        number = action.number if isinstance(action, Promote) else len(ledger)
        late = number == 27
        entry = ledger.entries[number] if number < len(ledger) else Entry(number=number)
        ledger = ledger.replace(replace(entry, results=(*entry.results, (0.1 if late else 0.5 + number / 100,))))
    assert len(ledger.entries[27].results) == 2


def test_the_cheapest_do_not_fill_the_rungs() -> None:
    """Cheap networks that have learned nothing are on the first front for ever, and an epsilon-net takes them in."""
    cheap = [(0.90 - i / 1000, 1.0 + i / 5) for i in range(9)]
    dear = [(0.5 - i / 100, 3.0 + i / 20) for i in range(9)]
    values = cheap + dear
    assert front(values) == list(range(18))
    places = {by: order(values, [0] * 18, by=by)[:6] for by in ORDERS}
    assert sum(i < 9 for i in places["fronts"]) == 4
    assert sum(i < 9 for i in places["hypervolume"]) == 2


def test_strata_give_each_class_of_cost_its_share() -> None:
    cheap = [(0.5 + i / 1000, 1.0 + i / 100) for i in range(9)]
    dear = [(0.4 + i / 1000, 3.0 + i / 100) for i in range(9)]
    for by in ORDERS:
        assert sum(i >= 9 for i in order(cheap + dear, [0] * 9 + [1] * 9, by=by)[:6]) == 3


def test_failed_and_running_members_hold_their_place() -> None:
    rules = Rules(num_rungs=2, eta=3, num_trials=3)
    three = [Entry(number=i, results=((0.1 * i,),)) for i in range(3)]
    assert asha(Ledger(tuple(three)), rules) == Promote(0, 1)
    assert asha(Ledger((replace(three[0], running=True), *three[1:])), rules) == Wait()
    assert asha(Ledger((replace(three[0], failed=True), *three[1:])), rules) == Done()


def test_a_failure_at_the_first_rung_never_becomes_a_member() -> None:
    entries = (Entry(number=0, failed=True), Entry(number=1, results=((0.2,),)), Entry(number=2, results=((0.3,),)))
    assert promotable(Ledger(entries), 0, Rules(num_rungs=2, eta=3, num_trials=3)) is None
    assert promotable(Ledger(entries), 0, Rules(num_rungs=2, eta=2, num_trials=3)) == entries[1]


@pytest.mark.parametrize("by", ORDERS)
def test_one_objective_is_plain_successive_halving(by: OrderBy) -> None:
    values = [(0.5,), (0.1,), (0.9,), (0.3,)]
    assert order(values, [0] * 4, by=by) == [1, 3, 0, 2]
