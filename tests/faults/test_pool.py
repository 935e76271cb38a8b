"""Worker processes that die or hang at any moment: each is replaced, and nobody waits for ever."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from nas.train import crew
from nas.train.crew import Crew
from nas.train.executors import InProcess, LocalPool, WorkerLost
from nas.train.jobs import JobResult, TrainJob, job_key
from tests.faults.calls import die, double, fail, hang, lasting, lock_and_hang, stubborn
from trainer.config import Clip, DataConfig
from trainer.recipe import Recipe

PATIENCE = 120.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, a worker imports torch to tell it the number of its threads."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def kill(pool: LocalPool, slot: int, how: int = signal.SIGKILL) -> None:
    worker = pool._workers[slot]
    assert worker is not None
    os.kill(worker.process.pid or 0, how)


def test_what_a_call_gives_or_raises_comes_back() -> None:
    pool = LocalPool(1)
    try:
        assert pool.submit(double, 21).result(PATIENCE) == 42
        with pytest.raises(ValueError, match="as it is"):
            pool.submit(fail, "as it is").result(PATIENCE)
        with pytest.raises(RuntimeError, match="StubbornError: no way"):
            pool.submit(stubborn).result(PATIENCE)
        assert pool.submit(double, 2).result(PATIENCE) == 4
    finally:
        pool.shutdown()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_worker_that_ends_in_mid_call_fails_that_call_alone(how: int) -> None:
    pool = LocalPool(2)
    try:
        lost, kept = pool.submit(lasting, 600.0), pool.submit(lasting, 0.0)
        time.sleep(0.2)
        kill(pool, 0, how)
        with pytest.raises(WorkerLost, match="worker 0 died"):
            lost.result(PATIENCE)
        assert kept.result(PATIENCE)
        assert pool.submit(double, 1).result(PATIENCE) == 2
    finally:
        pool.shutdown(wait=False)


def test_a_worker_that_dies_while_it_is_idle_is_replaced_at_the_next_call() -> None:
    pool = LocalPool(1)
    try:
        first = pool.submit(lasting, 0.0).result(PATIENCE)
        os.kill(first, signal.SIGKILL)
        worker = pool._workers[0]
        assert worker is not None
        worker.process.join(PATIENCE)
        assert pool.submit(lasting, 0.0).result(PATIENCE) != first
    finally:
        pool.shutdown()


def test_kills_at_random_moments_never_leave_a_call_without_an_answer() -> None:
    """Also while a process starts, reads its call, or sends its answer."""
    pool, rng = LocalPool(1), random.Random(0)
    outcomes = []
    try:
        for _ in range(12):
            future = pool.submit(lasting, 0.05)
            time.sleep(rng.uniform(0.0, 0.6))
            kill(pool, 0)
            outcomes.append(future.exception(PATIENCE))
        assert all(error is None or isinstance(error, WorkerLost) for error in outcomes)
        assert any(outcomes)
        assert pool._workers[0] is not None
        pool._workers[0].process.join(PATIENCE)
        assert pool.submit(double, 4).result(PATIENCE) == 8
    finally:
        pool.shutdown()


def test_a_worker_that_always_dies_says_so_each_time() -> None:
    pool = LocalPool(1)
    try:
        for _ in range(2):
            with pytest.raises(WorkerLost):
                pool.submit(die, 3).result(PATIENCE)
    finally:
        pool.shutdown()


@pytest.mark.parametrize("state", ["stopped", "locked"])
def test_a_worker_that_is_abandoned_holds_nobody_up(state: str) -> None:
    """Neither the next call, nor the end of the pool."""
    pool = LocalPool(1)
    hung = pool.submit(lock_and_hang)
    time.sleep(0.2)
    if state == "stopped":
        kill(pool, 0, signal.SIGSTOP)
    assert pool.abandon(hung)
    assert pool.submit(double, 5).result(PATIENCE) == 10
    pool.shutdown()


def test_a_program_whose_worker_is_killed_ends() -> None:
    """No thread or process of the pool keeps the interpreter: the one that waits for a worker is a daemon."""
    code = (
        "import os, signal, time\n"
        "from nas.train.executors import InProcess, LocalPool\n"
        "if __name__ == '__main__':\n"
        "    pool = LocalPool(1)\n"
        "    future = pool.submit(time.sleep, 600)\n"
        "    time.sleep(1)\n"
        "    os.kill(pool._workers[0].process.pid, signal.SIGKILL)\n"
        "    print(type(future.exception(60)).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout == "WorkerLost\n"
    assert done.stderr == ""


def task_in(folder: Path, num_workers: int = 0) -> TrainJob:
    data = DataConfig(name="x", root="", cache="", clip=Clip(frames=4, height=16, width=16), num_workers=num_workers)
    return TrainJob(spec="{}", num_classes=2, data=data, recipe=Recipe(), seed=0, folder=str(folder), until_epoch=1)


def test_a_driver_that_hears_nothing_replaces_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(crew, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(crew, "run_job", hang)
    gang = Crew(1)
    try:
        gang.submit(7, task_in(tmp_path), lambda: None)
        ended: list[tuple[int, JobResult]] = []
        deadline = time.monotonic() + PATIENCE
        while not ended and time.monotonic() < deadline:
            ended = gang.collect()
        [(job, result)] = ended
        assert (job, result.reason, len(gang)) == (7, "worker_silent", 0)
        assert result.detail is not None
        assert result.detail.startswith("no batch for ")
        assert gang.free
    finally:
        gang.close()


def test_signs_of_life_keep_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is counted from the last sign; a network whose batches take longer than others' is given more."""
    monkeypatch.setattr(crew, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(crew, "SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(crew, "run_job", hang)
    gang = Crew(1)
    try:
        gang.submit(0, task_in(tmp_path), lambda: None)
        for turn in range(40):
            os.utime(tmp_path, ns=(turn, turn))
            assert gang.collect() == []
        gang._longest = 1e6
        for _ in range(30):
            assert gang.collect() == []
    finally:
        gang.close()


class Slots(InProcess):
    """An executor with so many cores and slots, which keeps what it is given."""

    def __init__(self, cores: int, slots: int) -> None:
        self.slots, self._cores, self.given = slots, cores, []

    @property
    def cores(self) -> int:
        return max(1, self._cores // self.slots)

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.given.append(args[0])
        return Future()


@pytest.mark.parametrize(
    ("cores", "workers", "device", "wanted", "share"),
    [
        (2, 2, "cpu", 2, 0),
        (2, 1, "cpu", 2, 2),
        (2, 1, "cpu", 8, 2),
        (16, 4, "cpu", 8, 4),
        (16, 4, "cpu", 3, 3),
        (1, 1, "cpu", 1, 0),
        (4, 8, "cuda", 4, 1),
        (16, 4, "cuda", 0, 0),
    ],
)
def test_loader_processes_are_shared_out_by_cores_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, workers: int, device: str, wanted: int, share: int
) -> None:
    executor = Slots(cores, workers)
    monkeypatch.setattr(crew, "executor", lambda workers: executor)
    monkeypatch.setattr(crew, "usual_device", lambda: device)
    said: list[str] = []
    gang = Crew(workers, say=said.append)
    task = task_in(tmp_path, wanted)
    for job in range(workers):
        gang.submit(job, task, lambda: None)
    assert {given.data.num_workers for given in executor.given} == {share}
    assert {job_key(given, "x") for given in executor.given} == {job_key(task, "x")}
    assert len(said) == (share != wanted)
    assert all(f"data.num_workers is {wanted}, but each of {workers} " in text for text in said)
