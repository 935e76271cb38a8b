"""Which network is tried next: an even start over log MACs, then Optuna's samplers over the pool.

A proposal is a function of (seed, number of the trial, ledger) and of nothing else, so a search that is started again
proposes what it would have proposed. What Optuna suggests is taken if it is in the pool and new; otherwise the nearest
new network of the pool is. So no network is tried twice, no constraint is broken, and nothing can loop for ever.

Optuna's GP and NSGA-II know only the settings that all networks have, and draw the others at random. They are shown the
settings of every network of the pool, one that does not apply as a value of its own.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState, create_trial

from nas.search.pool import Candidate, Pool
from search_spaces.space import SearchSpace

STARTUP = 10  # results at a rung before a sampler learns from it
POPULATION = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What a sampler learns from: settings and the minimised objectives, or None while the network is in training."""

    params: Mapping[str, Any]
    objectives: tuple[float, ...] | None


def propose(
    *,
    sampler: str,
    space: SearchSpace,
    pool: Pool,
    seen: Sequence[str],
    history: Sequence[Observation],
    num_objectives: int,
    initial: int,
    seed: int,
) -> tuple[Candidate, str] | None:
    """The next network to try, and where the proposal comes from.

    Args:
        sampler: `random`, `tpe`, `nsga2` or `gp`.
        space: The space whose settings Optuna sees.
        pool: What may be tried.
        seen: Digests of all trials so far, in the order of their numbers.
        history: One observation a trial, at one fidelity; those under way have none yet.
        num_objectives: Length of an observation's objectives.
        initial: Trials of the even start.
        seed: Of the study.

    Returns:
        None when every candidate of the pool was tried.
    """
    number, tried = len(seen), set(seen)
    free = [candidate for candidate in pool.candidates if candidate.digest not in tried]
    if not free:
        return None
    named = next((candidate for candidate in pool.named if candidate.digest not in tried), None)
    if named is not None:
        return named, "named"
    rng = random.Random(f"proposal {seed} {number}")
    turn = number - len(pool.named)
    if turn < initial:
        return _slice(free, pool, turn, initial, seed, rng), "initial"
    done = [o for o in history if o.objectives is not None]
    if sampler == "random" or len(done) < min(STARTUP, initial):
        return rng.choice(free), "random"
    make, draw = SAMPLERS[sampler], rng.randrange(2**31)
    if sampler in WHOLE:
        wanted = encoded(_asked(make, pool, history, num_objectives, draw))
        match = next((candidate for candidate in free if encoded(candidate.params) == wanted), None)
    else:
        point = space.sample(_ask(make, space, history, num_objectives, draw))
        wanted = encoded(dict(point.params))
        match = next((candidate for candidate in free if candidate.digest == point.digest), None)
    return (match, sampler) if match is not None else (_nearest(free, wanted, rng), f"{sampler}, nearest")


def encoded(params: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by domain and place, whatever values were left to choose from; those that are None do not apply."""
    return {name.partition("[")[0]: value for name, value in params.items() if value is not None}


def _slice(free: Sequence[Candidate], pool: Pool, turn: int, initial: int, seed: int, rng: random.Random) -> Candidate:
    """One random candidate of one of `initial` equal parts of the range of log MACs; the parts come in random order."""
    parts = list(range(initial))
    random.Random(f"initial {seed}").shuffle(parts)
    low = math.log(pool.candidates[0].cost.macs)
    width = (math.log(pool.candidates[-1].cost.macs) - low) / initial
    middle = low + (parts[turn] + 0.5) * width
    inside = [c for c in free if abs(math.log(c.cost.macs) - middle) <= width / 2]
    return rng.choice(inside) if inside else min(free, key=lambda c: (abs(math.log(c.cost.macs) - middle), c.digest))


def _nearest(free: Sequence[Candidate], params: Mapping[str, Any], rng: random.Random) -> Candidate:
    """The free candidate with the fewest settings that differ from `params`; ties are broken at random."""

    def distance(candidate: Candidate) -> int:
        own = encoded(candidate.params)
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
    rows = [encoded(candidate.params) for candidate in pool.candidates if candidate.params]
    names = list(dict.fromkeys(name for row in rows for name in row))
    choices = {name: tuple(dict.fromkeys(row.get(name) for row in rows)) for name in names}
    distributions: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(values) for name, values in choices.items() if len(values) > 1
    }
    seen = []
    for item in history:
        own = encoded(item.params)
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
