"""Optuna's samplers, as a user of Optuna runs them."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState

from benchmarks.search.purse import Purse, Search

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
