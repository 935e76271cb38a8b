"""How often the statistics of ablations are right: false alarms, coverage, early stopping and power, by simulation.

    python -m benchmarks.bench_evidence [studies] [seed]

With 400 studies a share of 5 % or of 95 % is known to 1.1 points (one standard error). Takes some minutes.
"""

from __future__ import annotations

import platform
import sys
import time
from dataclasses import replace
from importlib.metadata import version

import numpy as np

from benchmarks.simulated import GESTURES, MOTION, Noise, count, count_stops, simulate
from nas.evidence.paired import power_curve, visible_difference
from nas.evidence.words import Looks

NOISES = {"gestures": GESTURES, "motion": MOTION}
SEEDS = (3, 5, 8, 10)


def main() -> None:
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    print(f"Python {platform.python_version()}, numpy {np.__version__}, scipy {version('scipy')}, ", end="")
    print(f"statsmodels {version('statsmodels')}, {platform.machine()}; {studies} studies a row, seed {seed}")
    for name, noise in NOISES.items():
        print(f"{name}: {noise}, standard deviation over seeds {noise.sd:.3f}")
    start = time.perf_counter()
    false_alarms(studies, seed)
    coverage(studies, seed)
    bootstrap(studies // 3, seed)
    looks(studies // 2, seed)
    power(studies // 2, seed)
    print(f"\n{time.perf_counter() - start:.0f} s")


def false_alarms(studies: int, seed: int) -> None:
    print("\nFalse alarms: four arms against one base, all with the same true top-1; families with a false word, in %")
    print(f"{'noise':10} {'seeds':>5} {'networks alike':>15} {'clips suit either':>18} {'clips unknown':>14}")
    for name, noise in NOISES.items():
        for seeds in SEEDS:
            arms = [noise.top1] * 5
            alike = count(replace(noise, suits=0), arms, seeds=seeds, studies=studies, seed=seed)
            unlike = count(noise, arms, seeds=seeds, studies=studies, seed=seed)
            unknown = count(replace(noise, suits=0), arms, seeds=seeds, studies=studies, seed=seed, clips=False)
            print(
                f"{name:10} {seeds:5} {100 * alike.families:15.1f} {100 * unlike.families:18.1f} "
                f"{100 * unknown.families:14.1f}",
                flush=True,
            )


def coverage(studies: int, seed: int) -> None:
    print("\nCoverage of the 95 % interval for new seeds and new clips, in %; and of the t interval over seeds alone")
    print(f"{'noise':10} {'seeds':>5} {'true':>6} {'suits':>5} {'interval':>9} {'half':>6} {'seeds only':>11}")
    for name, noise in NOISES.items():
        for seeds in SEEDS:
            for difference, suits in ((0.05, 1.0), (-0.1, 1.0), (0.05, 2.0)):
                arms = [noise.top1, noise.top1 + difference]
                got = count(replace(noise, suits=suits), arms, seeds=seeds, studies=studies, seed=seed)
                print(
                    f"{name:10} {seeds:5} {100 * difference:6.0f} {suits:5.0f} {100 * got.covered:9.1f} "
                    f"{100 * got.half_width:6.1f} {100 * got.seeds_covered:11.1f}",
                    flush=True,
                )


def bootstrap(studies: int, seed: int) -> None:
    print(f"\nCoverage of the bootstrap interval, in % ({studies} studies; true difference 5 points)")
    print(f"{'noise':10} {'seeds':>5} {'crossed':>8} {'seeds only':>11} {'percentile':>11}")
    for name, noise in NOISES.items():
        for seeds in SEEDS:
            arms = [noise.top1, noise.top1 + 0.05]
            crossed = count(noise, arms, seeds=seeds, studies=studies, seed=seed, resamples=999)
            alone = count(noise, arms, seeds=seeds, studies=studies, seed=seed, resamples=999, clips=False)
            plain = percentile(noise, 0.05, seeds=seeds, studies=studies, seed=seed)
            print(
                f"{name:10} {seeds:5} {100 * crossed.boot_covered:8.1f} {100 * alone.boot_covered:11.1f} "
                f"{100 * plain:11.1f}",
                flush=True,
            )


def percentile(noise: Noise, difference: float, *, seeds: int, studies: int, seed: int) -> float:
    """Coverage of the plain percentile bootstrap over seeds, which is not offered."""
    rng = np.random.default_rng(seed)
    held = []
    for _ in range(studies):
        base, other = simulate(noise, [noise.top1, noise.top1 + difference], seeds=seeds, studies=1, rng=rng)[0]
        differences = other.mean(axis=1) - base.mean(axis=1)
        low, high = np.quantile(rng.choice(differences, (999, seeds)).mean(axis=1), (0.025, 0.975))
        held.append(low <= difference <= high)
    return float(np.mean(held))


def looks(studies: int, seed: int) -> None:
    plan = Looks(seeds=(3, 5, 8))
    levels = ", ".join(f"{plan.level(look):.4f}" for look in range(3))
    print(f"\nLooks after 3, 5 and 8 seeds, judged at {levels} ({studies} studies; four arms against a base)")
    print(f"{'noise':10} {'true':>6} {'stop at':>8} {'said, %':>8} {'95 %':>6} {'together':>9} {'seeds':>6}  ended")
    for name, noise in NOISES.items():
        for difference, half_width in ((0.0, None), (0.0, 0.03), (-0.05, None), (-0.1, None), (-0.2, None)):
            plan = Looks(seeds=(3, 5, 8), half_width=half_width)
            quiet = replace(noise, suits=0) if difference == 0 else noise
            got = count_stops(quiet, [noise.top1] + [noise.top1 + difference] * 4, plan, studies=studies, seed=seed)
            ended = ", ".join(f"{reason} {100 * share:.0f} %" for reason, share in sorted(got.reasons.items()))
            print(
                f"{name:10} {100 * difference:6.0f} {half_width or '':>8} {100 * got.families:8.1f} "
                f"{100 * got.covered:6.1f} {100 * got.together:9.1f} {got.seeds:6.1f}  {ended}",
                flush=True,
            )


def power(studies: int, seed: int) -> None:
    differences = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12)
    print("\nPower: the chance, in %, that a difference is called better or worse; by formula, seed noise alone")
    for sd in (0.015, 0.03):
        print(f"sd of paired differences {100 * sd:.1f} points")
        print(f"{'pairs':>6} {'visible':>8} " + " ".join(f"{100 * d:5.0f}" for d in differences))
        for pairs, row in zip(SEEDS, power_curve(differences, sd, SEEDS), strict=True):
            seen = 100 * visible_difference(sd, pairs)
            print(f"{pairs:6} {seen:8.1f} " + " ".join(f"{100 * chance:5.0f}" for chance in row))
    print(f"By simulation, seeds and clips ({studies} studies)")
    for name, noise in NOISES.items():
        print(f"{name:10} " + " ".join(f"{100 * d:5.0f}" for d in differences))
        for seeds in SEEDS:
            row = []
            for difference in differences:
                arms = [noise.top1, noise.top1 - difference]
                got = count(noise, arms, seeds=seeds, studies=studies, seed=seed)
                row.append(got.families)
            print(f"{seeds:10} " + " ".join(f"{100 * chance:5.0f}" for chance in row), flush=True)


if __name__ == "__main__":
    main()
