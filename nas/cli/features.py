"""`nas features`, `nas probe` and `nas predict`."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.options import JSON
from nas.cli.output import Progress, print_json, print_json_line, print_line, print_table
from nas.cli.videos import CACHE, CLIPS, CROPS, DATA, FULL, OVERRIDES, SIDES, located, views_asked
from nas.study.metric import interval_text

if TYPE_CHECKING:
    from nas.train.network import TrainedNetwork
    from nas.use.features import Features
    from nas.use.predict import Prediction
    from nas.use.probe import Probed


NETWORK = typer.Argument(..., metavar="PATH", help="A folder that `nas promote` left, or a preset with --weights.")
FRAMES = typer.Option(False, "--frames", help="Features of each frame alone, averaged over the frames of a clip.")
WEIGHTS = typer.Option(None, "--weights", metavar="FILE", help="2D weights of a preset: a file, or timm:resnet50.")


def features(
    path: str = NETWORK,
    data: str = DATA,
    overrides: list[str] = OVERRIDES,
    output: str = typer.Option(..., "-o", "--output", metavar="FILE.npz", help="Output file."),
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
    from nas.use.features import save_features

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
    from nas.errors import NasError, NotFoundError, unknown

    kinds = [word.strip() for word in kind.split(",") if word.strip()]
    for name in kinds:
        if name not in ("svm", "mlp"):
            raise NotFoundError(unknown("probe", name, ("svm", "mlp")))
    if not kinds:
        raise NasError(f"--kind must name svm, mlp or both, but is {kind!r}")
    if split not in ("val", "test"):
        raise NotFoundError(unknown("split", split, ("val", "test")))
    from nas.use.features import read_features
    from nas.use.probe import probed

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
    from nas.use.networks import network_features, preset_features

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
        from nas.cli.videos import study_data

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


_BARS = " ▁▂▃▄▅▆▇█"
_WIDTH = 20


def predict(
    path: str = typer.Argument(..., metavar="PATH", help="A folder that `nas promote` left."),
    videos: list[str] = typer.Argument(..., metavar="VIDEO …", help="Video files."),
    top: int | None = typer.Option(
        None, "--top", min=1, help="Number of most probable classes to print: 5, or 1 per window with --stream."
    ),
    windows: int | None = typer.Option(None, "--windows", min=1, help="Windows of the timeline, at most; 10."),
    window: float | None = typer.Option(None, "--window", min=0.01, metavar="SECONDS", help="Length of a window."),
    stream: str | None = typer.Option(
        None, "--stream", metavar="csv|jsonl", help="A line per window as it is decoded, however long the video is."
    ),
    every: float | None = typer.Option(
        None, "--every", min=0.01, metavar="SECONDS", help="With --stream: from one window to the next."
    ),
    as_json: bool = JSON,
) -> None:
    """Name the classes of video files, as a whole and over time.

    Example: nas predict runs/kinetics_small/promoted/fccd16e46e-seed0-e7c92da6f4d5 data/motion/val/left/0000.mp4
    """
    from nas.errors import NasError, NotFoundError, unknown

    if stream is not None and stream not in STREAMS:
        raise NasError(unknown("--stream", stream, STREAMS))
    if stream is not None and (as_json or windows is not None):
        raise NasError(f"--stream {stream} prints all windows line by line; leave out --json and --windows")
    if every is not None and stream is None:
        raise NasError(f"--every must go with --stream csv or --stream jsonl, but is {every:g}")
    folder = Path(path)
    if not (folder / "network.json").is_file():
        reason = "it has no network.json" if folder.is_dir() else "there is no such folder"
        raise NotFoundError(f"{path} must be a folder that `nas promote` wrote, but {reason}")
    for name in videos:
        try:
            state = Path(name).stat().st_mode
        except OSError as error:
            why = "is not there" if isinstance(error, FileNotFoundError) else f"is none: {error.strerror}"
            raise NotFoundError(f"VIDEO must be a file, but {name[:200]} {why}") from error
        if not stat.S_ISREG(state):  # a pipe or a device may never end
            raise NotFoundError(f"VIDEO must be a file, but {name} is {'a folder' if stat.S_ISDIR(state) else 'none'}")
    from nas.train.network import load_network
    from nas.use.predict import predict_video
    from trainer.device import usual_device

    network = load_network(folder, device=usual_device())
    if stream is not None:
        _stream(network, videos, stream, top or 1, window, every)
        return
    top = top or 5
    plain = []
    for name in videos:
        found = predict_video(network, Path(name), most=windows or 10, length=window)
        if not as_json:
            show_prediction(name, found, top)
        names = found.classes
        plain.append(
            {
                "video": name,
                "seconds": found.seconds,
                "views": found.views,
                "top": [{"class": label, "probability": value} for label, value in found.ranked(top)],
                "probabilities": dict(zip(names, found.probabilities, strict=True)),
                "timeline": [
                    {
                        "start": moment.start,
                        "end": moment.end,
                        "probabilities": dict(zip(names, moment.probabilities, strict=True)),
                    }
                    for moment in found.timeline
                ],
            }
        )
    if as_json:
        print_json(plain if len(plain) > 1 else plain[0])


STREAMS = ("csv", "jsonl")


def _stream(
    network: TrainedNetwork, videos: Sequence[str], form: str, top: int, window: float | None, every: float | None
) -> None:
    """Prints a line per window and class, or per window, as videos are decoded."""
    import csv
    import io

    from nas.use.predict import stream_video

    def line(*values: object) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(values)
        return text.getvalue()

    if form == "csv":
        print_line(line("video", "start", "end", "class", "probability"))
    for name in videos:
        for moment in stream_video(network, Path(name), length=window, every=every):
            shares = dict(zip(network.class_names, moment.probabilities, strict=True))
            best = sorted(shares.items(), key=lambda pair: -pair[1])[:top]
            start, end = round(moment.start, 3), round(moment.end, 3)
            if form == "csv":
                for label, value in best:
                    print_line(line(name, start, end, label, f"{value:.6g}"), flush=True)
            else:
                found = {"video": name, "start": start, "end": end, "class": best[0][0], "probability": best[0][1]}
                print_json_line(found | {"probabilities": shares})


def show_prediction(name: str, found: Prediction, top: int) -> None:
    """Prints the most probable classes with their course, then the windows."""
    from nas.use.predict import clock

    best = found.ranked(top)
    place = {label: k for k, label in enumerate(found.classes)}
    course = {label: "".join(bar(m.probabilities[place[label]]) for m in found.timeline) for label, _ in best}
    rows = [{"class": label, "probability": value, "course": course[label]} for label, value in best]
    columns = {"class": "class", "probability": "probability"}
    if len(found.timeline) > 1:
        columns["course"] = "over time"
    print_line(f"{name}: {found.seconds:.1f} s, {found.views}")
    print_table(rows, columns)
    if len(found.timeline) < 2:
        return
    lines = []
    for moment in found.timeline:
        label, value = max(zip(found.classes, moment.probabilities, strict=True), key=lambda pair: pair[1])
        filled = round(value * _WIDTH)
        lines.append(
            {
                "time": f"{clock(moment.start)} to {clock(moment.end)}",
                "class": label,
                "probability": value,
                "bar": "█" * filled + "░" * (_WIDTH - filled),
            }
        )
    print_table(lines, {"time": "time", "class": "most probable", "probability": "probability", "bar": ""})


def bar(share: float) -> str:
    """A letter as high as a share of 1."""
    return _BARS[min(round(share * (len(_BARS) - 1)), len(_BARS) - 1)]
