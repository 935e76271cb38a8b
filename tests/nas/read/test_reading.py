"""The guide to reading a front, and the example of every command that looks, against the program."""

from __future__ import annotations

import inspect
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.cli.compare import compare
from nas.cli.export import dashboard, export
from nas.cli.importance import importance
from nas.cli.watch import watch
from nas.read.rows import COLUMNS
from tests.nas.read.conftest import Run, fetched, free_port
from tests.nas.read.made import made

TEXT = (Path(__file__).parents[3] / "docs" / "reading.md").read_text(encoding="utf-8")
COMMANDS: list[Callable[..., None]] = [importance, export, compare, watch, dashboard]


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [body for tongue, body in fenced if tongue == language]


LINES = [line for body in blocks("") for line in body.splitlines() if line.startswith("nas ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the databases that the guide names."""
    folder = tmp_path_factory.mktemp("reading")
    made(folder / "runs" / "kinetics_small" / "study.db")
    made(folder / "runs" / "a" / "study.db", seed=1, optuna=False)
    made(folder / "runs" / "b" / "study.db", seed=2, optuna=False)
    made(folder / "runs" / "short" / "study.db", seed=4, rungs=2, optuna=False)
    return folder


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def example(command: Callable[..., None]) -> str:
    """The example in a command's help."""
    found = re.findall(r"^Example: (nas .*)$", inspect.getdoc(command) or "", re.MULTILINE)
    assert len(found) == 1, command.__name__
    return str(found[0])


def test_the_guide_has_commands() -> None:
    assert len(LINES) >= 9


@pytest.mark.parametrize("line", [line for line in LINES if not line.startswith("nas dashboard")])
def test_a_command_of_the_guide_runs(line: str, run: Run) -> None:
    if "--parquet" in line:
        pytest.importorskip("pyarrow")
    code, out, err = run(*shlex.split(line)[1:])
    assert code == 0, err
    assert out


@pytest.mark.parametrize("command", [c for c in COMMANDS if c is not dashboard], ids=lambda c: c.__name__)
def test_the_example_of_a_command_runs(command: Callable[..., None], run: Run) -> None:
    words = shlex.split(example(command))[1:]
    assert words[0] == command.__name__
    code, out, err = run(*words)
    assert code == 0, err
    assert out
    assert example(command) in " ".join(run(words[0], "--help")[1].split())


def test_the_example_of_the_dashboard_runs() -> None:
    pytest.importorskip("optuna_dashboard")
    port = str(free_port())
    assert example(dashboard) in LINES
    words = example(dashboard).replace("8080", port)
    code = "import sys; from nas.cli.main import main; sys.exit(main(sys.argv[1:]))"
    argv = [sys.executable, "-c", code, *shlex.split(words)[1:]]
    root = str(Path(__file__).parents[3])
    server = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=with_path(root))
    try:
        assert server.stdout is not None
        assert b"http://127.0.0.1" in server.stdout.readline()
        assert b"<title>Optuna Dashboard</title>" in fetched(server, f"http://127.0.0.1:{port}/dashboard")
    finally:
        server.kill()
        server.communicate()


def with_path(root: str) -> dict[str, str]:
    """The environment, with the project's root where Python looks for packages."""
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}


@pytest.mark.parametrize("body", blocks("python"))
def test_the_python_of_the_guide_runs(body: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    exec(compile(body, "reading.md", "exec"), names)
    assert "mean  count" in capsys.readouterr().out
    assert len(names["front"]) > 0  # type: ignore[arg-type]
    assert names["curves"].shape[1] == 40  # type: ignore[attr-defined]


def test_the_query_of_the_guide_shows_what_was_stored(folder: Path, run: Run) -> None:
    assert run("importance", "runs/kinetics_small/study.db")[0] == 0
    (query,) = blocks("sql")
    plain = sqlite3.connect(folder / "runs" / "kinetics_small" / "study.db")
    try:
        assert plain.execute(query).fetchall()
    finally:
        plain.close()


def test_the_guide_names_every_table() -> None:
    for table in COLUMNS:
        assert TEXT.count(f"`{table}`") >= 2, table
