"""Which network is tried next: those that the study names, an even start over log MACs, then a sampler.

A proposal is a function of (study, results, seed) and of nothing else, so a search that is started again proposes what
it would have proposed. No network is tried twice, and none breaks a constraint, whatever the sampler.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from nas.search.model.belief import Model, Reason, Result
from nas.search.pool import Candidate, CandidatePool, Supply
from nas.search.sampler.in_optuna import PoolSampler
from nas.search.sampler.optuna_samplers import Observation, asked, distributions_of
from nas.search.sampler.pool import proposed
from nas.study.samplers import Sampler
from search_spaces.space import SearchSpace

__all__ = ["STARTUP", "History", "Observation", "PoolSampler", "Proposal", "distributions_of", "propose"]

STARTUP = 10  # results before a sampler learns from them


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What a sampler may know of a search.

    Attributes:
        digests: Of all trials so far, in the order of their numbers.
        networks: Those that are known by settings, by digest.
        results: All of them, in the order in which they were measured.
        pending: Digest and rung of trainings under way.
        history: One observation a trial, at one fidelity; those under way have none yet.
        gains: What the model expected of each step that it has chosen, as shares of the hypervolume, in their order.
    """

    digests: Sequence[str]
    networks: dict[str, Candidate]
    results: Sequence[Result]
    pending: Sequence[tuple[str, int]]
    history: Sequence[Observation]
    gains: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """A network to be tried.

    Attributes:
        candidate: The network.
        origin: `named`, `initial`, `repeat`, `random` or the sampler, with `nearest` where it
            asked for another network.
        reason: What a model expects of it; None without one.
        repeat: How many trainings of the network went before; each has a seed of its own.
    """

    candidate: Candidate
    origin: str
    reason: Reason | None = None
    repeat: int = 0


def propose(
    *,
    sampler: Sampler,
    space: SearchSpace,
    supply: Supply,
    model: Model,
    seen: History,
    num_objectives: int,
    initial: int,
    seed: int,
) -> Proposal | None:
    """The next network to try, and where the proposal comes from.

    Args:
        sampler: One of `nas.study.samplers.OWN`, or a class of Optuna, of a hub or of NNI.
        space: The space whose settings Optuna sees.
        supply: What may be tried.
        model: What the sampler `pool` learns with.
        seen: The search so far.
        num_objectives: Of the search.
        initial: Trials of the even start.
        seed: Of the study.

    Returns:
        None when every candidate was tried.
    """
    pool, number, tried = supply.pool, len(seen.digests), set(seen.digests)
    free = [candidate for candidate in pool.candidates if candidate.digest not in tried]
    named = next((candidate for candidate in pool.named if candidate.digest not in tried), None)
    if named is not None:
        return Proposal(candidate=named, origin="named")
    rng = random.Random(f"proposal {seed} {number}")
    turn = number - len(pool.named)
    if free and turn < initial:
        return Proposal(candidate=_slice(free, pool, turn, initial, seed, rng), origin="initial")
    if sampler.own == "pool" and len({result.digest for result in seen.results}) >= min(STARTUP, max(1, initial)):
        found = proposed(model, supply, seen.networks, seen.results, seen.pending, tried, rng)
        return None if found is None else Proposal(candidate=found[0], origin=found[2], reason=found[1])
    if not free:
        return None
    done = [o for o in seen.history if o.objectives is not None]
    if sampler.own in ("random", "pool") or len(done) < min(STARTUP, initial):
        return Proposal(candidate=rng.choice(free), origin="random")
    candidate, origin = asked(
        sampler=sampler,
        space=space,
        pool=pool,
        free=free,
        history=seen.history,
        num_objectives=num_objectives,
        rng=rng,
        seed=seed,
        num_tried=number,
    )
    return Proposal(candidate=candidate, origin=origin)


def _slice(
    free: Sequence[Candidate], pool: CandidatePool, turn: int, initial: int, seed: int, rng: random.Random
) -> Candidate:
    """One random candidate of one of `initial` equal parts of the range of log MACs; the parts come in random order."""
    parts = list(range(initial))
    random.Random(f"initial {seed}").shuffle(parts)
    low = math.log(pool.candidates[0].cost.macs)
    width = (math.log(pool.candidates[-1].cost.macs) - low) / initial
    middle = low + (parts[turn] + 0.5) * width
    inside = [c for c in free if abs(math.log(c.cost.macs) - middle) <= width / 2]
    return rng.choice(inside) if inside else min(free, key=lambda c: (abs(math.log(c.cost.macs) - middle), c.digest))
