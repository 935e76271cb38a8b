"""Scores of networks as dimensions of the model, each scaled to its quantile in the pool.

A score is a function of the study and a network, but may take a second to compute. So it is known of what was trained
and of the few networks that a proposal comes down to; of all others it is guessed, by ridge regression on their
settings over a part of the pool that is scored at the start. Which networks these are does not depend on what was
scored before, so that a search that is started again guesses, and proposes, the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nas.errors import SearchError
from nas.scores import STORED
from nas.search.model.gp import Array
from nas.search.model.network import Network, key_of

REFERENCE = 128
"""Networks of the pool that are scored at the start."""

LEVELS = 16  # that distances are told in
_RIDGE = 1.0


class Scores(Protocol):
    """Scores of the networks of a study.

    Attributes:
        names: Of the scores.
    """

    names: Sequence[str]

    def of(self, name: str, networks: Sequence[Network]) -> list[float | None]:
        """One score of some networks; None of a network that has it not."""


class Features:
    """Scores of networks as shares of the pool that score less.

    Args:
        scores: Where they come from.
        pool: Networks in the order of their MACs.
        described: (networks, columns) of settings and cost, which guesses are made from.

    Raises:
        SearchError: A score is known of no network of the pool.
    """

    def __init__(
        self, scores: Scores, pool: Sequence[Network], described: Callable[[Sequence[Network]], Array]
    ) -> None:
        """Scores a part of the pool."""
        self.names = tuple(scores.names)
        self._scores, self._described = scores, described
        self._sorted: list[Array] = []
        self._middle, self._weights = np.zeros(len(self.names)), list[Array]()
        self._known: dict[tuple[object, ...], Array] = {}
        part = pool if len(pool) <= REFERENCE else [pool[i * len(pool) // REFERENCE] for i in range(REFERENCE)]
        for place, name in enumerate(self.names):
            asked = pool if name in STORED else part  # to look one up costs nothing
            found = [
                (one, value) for one, value in zip(asked, scores.of(name, asked), strict=True) if value is not None
            ]
            if not found:
                raise SearchError(f"search.features {name}: no network of the pool has this score")
            self._sorted.append(np.sort([value for _, value in found]))
            columns = self._columns([one for one, _ in found])
            quantiles = self._quantiles(place, [value for _, value in found])
            self._middle[place] = quantiles.mean()
            inner = columns.T @ columns + _RIDGE * np.eye(columns.shape[1])
            self._weights.append(np.linalg.solve(inner, columns.T @ (quantiles - quantiles.mean())))

    def guessed(self, networks: Sequence[Network]) -> Array:
        """(networks, features) from 0 to 1, by what settings and cost say of them."""
        if not networks:
            return np.zeros((0, len(self.names)))
        return np.asarray(np.clip(self._middle + self._columns(networks) @ np.stack(self._weights, axis=1), 0.0, 1.0))

    def known(self, networks: Sequence[Network]) -> Array:
        """(networks, features) from 0 to 1, as scored; guessed where a network has no score."""
        new = [one for one in networks if key_of(one) not in self._known]
        if new:
            rows = self.guessed(new)
            for place, name in enumerate(self.names):
                for row, value in enumerate(self._scores.of(name, new)):
                    if value is not None:
                        rows[row, place] = self._quantiles(place, [value])[0]
            self._known |= {key_of(one): row for one, row in zip(new, rows, strict=True)}
        return np.asarray([self._known[key_of(one)] for one in networks]).reshape(len(networks), len(self.names))

    def _quantiles(self, place: int, values: Sequence[float]) -> Array:
        known = self._sorted[place]
        sides = [np.searchsorted(known, values, side=side) for side in ("left", "right")]
        return np.asarray(sum(sides) / (2.0 * len(known)))

    def _columns(self, networks: Sequence[Network]) -> Array:
        return self._described(networks)


def thermometer(quantiles: Array) -> NDArray[np.float64]:
    """(networks, features * LEVELS) bits, whose sum over a feature's is its quantile in steps of 1 / LEVELS."""
    steps = (np.arange(LEVELS) + 0.5) / LEVELS
    return np.asarray(quantiles[:, :, None] > steps, dtype=float).reshape(len(quantiles), -1)
