"""`nas pareto`: the front of a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from nas.cli.options import DB, JSON, STUDY
from nas.cli.output import print_json, print_line, print_table
from nas.cli.resolve import open_study
from nas.errors import StudyError
from nas.study.fidelity import recorded_fidelity
from nas.study.metric import (
    TOP1,
    interval_of,
    interval_text,
)
from nas.study.objectives import ERROR, OBJECTIVES, USUAL, no_front, recorded_floors, recorded_objectives

if TYPE_CHECKING:
    from nas.store.database import Store
    from nas.store.records import StudyRow

FRONT_COLUMNS = {
    "digest": "digest",
    "accuracy": TOP1,
    "interval": "95 %",
    "macs": "MACs",
    "params": "params",
    "description": "network",
}


def pareto(
    study: str = STUDY,
    db: str = DB,
    as_json: bool = JSON,
    plot: str | None = typer.Option(
        None, "--plot", metavar="FILE", help="Also draw it: front.html, front.svg or front.png."
    ),
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
            print_json(store.front(row["name"]))
        else:
            print_front(store, row["name"])
        if plot is not None:
            from nas.read.plots import draw_front

            draw_front(row, store.evaluations(row["id"]), store.front(row["name"]), Path(plot))
            if not as_json:
                print_line(f"plot: {plot}")


def print_front(store: Store, study: str) -> None:
    """Prints the front, with the 95 % interval (Wilson's) that its number of clips gives each top-1."""
    from nas.study.metric import metric_in

    rows = store.front(study)
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


def print_expected(store: Store, row: StudyRow, *, as_json: bool) -> None:
    """Prints the front of what a model expects, with 90 % intervals."""
    from nas.search.calibration import CONFIDENCE, expectations
    from nas.search.estimate import expected_front
    from nas.study.metric import metric_in

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
