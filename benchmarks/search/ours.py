"""This project's searches: the decisions of a real search, on a table as its space and pool."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from benchmarks.search.decisions import decide_on_table
from benchmarks.search.purse import Purse, Search
from benchmarks.search.tables import Table
from nas.search.decide import Decider
from nas.search.pool import Candidate, CandidatePool, Supply
from nas.study.fidelity import Fidelity
from nas.study.samplers import sampler_of
from nas.study.study import SearchConfig
from search_spaces.space import SearchSpace

INITIAL = 10  # networks of the even start
VIDEOS = 10_000  # that errors of these tables were measured on


@dataclass(frozen=True, slots=True)
class _Point:
    digest: str
    params: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class _Cost:
    macs: int

    @property
    def train_macs(self) -> int:
        return self.macs


class _Space:
    """As much of a `SearchSpace` as proposals need: the settings of a table, with what is not in it never offered."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._known: dict[tuple[tuple[str, Any], ...], tuple[Any, ...]] = {}

    def sample(self, trial: Any) -> _Point:
        chosen: dict[str, Any] = {}
        params: dict[str, Any] = {}
        for setting in self.table.settings:
            choices = self._choices(chosen, setting)
            if len(choices) == 1:
                chosen[setting.name] = choices[0]
            elif choices:
                name = self._label(setting, choices)
                chosen[setting.name] = params[name] = trial.suggest_categorical(name, choices)
        network = self.table.find(_Filled(chosen))
        assert network is not None
        return _Point(str(network), tuple(params.items()))

    def point(self, params: Mapping[str, Any]) -> _Point:
        return _Point("", tuple(params.items()))

    def choices_of(self, point: _Point) -> dict[str, tuple[Any, ...]]:
        bare = {name.partition("[")[0]: (name, value) for name, value in point.params}
        found, chosen = dict[str, tuple[Any, ...]](), dict[str, Any]()
        for setting in self.table.settings:
            choices = self._choices(chosen, setting)
            if len(choices) == 1:
                chosen[setting.name] = choices[0]
            elif choices:
                name, value = bare[setting.name]
                found[name], chosen[setting.name] = choices, value
        return found

    def params_of(self, network: int) -> dict[str, Any]:
        """The settings that give a network, those without a choice left out, as `Candidate.params` has them."""
        own, chosen, params = self.table.values(network), dict[str, Any](), dict[str, Any]()
        for setting in self.table.settings:
            choices = self._choices(chosen, setting)
            if not choices:
                continue
            chosen[setting.name] = own.get(setting.name, choices[0])
            if len(choices) > 1:
                params[self._label(setting, choices)] = chosen[setting.name]
        return params

    def _label(self, setting: Any, choices: tuple[Any, ...]) -> str:
        whole = len(choices) == len(setting.values)
        return setting.name if whole else f"{setting.name}[{'|'.join(map(str, choices))}]"

    def _choices(self, chosen: dict[str, Any], setting: Any) -> tuple[Any, ...]:
        if self.table.complete:
            return cast(tuple[Any, ...], setting.values)
        key = (("", setting.name), *chosen.items())
        if key not in self._known:
            self._known[key] = self.table.options(chosen, setting)
        return self._known[key]


class _Filled(dict[str, Any]):
    """Settings of which those that do not apply are never asked for."""


def pool_of(table: Table) -> tuple[SearchSpace, CandidatePool]:
    """A table as the space and pool that this project's sampler takes."""
    space = _Space(table)
    order = sorted(range(len(table)), key=lambda i: (table.macs[i], i))
    candidates = tuple(
        cast(
            Candidate,
            _Candidate(digest=str(i), params=space.params_of(i), cost=_Cost(int(table.macs[i])), stratum=0, name=""),
        )
        for i in order
    )
    return cast(SearchSpace, space), CandidatePool(candidates=candidates, named=(), dropped={}, whole=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Candidate:
    digest: str
    params: Mapping[str, Any]
    cost: _Cost
    stratum: int
    name: str

    @property
    def traits(self) -> Mapping[str, Any]:
        return {}

    def quantity(self, name: str) -> int:
        return self.cost.macs


class _Supply:
    """As much of a `Supply` as decisions need."""

    def __init__(self, table: Table, pool: CandidatePool) -> None:
        self.pool, self.candidates, self.whole = pool, pool.candidates, True
        self._table, self._near = table, dict[str, list[Candidate]]()

    def of(self, digest: str, params: Mapping[str, Any]) -> Candidate:
        return self.pool.by_digest[digest]

    def near(self, network: Candidate) -> Sequence[Candidate]:
        digest = network.digest
        if digest not in self._near:
            found = [int(i) for group in self._table.neighbours(int(digest)) for i in group]
            self._near[digest] = [self.pool.by_digest[str(i)] for i in dict.fromkeys(found)]
        return self._near[digest]

    def drawn(self, count: int, rng: random.Random) -> Sequence[Candidate]:
        return rng.sample(self.candidates, min(count, len(self.candidates)))


_PLAIN = {
    "logs": (),
    "accuracy": "auto",
    "step_cost": "epochs",
    "patience": 0,
    "features": (),
    "repeats": 0,
    "floors": (),
}


def decided(sampler: str, scheduler: str, *, decider: Callable[..., Decider] = Decider, **changed: Any) -> Search:
    """This project's search with a sampler and a scheduler; with `none`, every network is trained in full.

    Args:
        sampler: By name.
        scheduler: By name.
        decider: Makes what decides, from what a `Decider` takes.
        changed: Other settings of `search`.
    """

    def search(purse: Purse) -> None:
        table = purse.table
        space, pool = pool_of(table)
        ends = table.fidelities if scheduler != "none" else (table.full,)
        config = SearchConfig(
            sampler=sampler_of(sampler), trials=len(table), initial=INITIAL,
            fidelity=Fidelity(values=tuple(map(float, ends))),
            eta=3, order="hypervolume", strata=1, objectives=("error", "macs"), pool=len(table), start_with=(),
            workers=1, scheduler=scheduler, max_epochs=purse.budget,
            **{**_PLAIN, **changed},
        )  # fmt: skip

        def train(candidate: Candidate, rung: int) -> tuple[float, int]:
            network = int(candidate.digest)
            if scheduler == "none":
                return purse.train(network) / 100, VIDEOS
            return purse.train(network, rung, after=rung - 1 if rung else None) / 100, VIDEOS

        supply = cast(Supply, _Supply(table, pool))
        decide_on_table(decider(config, space, supply, purse.seed), num_rungs=len(ends), costs=("macs",), train=train)

    return search
