"""The guide to using networks: its commands run as they stand there, on networks that were trained for the tests."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from nas.cli.main import main
from tests.nas.use.conftest import Place

GUIDE = Path(__file__).parents[3] / "docs" / "using.md"


def commands() -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("nas ")]


def test_the_commands_of_the_guide_run_one_after_the_other(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = {
        "runs/gestures/study.db": str(place.database),
        "DIGEST": place.said["networks"][0]["digest"][:8],
        "NETWORK": str(place.folders[0]),
        "OTHER": str(place.folders[2]),
        "VIDEO.mp4": shlex.quote(str(place.data / "val" / "move left" / "00.mp4")),
        "DATA": str(place.data),
        "--seeds 3": "--seeds 2",  # one more would only be trained once more
    }
    found = commands()
    assert {line.split()[1] for line in found} == {"promote", "evaluate", "ensemble", "features", "probe", "predict"}
    for line in found:
        for name, value in here.items():
            line = line.replace(name, value)
        assert main(shlex.split(line)[1:]) == 0, line
    with np.load("features.npz", allow_pickle=False) as file:
        named = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| \(", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)
        assert {word.strip("`") for names in named for word in names.split(", ")} == set(file.files)
