"""Freeze-thaw: the model decides who starts and who trains on, by what a step is expected to add for its cost.

After each result, a network that was not tried yet may be started, or one that waits be trained to its next rung. What
either would add in the end is the expected growth of the hypervolume at the last rung under the joint model of all
rungs; it is held against all epochs that the network still takes to get there. So a network is trained on as long as it
promises more for them than a new one does, and one whose first rungs disappoint is left where it is, from where it can
go on later. (Held against the step alone, which adds nothing by itself, new networks would always be the cheapest.)

After Swersky, Snoek and Adams, "Freeze-thaw Bayesian optimization" (arXiv 1406.3896), which has one objective and a
model of whole curves.

A network of the front may be trained once more with another seed, where what that is expected to tell is worth more
than any other step for its cost: so a front of lucky trainings is found out before its neighbours are searched.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Generic

import numpy as np

from nas.search.model.belief import Model, Reason, Result
from nas.search.sampler.pool import CandidateSource, N, options

REPEAT = "repeat"
"""Where a training of a network that was tried comes from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step(Generic[N]):
    """What is done next.

    Attributes:
        network: That starts or goes on.
        rung: That it is trained to.
        reason: What is expected of it.
        origin: `pool, near` or `pool` for one that starts, `REPEAT` for one that does so once more with another seed;
            empty for one that goes on.
    """

    network: N
    rung: int
    reason: Reason
    origin: str


def next_step(
    model: Model,
    source: CandidateSource[N],
    networks: Mapping[str, N],
    results: Sequence[Result],
    pending: Sequence[tuple[str, int]],
    waiting: Mapping[str, int],
    tried: AbstractSet[str],
    cost: Callable[[N, int], float],
    rng: random.Random,
    *,
    may_start: bool = True,
    repeatable: AbstractSet[str] = frozenset(),
) -> Step[N] | None:
    """The step that is expected to add most to the hypervolume for its cost.

    Args:
        model: Of the study.
        source: What may be tried.
        networks: By digest, all that results and pending trainings are of.
        results: At least one, in the order in which they were measured.
        pending: Digest and rung of trainings under way.
        waiting: By digest, the next rung of those that may go on.
        tried: Digests that are not started again.
        cost: Of training a network from the rung before a given one to the last.
        rng: Draws networks.
        may_start: Whether a network may be started at all.
        repeatable: Digests of networks that were measured at the last rung and may be trained once more.

    Returns:
        None where nothing is left to do.
    """
    belief = model.believe(results, networks, pending)
    against, reference = belief.whole, belief.reference(belief.digests)
    steps: list[tuple[float, Step[N]]] = []
    going = list(waiting)
    if going:
        expected = belief.expect_tried(going, against=against, reference=reference)
        values = [cost(networks[key], waiting[key]) for key in going]
        best = expected.best(np.asarray(values))
        step = Step(network=networks[going[best]], rung=waiting[going[best]], reason=expected.reason(best), origin="")
        steps.append((float(expected.gain[best]) / values[best], step))
    front = belief.front(belief.digests)
    found = options(networks, front, source, tried, rng) if may_start else {}
    if found:
        new = list(found.values())
        values = [cost(network, 0) for network in new]
        best, reason = belief.best(new, against=against, reference=reference, price=np.asarray(values))
        near = {one.digest for key in front for one in source.near(networks[key])}
        origin = "pool, near" if new[best].digest in near else "pool"
        step = Step(network=new[best], rung=0, reason=reason, origin=origin)
        steps.append((reason.gain / values[best], step))
    again = [key for key in belief.front(belief.whole) if key in repeatable] if may_start and repeatable else []
    if again:
        expected = belief.expect_again(again, against=against, reference=reference)
        values = [cost(networks[key], 0) for key in again]
        best = int(np.argmax(expected.gain / np.asarray(values)))
        step = Step(network=networks[again[best]], rung=0, reason=expected.reason(best), origin=REPEAT)
        steps.append((float(expected.gain[best]) / values[best], step))
    return max(steps, key=lambda item: item[0])[1] if steps else None
