"""The example in the help of every command is run, on a study as small as it can be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer

from nas.cli.main import app, main
from tests.nas.world import SMALL, make_world, words_of


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


def test_every_command_has_an_example() -> None:
    assert not [name for name, example in examples().items() if not example]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(examples()))
def test_the_example_of_a_command_runs(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    if name == "data make":
        monkeypatch.chdir(place.parent)
    words = words_of(examples()[name], place)
    assert main([*words, *SMALL.get(name, [])]) in ((0, 1) if name == "doctor" else (0,))
