"""The sampler `pool`: the network whose training is expected to add most to the hypervolume, of a renewed pool.

Before each proposal the pool is renewed: all neighbours, one setting away, of the networks that are expected to be on
the front join it, and fresh draws of the space. So a large space is searched finely where that pays, and a good network
is not missed because it was not drawn at the start.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol, TypeVar

from nas.search.model.belief import Model, Reason, Result
from nas.search.model.encoding import CandidateLike

N = TypeVar("N", bound=CandidateLike)

OF_POOL = 1000  # networks of the pool that are looked at for a proposal
FRESH = 100  # draws of the space for a proposal


class CandidateSource(Protocol[N]):
    """Where networks come from; a space, or a table of known results."""

    @property
    def candidates(self) -> Sequence[N]:
        """A pool that stays."""

    @property
    def whole(self) -> bool:
        """Whether there are no others."""

    def near(self, network: N, /) -> Sequence[N]:
        """Networks one setting away from one that this has given."""

    def drawn(self, count: int, rng: random.Random) -> Sequence[N]:
        """Random networks, at most `count`."""


def proposed(
    model: Model,
    supply: CandidateSource[N],
    networks: Mapping[str, N],
    results: Sequence[Result],
    pending: Sequence[tuple[str, int]],
    tried: AbstractSet[str],
    rng: random.Random,
) -> tuple[N, Reason, str] | None:
    """The network with the largest expected growth of the hypervolume.

    Args:
        model: Of the study.
        supply: What may be tried.
        networks: By digest, all that results and pending trainings are of.
        results: At least one, in the order in which they were measured.
        pending: Digest and rung of trainings under way.
        tried: Digests that are not proposed again.
        rng: Draws networks.

    Returns:
        The candidate, what is expected of it, and where it comes from: `pool, near` for a neighbour of the front,
        `pool` for another. None where nothing is left.
    """
    results = [result for result in results if result.digest in networks]
    belief = model.believe(results, networks, [(key, at) for key, at in pending if key in networks])
    front = belief.front(belief.digests)
    found = options(networks, front, supply, tried, rng)
    if not found:
        return None
    candidates = list(found.values())
    best, reason = belief.best(candidates, against=belief.digests, reference=belief.reference(belief.digests))
    near = {one.digest for key in front for one in supply.near(networks[key])}
    return candidates[best], reason, "pool, near" if candidates[best].digest in near else "pool"


def options(
    networks: Mapping[str, N],
    front: Sequence[str],
    supply: CandidateSource[N],
    tried: AbstractSet[str],
    rng: random.Random,
) -> dict[str, N]:
    """The renewed pool, by digest: neighbours of a front, some of the pool, fresh draws; none that was tried."""
    pool = supply.candidates
    found = [one for key in front for one in supply.near(networks[key])]
    found += pool if len(pool) <= OF_POOL else rng.sample(list(pool), OF_POOL)
    if not supply.whole:
        found += supply.drawn(FRESH, rng)
    options = {one.digest: one for one in found if one.digest not in tried}
    if options:
        return options
    rest = [*pool, *(one for network in networks.values() for one in supply.near(network))]
    return {one.digest: one for one in rest if one.digest not in tried}
