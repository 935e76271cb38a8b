"""What searches did, kept as JSON: one file for each table and method, so that a comparison goes on where it stopped.

`<cache>/<table>/<method>.json` holds the fingerprint of the table, the budget, and for each seed its events and the
seconds of the search itself. Scripts of `benchmarks/search/peers/` write the same. Results of another table of that
name, or of another budget, are not used.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.search.methods import Entry
from benchmarks.search.purse import Event
from benchmarks.search.tables import Table


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One search: its events, and the seconds that proposals and decisions took."""

    events: tuple[Event, ...]
    seconds: float


def path_of(cache: Path, table: Table, method: str) -> Path:
    """Where the results of a method on a table are kept."""
    return cache / table.name / f"{method}.json"


def read(cache: Path, table: Table, method: str) -> dict[int, Run]:
    """Results by seed; {} where there are none of this very table and budget."""
    path = path_of(cache, table, method)
    if not path.is_file():
        return {}
    kept = json.loads(path.read_text(encoding="utf-8"))
    if (kept["fingerprint"], kept["budget"]) != (table.fingerprint, table.budget):
        return {}
    return {
        int(seed): Run(events=tuple(Event(*event) for event in run["events"]), seconds=run["seconds"])
        for seed, run in kept["runs"].items()
    }


def write(cache: Path, table: Table, method: str, runs: dict[int, Run]) -> None:
    """Replaces the results of a method on a table."""
    path = path_of(cache, table, method)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "table": table.name,
        "fingerprint": table.fingerprint,
        "budget": table.budget,
        "method": method,
        "runs": {str(seed): {"seconds": round(run.seconds, 3), "events": run.events} for seed, run in runs.items()},
    }
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
    part.replace(path)


def complete(cache: Path, table: Table, entry: Entry, seeds: Iterable[int]) -> dict[int, Run]:
    """Runs the seeds that a method lacks on a table, and returns those asked for that there are.

    Raises:
        AssertionError: A method spent more than its budget, or went back in epochs.
    """
    wanted = list(seeds)[: entry.slow]
    runs = read(cache, table, entry.name)
    for seed in wanted:
        if seed in runs or entry.run is None:
            continue
        began = time.process_time()
        events = tuple(Event(*event) for event in entry.run(table, seed, table.budget))
        spent = [event.epochs for event in events]
        assert spent == sorted(spent) and (not spent or spent[-1] <= table.budget), f"{entry.name} overspent"
        runs[seed] = Run(events=events, seconds=time.process_time() - began)
        write(cache, table, entry.name, runs)
    return {seed: runs[seed] for seed in wanted if seed in runs}
