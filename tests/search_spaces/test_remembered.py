"""What is remembered from one command to the next: true, or forgotten."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search_spaces.remembered import Remembered, cache_folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.py"
    path.write_text("x = 1\n")
    return path


def table(folder: Path, source: Path, *, packages: tuple[str, ...] = ("pytest",), name: str = "costs") -> Remembered:
    return Remembered(name, packages=packages, sources=[source], folder=folder / "cache")


def file_of(folder: Path) -> Path:
    (path,) = (folder / "cache").iterdir()
    return path


def test_another_process_knows_what_was_put(tmp_path: Path, source: Path) -> None:
    first = table(tmp_path, source)
    assert first.get("a") is None
    first.put("a", [1, [2, "ä\n"], None, True])
    first.put("b", 2)
    for reader in (first, table(tmp_path, source)):
        assert reader.get("b") == 2 and reader.get("c") is None
    assert table(tmp_path, source).get("a") == [1, [2, "ä\n"], None, True]


def test_of_other_versions_nothing_is_known(tmp_path: Path, source: Path) -> None:
    table(tmp_path, source).put("a", 1)
    assert table(tmp_path, source, packages=("pytest", "hypothesis")).get("a") is None
    assert table(tmp_path, source, name="other").get("a") is None
    # A package that is not installed has no version, and one that was installed since has.
    assert table(tmp_path, source, packages=("pytest", "no-such-package")).get("a") == 1
    source.write_text("x = 2\n")
    assert table(tmp_path, source).get("a") is None
    source.write_text("x = 1\n")
    assert table(tmp_path, source).get("a") == 1


@pytest.mark.parametrize("damage", ["torn", "changed", "binary", "empty"])
def test_what_is_damaged_is_forgotten_and_nothing_else(tmp_path: Path, source: Path, damage: str) -> None:
    writer = table(tmp_path, source)
    writer.put("a", 111)
    writer.put("b", 222)
    path = file_of(tmp_path)
    whole = path.read_bytes()
    harm = {
        "torn": whole[:-4],
        "changed": whole.replace(b"222", b"223"),
        "binary": whole.replace(b"222", b"\xff\x00\x85"),
        "empty": b"",
    }
    path.write_bytes(harm[damage])
    reader = table(tmp_path, source)
    assert reader.get("b") is None
    assert reader.get("a") == (None if damage == "empty" else 111)
    # What comes behind the damage is read again.
    reader.put("b", 222)
    assert table(tmp_path, source).get("b") == 222


@pytest.mark.parametrize("place", ["a file", "a folder in the file's place"])
def test_where_nothing_can_be_written_only_time_is_lost(tmp_path: Path, source: Path, place: str) -> None:
    if place == "a file":
        (tmp_path / "cache").write_text("in the way")
    else:
        table(tmp_path, source).put("a", 1)
        path = file_of(tmp_path)
        path.unlink()
        path.mkdir()
    here = table(tmp_path, source)
    assert here.get("a") is None
    here.put("a", 1)
    assert here.get("a") == 1
    assert table(tmp_path, source).get("a") is None


def test_old_files_of_other_versions_are_deleted_and_nothing_else(tmp_path: Path, source: Path) -> None:
    long_ago = time.time() - 40 * 24 * 3600
    (tmp_path / "cache").mkdir()
    for name, age in (("costs-old.jsonl", long_ago), ("costs-new.jsonl", None), ("mine.txt", long_ago)):
        path = tmp_path / "cache" / name
        path.touch()
        if age is not None:
            os.utime(path, (age, age))
    table(tmp_path, source).put("a", 1)
    left = {path.name for path in (tmp_path / "cache").iterdir()}
    assert {"costs-new.jsonl", "mine.txt"} < left and "costs-old.jsonl" not in left
    assert table(tmp_path, source).get("a") == 1


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path, source: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom search_spaces.remembered import Remembered\n"
        f"table = Remembered('costs', packages=('pytest',), sources=[Path({str(source)!r})],"
        f" folder=Path({str(tmp_path / 'cache')!r}))\n"
        "for i in range(200):\n    table.put(f'{sys.argv[1]} {i}', [i] * 50)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(n)]) for n in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    reader = table(tmp_path, source)
    assert all(reader.get(f"{n} {i}") == [i] * 50 for n in range(3) for i in range(200))


def test_the_folder_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "video-nas"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    # A relative one does not count.
    for value in ("", "here"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_folder() == tmp_path / "home" / ".cache" / "video-nas"
