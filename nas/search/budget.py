"""How many epochs a whole search takes by its scheduler, and how many networks come to each rung. Pure.

Every scheduler but `freeze_thaw` says beforehand how many networks go on from a rung, whichever they are. With
`search.max_epochs` a search ends early: epochs are then cut to that, and networks to as many as fit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.search.scheduler import Rules, bracket_of, brackets
from nas.study.fidelity import recorded_fidelity

if TYPE_CHECKING:
    from nas.study.study import SearchConfig

Failed = Sequence[Collection[int]]  # by rung, the numbers of the trials that failed on their way to it


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What a search may spend.

    Attributes:
        scheduler: Its name.
        trials: Networks to start in all.
        ends: Epochs that a trial has been trained in all when it reaches each rung.
        eta: Reduction factor.
        max_epochs: Epochs to train in all; 0 is no limit, and with `freeze_thaw` what halving takes.
    """

    scheduler: str = "asha"
    trials: int
    ends: tuple[int, ...]
    eta: int
    max_epochs: int = 0

    @property
    def steps(self) -> tuple[int, ...]:
        """Epochs from the rung below to each rung."""
        return tuple(high - low for low, high in zip((0, *self.ends), self.ends, strict=False))

    @property
    def epochs(self) -> int:
        """Epochs of the whole search if nothing fails; 0 where that is not known."""
        if self.scheduler == "freeze_thaw":
            most = self.trials * self.ends[-1] if self.ends else 0
            one = max(self.ends, default=0)  # less would train nothing to the end, and so begin nothing
            return min(self.max_epochs, most) if self.max_epochs else max(one, replace(self, scheduler="asha").epochs)
        whole = sum(n * step for n, step in zip(self._counts(self.trials, ()), self.steps, strict=True))
        return min(whole, self.max_epochs) if self.max_epochs else whole

    def networks(self, failed: Failed = ()) -> tuple[int, ...] | None:
        """How many networks begin the training to each rung.

        Args:
            failed: By rung, who failed on the way there so far; those do not go on.

        Returns:
            None with `freeze_thaw`, where a model decides.
        """
        if self.scheduler == "freeze_thaw":
            return None
        counts = self._counts(self.trials, failed)
        if not self.max_epochs or self._taken(counts, failed) <= self.max_epochs:
            return counts
        if self.scheduler == "iepoch":  # all are begun before one goes on
            left, fitting = self.max_epochs, list[int]()
            for count, step in zip(counts, self.steps, strict=True):
                fitting.append(min(count, left // step))
                left = left - fitting[-1] * step if fitting[-1] == count else 0
            return tuple(fitting)
        low, high = 0, self.trials  # low fits, and high does not
        while high - low > 1:
            middle = (low + high) // 2
            fits = self._taken(self._counts(middle, failed), failed) <= self.max_epochs
            low, high = (middle, high) if fits else (low, middle)
        return self._counts(low, failed)

    def _taken(self, counts: Sequence[int], failed: Failed) -> int:
        lost = [len(numbers) for numbers in failed] + [0] * len(counts)
        rows = zip(counts, lost, self.steps, strict=False)
        return sum(max(0, count - without) * step for count, without, step in rows)

    def _counts(self, trials: int, failed: Failed) -> tuple[int, ...]:
        """As `networks`, for a number of trials and without a limit of epochs."""
        last = len(self.ends) - 1
        totals = [0] * len(self.ends)
        if last < 0:
            return ()
        turns, begin = self._brackets(), 0
        whole, rest = divmod(trials, sum(turns))
        for bracket, turn in enumerate(turns):
            count = whole * turn + min(max(0, rest - begin), turn)
            begin += turn
            for rung in range(last + 1):
                totals[rung] += count
                lost = np.asarray(list(failed[rung]) if rung < len(failed) else [], dtype=np.int64)
                count = max(0, count - int((bracket_of(lost, turns) == bracket).sum()))
                count = count // self.eta if self._compared(bracket, rung) else count
        return tuple(totals)

    def _brackets(self) -> tuple[int, ...]:
        """How many networks in turn are of each bracket; the schedulers without any have one."""
        if self.scheduler == "hyperband":
            return brackets(Rules(num_rungs=len(self.ends), eta=self.eta, num_trials=self.trials))
        return (1,)

    def _compared(self, bracket: int, rung: int) -> bool:
        """Whether only the best of a bracket go on from a rung."""
        if self.scheduler in ("none", "iepoch"):
            return self.scheduler == "iepoch" and rung == 0
        return rung >= bracket


def budget_of(search: SearchConfig) -> Budget:
    """That of a study's settings."""
    return Budget(
        scheduler=search.scheduler,
        trials=search.trials,
        ends=search.rungs,
        eta=search.eta,
        max_epochs=search.max_epochs,
    )


def recorded_budget(study: Mapping[str, Any]) -> Budget:
    """That of a study as it was recorded; earlier versions knew halving alone.

    Args:
        study: Row of the study.
    """
    search = study["config"].get("search", {})
    return Budget(
        scheduler=search.get("scheduler", "asha"),
        trials=search.get("trials", 0),
        ends=recorded_fidelity(study).ends,
        eta=search.get("eta", 2),
        max_epochs=search.get("max_epochs", 0),
    )
