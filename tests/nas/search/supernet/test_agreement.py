"""Kendall's tau against what is known of it, and what it says given MACs."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.search.supernet.agreement import FEW, agreements, at_chance, interval, partial_tau, tau

values = st.lists(st.integers(0, 100), min_size=FEW, max_size=30, unique=True)


def rows(accuracy: dict[str, float], macs: dict[str, int], rung: int = 0) -> list[dict[str, Any]]:
    return [
        {"digest": key, "rung": rung, "epochs": 3, "top1": value, "map_sample": None, "macs": macs[key]}
        for key, value in accuracy.items()
    ]


@settings(deadline=None)
@given(values, st.randoms())
def test_tau_counts_pairs(a: list[int], rng: Any) -> None:
    b = rng.sample(a, len(a))
    pairs = [(i, j) for i in range(len(a)) for j in range(i)]
    signs = [math.copysign(1, (a[i] - a[j]) * (b[i] - b[j])) for i, j in pairs]
    assert tau(a, b) == pytest.approx(sum(signs) / len(pairs))
    assert tau(a, a) == pytest.approx(1)
    low, high = interval(tau(a, b) or 0.0, len(a))
    assert -1 <= low <= (tau(a, b) or 0.0) + 1e-9 and (tau(a, b) or 0.0) - 1e-9 <= high <= 1


def test_few_networks_say_nothing() -> None:
    assert tau([1, 2, 3, 4], [1, 2, 3, 4]) is None
    assert tau([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]) is None


def test_an_order_by_cost_alone_says_nothing_given_macs() -> None:
    """Shared weights that only follow MACs agree with stand-alone accuracy as far as that follows MACs, and no more."""
    keys = [f"{i:02}" for i in range(20)]
    macs = {key: 10 * (i + 1) for i, key in enumerate(keys)}
    noise = {key: (7 * i) % 20 for i, key in enumerate(keys)}
    alone = {key: (macs[key] / 10 + noise[key]) / 100 for key in keys}
    (by_cost,) = agreements({key: float(macs[key]) for key in keys}, rows(alone, macs))
    assert by_cost.tau == by_cost.tau_macs and by_cost.tau is not None and by_cost.tau > 0.3
    assert by_cost.tau_given_macs is None
    (by_noise,) = agreements({key: float(noise[key]) for key in keys}, rows(alone, macs))
    assert by_noise.tau_given_macs is not None and by_noise.tau_given_macs > 0.3


def test_partial_tau_is_kendalls_formula() -> None:
    a, b, c = [1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 5], [1, 3, 2, 6, 5, 4]
    ab, ac, bc = (tau(x, y) or 0.0 for x, y in ((a, b), (a, c), (b, c)))
    assert partial_tau(a, b, c) == pytest.approx((ab - ac * bc) / math.sqrt((1 - ac**2) * (1 - bc**2)))
    assert partial_tau(a, b, [1] * 6) == ab


def test_the_best_fifth_is_that_of_stand_alone_training() -> None:
    """Over all networks the orders agree; among the best five of 25 they are opposite."""
    keys = [f"{i:02}" for i in range(25)]
    alone = {key: i / 100 for i, key in enumerate(keys)}
    shared = {key: (i if i < 20 else 44 - i) / 100 for i, key in enumerate(keys)}
    (found,) = agreements(shared, rows(alone, dict.fromkeys(keys, 1)))
    assert (found.networks, found.best, found.tau_best) == (25, 5, pytest.approx(-1))
    assert found.tau is not None and found.tau > 0.9


def test_each_rung_is_looked_at_by_itself() -> None:
    keys = [str(i) for i in range(6)]
    shared = {key: int(key) / 10 for key in keys}
    macs = dict.fromkeys(keys, 1)
    low, high = rows(shared, macs), rows({key: 1 - shared[key] for key in keys}, macs, rung=1)
    other = [{**low[0], "digest": "not measured"}, {**low[0], "rung": None}]
    assert [(one.rung, one.networks, one.tau) for one in agreements(shared, [*high, *low, *other])] == [
        (0, 6, pytest.approx(1)),
        (1, 6, pytest.approx(-1)),
    ]


def test_the_luckiest_of_many_at_chance_is_no_sign() -> None:
    assert at_chance([0.152] + [0.125] * 59, videos=512, chance=0.125)
    assert not at_chance([0.152] + [0.125] * 59, videos=51_200, chance=0.125)
    assert not at_chance([0.3, 0.125], videos=512, chance=0.125)
    assert at_chance([], videos=512, chance=0.125)


def test_seeds_of_a_network_count_by_their_mean() -> None:
    row = {"rung": 0, "epochs": 3, "top5": 1.0, "loss": 1.0, "num_clips": 100, "map_sample": None, "chosen_by": "top1"}
    rows = []
    for i in range(10):
        own = {**row, "digest": f"d{i}", "macs": 100 + i, "map_class": None, "balanced": None}
        rows += [{**own, "top1": i / 10}, {**own, "top1": i / 10 - 0.02 if i < 9 else 0.0}]
    (found,) = agreements({f"d{i}": i / 10 for i in range(10)}, rows)
    assert found.tau == pytest.approx(0.822, abs=0.001)
