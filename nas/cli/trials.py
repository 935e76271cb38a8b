"""The networks of `nas status --trials`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.accuracies import accuracy_of, interval_text
from nas.cli.output import print_table
from nas.store import Row, Store


def trial_rows(store: Store, study: Row) -> list[dict[str, Any]]:
    """Every network that a search has begun, by its number, with its last result."""
    from nas.tabular import EXPECTED, FIDELITY, rows_of

    names = ("number", "digest", "state", "rung", "epochs", FIDELITY, "macs", "params", *EXPECTED, "description")
    return [
        {
            **{name: row[name] for name in names if name in row},
            "accuracy": None if row["top1"] is None else accuracy_of({**row, "chosen_by": study["accuracy"]}),
        }
        for row in rows_of(store, study, "trials")
    ]


def print_trials(rows: Sequence[Mapping[str, Any]], metric: str) -> None:
    """Prints `trial_rows`, each with the beginning of its digest, by which commands find it."""
    fidelity = {"fidelity": "fidelity"} if any("fidelity" in row for row in rows) else {"epochs": "epochs"}
    columns = {"number": "trial", "digest": "digest", "state": "state", **fidelity, "accuracy": metric}
    if any("expected" in row for row in rows):
        columns |= {"expected": f"expected {metric}", "interval": "90 %", "gain": "gain"}
    columns |= {"macs": "MACs", "params": "params", "description": "network"}
    shown = [
        {
            **row,
            "digest": row["digest"][:10],
            "interval": interval_text(row.get("expected_low"), row.get("expected_high")),
            "gain": "" if row.get("expected_gain") is None else f"{row['expected_gain']:.2g}",
        }
        for row in rows
    ]
    print_table(shown, columns, "trials")
