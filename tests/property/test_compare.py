"""Fronts and hypervolume against their definitions."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.study.front import front, front_ranks, hypervolume
from tests.fronts import dominates

points = st.lists(st.tuples(*[st.integers(0, 6).map(lambda i: i / 6)] * 2), min_size=1, max_size=20)


@settings(max_examples=100, deadline=None)
@given(points)
def test_the_front_is_what_nothing_dominates(values: list[tuple[float, float]]) -> None:
    expected = [i for i, a in enumerate(values) if not any(dominates(b, a) for b in values)]
    assert front(values) == expected
    ranks = front_ranks(values)
    for a, rank in zip(values, ranks, strict=True):
        below = {r for b, r in zip(values, ranks, strict=True) if dominates(b, a)}
        assert rank == (max(below) + 1 if below else 0)


@settings(max_examples=30, deadline=None)
@given(points)
def test_hypervolume_is_the_share_of_dominated_area(values: list[tuple[float, float]]) -> None:
    cells = 12
    inside = sum(
        any(x <= (i + 0.5) / cells and y <= (j + 0.5) / cells for x, y in values)
        for i in range(cells)
        for j in range(cells)
    )
    assert hypervolume(values, (1.0, 1.0)) == pytest.approx(inside / cells**2)


def test_points_beyond_the_reference_add_nothing() -> None:
    assert hypervolume([(2.0, 0.1), (0.5, 1.5)], (1.0, 1.0)) == 0.0
    assert hypervolume([], (1.0, 1.0)) == 0.0
    assert hypervolume([(0.25,)], (1.0,)) == 0.75
    assert hypervolume([(0.5, 0.5, 0.5)], (1.0, 1.0, 1.0)) == 0.125


def test_a_point_more_never_takes_area_away() -> None:
    rng = random.Random(0)
    values = [(rng.random(), rng.random()) for _ in range(30)]
    areas = [hypervolume(values[:n], (1.0, 1.0)) for n in range(1, 31)]
    assert areas == sorted(areas)
