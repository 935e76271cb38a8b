"""Searches on a table of recorded learning curves: the real driver and store, in virtual time."""

from __future__ import annotations

import heapq
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import optuna

from nas.errors import SearchError
from nas.search.curves import Curve
from nas.search.driver import Driver
from nas.search.pool import CandidatePool, build_pool
from nas.search.scores.score import StudyScores
from nas.store.database import Store
from nas.study.front import CORNER, front, hypervolume
from nas.study.metric import AUTO
from nas.study.objectives import COSTS, OBJECTIVES, exact
from nas.study.study import Study
from nas.train.crew import Crew
from nas.train.jobs import JobResult, TrainJob
from nas.train.session import News
from search_spaces import codec
from trainer.metrics import EpochResult, Metrics

REFERENCE = (1.0, CORNER)
"""Error, as a share of that of chance, and logarithms of costs, scaled to 0..1 over the table, of the reference."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Simulated:
    """A search on a table.

    Attributes:
        seed: Of the search.
        epochs: That it trained.
        seconds: That it would have taken.
        networks: That it began.
        counts: Results at each rung.
        gap: Percent of the hypervolume of the table's front that the networks at the last rung lack, by the means of
            the table's seeds.
        curve: (epochs, gap) wherever a network at the last rung made it smaller.
    """

    seed: int
    epochs: int
    seconds: float
    networks: int
    counts: tuple[int, ...]
    gap: float
    curve: tuple[tuple[int, float], ...]


class CurveTable:
    """Curves with the space that they are of.

    Args:
        study: Space, clip and rungs.
        curves: Of its networks; of others they are left out.

    Raises:
        SearchError: A network of the space has no curve, or one that is shorter than the last rung.
    """

    def __init__(self, study: Study, curves: Sequence[Curve]) -> None:
        """Costs the networks of the space."""
        if not study.search.fidelity.continues:
            raise SearchError("a table has accuracies by epochs, but search.fidelity is another")
        if not study.num_classes or study.num_classes < 2:
            raise SearchError("a study that is simulated must state data.num_classes, 2 or more, for there is no data")
        names = study.search.objectives
        others = [name for name in names[1:] if OBJECTIVES[name].measured]
        if others or study.search.accuracy not in (AUTO, "top1"):
            raise SearchError(
                "a table has top-1 and exact costs, but the study searches by "
                f"{', '.join(others or [study.search.accuracy])}; choices: error, {', '.join(COSTS)}"
            )
        self.study = study
        self.pool: CandidatePool = build_pool(study, num_classes=study.num_classes)
        if not self.pool.whole:
            raise SearchError(
                f"search.pool must hold every network of the space for a simulation, but is {study.search.pool}"
            )
        self.curves: dict[str, dict[int, Curve]] = {}
        for curve in curves:
            if curve.digest in self.pool.by_digest:
                self.curves.setdefault(curve.digest, {})[curve.seed] = curve
        self.scores = StudyScores(study, num_classes=study.num_classes)
        """Of the study's seed for all searches, and of noise where they look at clips: they are computed once."""
        last = study.search.rungs[-1]
        for candidate in self.pool.candidates:
            known = self.curves.get(candidate.digest)
            if known is None:
                raise SearchError(
                    f"the table lacks {candidate.digest[:10]} ({candidate.spec.describe()}); it has "
                    f"{len(self.curves)} of {len(self.pool.candidates)} networks of the space"
                )
            shortest = min(len(curve.top1) for curve in known.values())
            if shortest < last:
                raise SearchError(
                    f"search.rungs must end at most after the {shortest} epochs that the table has of "
                    f"{candidate.digest[:10]}, but ends after {last}"
                )
        fewest = min(len(known) for known in self.curves.values())
        if study.search.repeats >= fewest:
            raise SearchError(
                f"search.repeats must be less than the {fewest} seeds that the table has of each network, but is "
                f"{study.search.repeats}"
            )
        errors = [1.0 - self.mean(candidate.digest, last) for candidate in self.pool.candidates]
        chance = 1.0 - 1.0 / study.num_classes
        axes = [[math.log(candidate.quantity(name)) for candidate in self.pool.candidates] for name in exact(names)]
        scaled = [[(log - min(logs)) / (max(logs) - min(logs) or 1.0) for log in logs] for logs in axes]
        points = zip([error / chance for error in errors], *scaled, strict=True)
        self.points = dict(zip((candidate.digest for candidate in self.pool.candidates), points, strict=True))
        self._reference = (REFERENCE[0], *[REFERENCE[1]] * len(axes))
        self.best = hypervolume(list(self.points.values()), self._reference)
        if not self.best > 0:
            raise SearchError("no network of the table is better than chance, so there is no front to be found")

    def mean(self, digest: str, epochs: int) -> float:
        """Top-1 of a network after some epochs, the mean of the table's seeds."""
        known = self.curves[digest].values()
        return sum(curve.top1[epochs - 1] for curve in known) / len(known)

    def curve(self, digest: str, seed: int) -> Curve:
        """The training that a search with some seed sees."""
        known = self.curves[digest]
        seeds = sorted(known)
        return known[seeds[seed % len(seeds)]]

    def gap(self, digests: Sequence[str]) -> float:
        """Percent of the hypervolume of the table's front that some networks lack."""
        points = [self.points[digest] for digest in digests]
        return 100.0 * (1.0 - (hypervolume(points, self._reference) if points else 0.0) / self.best)

    @property
    def front(self) -> list[str]:
        """Digests of the networks that no other one dominates."""
        digests = list(self.points)
        return [digests[i] for i in front([self.points[digest] for digest in digests])]


class TableCrew:
    """Trains nothing: a job ends when the table says that it would have, and time passes in no time.

    Args:
        table: What comes of a training.
        workers: Trainings at once.
    """

    def __init__(self, table: CurveTable, workers: int) -> None:
        """It is zero o'clock."""
        self.workers, self.device, self.busy_seconds = max(1, workers), "cpu", 0.0
        self.now = 0.0
        self.ended: list[tuple[str, int, int]] = []  # digest, seed, epochs
        self._table = table
        self._jobs: list[tuple[float, int, TrainJob]] = []
        self._trained: dict[tuple[str, int], int] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def free(self) -> bool:
        """Whether another job can be given."""
        return len(self._jobs) < self.workers

    def submit(self, job: int, task: TrainJob, tick: Callable[[], None]) -> None:
        """Gives a job."""
        digest = codec.digest(codec.loads(task.spec))
        begun = self._trained.get((digest, task.seed), 0)
        seconds = sum(self._table.curve(digest, task.seed).seconds[begun : task.until_epoch])
        self._trained[digest, task.seed] = task.until_epoch
        heapq.heappush(self._jobs, (self.now + seconds, job, task))

    def collect(self) -> list[tuple[int, JobResult]]:
        """Lets time pass until a job ends."""
        at, job, task = heapq.heappop(self._jobs)
        seconds, self.now = at - self.now, at
        self.busy_seconds += seconds
        digest = codec.digest(codec.loads(task.spec))
        curve = self._table.curve(digest, task.seed)
        videos = curve.videos or 1000
        epochs = tuple(
            EpochResult(
                epoch=epoch,
                train_loss=curve.loss[epoch - 1],
                lr=0.0,
                seconds=curve.seconds[epoch - 1],
                steps=0,
                clips_per_s=0.0,
                val=Metrics(top1=curve.top1[epoch - 1], top5=1.0, loss=curve.loss[epoch - 1], num_clips=videos),
            )
            for epoch in range(1, task.until_epoch + 1)
        )
        self.ended.append((digest, task.seed, task.until_epoch))
        return [(job, JobResult(epochs=epochs, seconds=seconds))]

    def close(self) -> None:
        """Nothing is under way outside."""


def simulate(
    table: CurveTable, *, seed: int, workers: int, listener: Callable[[News], None] = lambda news: None
) -> Simulated:
    """A search on a table, by the real driver, in a database that is gone afterwards.

    Args:
        table: What comes of trainings.
        seed: Of the search; of the table's trainings it sees those of one seed.
        workers: Trainings at once.
        listener: Hears of progress.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = replace(table.study, seed=seed)
    crew = TableCrew(table, workers)
    with tempfile.TemporaryDirectory(prefix="nas-simulate-") as folder:
        database = Path(folder) / "study.db"
        with Store(database, create=True) as store:
            store.add_study(
                name=study.name,
                seed=seed,
                clip=study.data.shape,
                num_classes=int(study.num_classes or 0),
                config=json.loads(json.dumps({**study.config, "seed": seed})),
                data={"checksum": "table", "classes": [], "clips": {}},
            )
            row = store.study(study.name)
            driver = Driver(study, database, store, row, table.pool, cast(Crew, crew), listener, table.scores)
            summary = driver.run()
    ends, reached = study.search.rungs, dict[tuple[str, int], int]()
    spent, whole, curve, last = 0, list[str](), list[tuple[int, float]](), 100.0
    for digest, of, epochs in crew.ended:
        spent += epochs - reached.get((digest, of), 0)
        reached[digest, of] = epochs
        if epochs == ends[-1]:
            whole.append(digest)
            now = table.gap(whole)
            if now < last - 1e-9:
                curve.append((spent, now))
                last = now
    return Simulated(
        seed=seed,
        epochs=spent,
        seconds=crew.now,
        networks=len({digest for digest, _ in reached}),
        counts=summary.counts,
        gap=last,
        curve=tuple(curve),
    )
