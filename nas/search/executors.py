"""Where jobs are trained: in the driver itself, or in a pool of processes on this machine.

Both have the shape of `concurrent.futures.Executor`; the driver keeps no more than `slots` jobs under way.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from trainer.lifetime import end_with_parent

T = TypeVar("T")


class WorkerDied(Exception):  # noqa: N818 - it is an event to be recorded, not a fault of ours
    """The process that trained a job is gone; the job goes on from its last checkpoint when submitted again."""


class InProcess(Executor):
    """Runs each job when it is submitted, in this process: simple, exact to the bit, good for debugging."""

    slots = 1

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Runs the job now; an interrupt by the user passes through."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class LocalPool(Executor):
    """One process a slot, each with its share of the cores (or its own GPU).

    A slot whose process dies fails the job it had with `WorkerDied` and starts a new process; the other slots go on.
    Processes end by themselves when the driver is gone, so that no two ever train in one folder.

    Args:
        slots: Processes.
        num_gpus: Visible GPUs of this machine; slot i gets number i modulo `num_gpus` of those that
            `CUDA_VISIBLE_DEVICES` names, or of all. Where there is none, slots get cores.
    """

    def __init__(self, slots: int, *, num_gpus: int = 0) -> None:
        """Starts no process yet: each starts with its first job."""
        self.slots = slots
        self._num_gpus = num_gpus
        self._pools: list[ProcessPoolExecutor | None] = [None] * slots
        self._busy: list[bool] = [False] * slots
        # Processes that are killed leave semaphores behind, which Python's tracker of them removes. That it says so,
        # after the last word of a command that was stopped, helps nobody; it begins with the first process.
        os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Gives the job to a free slot.

        Raises:
            RuntimeError: No slot is free.
        """
        slot = next((i for i, busy in enumerate(self._busy) if not busy), None)
        if slot is None:
            raise RuntimeError(f"all {self.slots} slots are busy; wait for a future before submitting")
        self._busy[slot] = True
        outer: Future[T] = Future()
        outer.set_running_or_notify_cancel()
        try:
            inner = self._pool(slot).submit(fn, *args, **kwargs)
        except BrokenProcessPool:  # the process died while it was idle
            self._pools[slot] = None
            inner = self._pool(slot).submit(fn, *args, **kwargs)
        inner.add_done_callback(lambda done: self._finish(slot, done, outer))
        return outer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the processes; with `wait=False` at once, what they were doing is resumed from the checkpoints later."""
        for pool in self._pools:
            if pool is None:
                continue
            if not wait:
                for process in list((pool._processes or {}).values()):
                    process.kill()
            pool.shutdown(wait=True, cancel_futures=cancel_futures)
        self._pools = [None] * self.slots

    def _finish(self, slot: int, inner: Future[T], outer: Future[T]) -> None:
        error = inner.exception()
        self._busy[slot] = False
        if isinstance(error, BrokenProcessPool):
            self._pools[slot] = None
            outer.set_exception(WorkerDied(f"worker {slot} died"))
        elif error is not None:
            outer.set_exception(error)
        else:
            outer.set_result(inner.result())

    def _pool(self, slot: int) -> ProcessPoolExecutor:
        pool = self._pools[slot]
        if pool is None:
            # spawn, not fork: the driver holds threads, a database and perhaps CUDA.
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(1, context, _begin, (slot, self.slots, self._num_gpus))
            self._pools[slot] = pool
        return pool


def _gpu(slot: int, num_gpus: int, visible: str) -> str:
    """What a slot's GPU is called; whoever keeps the driver to some GPUs names them by number or by UUID."""
    names = [name.strip() for name in visible.split(",") if name.strip()] or [str(i) for i in range(num_gpus)]
    return names[slot % min(num_gpus, len(names))]


def _begin(slot: int, slots: int, num_gpus: int) -> None:
    """Settles a new worker process: its device or cores, and its end together with the driver's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to answer
    end_with_parent()
    if num_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = _gpu(slot, num_gpus, os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    elif hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        share = cores[slot::slots] or [cores[slot % len(cores)]]
        os.sched_setaffinity(0, share)

    import torch  # only now: the variables above are read when it is imported

    if not num_gpus and "OMP_NUM_THREADS" not in os.environ:  # who sets it knows what else the machine has to do
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // slots))
