"""Expected growth of the hypervolume by a network of uncertain errors and exact costs, in closed form.

Objectives are independent given the network: log errors are normal, and costs are known. The levels of a front on every
axis but the first cut what it does not dominate into cells, in each of which the first axis has one ceiling: the least
first error of the front that is nowhere worse there. What a network Y covers of a cell is a product of lengths (t - Y)+
and of differences of such, so that the expected growth is the sum over cells of the product of their expectations. For
log-normal errors G(t) = E (t - Y)+ is known (the option price of Black and Scholes).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from nas.study.front import CORNER, hypervolume
from nas.study.front import front as non_dominated

Array = NDArray[np.float64]

REFERENCE = CORNER
"""Cost of the reference point on axes that are scaled to 0..1 over the pool."""


def reference_error(errors: Array) -> float:
    """The error of the reference point: a tenth of a front's range above its worst."""
    worst, best = float(errors.max()), float(errors.min())
    return worst + 0.1 * (worst - best if worst > best else worst)


def volume_of(front: Array, reference: Sequence[float]) -> float:
    """The hypervolume of a front; without one, that of the whole box from errors and costs of 0.

    Args:
        front: (front, objectives), errors before costs.
        reference: (objectives,).
    """
    inside = front[(front < reference).all(axis=1)]
    return hypervolume(inside, reference) if len(inside) else float(np.prod(reference))


def expected_improvement(
    mean: Array, variance: Array, cost: Array, *, front: Array, reference: Sequence[float]
) -> Array:
    """The expected growth of the hypervolume by each network.

    Args:
        mean: (errors, networks) of log error; one error or more, three objectives at most in all.
        variance: (errors, networks) of log error.
        cost: (networks, costs) on axes scaled to 0..1.
        front: (front, errors + costs) of networks that were measured; those that are dominated do no harm.
        reference: (errors + costs,) the reference point.

    Returns:
        (networks,).
    """
    assert len(reference) == len(mean) + cost.shape[1] <= 3, "three objectives at most"
    front = front[(front < reference).all(axis=1)]
    front = front[non_dominated(front)]
    front = front[np.argsort(front[:, 0], kind="stable")]
    known: list[_Error | _Cost] = [_Error(*one) for one in zip(mean, variance, strict=True)]
    known += [_Cost(one) for one in cost.T]
    first = known[0].room(np.append(front[:, 0], reference[0]))  # (front + 1, networks)
    if len(reference) == 1:
        return np.asarray(first[0])
    levels = [np.append(np.sort(front[:, axis]), reference[axis]) for axis in range(1, len(reference))]
    # The lowest slice of an axis reaches down without end.
    slices = [np.diff(one.room(at), axis=0, prepend=0.0) for one, at in zip(known[1:], levels, strict=True)]
    ceilings = _ceilings(front, levels)
    if len(reference) == 2:
        return np.asarray((first[ceilings] * slices[0]).sum(0))
    growth = np.zeros(mean.shape[1])
    for row, length in zip(ceilings, slices[0], strict=True):
        growth += length * (first[row] * slices[1]).sum(0)
    return growth


def _ceilings(front: Array, levels: Sequence[Array]) -> NDArray[np.int64]:
    """(front + 1, …): the row of the front that bounds the first axis in slices of the others; its length for none.

    Args:
        front: (front, objectives), ascending in the first.
        levels: (front + 1,) ascending, of each further axis.
    """
    # Slice i lies above level i - 1: (slices, front) says who is nowhere worse in all of it.
    under = [front[:, axis] <= np.concatenate([[-np.inf], at[:-1]])[:, None] for axis, at in enumerate(levels, start=1)]
    reach = under[0] if len(under) == 1 else under[0][:, None] & under[1][None]
    nobody = np.ones((*reach.shape[:-1], 1), dtype=bool)
    return np.asarray(np.concatenate([reach, nobody], axis=-1).argmax(-1))


class _Error:
    """A log-normal objective of networks."""

    def __init__(self, mean: Array, variance: Array) -> None:
        self._mean, self._variance, self._deviation = mean, variance, np.sqrt(variance)

    def room(self, levels: Array) -> Array:
        """(levels, networks): what the objective is expected to be below each level, E (t - Y)+."""
        z = (np.log(levels)[:, None] - self._mean) / self._deviation
        below = levels[:, None] * ndtr(z) - np.exp(self._mean + 0.5 * self._variance) * ndtr(z - self._deviation)
        return np.asarray(np.maximum(below, 0.0))


class _Cost:
    """An objective of networks that is known."""

    def __init__(self, cost: Array) -> None:
        self._cost = cost

    def room(self, levels: Array) -> Array:
        """(levels, networks): what the objective is below each level."""
        return np.maximum(0.0, levels[:, None] - self._cost)
