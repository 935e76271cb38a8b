"""Learning curves of every network of a small space, recorded by real training.

    python -m benchmarks.record benchmarks/tables/motion.yaml                 (trains what the table lacks)
    python -m benchmarks.record benchmarks/tables/motion.yaml --check 5       (trains five entries again)

The table stands beside the study file as `<name>.jsonl`, of the form that `nas simulate` reads. It is appended to as
trainings end, so that recording can be stopped and started again at any time, also elsewhere: what has a line is not
trained again. Trainings have one thread each.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from nas.search.curves import Curve, read_curves
from nas.search.pool import Candidate, build_pool
from nas.study.files import load_study
from nas.study.study import Study
from nas.train.jobs import TrainJob
from search_spaces import codec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no training later than this")
    parser.add_argument("--check", type=int, default=0, metavar="N", help="train N entries of the table again")
    given = parser.parse_args()
    study = load_study(given.study, given.overrides)
    table = given.study.with_suffix(".jsonl")
    known = {(curve.digest, curve.seed): curve for curve in recorded(table)}
    pool = {candidate.digest: candidate for candidate in build_pool(study, num_classes=study.num_classes).candidates}
    if given.check:
        check(study, pool, known, given.check, given.workers)
        return
    order = sorted(pool)
    random.Random(0).shuffle(order)  # so that a part of a table is a fair sample
    todo = [(pool[key], seed) for seed in range(given.seeds) for key in order if (key, seed) not in known]
    print(f"{len(known)} trainings are recorded, {len(todo)} are to come", flush=True)
    began = time.monotonic()
    for count, curve in enumerate(trained(study, todo, given.workers, deadline=began + 60 * given.minutes), start=1):
        with table.open("a", encoding="utf-8") as file:
            file.write(f"{curve.line()}\n")
        minutes = (time.monotonic() - began) / 60
        left = minutes / count * (len(todo) - count)
        name = f"{curve.digest[:10]} seed {curve.seed}"
        print(
            f"{count}/{len(todo)} {name}: top-1 {curve.top1[-1]:.3f} in {sum(curve.seconds):.0f} s; {left:.0f} min left"
        )
        sys.stdout.flush()


def recorded(table: Path) -> list[Curve]:
    """The lines of a table; a last one that was cut off is none, and taken away."""
    if not table.exists():
        return []
    text = table.read_text(encoding="utf-8")
    whole, _, rest = text.rpartition("\n")
    if rest:
        table.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
    return read_curves(table) if whole else []


def trained(
    study: Study, todo: list[tuple[Candidate, int]], workers: int, *, deadline: float = float("inf")
) -> Iterator[Curve]:
    """Yields a curve for each training as it ends; one that failed is told on stderr and yields none."""
    context = multiprocessing.get_context("spawn")
    waiting, running = list(reversed(todo)), dict[Future[Curve], str]()
    with ProcessPoolExecutor(workers, mp_context=context) as executor:
        while waiting or running:
            while waiting and len(running) < workers and time.monotonic() < deadline:
                candidate, seed = waiting.pop()
                job = TrainJob(
                    spec=codec.dumps(candidate.spec),
                    num_classes=study.num_classes,
                    data=study.data,
                    recipe=study.recipe,
                    seed=seed,
                    folder=str(Path("runs") / study.name / f"{candidate.digest[:16]}-{seed}"),
                    until_epoch=study.search.rungs[-1],
                )
                running[executor.submit(_train, job, candidate.digest)] = f"{candidate.digest[:10]} seed {seed}"
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                try:
                    yield future.result()
                except RuntimeError as error:
                    print(f"{name} failed: {error}", file=sys.stderr)


def _train(job: TrainJob, digest: str) -> Curve:
    import torch

    from nas.train.training import run_job

    torch.set_num_threads(1)
    result = run_job(job)
    if result.reason is not None:
        raise RuntimeError(f"{result.reason}: {result.detail}")
    shutil.rmtree(job.folder)
    vals = [epoch.val for epoch in result.epochs if epoch.val is not None]
    return Curve(
        digest=digest,
        seed=job.seed,
        top1=tuple(val.top1 for val in vals),
        loss=tuple(val.loss for val in vals),
        seconds=tuple(epoch.seconds for epoch in result.epochs),
        videos=vals[-1].num_clips,
    )


def check(
    study: Study, pool: dict[str, Candidate], known: dict[tuple[str, int], Curve], count: int, workers: int
) -> None:
    """Trains random entries again, and says whether they land within what the seeds of the table differ by."""
    pairs = [key for key in known if (key[0], 1 - key[1]) in known]
    spread = [abs(known[d, 0].top1[-1] - known[d, 1].top1[-1]) for d, seed in pairs if seed == 0]
    most = sorted(spread)[int(0.95 * len(spread))] if spread else float("nan")
    picked = random.Random(time.time_ns()).sample(sorted(known), min(count, len(known)))
    print(f"95 % of networks differ by at most {most:.3f} between their seeds")
    for curve in trained(study, [(pool[digest], seed) for digest, seed in picked], workers):
        old, new = known[curve.digest, curve.seed].top1[-1], curve.top1[-1]
        print(f"{curve.digest[:10]} seed {curve.seed}: recorded {old:.3f}, now {new:.3f}, {new - old:+.3f}", flush=True)


if __name__ == "__main__":
    main()
