"""Batches made by loader processes, or in this one."""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trainer.data.layouts import DataError
from trainer.failures import WorkerDied
from trainer.processes import end_with_parent


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One batch as it comes from a loader process.

    Attributes:
        pixels: (N, T, H, W, C), uint8.
        samples: (N,) numbers of the samples.
        videos: (N,) numbers of the videos that the clips are really of.
        problems: Path and reason of each video that could not be read, once a clip.
    """

    pixels: Tensor
    samples: Tensor
    videos: Tensor
    problems: list[tuple[str, str]]

    def pin_memory(self) -> Batch:
        """What torch's loader asks for, so that the copy to a GPU need not wait."""
        return replace(self, pixels=self.pixels.pin_memory())


class BatchPlan(Protocol):
    """Batches by their number; a value that is sent to loader processes."""

    def __len__(self) -> int:
        """Number of batches."""
        ...

    def __getitem__(self, number: int) -> Batch:
        """Makes a batch."""
        ...


@dataclass(frozen=True, slots=True)
class _Told:
    """Gives the error of a plan in place of a batch: what a loader process raises has a traceback as its text."""

    plan: BatchPlan

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, number: int) -> Batch | DataError:
        try:
            return self.plan[number]
        except DataError as error:
            return error


def load(
    plan: BatchPlan, num_workers: int, device: torch.device, *, place: str, preload: Sequence[str]
) -> Iterator[Batch]:
    """Yields the items of `plan`, in their order: the pixels on `device`, the numbers on the CPU.

    Args:
        plan: Makes the batches.
        num_workers: Loader processes; 0 makes the batches in this one.
        device: Where the pixels are wanted.
        place: Where the data is, for messages.
        preload: Modules that loader processes need.

    Raises:
        DataError: As in the plan.
        WorkerDied: A loader process was killed, as a rule because the machine had no memory left, or crashed.
    """
    if num_workers == 0:
        for number in range(len(plan)):
            batch = plan[number]
            yield replace(batch, pixels=to(batch.pixels, device))
        return
    context = multiprocessing.get_context("forkserver")
    # The server imports torch once; every epoch then gets its processes by a cheap fork of it.
    context.set_forkserver_preload(list(preload))
    with warnings.catch_warnings():
        # That there are more processes than cores is said once, by the caller, who knows what else runs here.
        warnings.filterwarnings("ignore", "This DataLoader will create")
        loader: DataLoader[Batch | DataError] = DataLoader(
            cast("Dataset[Batch | DataError]", _Told(plan)),
            batch_size=None,
            num_workers=num_workers,
            multiprocessing_context=context,
            pin_memory=device.type == "cuda",
            collate_fn=_as_it_is,
            # Otherwise the loader would take a number from the global generator, and the run would depend on
            # its use.
            generator=torch.Generator(),
            worker_init_fn=end_with_parent,
        )
    try:
        for batch in loader:
            if isinstance(batch, DataError):
                raise batch
            yield replace(batch, pixels=batch.pixels.to(device, non_blocking=True))
    except (RuntimeError, EOFError, OSError) as error:
        # A decoder that crashes takes its process along, and what of a batch was still to be fetched from that.
        said = str(error)
        fetched = isinstance(error, EOFError | ConnectionError | FileNotFoundError) and "Caught" not in said
        if not fetched and not (isinstance(error, RuntimeError) and "DataLoader worker" in said):
            raise
        line = said.splitlines()[0] if said else "its connection broke"
        raise WorkerDied(f"loader processes must live, but one ended while it read {place}: {line}") from error


def _as_it_is(batch: Any) -> Any:
    return batch


def to(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; copied there while the computation goes on."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
