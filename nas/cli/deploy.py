"""`nas deploy` and `nas latency`: a network as a file for other programs, and how long networks take."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.networks import CLASSES, CLIP, STUDY_OPTION, clip_and_classes, clip_name
from nas.cli.options import DB, JSON
from nas.cli.output import Progress, print_json, print_line, print_table
from nas.cli.resolve import find_spec
from nas.cli.videos import CACHE, located
from nas.errors import NasError, unknown

if TYPE_CHECKING:
    from nas.train.network import TrainedNetwork


def deploy(
    path: str = typer.Argument(..., metavar="FOLDER", help="A folder that `nas promote` left."),
    onnx: str | None = typer.Option(None, "--onnx", metavar="FILE", help="For onnxruntime and others (extra deploy)."),
    pt2: str | None = typer.Option(None, "--pt2", metavar="FILE", help="For torch.export.load and AOTInductor."),
    source: str | None = typer.Option(None, "--source", metavar="FILE", help="Plain torch, with FILE.pt beside it."),
    card: str | None = typer.Option(
        None, "--card", metavar="FILE.md", help="Describe it: data, recipe, accuracy, MACs, latency, limits."
    ),
    data: str | None = typer.Option(
        None, "--data", metavar="DATA", help="Where the check's videos are; those of the training by default."
    ),
    uint8: bool = typer.Option(False, "--uint8", help="Take frames as bytes (N, T, H, W, C), and normalise inside."),
    batch: str = typer.Option("dynamic", "--batch", metavar="N", help="Clips at once; dynamic for any number."),
    half: bool = typer.Option(False, "--half", help="Compute in float16."),
    cache: str | None = CACHE,
    as_json: bool = JSON,
) -> None:
    """Write a trained network as ONNX, .pt2 or plain source, and check the file on the videos of val.

    Example: nas deploy runs/kinetics_small/promoted/fccd16e46e-seed0-e7c92da6f4d5 --onnx fccd.onnx --uint8
    """
    wanted = {kind: file for kind, file in (("onnx", onnx), ("pt2", pt2), ("source", source)) if file is not None}
    if not wanted and card is None:
        raise NasError("name a file to write: --onnx FILE, --pt2 FILE, --source FILE or --card FILE")
    if batch != "dynamic" and not (batch.isascii() and batch.isdigit() and 0 < int(batch) <= 4096):
        raise NasError(f"--batch must be dynamic or 1 to 4096, but is {batch}")
    from trainer.files import check_replaceable, make_folder

    files = {kind: Path(file) for kind, file in wanted.items()}
    own = Path(path).resolve()
    cards = [] if card is None else [Path(card)]
    outputs = [*files.values(), *cards, *(file.with_suffix(".pt") for kind, file in files.items() if kind == "source")]
    places = [file.resolve() for file in outputs]
    for number, place in enumerate(places):
        if own == place or own in place.parents:
            raise NasError(f"{outputs[number]} lies in {path}, whose files are the network's; name another place")
        if place in places[:number]:
            raise NasError(f"two outputs would be {outputs[number]}; name another file")
    for kind, file in [*files.items(), *(("card", file) for file in cards)]:
        if kind == "source" and file.with_suffix(".pt").exists() and not file.exists():
            raise NasError(
                f"--source {file} would write over {file.with_suffix('.pt')}, which is not of it; name another file"
            )
        if kind == "source" and file.suffix != ".py":
            raise NasError(f"--source must be a file that ends in .py, but is {file}")
        try:
            make_folder(file.parent)
            for one in (file, file.with_suffix(".pt")) if kind == "source" else (file,):
                check_replaceable(one)
        except OSError as error:
            raise NasError(f"{file} cannot be written: {error.strerror}") from error

    from nas.train.network import load_network
    from nas.use import deploy as deployed
    from nas.use.onnx_network import Form

    form = Form(batch=0 if batch == "dynamic" else int(batch), uint8=uint8, half=half)
    rows: list[dict[str, Any]] = []
    for kind, file in files.items():
        network = load_network(Path(path))
        progress = Progress("videos")
        try:
            checked = deployed.deploy(
                network, file, kind, form, data=_videos(network, data, cache), progress=progress.update
            )
        finally:
            progress.close()
        rows.append({"kind": kind, "file": str(file), "bytes": file.stat().st_size, **dataclasses.asdict(checked)})
        if not as_json:
            seen = f"{checked.videos} videos of val" if checked.videos else f"{checked.clips} clips of noise"
            print_line(
                f"{file}: {file.stat().st_size / 2**20:.1f} MiB; on {seen} the same class for {checked.equal}, "
                f"probabilities within {checked.difference:.1g}"
            )
            if not checked.videos:
                print_line("note: the videos of the training are not there as they were; --data DATA checks on others")
    for file in cards:
        _write_card(Path(path), file, {one.name: kind for kind, one in files.items()})
        rows.append({"kind": "card", "file": str(file), "bytes": file.stat().st_size})
        if not as_json:
            print_line(f"{file}: what the network is, and its limits")
    if as_json:
        print_json(rows)


def _write_card(folder: Path, file: Path, files: dict[str, str]) -> None:
    """Writes the model card, with the latency of a clip on this machine."""
    from nas.cost.cost import cost_of
    from nas.train.network import load_network
    from nas.use import latency as timing
    from nas.use.card import card
    from trainer.device import threads_of
    from trainer.files import write_whole

    network = load_network(folder)
    data, classes = network.data, len(network.class_names)
    price = cost_of(network.spec, data.clip, num_classes=classes, planes=data.planes)
    shape = (data.planes, data.clip.frames, data.clip.height, data.clip.width)
    with threads_of(1):
        run = timing.in_torch(network.model, shape, batch=1, device="cpu")
        (found,) = timing.latencies([run], seconds=1.0)
    text = card(network, folder, price, found, timing.machine("cpu", 1), files)
    write_whole(file, text.encode("utf-8"))


def _videos(network: TrainedNetwork, data: str | None, cache: str | None) -> Any:
    """The data to check on; none where nothing was named and that of the training is away."""
    from trainer.data.dataset import open_usable
    from trainer.data.layouts import DataError

    if data is not None:
        config = located(network.data, data, [], cache)
        return open_usable(config), config
    from nas.use.multi_view import match_classes
    from trainer.config import ConfigError

    try:
        opened = open_usable(network.data)
        match_classes(network.class_names, opened.classes)
    except (DataError, ConfigError, OSError):  # gone, or others by now
        return None
    return (opened, network.data) if "val" in opened.splits else None


def latency(
    names: list[str] = typer.Argument(
        ..., metavar="NAME…", help="Presets, digests, settings, folders of promoted networks, .onnx files."
    ),
    device: str = typer.Option("cpu", "--device", help="cpu or cuda."),
    threads: int = typer.Option(1, "--threads", min=1, max=1024, help="Threads on a CPU."),
    batch: int = typer.Option(1, "--batch", min=1, max=4096, help="Clips at once."),
    engine: str = typer.Option("torch", "--engine", help="torch, or onnxruntime (extra deploy), on a CPU."),
    seconds: float = typer.Option(2.0, "--seconds", min=0.1, max=3600, help="Seconds per network."),
    clip: str = CLIP,
    num_classes: int = CLASSES,
    study: str = STUDY_OPTION,
    db: str = DB,
    as_json: bool = JSON,
) -> None:
    """Time networks on this machine, taking turns: median and quartiles of a forward pass.

    Example: nas latency r2d_18 mc3_18 r3d_18 --clip 8x112x112
    """
    from nas.use.latency import ENGINES

    if engine not in ENGINES:
        raise NasError(unknown("engine", engine, ENGINES))
    if device not in ("cpu", "cuda"):
        raise NasError(unknown("device", device, ("cpu", "cuda")))
    if engine == "onnxruntime" and device != "cpu":
        raise NasError("--engine onnxruntime is timed on a CPU; leave out --device cuda")
    import torch

    from nas.use import latency as timing
    from trainer.device import threads_of

    progress = Progress("rounds")
    with threads_of(threads):
        rows, runs = [], []
        for name in names:
            row, run = _timed(name, device, threads, batch, engine, clip, num_classes, study, db)
            rows.append(row)
            runs.append(run)
        try:
            found = timing.latencies(runs, seconds=seconds, progress=progress.update)
        finally:
            progress.close()
    for row, times in zip(rows, found, strict=True):
        row |= {"ms": times.median, "low": times.low, "high": times.high, "runs": times.runs}
    place = timing.machine(device, threads)
    machine = {"device": place, "batch": batch, "torch": str(torch.__version__)}
    order = _rank_correlation(rows)
    if as_json:
        print_json({"networks": rows, **machine, "rank_correlation": order})
        return
    columns = {"network": "network", "clip": "clip", "engine": "engine", "macs": "MACs", "ms": "ms, median"}
    columns |= {"low": "1st quartile", "high": "3rd quartile", "runs": "runs"}
    print_table(rows, columns, f"{place}, batch {batch}, float32, torch {torch.__version__}")
    if order is not None:
        print_line(f"rank correlation of MACs with latency (Spearman): {order:.2f}")


def _timed(
    name: str,
    device: str,
    threads: int,
    batch: int,
    engine: str,
    clip: str | None,
    num_classes: int | None,
    study: str | None,
    db: str | None,
) -> tuple[dict[str, Any], Any]:
    """A network's row, and what runs it once."""
    from nas.use import latency as timing

    path = Path(name)
    if path.suffix == ".onnx":
        if not path.is_file():
            raise NasError(f"there is no file {name}")
        if device != "cpu":
            raise NasError(f"{name} is timed on a CPU; leave out --device {device}")
        row: dict[str, Any] = {"network": path.name, "clip": "", "engine": "onnxruntime", "macs": None}
        return row, timing.in_onnxruntime(path, batch=batch, number=threads)
    from nas.cost.cost import cost as cost_of
    from search_spaces.catalogue import build

    if not name.lstrip().startswith("{") and path.is_dir():
        from nas.train.network import load_network

        network = load_network(path)
        data = network.data
        spec, model, classes = network.spec, network.model, len(network.class_names)
        shape = (data.planes, data.clip.frames, data.clip.height, data.clip.width)
    else:
        shape, classes = clip_and_classes(name, clip, num_classes, study, db)
        spec = find_spec(name, study=study, db=db, frames=shape[1])
        model = build(spec, num_classes=classes, planes=shape[0])
    planes, frames, height, width = shape
    price = cost_of(spec, frames=frames, height=height, width=width, num_classes=classes, planes=planes)
    row = {"network": name, "clip": clip_name(shape), "engine": engine, "macs": price.macs}
    if engine == "torch":
        return row, timing.in_torch(model, shape, batch=batch, device=device)
    from nas.use.deploy import onnx_bytes

    return row, timing.in_onnxruntime(onnx_bytes(model, shape, batch), batch=batch, number=threads)


def _rank_correlation(rows: list[dict[str, Any]]) -> float | None:
    """Of MACs with latency; None of fewer than three networks that have MACs, or of equal ones."""
    known = [(row["macs"], row["ms"]) for row in rows if row["macs"] is not None]
    if len(known) < 3 or len({macs for macs, _ in known}) < 2:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(*zip(*known, strict=True)).statistic)
