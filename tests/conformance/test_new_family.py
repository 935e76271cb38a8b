"""A family that CONTRIBUTING.md adds, added as it says: one file, one line, and the conformance tests hold for it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_family_of_the_guide_passes_by_itself(tmp_path: Path) -> None:
    blocks = re.findall(
        r"```python\n# (search_spaces/\S+)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL
    )
    ((place, text),) = blocks
    for folder in ("search_spaces", "nas", "trainer", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / place).write_text(text)
    linter = [sys.executable, "-m", "ruff", "check", "--no-cache", place]
    done = subprocess.run(linter, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    catalogue = tmp_path / "search_spaces/catalogue.py"
    name = Path(place).stem
    lines = catalogue.read_text()
    lines = (
        lines.replace("families import ", f"families import {name}, ", 1) if "families import (" not in lines else lines
    )
    lines = lines.replace("families import (", f"families import (\n    {name},", 1)
    lines = re.sub(r"( +)resnet\.FAMILY,\n", rf"\1resnet.FAMILY,\n\1{name}.FAMILY,\n", lines)
    catalogue.write_text(lines)
    tests = ["tests/conformance/test_networks.py", "tests/search_spaces/test_path.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, "-k", name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 30
