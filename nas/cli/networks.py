"""`nas show`, `nas cost`, `nas diff` and `nas presets`: networks by name, digest or file."""

from __future__ import annotations

import re
from typing import Any

import typer

from nas.cli.output import print_json, print_table
from nas.cli.resolve import database_of, find_spec
from nas.errors import NotFoundError

NAME = typer.Argument(..., metavar="NAME", help="A preset, the beginning of a digest, or a JSON file.")
STUDY = typer.Option(None, "--study", metavar="STUDY|DB", help="Where digests are looked up.")
DB = typer.Option(None, "--db", help="The database, where it is not runs/<study>/study.db.")
JSON = typer.Option(False, "--json", help="Print JSON.")
CLIP = typer.Option(None, "--clip", metavar="TxHxW", help="Frames x height x width, such as 16x112x112.")
CLASSES = typer.Option(None, "--num-classes", min=1, help="Outputs of the network.")


def show(name: str = NAME, study: str = STUDY, db: str = DB, clip: str = CLIP, as_json: bool = JSON) -> None:
    """Show a network block by block."""
    from search_spaces import codec
    from search_spaces import show as render

    shape, _ = _clip_and_classes(clip, None, study, db)
    spec = find_spec(name, study=study, db=db, frames=shape[0])
    if as_json:
        print_json(codec.encode(spec))
        return
    rows = render.table(spec)
    print_table(rows, {key: key for key in rows[0]}, f"{name}: {render.describe(spec)}")
    print(f"digest: {codec.digest(spec)}")


def cost(
    name: str = NAME,
    clip: str = CLIP,
    num_classes: int = CLASSES,
    study: str = STUDY,
    db: str = DB,
    as_json: bool = JSON,
) -> None:
    """Count params, MACs and activation memory of a network, exactly."""
    shape, classes = _clip_and_classes(clip, num_classes, study, db)
    spec = find_spec(name, study=study, db=db, frames=shape[0])
    from nas.cost import cost as cost_of

    frames, height, width = shape
    price = cost_of(spec, frames=frames, height=height, width=width, num_classes=classes)
    report = {
        "network": name,
        "clip": f"{frames}x{height}x{width}",
        "num_classes": classes,
        "params": price.params,
        "macs": price.macs,
        "train_macs": price.train_macs,
        "activation_bytes": price.activation_bytes,
    }
    if as_json:
        print_json(report)
        return
    print(f"{name} at one clip of {report['clip']}, {classes} classes")
    print(f"params:            {price.params:>16,}")
    print(f"MACs, evaluation:  {price.macs:>16,}   ({price.macs / 1e9:.3f} G)")
    print(f"MACs, training:    {price.train_macs:>16,}   (one forward pass)")
    print(f"activations:       {price.activation_bytes:>16,}   (bytes kept for backward, float32)")


def diff(
    a: str = typer.Argument(..., metavar="A"),
    b: str = typer.Argument(..., metavar="B"),
    study: str = STUDY,
    db: str = DB,
    as_json: bool = JSON,
) -> None:
    """Show the paths at which two networks differ, and nothing else."""
    from search_spaces import edit
    from search_spaces.spec import SpecError, canonicalise

    left, right = (canonicalise(find_spec(name, study=study, db=db)) for name in (a, b))

    def value(spec: Any, path: str) -> Any:
        try:
            return edit.at(spec, path)
        except SpecError:
            return None  # the other network has no such block

    rows = [{"path": path, "a": value(left, path), "b": value(right, path)} for path in sorted(edit.diff(left, right))]
    if as_json:
        print_json(rows)
    elif rows:
        print_table([{k: str(v) for k, v in row.items()} for row in rows], {"path": "path", "a": a, "b": b})
    else:
        print(f"{a} and {b} are the same network")


def presets(as_json: bool = JSON, clip: str = CLIP, num_classes: int = CLASSES) -> None:
    """List the published networks with their cost at one clip, and cited accuracies in a column of their own."""
    from nas.cost import cost as cost_of
    from search_spaces import codec
    from search_spaces.presets import PRESETS

    frames, height, width = _parse_clip(clip) if clip else (16, 112, 112)
    classes = num_classes or 400
    rows: list[dict[str, Any]] = []
    for name, entry in PRESETS.items():
        spec = entry.make(frames)
        price = cost_of(spec, frames=frames, height=height, width=width, num_classes=classes)
        rows.append(
            {
                "name": name,
                "family": entry.family,
                "year": entry.year,
                "paper": entry.paper,
                "digest": codec.digest(spec),
                "clip": f"{frames}x{height}x{width}",
                "num_classes": classes,
                "params": price.params,
                "macs": price.macs,
                "cited": [
                    {
                        "clip_top1": p.clip_top1,
                        "video_top1": p.video_top1,
                        "clip": f"{p.frames}x{p.size}x{p.size}",
                        "views": p.views,
                        "data": p.data,
                        "source": p.source,
                    }
                    for p in entry.published
                ],
            }
        )
    if as_json:
        print_json(rows)
        return
    table = [
        {
            **row,
            "year": str(row["year"]),
            "cited": "; ".join(f"{p['video_top1']} ({p['clip']}, {p['views']} views)" for p in row["cited"]),
        }
        for row in rows
    ]
    columns = {"name": "name", "family": "family", "year": "year", "params": "params", "macs": "MACs"}
    title = f"published networks; params and MACs of one {frames}x{height}x{width} clip, {classes} classes"
    print_table(table, {**columns, "cited": "cited video top-1 %"}, title)


def _clip_and_classes(
    clip: str | None, num_classes: int | None, study: str | None, db: str | None
) -> tuple[tuple[int, int, int], int]:
    """Clip and classes as given; else those of the study, else 16x112x112 and 400."""
    if (study is not None or db is not None) and (clip is None or num_classes is None):
        from nas.store import Store

        store = Store(database_of(study or "", db))
        try:
            row = store.study()
        finally:
            store.close()
        clip, num_classes = clip or row["clip"], num_classes or row["num_classes"]
    return _parse_clip(clip or "16x112x112"), num_classes or 400


def _parse_clip(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)x([1-9]\d*)", text)
    if match is None:
        raise NotFoundError(f"a clip must read frames x height x width, such as 16x112x112, but is {text!r}")
    return int(match[1]), int(match[2]), int(match[3])
