"""How long `nas --help` and `nas pareto` take to start, beside an empty Python and `import torch`.

python benchmarks/bench_startup.py [runs/kinetics_small/study.db]
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 7


def seconds(command: list[str]) -> float:
    """Median wall time of a command."""
    times = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    nas = [str(Path(sys.executable).with_name("nas"))]
    empty = seconds([sys.executable, "-c", ""])
    rows = [("nas --help", [*nas, "--help"])]
    if len(sys.argv) > 1:
        rows.append((f"nas pareto {sys.argv[1]}", [*nas, "pareto", sys.argv[1]]))
    rows.append(("import torch", [sys.executable, "-c", "import torch"]))
    print(f"Python {sys.version.split()[0]}; an empty interpreter takes {empty:.3f} s; medians of {RUNS}")
    for name, command in rows:
        taken = seconds(command)
        print(f"{name}: {taken:.3f} s, {taken / empty:.1f} times an empty interpreter")


if __name__ == "__main__":
    main()
