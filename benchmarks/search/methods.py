"""The methods that are compared, by name.

A method is a function (table, seed, budget in epochs) -> events. One that is not here is added on the command line,
see `--add`. Peers that need packages of their own are run by a script of `benchmarks/search/peers/`, and read from the
cache.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.search import baselines, optunas, ours
from benchmarks.search.purse import Method, method
from benchmarks.search.tables import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One method of the comparison.

    Attributes:
        name: Its key in the results.
        title: In tables.
        run: None where a script of `peers` runs it.
        rungs: It uses lower fidelities, so a table without them says nothing new about it.
        slow: Seconds per proposal: only so many seeds are run; None for all.
        quick: Cheap enough for `--quick`.
    """

    name: str
    title: str
    run: Method | None = None
    rungs: bool = False
    slow: int | None = None
    quick: bool = False

    def suits(self, table: Table) -> bool:
        """Whether the method can show on a table what it does."""
        return not self.rungs or len(table.fidelities) > 1


def _entries(*entries: Entry) -> Mapping[str, Entry]:
    return {entry.name: entry for entry in entries}


METHODS = _entries(
    Entry(name="random", title="random", run=method(baselines.random_search), quick=True),
    Entry(name="random_strata", title="random, even start", run=method(baselines.random_strata), quick=True),
    Entry(name="i_epoch", title="i-Epoch(1)", run=method(baselines.i_epoch), rungs=True, quick=True),
    Entry(name="asha", title="Pareto ASHA, random", run=method(baselines.pareto_asha), rungs=True),
    Entry(name="evolution", title="regularised evolution over fronts", run=method(baselines.evolution), quick=True),
    Entry(name="optuna_tpe", title="Optuna TPE", run=method(optunas.asking(optunas.tpe)), quick=True),
    Entry(
        name="optuna_tpe_multivariate",
        title="Optuna TPE, multivariate, group",
        run=method(optunas.asking(optunas.tpe_multivariate)),
        quick=True,
    ),
    Entry(
        name="optuna_nsga2",
        title="Optuna NSGA-II, population 20",
        run=method(optunas.asking(optunas.nsga2)),
        quick=True,
    ),
    Entry(name="optuna_gp", title="Optuna GPSampler", run=method(optunas.asking(optunas.gp)), slow=5),
    Entry(name="hub_auto", title="OptunaHub AutoSampler"),
    Entry(name="hub_hype", title="OptunaHub HypE, population 20"),
    Entry(name="nni_evolution", title="NNI evolution, by accuracy"),
    Entry(name="nni_evolution_small", title="NNI evolution, population 20"),
    Entry(name="syne_moasha", title="Syne Tune MOASHA", rungs=True),
    Entry(name="neps_primo", title="NePS PriMO, no priors", rungs=True),
    Entry(name="project_tpe", title="video-nas `tpe`", run=method(ours.decided("tpe", "none"))),
    Entry(
        name="project_tpe_asha", title="video-nas `tpe`, `asha`", run=method(ours.decided("tpe", "asha")), rungs=True
    ),
    Entry(name="project_pool", title="video-nas `pool`", run=method(ours.decided("pool", "none")), quick=True),
    Entry(
        name="project_pool_asha", title="video-nas `pool`, `asha`", run=method(ours.decided("pool", "asha")), rungs=True
    ),
    Entry(
        name="project_freeze_thaw",
        title="video-nas `pool`, `freeze_thaw`",
        run=method(ours.decided("pool", "freeze_thaw")),
        rungs=True,
        quick=True,
    ),
)


def added(text: str) -> Entry:
    """A method from outside: `name=module:function`, the function being one of (table, seed, budget).

    Raises:
        ValueError: The text has another form, or there is no such function.
    """
    name, _, place = text.partition("=")
    module, _, attribute = place.partition(":")
    if not (name and module and attribute):
        raise ValueError(f"--add must be name=module:function, but is {text}")
    try:
        run: Method = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--add {text}: {error}") from error
    return Entry(name=name, title=name, run=run)
