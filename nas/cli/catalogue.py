"""`nas presets` and `nas path`: the published networks, and the way from one network to another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from nas.cli.networks import CLASSES, CLIP, DB, JSON, STUDY, clip_and_classes, clip_name, parse_clip
from nas.cli.output import print_json, print_table
from nas.cli.resolve import find_spec

if TYPE_CHECKING:
    from search_spaces.family import Preset
    from search_spaces.spec import ArchSpec


def presets(
    as_json: bool = JSON,
    clip: str = CLIP,
    num_classes: int = CLASSES,
    family: str = typer.Option(None, "--family", help="Only this family of networks."),
) -> None:
    """List the published networks with their cost at their own clip, and cited accuracies in a column of their own.

    Example: nas presets --family slowfast
    """
    from search_spaces import catalogue, codec
    from search_spaces.presets import PRESETS

    if family is not None:
        catalogue.family(family)
    classes = num_classes or 400
    rows: list[dict[str, Any]] = []
    for name, entry in PRESETS.items():
        if family not in (None, entry.family):
            continue
        shape = parse_clip(clip) if clip else (3, *entry.clip)
        spec = entry.make(shape[1])
        rows.append(
            {
                "name": name,
                "family": entry.family,
                "year": entry.year,
                "paper": entry.paper,
                "digest": codec.digest(spec),
                "clip": clip_name(shape),
                "num_classes": classes,
                **_price(spec, shape, classes),
                "cited": _cited(entry),
            }
        )
    if as_json:
        print_json(rows)
        return
    table = [
        {
            **row,
            "year": str(row["year"]),
            "cited": _short(row["cited"]),
        }
        for row in rows
    ]
    columns = {"name": "name", "family": "family", "year": "year", "clip": "clip", "params": "params", "macs": "MACs"}
    title = f"{len(rows)} published networks; params and MACs of one clip, {classes} classes"
    print_table(table, {**columns, "cited": "cited, in % (all with their sources: --json)"}, title)


def path(
    a: str = typer.Argument(..., metavar="A"),
    b: str = typer.Argument(..., metavar="B"),
    clip: str = CLIP,
    num_classes: int = CLASSES,
    study: str = STUDY,
    db: str = DB,
    as_json: bool = JSON,
) -> None:
    """List the way from one network to another, one change at a time, each step with its cost.

    Example: nas path r3d_18 r2plus1d_18
    """
    from search_spaces import codec
    from search_spaces.path import steps, value_at

    shape, classes = clip_and_classes(a, clip, num_classes, study, db)
    first, last = (find_spec(name, study=study, db=db, frames=shape[0]) for name in (a, b))
    before = first.canonical()
    rows: list[dict[str, Any]] = [
        {
            "step": 0,
            "path": a,
            "from": None,
            "to": None,
            "digest": codec.digest(before),
            **_price(before, shape, classes),
        }
    ]
    for number, step in enumerate(steps(first, last), start=1):
        old, new = value_at(before, step.path), value_at(step.spec, step.path)
        rows.append(
            {
                "step": number,
                "path": step.path,
                "from": _text(old, new),
                "to": _text(new, old),
                "digest": codec.digest(step.spec),
                **_price(step.spec, shape, classes),
            }
        )
        before = step.spec
    if as_json:
        print_json(rows)
        return
    table = [{**row, "step": str(row["step"]), "from": row["from"] or "", "to": row["to"] or ""} for row in rows]
    columns = {"step": "step", "path": "path", "from": "from", "to": "to", "params": "params", "macs": "MACs"}
    print_table(table, columns, f"{a} to {b} at one clip of {clip_name(shape)}, {classes} classes")


def _price(spec: ArchSpec, shape: tuple[int, int, int, int], num_classes: int) -> dict[str, int | None]:
    """Params and MACs; None where the clip is too small for the network."""
    from nas.cost import cost
    from search_spaces.spec import ClipError

    planes, frames, height, width = shape
    try:
        price = cost(spec, frames=frames, height=height, width=width, num_classes=num_classes, planes=planes)
    except ClipError:
        return {"params": None, "macs": None}
    return {"params": price.params, "macs": price.macs}


def _cited(entry: Preset) -> list[dict[str, object]]:
    return [
        {
            "metric": p.metric,
            "value": p.value,
            "clip": f"{p.frames}x{p.size}x{p.size}" if p.frames else "clip not stated",
            "views": p.views,
            "data": p.data,
            "source": p.source,
        }
        for p in entry.published
    ]


def _short(cited: list[dict[str, Any]]) -> str:
    """The first citation, and how many more `--json` prints with their sources."""
    if not cited:
        return ""
    first, more = cited[0], len(cited) - 1
    text = f"{first['metric']} {first['value']} ({first['data']}, {first['clip']}, {first['views']})"
    return f"{text}, +{more}" if more else text


def _text(value: object, other: object) -> str | None:
    """A value as a cell: several parts by their number, one part by the fields in which it differs from another."""
    from dataclasses import fields, is_dataclass

    if value is None:
        return None
    if isinstance(value, tuple):
        parts = bool(value) and is_dataclass(value[0])
        return f"{len(value)} parts" if parts else "|".join(map(str, value))
    if not is_dataclass(value):
        return str(value)
    pairs = [(f.name, getattr(value, f.name), getattr(other, f.name, None)) for f in fields(value)]
    return ", ".join(f"{name} {_text(mine, theirs)}" for name, mine, theirs in pairs if mine != theirs)
