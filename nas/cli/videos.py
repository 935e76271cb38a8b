"""Options and tables of commands that test networks on videos: which videos, which views of them, and the result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.output import print_line, print_table
from nas.cli.resolve import folder_settings, load_target
from nas.errors import NasError
from nas.places import is_database, path_of
from nas.study.metric import interval_text

if TYPE_CHECKING:
    from nas.study.views import Views
    from nas.use.accuracy import ClassRow, Judged, Share
    from nas.use.networks import BackwardsRow
    from nas.use.probabilities import Scores
    from trainer.config import DataConfig


DATA = typer.Argument(..., metavar="DATA", help="A folder of splits and classes, a study file, or a database.")
OVERRIDES = typer.Argument(
    None, metavar="[key=value …]", help="Settings of the data, such as data.root=… or data.layout=…."
)
CLIPS = typer.Option(
    None, "--clips", min=1, help="Clips per video, over its length; by default as in the network's own test."
)
CROPS = typer.Option(None, "--crops", help="1 for the centre, 3 for both ends of the longer side, too.")
SIDES = typer.Option(None, "--short-sides", metavar="a,b,c", help="Short sides to resize frames to, in pixels.")
FULL = typer.Option(None, "--full/--no-full", help="Crops span the whole short side.")
CACHE = typer.Option(None, "--cache", metavar="FOLDER", help="For decoded frames, where DATA is a folder.")

_MANY = 30  # classes: of more, the table shows the worst
_PAIRS = 10
_MATRIX = 12  # classes: of more, no matrix is printed


def located(base: DataConfig, target: str, overrides: Sequence[str], cache: str | None) -> DataConfig:
    """Which videos DATA means, with clips taken from them as `base` says.

    Args:
        base: Of the network.
        target: A folder, a study file or a database.
        overrides: Settings of the study; of a folder, where its lists lie and what is taken of it.
        cache: The value of `--cache`.

    Raises:
        NasError: Nothing goes by that name, or a setting is none of a folder.
    """
    import dataclasses

    from nas.errors import NotFoundError

    path = path_of(target)
    if path.is_dir():
        stated = folder_settings(target, overrides, besides=())
        place = cache or (base.cache if Path(base.cache).is_dir() else "runs/cache")
        # Of a layout that the network's data had, nothing is known here.
        usual = {name: value for name, value in _defaults(base).items() if name in _WHICH}
        if (path / PACK_INDEX).is_file():
            usual["source"] = "pack"
        return dataclasses.replace(base, **{**usual, "name": path.name, "root": target, "cache": place, **stated})
    if not path.exists():
        raise NotFoundError(f"DATA must be a folder, a study file or a database, but there is no {target}")
    theirs = study_data(target, overrides)
    names = {field.name for field in dataclasses.fields(base)} & {"name", "root", "cache", "num_workers", *_WHICH}
    found = dataclasses.replace(base, **{name: getattr(theirs, name) for name in names})
    return dataclasses.replace(found, cache=cache) if cache else found


PACK_INDEX = "index.json"  # a folder with this file in it was made by `nas data pack` or `nas data flow`
# Fields that say which files are which videos; the others say how clips are taken from them.
_WHICH = ("layout", "annotations", "definition", "per_class", "exclude", "source", "max_broken", "group")


def _defaults(base: DataConfig) -> dict[str, Any]:
    import dataclasses

    return {f.name: f.default for f in dataclasses.fields(base) if f.default is not dataclasses.MISSING}


def study_data(target: str, overrides: Sequence[str]) -> DataConfig:
    """The data of a study file or of the study in a database.

    Raises:
        NasError: There is no such study, or it does not say where its videos lie.
    """
    from nas.errors import NotFoundError

    if not path_of(target).is_file():
        raise NotFoundError(f"a study file or a database is needed, which says what a clip is, but {target} is no file")
    if not is_database(target):
        return load_target(target, list(overrides)).located_data()
    from nas.store.database import Store
    from nas.study.files import apply_promote
    from nas.study.study import study_of

    with Store(target) as store:
        return study_of(apply_promote(store.study()["config"], overrides), target).located_data()


def views_asked(
    usual: Views, clips: int | None, crops: int | None, short_sides: str | None, full: bool | None
) -> Views:
    """The views that options ask for, laid over the usual ones.

    Raises:
        NasError: The short sides are not whole numbers.
        ConfigError: A value is out of range.
    """
    import dataclasses

    over: dict[str, Any] = {}
    if clips is not None:
        over["clips"] = clips
    if crops is not None:
        over["crops"] = crops
    if short_sides is not None:
        try:
            over["short_sides"] = tuple(int(part) for part in short_sides.split(",") if part.strip())
        except ValueError as error:
            raise NasError(f"--short-sides must be pixels such as 128,144,160, but is {short_sides!r}") from error
        if not over["short_sides"]:
            raise NasError(f"--short-sides must be pixels such as 128,144,160, but is {short_sides!r}")
    if full is not None:
        over["full"] = full
    return dataclasses.replace(usual, **over)


def share_row(name: str, share: Share) -> dict[str, Any]:
    """One accuracy as a row."""
    return {
        "measure": name,
        "share": share.value,
        "interval": interval_text(share.low, share.high),
        "videos": share.num_videos,
    }


def show_test(result: Judged, title: str) -> None:
    """Prints accuracies with intervals, the classes, and what is taken for what."""
    from nas.use.accuracy import confused

    several = result.map_sample is not None
    rows = [
        *([share_row("mAP over videos", result.map_sample)] if result.map_sample is not None else []),
        share_row("clip@1", result.clip1),
        share_row("video@1", result.video1),
        *([share_row("video@5", result.video5)] if len(result.classes) > 5 else []),
    ]
    columns = {"measure": "", "share": "accuracy", "interval": "95 % over videos", "videos": "videos"}
    print_line(title)
    print_table(rows, columns)
    if result.balanced is not None:
        print_line(f"balanced accuracy: {result.balanced:.3f}, the mean over classes of video@1")
    if result.map_class is not None:
        print_line(
            f"mAP over classes: {result.map_class:.3f}; clip@1 and video@ count one of a video's labels as right"
        )
    print_line(f"{result.num_videos} videos, {result.num_clips} views: {result.views}; loss {result.loss:.3f}")
    with_videos = [row for row in result.classes if row.accuracy is not None]
    shown = with_videos
    if len(shown) > _MANY:
        shown = sorted(shown, key=_goodness)[:_MANY]
    lines = [
        {
            "class": row.name,
            "videos": row.accuracy.num_videos,
            **({"precision": row.precision} if several else {}),
            "accuracy": row.accuracy.value,
            "interval": interval_text(row.accuracy.low, row.accuracy.high),
            "predicted": row.predicted,
            "taken": f"{row.taken_for} ({row.taken})" if row.taken else "",
        }
        for row in shown
        if row.accuracy is not None
    ]
    head = "classes" if shown is with_videos else f"the {_MANY} worst of {len(with_videos)} classes (all: --json)"
    if several:
        lines = [{key: line[key] for key in ("class", "videos", "precision", "predicted")} for line in lines]
    titles = {
        "precision": "average precision",
        "interval": "95 % over videos",
        "predicted": "times predicted",
        "taken": "most often taken for",
    }
    print_table(lines, {key: titles.get(key, key) for key in lines[0]}, head)
    absent = len(result.classes) - len(with_videos)
    if absent:
        print_line(f"note: {absent} of the network's {len(result.classes)} classes have no video here")
    if several:
        return
    names = [row.name for row in result.classes]
    if len(names) <= _MATRIX:
        matrix = [{"true": names[k], **dict(zip(names, line, strict=True))} for k, line in enumerate(result.confusion)]
        print_table(matrix, {"true": "true \\ predicted", **{name: name for name in names}}, "confusion")
    else:
        pairs = [{"true": a, "said": b, "count": count} for a, b, count in confused(result, names)[:_PAIRS]]
        if pairs:
            print_table(pairs, {"true": "class", "said": "taken for", "count": "videos"}, "most frequent confusions")


def _goodness(row: ClassRow) -> float:
    if row.precision is not None:
        return row.precision
    return row.accuracy.value if row.accuracy else 0.0


def show_backwards(rows: tuple[BackwardsRow, ...]) -> None:
    """Prints what becomes of each class backwards."""
    lines: list[dict[str, Any]] = [
        {
            "class": row.name,
            "videos": row.num_videos,
            "right": row.right,
            "right_backwards": row.right_backwards,
            "becomes": f"{row.becomes} ({row.becoming} of {row.right})" if row.becomes else "",
            "exchanges": "exchange" if row.exchanges else "stays" if row.becomes == row.name else "",
        }
        for row in rows
    ]
    columns = {
        "class": "class",
        "videos": "videos",
        "right": "right",
        "right_backwards": "right backwards",
        "becomes": "right ones become, backwards",
        "exchanges": "",
    }
    print_table(lines, columns, "the same clips played backwards")


def show_detection(scores: Scores) -> None:
    """Prints how well each class is told from the others, where classes are questions of yes or no."""
    from nas.use.detection import calibration_error, detections, is_detection

    if is_detection(scores):
        rows = [
            {
                "class": row.name,
                "videos": f"{row.positives} of {row.positives + row.negatives}",
                "auc": row.auc,
                "auc_interval": "" if row.auc_interval is None else interval_text(*row.auc_interval),
                "precision": row.precision,
                "interval": "" if row.precision_interval is None else interval_text(*row.precision_interval),
            }
            for row in detections(scores)
        ]
        titles = {"auc": "AUC", "auc_interval": "95 % over videos", "precision": "average precision"}
        titles |= {"interval": "95 % over videos"}
        if rows:
            print_table(rows, {key: titles.get(key, key) for key in rows[0]}, "each class against the rest")
    error = calibration_error(scores)
    if error is not None:
        print_line(f"calibration error: {error:.3f}, of probabilities in 15 bins")
