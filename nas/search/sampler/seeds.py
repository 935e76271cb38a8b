"""Foreign samplers as functions of a seed: some draw from the process' generators, or seed their own by the clock."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from unittest import mock

import numpy as np


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it, the generators of the process begin at a seed; after it, they go on as if nothing had been drawn."""
    kept, numbers = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(kept)
        np.random.set_state(numbers)


@contextlib.contextmanager
def seeded_anew(usual: int) -> Iterator[None]:
    """Within it, a `numpy.random.RandomState` that is made without a seed has this one."""
    made = np.random.RandomState

    class Seeded(made):  # type: ignore[misc, valid-type]
        def __init__(self, seed: object = None) -> None:
            super().__init__(usual % 2**32 if seed is None else seed)

    with mock.patch.object(np.random, "RandomState", Seeded):
        yield
