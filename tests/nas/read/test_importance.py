"""What levels earn: merged names, marginal fronts, partial effects."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.search.levels import FEW, beyond_cost, levels_of, marginal_fronts, partial_effects, uniform_levels
from tests.fronts import dominates


def row(digest: str, top1: float, macs: int, rung: int = 0, **settings: Any) -> dict[str, Any]:
    return {"digest": digest, "top1": top1, "macs": macs, "rung": rung, "epochs": 3**rung, "settings": settings}


networks = st.lists(
    st.tuples(
        st.integers(0, 20).map(lambda x: x / 20),
        st.integers(1, 10**9),
        st.sampled_from("abc"),
        st.sampled_from([1, 2]),
    ),
    min_size=1,
    max_size=25,
).map(lambda found: [row(f"d{i}", top1, macs, kind=kind, n=n) for i, (top1, macs, kind, n) in enumerate(found)])


def test_the_names_of_one_domain_are_one_factor() -> None:
    settings = {"family": "resnet", "resnet.kind": "3d", "resnet.kernel[3;5]": 5, "resnet.dilation": "1|2|3"}
    assert levels_of(settings) == {"family": "resnet", "kind": "3d", "kernel": "5", "dilation": "1|2|3"}
    assert levels_of({"kind.stage1[2d;3d]": "2d", "aux": True}) == {"kind.stage1": "2d", "aux": "true"}


def test_a_domain_of_places_is_uniform_where_all_of_them_agree() -> None:
    assert uniform_levels({"kind.stage0": "3d", "kind.stage1": "3d", "kernel": "3"}) == {"kind": "3d"}
    assert uniform_levels({"kind.stage0": "3d", "kind.stage1": "2d"}) == {}
    assert uniform_levels({"kind.stage0": "3d"}) == {}


@given(networks)
def test_a_marginal_front_is_the_front_of_the_networks_with_the_level(rows: list[dict[str, Any]]) -> None:
    for found in marginal_fronts(rows):
        key = "kind" if found.factor == "kind" else "n"
        inside = [r for r in rows if str(r["settings"][key]) == found.level]
        expected = {
            r["digest"]
            for r in inside
            if not any(dominates((1 - o["top1"], o["macs"]), (1 - r["top1"], r["macs"])) for o in inside)
        }
        assert set(found.digests) == expected
        assert found.networks == len(inside)
        assert list(found.macs) == sorted(found.macs)


@given(networks)
def test_a_share_is_one_where_the_level_has_the_whole_front_and_never_more(rows: list[dict[str, Any]]) -> None:
    points = [(1 - r["top1"], r["macs"]) for r in rows]
    whole = [r for r, p in zip(rows, points, strict=True) if not any(dominates(q, p) for q in points)]
    for found in marginal_fronts(rows):
        key = "kind" if found.factor == "kind" else "n"
        assert 0 < found.share <= 1 + 1e-9
        if all(str(r["settings"][key]) == found.level for r in whole):
            assert found.share == pytest.approx(1)


def test_a_level_that_loses_half_of_the_box_has_half_the_share() -> None:
    rows = [row("a", 1.0, 10, kind="x"), row("b", 0.0, 1000, kind="y"), row("c", 1.0, 1000, kind="y")]
    shares = {found.level: found.share for found in marginal_fronts(rows)}
    assert shares["x"] == pytest.approx(1)
    assert shares["y"] == pytest.approx(0.05 / 1.05)  # all of the error, and what the corner adds on the axis of MACs


def test_only_the_highest_rung_makes_marginal_fronts_unless_another_is_named() -> None:
    rows = [row("a", 0.9, 10, kind="x"), row("b", 0.5, 10, kind="y")]
    rows += [row("a", 0.7, 10, rung=1, kind="x"), row("b", 0.8, 10, rung=1, kind="y")]
    assert {(f.level, f.accuracy) for f in marginal_fronts(rows)} == {("x", (0.7,)), ("y", (0.8,))}
    assert {(f.level, f.epochs) for f in marginal_fronts(rows, rung=0)} == {("x", 1), ("y", 1)}


def test_levels_of_all_places_have_a_front_of_their_own() -> None:
    rows = [
        row("a", 0.9, 10, **{"kind.stage0": "3d", "kind.stage1": "3d"}),
        row("b", 0.8, 5, **{"kind.stage0": "2d", "kind.stage1": "2d"}),
        row("c", 0.7, 5, **{"kind.stage0": "3d", "kind.stage1": "2d"}),
    ]
    found = {(f.factor, f.level): f.digests for f in marginal_fronts(rows)}
    assert found["kind", "3d"] == ("a",)
    assert found["kind.stage0", "3d"] == ("c", "a")


def test_networks_without_settings_and_empty_searches_are_no_trouble() -> None:
    assert marginal_fronts([]) == []
    assert partial_effects([]) == []
    assert marginal_fronts([row("a", 0.5, 10), {**row("b", 0.5, 10), "settings": None}]) == []


def study_of(rng: np.random.Generator, n: int = 60, cost_only: bool = False) -> list[dict[str, Any]]:
    rows = []
    for i in range(n):
        kind = "abc"[int(rng.integers(3))]
        macs = int(10 ** (6 + rng.uniform() + (1.0 if kind == "c" else 0.0)))
        gain = 0.0 if cost_only else {"a": 0.0, "b": 0.1, "c": 0.2}[kind]
        top1 = 0.2 + 0.1 * (np.log10(macs) - 6) + gain + rng.normal(0, 0.01)
        rows.append(row(f"d{i}", float(top1), macs, kind=kind))
    return rows


def test_means_have_the_t_interval_that_scipy_gives() -> None:
    from scipy import stats

    rows = study_of(np.random.default_rng(0))
    for effect in partial_effects(rows, confidence=0.9):
        values = [r["top1"] for r in rows if r["settings"]["kind"] == effect.level]
        interval = stats.ttest_1samp(values, 0).confidence_interval(0.9)
        assert effect.mean == pytest.approx(np.mean(values))
        assert (effect.low, effect.high) == pytest.approx((interval.low, interval.high))
        assert effect.networks == len(values)


def test_means_at_equal_cost_are_those_of_a_linear_model() -> None:
    statsmodels = pytest.importorskip("statsmodels.api")
    rows = study_of(np.random.default_rng(1))
    log = np.log10([r["macs"] for r in rows])
    log = log - log.mean()
    design = np.column_stack(
        [*([[r["settings"]["kind"] == level for r in rows] for level in "abc"]), log, log**2 - (log**2).mean()]
    ).astype(float)
    fit = statsmodels.OLS([r["top1"] for r in rows], design).fit()
    for i, effect in enumerate(partial_effects(rows)):
        assert effect.adjusted == pytest.approx(fit.params[i])
        assert (effect.adjusted_low, effect.adjusted_high) == pytest.approx(tuple(fit.conf_int()[i]))


def test_a_level_that_is_only_dear_is_not_better_at_equal_cost() -> None:
    found = {e.level: e for e in partial_effects(study_of(np.random.default_rng(2), cost_only=True))}
    assert found["c"].mean - found["a"].mean > 0.08
    assert found["c"].adjusted is not None and found["a"].adjusted is not None
    assert abs(found["c"].adjusted - found["a"].adjusted) < 0.03


def test_families_are_set_apart_before_levels_are_compared() -> None:
    rows = []
    for i in range(40):  # family y is better by 0.3 and mostly of kind b; kind itself does nothing
        family, kind = ("y", "ab"[i % 5 > 0]) if i % 2 else ("x", "ab"[i % 5 == 0])
        settings = {"family": family, f"{family}.kind": kind}
        rows.append(row(f"d{i}", 0.3 + 0.3 * (family == "y"), 10**6 + i * 1000, **settings))
    found = {e.level: e for e in partial_effects(rows) if e.factor == "kind"}
    assert found["b"].mean - found["a"].mean > 0.1
    assert found["b"].adjusted == pytest.approx(found["a"].adjusted, abs=1e-6)


def test_what_cost_and_level_cannot_be_told_apart_has_no_adjusted_mean() -> None:
    rows = [row(f"d{i}", 0.5 + 0.001 * i, 10**6 if i % 2 else 10**8, kind="ab"[i % 2]) for i in range(20)]
    for effect in partial_effects(rows):
        assert effect.adjusted is None
        assert effect.low is not None


def test_few_networks_have_no_interval_and_fewer_no_effects() -> None:
    rows = [row(f"d{i}", 0.5 + 0.01 * i, 10**6 + i, kind="rare" if i < 2 else "usual") for i in range(FEW)]
    found = {effect.level: effect for effect in partial_effects(rows)}
    assert (found["rare"].low, found["rare"].adjusted) == (None, None)
    assert found["usual"].low is not None
    assert partial_effects(rows[:-1]) == []


def test_what_cost_explains_is_taken_away() -> None:
    rng = np.random.default_rng(3)
    macs = 10 ** rng.uniform(6, 9, 50)
    log = np.log10(macs)
    residual, explained = beyond_cost(0.1 + 0.2 * log - 0.01 * log**2, macs)
    assert explained == pytest.approx(1)
    assert np.abs(residual).max() < 1e-9
    gain = rng.normal(0, 0.1, 50)
    residual, explained = beyond_cost(0.1 * log + gain, macs)
    assert 0 < explained < 1
    assert abs(float(residual @ (log - log.mean()))) < 1e-9
    assert beyond_cost([0.5, 0.5, 0.5], [1, 2, 3])[1] == 0
