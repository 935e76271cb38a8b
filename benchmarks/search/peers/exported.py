"""A table as a peer sees it: the JSON of `python -m benchmarks.search --export`, read with the standard library only.

Each script of this folder runs in an environment of its own, see README.md, and writes what `benchmarks/search/runs.py`
reads.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

NONE = -1


class SpentError(Exception):
    """The next training would cost more than is left."""


class Exported:
    """Known results, and the purse of one search at a time.

    Args:
        path: The table's JSON.
    """

    def __init__(self, path: Path) -> None:
        """Reads the file."""
        content = json.loads(path.read_text(encoding="utf-8"))
        self.name: str = content["name"]
        self.fingerprint: str = content["fingerprint"]
        self.names: list[str] = [setting["name"] for setting in content["settings"]]
        self.values: list[list[Any]] = [setting["values"] for setting in content["settings"]]
        self.rows: list[list[int]] = content["rows"]
        self.owners: list[int] = content["owners"]
        self.macs: list[int] = content["macs"]
        self.fidelities: list[int] = content["fidelities"]
        self.budget: int = content["budget"]
        self.errors: list[list[list[float]]] = content["errors"]
        self.exact = {tuple(row): owner for row, owner in zip(self.rows, self.owners, strict=True)}
        self.seed = 0
        self.spent = 0
        self.events: list[tuple[int, int, int]] = []
        self.found: dict[tuple[int, ...], int | None] = {}

    @property
    def top(self) -> int:
        """Index of the fidelity of a full training."""
        return len(self.fidelities) - 1

    def begin(self, seed: int) -> None:
        """Empties the list of events and fills the purse."""
        self.seed, self.spent, self.events = seed, 0, []

    def find(self, config: Mapping[str, Any]) -> int | None:
        """The network that a value for every setting gives, what does not apply ignored; None if there is none."""
        indices = tuple(of.index(config[name]) for name, of in zip(self.names, self.values, strict=True))
        if indices not in self.found:
            self.found[indices] = self.exact.get(indices, self._search(indices))
        return self.found[indices]

    def _search(self, indices: tuple[int, ...]) -> int | None:
        rows = range(len(self.rows))
        for k, index in enumerate(indices):
            kept = [i for i in rows if self.rows[i][k] in (index, NONE)]
            if not kept:
                return None
            rows = kept  # type: ignore[assignment]
        return self.owners[rows[0]]

    def train(self, network: int, fidelity: int | None = None, *, after: int | None = None) -> float:
        """The error in percent that this seed sees, paid for in epochs from the checkpoint `after`, else from scratch.

        Raises:
            SpentError: The budget does not reach; nothing was paid.
        """
        fidelity = self.top if fidelity is None else fidelity
        cost = self.fidelities[fidelity] - (0 if after is None else self.fidelities[after])
        if self.spent + cost > self.budget:
            raise SpentError
        self.spent += cost
        self.events.append((network, fidelity, self.spent))
        return self.errors[self.seed % len(self.errors)][fidelity][network]

    def log_macs(self, network: int) -> float:
        """Cost as an objective."""
        return math.log10(self.macs[network])


def run(method: str, search: Callable[[Exported, int], None], *, description: str | None) -> None:
    """Runs a search with every seed that is not in the cache yet; the command line of every script of this folder."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("tables", nargs="+", type=Path, help="JSON of --export")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks/search"))
    given = parser.parse_args()
    for path in given.tables:
        table = Exported(path)
        out = given.cache / table.name / f"{method}.json"
        content: dict[str, Any] = {
            "table": table.name,
            "fingerprint": table.fingerprint,
            "budget": table.budget,
            "method": method,
            "runs": {},
        }
        old = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else {}
        if (old.get("fingerprint"), old.get("budget")) == (table.fingerprint, table.budget):
            content["runs"] = old["runs"]
        out.parent.mkdir(parents=True, exist_ok=True)
        for seed in range(given.seeds):
            if str(seed) in content["runs"]:
                continue
            table.begin(seed)
            began = time.process_time()
            with contextlib.suppress(SpentError):
                search(table, seed)
            seconds = round(time.process_time() - began, 3)
            content["runs"][str(seed)] = {"seconds": seconds, "events": table.events}
            out.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
            print(f"{table.name} {method} seed {seed}: {len(table.events)} results, {seconds} s", flush=True)
