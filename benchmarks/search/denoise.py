"""What the error of a network is without the luck of its seeds: its own mean, and what like networks say of it.

With few seeds the front of a table is partly that of lucky trainings, and a search would be scored by whether it found
them. The mean over seeds and a prediction from all other networks err independently, so they are averaged, each by the
inverse of the variance of its error. Both variances are measured on the table itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RIDGES = np.logspace(-4, 2, 25)


def denoised(
    networks: NDArray[np.int16], place: NDArray[np.float64], errors: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """The error of each network, and the weight that its own mean has in it.

    Args:
        networks: (networks, settings) index of each value.
        place: (networks,) log MACs scaled to 0..1.
        errors: (seeds, networks) of full trainings; two seeds at least.
    """
    seeds = len(errors)
    mean = errors.mean(axis=0)
    noise = float(errors.var(axis=0, ddof=1).mean()) / seeds
    predicted = left_out(networks, place, mean)
    wrong = max(0.0, float(np.mean((mean - predicted) ** 2)) - noise)
    weight = wrong / (wrong + noise) if wrong + noise > 0 else 1.0
    return weight * mean + (1 - weight) * predicted, weight


def left_out(
    networks: NDArray[np.int16], place: NDArray[np.float64], values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The value of each network as a kernel ridge on all others predicts it, settings one by one and in pairs.

    The ridge is the one that predicts best; one inverse gives all predictions (Rasmussen & Williams 2006, 5.4.2).
    """
    share = (networks[:, None, :] == networks[None, :, :]).mean(axis=2)
    kernel = share + share**2 + (2 * place[:, None] - 1) * (2 * place[None, :] - 1)
    centred = values - values.mean()
    best: tuple[float, NDArray[np.float64]] | None = None
    for ridge in RIDGES:
        inverse = np.linalg.inv(kernel + ridge * np.eye(len(values)))
        rest = (inverse @ centred) / np.diag(inverse)
        missed = float(np.mean(rest**2))
        if best is None or missed < best[0]:
            best = missed, rest
    assert best is not None
    return values - best[1]
