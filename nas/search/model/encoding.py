"""Networks as the model sees them: settings of conditional spaces as bits, exact cost, and scores.

A setting that does not apply to a network has a value of its own there. Families share the settings of which most
values are common to them (`kind`, `kernel`), and what can be said of any network: how many blocks it has, which share
of them sees time and where, and with which operator. Nominal and ordinal settings are told apart by their values:
numbers are ordered, words are not.

A score is a function of the study and a network, but may take a second to compute. So it is known of what was trained
and of the few networks that a proposal comes down to; of all others it is guessed, by ridge regression on their
settings over a part of the pool that is scored at the start. Which networks these are does not depend on what was
scored before, so that a search that is started again guesses, and proposes, the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from nas.errors import SearchError
from nas.search.model.gp import Array, Encoding
from nas.study.features import STORED
from search_spaces.domains import Scalar


class CandidateLike(Protocol):
    """What is known of a network before it is trained; the candidates of a pool are such."""

    @property
    def digest(self) -> str:
        """Tells it from all others."""

    @property
    def params(self) -> Mapping[str, Scalar]:
        """Its settings; empty for a named network that no settings of the space give."""

    @property
    def traits(self) -> Mapping[str, Scalar]:
        """What can be said of a network of any family."""

    def quantity(self, name: str) -> int:
        """An exact cost, such as `macs`."""


def key_of(network: CandidateLike) -> tuple[object, ...]:
    """Of a network as the model sees it: it may have several settings."""
    return (network.digest, *network.params.items())


REFERENCE = 128
"""Networks of the pool that are scored at the start."""

LEVELS = 16  # that distances are told in
_RIDGE = 1.0


class ScoreSource(Protocol):
    """Scores of the networks of a study.

    Attributes:
        names: Of the scores.
    """

    names: Sequence[str]

    def of(self, name: str, networks: Sequence[CandidateLike]) -> list[float | None]:
        """One score of some networks; None of a network that has it not."""


class FeatureColumns:
    """Scores of networks as shares of the pool that score less.

    Args:
        scores: Where they come from.
        pool: Networks in the order of their MACs.
        described: (networks, columns) of settings and cost, which guesses are made from.

    Raises:
        SearchError: A score is known of no network of the pool.
    """

    def __init__(
        self, scores: ScoreSource, pool: Sequence[CandidateLike], described: Callable[[Sequence[CandidateLike]], Array]
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

    def guessed(self, networks: Sequence[CandidateLike]) -> Array:
        """(networks, features) from 0 to 1, by what settings and cost say of them."""
        if not networks:
            return np.zeros((0, len(self.names)))
        return np.asarray(np.clip(self._middle + self._columns(networks) @ np.stack(self._weights, axis=1), 0.0, 1.0))

    def known(self, networks: Sequence[CandidateLike]) -> Array:
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

    def _columns(self, networks: Sequence[CandidateLike]) -> Array:
        return self._described(networks)


def thermometer(quantiles: Array) -> NDArray[np.float64]:
    """(networks, features * LEVELS) bits, whose sum over a feature's is its quantile in steps of 1 / LEVELS."""
    steps = (np.arange(LEVELS) + 0.5) / LEVELS
    return np.asarray(quantiles[:, :, None] > steps, dtype=float).reshape(len(quantiles), -1)


_LEVELS = 6  # of a number that is said of any network


class Encoder:
    """How the networks of a study are encoded; the same for all that is said of it.

    Args:
        networks: Of the pool; what none of them has is no value of a setting.
        scores: That networks are told apart by, too.

    Attributes:
        features: The scores of networks, scaled; None without any.
    """

    def __init__(self, networks: Sequence[CandidateLike], scores: ScoreSource | None = None) -> None:
        """Collects settings and values."""
        self._cache: dict[tuple[object, ...], NDArray[np.float64]] = {}
        macs = [network.quantity("macs") for network in networks]
        self._low, self._high = float(np.log(min(macs))), float(np.log(max(macs)))
        rows = [plain_settings(network.params) for network in networks]
        families = {str(row.get("family", "")) for row in rows}
        self._names = _shared(rows)
        several = len(families) > 1 or any(not network.params for network in networks)
        self._traits = several
        all_rows = [self._row(network) for network in networks]
        values: dict[str, set[Scalar]] = {}
        for row in all_rows:
            for name, value in row.items():
                values.setdefault(name, set()).add(value)
        present = {name: sum(name in row for row in all_rows) for name in values}
        self._ordered: dict[str, list[float]] = {}
        self._nominal: dict[str, list[Scalar]] = {}
        self._optional: set[str] = set()
        for name in sorted(values):
            whole = present[name] == len(all_rows)
            if len(values[name]) + (not whole) < 2:
                continue
            if not whole:
                self._optional.add(name)
            if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values[name]):
                numbers = sorted(float(value) for value in values[name])
                if len(numbers) > 12:
                    numbers = sorted(set(np.quantile(numbers, np.linspace(0, 1, _LEVELS), method="nearest").tolist()))
                self._ordered[name] = numbers
            else:
                self._nominal[name] = sorted(values[name], key=str)
        self._settings = [*self._nominal, *self._ordered]
        setting, scale = [], []
        for i, name in enumerate(self._settings):
            if name in self._nominal:
                count = len(self._nominal[name]) + (name in self._optional)
                setting += [i] * count
                scale += [0.5] * count
            else:
                steps = len(self._ordered[name]) - 1
                setting += [i] * steps
                scale += [1.0 / max(1, steps)] * steps
                if name in self._optional:
                    setting.append(i)
                    scale.append(0.5)
        count = len(scores.names) if scores is not None else 0
        places = [len(self._settings) + i for i in range(count) for _ in range(LEVELS)]
        self._num_bits = len(setting)
        self.setting = np.asarray([*setting, *places], dtype=np.int64)
        self.scale = np.asarray([*scale, *[1.0 / LEVELS] * len(places)])
        self.ordinal = np.asarray([*(name in self._ordered for name in self._settings), *[True] * count], dtype=bool)
        self.features = FeatureColumns(scores, networks, self._described) if scores is not None and count else None

    def cost_of(self, macs: Sequence[int]) -> NDArray[np.float64]:
        """Log MACs scaled to 0..1 over the pool."""
        span = self._high - self._low
        return np.asarray((np.log(np.asarray(macs, dtype=float)) - self._low) / (span if span > 0 else 1.0))

    def encode(self, networks: Sequence[CandidateLike], *, scored: bool = True) -> Encoding:
        """Encodes networks, (networks, features).

        Args:
            networks: Any.
            scored: Compute scores that are not known yet; otherwise all are guessed.
        """
        macs = [network.quantity("macs") for network in networks]
        bits, scores = self._settings_of(networks), np.zeros((len(networks), 0))
        if self.features is not None:
            scores = self.features.known(networks) if scored else self.features.guessed(networks)
            bits = np.concatenate([bits, thermometer(scores)], axis=1)
        return Encoding(
            bits=bits,
            setting=self.setting,
            scale=self.scale,
            ordinal=self.ordinal,
            cost=self.cost_of(macs),
            scores=scores,
        )

    def _settings_of(self, networks: Sequence[CandidateLike]) -> NDArray[np.float64]:
        """(networks, bits) of their settings."""
        return np.asarray([self._bits(network) for network in networks]).reshape(len(networks), self._num_bits)

    def _described(self, networks: Sequence[CandidateLike]) -> NDArray[np.float64]:
        """(networks, columns) of settings, log MACs and their square, which scores are guessed from."""
        cost = self.cost_of([network.quantity("macs") for network in networks])
        return np.column_stack([self._settings_of(networks), cost, cost**2])

    def _bits(self, network: CandidateLike) -> NDArray[np.float64]:
        key = key_of(network)
        found = self._cache.get(key)
        if found is None:
            found = self._cache[key] = self._encoded(self._row(network))
        return found

    def _encoded(self, row: Mapping[str, Scalar]) -> NDArray[np.float64]:
        bits: list[float] = []
        for name in self._settings:
            value = row.get(name)
            if name in self._nominal:
                bits += [float(value == one) for one in self._nominal[name]]
            else:
                number = -np.inf if value is None else float(value)
                bits += [float(number >= level) for level in self._ordered[name][1:]]
            if name in self._optional:
                bits.append(float(value is None))
        return np.asarray(bits)

    def _row(self, network: CandidateLike) -> dict[str, Scalar]:
        row = {self._names.get(name, name): value for name, value in plain_settings(network.params).items()}
        return {**row, **network.traits} if self._traits else row


def plain_settings(params: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Settings by domain and place, whatever values were left to choose from; those that are None do not apply."""
    return {name.partition("[")[0]: value for name, value in params.items() if value is not None}


def _shared(rows: Sequence[Mapping[str, Scalar]]) -> dict[str, str]:
    """From a setting of a family to the one that it is for all families: where half of the values are common."""
    values: dict[str, set[Scalar]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, set()).add(value)
    names: dict[str, str] = {}
    common: dict[str, set[Scalar]] = {}
    for name in sorted(values):
        family, dot, setting = name.partition(".")
        if not dot or family not in values.get("family", set()):
            continue
        other = common.setdefault(setting, set(values[name]))
        if 2 * len(other & values[name]) >= min(len(other), len(values[name])):
            names[name] = setting
            other |= values[name]
    return names
