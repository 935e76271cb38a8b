"""`nas deploy`: a trained network as a file for other programs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.evaluate import CACHE, located
from nas.cli.options import JSON
from nas.cli.output import Progress, print_json, print_line
from nas.errors import NasError

if TYPE_CHECKING:
    from nas.train.network import TrainedNetwork


def deploy(
    path: str = typer.Argument(..., metavar="FOLDER", help="A folder that `nas promote` left."),
    onnx: str | None = typer.Option(None, "--onnx", metavar="FILE", help="For onnxruntime and others (extra deploy)."),
    pt2: str | None = typer.Option(None, "--pt2", metavar="FILE", help="For torch.export.load and AOTInductor."),
    source: str | None = typer.Option(None, "--source", metavar="FILE", help="Plain torch, with FILE.pt beside it."),
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
    if not wanted:
        raise NasError("name a file to write: --onnx FILE, --pt2 FILE or --source FILE")
    if batch != "dynamic" and not (batch.isascii() and batch.isdigit() and 0 < int(batch) <= 4096):
        raise NasError(f"--batch must be dynamic or 1 to 4096, but is {batch}")
    from trainer.files import check_replaceable, make_folder

    files = {kind: Path(file) for kind, file in wanted.items()}
    for kind, file in files.items():
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

    form = deployed.Form(batch=0 if batch == "dynamic" else int(batch), uint8=uint8, half=half)
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
                print_line("note: the videos of the training are not where they were; --data DATA checks on others")
    if as_json:
        print_json(rows)


def _videos(network: TrainedNetwork, data: str | None, cache: str | None) -> Any:
    """The data to check on; none where nothing was named and that of the training is away."""
    from trainer.data.dataset import open_usable
    from trainer.data.layouts import DataError

    if data is not None:
        config = located(network.data, data, [], cache)
        return open_usable(config), config
    try:
        opened = open_usable(network.data)
    except (DataError, OSError):
        return None
    return (opened, network.data) if "val" in opened.splits else None
