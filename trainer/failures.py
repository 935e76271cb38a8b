"""What can go wrong with a training run: one exception each, with a slug and a one-line message."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch

from trainer.data.layouts import DataError

# Torch raises a plain RuntimeError where memory runs out outside of CUDA's caching allocator.
# A loader process that is killed was, as a rule, the largest one when the machine ran out.
_MEMORY_SIGNS = (
    "DefaultCPUAllocator",
    "not enough memory",
    "STATUS_ALLOC_FAILED",
    "bad_alloc",
    "is killed by signal: Killed",
)


class Stopped(Exception):  # noqa: N818 - a request that was met, not an error
    """The caller asked to stop; the folder's last checkpoint is the state.

    Attributes:
        epoch: Last epoch that is in the checkpoint; 0 if none is.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__(f"stopped; epoch {epoch} is the last one that is kept")
        self.epoch = epoch


class TrainingFailed(Exception):  # noqa: N818 - reads as what happened
    """A run cannot go on; what it had stored before is intact.

    Attributes:
        reason: Slug of the failure, for records.
    """

    reason: ClassVar[str] = "failed"


class NonFiniteLoss(TrainingFailed):
    """The loss became infinite or not a number.

    Attributes:
        epoch: Epoch of the first bad loss, from 1.
        step: Its step within the epoch, from 1; 0 if the evaluation after the epoch found it.
        value: The loss.
    """

    reason = "non_finite_loss"

    def __init__(self, *, epoch: int, step: int, value: float) -> None:
        place = f"step {step} of epoch {epoch}" if step else f"the evaluation after epoch {epoch}"
        super().__init__(f"loss must be finite, but is {value} at {place}")
        self.epoch, self.step, self.value = epoch, step, value


class OutOfMemory(TrainingFailed):
    """The device or the machine has no memory left for the network and its batch."""

    reason = "out_of_memory"


class BrokenClip(TrainingFailed):
    """A video that was readable when the run began can no longer be read."""

    reason = "broken_clip"


class DiskFull(TrainingFailed):
    """There is no room for the next line of progress or the next checkpoint; the previous one stays."""

    reason = "disk_full"


class FolderBusy(TrainingFailed):
    """Another process trains in the folder."""

    reason = "folder_busy"


@contextmanager
def named(place: str) -> Iterator[None]:
    """Turns the errors of libraries in its block into failures of ours that say where they happened.

    Args:
        place: Where the block stands, such as `epoch 3`.

    Raises:
        OutOfMemory: Torch or Python ran out of memory.
        BrokenClip: The data layer could not read a clip.
    """
    try:
        yield
    except DataError as error:
        raise BrokenClip(f"{_one_line(error)} (in {place})") from error
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(f"out of memory in {place}: {_one_line(error)}") from error
    except RuntimeError as error:
        if any(sign in str(error) for sign in _MEMORY_SIGNS):
            raise OutOfMemory(f"out of memory in {place}: {_one_line(error)}") from error
        raise


@contextmanager
def disk_space(path: object) -> Iterator[None]:
    """Turns a full disk (or quota) in its block into DiskFull.

    Args:
        path: What the block writes, for the message.

    Raises:
        DiskFull: The disk or the quota is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space left to write {path}; the previous checkpoint is intact") from error
        raise


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # A loader process hands its traceback on as the message; what the error itself says comes last.
    return lines[-1] if lines[0].startswith("Caught ") else lines[0]
