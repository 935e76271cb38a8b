"""`nas status`: what a study holds, its trials and its promotions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.options import DB, JSON, STUDY
from nas.cli.output import duration, print_json, print_line, print_table, print_words
from nas.cli.resolve import open_study
from nas.cli.watch import learned_report, print_learned
from nas.store.drivers import begun_of, died_text, drivers_of, training_seconds, worth_of_begun
from nas.study.fidelity import recorded_fidelity, worth_of
from nas.study.metric import (
    BALANCED,
    MAP,
    VIDEO1,
    accuracy_of,
    broken_text,
    interval_of,
    interval_text,
    largest_share,
    recorded_counts,
)
from nas.study.objectives import recorded_floors, recorded_objectives

if TYPE_CHECKING:
    from nas.read.learned import Learned
    from nas.store.database import Store
    from nas.store.records import StudyRow


def trial_rows(store: Store, study: StudyRow) -> list[dict[str, Any]]:
    """Every network that a search has begun, by its number, with its last result."""
    from nas.read.rows import EXPECTED, FIDELITY, rows_of

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
    from nas.store.records import subset

    tested: dict[int, dict[str, Any]] = {}
    for split in ("val", "test"):
        for e in store.evaluations(study_id, purpose="promotion", split=split):
            tested[e["promotion_id"]] = subset(e, _TESTED) | {"accuracy": accuracy_of(e)}
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
    from nas.search.budget import recorded_budget

    with open_study(study, db) as (store, row):
        learned, deciding_seconds = _learned(store, row)
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


def status_report(store: Store, row: StudyRow) -> dict[str, Any]:
    """What `nas status` shows, as plain values."""
    from nas.study.metric import metric_in
    from nas.train.recipe_names import told_apart

    search, metric = row["config"]["search"], metric_in(store, row["id"])
    evaluations = store.evaluations(row["id"])
    trials = store.trials(row["id"])
    rungs = []
    fidelity = recorded_fidelity(row)
    for rung, epochs in enumerate(fidelity.ends):
        reached = [e for e in evaluations if e["rung"] == rung]
        first = max(reached, key=accuracy_of, default=None)
        best = None if first is None else accuracy_of(first)
        clips = reached[0]["num_clips"] if reached else 0
        low, high = (None, None) if best is None else interval_of(best, clips, metric) or (None, None)
        label = fidelity.label(rung)
        rungs.append(
            {
                "rung": rung,
                "fidelity": label,
                "epochs": epochs,
                "networks": len(reached),
                "best": best,
                "low": low,
                "high": high,
                "balanced": None if first is None else first["balanced"],
                "num_clips": clips or None,
            }
        )
    now = datetime.now(UTC)
    drivers = drivers_of(store, row["id"], now)
    spent = {kind: [one for one in drivers if one.kind == kind] for kind in ("search", "ablation", "promotion")}
    latest = drivers[-1] if drivers else None
    last = {e["trial_id"]: e["epochs"] for e in evaluations}
    begun = begun_of(store.location, store.jobs(row["id"]), evaluations, fidelity).values()
    return {
        "study": row["name"],
        "database": store.location,
        "metric": metric,
        "largest_class": largest_share(*recorded_counts(row["data"])),
        "rungs": rungs,
        "trials": len(trials),
        "budget": search["trials"],
        "states": dict(Counter(t["state"] for t in trials)),
        "failures": [
            {"number": t["number"], "digest": t["digest"], "reason": t["reason"], "detail": t["detail"]}
            for t in trials
            if t["state"] == "failed"
        ],
        "preempted": len(store.jobs(row["id"], "preempted")),
        "epochs_trained": sum(last.values()) + sum(one.gained for one in begun),
        "full_epochs_worth": worth_of(fidelity, evaluations) + worth_of_begun(fidelity, begun),
        "driver": None if latest is None or not latest.alive else latest.kind,
        "died_at": latest.seen.isoformat() if latest is not None and latest.died else None,
        "seconds": sum(one.seconds for one in spent["search"]),
        "busy_seconds": sum(one.session["busy_seconds"] or 0.0 for one in spent["search"]),
        "training_seconds": training_seconds(store, row["id"], drivers, now),
        "sessions": len(spent["search"]),
        "left": _left(store, row, now),
        "ablation_seconds": sum(one.seconds for one in spent["ablation"]),
        "ablation_sessions": len(spent["ablation"]),
        "promotion_seconds": sum(one.seconds for one in spent["promotion"]),
        "promotion_sessions": len(spent["promotion"]),
        "promotions": promoted_rows(store, row["id"]),
        "recipes": told_apart(store.promotions(row["id"])),
    }


def _learned(store: Store, row: StudyRow) -> tuple[Learned, tuple[float, float] | None]:
    """What the search has learned, and the seconds that its drivers have spent in decisions and in all."""
    from nas.read.learned import deciding, learned_of

    evaluations, trials = store.evaluations(row["id"]), store.trials(row["id"])
    learned = learned_of(
        evaluations,
        trials,
        store.jobs(row["id"]),
        len(recorded_fidelity(row)),
        recorded_objectives(row),
        recorded_floors(row),
    )
    return learned, deciding(drivers_of(store, row["id"], datetime.now(UTC)))


def _shows_balanced(report: Mapping[str, Any]) -> bool:
    """Whether balanced accuracy stands beside what decides; an earlier version did not measure it."""
    return report["metric"] != BALANCED and any(line["balanced"] is not None for line in report["rungs"])


def _left(store: Store, row: StudyRow, now: datetime) -> dict[str, Any] | None:
    """The time that a search under way still needs: `low`, `middle`, `high` in seconds, and `text`."""
    from dataclasses import asdict

    from nas.read.status import frame_of

    left = frame_of(store, row, now).left
    return None if left is None else {**asdict(left), "text": str(left)}
