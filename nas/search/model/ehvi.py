"""Expected improvement of the hypervolume under an uncertain error and exact costs, in closed form.

Let A(e) be the volume of costs that a network dominates and no network of the front with an error of at most e does.
The improvement by a network of error Y is the integral of A from Y to the reference. A changes at the errors of the
front alone, so that its expectation is a sum of A over the levels between them, each times what the network is expected
to be below; log error is normal, for which that is known (the option price of Black and Scholes).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from nas.compare import hypervolume

Array = NDArray[np.float64]

REFERENCE = 1.05
"""Cost of the reference point on axes that are scaled to 0..1 over the pool."""


def reference_error(errors: Array) -> float:
    """The error of the reference point: a tenth of a front's range above its worst."""
    worst, best = float(errors.max()), float(errors.min())
    return worst + 0.1 * (worst - best if worst > best else worst)


def volume_of(front_error: Array, front_cost: Array, reference: float) -> float:
    """The hypervolume of a front; without one, that of the whole box up to the reference point."""
    corner = [reference, *[REFERENCE] * front_cost.shape[1]]
    points = np.column_stack([front_error, front_cost])
    inside = points[(points < corner).all(axis=1)]
    return hypervolume(inside, corner) if len(inside) else reference * REFERENCE ** front_cost.shape[1]


def expected_improvement(
    mean: Array, variance: Array, cost: Array, *, front_error: Array, front_cost: Array, reference: float
) -> Array:
    """The expected growth of the hypervolume by each network.

    Args:
        mean: (networks,) of log error.
        variance: (networks,) of log error.
        cost: (networks, costs) on axes scaled to 0..1; none, one or two costs.
        front_error: (front,) of networks that were measured; those that are dominated do no harm.
        front_cost: (front, costs).
        reference: Error of the reference point.
    """
    order = np.argsort(front_error, kind="stable")
    order = order[front_error[order] < reference]
    levels = np.append(front_error[order], reference)
    deviation = np.sqrt(variance)
    z = (np.log(levels)[:, None] - mean) / deviation
    below = levels[:, None] * ndtr(z) - np.exp(mean + 0.5 * variance) * ndtr(z - deviation)
    gains = np.diff(np.maximum(below, 0.0), axis=0, prepend=0.0)  # (levels, networks)
    volumes = _volumes(cost, front_cost[order])
    return np.asarray((np.maximum(gains, 0.0) * volumes).sum(0))


def _volumes(cost: Array, front: Array) -> Array:
    """(front + 1, networks): what each network dominates of the costs that the first k of the front do not."""
    room = np.maximum(0.0, REFERENCE - cost)  # (networks, costs)
    if cost.shape[1] == 0:  # whoever has a smaller error dominates all the others
        return np.concatenate([np.ones((1, len(cost))), np.zeros((len(front), len(cost)))])
    if cost.shape[1] == 1:
        cheapest = np.minimum.accumulate(np.append(REFERENCE, front[:, 0]))
        return np.maximum(0.0, np.minimum(cheapest[:, None], REFERENCE) - cost[None, :, 0])
    assert cost.shape[1] == 2, "error and at most two costs"
    whole = room.prod(axis=1)
    rows = [whole]
    for count in range(1, len(front) + 1):
        points = front[:count]
        points = points[np.argsort(points[:, 0], kind="stable")]
        first = np.minimum(np.maximum(points[:, :1], cost[:, 0]), REFERENCE)  # (count, networks)
        lowest = np.minimum.accumulate(np.minimum(np.maximum(points[:, 1:], cost[:, 1]), REFERENCE), axis=0)
        widths = np.diff(first, axis=0, append=np.full((1, len(cost)), REFERENCE))
        rows.append(np.maximum(0.0, whole - (widths * (REFERENCE - lowest)).sum(0)))
    return np.asarray(rows)
