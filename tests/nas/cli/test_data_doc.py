"""The text about data against the program: every layout and definition in it is read, every kind is in it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from nas.cli.main import app
from nas.study.files import load_study
from tests.trainer.data.built import BUILDERS, Clip, mmaction2_mmit
from trainer.data.layouts import KINDS, find_layout
from trainer.data.layouts.definitions import CHOICES

TEXT = (Path(__file__).parents[3] / "docs" / "data.md").read_text("utf-8")
ROWS = re.findall(r"^\| (`.*?) \| .* \| `data: (\{.*\})` \|$", TEXT, re.MULTILINE)


def test_every_layout_stands_in_the_table() -> None:
    named = {name for names, _ in ROWS for name in re.findall(r"`([\w-]+)`", names)}
    short = {name for name in KINDS if name in ("ucf101", "hmdb51") or name[-2:] in ("-2", "-3")}
    assert named - {"-2", "-3"} == set(KINDS) - short


@pytest.mark.parametrize(("names", "settings"), ROWS, ids=[names for names, _ in ROWS])
def test_the_line_of_a_layout_reads_such_a_folder(names: str, settings: str, tmp_path: Path) -> None:
    clips = []
    for number in range(4):
        path = (
            tmp_path / "plain" / ("train", "val")[number % 2] / f"c {number // 2}" / f"{number:011d}_000001_000002.mp4"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        clips.append(Clip(path=path, split=path.parts[-3], label=number // 2))
    root = tmp_path / "data"
    kind = KINDS[re.findall(r"`([\w-]+)`", names)[0]]
    if kind == "frames":
        lines = {clip.split: f"{clip.split} 1 0\n" for clip in clips}
        for split, line in lines.items():
            (root / split).mkdir(parents=True)
            (root / f"{split}.txt").write_text(line)
    elif kind == "multi-label-videos":
        mmaction2_mmit(clips, root, frames=False)
    else:
        build = next(b[0] for n, b in BUILDERS.items() if b[1] == kind and n != "slowfast")
        build(clips, root)
    settings = re.sub(r"/data/lists", str(root / "lists"), settings)
    settings = re.sub(r"root: /data/\w+", f"root: {root}", settings)
    study = tmp_path / "study.yaml"
    study.write_text(f"name: mine\ndata: {settings}\n")
    layout = find_layout(load_study(study).located_data())
    assert layout.kind == kind
    assert set(layout.splits) == {"train", "val"}


def test_every_definition_stands_in_the_table() -> None:
    stated = re.findall(r"^\| `([a-z][\w-]*)[:.`]", TEXT.split("## A part of the data")[1], re.MULTILINE)
    assert {re.split(r"[\[:]", choice)[0] for choice in CHOICES} - {"a file of classes"} <= set(stated)


def test_the_options_of_the_commands_exist() -> None:
    group = typer.main.get_command(app).commands["data"]  # type: ignore[attr-defined]
    lines = [
        line for body in re.findall(r"^```\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL) for line in body.splitlines()
    ]
    assert len(lines) > 6
    for line in lines:
        words = shlex.split(line)
        assert words[:2] == ["nas", "data"]
        known = {option for one in group.commands[words[2]].params for option in one.opts}
        assert {word for word in words if word.startswith("--")} <= known, line
