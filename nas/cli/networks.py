"""`nas show`, `nas cost`, `nas diff`, `nas presets` and `nas path`: networks by name, digest or file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.options import DB, JSON
from nas.cli.output import print_json, print_line, print_table
from nas.cli.resolve import database_of, find_spec
from nas.errors import NotFoundError

if TYPE_CHECKING:
    from search_spaces.family import Preset
    from search_spaces.spec import ArchSpec


NAME = typer.Argument(..., metavar="NAME", help="A preset, the beginning of a digest, or a JSON file.")
STUDY_OPTION = typer.Option(None, "--study", metavar="STUDY|DB", help="Where digests are looked up.")
CLIP = typer.Option(
    None, "--clip", metavar="[C]xTxHxW", help="Frames x height x width, such as 16x112x112; 2x16x112x112 of flow."
)
CLASSES = typer.Option(None, "--num-classes", min=1, help="Number of classes.")


def show(name: str = NAME, study: str = STUDY_OPTION, db: str = DB, clip: str = CLIP, as_json: bool = JSON) -> None:
    """Show a network block by block.

    Example: nas show r2plus1d_18
    """
    from search_spaces import codec

    shape, _ = clip_and_classes(name, clip, None, study, db)
    spec = find_spec(name, study=study, db=db, frames=shape[1])
    if as_json:
        print_json(codec.encode(spec))
        return
    rows = spec.rows()
    print_table(rows, {key: key for key in rows[0]}, f"{name}: {spec.describe()}")
    print_line(f"digest: {codec.digest(spec)}")


def cost(
    name: str = NAME,
    clip: str = CLIP,
    num_classes: int = CLASSES,
    study: str = STUDY_OPTION,
    db: str = DB,
    as_json: bool = JSON,
) -> None:
    """Count params, MACs and activation memory of a network, exactly.

    Example: nas cost r3d_18 --clip 16x112x112 --num-classes 400
    """
    shape, classes = clip_and_classes(name, clip, num_classes, study, db)
    spec = find_spec(name, study=study, db=db, frames=shape[1])
    from nas.cost.cost import cost as cost_of

    planes, frames, height, width = shape
    price = cost_of(spec, frames=frames, height=height, width=width, num_classes=classes, planes=planes)
    report = {
        "network": name,
        "clip": clip_name(shape),
        "num_classes": classes,
        "params": price.params,
        "macs": price.macs,
        "train_macs": price.train_macs,
        "activation_bytes": price.activation_bytes,
    }
    if as_json:
        print_json(report)
        return
    print_line(f"{name} at one clip of {report['clip']}, {classes} classes")
    print_line(f"params:            {price.params:>16,}")
    print_line(f"MACs, evaluation:  {price.macs:>16,}   ({price.macs / 1e9:.3f} G)")
    print_line(f"MACs, training:    {price.train_macs:>16,}   (one forward pass)")
    print_line(f"activations:       {price.activation_bytes:>16,}   (bytes kept for backward, float32)")


def diff(
    a: str = typer.Argument(..., metavar="A"),
    b: str = typer.Argument(..., metavar="B"),
    study: str = STUDY_OPTION,
    db: str = DB,
    as_json: bool = JSON,
) -> None:
    """Show the paths at which two networks differ, and nothing else.

    Example: nas diff p3d_50_a p3d_50_b
    """
    from search_spaces import edit
    from search_spaces.edit import value_at

    left, right = (find_spec(name, study=study, db=db).canonical() for name in (a, b))
    rows = [
        {"path": path, "a": value_at(left, path), "b": value_at(right, path)} for path in sorted(edit.diff(left, right))
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_table([{k: str(v) for k, v in row.items()} for row in rows], {"path": "path", "a": a, "b": b})
    else:
        print_line(f"{a} and {b} are the same network")


def clip_and_classes(
    name: str, clip: str | None, num_classes: int | None, study: str | None, db: str | None
) -> tuple[tuple[int, int, int, int], int]:
    """Clip (planes, frames, rows, columns) and classes as given, else those of the study.

    Without a study it is the clip of a named network, and 400 classes.
    """
    if (study is not None or db is not None) and (clip is None or num_classes is None):
        from nas.store.database import Store

        with Store(database_of(study or "", db)) as store:
            row = store.study()
        clip, num_classes = clip or row["clip"], num_classes or row["num_classes"]
    if clip is None:
        from search_spaces.catalogue import PRESETS

        return (3, *(PRESETS[name].clip if name in PRESETS else (16, 112, 112))), num_classes or 400
    return parse_clip(clip), num_classes or 400


def parse_clip(text: str) -> tuple[int, int, int, int]:
    """Planes, frames, rows and columns of a text such as 16x112x112, which has 3 planes, or 2x16x112x112.

    Raises:
        NotFoundError: The text has another form.
    """
    match = re.fullmatch(r"(?:([1-9]\d*)x)?([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise NotFoundError(
            "a clip must read frames x height x width, such as 16x112x112 (2x16x112x112 of the two planes of flow), but"
            f" is {text!r}"
        )
    return int(match[1] or 3), int(match[2]), int(match[3]), int(match[4])


def clip_name(shape: tuple[int, int, int, int]) -> str:
    """The text of a clip, as `parse_clip` reads it and as studies record it."""
    return "x".join(map(str, shape[1:] if shape[0] == 3 else shape))


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
    from search_spaces.catalogue import PRESETS

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
    study: str = STUDY_OPTION,
    db: str = DB,
    as_json: bool = JSON,
) -> None:
    """List the way from one network to another, one change at a time, each step with its cost.

    Example: nas path r3d_18 r2plus1d_18
    """
    from search_spaces import codec
    from search_spaces.edit import steps, value_at

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
    from nas.cost.cost import cost
    from search_spaces.errors import ClipError

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
