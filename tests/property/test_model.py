"""The model of a search: gradients, posteriors and expected gains against what can be computed otherwise."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import ndtri

from nas.search.freeze_thaw import next_step
from nas.search.model.belief import Model, Result
from nas.search.model.ehvi import REFERENCE, expected_improvement, reference_error
from nas.search.model.encoding import LEVELS as STEPS
from nas.search.model.encoding import thermometer
from nas.search.model.gp import Encoding, Observations, Posterior, _Kernel, _Problem, fit
from nas.study.front import hypervolume

Array = NDArray[np.float64]
NOMINAL, LEVELS = 3, 4  # settings of three values each; one ordinal setting of four


def encoding(rng: np.random.Generator, count: int) -> Encoding:
    """Random networks with three nominal settings and an ordinal one."""
    values = rng.integers(0, 3, (count, NOMINAL))
    ranks = rng.integers(0, LEVELS, count)
    bits = [values[:, i] == v for i in range(NOMINAL) for v in range(3)] + [
        ranks >= level for level in range(1, LEVELS)
    ]
    return Encoding(
        bits=np.column_stack(bits).astype(float),
        setting=np.repeat(np.arange(NOMINAL + 1), 3),
        scale=np.asarray([0.5] * 9 + [1 / 3] * 3),
        ordinal=np.asarray([False] * NOMINAL + [True]),
        cost=rng.uniform(0, 1, count),
        scores=np.zeros((count, 0)),
    )


def with_scores(rng: np.random.Generator, networks: Encoding, count: int) -> Encoding:
    """The same networks with scores, too."""
    scores = rng.uniform(0, 1, (len(networks), count))
    last = len(networks.ordinal)
    return Encoding(
        bits=np.concatenate([networks.bits, thermometer(scores)], axis=1),
        setting=np.concatenate([networks.setting, np.repeat(np.arange(last, last + count), STEPS)]),
        scale=np.concatenate([networks.scale, np.full(count * STEPS, 1 / STEPS)]),
        ordinal=np.concatenate([networks.ordinal, np.ones(count, dtype=bool)]),
        cost=networks.cost,
        scores=scores,
    )


def observations(rng: np.random.Generator, count: int, num_rungs: int) -> Observations:
    """Random results of `count` networks, some at several rungs."""
    network = np.concatenate([np.arange(count), rng.integers(0, count, count)])
    rung = np.concatenate([np.full(count, num_rungs - 1), rng.integers(0, num_rungs, count)])
    return Observations(
        network=network,
        rung=rung,
        value=rng.normal(-1, 0.5, 2 * count),
        variance=rng.uniform(0, 0.05, 2 * count),
    )


@pytest.mark.parametrize("num_scores", [0, 2])
@pytest.mark.parametrize("num_rungs", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_the_gradient_is_that_of_differences(seed: int, num_rungs: int, num_scores: int) -> None:
    rng = np.random.default_rng(seed)
    networks, seen = with_scores(rng, encoding(rng, 12), num_scores), observations(rng, 12, num_rungs)
    kernel = _Kernel(networks, num_rungs)
    problem = _Problem(kernel, networks, seen, seen.value + 1, 1.0)
    theta = kernel.medians + rng.normal(0, 0.5, len(kernel.medians))
    _, gradient = problem(theta)
    for i in range(len(theta)):
        step = np.zeros_like(theta)
        step[i] = 1e-5
        assert (problem(theta + step)[0] - problem(theta - step)[0]) / 2e-5 == pytest.approx(gradient[i], abs=1e-5)


def test_distances_are_those_of_the_settings() -> None:
    rng = np.random.default_rng(0)
    networks = encoding(rng, 30)
    from nas.search.model.gp import _distance

    weights = rng.uniform(0, 1, NOMINAL + 1)
    found = _distance(weights, networks, networks)
    values = networks.bits[:, :9].reshape(30, 3, 3).argmax(2)
    ranks = networks.bits[:, 9:].sum(1)
    for i in range(30):
        for j in range(30):
            apart = float(weights[:3] @ (values[i] != values[j])) + weights[3] * abs(ranks[i] - ranks[j]) / (LEVELS - 1)
            assert found[i, j] == pytest.approx(apart, abs=1e-12)


def test_scores_are_as_far_apart_as_their_quantiles_and_change_no_share_of_equal_settings() -> None:
    from nas.search.model.gp import _distance

    rng = np.random.default_rng(0)
    plain = encoding(rng, 20)
    scored = with_scores(rng, plain, 2)
    weights = np.asarray([*[0.0] * (NOMINAL + 1), 1.0, 2.0])
    apart = np.abs(scored.scores[:, None] - scored.scores[None]) @ weights[-2:]
    assert _distance(weights, scored, scored) == pytest.approx(apart, abs=3 / STEPS)
    assert scored.similarity == pytest.approx(plain.similarity)


def posterior(seed: int, num_rungs: int = 1, count: int = 15, num_scores: int = 0) -> Posterior:
    rng = np.random.default_rng(seed)
    networks = with_scores(rng, encoding(rng, count), num_scores)
    return fit(networks, observations(rng, count, num_rungs), num_rungs=num_rungs)


@pytest.mark.parametrize("num_scores", [0, 2])
@pytest.mark.parametrize("num_rungs", [1, 2, 3])
def test_the_posterior_is_that_of_dense_algebra(num_rungs: int, num_scores: int) -> None:
    """Against the textbook's formula over the joint prior of what was and what is to be seen."""
    found = posterior(1, num_rungs, num_scores=num_scores)
    networks, seen = found.encoding, found.observations
    count, last = len(networks), num_rungs - 1
    whole = Observations(
        network=np.concatenate([seen.network, np.arange(count)]),
        rung=np.concatenate([seen.rung, np.full(count, last)]),
        value=np.zeros(len(seen) + count),
        variance=np.zeros(len(seen) + count),
    )
    total, *_ = _Problem(found.kernel, networks, whole, whole.value, 1.0).matrix(found.theta)
    total[np.diag_indices_from(total)] -= found.kernel(found.theta, "noise") + 1e-8
    n = len(seen)
    share = found.kernel(found.theta, "v")
    noise = found.kernel(found.theta, "noise") + share * seen.variance / found.deviation**2 + 1e-8
    inside = np.linalg.inv(total[:n, :n] + np.diag(noise))
    z = (seen.value - found.mean) / found.deviation
    mean, variance = found.predict(networks)
    assert mean == pytest.approx(found.mean + found.deviation * total[n:, :n] @ inside @ z, abs=1e-6)
    expected = np.diag(total[n:, n:] - total[n:, :n] @ inside @ total[:n, n:]) * found.deviation**2
    assert variance == pytest.approx(expected, abs=1e-6)


def test_a_pending_training_that_ends_as_expected_moves_no_mean_and_leaves_less_open() -> None:
    found = posterior(2, num_rungs=2)
    after = found.with_means([(3, 1), (4, 0)])
    (mean, variance), (new_mean, new_variance) = found.predict(found.encoding), after.predict(found.encoding)
    assert new_mean == pytest.approx(mean, abs=1e-6)
    assert (new_variance <= variance + 1e-9).all()
    assert new_variance[3] < variance[3]


def test_a_result_below_the_last_rung_says_less_than_one_at_it() -> None:
    found = posterior(3, num_rungs=3)
    rng = np.random.default_rng(9)
    new = encoding(rng, 16)
    both = Encoding(
        bits=np.concatenate([found.encoding.bits, new.bits]),
        setting=new.setting,
        scale=new.scale,
        ordinal=new.ordinal,
        cost=np.concatenate([found.encoding.cost, new.cost]),
        scores=np.concatenate([found.encoding.scores, new.scores]),
    )
    base = fit(both, found.observations, num_rungs=3, theta=found.theta)
    low = base.with_means([(15, 0)]).predict(both)[1][15]
    high = base.with_means([(15, 2)]).predict(both)[1][15]
    assert high < low <= base.predict(both)[1][15]


@pytest.mark.parametrize("apart", [0.0, 1e-9, 1e-4, 1e-3, 1e-2])
def test_two_results_that_are_close_say_little_of_the_others(apart: float) -> None:
    """Of twelve networks that differ at the first rung, two are close at the last: the rest stay as they were."""
    rng = np.random.default_rng(3)
    networks = encoding(rng, 30)
    first = np.log(rng.uniform(0.3, 0.9, 12))
    seen = Observations(
        network=np.asarray([*range(12), 0, 1]),
        rung=np.asarray([0] * 12 + [1] * 2),
        value=np.asarray([*first, math.log(0.3), math.log(0.3 + apart)]),
        variance=np.full(14, 1e-3),
    )
    posterior = fit(networks, seen, num_rungs=2)
    mean, variance = posterior.predict(networks.take(np.arange(2, 30)))
    assert np.ptp(mean) > 0.1
    assert np.median(np.sqrt(variance)) > 0.05


@pytest.mark.parametrize("count", [1, 2, 12])
def test_equal_results_leave_open_what_others_have(count: int) -> None:
    rng = np.random.default_rng(4)
    networks = encoding(rng, 40)
    seen = Observations(
        network=np.arange(count),
        rung=np.zeros(count, dtype=np.int64),
        value=np.full(count, math.log(0.3)),
        variance=np.full(count, 1e-3),
    )
    mean, variance = fit(networks, seen).predict(networks.take(np.arange(count, 40)))
    assert mean == pytest.approx(math.log(0.3))
    assert np.sqrt(variance).max() > 0.01


def test_equal_results_are_no_trouble() -> None:
    rng = np.random.default_rng(4)
    seen = Observations(
        network=np.arange(8), rung=np.zeros(8, dtype=np.int64), value=np.full(8, -0.1), variance=np.full(8, 0.01)
    )
    mean, variance = fit(encoding(rng, 8), seen).predict(encoding(rng, 50))
    assert np.isfinite(mean).all()
    assert (variance > 0).all()


def integral(mean: Array, deviation: Array, cost: Array, front: list[list[float]], corner: list[float]) -> float:
    """The expected growth of the hypervolume by sums over quantiles of the errors."""
    from scipy.special import ndtri

    def volume(points: list[list[float]]) -> float:
        inside = [p for p in points if all(v < c for v, c in zip(p, corner, strict=True))]
        return hypervolume(inside, corner) if inside else 0.0

    before = volume(front)
    count = round(1500 ** (1 / len(mean)))
    quantiles = ndtri((np.arange(count) + 0.5) / count)
    errors = itertools.product(*np.exp(mean[:, None] + deviation[:, None] * quantiles).tolist())
    return float(np.mean([volume([*front, [*error, *cost.tolist()]]) - before for error in errors]))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (3, 0)]), st.integers(0, 6))
def test_expected_gains_are_integrals(seed: int, objectives: tuple[int, int], front: int) -> None:
    rng = np.random.default_rng(seed)
    errors, costs = objectives
    points = np.column_stack([rng.uniform(0.05, 0.9, (front, errors)), rng.uniform(0, 1, (front, costs))])
    corner = [*[0.7] * errors, *[REFERENCE] * costs]
    mean, deviation = rng.normal(-1, 0.5, (errors, 2)), rng.uniform(0.05, 0.6, (errors, 2))
    cost = rng.uniform(0, 1.1, (2, costs))
    found = expected_improvement(mean, deviation**2, cost, front=points, reference=corner)
    for i in range(2):
        expected = integral(mean[:, i], deviation[:, i], cost[i], points.tolist(), corner)
        assert found[i] == pytest.approx(expected, rel=0.04, abs=5e-4)


def test_the_reference_is_beyond_the_worst() -> None:
    assert reference_error(np.asarray([0.2, 0.6])) == pytest.approx(0.64)
    assert reference_error(np.asarray([0.5])) == pytest.approx(0.55)


def test_what_a_repeat_is_worth_is_the_mean_over_what_it_may_tell() -> None:
    """Against the mean over quantiles of where one more result may move a network, on the front or behind it."""
    from nas.search.model.belief import Model, Result

    class Known:
        def __init__(self, number: int) -> None:
            self.digest, self.params, self.traits = str(number), {"a": number % 4, "b": number // 4}, {}

        def quantity(self, name: str) -> int:
            return 100 * (int(self.digest) + 1)

    networks = {str(i): Known(i) for i in range(12)}
    rng = np.random.default_rng(0)
    results = [
        Result(digest=str(i), rung=0, errors=(float(0.6 - 0.03 * i + rng.normal(0, 0.05)),), videos=100)
        for i in range(12)
    ]
    belief = Model(list(networks.values()), ("macs",), 1).believe(results, networks)
    reference = belief.reference(belief.whole)
    digests = [*belief.front(belief.whole), next(d for d in belief.whole if d not in belief.front(belief.whole))]
    expected = belief.expect_again(digests, against=belief.whole, reference=reference)
    points = belief._at(belief.whole)

    def volume(error: float, at: int) -> float:
        moved = points.copy()
        moved[at, 0] = error
        inside = moved[(moved < reference).all(axis=1)]
        return hypervolume(inside, reference) if len(inside) else 0.0

    base = hypervolume(points[(points < reference).all(axis=1)], reference)
    for digest, gain in zip(digests, expected.gain, strict=True):
        at = belief.whole.index(digest)
        variance = float(belief.tried[1][0, belief.digests.index(digest)])
        moves = variance / np.sqrt(variance + belief.posteriors[0].noise_of(belief.digests.index(digest)))
        draws = np.exp(np.log(points[at, 0]) - moves**2 / 2 + moves * ndtri((np.arange(4000) + 0.5) / 4000))
        mean = float(np.mean([volume(float(one), at) for one in draws])) - base
        assert gain * base == pytest.approx(mean, rel=0.1, abs=1e-4 * base)
    assert expected.gain.max() > 0


@dataclass(frozen=True)
class Made:
    """A network of one setting with a cost."""

    digest: str
    width: int
    macs: int
    traits: Mapping[str, int] = field(default_factory=dict)

    @property
    def params(self) -> Mapping[str, int]:
        return {"width": self.width}

    def quantity(self, name: str) -> int:
        return self.macs


class Pool(list[Made]):
    """A pool of such networks that is all there is."""

    whole = True

    @property
    def candidates(self) -> Sequence[Made]:
        return self

    def near(self, network: Made) -> Sequence[Made]:
        return []

    def drawn(self, count: int, rng: random.Random) -> Sequence[Made]:
        return []


def test_cheap_networks_stay_in_reach_of_freeze_thaw_where_only_a_dear_one_was_trained_in_full() -> None:
    """The reference is of all networks that were tried: beyond that of the last rung alone, nothing could be gained."""
    networks = Pool(Made(f"n{i}", i, 10 ** (3 + i)) for i in range(6))
    errors = [0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    results = [Result(digest=f"n{i}", rung=0, errors=(errors[i],), videos=1000) for i in (0, 2, 4, 5)]
    results.append(Result(digest="n5", rung=1, errors=(0.05,), videos=1000))
    step = next_step(
        Model(networks, ("macs",), 2),
        networks,
        {one.digest: one for one in networks},
        results,
        [],
        {"n0": 1, "n2": 1, "n4": 1},
        {"n0", "n2", "n4", "n5"},
        lambda network, rung: 1.0,
        random.Random(0),
    )
    assert step is not None and step.reason.gain > 1
    assert step.network.macs < 10**8
