"""Decoding many videos: in this process, or in several, none of which a bad file can take down for good."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from trainer.data.decode import Decoded, DecodeError, decode_video
from trainer.data.entries import Task
from trainer.data.folders import decode_flow, decode_folder
from trainer.failures import WorkerDied

_SMALL = 32 * 2**20
"""Bytes of video files that are decoded sooner than processes are started."""

Result = Decoded | str
"""The frames of a video, or the reason why there are none."""


class HasPath(Protocol):
    """What is done to one file."""

    @property
    def path(self) -> str:
        """The file."""
        ...


Job = TypeVar("Job", bound=HasPath)
Done = TypeVar("Done")


def decode_task(task: Task) -> Result:
    """Decodes one video, and returns the reason if that fails."""
    try:
        if task.flow:
            return decode_flow(
                task.path, num_frames=task.images, short_side=task.short_side, max_frames=task.max_frames
            )
        if task.images:
            return decode_folder(
                task.path, num_frames=task.images, short_side=task.short_side, max_frames=task.max_frames
            )
        return decode_video(task.path, short_side=task.short_side, max_frames=task.max_frames)
    except DecodeError as error:
        return str(error)


def each(
    tasks: Sequence[Job], function: Callable[[Job], Done | str], *, num_workers: int | None = None
) -> Generator[Done | str, None, None]:
    """Does something to each of many files and yields the results in the order of the files.

    Only a few videos per process are under way at a time, so memory stays bounded however many there are. If
    a video makes the decoder crash, the ones that were under way are tried again, each in a process of its
    own.

    Args:
        tasks: The files.
        function: What is done; importable, since other processes run it. Gives a reason where it fails.
        num_workers: Processes; 0 works in this one, `None` takes as many as there are cores, or none for little data.

    Yields:
        A result or a reason, one a task.

    Raises:
        WorkerDied: A process was killed although it worked alone.
    """
    if num_workers is None:
        num_workers = 0 if _little(tasks) else os.cpu_count() or 1
    if num_workers == 0:
        yield from map(function, tasks)
        return
    waiting = deque(tasks)
    while waiting:
        under_way: deque[tuple[Job, Future[Done | str]]] = deque()
        pool = _pool(num_workers)
        try:
            while waiting or under_way:
                while waiting and len(under_way) < 4 * num_workers:
                    under_way.append((waiting[0], pool.submit(function, waiting[0])))
                    waiting.popleft()
                result = under_way[0][1].result()
                under_way.popleft()
                yield result
        except BrokenProcessPool:
            for task, _ in under_way:
                yield _alone(function, task)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _little(tasks: Sequence[HasPath]) -> bool:
    total = 0
    for task in tasks:
        for size in _sizes(task.path):
            total += size
            if total > _SMALL:
                return False
    return True


def _sizes(path: str) -> Iterator[int]:
    """Bytes of a file, or of each file in a folder of frames."""
    if not Path(path).is_dir():
        yield Path(path).stat().st_size
        return
    with os.scandir(path) as entries:
        for entry in entries:
            yield entry.stat(follow_symlinks=False).st_size


class CrashError(Exception):
    """A process ended by a fault of its own in the midst of a call."""


def alone(function: Callable[..., Done], *args: Any) -> Done:
    """Calls a function in a process of its own, and tells a crash, of which a file is the cause, from a kill.

    Args:
        function: Importable.
        args: What it is called with.

    Raises:
        CrashError: The process crashed.
        WorkerDied: The process was killed, as the system does when memory runs out; what it read may be sound.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_give, args=(theirs, function, args))
    process.start()
    theirs.close()
    try:
        went_well, value = ours.recv()
    except EOFError:
        process.join()
        if process.exitcode in (-signal.SIGKILL, -signal.SIGTERM):
            raise WorkerDied(
                "a process that decodes was killed, as a rule because the machine had no memory left; free some and "
                "give the same command again"
            ) from None
        raise CrashError(f"code {process.exitcode}") from None
    finally:
        ours.close()
        process.join()
    if not went_well:
        raise value
    return cast("Done", value)


def _give(pipe: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        answer = True, function(*args)
    except Exception as error:
        pipe.send((False, error))
    else:
        pipe.send(answer)


def _alone(function: Callable[[Job], Done | str], task: Job) -> Done | str:
    try:
        return alone(function, task)
    except CrashError:
        return "the decoder crashed"


def _pool(num_workers: int) -> ProcessPoolExecutor:
    # Not forked: this process may hold threads (of torch, of a progress bar) that a fork would leave in
    # mid-air.
    return ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn"))
