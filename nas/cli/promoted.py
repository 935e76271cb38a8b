"""The promotions of `nas status`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.accuracies import MAP, VIDEO1, accuracy_of, broken_text, interval_text
from nas.cli.output import print_line, print_table
from nas.store import Store

_TESTED = ("split", "top1", "top5", "map_sample", "map_class", "balanced", "clip1", "low", "high", "views", "num_clips")
_COLUMNS = {
    "digest": "digest",
    "seed": "seed",
    "recipe": "recipe",
    "epochs": "epochs",
    "state": "state",
    "split": "split",
    "clip1": "clip@1",
    "accuracy": VIDEO1,
    "interval": "95 % over videos",
    "balanced": "balanced",
    "top5": "video@5",
    "num_clips": "videos",
    "views": "views",
}


def promoted_rows(store: Store, study_id: int) -> list[dict[str, Any]]:
    """The promotions of a study with their tests, oldest first."""
    tested: dict[int, dict[str, Any]] = {}
    for split in ("val", "test"):
        for e in store.evaluations(study_id, purpose="promotion", split=split):
            tested[e["promotion_id"]] = {name: e[name] for name in _TESTED} | {"accuracy": accuracy_of(e)}
    return [
        {
            "digest": p["digest"],
            "seed": p["seed"],
            "recipe_digest": p["recipe_digest"],
            "epochs": p["epochs"],
            "state": p["state"],
            "folder": p["folder"],
            **tested.get(p["id"], {}),
            "broken": broken_text(p["broken"]),
        }
        for p in store.promotions(study_id)
    ]


def print_promoted(rows: Sequence[Mapping[str, Any]], recipes: Mapping[str, str], metric: str) -> None:
    """Prints promotions.

    Args:
        rows: Of `promoted_rows`.
        recipes: `nas.recipes.told_apart`; where there are any, a column says which promotion had which.
        metric: What accuracy is called in the search.
    """
    from nas.recipes import DIGITS, recipe_lines

    lines = [
        {
            **p,
            "digest": p["digest"][:10],
            "recipe": p["recipe_digest"][:DIGITS],
            "interval": interval_text(p.get("low"), p.get("high")),
        }
        for p in rows
    ]
    columns = {name: title for name, title in _COLUMNS.items() if name != "recipe" or recipes}
    if all(p.get("balanced") is None for p in rows):  # of several labels, or of an earlier version
        del columns["balanced"]
    print_table(lines, {**columns, "accuracy": MAP if metric == MAP else VIDEO1}, "promoted")
    for line in recipe_lines(recipes):
        print_line(f"  {line}")
    for p in rows:
        if p["broken"]:
            print_line(f"  promotion of {p['digest'][:10]}, seed {p['seed']}, in training: {p['broken']}")
