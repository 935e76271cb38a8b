"""`nas status`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.options import DB, JSON, STUDY
from nas.cli.output import duration, print_json, print_line, print_table, print_words
from nas.cli.resolve import open_study
from nas.cli.watch import learned_report, print_learned
from nas.store.drivers import died_text
from nas.study.fidelity import recorded_fidelity
from nas.study.metric import (
    BALANCED,
    MAP,
    VIDEO1,
    interval_text,
)

if TYPE_CHECKING:
    pass


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


def print_promoted(rows: Sequence[Mapping[str, Any]], recipes: Mapping[str, str], metric: str) -> None:
    """Prints promotions.

    Args:
        rows: Of `promoted_rows`.
        recipes: `nas.train.recipe_names.told_apart`; where there are any, a column says which promotion had which.
        metric: What accuracy is called in the search.
    """
    from nas.train.recipe_names import DIGITS, recipe_lines

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


def status(
    study: str = STUDY,
    db: str = DB,
    trials: bool = typer.Option(False, "--trials", help="Also list every network of the search with its digest."),
    as_json: bool = JSON,
) -> None:
    """Show how far a search is: rungs, trials, failures, time.

    Example: nas status studies/kinetics_small.yaml
    """
    from nas.read.status import search_learned, status_report, trial_rows
    from nas.search.budget import recorded_budget

    with open_study(study, db) as (store, row):
        learned, deciding_seconds = search_learned(store, row)
        budget = recorded_budget(row)
        report = {**status_report(store, row), **learned_report(learned, budget, deciding_seconds)}
        if trials:
            report["networks"] = trial_rows(store, row)
        if as_json:
            print_json(report)
            return
        print_line(f"{report['study']} ({store.location}), clip {row['clip']}, {row['num_classes']} classes")
        counts = row["data"]["clips"]
        clips = ", ".join(f"{counts[split]} {split}" for split in ("train", "val", "test") if split in counts)
        print_words(f"data: {row['data']['name']}, {clips} clips; {len(row['data']['broken'])} videos left out")
        if report["metric"] != MAP and not row["data"].get("multi_label"):
            largest = report["largest_class"]
            always = "" if largest is None else f"; always naming the largest class: {largest:.3f} of val"
            print_words(f"chance: {1 / row['num_classes']:.3f}, of balanced accuracy too{always}")
        continues = recorded_fidelity(row).continues
        print_table(
            [{**line, "interval": interval_text(line["low"], line["high"])} for line in report["rungs"]],
            {
                "rung": "rung",
                **({} if continues else {"fidelity": "fidelity"}),
                "epochs": "epochs" if continues else "epochs in all",
                "networks": "networks",
                "best": f"best {report['metric']}",
                **({"interval": "95 %"} if any(line["low"] is not None for line in report["rungs"]) else {}),
                **({"balanced": BALANCED} if _shows_balanced(report) else {}),
                "num_clips": "val clips",
            },
        )
        states = ", ".join(f"{count} {state}" for state, count in report["states"].items())
        over = report["trials"] > report["budget"]
        asked = f", search.trials is now {report['budget']}" if over else f" of {report['budget']}"
        print_words(f"trials: {report['trials']}{asked} ({states or 'none'})")
        for failure in report["failures"]:
            print_words(f"  trial {failure['number']} failed: {failure['reason']}: {failure['detail']}")
        if trials:
            print_trials(report["networks"], report["metric"])
        if report["promotions"]:
            print_promoted(report["promotions"], report["recipes"], report["metric"])
        print_learned(learned, budget, deciding_seconds, recorded_fidelity(row), report["metric"])
        worth = "" if continues else f" (worth {report['full_epochs_worth']:.1f} of full fidelity)"
        print_words(
            f"spent: {report['epochs_trained']:,} epochs{worth}, {duration(report['seconds'])} in {report['sessions']} "
            f"session(s), {duration(report['training_seconds'])} of training; {report['preempted']} job(s) were "
            "pre-empted"
        )
        for kind in ("ablation", "promotion"):
            seconds, sessions = report[f"{kind}_seconds"], report[f"{kind}_sessions"]
            if sessions:
                print_words(f"{kind}s: {duration(seconds)} in {sessions} session(s)")
        if report["driver"] is not None:
            print_words(f"a driver is at work: {report['driver']}")
            if report["left"]:
                print_words(f"under way: {report['left']['text']}")
        if report["died_at"] is not None:
            print_words(died_text(report["died_at"]))


def _shows_balanced(report: Mapping[str, Any]) -> bool:
    """Whether balanced accuracy stands beside what decides; an earlier version did not measure it."""
    return report["metric"] != BALANCED and any(line["balanced"] is not None for line in report["rungs"])
