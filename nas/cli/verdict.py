"""`nas verdict`: a document's claims beside what was measured."""

from __future__ import annotations

from typing import Any

import typer

from nas.accuracies import in_points, intervals, metric_in
from nas.cli.output import print_json, print_line, print_table

COLUMNS = {
    "claim": "claim",
    "stated": "stated",
    "difference": "measured",
    "low": "low",
    "high": "high",
    "pairs": "pairs",
    "word": "verdict",
    "document": "document",
}


def verdict(
    study: str = typer.Argument(..., metavar="STUDY", help="The study file, whose claims are asked about."),
    overrides: list[str] = typer.Argument(None, metavar="[key=value …]", help="Settings laid over the file."),
    db: str = typer.Option(None, "--db", help="The database, where it is not runs/<study>/study.db."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
) -> None:
    """Say which claims of a study's documents were reproduced, contradicted or left undecided.

    Differences are in points of top-1, or of mAP, with the interval that the word rests on.

    Example: nas verdict studies/p3d_blocks.yaml data=motion
    """
    from nas.ablation.answer import level_of
    from nas.ablation.prepare import config_of
    from nas.ablation.verdict import (
        changed,
        keep_verdicts,
        latest,
        left_out,
        recorded_config,
        under_way,
        verdicts_of,
    )
    from nas.cli.resolve import database_for, load_target
    from nas.errors import StudyError
    from nas.store import Store

    loaded = load_target(study, overrides or [])
    config = config_of(loaded, study)
    if not config.claims:
        raise StudyError(f"ablation.claims of {study} is empty, so there is nothing to hold against the results")
    with Store(database_for(loaded.name, db)) as store:
        row = store.study(loaded.name)
        ablation = latest(store, row)
        asked, config = config, recorded_config(store, ablation, config.claims)
        differ = changed(asked, config)
        found, confidence = verdicts_of(store, ablation, config), 1 - level_of(store, ablation["id"], config)
        keep_verdicts(store, row, ablation, found)
        early = under_way(store, ablation, config)
        metric, searched = metric_in(store, row["id"]), left_out(store, row, ablation)
    rows: list[dict[str, Any]] = [
        {
            "claim": item.claim.text,
            "stated": None if item.claim.stated is None else f"{item.claim.stated:+.1f}",
            "difference": _points(item.difference),
            "low": _points(item.low),
            "high": _points(item.high),
            "pairs": item.pairs,
            "word": item.word,
            "document": item.claim.document,
        }
        for item in found
    ]
    if as_json:
        print_json(
            {
                "study": loaded.name,
                "ablation": ablation["name"],
                "confidence": confidence,
                "differs": {name: {"now": now, "recorded": then} for name, (now, then) in differ.items()},
                "verdicts": rows,
            }
        )
        return
    what = f"differences of val {metric} in points, {intervals(confidence)}"
    title = f"{loaded.name}: claims against {ablation['name']}, {what}"
    print_table(rows, COLUMNS, title)
    if differ:
        settings = ", ".join(f"{name} {then}, now {now}" for name, (now, then) in differ.items())
        print_line(f"note: {ablation['name']} was begun with other settings, which count here: {settings}")
    if early:
        print_line(
            f"note: {ablation['name']} is under way; claims are decided when it ends (`nas ablate` again goes on)"
        )
    if searched:
        trainings = "1 training of the search is" if searched == 1 else f"{searched} trainings of the search are"
        print_line(
            f"{trainings} left out: a result that selected a network is no evidence for it; "
            "`nas ablate` again trains with other seeds"
        )


def _points(value: float | None) -> str | None:
    return None if value is None else in_points(value)
