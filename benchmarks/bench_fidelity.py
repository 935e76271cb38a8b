"""Which cheap training ranks networks as the full one does? Measured on the motion data at about a third of the cost.

    python benchmarks/bench_fidelity.py [--networks 12] [--epochs 24] [--sets 64] [--minutes 60]

Networks are drawn from one space, spread over log MACs. Each is trained in full, once with the search's seed and once
with another, and from scratch at a lower fidelity of each kind; the rung of epochs is on the way of the full training.
Printed is Spearman's rank correlation between top-1 at the lower fidelity and in full, an interval of it by the
bootstrap over networks, and the cost: as `nas status` counts it, and in seconds of training. The other seed says what
the best of correlations could be. Ends when the minutes are over, with the networks that are done.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.stats import spearmanr

from nas.search.pool import Candidate, build_pool
from nas.study.fidelity import Fidelity
from nas.study.study import Study, study_of
from nas.train.jobs import TrainJob
from nas.train.training import run_job
from search_spaces import codec
from trainer.data.motion_clips import make_motion
from trainer.metrics import EpochResult

SPACE = {
    "depth": ["1-1-1"],
    "stem_width": [8, 16],
    "stem": ["1x3x3/2"],
    "kind": ["3d", "2plus1d", "p3d_a", "p3d_b", "p3d_c", "1plus2d"],
    "placement": ["all", "mc3", "rmc3", "rmc4"],
    "kernel": [3, 5],
    "temporal_stride": ["none"],
}
LOWER = (
    Fidelity(kind="data", values=(0.34, 1), epochs=1),
    Fidelity(kind="frames", values=(3, 8), epochs=1),
    Fidelity(kind="size", values=(14, 24), epochs=1),
)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, usual in (("networks", 12), ("epochs", 24), ("sets", 64), ("minutes", 60)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    asked = parser.parse_args()
    until = time.monotonic() + 60 * asked.minutes
    third = math.ceil(asked.epochs / 3)
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, 1 thread, Python "
        f"{platform.python_version()}, torch {version('torch')}; {asked.sets * 8} training clips of 8x24x24, "
        f"{asked.epochs} epochs"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_motion(root / "motion", train_per_class=asked.sets, val_per_class=48, test_per_class=1, frames=8, size=30)
        study = study_at(root, third)
        rows: list[dict[str, EpochResult]] = []
        seconds: list[dict[str, float]] = []
        for candidate in chosen(study, asked.networks):
            found, took = trained(study, candidate, root, epochs=asked.epochs, third=third)
            if time.monotonic() > until:
                break
            rows.append(found)
            seconds.append(took)
            values = ", ".join(f"{name} {top1(result):.3f}" for name, result in found.items())
            print(f"{candidate.spec.describe()}: {values}", flush=True)
    if len(rows) < 3:
        sys.exit(f"too few networks for a correlation: {len(rows)}; give more --minutes")
    report(rows, seconds, asked.epochs, third)


def study_at(root: Path, third: int) -> Study:
    """The question as a study."""
    from omegaconf import OmegaConf

    from nas.study.schema import StudySchema

    config = OmegaConf.to_container(OmegaConf.structured(StudySchema))
    assert isinstance(config, dict)
    config["name"] = "fidelity"
    config["data"] |= {"name": "motion", "root": str(root / "motion"), "cache": str(root / "cache"), "num_classes": 8}
    config["data"] |= {
        "sampling": "uniform",
        "short_side": 30,
        "clip": {"frames": 8, "height": 24, "width": 24, "stride": 1},
    }
    config["space"]["domains"] = SPACE
    config["recipe"] |= {"batch_size": 16, "lr": 0.003, "ema_decay": 0.98, "eval_every": third}
    config.pop("variants")
    return study_of(config, "the benchmark")


def chosen(study: Study, number: int) -> list[Candidate]:
    """Networks evenly spread over the pool, which is in the order of MACs; in an order that a break cannot bias."""
    pool = build_pool(study, num_classes=8).candidates
    places = np.linspace(0, len(pool) - 1, number).round().astype(int)
    return [pool[place] for place in np.random.default_rng(0).permutation(places)]


def trained(
    study: Study, candidate: Candidate, root: Path, *, epochs: int, third: int
) -> tuple[dict[str, EpochResult], dict[str, float]]:
    """The last epoch of a network at each fidelity, and the seconds of each training."""
    results, seconds = {}, {}
    runs = [("full", study.data, study.seed), ("another seed", study.data, study.seed + 1)]
    runs += [(lower.label(0), lower.data_at(0, study.data), study.seed) for lower in LOWER]
    for name, data, seed in runs:
        job = TrainJob(
            spec=codec.dumps(candidate.spec),
            num_classes=8,
            data=data,
            recipe=study.recipe,
            seed=seed,
            folder=str(root / f"{candidate.digest[:10]}-{name}".replace(" ", "-")),
            until_epoch=epochs,
            opened=study.data,
        )
        found = run_job(job)
        assert found.reason is None, found.detail
        results[name] = found.epochs[-1]
        seconds[name] = sum(epoch.seconds for epoch in found.epochs)
        if name == "full":
            results[f"{third} epochs"] = found.epochs[third - 1]
            seconds[f"{third} epochs"] = sum(epoch.seconds for epoch in found.epochs[:third])
    return results, seconds


def report(rows: list[dict[str, EpochResult]], seconds: list[dict[str, float]], epochs: int, third: int) -> None:
    """Prints the table."""
    full = np.array([top1(row["full"]) for row in rows])
    whole = sum(row["full"] for row in seconds)
    worth = {lower.label(0): lower.worth(0) for lower in LOWER} | {f"{third} epochs": third / epochs}
    print(f"\n{len(rows)} networks, top-1 in full {full.min():.3f} to {full.max():.3f}, median {np.median(full):.3f}")
    print("| lower fidelity | Spearman with full training | 95 % over networks | cost | seconds | median top-1 |")
    print("|---|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for name in (*worth, "another seed"):
        low = np.array([top1(row[name]) for row in rows])
        draws = [rng.integers(len(rows), size=len(rows)) for _ in range(2000)]
        again = [rank(low[draw], full[draw]) for draw in draws if np.ptp(low[draw]) and np.ptp(full[draw])]
        a, b = np.quantile(again, [0.025, 0.975])
        took = sum(row[name] for row in seconds) / whole
        print(
            f"| {name} | {rank(low, full):.2f} | {a:.2f} to {b:.2f} | {worth.get(name, 1):.2f} | {took:.2f} "
            f"| {np.median(low):.3f} |"
        )


def rank(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation; ties have their mean rank."""
    return float(spearmanr(a, b).statistic)


def top1(result: EpochResult) -> float:
    """Of an epoch that was evaluated."""
    assert result.val is not None
    return result.val.top1


if __name__ == "__main__":
    main()
