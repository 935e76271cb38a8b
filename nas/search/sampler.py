"""Which network is tried next: an even start over log MACs, then Optuna's samplers over the pool.

A proposal is a function of (seed, number of the trial, ledger) and of nothing else, so a search that is started again
proposes what it would have proposed. What Optuna suggests is taken if it is in the pool and new; otherwise the nearest
new network of the pool is. So no network is tried twice, no constraint is broken, and nothing can loop for ever.
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
    point = space.sample(_ask(SAMPLERS[sampler], space, history, num_objectives, rng.randrange(2**31)))
    candidate = pool.by_digest.get(point.digest)
    if candidate is not None and candidate.digest not in tried:
        return candidate, sampler
    return _nearest(free, dict(point.params), rng), f"{sampler}, nearest"


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
        names = params.keys() | candidate.params.keys()
        return sum(params.get(name) != candidate.params.get(name) for name in names)

    distances = [distance(candidate) for candidate in free]
    least = min(distances)
    return rng.choice([c for c, d in zip(free, distances, strict=True) if d == least])


def _tpe(seed: int) -> BaseSampler:
    return TPESampler(multivariate=True, group=True, n_startup_trials=1, constant_liar=True, seed=seed)


def _nsga2(seed: int) -> BaseSampler:
    return NSGAIISampler(population_size=POPULATION, seed=seed)


def _gp(seed: int) -> BaseSampler:
    return GPSampler(seed=seed, n_startup_trials=1)


SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {"tpe": _tpe, "nsga2": _nsga2, "gp": _gp}


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
    """Asks a fresh sampler that has been told the whole history.

    The study lives in memory and holds COMPLETE trials, and RUNNING ones for what is in training, never a PRUNED one:
    pruned trials break Optuna's multi-objective samplers.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(directions=["minimize"] * num_objectives, sampler=make(seed))
        done = 0
        for item in history:
            if not item.params:  # a named network outside the settings of the space
                continue
            distributions = distributions_of(space, item.params)
            if item.objectives is None:
                state, values, attrs = TrialState.RUNNING, None, {}
            else:
                state, values = TrialState.COMPLETE, list(item.objectives)
                attrs = {"NSGAIISampler:generation": done // POPULATION}
                done += 1
            study.add_trial(
                create_trial(
                    params=dict(item.params),
                    distributions=distributions,
                    values=values,
                    state=state,
                    system_attrs=attrs,
                )
            )
        return study.ask()
