"""Conformance of samplers: what Optuna publishes for samplers of its studies."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase, RelativeSamplerTestCase

from nas.search.sampler import PoolSampler


@pytest.fixture(autouse=True)
def _quiet() -> None:
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class TestPoolSampler(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    """Optuna's own tests."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        """As it is made by default, but quick to learn."""
        return lambda: PoolSampler(seed=0, startup=1, pool=50)


def branin_like(trial: optuna.Trial) -> tuple[float, float]:
    """An error with a valley, and a cost that is known."""
    a, b = trial.suggest_categorical("a", ["x", "y", "z"]), trial.suggest_int("b", 1, 30)
    c = trial.suggest_int("c", 1, 16)
    error = 0.1 + {"x": 0.0, "y": 0.1, "z": 0.3}[a] + abs(b - 11) / 30 + 0.4 / c
    return error, float(c * c)


def volume(study: optuna.Study) -> float:
    """Of the front of a study."""
    from nas.compare import hypervolume

    return hypervolume([(t.values[0], t.values[1] / 256) for t in study.trials if t.values[0] < 1.5], (1.5, 1.05))


def searched(sampler: BaseSampler, trials: int = 40) -> optuna.Study:
    """A study of that many trials."""
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    study.optimize(branin_like, n_trials=trials)
    return study


def cost(params: Mapping[str, object]) -> float:
    """Of `branin_like`."""
    return float(str(params["c"])) ** 2


def test_a_known_cost_finds_the_front_sooner() -> None:
    ours = [volume(searched(PoolSampler(cost=cost, seed=seed))) for seed in range(3)]
    others = [volume(searched(optuna.samplers.TPESampler(seed=seed))) for seed in range(3)]
    assert min(ours) > max(others)


def test_no_trial_is_proposed_twice_and_seeds_repeat() -> None:
    first, second = (searched(PoolSampler(cost=cost, seed=5)) for _ in range(2))
    assert [trial.params for trial in first.trials] == [trial.params for trial in second.trials]
    later = [tuple(sorted(trial.params.items())) for trial in first.trials[10:]]
    assert len(set(later)) == len(later)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="pool must be at least 1, but is 0"):
        PoolSampler(pool=0)
