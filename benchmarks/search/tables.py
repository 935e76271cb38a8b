"""A table of known results as a value: its settings, networks, exact costs, and errors at each fidelity and seed.

A search on a table trains nothing: it asks for the error of a network at a fidelity and seed, and is charged the epochs
that the training would have had. It sees the accuracy of one seed; the networks that it tried are scored by their mean
over all seeds, see `benchmarks/search/gap.py`.

Only numpy is needed here, so that a peer can read a table in an environment of its own.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Value = str | int | float
NONE = -1  # index of a setting that does not apply


class Suggest(Protocol):
    """Picks one of the values of a setting, as `optuna.Trial.suggest_categorical` does."""

    def __call__(self, name: str, choices: Sequence[Any], /) -> Any:
        """One of `choices`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One setting of a space: its name, its values, and whether their order means something (depth, width, kernel)."""

    name: str
    values: tuple[Value, ...]
    ordered: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """Known results of every network of a space.

    Attributes:
        name: Its key in the results.
        title: What it is, in words.
        settings: In the order in which they are chosen: whether one applies follows from those before it.
        networks: (networks, settings) index of each value, `NONE` where the setting does not apply.
        macs: (networks,) exact cost.
        fidelities: Epochs of each rung, ascending; the last is a full training.
        errors: (fidelities, seeds, networks) in percent.
        truth: (networks,) error in percent of a full training without the luck of seeds, which scores.
        reference: Error in percent beyond which a network counts for nothing.
        marks: Epochs spent at which searches are compared.
        unit: What an epoch of this table is, `epoch` or `training`.
        aliases: Further (settings, network) that give a network of the table: another order of equal vertices, say.
        noise: Points of error, one standard deviation, that are added at each fidelity, drawn anew for each run.
        delay: Points of error that the dearest network is behind at each fidelity, the cheapest none, by log MACs.
    """

    name: str
    title: str
    settings: tuple[Setting, ...]
    networks: NDArray[np.int16]
    macs: NDArray[np.int64]
    fidelities: tuple[int, ...]
    errors: NDArray[np.float64]
    truth: NDArray[np.float64]
    reference: float
    marks: tuple[int, ...]
    unit: str = "epoch"
    aliases: tuple[NDArray[np.int16], NDArray[np.int64]] | None = None
    noise: tuple[float, ...] = ()
    delay: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Raises AssertionError where the parts do not fit each other."""
        count = len(self.networks)
        assert self.networks.shape == (count, len(self.settings))
        assert self.macs.shape == self.truth.shape == (count,)
        assert self.errors.shape[::2] == (len(self.fidelities), count)
        assert list(self.fidelities) == sorted(set(self.fidelities))
        assert len(np.unique(self.networks, axis=0)) == count, "two networks have the same settings"

    def __len__(self) -> int:
        return len(self.networks)

    @property
    def top(self) -> int:
        """Index of the fidelity of a full training."""
        return len(self.fidelities) - 1

    @property
    def full(self) -> int:
        """Epochs of a full training."""
        return self.fidelities[-1]

    @property
    def budget(self) -> int:
        """Epochs after which a search ends."""
        return self.marks[-1]

    @cached_property
    def place(self) -> NDArray[np.float64]:
        """(networks,) log MACs, scaled to 0..1 over the table."""
        logs: NDArray[np.float64] = np.log10(self.macs)
        scaled: NDArray[np.float64] = (logs - logs.min()) / float(np.ptp(logs))
        return scaled

    def error(self, network: int, fidelity: int, seed: int) -> float:
        """The error in percent that a search with this seed sees; seeds beyond those of the table start over."""
        error = float(self.errors[fidelity, seed % self.errors.shape[1], network])
        if self.noise:
            error += random.Random(f"{seed} {network} {fidelity}").gauss(0, self.noise[fidelity])
        if self.delay:
            error += self.delay[fidelity] * float(self.place[network])
        return error

    def values(self, network: int) -> dict[str, Value]:
        """The settings of a network that apply, by name."""
        row = self.networks[network]
        return {s.name: s.values[i] for s, i in zip(self.settings, row, strict=True) if i != NONE}

    def find(self, values: Mapping[str, Any]) -> int | None:
        """The network that settings give; values of settings that do not apply are ignored. None if there is none."""
        return self.ask(lambda name, choices: values[name])

    def ask(self, suggest: Suggest) -> int | None:
        """The network that a sampler chooses setting by setting, as a user of Optuna writes an objective.

        Settings that do not apply are not asked for. A setting is always offered with all its values, which is what
        samplers need; a combination that is not in the table (forbidden, broken, too dear) gives None, and would have
        been refused before any training.
        """
        rows: NDArray[np.int64] | None = None
        chosen = np.full(len(self.settings), NONE, dtype=np.int16)
        for k, setting in enumerate(self.settings):
            here = None
            if not self.complete:
                here = self._rows[:, k] if rows is None else self._rows[rows, k]
                if (here == NONE).all():
                    continue
            chosen[k] = setting.values.index(suggest(setting.name, setting.values))
            if here is not None:
                keep = np.flatnonzero((here == chosen[k]) | (here == NONE))
                if not len(keep):
                    return None
                rows = keep if rows is None else rows[keep]
        if self.complete:
            return self._whole[tuple(chosen)]
        assert rows is not None
        return int(self._owners[rows[0]])

    def options(self, chosen: Mapping[str, Any], setting: Setting) -> tuple[Value, ...]:
        """The values of a setting that lead to a network, given those chosen before; () if it does not apply."""
        k = self.settings.index(setting)
        mask = np.ones(len(self._rows), dtype=bool)
        for j, earlier in enumerate(self.settings[:k]):
            if earlier.name in chosen:
                mask &= self._rows[:, j] == earlier.values.index(chosen[earlier.name])
            else:
                mask &= self._rows[:, j] == NONE
        return tuple(setting.values[i] for i in np.unique(self._rows[mask, k]) if i != NONE)

    def neighbours(self, network: int) -> tuple[NDArray[np.int64], ...]:
        """For each setting, the networks that differ from this one in that setting alone.

        Settings that apply to only one of the two networks are passed over: they come with the change, or go.
        """
        found: list[list[NDArray[np.int64]]] = [[] for _ in self.settings]
        for own in self._rows[self._owners == network]:  # an edge to an idle vertex matters once a second one is drawn
            both = (self._rows != NONE) & (own != NONE)
            differ = both & (self._rows != own)
            single = differ.sum(axis=1) == 1
            for k, others in enumerate(found):
                others.append(self._owners[single & differ[:, k]])
        return tuple(np.setdiff1d(np.concatenate(others), [network]) for others in found)

    @cached_property
    def complete(self) -> bool:
        """Whether every combination of values is a network of its own."""
        return len(self) == np.prod([len(s.values) for s in self.settings])

    @cached_property
    def fingerprint(self) -> str:
        """Changes if anything changes that results depend on."""
        digest = hashlib.sha256(repr((self.settings, self.fidelities, self.reference, self.noise, self.delay)).encode())
        for array in (self.networks, self.macs, self.errors, self.truth, *(self.aliases or ())):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    @cached_property
    def _rows(self) -> NDArray[np.int16]:
        return self.networks if self.aliases is None else np.concatenate([self.networks, self.aliases[0]])

    @cached_property
    def _owners(self) -> NDArray[np.int64]:
        own = np.arange(len(self))
        return own if self.aliases is None else np.concatenate([own, self.aliases[1]])

    @cached_property
    def _whole(self) -> dict[tuple[int, ...], int]:
        return {tuple(row): i for i, row in enumerate(self.networks.tolist())}


def export(table: Table, seeds: int) -> dict[str, Any]:
    """What a peer in an environment of its own is told of a table: plain values that JSON holds.

    The errors are those that searches with seeds 0, 1, … see; `Table.error` adds noise that is drawn for each run.
    """
    return {
        "name": table.name,
        "fingerprint": table.fingerprint,
        "settings": [{"name": s.name, "values": s.values, "ordered": s.ordered} for s in table.settings],
        "rows": table._rows.tolist(),
        "owners": table._owners.tolist(),
        "macs": table.macs.tolist(),
        "fidelities": table.fidelities,
        "budget": table.budget,
        "errors": [
            [[round(table.error(i, f, seed), 6) for i in range(len(table))] for f in range(len(table.fidelities))]
            for seed in range(seeds if table.noise else min(seeds, table.errors.shape[1]))
        ],
    }


def write_export(table: Table, seeds: int, path: Any) -> None:
    """Writes `export` as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(export(table, seeds), separators=(",", ":")), encoding="utf-8")
