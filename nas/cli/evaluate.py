"""`nas evaluate`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.options import JSON
from nas.cli.output import Progress, print_json, print_line, print_table
from nas.cli.videos import (
    CACHE,
    CLIPS,
    CROPS,
    DATA,
    FULL,
    OVERRIDES,
    SIDES,
    located,
    share_row,
    show_backwards,
    show_detection,
    show_test,
    views_asked,
)
from nas.errors import NasError, NotFoundError, unknown

if TYPE_CHECKING:
    from nas.use.detection import AtThreshold
    from nas.use.probabilities import Scores


def evaluate(
    path: str = typer.Argument(..., metavar="PATH", help="A folder that `nas promote` left, or an .onnx of it."),
    data: str = DATA,
    overrides: list[str] = OVERRIDES,
    split: str = typer.Option("val", "--split", help="val, test or train; test is only read if it is named here."),
    clips: int | None = CLIPS,
    crops: int | None = CROPS,
    short_sides: str | None = SIDES,
    full: bool | None = FULL,
    backwards: bool = typer.Option(False, "--backwards", help="Play the clips backwards, too, and compare."),
    videos: str | None = typer.Option(
        None, "--videos", metavar="FILE", help="Write path, label and probabilities of each video (.csv or .jsonl)."
    ),
    detect: str | None = typer.Option(
        None,
        "--detect",
        metavar="CLASS",
        help="Call this class at a threshold that val chooses; with one of the next two.",
    ),
    recall: float | None = typer.Option(
        None, "--recall", min=0.001, max=1.0, help="With --detect: choose the threshold for this recall on val."
    ),
    precision: float | None = typer.Option(
        None, "--precision", min=0.001, max=1.0, help="With --detect: for this precision on val."
    ),
    roc: str | None = typer.Option(None, "--roc", metavar="FILE", help="Draw ROC curves: .html, .svg or .png."),
    pr: str | None = typer.Option(None, "--pr", metavar="FILE", help="Draw precision-recall curves."),
    cache: str | None = CACHE,
    as_json: bool = JSON,
) -> None:
    """Test a trained network on any videos of its classes: clip@1, video@1, video@5, classes, confusions.

    With two classes or several labels per video: AUC, average precision and calibration, too.

    Example: nas evaluate runs/kinetics_small/promoted/fccd16e46e-seed0-e7c92da6f4d5 data/motion --clips 10 --crops 3
    """
    from dataclasses import asdict

    if (detect is None) != (recall is None and precision is None) or (recall is not None and precision is not None):
        raise NasError("--detect CLASS goes with one of --recall and --precision")
    if detect is not None and (Path(path) / "network.json").is_file():  # before anything is tested
        from nas.train.folder import read_content

        names = read_content(Path(path))["classes"]
        if detect not in names:
            raise NotFoundError(unknown("class", detect, names))
    if roc is not None or pr is not None:
        from nas.read.plots import check_plots

        check_plots([Path(file) for file in (roc, pr) if file is not None])
    if videos is not None:
        from nas.use.probabilities import check_videos_file

        check_videos_file(Path(videos))
    progress = Progress("videos")
    try:
        from nas.use.networks import judged_network

        test = partial(
            judged_network,
            path,
            lambda config: located(config, data, overrides or [], cache),
            lambda usual: views_asked(usual, clips, crops, short_sides, full),
            progress=progress.update,
        )
        found = test(split=split, backwards=backwards)
        chosen = None
        if detect is not None:
            chooser = found if split == "val" else test(split="val")
            chosen = _called(chooser.scores, found.scores, detect, recall, precision)
    finally:
        progress.close()
    if videos is not None:
        from nas.use.probabilities import save_videos

        save_videos(Path(videos), found.scores)
    title = f"{Path(path).name}: {split} of {found.root}"
    if as_json:
        from nas.use.accuracy import as_plain

        print_json(
            {
                "network": path,
                "digest": found.digest,
                "data": found.root,
                "checksum": found.checksum,
                "left_out": [asdict(one) for one in found.left_out],
                **as_plain(found.result),
                **_as_detection(found.scores, chosen),
                "backwards": [asdict(row) for row in found.backwards],
            }
        )
        _draw(found.scores, title, detect, roc, pr)
        return
    show_test(found.result, f"{path}: {split} of {found.root}")
    show_detection(found.scores)
    if chosen is not None and detect is not None:
        _show_called(detect, chosen, split)
    if found.left_out:
        first = found.left_out[0]
        print_line(f"left out: {len(found.left_out)} videos (the first: {first.path}: {first.reason})")
    if found.backwards:
        show_backwards(found.backwards)
    if videos is not None:
        print_line(f"{len(found.scores.paths):,} videos written to {videos}")
    _draw(found.scores, title, detect, roc, pr)


def _draw(scores: Scores, title: str, detect: str | None, roc: str | None, pr: str | None) -> None:
    """Draws the curves that are asked for, of one class or of all."""
    files = {"roc": roc, "precision": pr}
    if not any(files.values()):
        return
    from nas.read.plots import draw_curves
    from nas.use.detection import curves

    found = [one for one in curves(scores) if detect in (None, one.name)]
    for kind, file in files.items():
        if file is not None:
            draw_curves(title, found, kind, Path(file))  # type: ignore[arg-type]


def _called(chooser: Scores, scores: Scores, name: str, recall: float | None, precision: float | None) -> AtThreshold:
    """What a class comes to at the threshold that other videos choose."""
    from nas.use.detection import at_threshold, class_of, threshold_for

    k = class_of(scores, name)
    return at_threshold(scores, k, threshold_for(chooser, k, recall=recall, precision=precision))


def _as_detection(scores: Scores, chosen: AtThreshold | None) -> dict[str, Any]:
    from dataclasses import asdict

    from nas.use.detection import calibration_error, detections, is_detection

    return {
        "detection": [asdict(row) for row in detections(scores)] if is_detection(scores) else [],
        "calibration_error": calibration_error(scores),
        "threshold": None if chosen is None else asdict(chosen),
    }


def _show_called(name: str, chosen: AtThreshold, split: str) -> None:
    """Prints what a class comes to at its threshold."""
    parts = {"recall": chosen.recall, "precision": chosen.precision, "false alarms": chosen.false_alarms}
    rows = [share_row(measure, value) for measure, value in parts.items() if value is not None]
    columns = {"measure": "", "share": "share", "interval": "95 % over videos", "videos": "videos"}
    print_table(rows, columns, f"{name} where its probability is at least {chosen.threshold:.4g}, a threshold of val")
    if split == "val":
        print_line("note: the threshold was chosen on these very videos, so its figures are a little too good")
