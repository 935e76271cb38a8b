"""Promotion-type Pareto ASHA as pure functions of the ledger.

When a worker is free, the rungs are looked at from the top down: rung r may promote floor(n / eta) of its n members in
all; while fewer have left it, the best member that has not left goes on from its checkpoint. If no rung has one, a new
network is started. Nothing is ever killed, so a network that does well late is still promoted.

After "Multi-objective Asynchronous Successive Halving" (arXiv 2106.12639), with two changes. The number promoted is
capped at floor(n / eta): without the cap a rung promotes more whenever an early choice is overtaken, and the budget is
not known beforehand. And the paper's order, non-dominated fronts with an epsilon-net inside, is only one of two: MACs
are exact, so the cheapest networks are on the first front of every rung for ever, however little they have learned.
Ordering by what each member adds to the hypervolume gives them what they add, which is little. Strata of cost are there
for who wants a fixed share for each class of cost. `benchmarks/bench_orders.py` compares them.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nas.compare import front_ranks, hypervolume
from nas.search.ledger import Entry, Ledger

OrderBy = Literal["hypervolume", "fronts"]

# A corner just beyond the worst of each objective (axes are scaled to 0..1), so that the extremes count for something.
_REFERENCE = 1.05


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What the scheduler is told.

    Attributes:
        num_rungs: Fidelities at which is decided.
        eta: Reduction factor: one in `eta` goes on.
        num_trials: Networks to start in all, over all restarts.
        order: What ranks the members of a rung.
    """

    num_rungs: int
    eta: int
    num_trials: int
    order: OrderBy = "hypervolume"


@dataclass(frozen=True, slots=True)
class Start:
    """Start a new network at rung 0."""


@dataclass(frozen=True, slots=True)
class Promote:
    """Train trial `number` on to `rung`."""

    number: int
    rung: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be decided before a running job ends."""


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing is left to do."""


Action = Start | Promote | Wait | Done


def next_action(ledger: Ledger, rules: Rules) -> Action:
    """What a free worker does next.

    Args:
        ledger: All trials so far.
        rules: Rungs, reduction factor and number of trials.
    """
    for rung in reversed(range(rules.num_rungs - 1)):
        entry = promotable(ledger, rung, rules)
        if entry is not None:
            return Promote(entry.number, rung + 1)
    if len(ledger) < rules.num_trials:
        return Start()
    return Wait() if ledger.num_running else Done()


def promotable(ledger: Ledger, rung: int, rules: Rules) -> Entry | None:
    """The best member of `rung` that is free to go on, if the rung has a promotion left.

    The promotions are the floor(n / eta) first places of the rung's order, and no more than that in all: a member
    counts as promoted also if it failed on its way, and one that failed at the rung itself never became a member.
    """
    members = ledger.members(rung)
    num_best = len(members) // rules.eta
    if sum(entry.left(rung) for entry in members) >= num_best:
        return None
    places = order([m.results[rung] for m in members], [m.stratum for m in members], by=rules.order)
    best = [members[i] for i in places[:num_best]]
    return next(entry for entry in best if not entry.left(rung))


def order(objectives: Sequence[Sequence[float]], strata: Sequence[int], *, by: OrderBy = "hypervolume") -> list[int]:
    """Positions of the members of a rung, best first.

    Within a stratum: by `hypervolume`, always the member that adds most to the volume of those before it; by `fronts`,
    the non-dominated fronts, and inside a front an epsilon-net (the best of the first objective, then always the member
    farthest from those before it). The strata take turns, the one with the best first objective first.

    Args:
        objectives: (members, objectives), all to be minimised, all finite.
        strata: The stratum of each member.
        by: The order within a stratum.

    Returns:
        A permutation of `range(members)`. No member comes before one of its stratum that dominates it; ties go to the
        earlier member.
    """
    if not objectives:
        return []
    values = np.asarray(objectives, dtype=float)
    span = np.ptp(values, axis=0)
    unit = (values - values.min(axis=0)) / np.where(span > 0, span, 1.0)
    rank_all = _by_volume if by == "hypervolume" else _by_fronts
    queues = [
        rank_all(unit, [int(i) for i in np.flatnonzero(np.asarray(strata) == stratum)])
        for stratum in sorted(set(strata))
    ]
    turns = sorted(queues, key=lambda queue: (min(values[queue, 0]), queue[0]))
    longest = max(len(queue) for queue in turns)
    return [queue[i] for i in range(longest) for queue in turns if i < len(queue)]


def _by_volume(unit: NDArray[np.float64], members: list[int]) -> list[int]:
    """Members so that each adds most to the hypervolume of those before it.

    What a member adds only shrinks as others are taken, so a gain that was computed earlier is an upper bound, and only
    the member at the head of the queue has to be looked at again.
    """
    reference = [_REFERENCE] * unit.shape[1]
    ranks = dict(zip(members, front_ranks(unit[members]).tolist(), strict=True))
    taken: list[int] = []
    volume = 0.0

    def gain(i: int) -> float:
        # Rounded, so that equal gains are equal and the rank decides.
        return round(hypervolume(unit[[*taken, i]], reference) - volume, 12)

    def key(i: int) -> tuple[float, int, float, int]:
        return (-gain(i), ranks[i], float(unit[i, 0]), i)

    queue = [(key(i), 0) for i in members]
    heapq.heapify(queue)
    while queue:
        (bound, *_, i), seen = queue[0]
        if seen < len(taken) and bound < 0:
            heapq.heapreplace(queue, (key(i), len(taken)))
            continue
        heapq.heappop(queue)
        taken.append(i)
        volume = hypervolume(unit[taken], reference)
        if bound == 0:  # nothing adds anything any more
            taken += [other for *_, other in sorted(item for item, _ in queue)]
            break
    return taken


def _by_fronts(unit: NDArray[np.float64], members: list[int]) -> list[int]:
    """Members front by front."""
    ranks = front_ranks(unit[members])
    return [
        i
        for rank in range(int(ranks.max()) + 1)
        for i in epsilon_net(unit, [m for m, r in zip(members, ranks, strict=True) if r == rank])
    ]


def epsilon_net(unit: NDArray[np.float64], members: list[int]) -> list[int]:
    """Members of one front, each the farthest from those before it; the first is the best of the first objective.

    Args:
        unit: (all, objectives) on axes scaled to 0..1.
        members: Rows of `unit` to be ordered.
    """
    first = min(members, key=lambda i: (unit[i, 0], i))
    net, rest = [first], [i for i in members if i != first]
    distance = {i: float(np.linalg.norm(unit[i] - unit[first])) for i in rest}
    while rest:
        chosen = max(rest, key=lambda i: (distance[i], -i))
        rest.remove(chosen)
        net.append(chosen)
        for i in rest:
            distance[i] = min(distance[i], float(np.linalg.norm(unit[i] - unit[chosen])))
    return net
