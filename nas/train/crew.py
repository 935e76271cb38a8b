"""Jobs under way: what a driver has given to its executor, and what comes back; joins a Ray cluster if it is named."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from nas.errors import SearchError
from nas.study.study import Study
from nas.train.executors import InProcess, LocalPool, WorkerLost
from nas.train.jobs import JobResult, TrainJob
from nas.train.machines import Machines, places_of
from nas.train.session import Listener, News
from nas.train.training import run_job
from trainer.device import usual_device

if TYPE_CHECKING:
    from nas.train.ray import RayPool


POLL_SECONDS = 1.0
SILENCE_SECONDS = 1800.0  # without a batch, after which a worker counts as lost: more than any batch or start takes
SLOWER = 20  # how much longer one network's batch may take than the longest so far, where batches take minutes


@dataclass(kw_only=True, slots=True)
class _UnderWay:
    """A job that a process has.

    Attributes:
        job: How `collect` will call it.
        folder: Its own, whose time of modification is the sign of life of whoever trains in it.
        sign: That time, as it was last seen.
        silent: Seconds for which it has stayed; only those count in which the driver looked.
    """

    job: int
    folder: Path
    sign: int = 0
    silent: float = 0.0


class Crew:
    """An executor and the jobs that it has.

    A process that dies is noticed by its executor. One that hangs, for whatever reason, gives no sign of life:
    `run_job` touches the job's folder with every batch. It is replaced, and its job goes on from the checkpoint.

    Args:
        workers: Processes that train; 0 trains in this one.
        cluster: The machines that train instead, if any.
        say: Hears a line where jobs get fewer loader processes than their study asks for, once.
    """

    def __init__(
        self, workers: int, cluster: RayPool | None = None, *, say: Callable[[str], None] = lambda text: None
    ) -> None:
        """Starts no process yet."""
        self.executor = cluster if cluster is not None else executor(workers)
        self.workers = cluster.slots if cluster is not None else workers
        self.device = cluster.device if cluster is not None else usual_device()
        self._say: Callable[[str], None] | None = say
        self.busy_seconds = 0.0  # with at least one job under way
        self._under_way: dict[Future[JobResult], _UnderWay] = {}
        self._longest = 0.0  # seconds without a sign of life after which one came

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
        task = self._shared(task)
        under_way = _UnderWay(job=job, folder=Path(task.folder))
        if not isinstance(self.executor, InProcess):
            self._under_way[self.executor.submit(run_job, task)] = under_way
            return
        began = time.perf_counter()
        try:
            self._under_way[self.executor.submit(run_job, task, lambda epoch: tick())] = under_way
        finally:
            self.busy_seconds += time.perf_counter() - began

    def collect(self) -> list[tuple[int, JobResult]]:
        """Waits for a job to end, a moment at most; returns those that did, also where the worker was lost."""
        began = time.perf_counter()
        done, _ = wait(self._under_way, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        waited = time.perf_counter() - began
        ended: list[tuple[int, JobResult]] = []
        if not isinstance(self.executor, InProcess):
            self.busy_seconds += waited
            # A driver that was stopped for an hour has not listened for an hour.
            ended += self._replaced(self.executor, min(waited, 2 * POLL_SECONDS))
        for future in sorted(done & set(self._under_way), key=lambda future: self._under_way[future].job):
            job = self._under_way.pop(future).job
            error = future.exception()
            if error is not None and not isinstance(error, WorkerLost):
                raise error
            ended.append((job, future.result() if error is None else _lost("worker_died", str(error))))
        return ended

    def _shared(self, task: TrainJob) -> TrainJob:
        """The job with its share of loader processes, on which no result depends.

        Those of all jobs are no more than the cores; beside a training on the only core of a worker they cost more than
        they save, while one on a GPU keeps one.
        """
        wanted, cores = task.data.num_workers, self.executor.cores
        share = min(wanted, cores if cores > 1 else int(self.device == "cuda"))
        if share == wanted:
            return task
        if self._say is not None:
            each = "1 core" if cores == 1 else f"{cores} cores"
            self._say(
                f"data.num_workers is {wanted}, but each of {self.executor.slots} trainings at once has {each}: "
                f"{share} loader process{'' if share == 1 else 'es'} each"
            )
            self._say = None
        return dataclasses.replace(task, data=dataclasses.replace(task.data, num_workers=share))

    def _replaced(self, executor: LocalPool | RayPool, seconds: float) -> list[tuple[int, JobResult]]:
        """Ends the jobs that have given no sign of life for longer than is possible."""
        lost = []
        for future, one in list(self._under_way.items()):
            sign = _sign_of(one.folder)
            if future.done() or sign != one.sign:
                self._longest = max(self._longest, one.silent)
                one.sign, one.silent = sign, 0.0
                continue
            one.silent += seconds
            if one.silent <= max(SILENCE_SECONDS, SLOWER * self._longest):
                continue
            if not executor.abandon(future):  # it waits for a machine to come
                one.silent = 0.0
                continue
            del self._under_way[future]
            detail = f"no batch for {one.silent:.0f} s, though its process had not ended; it was replaced"
            lost.append((one.job, _lost("worker_silent", detail)))
        return lost

    def close(self) -> None:
        """Ends the processes at once; what they were doing goes on later from the checkpoints."""
        self.executor.shutdown(wait=False)


def executor(workers: int) -> InProcess | LocalPool:
    """The executor for a number of worker processes; 0 is this process."""
    if workers == 0:
        return InProcess()
    return LocalPool(workers, num_gpus=torch.cuda.device_count() if torch.cuda.is_available() else 0)


def _lost(reason: str, detail: str) -> JobResult:
    return JobResult(epochs=(), seconds=0.0, reason=reason, detail=detail)


def _sign_of(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


@contextmanager
def joined(machines: Machines | None, database: Path, study: Study, listener: Listener) -> Iterator[RayPool | None]:
    """The cluster's executor; None where no cluster was named.

    Args:
        machines: The cluster, if one was named.
        database: The study's database, of which this process is the driver.
        study: Whose data every node must see.
        listener: Hears of nodes that come and go.

    Raises:
        SearchError: Ray is not installed, there is no such cluster, or a node of it cannot train.
    """
    if machines is None:
        yield None
        return
    try:
        from nas.train.ray import RayPool
    except ImportError as error:
        raise SearchError("--ray needs Ray: pip install 'video-nas[ray]', on every machine") from error
    pool = RayPool(
        machines,
        database,
        places_of(study.data, study.recipe.init),
        precision=study.recipe.precision == "auto",
        say=lambda text: listener(News(kind="machines", text=text)),
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=False)
