"""Which order of a rung finds the better front? Measured on NAS-Bench-Macro (6,561 networks, three seeds, exact MACs).

    python benchmarks/bench_orders.py path/to/nas_bench_macro_cifar10.json

The table has final accuracies only. A rung below the last is made up: its error is the final one of one seed plus
noise that shrinks with training, plus a delay that grows with log MACs (large networks learn later), both stated below.
Score: the gap, in percent, between the hypervolume of the mean accuracies of the networks at the last rung and that of
the true front; lower is better. Seeds are paired by the networks that are started.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
from pathlib import Path

from benchmarks.search.decisions import run_on_table
from nas.search.scheduler import Rules
from nas.study.front import hypervolume
from nas.study.schema import OrderBy

RUNGS = (1, 3, 9, 27)
NOISE = (2.0, 1.0, 0.5, 0.0)  # points of accuracy, one standard deviation, at each rung
DELAY = (6.0, 3.0, 1.0, 0.0)  # points that the dearest network is behind at each rung, the cheapest none
SEEDS = 20
TRIALS = 243
METHODS: tuple[tuple[OrderBy, int], ...] = (("fronts", 1), ("fronts", 3), ("hypervolume", 1), ("hypervolume", 3))


def main() -> None:
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        sys.exit("usage: python benchmarks/bench_orders.py nas_bench_macro_cifar10.json")
    rows = list(json.loads(Path(sys.argv[1]).read_text()).values())
    macs = [int(row["flops"]) for row in rows]
    mean = [100 - statistics.fmean(row["test_acc"]) for row in rows]
    low, high = math.log10(min(macs)), math.log10(max(macs))
    place = [(math.log10(m) - low) / (high - low) for m in macs]
    reference = (20.0, 1.05)
    best = hypervolume(list(zip(mean, place, strict=True)), reference)

    def gap(order: OrderBy, strata: int, seed: int) -> float:
        started = random.Random(seed).sample(range(len(rows)), TRIALS)

        def error(row: int, rung: int) -> float:
            noise = random.Random(f"{seed} {row} {rung}").gauss(0, NOISE[rung])
            return 100 - float(rows[row]["test_acc"][seed % 3]) + noise + DELAY[rung] * place[row]

        run = run_on_table(
            macs=macs,
            error=error,
            choose=lambda tried: started[len(tried)],
            rules=Rules(num_rungs=len(RUNGS), eta=3, num_trials=TRIALS, order=order),
            rungs=RUNGS,
            strata=strata,
        )
        last = [run.networks[entry.number] for entry in run.ledger.members(len(RUNGS) - 1)]
        return 100 * (1 - hypervolume([(mean[i], place[i]) for i in last], reference) / best)

    print(f"{TRIALS} networks, rungs {RUNGS}, {SEEDS} seeds; gap to the true front's hypervolume in percent")
    print("order        strata  median  quartiles      beats fronts without strata")
    base: list[float] = []
    for order, strata in METHODS:
        gaps = [gap(order, strata, seed) for seed in range(SEEDS)]
        base = base or gaps
        q = statistics.quantiles(gaps, n=4)
        wins = sum(a < b for a, b in zip(gaps, base, strict=True))
        print(f"{order:<12} {strata:>6}  {q[1]:>6.1f}  {q[0]:.1f} to {q[2]:.1f}   {wins} of {SEEDS}", flush=True)


if __name__ == "__main__":
    main()
