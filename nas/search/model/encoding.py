"""Networks of a space, which may be conditional and of several families, as the bits that the kernel compares.

A setting that does not apply to a network has a value of its own there. Families share the settings of which most
values are common to them (`kind`, `kernel`), and what can be said of any network: how many blocks it has, which share
of them sees time and where, and with which operator. Nominal and ordinal settings are told apart by their values:
numbers are ordered, words are not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nas.search.model.features import LEVELS, Features, Scores, thermometer
from nas.search.model.gp import Encoding
from nas.search.model.network import Network, key_of
from search_spaces.domains import Scalar

_LEVELS = 6  # of a number that is said of any network


class Encoder:
    """How the networks of a study are encoded; the same for all that is said of it.

    Args:
        networks: Of the pool; what none of them has is no value of a setting.
        scores: That networks are told apart by, too.

    Attributes:
        features: The scores of networks, scaled; None without any.
    """

    def __init__(self, networks: Sequence[Network], scores: Scores | None = None) -> None:
        """Collects settings and values."""
        self._cache: dict[tuple[object, ...], NDArray[np.float64]] = {}
        macs = [network.quantity("macs") for network in networks]
        self._low, self._high = float(np.log(min(macs))), float(np.log(max(macs)))
        rows = [settings_of(network.params) for network in networks]
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
        self.features = Features(scores, networks, self._described) if scores is not None and count else None

    def cost_of(self, macs: Sequence[int]) -> NDArray[np.float64]:
        """Log MACs scaled to 0..1 over the pool."""
        span = self._high - self._low
        return np.asarray((np.log(np.asarray(macs, dtype=float)) - self._low) / (span if span > 0 else 1.0))

    def encode(self, networks: Sequence[Network], *, scored: bool = True) -> Encoding:
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

    def _settings_of(self, networks: Sequence[Network]) -> NDArray[np.float64]:
        """(networks, bits) of their settings."""
        return np.asarray([self._bits(network) for network in networks]).reshape(len(networks), self._num_bits)

    def _described(self, networks: Sequence[Network]) -> NDArray[np.float64]:
        """(networks, columns) of settings, log MACs and their square, which scores are guessed from."""
        cost = self.cost_of([network.quantity("macs") for network in networks])
        return np.column_stack([self._settings_of(networks), cost, cost**2])

    def _bits(self, network: Network) -> NDArray[np.float64]:
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

    def _row(self, network: Network) -> dict[str, Scalar]:
        row = {self._names.get(name, name): value for name, value in settings_of(network.params).items()}
        return {**row, **network.traits} if self._traits else row


def settings_of(params: Mapping[str, Scalar]) -> dict[str, Scalar]:
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
