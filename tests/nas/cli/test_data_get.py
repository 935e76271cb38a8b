"""`nas data get`: the checksums that a user gives, from a real local server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from nas.cli.main import main
from tests.trainer.data.built import Clip
from tests.trainer.data.web import Server, publish


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Two archives of train and one of val; nothing here looks into a video."""
    clips = []
    for number, split in enumerate(("train", "train", "val")):
        path = tmp_path / "source" / split / "a" / f"id_{number:08d}_000001_000011.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]))
        clips.append(Clip(path=path, split=split, label=0))
    running = Server()
    publish(running, clips, tmp_path)
    yield running
    running.close()


def get(server: Server, tmp_path: Path, lines: list[str]) -> int:
    (tmp_path / "sums.txt").write_text("".join(f"{line}\n" for line in lines))
    options = ["--root", str(tmp_path / "k400"), "--base", server.base, "--checksums", str(tmp_path / "sums.txt")]
    return main(["data", "get", "kinetics", *options])


def test_checksums_are_told_apart_by_the_folders_of_their_files(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sums = {name: hashlib.sha256(body).hexdigest() for name, body in server.files.items() if name.endswith(".gz")}
    assert len({Path(name).name for name in sums}) < len(sums)
    assert get(server, tmp_path, [f"{digest}  {Path(name).name}" for name, digest in sums.items()]) == 2
    message = capsys.readouterr().err.strip()
    assert "an archive must have one checksum, but line 3 of " in message
    assert message.endswith(
        "part_0.tar.gz another one; archives of one name are told apart by their split, as train/part_0.tar.gz"
    )
    assert not (tmp_path / "k400").exists()
    assert get(server, tmp_path, [f"{digest} *kinetics/400{name}" for name, digest in sums.items()]) == 0
    assert "3 of 3 archives, videos: train 2, val 1" in capsys.readouterr().out


def test_checksums_of_archives_that_do_not_exist_are_told(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"{'0' * 64}  {name}" for name in ("train/part_9.tar.gz", "test/part_0.tar.gz", "prat_1.tar.gz")]
    assert get(server, tmp_path, lines) == 0
    assert (
        f"checksums without an archive: 2 names of {tmp_path / 'sums.txt'} are of no archive of train, val:"
        " prat_1.tar.gz, train/part_9.tar.gz"
    ) in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize("digest", ["00", "z" * 64, "0" * 63, "0" * 65])
def test_what_is_no_checksum_is_told_before_anything_is_fetched(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], digest: str
) -> None:
    assert get(server, tmp_path, [f"{digest}  train/part_0.tar.gz"]) == 2
    assert "sums.txt must read `checksum file` with a SHA-256, SHA-1 or MD5 in hex" in capsys.readouterr().err
    assert not (tmp_path / "k400").exists()
