"""Jobs under way: what a driver has given to its executor, and what comes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nas.jobs import JobResult, TrainJob
from nas.objective import run_job
from nas.search.executors import InProcess, LocalPool, WorkerDied

if TYPE_CHECKING:
    from nas.search.ray_pool import RayPool

POLL_SECONDS = 1.0
MAX_TRIES = 10  # that a training is cut short after the same epoch for one reason, before it counts as failed


class Crew:
    """An executor and the jobs that it has.

    Args:
        workers: Processes that train; 0 trains in this one.
        cluster: The machines that train instead, if any.
    """

    def __init__(self, workers: int, cluster: RayPool | None = None) -> None:
        """Starts no process yet."""
        self.executor = cluster if cluster is not None else executor(workers)
        self.workers = cluster.slots if cluster is not None else workers
        self.device = cluster.device if cluster is not None else device()
        self.busy_seconds = 0.0  # with at least one job under way
        self._under_way: dict[Future[JobResult], int] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def free(self) -> bool:
        """Whether another job can be given."""
        return len(self._under_way) < self.executor.slots

    def submit(self, job: int, task: TrainJob, tick: Callable[[], None]) -> None:
        """Gives a job; one that trains in this process is over when this returns.

        Args:
            job: How `collect` will call it.
            task: What to train.
            tick: Called after each epoch of a job in this process.
        """
        if not isinstance(self.executor, InProcess):
            self._under_way[self.executor.submit(run_job, task)] = job
            return
        began = time.perf_counter()
        try:
            self._under_way[self.executor.submit(run_job, task, lambda epoch: tick())] = job
        finally:
            self.busy_seconds += time.perf_counter() - began

    def collect(self) -> list[tuple[int, JobResult | None]]:
        """Waits for a job to end, a moment at most; returns those that did, None where the worker died."""
        began = time.perf_counter()
        done, _ = wait(self._under_way, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        if not isinstance(self.executor, InProcess):
            self.busy_seconds += time.perf_counter() - began
        ended: list[tuple[int, JobResult | None]] = []
        for future in sorted(done, key=lambda future: self._under_way[future]):
            job = self._under_way.pop(future)
            error = future.exception()
            if error is not None and not isinstance(error, WorkerDied):
                raise error
            ended.append((job, None if error is not None else future.result()))
        return ended

    def close(self) -> None:
        """Ends the processes at once; what they were doing goes on later from the checkpoints."""
        self.executor.shutdown(wait=False)


def executor(workers: int) -> InProcess | LocalPool:
    """The executor for a number of worker processes; 0 is this process."""
    if workers == 0:
        return InProcess()
    return LocalPool(workers, num_gpus=torch.cuda.device_count() if torch.cuda.is_available() else 0)


def device() -> str:
    """Where networks are trained on this machine."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def lines_of(folder: Path) -> int:
    """Epochs that a job has written to its `progress.jsonl` so far."""
    try:
        return (folder / "progress.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0
