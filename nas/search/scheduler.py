"""Schedulers as pure functions of the ledger: Pareto ASHA, hyperband, i-Epoch, and training in full.

The first is promotion-type Pareto ASHA (`asha`). What this module remembers only saves time.

When a worker is free, the rungs are looked at from the top down: rung r may promote floor(n / eta) of its n members in
all; while fewer have left it, the best member that has not left goes on from its checkpoint. If no rung has one, a new
network is started. Nothing is ever killed, so a network that does well late is still promoted.

After "Multi-objective Asynchronous Successive Halving" (arXiv 2106.12639), with two changes. The number promoted is
capped at floor(n / eta): without the cap a rung promotes more whenever an early choice is overtaken, and the budget is
not known beforehand. And the paper's order, non-dominated fronts with an epsilon-net inside, is only one of two: MACs
are exact, so the cheapest networks are on the first front of every rung for ever, however little they have learned.
Ordering by what each member adds to the hypervolume gives them what they add, which is little. Strata of cost are there
for who wants a fixed share for each class of cost. `benchmarks/bench_orders.py` compares them.

`freeze_thaw`, which needs a model and so more than a ledger, is in `nas.search.freeze_thaw`.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import inf
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from nas.search.ledger import Entry, Ledger
from nas.study.front import CORNER, front_ranks, hypervolume

if TYPE_CHECKING:
    from nas.study.schema import OrderBy


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


def asha(ledger: Ledger, rules: Rules) -> Action:
    """What a free worker does next: takes the best of the highest rung that may promote, or starts a network.

    Args:
        ledger: All trials so far.
        rules: Rungs, reduction factor and number of trials.
    """
    for rung in reversed(range(rules.num_rungs - 1)):
        entry = promotable(ledger, rung, rules)
        if entry is not None:
            return Promote(entry.number, rung + 1)
    return _start(ledger, rules)


def promotable(ledger: Ledger, rung: int, rules: Rules, *, among: NDArray[np.bool_] | None = None) -> Entry | None:
    """The best member of `rung` that is free to go on, if the rung has a promotion left.

    The promotions are the floor(n / eta) first places of the rung's order, and no more than that in all: a member
    counts as promoted also if it failed on its way, and one that failed at the rung itself never became a member.

    Args:
        ledger: All trials so far.
        rung: Where is promoted from.
        rules: Reduction factor and order.
        among: (members,) the members that compete with one another, by default all.
    """
    here = ledger.rung(rung)
    chosen = np.flatnonzero(among) if among is not None else None
    members = here.num_members if chosen is None else len(chosen)
    num_left = here.num_left if chosen is None else int(here.left[chosen].sum())
    num_best = members // rules.eta
    if num_left >= num_best:
        return None

    def places() -> NDArray[np.int64]:
        competing = slice(None) if chosen is None else chosen
        found = _ranked(here.values[competing], here.strata[competing], by=rules.order, first=num_best)
        return found if chosen is None else chosen[found]

    key = (rules.order, num_best, None if chosen is None else chosen.tobytes())
    ranked = here.remembered(key, places)
    return ledger[int(here.numbers[ranked[np.flatnonzero(~here.left[ranked])[0]]])]


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
    if not len(objectives):
        return []
    values, classes = np.asarray(objectives, dtype=float), np.asarray(strata)
    return [int(i) for i in _ranked(values, classes, by=by, first=len(values))]


def _ranked(values: NDArray[np.float64], strata: NDArray[np.int64], *, by: OrderBy, first: int) -> NDArray[np.int64]:
    """The `first` places of `order`."""
    axes = np.ascontiguousarray(values.T)
    low = axes.min(axis=1)
    span = axes.max(axis=1) - low
    unit = (values - low) / np.where(span > 0, span, 1.0)
    rank_all = {"hypervolume": _by_volume, "fronts": _by_fronts}[by]
    classes = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    turns = [(float(values[members, 0].min()), members[rank_all(unit[members], first)]) for members in classes]
    queues = [queue for _, queue in sorted(turns, key=lambda turn: (turn[0], turn[1][0]))]
    table = np.full((max(map(len, queues)), len(queues)), -1, dtype=np.int64)
    for turn, queue in enumerate(queues):
        table[: len(queue), turn] = queue
    return table[table >= 0][:first]


def _by_volume(unit: NDArray[np.float64], first: int) -> NDArray[np.int64]:
    """The `first` members so that each adds most to the hypervolume of those before it.

    Only members of the front add something, and which of them goes before which depends on the front alone. The others
    follow front by front.
    """
    ranks = front_ranks(unit)
    front = np.flatnonzero(ranks == 0)
    # Enough for what is asked, and the same number for long, so that it is remembered.
    most = min(len(front), 1 << (first - 1).bit_length())
    taken = front[list(_taken(unit[front].tobytes(), unit.shape[1], most))]
    if len(taken) >= first:
        return taken[:first]
    # Of the others, only the fronts that come within the places are sorted.
    last = int(np.searchsorted(np.cumsum(np.bincount(ranks)), first))
    wanted = ranks <= last
    wanted[taken] = False
    rest = np.flatnonzero(wanted)
    return np.concatenate([taken, rest[np.lexsort((unit[rest, 0], ranks[rest]))]])[:first]


@lru_cache(maxsize=64)
def _taken(front: bytes, objectives: int, most: int) -> tuple[int, ...]:
    """At most `most` points of a front, each the one that adds most to the volume of those before it.

    What a point adds only shrinks as others are taken, so a gain that was computed earlier is an upper bound, and only
    the point at the head of the queue has to be looked at again. Points that add nothing are left out.

    Args:
        front: Of (points, objectives) float64, none of which dominates another; in bytes, as a key of the cache.
        objectives: To be minimised.
        most: Points.
    """
    points = np.frombuffer(front).reshape(-1, objectives)
    volume = _Volume(points)
    queue = [((-volume.gain(i), float(points[i, 0]), i), 0) for i in range(len(points))]
    heapq.heapify(queue)
    while queue and len(volume.taken) < most:
        (bound, _, i), seen = queue[0]
        if bound == 0:  # nothing adds anything any more
            break
        if seen < len(volume.taken):
            heapq.heapreplace(queue, ((-volume.gain(i), float(points[i, 0]), i), len(volume.taken)))
        else:
            heapq.heappop(queue)
            volume.take(i)
    return tuple(volume.taken)


class _Volume:
    """What points of a front add to the hypervolume of those that were taken.

    With two objectives that is a rectangle between two neighbours. Gains are rounded, so that equal ones are equal;
    where the rectangle is so near to the middle of two rounded values that its own rounding would decide, the whole
    volumes are compared, as with other numbers of objectives.
    """

    def __init__(self, points: NDArray[np.float64]) -> None:
        self.points, self.taken = points, list[int]()
        self._reference = [CORNER] * points.shape[1]
        self._before: float | None = 0.0  # volume of those taken, once it is needed
        self._stairs: list[tuple[float, float]] = [(-inf, CORNER), (CORNER, -inf)]

    def gain(self, i: int) -> float:
        """What point `i` would add."""
        if self.points.shape[1] == 2:
            x, y = map(float, self.points[i])
            stairs = self._stairs
            right = bisect_left(stairs, (x, y))
            if stairs[right] == (x, y):
                return 0.0
            area = (stairs[right][0] - x) * (stairs[right - 1][1] - y)
            doubt = (2 * len(self.taken) + 12) * 1.3e-16
            low, high = round(area - doubt, 12), round(area + doubt, 12)
            if low == high:
                return low
        if self._before is None:
            self._before = hypervolume(self.points[self.taken], self._reference)
        return round(hypervolume(self.points[[*self.taken, i]], self._reference) - self._before, 12)

    def take(self, i: int) -> None:
        """Takes a point."""
        self.taken.append(i)
        self._before = None
        if self.points.shape[1] == 2:
            x, y = map(float, self.points[i])
            insort(self._stairs, (x, y))


def _by_fronts(unit: NDArray[np.float64], first: int) -> NDArray[np.int64]:
    """The `first` members front by front."""
    ranks = front_ranks(unit)
    by_rank = np.argsort(ranks, kind="stable")
    ends = np.cumsum(np.bincount(ranks))
    found = list[NDArray[np.int64]]()
    for begin, end in pairwise((0, *ends.tolist())):
        if begin >= first:
            break
        front = by_rank[begin:end]
        found.append(front[list(_net(unit[front].tobytes(), unit.shape[1]))])
    return np.concatenate(found)[:first]


@lru_cache(maxsize=1024)
def _net(front: bytes, objectives: int) -> tuple[int, ...]:
    """The order inside one front; see `epsilon_net`, and `_taken` for the bytes."""
    return tuple(epsilon_net(np.frombuffer(front).reshape(-1, objectives)))


def epsilon_net(points: NDArray[np.float64]) -> list[int]:
    """Points of one front, each the farthest from those before it; the first is the best of the first objective.

    Args:
        points: (points, objectives) on axes scaled to 0..1.
    """
    chosen = int(np.argmin(points[:, 0]))
    net, distance = [chosen], np.full(len(points), np.inf)
    while len(net) < len(points):
        distance = np.minimum(distance, np.sqrt(((points - points[chosen]) ** 2).sum(axis=1)))
        distance[net] = -1.0
        chosen = int(np.argmax(distance))
        net.append(chosen)
    return net


_ENOUGH = 1e12  # networks of a bracket in turn: no search begins as many, however large its reduction factor


def in_full(ledger: Ledger, rules: Rules) -> Action:
    """Every network is trained to the last rung."""
    return _next_rung(ledger, range(rules.num_rungs - 1)) or _start(ledger, rules)


def iepoch(ledger: Ledger, rules: Rules) -> Action:
    """Everything to the first rung; then the best floor(n / eta) of it in full (Egele et al., arXiv 2404.04111)."""
    if rules.num_rungs == 1 or len(ledger) < rules.num_trials:
        return _start(ledger, rules)
    if any(entry.running and not entry.results for entry in ledger.entries):
        return Wait()
    chosen = promotable(ledger, 0, rules)
    if chosen is not None:
        return Promote(chosen.number, 1)
    return _next_rung(ledger, range(1, rules.num_rungs - 1)) or _start(ledger, rules)


def hyperband(ledger: Ledger, rules: Rules) -> Action:
    """Brackets of asynchronous halving, each of which begins at another rung (Li et al., arXiv 1603.06560).

    A network of bracket b goes to rung b without being compared, and from there as by `asha` among its bracket. Of the
    networks, a share falls to bracket b that takes all brackets about the same epochs.
    """
    counts = brackets(rules)
    for own in range(1, rules.num_rungs):  # those that have not got to where their bracket begins
        action = _next_rung(ledger, range(own), counts, own)
        if action is not None:
            return action
    for own in range(rules.num_rungs - 1):
        for rung in reversed(range(own, rules.num_rungs - 1)):
            members = bracket_of(ledger.rung(rung).numbers, counts) == own
            chosen = promotable(ledger, rung, rules, among=members)
            if chosen is not None:
                return Promote(chosen.number, rung + 1)
    return _start(ledger, rules)


def brackets(rules: Rules) -> tuple[int, ...]:
    """How many networks in turn are of each bracket: eta ** (s - b) times (s + 1) / (s - b + 1) of bracket b."""
    last = rules.num_rungs - 1
    return tuple(max(1, round((last + 1) / (last - b + 1) * rules.eta ** (last - b))) for b in range(last + 1))


def bracket_of(numbers: NDArray[np.int64], counts: Sequence[int]) -> NDArray[np.int64]:
    """The bracket of each network, by its number.

    Args:
        numbers: From 0.
        counts: Of `brackets`.
    """
    ends = np.cumsum(np.minimum(np.asarray(counts, dtype=float), _ENOUGH))
    return np.asarray(np.searchsorted(ends, numbers % ends[-1], side="right"), dtype=np.int64)


def _next_rung(ledger: Ledger, rungs: Iterable[int], counts: Sequence[int] = (1,), bracket: int = 0) -> Promote | None:
    """Takes the first network of a bracket that stands at one of `rungs` to the next, without a comparison."""
    standing = list[tuple[int, int]]()
    for rung in rungs:
        here = ledger.rung(rung)
        numbers = here.numbers[~here.left]
        numbers = numbers[bracket_of(numbers, counts) == bracket]
        standing += [(int(numbers[0]), rung)] if len(numbers) else []
    return Promote(min(standing)[0], min(standing)[1] + 1) if standing else None


def _start(ledger: Ledger, rules: Rules) -> Action:
    if len(ledger) < rules.num_trials:
        return Start()
    return Wait() if ledger.num_running else Done()


LEDGER_SCHEDULERS: Mapping[str, Callable[[Ledger, Rules], Action]] = {
    "asha": asha,
    "iepoch": iepoch,
    "hyperband": hyperband,
    "none": in_full,
}


def spent(ledger: Ledger, ends: tuple[int, ...]) -> int:
    """Epochs of all jobs that have ended or are under way; one that failed counts whole, however far it got."""

    def of(entry: Entry) -> int:
        reached = len(entry.results) + (entry.running or entry.failed)
        return ends[reached - 1] if reached else 0

    return sum(map(of, ledger.entries))
