"""NePS 0.17's PriMO without priors, which nobody has for a space that is new.

That is MOASHA first, then Bayesian optimisation of a sum of the objectives with random weights, all trainings in full.
NePS's rungs are 1, 3, 9, …; each stands for the fidelity of the table with its number. NePS goes on from a checkpoint
where it proposes a configuration at a higher fidelity. Objectives are error over 100 and log10 MACs over 10, for PriMO
adds them unscaled. A configuration that is no network is told as very bad, at no cost.
"""

from __future__ import annotations

import logging
import random
import warnings

warnings.simplefilter("ignore")

import neps  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from exported import Exported, run  # noqa: E402
from neps.optimizers import algorithms  # noqa: E402

logging.disable(logging.WARNING)
ETA = 3
BAD = [1.0, 1.0]


def search(table: Exported, seed: int) -> None:
    """Asks and tells, until the purse is empty."""
    np.random.seed(seed)
    random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    top = ETA**table.top
    space = neps.SearchSpace(
        {
            **{
                name: neps.HPOCategorical([str(value) for value in of])
                for name, of in zip(table.names, table.values, strict=True)
            },
            "epochs": neps.HPOInteger(1, top, is_fidelity=True),
        }
    )
    asked = neps.AskAndTell(algorithms.primo(space, eta=ETA, prior_centers={}))
    text = [{str(value): value for value in of} for of in table.values]
    reached: dict[str, int] = {}
    while True:
        trial = asked.ask()
        config = trial.config
        level = config.get("epochs", top)
        fidelity = min(table.top, max(0, round(np.log(level) / np.log(ETA))))
        network = table.find({name: of[config[name]] for name, of in zip(table.names, text, strict=True)})
        if network is None:
            asked.tell(trial, {"objective_to_minimize": BAD})
            continue
        before = reached.get(trial.metadata.previous_trial_id or "")
        error = table.train(network, fidelity, after=before if before is not None and before < fidelity else None)
        reached[trial.metadata.id] = fidelity
        asked.tell(trial, {"objective_to_minimize": [error / 100, table.log_macs(network) / 10]})


if __name__ == "__main__":
    run("neps_primo", search, description=__doc__)
