"""The networks of `nas status --trials`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.accuracies import accuracy_of
from nas.cli.output import print_table
from nas.store import Row, Store


def trial_rows(store: Store, study: Row) -> list[dict[str, Any]]:
    """Every network that a search has begun, by its number, with its last result."""
    from nas.tabular import FIDELITY, rows_of

    names = ("number", "digest", "state", "rung", "epochs", FIDELITY, "macs", "params", "description")
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
    columns |= {"macs": "MACs", "params": "params", "description": "network"}
    print_table([{**row, "digest": row["digest"][:10]} for row in rows], columns, "trials")
