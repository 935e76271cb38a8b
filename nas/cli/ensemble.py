"""`nas ensemble`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from filecmp import cmp
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.options import JSON
from nas.cli.output import Progress, print_json, print_line, print_table
from nas.cli.videos import CACHE, CLIPS, CROPS, FULL, SIDES, located, views_asked
from nas.study.metric import interval_text

if TYPE_CHECKING:
    from nas.use.accuracy import Judged, Share
    from nas.use.ensemble import Ensemble
    from nas.use.probabilities import Scores


def ensemble(
    paths: list[str] = typer.Argument(..., metavar="A B …", help="Folders that `nas promote` left."),
    data: str | None = typer.Option(
        None,
        "--data",
        metavar="DATA",
        help="Test anew on a folder, a study or a database; otherwise kept scores are used.",
    ),
    settings: list[str] = typer.Option(
        [], "--set", metavar="key=value", help="Settings of the data of --data, such as data.layout=…; may be repeated."
    ),
    split: str | None = typer.Option(None, "--split", help="val or test; test if every network was tested on it."),
    clips: int | None = CLIPS,
    crops: int | None = CROPS,
    short_sides: str | None = SIDES,
    full: bool | None = FULL,
    cache: str | None = CACHE,
    seed: int = typer.Option(0, "--seed", min=0, help="Of the parts of val, where val is reported."),
    as_json: bool = JSON,
) -> None:
    """Average networks' probabilities with weights that val chooses, and report them beside the single networks.

    Example: nas ensemble runs/kinetics_small/promoted/*
    """
    from nas.errors import NasError, NotFoundError, unknown

    if split not in (None, "val", "test"):
        raise NotFoundError(unknown("split", split, ("val", "test")))
    if len(paths) < 2:
        raise NasError(
            f"an ensemble has at least 2 networks, but got {len(paths)}; name folders that `nas promote` left"
        )
    _check_different(paths)
    if data is None and (settings or (clips, crops, short_sides, full, cache) != (None,) * 5):
        raise NasError("how videos are looked at is settled for kept scores; name the videos with --data to test anew")
    from nas.use.ensemble import ensemble as weigh
    from nas.use.ensemble import stored_scores

    val: list[Scores] = []
    reported: list[Scores] | None = []
    for path in paths:
        if data is None:
            of_val, of_test = stored_scores(path, "val"), None if split == "val" else stored_scores(path, "test")
            if of_val is None or (split == "test" and of_test is None):
                raise NotFoundError(f"{path} keeps no scores of {'val' if of_val is None else 'test'}")
        else:
            of_val, of_test = _tested(path, data, settings, split == "test", clips, crops, short_sides, full, cache)
        val.append(of_val)
        reported = None if reported is None or of_test is None else [*reported, of_test]
    found = weigh(paths, val, reported, seed=seed)
    if as_json:
        print_json(as_plain(found))
        return
    show(found)


def _check_different(paths: Sequence[str]) -> None:
    """Raises NasError where two folders, or copies of one, hold the same trained network."""
    from nas.errors import NasError

    weights = [Path(path) / "weights.safetensors" for path in paths]
    for k, (path, own) in enumerate(zip(paths, weights, strict=True)):
        for earlier, other in zip(paths[:k], weights, strict=False):
            same = Path(path).resolve() == Path(earlier).resolve()
            if not same and own.is_file() and other.is_file():
                same = cmp(own, other, shallow=False)
            if same:
                raise NasError(f"an ensemble needs different networks, but {earlier} and {path} hold the same one")


def _tested(
    path: str,
    data: str,
    settings: list[str],
    test: bool,
    clips: int | None,
    crops: int | None,
    short_sides: str | None,
    full: bool | None,
    cache: str | None,
) -> tuple[Scores, Scores | None]:
    """Scores of val, and of the test split if it is named."""
    from nas.use.networks import judged_network

    progress = Progress("videos")
    try:
        val, *more = [
            judged_network(
                path,
                lambda config: located(config, data, settings, cache),
                lambda usual: views_asked(usual, clips, crops, short_sides, full),
                split=split,
                progress=progress.update,
            ).scores
            for split in ("val", *(("test",) if test else ()))
        ]
    finally:
        progress.close()
    return val, more[0] if more else None


def show(found: Ensemble) -> None:
    """Prints members and ensembles on one split."""
    rows = [
        _row(name, weight, result) | {"network": name + (" (best on val)" if k == found.best else "")}
        for k, (name, weight, result) in enumerate(zip(found.names, found.weights, found.singles, strict=True))
    ]
    rows.append(_row("ensemble, equal weights", None, found.equal) | {"gain": _gain(found.gain_equal)})
    rows.append(_row("ensemble, weights of val", None, found.weighted) | {"gain": _gain(found.gain)})
    metric = found.weighted.metric
    columns = {
        "network": "network",
        "weight": "weight",
        "accuracy": metric,
        "interval": "95 % over videos",
        "video5": "video@5",
        "loss": "loss",
        "gain": "against the best on val",
    }
    print_table(rows, columns, f"{found.split}: {found.weighted.num_videos} videos")
    if found.cross_fitted:
        print_line(
            "val is reported: each video was judged with weights that other videos of val gave; the column: of all"
        )
    print_line(f"against the best on val: difference of {metric} with its 95 % interval, paired by video")


def _row(name: str, weight: float | None, result: Judged) -> dict[str, Any]:
    return {
        "network": name,
        "weight": weight,
        "accuracy": result.accuracy.value,
        "interval": interval_text(result.accuracy.low, result.accuracy.high),
        "video5": result.video5.value,
        "loss": result.loss,
    }


def _gain(gain: Share) -> str:
    return f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"


def as_plain(found: Ensemble) -> dict[str, Any]:
    """An ensemble as plain values."""

    def short(result: Judged) -> dict[str, Any]:
        several = {} if result.map_sample is None else {"map_sample": asdict(result.map_sample)}
        plain = {"video1": asdict(result.video1), "video5": asdict(result.video5), "loss": result.loss}
        return plain | several | ({"map_class": result.map_class} if several else {})

    return {
        "split": found.split,
        "num_videos": found.weighted.num_videos,
        "cross_fitted": found.cross_fitted,
        "members": [
            {"network": name, "weight": weight, "best_on_val": k == found.best, **short(result)}
            for k, (name, weight, result) in enumerate(zip(found.names, found.weights, found.singles, strict=True))
        ],
        "weighted": short(found.weighted) | {"gain": asdict(found.gain)},
        "equal": short(found.equal) | {"gain": asdict(found.gain_equal)},
    }
