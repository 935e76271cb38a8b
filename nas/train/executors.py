"""Where jobs are trained: in the driver itself, or in a pool of processes on this machine.

Both have the shape of `concurrent.futures.Executor`; the driver keeps no more than `slots` jobs under way.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Executor, Future
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any, TypeVar

from trainer.processes import end_with_parent

T = TypeVar("T")
_SECONDS_TO_END = 10.0


class WorkerLost(Exception):  # noqa: N818 - it is an event to be recorded, not a fault of ours
    """The process that trained a job is gone; the job goes on from its last checkpoint when submitted again."""


class InProcess(Executor):
    """Runs each job when it is submitted, in this process: simple, exact to the bit, good for debugging."""

    slots = 1

    @property
    def cores(self) -> int:
        """Of this machine, that a job has."""
        return num_cores()

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

    A slot whose process dies fails the job it had with `WorkerLost` and starts a new process; the other slots go on.
    Processes end by themselves when the driver is gone, so that no two ever train in one folder.

    Each process has a pipe of its own and shares no lock with anybody, so that there is none that a killed one could
    keep. (`ProcessPoolExecutor` and Pebble's pool hold one while they read; the former's also hangs if its last
    reference goes in a callback.) A thread a job waits at the pipe; it is a daemon, and nobody waits for it.

    Args:
        slots: Processes.
        num_gpus: Visible GPUs of this machine; slot i gets number i modulo `num_gpus` of those that
            `CUDA_VISIBLE_DEVICES` names, or of all. Where there is none, slots get cores.
    """

    def __init__(self, slots: int, *, num_gpus: int = 0) -> None:
        """Starts no process yet: each starts with its first job."""
        self.slots = slots
        self._num_gpus = num_gpus
        self._workers: list[_Worker | None] = [None] * slots
        self._jobs: list[Future[Any] | None] = [None] * slots
        # Processes that are killed leave semaphores behind, which Python's tracker of them removes. That it says so,
        # after the last word of a command that was stopped, helps nobody; it begins with the first process.
        os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")

    @property
    def cores(self) -> int:
        """Of this machine, that a job has while every slot has one; at least 1."""
        return max(1, num_cores() // self.slots)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Gives the job to a free slot.

        Raises:
            RuntimeError: No slot is free.
        """
        slot = next((i for i, job in enumerate(self._jobs) if job is None or job.done()), None)
        if slot is None:
            raise RuntimeError(f"all {self.slots} slots are busy; wait for a future before submitting")
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        worker = self._workers[slot]
        if worker is None or not worker.take((fn, args, kwargs)):  # none yet, or it died while it was idle
            if worker is not None:
                worker.kill()
            worker = self._workers[slot] = _Worker(slot, self.slots, self._num_gpus)
            worker.take((fn, args, kwargs))
        self._jobs[slot] = future
        Thread(target=_wait, args=(worker, future, f"worker {slot} died"), daemon=True).start()
        return future

    def abandon(self, future: Future[Any]) -> bool:
        """Kills the process that has a job; the next job of its slot gets a new one, whatever becomes of the old.

        Returns:
            True: here every job is under way.
        """
        slot = next(i for i, job in enumerate(self._jobs) if job is future)
        worker = self._workers[slot]
        if worker is not None:
            worker.kill()
        self._workers[slot] = self._jobs[slot] = None
        return True

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the processes; with `wait=False` at once, what they were doing is resumed from the checkpoints later."""
        if wait:
            futures.wait([job for job in self._jobs if job is not None])
        for worker in self._workers:
            if worker is not None:
                worker.kill()
        for worker in self._workers:
            if worker is not None:
                worker.process.join(_SECONDS_TO_END)
        self._workers = [None] * self.slots
        self._jobs = [None] * self.slots


class _Worker:
    """A process and the driver's end of its pipe."""

    def __init__(self, slot: int, slots: int, num_gpus: int) -> None:
        # spawn, not fork: the driver holds threads, a database and perhaps CUDA.
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, slot, slots, num_gpus))
        self.process.start()
        theirs.close()  # with ours alone, the pipe ends when the process does

    def take(self, call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]) -> bool:
        """Gives the process a call; False if it is gone."""
        try:
            self.pipe.send(call)
        except OSError:
            return False
        return self.process.is_alive()

    def result(self) -> tuple[bool, Any]:
        """Waits for what comes of the call: whether it went well, and the value or the error.

        Raises:
            EOFError, OSError: The process is gone.
        """
        while not self.pipe.poll(1.0):
            if not self.process.is_alive() and not self.pipe.poll():  # a child of its own may hold the pipe open
                raise EOFError
        went_well, value = self.pipe.recv()
        return went_well, value

    def kill(self) -> None:
        """Ends the process at once; waits for nothing."""
        self.process.kill()


def _wait(worker: _Worker, future: Future[Any], died: str) -> None:
    """Passes on what comes of a call."""
    try:
        went_well, value = worker.result()
    except (EOFError, OSError):
        went_well, value = False, WorkerLost(died)
    except Exception as error:  # what was sent cannot be read here
        went_well, value = False, error
    if went_well:
        future.set_result(value)
    else:
        future.set_exception(value)


def _work(pipe: Connection, slot: int, slots: int, num_gpus: int) -> None:
    """What a worker process does: one call after the other."""
    _begin(slot, slots, num_gpus)
    while True:
        try:
            fn, args, kwargs = pipe.recv()
        except EOFError:
            return
        answer: tuple[bool, Any]
        try:
            answer = True, fn(*args, **kwargs)
        except Exception as error:
            answer = False, error
        try:
            content = pickle.dumps(answer)
            pickle.loads(content)  # pickle's own way fails for errors whose arguments have names
        except Exception:
            content = pickle.dumps((False, RuntimeError(f"{type(answer[1]).__name__}: {answer[1]}")))
        pipe.send_bytes(content)


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    if not num_gpus and "OMP_NUM_THREADS" not in os.environ:  # who sets it knows what else the machine has to do
        import torch  # only now: the variables above are read when it is imported

        torch.set_num_threads(max(1, (os.cpu_count() or 1) // slots))
