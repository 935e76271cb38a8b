"""What tests of looking share: a search that was really run, and the command line."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from nas.cli.main import main
from tests.nas.studies import write_study

Run = Callable[..., tuple[int, str, str]]


def fetched(server: subprocess.Popen[bytes], url: str) -> bytes:
    """What a server that is starting answers once it listens."""
    while True:
        assert server.poll() is None, "the server has ended"
        try:
            with urllib.request.urlopen(url) as answer:
                return bytes(answer.read())
        except OSError:
            time.sleep(0.1)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory, motion: Path) -> Path:
    """The database of a finished search of three networks, one of which was promoted."""
    folder = tmp_path_factory.mktemp("looking")
    over = {"data": {"root": str(motion), "cache": str(motion.parent / "cache")}, "search": {"trials": 3}}
    write_study(folder / "tiny.yaml", over)
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["search", "tiny.yaml"]) == 0
        assert main(["promote", "tiny.yaml", "--best-under", "1G"]) == 0
    finally:
        os.chdir(before)
    return folder / "runs" / "tiny" / "study.db"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command; returns exit code, output and errors."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in argv])
        out = capsys.readouterr()
        return code, out.out, out.err

    return run
