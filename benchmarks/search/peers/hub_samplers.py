"""Samplers of OptunaHub as their users run them: error and log10 MACs, both minimised, every setting a category.

`auto_sampler` is what the hub recommends where nothing is known (`hub_auto`); `hype` is evolution by hypervolume with a
population of 20 (`hub_hype`). They are fetched from the hub, or loaded from a copy of its registry (`--registry`). A
configuration that is no network is told as failed, at no cost; after `REFUSED` in a row a random network is tried.
"""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Callable
from typing import Any

warnings.simplefilter("ignore")

import optuna  # noqa: E402
import optunahub  # noqa: E402
from exported import NONE, Exported, run  # noqa: E402

SAMPLERS: dict[str, tuple[str, Callable[[Any, int], Any]]] = {
    "hub_auto": ("samplers/auto_sampler", lambda of, seed: of.AutoSampler(seed=seed)),
    "hub_hype": ("samplers/hype", lambda of, seed: of.HypESampler(population_size=20, seed=seed)),
}
REFUSED = 20

optuna.logging.set_verbosity(optuna.logging.ERROR)


def searcher(make: Callable[[int], Any]) -> Callable[[Exported, int], None]:
    """A search by a sampler of a seed."""

    def search(table: Exported, seed: int) -> None:
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=make(seed))
        refused, rng = 0, random.Random(f"refused {seed}")
        while True:
            if refused == REFUSED:
                row = rng.choice(table.rows)
                study.enqueue_trial(
                    {
                        name: of[0 if i == NONE else i]
                        for name, of, i in zip(table.names, table.values, row, strict=True)
                    }
                )
            trial = study.ask()
            config = {
                name: trial.suggest_categorical(name, of) for name, of in zip(table.names, table.values, strict=True)
            }
            network = table.find(config)
            if network is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                refused += 1
                continue
            refused = 0
            study.tell(trial, (table.train(network), table.log_macs(network)))

    return search


if __name__ == "__main__":
    registry = None
    if "--registry" in sys.argv:
        at = sys.argv.index("--registry")
        registry = sys.argv[at + 1]
        del sys.argv[at : at + 2]
    for name, (package, make) in SAMPLERS.items():
        module = (
            optunahub.load_module(package)
            if registry is None
            else optunahub.load_local_module(package, registry_root=registry)
        )
        run(name, searcher(lambda seed, make=make, module=module: make(module, seed)), description=__doc__)
