"""Optuna's samplers, as a user of Optuna runs them, and this project's proposals, which ask one about a pool."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState

from benchmarks.search.baselines import halve
from benchmarks.search.purse import Purse, Search
from benchmarks.search.tables import Table
from nas.search.ledger import Ledger
from nas.search.pool import Candidate, Pool
from nas.search.sampler import STARTUP, Observation, propose
from search_spaces.space import SearchSpace

INITIAL = 10  # networks of the even start of this project's proposals; Optuna's samplers start with ten random ones
REFUSED = 20  # proposals in a row that are no network; then a random network takes the turn

optuna.logging.set_verbosity(optuna.logging.WARNING)


def asking(make: Callable[[int], BaseSampler]) -> Search:
    """Asks and tells a study of error and log10 MACs, both minimised.

    A proposal that is not in the table is told as failed, and costs nothing. Optuna's TPE learns nothing from that and
    may propose the same for ever, so after `REFUSED` in a row a random network is tried. One that was tried before is
    trained and paid again, as Optuna does unless its user prevents it.
    """

    def search(purse: Purse) -> None:
        table = purse.table
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=make(purse.seed))
        refused, rng = 0, random.Random(f"refused {purse.seed}")
        while True:
            if refused == REFUSED:
                study.enqueue_trial(table.values(rng.randrange(len(table))))
            trial = study.ask()
            network = table.ask(trial.suggest_categorical)
            if network is None:
                study.tell(trial, state=TrialState.FAIL)
                refused += 1
                continue
            refused = 0
            study.tell(trial, (purse.train(network), math.log10(table.macs[network])))

    return search


def tpe(seed: int) -> BaseSampler:
    """Optuna's default, for several objectives as well: each setting by itself, ten random trials first."""
    return TPESampler(seed=seed)


def tpe_multivariate(seed: int) -> BaseSampler:
    """TPE over all settings at once, those of a condition as a group."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(seed=seed, multivariate=True, group=True)


def nsga2(seed: int) -> BaseSampler:
    """NSGA-II with a population that fits a hundred trainings."""
    return NSGAIISampler(population_size=20, seed=seed)


def gp(seed: int) -> BaseSampler:
    """Gaussian processes with log expected hypervolume improvement."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return GPSampler(seed=seed)


@dataclass(frozen=True, slots=True)
class _Point:
    digest: str
    params: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class _Cost:
    macs: int


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


def pool_of(table: Table) -> tuple[SearchSpace, Pool]:
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
    return cast(SearchSpace, space), Pool(candidates=candidates, named=(), dropped={}, whole=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Candidate:
    digest: str
    params: Mapping[str, Any]
    cost: _Cost
    stratum: int
    name: str


def proposals(sampler: str) -> Search:
    """This project's sampler over the whole table as its pool, each network trained in full; nothing is tried twice."""

    def search(purse: Purse) -> None:
        table = purse.table
        space, pool = pool_of(table)
        params = {candidate.digest: candidate.params for candidate in pool.candidates}
        seen, history = list[str](), list[Observation]()
        while True:
            found = propose(
                sampler=sampler, space=space, pool=pool, seen=seen, history=history,
                num_objectives=2, initial=INITIAL, seed=purse.seed,
            )  # fmt: skip
            if found is None:
                return
            digest = found[0].digest
            result = (purse.train(int(digest)) / 100, math.log10(table.macs[int(digest)]))
            seen.append(digest)
            history.append(Observation(params=params[digest], objectives=result))

    return search


def proposals_halved(sampler: str) -> Search:
    """This project's sampler with Pareto ASHA: it learns from the highest rung that has results enough."""

    def search(purse: Purse) -> None:
        space, pool = pool_of(purse.table)
        params = {candidate.digest: candidate.params for candidate in pool.candidates}
        num_rungs = len(purse.table.fidelities)

        def choose(ledger: Ledger, networks: list[int]) -> int | None:
            counts = ledger.counts(num_rungs)
            rung = max((i for i, count in enumerate(counts) if count >= STARTUP), default=0)
            found = propose(
                sampler=sampler, space=space, pool=pool, seen=[str(network) for network in networks],
                history=[
                    Observation(params=params[str(networks[entry.number])], objectives=entry.results[rung])
                    for entry in ledger.members(rung)
                ],
                num_objectives=2, initial=INITIAL, seed=purse.seed,
            )  # fmt: skip
            return None if found is None else int(found[0].digest)

        halve(purse, choose)

    return search
