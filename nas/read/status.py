"""What a study holds, as plain values: what `nas status` shows."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from nas.read.learned import Learned, deciding, learned_of
from nas.read.rows import EXPECTED, FIDELITY, rows_of
from nas.read.watch import frame_of
from nas.store.database import Store
from nas.store.drivers import begun_of, drivers_of, training_seconds, worth_of_begun
from nas.store.records import StudyRow, subset
from nas.study.fidelity import recorded_fidelity, worth_of
from nas.study.metric import accuracy_of, broken_text, interval_of, largest_share, metric_in, recorded_counts
from nas.study.objectives import recorded_floors, recorded_objectives
from nas.train.recipe_names import told_apart


def status_report(store: Store, row: StudyRow) -> dict[str, Any]:
    """What `nas status` shows, as plain values."""
    search, metric = row["config"]["search"], metric_in(store, row["id"])
    jobs = store.jobs(row["id"])  # before results: a job that ends meanwhile counts as one or the other
    trials = store.trials(row["id"])
    evaluations = store.evaluations(row["id"])
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
    begun = begun_of(store.location, jobs, evaluations, fidelity).values()
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


def search_learned(store: Store, row: StudyRow) -> tuple[Learned, tuple[float, float] | None]:
    """What the search has learned, and the seconds that its drivers have spent in decisions and in all."""
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


def trial_rows(store: Store, study: StudyRow) -> list[dict[str, Any]]:
    """Every network that a search has begun, by its number, with its last result."""
    names = ("number", "digest", "state", "rung", "epochs", FIDELITY, "macs", "params", *EXPECTED, "description")
    return [
        {
            **{name: row[name] for name in names if name in row},
            "accuracy": None if row["top1"] is None else accuracy_of({**row, "chosen_by": study["accuracy"]}),
        }
        for row in rows_of(store, study, "trials")
    ]


_TESTED = ("split", "top1", "top5", "map_sample", "map_class", "balanced", "clip1", "low", "high", "views", "num_clips")


def promoted_rows(store: Store, study_id: int) -> list[dict[str, Any]]:
    """The promotions of a study with their tests, oldest first."""
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


def _left(store: Store, row: StudyRow, now: datetime) -> dict[str, Any] | None:
    """The time that a search under way still needs: `low`, `middle`, `high` in seconds, and `text`."""
    left = frame_of(store, row, now).left
    return None if left is None else {**asdict(left), "text": str(left)}
