"""Syne Tune 0.16's MOASHA with its defaults (reduction factor 3, one bracket), one worker that never waits.

MOASHA stops what does badly and never resumes, and draws configurations at random. The rungs are the fidelities of the
table; where these are no powers of the factor from the first, a report is given at each fidelity, which MOASHA compares
at the rungs that it has. Objectives are error and log10 MACs. A configuration that is no network costs nothing.
"""

from __future__ import annotations

import random
import warnings

warnings.simplefilter("ignore")

import datetime  # noqa: E402

import numpy as np  # noqa: E402
from exported import Exported, run  # noqa: E402
from syne_tune.backend.trial_status import Trial  # noqa: E402
from syne_tune.config_space import choice  # noqa: E402
from syne_tune.optimizer.scheduler import SchedulerDecision  # noqa: E402
from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA  # noqa: E402

NOW = datetime.datetime(2026, 1, 1)


def search(table: Exported, seed: int) -> None:
    """Suggests, trains to the next rung and reports, until the purse is empty."""
    np.random.seed(seed)
    random.seed(seed)
    space = {name: choice(of) for name, of in zip(table.names, table.values, strict=True)}
    scheduler = MOASHA(
        config_space=space,
        metrics=["error", "log_macs"],
        time_attr="epoch",
        max_t=table.fidelities[-1],
        grace_period=table.fidelities[0],
        reduction_factor=3 if len(table.fidelities) > 2 else table.fidelities[-1] / table.fidelities[0],
        random_seed=seed,
    )
    number = 0
    while True:
        config = scheduler.suggest().config
        network = table.find(config)
        if network is None:
            continue
        trial = Trial(trial_id=number, config=config, creation_time=NOW)
        number += 1
        scheduler.on_trial_add(trial)
        for fidelity, epoch in enumerate(table.fidelities):
            error = table.train(network, fidelity, after=fidelity - 1 if fidelity else None)
            result = {"error": error, "log_macs": table.log_macs(network), "epoch": epoch}
            if scheduler.on_trial_result(trial, result) == SchedulerDecision.STOP:
                break
        scheduler.on_trial_remove(trial)


if __name__ == "__main__":
    run("syne_moasha", search, description=__doc__)
