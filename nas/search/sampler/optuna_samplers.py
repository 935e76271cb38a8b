"""Samplers of Optuna over the pool.

What Optuna suggests is taken if it is in the pool and new; otherwise the nearest new network of the pool is. So no
network is tried twice, no constraint is broken, and nothing can loop for ever. GP and NSGA-II know only the settings
that all networks have, and draw the others at random: they are shown the settings of every network of the pool, one
that does not apply as a value of its own.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState, create_trial

from nas.search.model.encoding import settings_of
from nas.search.pool import Candidate, Pool
from search_spaces.space import SearchSpace

POPULATION = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What a sampler learns from: settings and the minimised objectives, or None while the network is in training."""

    params: Mapping[str, Any]
    objectives: tuple[float, ...] | None


def asked(
    *,
    sampler: str,
    space: SearchSpace,
    pool: Pool,
    free: Sequence[Candidate],
    history: Sequence[Observation],
    num_objectives: int,
    rng: random.Random,
) -> tuple[Candidate, str]:
    """The network that a sampler of Optuna asks for, or the nearest of those that are free.

    Args:
        sampler: `tpe`, `nsga2` or `gp`.
        space: The space whose settings Optuna sees.
        pool: What may be tried.
        free: Candidates of the pool that were not tried yet; at least one.
        history: One observation a trial, at one fidelity; those under way have none yet.
        num_objectives: Length of an observation's objectives.
        rng: Seeds the sampler, and breaks ties.

    Returns:
        The candidate, and the name of the sampler, with `nearest` where it asked for another.
    """
    make, draw = SAMPLERS[sampler], rng.randrange(2**31)
    if sampler in WHOLE:
        wanted = settings_of(_asked(make, pool, history, num_objectives, draw))
        match = next((candidate for candidate in free if settings_of(candidate.params) == wanted), None)
    else:
        point = space.sample(_ask(make, space, history, num_objectives, draw))
        wanted = settings_of(dict(point.params))
        match = next((candidate for candidate in free if candidate.digest == point.digest), None)
    return (match, sampler) if match is not None else (_nearest(free, wanted, rng), f"{sampler}, nearest")


def _nearest(free: Sequence[Candidate], params: Mapping[str, Any], rng: random.Random) -> Candidate:
    """The free candidate with the fewest settings that differ from `params`; ties are broken at random."""

    def distance(candidate: Candidate) -> int:
        own = settings_of(candidate.params)
        return sum(params.get(name) != own.get(name) for name in params.keys() | own.keys())

    distances = [distance(candidate) for candidate in free]
    least = min(distances)
    return rng.choice([c for c, d in zip(free, distances, strict=True) if d == least])


def _tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, n_startup_trials=1, constant_liar=True, seed=seed)


def _nsga2(seed: int) -> BaseSampler:
    return NSGAIISampler(population_size=POPULATION, seed=seed)


def _gp(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return GPSampler(seed=seed, n_startup_trials=1)


SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {"tpe": _tpe, "nsga2": _nsga2, "gp": _gp}
WHOLE = ("nsga2", "gp")  # see all settings of a space at once


def _asked(
    make: Callable[[int], BaseSampler], pool: Pool, history: Sequence[Observation], num_objectives: int, seed: int
) -> dict[str, Any]:
    """Asks a sampler for a value of every setting of the pool, None for one that does not apply."""
    rows = [settings_of(candidate.params) for candidate in pool.candidates if candidate.params]
    names = list(dict.fromkeys(name for row in rows for name in row))
    choices = {name: tuple(dict.fromkeys(row.get(name) for row in rows)) for name in names}
    distributions: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(values) for name, values in choices.items() if len(values) > 1
    }
    seen = []
    for item in history:
        own = settings_of(item.params)
        values = {name: own.get(name) for name in distributions}
        if item.params and all(value in choices[name] for name, value in values.items()):
            seen.append((values, distributions, item.objectives))
    trial = _told(make(seed), seen, num_objectives).ask(fixed_distributions=distributions)
    return {name: trial.params.get(name, choices[name][0]) for name in names}


def distributions_of(space: SearchSpace, params: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """Optuna's distributions of the settings of one network."""
    choices = space.choices_of(space.point(params))
    return {name: CategoricalDistribution(choices[name]) for name in params}


def _ask(
    make: Callable[[int], BaseSampler],
    space: SearchSpace,
    history: Sequence[Observation],
    num_objectives: int,
    seed: int,
) -> optuna.Trial:
    """Asks a fresh sampler that has been told the whole history."""
    seen = [
        (item.params, distributions_of(space, item.params), item.objectives)
        for item in history
        if item.params  # not a named network outside the settings of the space
    ]
    return _told(make(seed), seen, num_objectives).ask()


def _told(
    sampler: BaseSampler,
    seen: Sequence[tuple[Mapping[str, Any], Mapping[str, BaseDistribution], tuple[float, ...] | None]],
    num_objectives: int,
) -> optuna.Study:
    """A study in memory with settings, their distributions and their objectives.

    It holds COMPLETE trials, and RUNNING ones for what is in training, never a PRUNED one: pruned trials break Optuna's
    multi-objective samplers.
    """
    study = optuna.create_study(directions=["minimize"] * num_objectives, sampler=sampler)
    done = 0
    for params, distributions, objectives in seen:
        if objectives is None:
            state, values, attrs = TrialState.RUNNING, None, {}
        else:
            state, values = TrialState.COMPLETE, list(objectives)
            attrs = {"NSGAIISampler:generation": done // POPULATION}
            done += 1
        study.add_trial(
            create_trial(
                params=dict(params), distributions=dict(distributions), values=values, state=state, system_attrs=attrs
            )
        )
    return study
