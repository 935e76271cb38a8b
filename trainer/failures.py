"""What can go wrong with a training run: one exception each, with a slug and a one-line message."""

from __future__ import annotations

import errno
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from trainer.config import CheckpointError
from trainer.data.layouts import DataError, DataGoneError

# Torch raises a plain RuntimeError where memory runs out outside of CUDA's caching allocator.
_MEMORY_SIGNS = ("DefaultCPUAllocator", "not enough memory", "STATUS_ALLOC_FAILED", "bad_alloc")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What libraries say that pass on no number: SQLite, safetensors, HDF5 and whoever asks strerror.
_FULL_SIGNS = ("database or disk is full", "no space left on device", "disk quota exceeded", "file too large")
# Torch's writer says no more than that what it wrote is shorter than it was; its reader is named in what it says.
_WRITER_SIGNS = ("inline_container", "PytorchStreamWriter", "iostream error")
_LITTLE = 2**30
"""Bytes of free space below which a write that broke off counts as one that found no room."""


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


class EnvironmentFailed(TrainingFailed):
    """What a run needs around it failed: disk, data, process. It says nothing of the network.

    The run goes on from its last checkpoint once that is put right.
    """

    reason = "environment"


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


class BrokenClip(EnvironmentFailed):
    """Videos that were readable when the run began can no longer be read, or more than are allowed never could."""

    reason = "broken_clip"


class DataAway(EnvironmentFailed):
    """The folder of the data, or of its cache, is not where it was."""

    reason = "data_away"


class DiskFull(EnvironmentFailed):
    """There is no room for the next line of progress or the next checkpoint; the previous one stays."""

    reason = "disk_full"


class DiskFailed(EnvironmentFailed):
    """A file that a run needs cannot be read or written, for another reason than want of room."""

    reason = "disk_failed"


class WorkerDied(EnvironmentFailed):
    """A process that the run needs was killed or crashed: one that loads clips, or one of a team."""

    reason = "worker_died"


class FolderBusy(EnvironmentFailed):
    """Another process trains in the folder."""

    reason = "folder_busy"


def environment_failure(error: BaseException) -> EnvironmentFailed | None:
    """The failure of the environment that an error is, or comes of; None if the network or the user may be at fault.

    The one place that knows: searches, ablations, promotions, packing, reports and the command line ask here.

    Args:
        error: As it was caught, with its causes, and the errors that it came up in the handling of.

    Returns:
        The failure, whose message is one line; the error itself if it is one.
    """
    if isinstance(error, TrainingFailed):
        return error if isinstance(error, EnvironmentFailed) else None
    chain = list(_chain(error))
    for one in chain:
        if isinstance(one, EnvironmentFailed):
            return one
        if _is_full(one):
            return DiskFull(f"no space left on the disk: {_named_file(chain)}")
    for one in chain:
        if isinstance(one, DataGoneError):
            return DataAway(_one_line(one))
        if isinstance(one, CheckpointError):  # where a folder is of one run alone, a file of another was put there
            return DiskFailed(_one_line(one))
    while error.__cause__ is not None and not isinstance(error, OSError):  # of those that were handled, none counts
        error = error.__cause__
    if isinstance(error, ConnectionError):  # pipes and sockets of a run lead to its own processes
        return WorkerDied(f"a process of the training is gone: {_one_line(error)}")
    if isinstance(error, OSError) and error.errno is not None:
        return DiskFailed(_named_file([error]))
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            todo += [one.__context__, one.__cause__]


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    if getattr(error, "sqlite_errorname", "") in ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"):
        return True
    text = str(error).lower()
    return any(sign in text for sign in _FULL_SIGNS)


def _named_file(chain: list[BaseException]) -> str:
    """What an error of the disk says, with the file where one is named."""
    first = next((one for one in chain if isinstance(one, OSError)), chain[0])
    text = (first.strerror or _one_line(first)) if isinstance(first, OSError) else _one_line(first)
    name = first.filename if isinstance(first, OSError) else None
    return f"{name}: {text}" if name else text


@contextmanager
def named(place: str) -> Iterator[None]:
    """Turns the errors of libraries in its block into failures of ours that say where they happened.

    Args:
        place: Where the block stands, such as `epoch 3`.

    Raises:
        OutOfMemory: Torch or Python ran out of memory.
        BrokenClip: The data layer could not read a clip.
        DataAway: The data is not where it was.
    """
    try:
        yield
    except DataGoneError as error:
        raise DataAway(f"{_one_line(error)} (in {place})") from error
    except DataError as error:
        raise BrokenClip(f"{_one_line(error)} (in {place})") from error
    except (MemoryError, RuntimeError) as error:
        torch = sys.modules.get("torch")  # commands that do without it ask this module too
        known = (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
        if isinstance(error, known) or any(sign in str(error) for sign in _MEMORY_SIGNS):
            raise OutOfMemory(f"out of memory in {place}: {_one_line(error)}") from error
        raise


@contextmanager
def disk_space(path: str | Path) -> Iterator[None]:
    """Turns a full disk (or quota) in its block into DiskFull, whatever the library that wrote says.

    Args:
        path: What the block writes.

    Raises:
        DiskFull: The disk or the quota is full.
    """
    try:
        yield
    except TrainingFailed:
        raise
    except Exception as error:
        full = isinstance(environment_failure(error), DiskFull)
        if not full and any(sign in str(one) for one in _chain(error) for sign in _WRITER_SIGNS):
            full = _free(Path(path)) < _LITTLE
        if full:
            raise DiskFull(f"no space left to write {path}; what was there before is intact") from error
        raise


def _free(path: Path) -> int:
    """Bytes that are free where a file lies."""
    for folder in path.absolute().parents:
        try:
            return shutil.disk_usage(folder).free
        except OSError:  # it is made by who writes
            continue
    return 0


def _one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # A loader process hands its traceback on as the message; what the error itself says comes last.
    return lines[-1] if lines[0].startswith("Caught ") else lines[0]
