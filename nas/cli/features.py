"""`nas features` and `nas probe`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nas.accuracies import interval_text
from nas.cli.output import Progress, print_json, print_line, print_table
from nas.cli.testing import CACHE, CLIPS, CROPS, DATA, FULL, JSON, OVERRIDES, SIDES, located, views_asked

if TYPE_CHECKING:
    from nas.using.features import Features
    from nas.using.probe import Probed

NETWORK = typer.Argument(..., metavar="PATH", help="A folder that `nas promote` left, or a preset with --weights.")
FRAMES = typer.Option(False, "--frames", help="Features of each frame alone, averaged over the frames of a clip.")
WEIGHTS = typer.Option(None, "--weights", metavar="FILE", help="2D weights of a preset: a file, or timm:resnet50.")


def features(
    path: str = NETWORK,
    data: str = DATA,
    overrides: list[str] = OVERRIDES,
    output: str = typer.Option(..., "-o", "--output", metavar="FILE.npz", help="Where to."),
    split: list[str] = typer.Option(None, "--split", help="train, val or test; may be given again. Train and val."),
    frames: bool = FRAMES,
    weights: str | None = WEIGHTS,
    clips: int | None = CLIPS,
    crops: int | None = CROPS,
    short_sides: str | None = SIDES,
    full: bool | None = FULL,
    cache: str | None = CACHE,
    as_json: bool = JSON,
) -> None:
    """Keep what a network's classifier sees of each video, in an .npz file.

    Example: nas features runs/kinetics_small/promoted/fccd16e46e-seed0-e7c92da6f4d5 data/motion -o features.npz
    """
    from nas.using.features import save_features

    asked = {"clips": clips, "crops": crops, "short_sides": short_sides, "full": full}
    found = _features(path, data, overrides, split or ["train", "val"], frames, weights, asked, cache)
    save_features(Path(output), found)
    videos, views, planes = found.values.shape
    if as_json:
        print_json(
            {
                "file": output,
                "kind": found.kind,
                "layer": found.layer,
                "shape": list(found.values.shape),
                "splits": {name: found.splits.count(name) for name in dict.fromkeys(found.splits)},
                "views": asdict(found.views),
                "network": found.network,
                "checksum": found.checksum,
            }
        )
        return
    what = "input of" if found.kind == "clip" else "mean over single frames of the input of"
    print_line(f"{output}: features ({videos} videos, {views} views, {planes}), {what} {found.layer}; {found.views}")


def probe(
    source: str = typer.Argument(..., metavar="FEATURES|PATH", help="A file of `nas features`, or a network's folder."),
    data: str | None = typer.Argument(None, metavar="[DATA]", help="Videos, where a network is given."),
    overrides: list[str] = OVERRIDES,
    split: str = typer.Option("val", "--split", help="val or test; test is only read if it is named here."),
    kind: str = typer.Option("svm,mlp", "--kind", help="svm, mlp, or both."),
    frames: bool = FRAMES,
    weights: str | None = WEIGHTS,
    clips: int | None = CLIPS,
    crops: int | None = CROPS,
    short_sides: str | None = SIDES,
    full: bool | None = FULL,
    cache: str | None = CACHE,
    seed: int = typer.Option(0, "--seed", min=0, help="Of the folds of cross-validation and of the MLP."),
    as_json: bool = JSON,
) -> None:
    """Judge a network's features: a linear SVM and an MLP, fitted on train, beside the network itself.

    Example: nas probe runs/kinetics_small/promoted/fccd16e46e-seed0-e7c92da6f4d5 data/motion
    """
    from nas.errors import NasError, NotFoundError, one_of

    kinds = [word.strip() for word in kind.split(",") if word.strip()]
    for name in kinds:
        if name not in ("svm", "mlp"):
            raise NotFoundError(one_of("probe", name, ("svm", "mlp")))
    if not kinds:
        raise NasError(f"--kind must name svm, mlp or both, but is {kind!r}")
    if split not in ("val", "test"):
        raise NotFoundError(one_of("split", split, ("val", "test")))
    from nas.using.features import read_features
    from nas.using.probe import probed

    if Path(source).is_file():
        if data is not None:
            raise NasError(f"{source} has features of its videos already, so no DATA goes with it, but got {data}")
        found = read_features(Path(source))
    elif data is None:
        raise NasError(f"a network needs DATA to be probed on, and {source} is no file of features")
    else:
        asked = {"clips": clips, "crops": crops, "short_sides": short_sides, "full": full}
        found = _features(source, data, overrides, ["train", split], frames, weights, asked, cache)
    result = probed(found, split=split, kinds=tuple(dict.fromkeys(kinds)), seed=seed)
    if as_json:
        print_json(_plain(result))
        return
    alone = ", frame by frame" if result.kind == "frames" else ""
    rows = [
        {
            "classifier": _NAMES[one.name] + (alone if one.name == "network" else ""),
            "accuracy": one.accuracy.value,
            "interval": interval_text(one.accuracy.low, one.accuracy.high),
            "videos": one.accuracy.num_videos,
            "setting": one.setting + ("" if one.converged else " (not converged)"),
            "cv": one.cross_validated,
        }
        for one in result.probes
    ]
    columns = {
        "classifier": "",
        "accuracy": "top-1",
        "interval": "95 % over videos",
        "videos": "videos",
        "setting": "chosen on train",
        "cv": "cross-validated",
    }
    seen = "clips" if result.kind == "clip" else "frames, pooled over time"
    what = f"{result.num_features} features of {seen} ({result.layer})"
    print_line(f"{result.split}: {what}, fitted on {result.num_train} videos of train")
    print_table(rows, columns)


_NAMES = {"svm": "linear SVM", "mlp": "MLP", "network": "the network itself"}


def _plain(result: Probed) -> dict[str, Any]:
    plain = asdict(result)
    for one in plain["probes"]:
        one["right"] = "".join(str(int(value)) for value in one["right"])
    return plain


def _features(
    path: str,
    data: str,
    overrides: list[str] | None,
    splits: list[str],
    frames: bool,
    weights: str | None,
    asked: dict[str, Any],
    cache: str | None,
) -> Features:
    """Features of a promoted network, or of a preset with 2D weights, which sees clips as a study's data says."""
    from nas.errors import NotFoundError
    from nas.using.networks import network_features, preset_features

    progress = Progress("videos")
    kind = "frames" if frames else "clip"
    try:
        if weights is None:
            if not Path(path).is_dir():
                raise NotFoundError(
                    f"PATH must be a folder that `nas promote` left, but {path} is no folder; a preset needs --weights"
                )
            return network_features(
                path,
                lambda config: located(config, data, overrides or [], cache),
                lambda usual: views_asked(usual, **asked),
                splits=splits,
                kind=kind,
                progress=progress.update,
            )
        from nas.cli.resolve import find_spec
        from nas.cli.testing import study_data

        config = study_data(data, overrides or [])
        return preset_features(
            find_spec(
                path,
                study=None,
                db=None,
                frames=config.clip.frames,
                otherwise="--weights goes with a preset or a .json file",
            ),
            weights,
            config,
            lambda usual: views_asked(usual, **asked),
            name=f"{path}, {weights}",
            splits=splits,
            kind=kind,
            progress=progress.update,
        )
    finally:
        progress.close()
