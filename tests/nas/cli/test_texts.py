"""Every command that stands in the README or in docs/ is run, on a study as small as it can be."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from nas.cli.main import main
from tests.nas.cli.world import ROOT, make_world, small, words_of

OWN = ("data.md", "machines.md", "using.md")  # tests of their own run their commands
TEXTS = [ROOT / "README.md", *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in OWN)]
# Where a text means the reader's own videos, there are those of the small data set.
HERE = (
    (r"(data=gestures )?data\.root=/\S+", "data=motion"),
    (r" -o \S+\.html", " -o out.html"),
    (r" --port \d+", ""),
    (r" --fidelity \d+", " --fidelity 1"),
)


def commands() -> list[object]:
    """The commands in fenced blocks, named by file and number; what follows two spaces explains one."""
    found = []
    for path in TEXTS:
        fenced = re.findall(r"^```(\w*)\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL)
        text = re.sub(r"\\\n\s*", "", "\n".join(body for language, body in fenced if language in ("", "sh")))
        lines = re.findall(r"^nas (\S.*?)(?:  .*)?$", text, re.MULTILINE)
        found += [pytest.param(line, id=f"{path.name}-{i}", marks=marks_of(line)) for i, line in enumerate(lines)]
    return found


def marks_of(line: str) -> list[pytest.MarkDecorator]:
    """A command of an extra runs where that is installed."""
    missing = line.startswith("supernet") and find_spec("nni") is None
    return [pytest.mark.skipif(missing, reason="needs the extra nni")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    make_world(folder)
    return folder


def test_the_texts_hold_commands() -> None:
    assert len(commands()) > 30


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_texts_runs(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.parent if command.startswith("data make") else place)
    for pattern, here in HERE:
        command = re.sub(pattern, here, command)
    words = words_of(command, place)
    assert main([*words, *small(words)]) == 0
