"""What comes out of an archive, and what does not: hostile names, damage."""

from __future__ import annotations

import gzip
import io
import random
import resource
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trainer.data.web import archive
from trainer.data.download import unpack


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


def test_of_two_members_of_one_name_the_first_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(archive({"one/a.mp4": b"first", "two/a.mp4": b"another", "two/b.mp4": b"b", "./two/b.mp4": b"c"}))
    got = unpack(path, tmp_path / "into")
    assert (got.videos, got.problem) == (2, "")
    assert got.refused == (
        "two/a.mp4: its name is that of one/a.mp4, which was taken",
        "./two/b.mp4: its name is that of two/b.mp4, which was taken",
    )
    assert (tmp_path / "into" / "a.mp4").read_bytes() == b"first"


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


MIB = 2**20


def member(name: str, size: int, *, content: bytes | None = None, **values: object) -> bytes:
    """A header of a tar file, and what is behind it: zeros unless it is said."""
    info = tarfile.TarInfo(name)
    info.size = size
    for key, value in values.items():
        setattr(info, key, value)
    content = bytes(size) if content is None else content
    return info.tobuf(tarfile.PAX_FORMAT) + content + bytes(-len(content) % 512)


def claimed(kind: bytes) -> bytes:
    """A header that says that 400 MB of it follow."""
    return member("a.mp4", 400 * MIB, content=b"", type=kind) + member("b.mp4", 10)


def pairs(count: int, first: int = 0) -> bytes:
    """The content of a pax header with so many settings."""
    lines = [f"{number:08d}=x\n" for number in range(first, first + count)]
    return "".join(f"{len(line) + 3} {line}" for line in lines).encode()


def header(kind: bytes, content: bytes) -> bytes:
    return member("h", len(content), content=content, type=kind)


SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "a.mp4"}

BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "one large video": (lambda: member("a.mp4", 100 * MIB), "it must unpack to at most"),
    "many videos": (lambda: b"".join(member(f"{k}.mp4", MIB) for k in range(40)), "it must unpack to at most"),
    "what is passed over": (
        lambda: member("a.mp4", 10) + member("a.txt", 100 * MIB) + member("b.mp4", 10),
        "it must unpack to at most",
    ),
    "a size without its bytes": (lambda: member("a.mp4", 10) + member("b.mp4", 2**60, content=b""), "it must unpack"),
    "pax header": (lambda: claimed(tarfile.XHDTYPE), "headers of a member must have at most 262,144 bytes"),
    "global header": (lambda: claimed(tarfile.XGLTYPE), "headers of a member must have"),
    "long name": (lambda: claimed(tarfile.GNUTYPE_LONGNAME), "headers of a member must have"),
    "long link": (lambda: claimed(tarfile.GNUTYPE_LONGLINK), "headers of a member must have"),
    "headers behind headers": (
        lambda: header(tarfile.XGLTYPE, pairs(100)) * 200 + member("b.mp4", 10),
        "headers of a member must have",
    ),
    "settings for all": (
        lambda: b"".join(header(tarfile.XGLTYPE, pairs(100, 100 * k)) + member(f"{k}.mp4", 10) for k in range(40)),
        "its headers make more than 1,000 settings for all members",
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_an_archive_that_would_fill_the_disk_or_the_memory_leaves_nothing(tmp_path: Path, bomb: str) -> None:
    make, message = BOMBS[bomb]
    path, folder = tmp_path / "a.tar.gz", tmp_path / "into"
    path.write_bytes(gzip.compress(member("first.mp4", 10) + make() + bytes(1024), 1))
    folder.mkdir()
    (folder / "of_before.mp4").write_bytes(b"x")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    got = unpack(path, folder)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 60, "MiB of memory"
    assert got.problem.startswith(f"an archive of {path.stat().st_size:,} bytes is refused: ")
    assert message in got.problem
    assert len(got.problem) <= 500 and "\n" not in got.problem
    assert (got.videos, got.refused) == (0, ())
    assert [one.name for one in folder.iterdir()] == ["of_before.mp4"]


def test_of_a_sparse_member_no_zeros_are_written(tmp_path: Path) -> None:
    place = b"1\n0\n1\n"
    content = place + bytes(512 - len(place)) + b"x"

    def written(size: int) -> Path:
        path = tmp_path / f"{size}.tar"
        made = {**SPARSE, "GNU.sparse.realsize": str(size)}
        path.write_bytes(member("b.mp4", 3) + member("s/a.mp4", len(content), content=content, pax_headers=made))
        return path

    assert "it must unpack to at most" in unpack(written(10**12), tmp_path / "into").problem
    assert list((tmp_path / "into").iterdir()) == []
    got = unpack(written(10**6), tmp_path / "into")
    assert (got.problem, got.videos, got.refused) == ("", 1, ("a.mp4: it is a sparse file",))
    assert [one.name for one in (tmp_path / "into").iterdir()] == ["b.mp4"]


def test_an_honest_archive_has_room_and_a_larger_one_where_it_is_allowed(tmp_path: Path) -> None:
    path, rng = tmp_path / "a.tar.gz", random.Random(0)
    path.write_bytes(archive({f"{k}.mp4": rng.randbytes(2 * MIB) for k in range(10)}))
    assert path.stat().st_size > 20 * MIB
    assert unpack(path, tmp_path / "honest").videos == 10
    path.write_bytes(archive({f"{k}.mp4": bytes(MIB) for k in range(40)}))
    assert unpack(path, tmp_path / "into").videos == 0
    got = unpack(path, tmp_path / "into", limit=50 * MIB)
    assert (got.videos, got.problem) == (40, "")


def test_what_is_not_taken_is_told_up_to_a_hundred(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"".join(member(f"{k}.txt", 0) for k in range(250)) + bytes(1024))
    got = unpack(tmp_path / "a.tar", tmp_path / "into")
    assert (len(got.refused), got.refused[-1]) == (101, "... and 150 more")


@pytest.mark.parametrize("compressed", [False, True])
def test_an_archive_with_any_damage_is_no_exception(tmp_path: Path, compressed: bool) -> None:
    whole = b"".join(
        [
            member("a.mp4", 700),
            header(tarfile.XHDTYPE, b"16 path=name.mp4\n" + pairs(3)),
            member("b.mp4", 10),
            member("s/a.mp4", 512, content=b"1\n0\n1\n" + bytes(506), pax_headers=SPARSE),
            header(tarfile.XGLTYPE, pairs(3)),
            member("n" * 200 + ".mp4", 1500),
            bytes(1024),
        ]
    )
    rng = random.Random(0)
    for number in range(150):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 1, 3, 10))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if number % 5 == 0:
            del data[rng.randrange(len(data)) :]
        if number % 3 == 0:  # a header that says another size, with a sum that fits
            place = 512 * rng.randrange(len(data) // 512) if len(data) >= 512 else 0
            data[place + 124 : place + 136] = rng.choice((b"\x80" + b"\xff" * 11, b"\xff" * 12, b"77777777777\0"))
            block = bytearray(data[place : place + 512])
            if len(block) == 512:
                block[148:156] = b" " * 8
                data[place + 148 : place + 156] = f"{sum(block):06o}\0 ".encode()
        path, folder = tmp_path / f"{number}.tar", tmp_path / f"into{number}"
        path.write_bytes(gzip.compress(bytes(data)) if compressed else bytes(data))
        got = unpack(path, folder)
        assert got.videos <= 4
        assert len(got.problem) <= 500 and "\n" not in got.problem
        assert not list(folder.glob(".*"))
