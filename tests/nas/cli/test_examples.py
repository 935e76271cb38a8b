"""The example in the help of every command is run, on a study as small as it can be."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import typer

from nas.cli.main import app, main
from tests.nas.cli.world import SMALL, make_world, words_of
from tests.nas.read.widths import faults, record
from tests.trainer.data.built import Clip
from tests.trainer.data.web import Server, publish


def examples() -> dict[str, str]:
    """The example of each command, by its name."""
    found = {}
    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None) or {"": command}
        for inner, leaf in below.items():
            match = re.search(r"Example: nas (.*)", leaf.help or "")
            found[f"{name} {inner}".strip()] = match[1].strip() if match else ""
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    make_world(folder)
    return folder


@contextmanager
def serving(place: Path) -> Iterator[list[str]]:
    """A mirror of Kinetics with a few motion clips under its names; gives the options that name it."""
    videos = [
        path for split in ("train", "val") for path in sorted((place / "data/motion" / split).glob("[lr]*/*.mp4"))
    ]
    clips = []
    for number, path in enumerate(videos):
        named = place / "kinetics" / path.parts[-3] / path.parts[-2] / f"{number:011d}_000000_000010.mp4"
        named.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, named)
        clips.append(Clip(path=named, split=path.parts[-3], label=0))
    server = Server()
    try:
        publish(server, clips, place / "kinetics")
        yield ["--base", server.base]
    finally:
        server.close()


def test_every_command_has_an_example() -> None:
    assert not [name for name, example in examples().items() if not example]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(examples()))
def test_the_example_of_a_command_runs(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "supernet":
        pytest.importorskip("nni")
    monkeypatch.chdir(place)
    if name == "data make":
        monkeypatch.chdir(place.parent)
    words = words_of(examples()[name], place)
    with monkeypatch.context() as patch, serving(place) if name == "data get" else nullcontext([]) as more:
        tables = record(patch)
        code = main([*words, *SMALL.get(name, []), *more])
    allowed = {"doctor": (0, 1), "simulate": (2,)}  # there is no table of the whole space here
    assert code in allowed.get(name, (0,))
    assert faults(tables) == []
