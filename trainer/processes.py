"""Processes that train one network together, and processes that end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def end_with_parent(number: int = 0) -> None:
    """Ends this process when the one that asked for it has ended, however that came.

    Torch's own watch over loader processes compares the parent's number, which is that of the fork server; and the
    server lives as long as a process of it does.

    Args:
        number: Of a loader process, as torch gives it; it does not matter here.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


Part = tuple[int, int]
WHOLE: Part = (0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Team:
    """A process among those that train one network.

    Attributes:
        rank: Number of this process, from 0; the first one writes the folder.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def part(self) -> Part:
        """What `train_batches` and `eval_batches` are told."""
        return self.rank, self.size

    def total(self, count: int, device: torch.device) -> Tensor:
        """The sum of everyone's count, as a scalar on the device, without waiting for it."""
        result = torch.tensor(float(count), device=device)
        dist.all_reduce(result)
        return result

    def least(self, count: int, device: torch.device) -> int:
        """The least of everyone's count."""
        if self.size == 1:
            return count
        result = torch.tensor(count, device=device)
        dist.all_reduce(result, dist.ReduceOp.MIN)
        return int(result)

    def gathered(self, value: Any) -> list[Any]:
        """Everyone's value, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found


ALONE = Team()


def share_of(batch: tuple[int, ...], part: Part) -> tuple[int, ...]:
    """What one process sees of a batch.

    The parts of all processes are the batch, each clip once. A clip stands in the same part as its mirror image in the
    batch, at its mirror place, so that mixup and cutmix mix the same clips as in one process.

    Args:
        batch: Numbers of the clips, N; at least twice as many as there are processes.
        part: (rank, size).

    Returns:
        Between N / size - 2 and N / size + 2 of them.
    """
    rank, size = part
    if size == 1:
        return batch
    pairs = -(-len(batch) // 2)
    low, high = pairs * rank // size, pairs * (rank + 1) // size
    places = range(low, high)
    mirrored = [len(batch) - 1 - place for place in reversed(places)]
    return tuple(batch[place] for place in dict.fromkeys([*places, *mirrored]))
