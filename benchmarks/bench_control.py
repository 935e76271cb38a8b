"""A/A studies that are really trained: a base against itself with other seeds, ten times, and what is said of it.

    python benchmarks/bench_control.py [studies] [folder]

Needs the motion data (`nas data make motion`). Each study has five pairs of seeds of its own; better or worse may be
said no more often than the promised 5 %.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

STUDY = Path(__file__).parents[1] / "studies" / "ablate_r2plus1d.yaml"
FACTORS = ("kind", "placement", "kernel", "dilation")


def main() -> None:
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("runs/control")
    words: Counter[str] = Counter()
    print("study  difference  interval          word        (points of top-1)")
    for number in range(studies):
        command = [sys.executable, "-c", "from nas.cli.main import run; run()", "ablate", str(STUDY), "data=motion"]
        command += [f"seed={1000 * (number + 1)}", "ablation.epochs=6", "ablation.base.kind=p3d_a"]
        command += ["ablation.design=control", "ablation.against.kind=null"]
        command += [f"ablation.factors.{name}=null" for name in FACTORS]
        command += ["--db", str(folder / f"{number}" / "study.db"), "--json"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        (effect,) = json.loads(done.stdout)["effects"]
        words[effect["word"]] += 1
        low, high = (100 * effect[key] for key in ("low", "high"))
        print(
            f"{number:5}  {100 * effect['difference']:+10.1f}  {low:+6.1f} to {high:+5.1f}  {effect['word']}",
            flush=True,
        )
    print(", ".join(f"{count} {word}" for word, count in sorted(words.items())))


if __name__ == "__main__":
    main()
