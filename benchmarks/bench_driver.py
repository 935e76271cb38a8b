"""How much does a search cost beside the training? The real driver and store, with networks that are trained at once.

    python benchmarks/bench_driver.py --trials 10000

Results are made up from the digest and the MACs of a network; all else is as in a search: the pool, the scheduler, the
database on disk, Optuna's copies. Printed are seconds since the start at some numbers of trials, what a trial takes at
the start and at the end (rungs and promotions included), and the most memory. Proposals (`nas/search/sampler`) stand
apart: they go through the whole pool. Where the machine does other work, seconds of the processor count. Nothing is
needed; 10,000 trials take minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import yaml

from nas.search import decide, driver
from nas.search.pool import CandidatePool, build_pool
from nas.store.database import Store
from nas.study.files import load_study
from nas.study.study import Study
from nas.train import crew
from nas.train.executors import InProcess
from nas.train.jobs import JobResult, TrainJob
from nas.train.session import News
from trainer.metrics import EpochResult, Metrics

MARKS = (250, 1_000, 1_500, 3_000, 10_000, 30_000)
CLIPS = 1_000  # on which accuracies are measured
PART = 200  # trials over which "at the start" and "at the end" are taken


def study_with(folder: Path, trials: int, sampler: str, order: str) -> Study:
    """A search with three rungs in a space of many cheap networks."""
    kinds = {"values": ["2d", "3d", "2plus1d", "p3d_a", "p3d_b", "p3d_c"], "per": "block"}
    content = {
        "name": "bench",
        "data": {"root": "none", "num_classes": 8, "clip": {"frames": 4, "height": 32, "width": 32}},
        "space": {"domains": {"depth": ["2-2-2"], "stem_width": [8, 16, 24], "kind": kinds, "kernel": [3, 5]}},
        "search": {
            "trials": trials,
            "initial": 20,
            "rungs": [1, 3, 9],
            "sampler": sampler,
            "order": order,
            "pool": trials + 500,
        },
    }
    path = folder / "bench.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return load_study(path)


class AtOnce(InProcess):
    """Trains nothing: a network's result is there when its job is given."""

    def __init__(self, slots: int, macs: Callable[[str], int]) -> None:
        """`macs` tells those of a digest."""
        self.slots = slots
        self._macs = macs

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The result of the job that `run_job` would train."""
        del fn, kwargs
        task: TrainJob = args[0]
        digest = hashlib.sha256(task.spec.encode()).hexdigest()
        luck = int(digest[:8], 16) / 16**8
        epochs = tuple(
            EpochResult(
                epoch=epoch,
                train_loss=1.0,
                lr=0.1,
                seconds=0.01,
                steps=1,
                clips_per_s=1.0,
                val=self._val(digest, luck, epoch),
            )
            for epoch in range(1, task.until_epoch + 1)
        )
        future: Future[Any] = Future()
        future.set_result(JobResult(epochs=epochs, seconds=0.01 * len(epochs)))
        return future

    def _val(self, digest: str, luck: float, epoch: int) -> Metrics:
        size = min(1.0, (self._macs(digest) / 1e8) ** 0.2)
        noise = int(hashlib.sha256(f"{digest} {epoch}".encode()).hexdigest()[:8], 16) / 16**8 - 0.5
        top1 = round(CLIPS * max(0.0, 0.7 * size * (0.6 + 0.4 * luck) * (1 - 0.5 / epoch) + 0.05 * noise)) / CLIPS
        return Metrics(top1=top1, top5=min(1.0, top1 + 0.2), loss=2.0 - top1, num_clips=CLIPS)


class Clock:
    """Hears of every trial that begins, and keeps the time of each."""

    def __init__(self) -> None:
        """Nothing has begun."""
        self.wall, self.cpu = [time.perf_counter()], [time.process_time()]
        self.proposing = [0.0]  # seconds of the processor
        self._proposing = 0.0

    def __call__(self, news: News) -> None:
        """A listener of the driver."""
        if news.kind != "start":
            return
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())
        self.proposing.append(self._proposing)
        if len(self.wall) - 1 in MARKS:
            self.tell()

    def tell(self) -> None:
        """Prints the time since the start."""
        wall, cpu = self.wall[-1] - self.wall[0], self.cpu[-1] - self.cpu[0]
        print(
            f"{len(self.wall) - 1:>7} trials{wall:>9.1f} s{cpu:>9.1f} s of the processor, "
            f"{self.proposing[-1]:.1f} s of them in proposals",
            flush=True,
        )

    def watched(self, propose: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, whose time is kept apart."""

        def call(**given: Any) -> Any:
            began = time.process_time()
            try:
                return propose(**given)
            finally:
                self._proposing += time.process_time() - began

        return call

    def each(self, first: int, last: int) -> tuple[float, float, float]:
        """Seconds, those of the processor, and those of the processor without proposals, of a trial from `first` on."""
        wall, cpu = self.wall[last] - self.wall[first], self.cpu[last] - self.cpu[first]
        own = cpu - (self.proposing[last] - self.proposing[first])
        return wall / (last - first), cpu / (last - first), own / (last - first)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--order", default="hypervolume")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = study_with(Path(folder), given.trials, given.sampler, given.order)
        began = time.perf_counter()
        pool = build_pool(study, num_classes=8)
        print(f"pool of {len(pool.candidates)} networks: {time.perf_counter() - began:.0f} s", flush=True)
        search(study, pool, Path(folder) / "study.db", given.slots)


def search(study: Study, pool: CandidatePool, database: Path, slots: int) -> None:
    """Runs the search and prints what it took."""
    macs = {candidate.digest: candidate.cost.macs for candidate in pool.candidates}
    before, clock = memory(), Clock()
    decide.propose = clock.watched(decide.propose)  # type: ignore[attr-defined]
    crew.executor = lambda workers: AtOnce(slots, macs.__getitem__)
    with Store(database, create=True) as store:
        store.add_study(
            name=study.name,
            seed=study.seed,
            clip=study.data.shape,
            num_classes=8,
            config=study.config,
            data={"checksum": "none"},
        )
        row = store.study()
        own = driver.Driver(study, database, store, row, pool, crew.Crew(0), clock)
        summary = own.run()
        began = time.process_time()
        driver.Driver(study, database, store, row, pool, crew.Crew(0), lambda news: None).run()
        again = time.process_time() - began
    clock.tell()
    count = len(clock.wall) - 1
    part = min(PART, count // 4)
    print(f"results at each rung: {summary.counts}; in all {summary.wall_seconds:.1f} s")
    print(f"{'a trial':<14}{'wall':>9}{'processor':>11}{'without proposals':>19}")
    rows = (clock.each(part // 2, part // 2 + part), clock.each(count - part, count))
    for name, (wall, cpu, rest) in zip(("at the start", "at the end"), rows, strict=True):
        print(f"{name:<14}{1000 * wall:>6.1f} ms{1000 * cpu:>8.1f} ms{1000 * rest:>16.1f} ms")
    ratios = [b / a for a, b in zip(*rows, strict=True)]
    print(f"{'end / start':<14}{ratios[0]:>9.2f}{ratios[1]:>11.2f}{ratios[2]:>19.2f}")
    print(f"started again when it is over: {again:.1f} s of the processor")
    print(f"memory: {memory():.0f} MB at most, {before:.0f} MB before the search")


def memory() -> float:
    """The most that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
