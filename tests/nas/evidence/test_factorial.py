"""Factorial designs: against statsmodels' formulas, a textbook's example, and pairs."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols

from benchmarks.simulated import MOTION, results, simulate
from nas.evidence.factorial import Combination, Factorial, factorial
from nas.evidence.paired import paired
from nas.evidence.values import EvidenceError, Result
from nas.evidence.words import judge

FACTORS = {"kind": ("2d", "3d", "p3d"), "kernel": ("3", "5")}


def grid(factors: dict[str, tuple[str, ...]], seeds: int = 3) -> list[Combination]:
    rng = np.random.default_rng(1)
    shift = rng.normal(0, 0.05, seeds)
    return [
        Combination(
            levels=dict(zip(factors, levels, strict=True)),
            results={
                seed: Result(top1=float(np.clip(0.6 + 0.02 * place + shift[seed] + rng.normal(0, 0.02), 0, 1)))
                for seed in range(seeds)
            },
        )
        for place, levels in enumerate(product(*factors.values()))
    ]


def frame(arms: list[Combination]) -> pd.DataFrame:
    return pd.DataFrame(
        [{**arm.levels, "seed": seed, "top1": result.top1} for arm in arms for seed, result in arm.results.items()]
    )


@pytest.mark.parametrize("missing", [0, 2])
def test_what_is_left_for_noise_is_that_of_statsmodels(missing: int) -> None:
    arms = grid(FACTORS)
    if missing:
        arms[1] = Combination(levels=arms[1].levels, results={0: arms[1].results[0]})
    got = factorial(arms, FACTORS)
    fit = ols("top1 ~ C(seed) + C(kind, Sum) * C(kernel, Sum)", frame(arms)).fit()
    assert (got.runs, got.left_out, got.df) == (18 - missing, missing, int(fit.df_resid))
    assert got.residual == pytest.approx(np.sqrt(fit.scale))


def test_main_effects_and_interactions_are_differences_of_cell_means() -> None:
    arms = grid(FACTORS)
    mean = {tuple(arm.levels.values()): np.mean([r.top1 for r in arm.results.values()]) for arm in arms}
    got = {(effect.factor, effect.level): effect for effect in factorial(arms, FACTORS).effects}
    main = np.mean([mean["p3d", k] - mean["2d", k] for k in ("3", "5")])
    together = (mean["3d", "5"] - mean["2d", "5"]) - (mean["3d", "3"] - mean["2d", "3"])
    assert got["kind", "p3d"].difference == pytest.approx(main)
    assert got["kind", "p3d"].reference == "2d"
    assert got["kind x kernel", "3d and 5"].difference == pytest.approx(together)
    assert got["kind x kernel", "3d and 5"].reference == "2d and 3"
    assert [e.kind for e in got.values()] == ["main"] * 3 + ["interaction"] * 2


def test_intervals_over_seeds_are_those_of_statsmodels() -> None:
    factors = {"kind": ("2d", "3d"), "kernel": ("3", "5")}
    arms = grid(factors, seeds=4)
    data = frame(arms)
    fit = ols(
        "top1 ~ C(seed) + a * b", data.assign(a=2.0 * (data.kind == "3d") - 1, b=2.0 * (data.kernel == "5") - 1)
    ).fit()
    low, high = 2 * fit.conf_int().loc["a"]  # from -1 to 1 is twice the coefficient
    effect = factorial(arms, factors).effects[0]
    assert (effect.low, effect.high, effect.p) == pytest.approx((low, high, fit.pvalues["a"]))
    assert effect.basis == "seeds"


def test_a_half_of_a_cube_gives_the_textbooks_effects() -> None:
    # Montgomery, Design and Analysis of Experiments, ch. 8, the 2^(4-1) filtration rate experiment with D = ABC:
    # (1) 45, ad 100, bd 45, ab 65, cd 75, ac 60, bc 80, abcd 96. [A] = 19.0, [B] = 1.5, [C] = 14.0, [D] = 16.5,
    # [AB] = -1.0, [AC] = -18.5, [AD] = 19.0; AB = CD, AC = BD, AD = BC.
    rates = {"": 45, "ad": 100, "bd": 45, "ab": 65, "cd": 75, "ac": 60, "bc": 80, "abcd": 96}
    factors = dict.fromkeys("ABCD", ("-", "+"))
    arms = [
        Combination(
            levels={name: "+" if name.lower() in run else "-" for name in "ABCD"},
            results={seed: Result(top1=rate / 200 + 0.001 * seed * (-1) ** len(run)) for seed in range(2)},
        )
        for run, rate in rates.items()
    ]
    got = factorial(arms, factors)
    by_name = {effect.factor: 200 * effect.difference for effect in got.effects}
    expected = {"A": 19.0, "B": 1.5, "C": 14.0, "D": 16.5}
    assert {name: by_name[name] for name in expected} == pytest.approx(expected, abs=0.15)
    # Interactions here are differences of differences, twice the textbook's.
    assert by_name["A x B"] / 2 == pytest.approx(-1.0, abs=0.15)
    assert by_name["A x C"] / 2 == pytest.approx(-18.5, abs=0.15)
    assert by_name["A x D"] / 2 == pytest.approx(19.0, abs=0.15)
    assert set(got.aliased) == {
        "B x C cannot be told from A x D in this design",
        "B x D cannot be told from A x C in this design",
        "C x D cannot be told from A x B in this design",
    }


def test_a_design_of_one_factor_with_two_levels_is_that_of_pairs() -> None:
    study = simulate(MOTION, [0.9, 0.85], seeds=5, studies=1, rng=np.random.default_rng(3))[0]
    pair = paired(results(study[0]), results(study[1]), resamples=0)
    arms = [
        Combination(levels={"kind": level}, results=results(arm))
        for level, arm in zip(("2d", "3d"), study, strict=True)
    ]
    effect = factorial(arms, {"kind": ("2d", "3d")}).effects[0]
    names = ("difference", "low", "high", "p", "p_seeds", "se_seeds", "se_clips", "effect_size", "df", "visible")
    for name in names:
        assert getattr(effect, name) == pytest.approx(getattr(pair, name), rel=1e-6), name
    assert effect.basis == "seeds and clips"


def test_its_effects_can_be_judged() -> None:
    tops = [0.7, 0.8, 0.8, 0.9]
    study = simulate(MOTION, tops, seeds=5, studies=1, rng=np.random.default_rng(5))[0]
    factors = {"kind": ("2d", "3d"), "kernel": ("3", "5")}
    arms = [
        Combination(levels=dict(zip(factors, levels, strict=True)), results=results(arm))
        for levels, arm in zip(product(*factors.values()), study, strict=True)
    ]
    judged = judge(factorial(arms, factors).effects)
    assert [j.word for j in judged] == ["better", "better", "undecided"]
    assert judged[0].sentence.startswith("3d is better than 2d, averaged over the other factors, by ")
    assert judged[2].sentence.startswith("3d and 5 against 2d and 3 is undecided: beyond their sum, ")
    assert "with these seeds only a difference of" in judged[2].sentence


def refusal(arms: list[Combination], factors: dict[str, tuple[str, ...]]) -> str:
    with pytest.raises(EvidenceError) as caught:
        factorial(arms, factors)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_fitted_is_refused_in_one_line() -> None:
    factors = {"kind": ("2d", "3d"), "kernel": ("3", "5")}
    arms = grid(factors)
    one_seed = [Combination(levels=arm.levels, results={0: arm.results[0]}) for arm in arms]
    assert "needs 2 seeds or more to see noise, but got 1" in refusal(one_seed, factors)
    assert "it changes together with kind; add runs in which only 'kernel' differs" in refusal(
        [arms[0], arms[3]], factors
    )
    assert "is there twice" in refusal([*arms, arms[0]], factors)
    assert "level of 'kind' '2d' is not known" in refusal(arms, {"kind": ("x", "3d"), "kernel": ("3", "5")})
    assert "each arm must state ['kind']" in refusal(arms, {"kind": ("2d", "3d")})
    assert "must have 2 different levels or more" in refusal(arms, {"kind": ("2d",), "kernel": ("3", "5")})
    few = [Combination(levels=arm.levels, results={n % 2: arm.results[0]}) for n, arm in enumerate(arms)]
    assert "must outnumber what is fitted" in refusal(few, factors) or "separable" in refusal(few, factors)


def test_a_model_that_fits_exactly_claims_no_certainty() -> None:
    arms = [
        Combination(levels={"kind": level}, results={seed: Result(top1=top1) for seed in range(3)})
        for level, top1 in (("2d", 0.5), ("3d", 0.6))
    ]
    got: Factorial = factorial(arms, {"kind": ("2d", "3d")})
    assert got.residual == 0
    assert (got.effects[0].p, got.effects[0].low) == (None, None)
    assert judge(got.effects)[0].word == "undecided"
