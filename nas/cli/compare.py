"""`nas compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.options import JSON
from nas.cli.output import print_json, print_line, print_table
from nas.cli.resolve import open_study

if TYPE_CHECKING:
    from nas.read.compare import Band, Group, Volumes


def compare(
    databases: list[str] = typer.Argument(..., metavar="DB1 DB2 [DB3 …]", help="Databases, or study files."),
    fidelity: int = typer.Option(
        None, "--fidelity", min=1, metavar="EPOCHS", help="Compare at the rung of this many epochs."
    ),
    plot: str = typer.Option(
        None, "--plot", metavar="FILE", help="Also draw it: fronts.html, fronts.svg or fronts.png."
    ),
    as_json: bool = JSON,
) -> None:
    """Compare the fronts of two searches or more; the same study with other seeds makes a band.

    Example: nas compare runs/a/study.db runs/b/study.db
    """
    from nas.read import compare as bands

    searches, epochs = [], {}
    for name in databases:
        with open_study(name, None) as (store, row):
            evaluations, trials = store.evaluations(row["id"]), len(store.trials(row["id"]))
        searches.append(bands.searched(store.location, row, evaluations, trials=trials, fidelity=fidelity))
        epochs[store.location] = bands.full_epochs(row, evaluations)
    bands.check_comparable(searches, epochs)
    groups = bands.grouped(searches)
    volumes = bands.volumes(searches)
    full = [bands.band_of(group) for group in groups]
    differ = bands.differences(groups) if len(groups) > 1 else {}
    if plot is not None:
        from nas.read.plots import draw_bands

        draw_bands(groups, full, Path(plot))
    if as_json:
        print_json(_report(groups, full, volumes, differ))
        return
    budgets = bands.budgets(groups)
    _print_bands(groups, [bands.band_of(group, budgets) for group in groups], budgets)
    _print_volumes(groups, volumes)
    for key, values in differ.items():
        print_line(f"differs in {key}: {', '.join(values)}")
    if plot is not None:
        print_line(f"plot: {plot}")


def _report(
    groups: Sequence[Group], full: Sequence[Band], volumes: Volumes, differ: dict[str, tuple[str, ...]]
) -> dict[str, Any]:
    first = groups[0].members[0]
    return {
        "epochs": first.epochs,
        **({"fidelity": first.part} if first.part else {}),
        "clip": first.clip,
        "num_classes": first.num_classes,
        "num_clips": first.num_clips,
        "reference": {"error": volumes.error, "macs": volumes.macs},
        "groups": [
            {
                "label": group.label,
                "searches": [
                    {
                        "database": one.path,
                        "seed": one.seed,
                        "networks": len(one.macs),
                        "trials": one.trials,
                        "epochs_trained": one.trained,
                        "hypervolume": volumes.by_path[one.path],
                    }
                    for one in group.members
                ],
                "hypervolume": _middle(group, volumes),
                "band": asdict(band),
            }
            for group, band in zip(groups, full, strict=True)
        ],
        "differences": [_difference(groups[0], group, volumes) for group in groups[1:]],
        "settings": {key: list(values) for key, values in differ.items()},
    }


def _middle(group: Group, volumes: Volumes) -> float:
    return median(volumes.by_path[one.path] for one in group.members)


def _difference(first: Group, other: Group, volumes: Volumes) -> dict[str, Any]:
    """The other group's median hypervolume less that of the first, and in how many common seeds it is larger."""
    mine = {one.seed: volumes.by_path[one.path] for one in first.members}
    its = {one.seed: volumes.by_path[one.path] for one in other.members}
    common = sorted(mine.keys() & its.keys())
    return {
        "label": other.label,
        "against": first.label,
        "hypervolume": _middle(other, volumes) - _middle(first, volumes),
        "common_seeds": len(common),
        "larger_in": sum(its[seed] > mine[seed] for seed in common),
    }


def _print_bands(groups: Sequence[Group], bands: Sequence[Band], budgets: Sequence[int]) -> None:
    from nas.read.compare import trained
    from nas.study.metric import short_number

    at = [dict(zip(band.macs, zip(band.median, band.low, band.high, strict=True), strict=True)) for band in bands]
    rows = []
    for budget in budgets:
        row: dict[str, Any] = {"macs": short_number(budget)}
        for i, (group, values) in enumerate(zip(groups, at, strict=True)):
            middle, low, high = values[budget]
            row[f"g{i}"] = f"{middle:.3f}" + (f" ({low:.3f} to {high:.3f})" if len(group.members) > 1 else "")
            if i:
                row[f"d{i}"] = middle - at[0][budget][0]
        rows.append(row)
    columns = {"macs": "within MACs"}
    for i, group in enumerate(groups):
        columns[f"g{i}"] = group.label
        if i:
            columns[f"d{i}"] = "less the first"
    first = groups[0].members[0]
    title = (
        f"best {first.metric} {trained(first)}, on {first.num_clips} val clips of {first.clip} (MACs of one clip); "
        "median and quartiles where there are several seeds"
    )
    print_table(rows, columns, title)


def _print_volumes(groups: Sequence[Group], volumes: Volumes) -> None:
    from nas.study.metric import short_number

    rows = [
        {
            "group": group.label,
            "seed": one.seed,
            "trials": one.trials,
            "trained": round(one.trained),
            "networks": len(one.macs),
            "hypervolume": volumes.by_path[one.path],
            "database": one.path,
        }
        for group in groups
        for one in group.members
    ]
    columns = {
        "group": "study",
        "seed": "seed",
        "trials": "trials",
        "trained": "epochs in all",
        "networks": "networks",
        "hypervolume": "hypervolume",
        "database": "database",
    }
    corner = f"error {volumes.error:.3f} and {short_number(volumes.macs)} MACs"
    print_table(rows, columns, f"hypervolume of error and log MACs, up to {corner}, as a share of that box")
    for group in groups[1:]:
        found = _difference(groups[0], group, volumes)
        seeds = (
            f"; larger in {found['larger_in']} of {found['common_seeds']} common seeds" if found["common_seeds"] else ""
        )
        several = " in the median" if any(len(g.members) > 1 for g in (group, groups[0])) else ""
        print_line(f"{group.label} less {groups[0].label}: {found['hypervolume']:+.3f}{several}{seeds}")
