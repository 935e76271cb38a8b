"""What comes out of an archive, and what does not: hostile names, damage."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

from tests.trainer.data.web import archive
from trainer.data.unpack import unpack


def test_an_archive_cannot_write_outside_of_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    outside = tmp_path / "outside"
    outside.mkdir()
    path.write_bytes(
        archive(
            {
                "../up.mp4": b"x",
                f"{outside}/absolute.mp4": b"x",
                "in/../../up2.mp4": b"x",
                "link.mp4": str(outside / "target.mp4"),
                "folder": str(outside),
                "folder/through.mp4": b"inside",
                "run.sh": b"x",
                ".hidden.mp4": b"x",
                "deep/fine.mp4": b"fine",
            }
        )
    )
    got = unpack(path, tmp_path / "into")
    assert got.videos == 2
    assert got.problem == ""
    assert [one.split(": ")[1] for one in got.refused] == [
        "its path leads out of the folder",
        "its path leads out of the folder",
        "its path leads out of the folder",
        "it is a link or no plain file",
        "it is a link or no plain file",
        "it is no video by its name",
        "it is no video by its name",
    ]
    assert sorted(p.name for p in (tmp_path / "into").iterdir()) == ["fine.mp4", "through.mp4"]
    assert list(outside.iterdir()) == []
    assert not (tmp_path / "up.mp4").exists()


def test_a_damaged_archive_of_any_kind_and_names_that_cannot_be_are_told(tmp_path: Path) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:xz") as tar:
        info = tarfile.TarInfo("a.mp4")
        info.size = 100_000
        tar.addfile(info, io.BytesIO(random.Random(0).randbytes(info.size)))
    damaged = bytearray(whole.getvalue())
    damaged[5000] ^= 255
    (tmp_path / "a.tar.gz").write_bytes(damaged)
    assert unpack(tmp_path / "a.tar.gz", tmp_path / "into").problem.startswith("the archive is damaged: ")
    longest = "n" * 251 + ".mp4"
    (tmp_path / "b.tar.gz").write_bytes(archive({f"n{longest}": b"x", longest: b"x"}))
    got = unpack(tmp_path / "b.tar.gz", tmp_path / "into")
    assert (got.videos, got.refused, got.problem) == (1, (f"n{longest}: its name is too long",), "")
    assert [path.name for path in (tmp_path / "into").iterdir()] == [longest]
