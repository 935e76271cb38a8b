"""The sampler `pool` for anybody's Optuna study.

    from nas.search.sampler import PoolSampler

    def objective(trial):
        width = trial.suggest_categorical("width", [16, 32, 64])
        depth = trial.suggest_int("depth", 1, 8)
        return validation_error(width, depth), width**2 * depth

    sampler = PoolSampler(cost=lambda params: params["width"] ** 2 * params["depth"], seed=0)
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    study.optimize(objective, n_trials=100)

`cost` is what the last objective is known to be before a trial is run. It is what makes the search quick: the model has
the others alone to learn, and a trial that is dear for what it promises is not run.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import StudyDirection
from optuna.trial import TrialState

from nas.search.model.ehvi import REFERENCE, expected_improvement, reference_error
from nas.search.model.gp import Encoding, Observations, fit
from nas.study.front import front

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial

Array = NDArray[np.float64]
Params = Mapping[str, Any]

_LEVELS = 16  # of a number with more values than that
_ENDED = (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)
_MOST = 3  # objectives whose hypervolume is known in closed form
_OFTEN = 100  # trials up to which hyperparameters are found anew for each proposal; from there, for every tenth
_FAR = 3.0  # distances from the best to the third quartile, beyond which a value counts no more


class PoolSampler(BaseSampler):
    """Proposes the trial that is expected to add most to the hypervolume, of a pool that is drawn for each proposal.

    Settings that all trials have are proposed together, others at random. Categorical settings are taken to have no
    order, numbers to have one. With one objective this is expected improvement. More than three objectives are weighted
    anew for each proposal (ParEGO, Knowles 2006).

    Args:
        cost: The last of two or three objectives, of the settings that all trials have; None where no objective is
            known before a trial is run.
        seed: Of what is drawn.
        pool: Combinations of settings that are looked at for a proposal, beside those one setting away from the best.
        startup: Trials that are drawn at random before the model is asked.

    Raises:
        ValueError: `pool` or `startup` is below 1.
    """

    def __init__(
        self,
        *,
        cost: Callable[[Params], float] | None = None,
        seed: int | None = None,
        pool: int = 1000,
        startup: int = 10,
    ) -> None:
        """Nothing is drawn yet."""
        for name, value in (("pool", pool), ("startup", startup)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, but is {value}")
        self._cost, self._pool, self._startup = cost, pool, startup
        self._rng = random.Random(seed)
        self._random = RandomSampler(seed=seed)
        self._space = IntersectionSearchSpace()
        self._thetas: tuple[Any, tuple[Array, ...]] | None = None  # of the trials and settings that they were found for

    def reseed_rng(self) -> None:
        """As Optuna asks of samplers in several processes."""
        self._rng = random.Random()
        self._random.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The settings that all trials have, but those with one value."""
        space = self._space.calculate(study)
        return {name: space[name] for name in sorted(space) if not space[name].single()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Values of the settings that all trials have, drawn at random before enough trials have ended."""
        if not search_space:
            return {}
        ended = [
            one
            for one in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if all(name in one.params for name in search_space) and np.isfinite(one.values).all()
        ]
        if len(ended) < self._startup:
            return {name: _drawn(one, self._rng) for name, one in search_space.items()}
        running = [
            one
            for one in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if one.number != trial.number and all(name in one.params for name in search_space)
        ]
        lost = [
            one.params
            for one in study.get_trials(deepcopy=False, states=_ENDED)
            if all(name in one.params for name in search_space)
            and not (one.state == TrialState.COMPLETE and np.isfinite(one.values).all())
        ]
        single = {name: one for name, one in self._space.calculate(study).items() if one.single()}
        fixed = {name: _drawn(one, self._rng) for name, one in sorted(single.items())}
        return self._proposed(study.directions, search_space, ended, running, lost, fixed)

    def _proposed(
        self,
        directions: Sequence[StudyDirection],
        space: Mapping[str, BaseDistribution],
        ended: Sequence[FrozenTrial],
        running: Sequence[FrozenTrial],
        lost: Sequence[Params],
        fixed: Params,
    ) -> dict[str, Any]:
        signs = np.asarray([1.0 if direction == StudyDirection.MINIMIZE else -1.0 for direction in directions])
        values = np.asarray([one.values for one in ended]) * signs
        seen = [{name: one.params[name] for name in space} for one in [*ended, *running]]
        known = {_key({name: params[name] for name in space}) for params in (*seen, *lost)}
        exact = self._cost is not None and 2 <= len(directions) <= _MOST
        errors, best = self._modelled(values, exact), front(values)[:20]
        options: dict[tuple[Any, ...], dict[str, Any]] = {}
        for params in [
            *(other for i in best for other in _near(seen[i], space, self._rng)),
            *({name: _drawn(one, self._rng) for name, one in space.items()} for _ in range(self._pool)),
        ]:
            if _key(params) not in known:
                options.setdefault(_key(params), params)
        if not options:  # all there is was tried
            return {name: _drawn(one, self._rng) for name, one in space.items()}
        rows = [*seen, *options.values()]
        cost = self._costs([{**fixed, **row} for row in rows], signs[-1]) if exact else np.zeros(len(rows))
        encoding = _encoded(rows, space, cost)
        thetas = self._kept(values, rows, space, cost, exact)
        fitted = [_posterior(encoding, one, len(running), theta) for one, theta in zip(errors, thetas, strict=True)]
        mean, variance = np.stack(fitted, axis=1)
        costs = cost[:, None] if exact else np.zeros((len(rows), 0))
        tried, new = slice(0, len(seen)), slice(len(seen), None)
        known_errors = np.exp(mean[:, tried])
        reference = [*map(reference_error, known_errors), *[REFERENCE] * costs.shape[1]]
        points = np.column_stack([known_errors.T, costs[tried]])
        gain = expected_improvement(mean[:, new], variance[:, new], costs[new], front=points, reference=reference)
        chosen = int(np.argmax(gain)) if gain.max() > 0 else int(np.argmax(variance[0, new]))
        return dict(list(options.values())[chosen])

    def _kept(
        self, values: Array, rows: Sequence[Params], space: Mapping[str, BaseDistribution], cost: Array, exact: bool
    ) -> Sequence[Array | None]:
        """Hyperparameters of each modelled objective, found for the trials that were there at the last tenth."""
        modelled = values.shape[1] - exact
        if len(values) < _OFTEN or modelled > _MOST:
            return [None] * (1 if modelled > _MOST else modelled)  # of more, a mixture that is new each time
        first = len(values) - len(values) % 10
        key = (first, tuple(space.items()))
        if self._thetas is None or self._thetas[0] != key:
            encoding = _encoded(rows[:first], space, cost[:first])
            errors = self._modelled(values[:first], exact)
            self._thetas = key, tuple(fit(encoding, _observed(error)).theta for error in errors)
        return self._thetas[1]

    def _costs(self, rows: Sequence[Params], sign: float) -> Array:
        """(rows,) of the known objective, from 0, the best, to 1: by logarithms, where it is positive and minimised.

        Raises:
            ValueError: One is no finite number.
        """
        assert self._cost is not None
        values = np.asarray([self._cost(row) for row in rows], dtype=float)
        if not np.isfinite(values).all():
            at = int(np.argmin(np.isfinite(values)))
            raise ValueError(f"cost must give finite numbers, but gives {values[at]} for {dict(rows[at])}")
        return _unit(np.log(values) if sign > 0 and values.min() > 0 else sign * values)

    def _modelled(self, values: Array, exact: bool) -> Array:
        """(errors, trials): what is modelled, positive and to be minimised; of more than three objectives a mixture."""
        columns = values.T[:-1] if exact else values.T
        if len(columns) > _MOST:
            weights = np.asarray([self._rng.expovariate(1.0) for _ in columns])
            unit = np.apply_along_axis(_unit, 1, columns) * (weights / weights.sum())[:, None]
            columns = (unit.max(axis=0) + 0.05 * unit.sum(axis=0))[None]
        # Whatever an objective is, its distance to a little below the best is positive, and small for the best. One
        # value far off, such as a loss that diverged, must not make all others equal.
        low, quartile = columns.min(axis=1, keepdims=True), np.quantile(columns, 0.75, axis=1, keepdims=True)
        columns = np.where(quartile > low, np.minimum(columns, low + _FAR * (quartile - low)), columns)
        return np.apply_along_axis(_unit, 1, columns) + 0.05


def _observed(error: Array) -> Observations:
    ended = len(error)
    return Observations(
        network=np.arange(ended),
        rung=np.zeros(ended, dtype=np.int64),
        value=np.log(error),
        variance=np.zeros(ended),
    )


def _posterior(encoding: Encoding, error: Array, running: int, theta: Array | None) -> Array:
    """(2, rows): mean and variance of the log error; the last of the rows that were tried are under way."""
    posterior = fit(encoding, _observed(error), theta=theta)
    if running:
        posterior = posterior.with_means([(len(error) + i, 0) for i in range(running)])
    return np.asarray(posterior.predict(encoding))


def _key(params: Params) -> tuple[Any, ...]:
    return tuple((name, value if value.__hash__ else repr(value)) for name, value in sorted(params.items()))


def _unit(values: Array) -> Array:
    span = np.ptp(values)
    return np.asarray((values - values.min()) / (span if span > 0 else 1.0))


def _drawn(distribution: BaseDistribution, rng: random.Random) -> Any:
    match distribution:
        case CategoricalDistribution(choices=choices):
            return rng.choice(choices)
        case IntDistribution(low=low, high=high, step=step, log=True):
            return min(high, max(low, round(math.exp(rng.uniform(math.log(low - 0.5), math.log(high + 0.5))))))
        case IntDistribution(low=low, high=high, step=step):
            return low + step * rng.randint(0, (high - low) // step)
        case FloatDistribution(low=low, high=high, log=True):
            return min(high, max(low, math.exp(rng.uniform(math.log(low), math.log(high)))))
        case FloatDistribution(low=low, high=high, step=float(step)):
            return min(high, low + step * rng.randint(0, round((high - low) / step)))
        case FloatDistribution(low=low, high=high):
            return rng.uniform(low, high)
    raise AssertionError(f"no distribution of Optuna: {distribution}")


def _near(params: Params, space: Mapping[str, BaseDistribution], rng: random.Random) -> list[dict[str, Any]]:
    """Settings of which one differs: every other value of a categorical one, steps and draws of a number."""
    found: list[dict[str, Any]] = []
    for name, distribution in space.items():
        own = params[name]
        if isinstance(distribution, CategoricalDistribution):
            values: list[Any] = [value for value in distribution.choices if value != own]
        elif isinstance(distribution, IntDistribution):
            steps = (own - distribution.step, own + distribution.step, _drawn(distribution, rng))
            values = [value for value in steps if distribution.low <= value <= distribution.high and value != own]
        else:
            assert isinstance(distribution, FloatDistribution)
            values = [_drawn(distribution, rng) for _ in range(4)]
            if distribution.step is None:
                near = [own + (value - own) * 0.1 for value in values]
                values += [min(distribution.high, max(distribution.low, value)) for value in near]
        found += [{**params, name: value} for value in values]
    return found


def _encoded(rows: Sequence[Params], space: Mapping[str, BaseDistribution], cost: Array) -> Encoding:
    bits, setting, scale, ordinal = [], list[int](), list[float](), []
    for i, (name, distribution) in enumerate(space.items()):
        column = [row[name] for row in rows]
        if isinstance(distribution, CategoricalDistribution):
            parts = [[float(value == choice) for value in column] for choice in distribution.choices]
            steps = 2
        else:
            assert isinstance(distribution, IntDistribution | FloatDistribution)
            numbers = np.asarray(column, dtype=float)
            low, high = float(distribution.low), float(distribution.high)
            if distribution.log:
                numbers, low, high = np.log(numbers), math.log(low), math.log(high)
            step = None if distribution.log else distribution.step
            steps = _LEVELS if step is None else max(1, min(_LEVELS, round((high - low) / step)))
            levels = low + (np.arange(steps) + 0.5) * (high - low) / steps
            parts = [(numbers >= level).astype(float).tolist() for level in levels]
        bits += parts
        setting += [i] * len(parts)
        scale += [1.0 / steps] * len(parts)
        ordinal.append(not isinstance(distribution, CategoricalDistribution))
    return Encoding(
        bits=np.asarray(bits, dtype=float).T,
        setting=np.asarray(setting, dtype=np.int64),
        scale=np.asarray(scale),
        ordinal=np.asarray(ordinal, dtype=bool),
        cost=cost,
        scores=np.zeros((len(rows), 0)),
    )
