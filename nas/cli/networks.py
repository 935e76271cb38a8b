"""`nas show`, `nas cost` and `nas diff`: networks by name, digest or file."""

from __future__ import annotations

import re

import typer

from nas.cli.output import print_json, print_line, print_table
from nas.cli.resolve import database_of, find_spec
from nas.errors import NotFoundError

NAME = typer.Argument(..., metavar="NAME", help="A preset, the beginning of a digest, or a JSON file.")
STUDY = typer.Option(None, "--study", metavar="STUDY|DB", help="Where digests are looked up.")
DB = typer.Option(None, "--db", help="The database, where it is not runs/<study>/study.db.")
JSON = typer.Option(False, "--json", help="Print JSON.")
CLIP = typer.Option(
    None, "--clip", metavar="[C]xTxHxW", help="Frames x height x width, such as 16x112x112; 2x16x112x112 of flow."
)
CLASSES = typer.Option(None, "--num-classes", min=1, help="Outputs of the network.")


def show(name: str = NAME, study: str = STUDY, db: str = DB, clip: str = CLIP, as_json: bool = JSON) -> None:
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
    study: str = STUDY,
    db: str = DB,
    as_json: bool = JSON,
) -> None:
    """Count params, MACs and activation memory of a network, exactly.

    Example: nas cost r3d_18 --clip 16x112x112 --num-classes 400
    """
    shape, classes = clip_and_classes(name, clip, num_classes, study, db)
    spec = find_spec(name, study=study, db=db, frames=shape[1])
    from nas.cost import cost as cost_of

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
    study: str = STUDY,
    db: str = DB,
    as_json: bool = JSON,
) -> None:
    """Show the paths at which two networks differ, and nothing else.

    Example: nas diff p3d_50_a p3d_50_b
    """
    from search_spaces import edit
    from search_spaces.path import value_at

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
        from nas.store import Store

        with Store(database_of(study or "", db)) as store:
            row = store.study()
        clip, num_classes = clip or row["clip"], num_classes or row["num_classes"]
    if clip is None:
        from search_spaces.presets import PRESETS

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
