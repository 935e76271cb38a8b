"""A package as a hub has it: two samplers, one of which has no seed of its own."""

from __future__ import annotations

import random
from typing import Any

from optuna.samplers import BaseSampler, RandomSampler

__all__ = ["Drawn", "Walk"]


class Drawn(RandomSampler):
    """Draws at random."""

    def __init__(self, seed: int | None = None, share: float = 0.5) -> None:
        super().__init__(seed=seed)
        self.share = share


class Walk(BaseSampler):
    """Draws with the generator of the process."""

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return {}

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        choices = getattr(param_distribution, "choices", None)
        return random.choice(choices) if choices else param_distribution.low
