"""How long exact costs take: one R3D-18 with nothing remembered, and 10,000 networks sampled from a study; and memory.

    python benchmarks/bench_cost.py [studies/kinetics_small.yaml]

Side by side with one count of the whole network by each independent counter, as a ratio.
"""

from __future__ import annotations

import contextlib
import platform
import random
import resource
import statistics
import subprocess
import sys
import time

import torch

from nas.cost.cost import cost
from nas.study.files import load_study
from search_spaces.catalogue import build, preset
from search_spaces.errors import ClipError
from tests.counters import count_flops, count_thop

COLD = (
    "import time\nfrom nas.cost.cost import cost\nfrom search_spaces.catalogue import preset\nspec = preset('r3d_18')\n"
    "start = time.perf_counter()\ncost(spec, frames=16, height=112, width=112, num_classes=400)\n"
    "print(time.perf_counter() - start)"
)


def main() -> None:
    study = load_study(sys.argv[1] if len(sys.argv) > 1 else "studies/kinetics_small.yaml")
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} threads")
    cold = [
        float(subprocess.run([sys.executable, "-c", COLD], capture_output=True, text=True, check=True).stdout)
        for _ in range(5)
    ]
    shape = (1, 3, 16, 112, 112)
    thop, flops = [], []
    for _ in range(5):
        with torch.device("meta"):
            network = build(preset("r3d_18"), num_classes=400).eval()
        start = time.perf_counter()
        count_thop(network, shape)
        middle = time.perf_counter()
        count_flops(network, shape)
        thop.append(middle - start)
        flops.append(time.perf_counter() - middle)
    one = statistics.median(cold)
    print(f"r3d_18 at 16x112x112, new process: {1000 * one:.0f} ms (median of 5)")
    print(f"  times a thop count of the whole: {statistics.median(thop) / one:.2f}")
    print(f"  times a FlopCounterMode count: {statistics.median(flops) / one:.2f}")
    rng = random.Random(0)
    start = time.process_time()
    points = [study.space.random(rng) for _ in range(10_000)]
    print(f"10,000 networks sampled from {study.name}: {time.process_time() - start:.2f} s of CPU")
    clip = study.data.clip
    start, wall = time.process_time(), time.perf_counter()
    for point in points:
        # A clip that is too small for a network is found out at the same price.
        with contextlib.suppress(ClipError):
            cost(point.spec, frames=clip.frames, height=clip.height, width=clip.width, num_classes=200)
    used, waited = time.process_time() - start, time.perf_counter() - wall
    print(f"  their costs: {used:.2f} s of CPU (at most 10), {waited:.2f} s")
    print(f"  peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB (below 1)")


if __name__ == "__main__":
    main()
