"""Figures of a comparison, and their tables in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.search import gap
from benchmarks.search.methods import Entry
from benchmarks.search.runs import Run
from benchmarks.search.tables import Table
from nas.evidence.values import holm, wilcoxon

Steps = Sequence[tuple[int, float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """A method on a table.

    Attributes:
        entry: The method.
        curves: By seed, where the gap became smaller.
        duplicates: Median percent of trainings from scratch that were paid for a network once more.
        seconds: Median seconds of the search itself for each training from scratch.
    """

    entry: Entry
    curves: Mapping[int, Steps]
    duplicates: float
    seconds: float

    def gaps(self, epochs: int) -> dict[int, float]:
        """By seed, the gap after so many epochs."""
        return {seed: gap.at(steps, epochs) for seed, steps in self.curves.items()}

    def quartiles(self, epochs: int) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of the gap after so many epochs."""
        low, middle, high = np.quantile(list(self.gaps(epochs).values()), [0.25, 0.5, 0.75])
        return float(low), float(middle), float(high)


def figures(table: Table, entry: Entry, runs: Mapping[int, Run]) -> Figures:
    """What the runs of a method on a table come to."""
    started = [max(1, len(gap.started(run.events))) for run in runs.values()]
    return Figures(
        entry=entry,
        curves={seed: gap.curve(table, run.events) for seed, run in runs.items()},
        duplicates=statistics.median(gap.duplicates(run.events) for run in runs.values()),
        seconds=statistics.median(run.seconds / n for run, n in zip(runs.values(), started, strict=True)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Test:
    """A method against the one in focus, at one mark, over the seeds that both have."""

    method: str
    epochs: int
    seeds: int
    wins: int
    p: float


def tests(table: Table, all_figures: Sequence[Figures], focus: str) -> list[Test]:
    """Wilcoxon's signed-rank tests of one method against every other at every mark, p after Holm over all of them."""
    by_name = {f.entry.name: f for f in all_figures}
    if focus not in by_name:
        return []
    raw: list[tuple[str, int, int, int, float]] = []
    for name, other in by_name.items():
        if name == focus:
            continue
        for mark in table.marks:
            mine, theirs = by_name[focus].gaps(mark), other.gaps(mark)
            seeds = sorted(mine.keys() & theirs.keys())
            differences = np.array([theirs[s] - mine[s] for s in seeds])
            p = wilcoxon(differences) if len(seeds) > 1 and differences.any() else 1.0
            raw.append((name, mark, len(seeds), int((differences > 0).sum()), p))
    held = holm([item[-1] for item in raw]) if raw else []
    return [
        Test(method=name, epochs=mark, seeds=seeds, wins=wins, p=p)
        for (name, mark, seeds, wins, _), p in zip(raw, held, strict=True)
    ]


def markdown(table: Table, all_figures: Sequence[Figures], focus: str) -> str:
    """One table's section: medians, quartiles and the tests against the method in focus."""
    unit = f"{table.unit}s"
    lines = [
        f"### {table.title}",
        "",
        f"{len(table):,} networks, fidelities {', '.join(map(str, table.fidelities))} ({unit}), reference error "
        f"{table.reference:.1f} %. Gap in percent, median (quartiles), after so many {unit}.",
        "",
        f"| method | {' | '.join(map(str, table.marks))} | seeds | duplicates | s/training |",
        f"|---|{'---:|' * len(table.marks)}---:|---:|---:|",
    ]
    for f in all_figures:
        cells = [f"{m:.1f} ({a:.1f}–{b:.1f})" for a, m, b in map(f.quartiles, table.marks)]
        lines.append(
            f"| {f.entry.title} | {' | '.join(cells)} | {len(f.curves)} | {f.duplicates:.0f} % | {f.seconds:.2f} |"
        )
    found = tests(table, all_figures, focus)
    if found:
        title = {f.entry.name: f.entry.title for f in all_figures}
        lines += [
            "",
            f"{title[focus]} against each: seeds in which it is better, and p (Wilcoxon, paired by seed; Holm over "
            "this table).",
            "",
            f"| against | {' | '.join(map(str, table.marks))} |",
            f"|---|{'---:|' * len(table.marks)}",
        ]
        for name in dict.fromkeys(test.method for test in found):
            cells = [f"{t.wins} of {t.seeds}, {_p(t.p)}" for t in found if t.method == name]
            lines.append(f"| {title[name]} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def ranks(tables: Mapping[str, Sequence[Figures]], marks: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Mean rank of the median gap over tables and marks, of the methods that every table has; 1 is the best."""
    shared = set.intersection(*({f.entry.name for f in found} for found in tables.values())) if tables else set()
    places: dict[str, list[float]] = {name: [] for name in shared}
    for key, found in tables.items():
        for mark in marks[key]:
            medians = {f.entry.name: f.quartiles(mark)[1] for f in found if f.entry.name in shared}
            for name, value in medians.items():
                below = sum(other < value for other in medians.values())
                equal = sum(other == value for other in medians.values())
                places[name].append(below + (equal + 1) / 2)
    return dict(sorted(((name, statistics.fmean(of)) for name, of in places.items()), key=lambda item: item[1]))


def content(table: Table, all_figures: Sequence[Figures], focus: str) -> dict[str, Any]:
    """The same figures as plain values."""
    return {
        "title": table.title,
        "networks": len(table),
        "fidelities": table.fidelities,
        "unit": table.unit,
        "marks": table.marks,
        "reference": round(table.reference, 4),
        "fingerprint": table.fingerprint,
        "methods": {
            f.entry.name: {
                "title": f.entry.title,
                "seeds": len(f.curves),
                "gap": [[round(v, 3) for v in f.quartiles(mark)] for mark in table.marks],
                "duplicates": round(f.duplicates, 1),
                "seconds": round(f.seconds, 3),
            }
            for f in all_figures
        },
        "tests": [
            {"against": t.method, "mark": t.epochs, "seeds": t.seeds, "wins": t.wins, "p": round(t.p, 5)}
            for t in tests(table, all_figures, focus)
        ],
    }
