"""`nas status`, `nas pareto` and `nas space`: what a study holds and what it has found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nas.accuracies import (
    BALANCED,
    MAP,
    TOP1,
    accuracy_of,
    interval_of,
    interval_text,
    largest_share,
    metric_in,
    recorded_counts,
)
from nas.cli.learned import learned_report, print_learned
from nas.cli.output import Progress, duration, print_json, print_line, print_table, print_words
from nas.cli.promoted import print_promoted, promoted_rows
from nas.cli.resolve import load_target, open_study
from nas.cli.trials import print_trials, trial_rows
from nas.drivers import died_text, drivers_of, training_seconds
from nas.errors import StudyError
from nas.fidelity import recorded_fidelity, worth_of
from nas.objectives import ERROR, OBJECTIVES, USUAL, no_front, recorded_floors, recorded_objectives
from nas.spent import begun_of, worth_of_begun
from nas.store import Row, Store

if TYPE_CHECKING:
    from nas.learned import Learned

STUDY = typer.Argument(..., metavar="STUDY|DB", help="A study file, or a database.")
DB = typer.Option(None, "--db", help="The database, where it is not runs/<study>/study.db.")
JSON = typer.Option(False, "--json", help="Print JSON.")

FRONT_COLUMNS = {
    "digest": "digest",
    "accuracy": TOP1,
    "interval": "95 %",
    "macs": "MACs",
    "params": "params",
    "description": "network",
}


def status(
    study: str = STUDY,
    db: str = DB,
    trials: bool = typer.Option(False, "--trials", help="Also list every network of the search with its digest."),
    as_json: bool = JSON,
) -> None:
    """Show how far a search is: rungs, trials, failures, time.

    Example: nas status studies/kinetics_small.yaml
    """
    from nas.budget import recorded_budget

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


def status_report(store: Store, row: Row) -> dict[str, Any]:
    """What `nas status` shows, as plain values."""
    from nas.recipes import told_apart

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


def _learned(store: Store, row: Row) -> tuple[Learned, tuple[float, float] | None]:
    """What the search has learned, and the seconds that its drivers have spent in decisions and in all."""
    from nas.learned import deciding, learned_of

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


def _left(store: Store, row: Row, now: datetime) -> dict[str, Any] | None:
    """The time that a search under way still needs: `low`, `middle`, `high` in seconds, and `text`."""
    from dataclasses import asdict

    from nas.watching import frame_of

    left = frame_of(store, row, now).left
    return None if left is None else {**asdict(left), "text": str(left)}


def pareto(
    study: str = STUDY,
    db: str = DB,
    as_json: bool = JSON,
    plot: str | None = typer.Option(None, "--plot", metavar="FILE", help="Also draw it: front.html or front.png."),
    expected: bool = typer.Option(
        False, "--expected", help="The front of what a model expects of the networks after all results."
    ),
) -> None:
    """Show the Pareto front of accuracy against MACs at the highest fidelity reached.

    Example: nas pareto studies/kinetics_small.yaml --plot front.html
    """
    with open_study(study, db) as (store, row):
        if expected:
            if plot is not None:
                raise StudyError("--plot draws the front as it was measured; leave out --expected")
            print_expected(store, row, as_json=as_json)
            return
        if as_json:
            print_json(front_rows(store, row["name"]))
        else:
            print_front(store, row["name"])
        if plot is not None:
            from nas.plots import draw_front

            draw_front(row, store.evaluations(row["id"]), store.pareto_front(row["name"]), Path(plot))
            if not as_json:
                print_line(f"plot: {plot}")


def front_rows(store: Store, study: str) -> list[Row]:
    """The front as the view `pareto_front` has it."""
    return store.pareto_front(study)


def print_front(store: Store, study: str) -> None:
    """Prints the front, with the 95 % interval (Wilson's) that its number of clips gives each top-1."""
    rows = front_rows(store, study)
    record = store.study(study)
    if not rows:
        print_line(no_front(record, store.evaluations(record["id"])))
        return
    metric = metric_in(store, record["id"])
    lines = [
        {
            **row,
            "digest": row["digest"][:10],
            "interval": interval_text(*(interval_of(row["accuracy"], row["num_clips"], metric) or (None, None))),
        }
        for row in rows
    ]
    columns = {name: title for name, title in FRONT_COLUMNS.items() if name != "interval" or metric == TOP1}
    objectives = recorded_objectives(record)
    others = {name: OBJECTIVES[name].title for name in objectives if name != ERROR and name not in columns}
    seeds = {"seeds": "seeds"} if any(one["seeds"] > 1 for one in rows) else {}
    columns = {"digest": columns.pop("digest"), "accuracy": columns.pop("accuracy"), **others, **columns, **seeds}
    columns["description"] = columns.pop("description")
    place = recorded_fidelity(record).at_epochs(rows[0]["epochs"])
    of = "" if objectives == USUAL else f" of {', '.join([metric, *(OBJECTIVES[one].title for one in objectives[1:])])}"
    clips = f"{rows[0]['num_clips']} val clips of {record['clip']}"
    title = f"{study}: Pareto front{of} {place}, on {clips} (MACs of one clip)"
    print_table(lines, {**columns, "accuracy": metric}, title)


def print_expected(store: Store, row: Row, *, as_json: bool) -> None:
    """Prints the front of what a model expects, with 90 % intervals."""
    from nas.calibration import CONFIDENCE, expectations
    from nas.search.estimate import expected_front

    specs = {one["digest"]: one["spec"] for one in store.architectures(row["clip"], row["num_classes"])}
    objectives = recorded_objectives(row)
    evaluations = store.evaluations(row["id"])
    stated = expectations(store.jobs(row["id"]), evaluations, len(recorded_fidelity(row)))
    widening = stated[-1].widening if stated else 1.0
    rows = expected_front(evaluations, specs, objectives, widening=widening, floors=recorded_floors(row))
    if as_json:
        print_json(rows)
        return
    if not rows:
        print_line(no_front(row, evaluations))
        return
    metric = metric_in(store, row["id"])
    others = {name: OBJECTIVES[name].title for name in objectives if name not in (ERROR, "macs", "params")}
    lines = [
        {**one, "digest": one["digest"][:10], "interval": interval_text(one["expected_low"], one["expected_high"])}
        for one in rows
    ]
    columns = {
        "digest": "digest",
        "expected": f"expected {metric}",
        "interval": f"{100 * CONFIDENCE:.0f} %",
        "accuracy": metric,
        **others,
        "seeds": "seeds",
        "macs": "MACs",
        "params": "params",
        "description": "network",
    }
    place = recorded_fidelity(row).at_epochs(rows[0]["epochs"])
    print_table(lines, columns, f"{row['name']}: Pareto front of what a model expects {place} (MACs of one clip)")


def space(
    study: str = STUDY,
    overrides: list[str] = typer.Argument(None, metavar="[key=value …]", help="Settings laid over the file."),
    as_json: bool = JSON,
) -> None:
    """Show a study's space: its domains, its size, and what its constraints leave of it.

    Example: nas space studies/kinetics_small.yaml data=motion
    """
    loaded = load_target(study, overrides or [])
    if not loaded.num_classes:
        raise StudyError(
            f"data.num_classes must be stated to count costs before the data is read, but is 0 in {study}; add it, or "
            "give data.num_classes=…"
        )
    from nas.search.pool import build_pool

    size = loaded.space.size()
    progress = Progress("networks costed")
    pool = build_pool(loaded, num_classes=loaded.num_classes, progress=progress.update)
    progress.close()
    strata = Counter(candidate.stratum for candidate in pool.candidates)
    report: dict[str, Any] = {
        "study": loaded.name,
        "clip": loaded.data.shape,
        "num_classes": loaded.num_classes,
        "domains": {
            f"{space.family}.{d.name}": {"values": list(d.values), "per": d.per}
            for space in loaded.space.families
            for d in space.domains
        },
        "families": dict(Counter(candidate.spec.family for candidate in pool.candidates)),
        "settings": size.settings,
        "networks": size.networks,
        "exact": size.exact,
        "pool": len(pool.candidates),
        "whole": pool.whole,
        "dropped": dict(pool.dropped),
        "note": pool.note,
        "macs": [pool.candidates[0].cost.macs, pool.candidates[-1].cost.macs],
        "params": [
            min(c.cost.params for c in pool.candidates),
            max(c.cost.params for c in pool.candidates),
        ],
        "strata": [strata[i] for i in range(loaded.search.strata)],
    }
    if as_json:
        print_json(report)
        return
    rows = [
        {"domain": name, "per": d["per"], "values": ", ".join(str(v) for v in d["values"])}
        for name, d in report["domains"].items()
    ]
    print_table(rows, {"domain": "domain", "per": "per", "values": "values"}, f"{loaded.name}: space")
    kind = "distinct networks" if size.exact else "settings, an upper bound of its distinct networks"
    print_line(f"size: {size.networks if size.exact else size.settings:,} {kind}")
    drawn = "all of it" if pool.whole else "a random draw"
    print_line(f"pool: {len(pool.candidates):,} networks ({drawn}), by cost class {report['strata']}")
    for reason, count in pool.dropped.items():
        print_line(f"dropped{',' if reason.startswith(('does not', 'cannot')) else ' by'} {reason}: {count:,}")
    if pool.note:
        print_line(pool.note)
    print_line(f"MACs of one {report['clip']} clip: {report['macs'][0]:,} to {report['macs'][1]:,}")
