from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.data.built import frames_of
from trainer.data import cache, decode
from trainer.data.cache import new_part, open_frames, sweep
from trainer.data.decode import decode_video
from trainer.data.layouts import DataError, find_videos
from trainer.data.pack import append, read
from trainer.data.pack.read import HEADER_BYTES, Packed, open_packed


def packed(root: Path, cache: Path, **kwargs):
    calls: list[tuple[int, int]] = []
    found = open_frames(
        find_videos(root, name="mine"),
        cache,
        **{"short_side": 24, "progress": lambda done, total: calls.append((done, total)), **kwargs},
    )
    return found, calls


def same(one: Packed, other: Packed) -> bool:
    """Whether two are equal, but for what maps their files."""
    videos = [{name: split.entries for name, split in found.splits.items()} for found in (one, other)]
    return replace(one, splits={}) == replace(other, splits={}) and videos[0] == videos[1]


def folders(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


def test_every_frame_is_where_the_index_says(root, tmp_path):
    found, calls = packed(root, tmp_path / "cache", short_side=18)
    assert calls == [(i + 1, 14) for i in range(14)]
    assert found.classes == ("one", "two") and found.broken == ()
    assert [len(split) for split in found.splits.values()] == [10, 4]
    for split in found.splits.values():
        for index, entry in enumerate(split.entries):
            assert (entry.num_frames, entry.height, entry.width, entry.fps) == (12, 18, 24, 10)
            expected = decode_video(root / entry.path, short_side=18).frames
            np.testing.assert_array_equal(frames_of(split, index), expected)
            assert found.classes[entry.label] in entry.path
    assert found.backend.startswith("pyav ")


def test_videos_of_different_sizes_lie_side_by_side(root, tmp_path, write_video):
    write_video(root / "train" / "one" / "5.avi", 7, height=48, width=24)
    found, _ = packed(root, tmp_path / "cache")
    entry = next(e for e in found.splits["train"].entries if e.path.endswith(".avi"))
    assert (entry.num_frames, entry.height, entry.width) == (7, 48, 24)
    size = (found.folder / "train.bin").stat().st_size
    assert size == HEADER_BYTES + 10 * 12 * (4 + 24 * 32 * 3) + 7 * (4 + 48 * 24 * 3)


def test_the_cache_is_used_again_and_only_for_the_same_inputs(root, tmp_path, write_video):
    first, _ = packed(root, tmp_path / "cache")
    again, calls = packed(root, tmp_path / "cache")
    assert same(again, first) and calls == []

    settings, calls = packed(root, tmp_path / "cache", max_frames=6)
    assert len(calls) == 14 and settings.splits["train"].entry(0).num_frames == 6

    # Same size, other content, later time of modification.
    path = root / "train" / "one" / "0.mp4"
    other = root / "train" / "one" / "1.mp4"
    data, stat = path.read_bytes(), path.stat()
    assert len(other.read_bytes()) == len(data)
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    changed, calls = packed(root, tmp_path / "cache")
    assert len(calls) == 14 and changed.checksum != first.checksum

    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again, calls = packed(root, tmp_path / "cache")
    assert same(again, first) and calls == []

    write_video(root / "val" / "two" / "new.mp4", 12)
    assert len(packed(root, tmp_path / "cache")[1]) == 15
    path.unlink()
    assert len(packed(root, tmp_path / "cache")[1]) == 14
    assert len(folders(tmp_path / "cache")) == 5


def test_checksum_tells_what_was_decoded_and_not_when_or_where(root, tmp_path):
    first, _ = packed(root, tmp_path / "cache")
    shutil.copytree(root, tmp_path / "copy", copy_function=shutil.copyfile)
    copy, calls = packed(tmp_path / "copy", tmp_path / "cache")
    assert calls and copy.folder != first.folder
    assert copy.checksum == first.checksum and len(first.checksum) == 64
    assert packed(root, tmp_path / "cache", short_side=12)[0].checksum != first.checksum
    (tmp_path / "copy" / "val" / "one").rename(tmp_path / "copy" / "val" / "x")
    (tmp_path / "copy" / "val" / "two").rename(tmp_path / "copy" / "val" / "one")
    (tmp_path / "copy" / "val" / "x").rename(tmp_path / "copy" / "val" / "two")
    assert packed(tmp_path / "copy", tmp_path / "cache")[0].checksum != first.checksum


def test_another_decoder_or_format_is_another_cache(root, tmp_path, monkeypatch):
    packed(root, tmp_path / "cache")
    monkeypatch.setattr(decode, "backend", lambda: "pyav 0.0")
    assert len(packed(root, tmp_path / "cache")[1]) == 14
    monkeypatch.setattr(decode, "VERSION", 99)
    assert len(packed(root, tmp_path / "cache")[1]) == 14


def test_broken_files_are_left_out_and_listed(root, tmp_path, write_audio):
    (root / "train" / "one" / "0.mp4").write_bytes(b"")
    good = (root / "val" / "two" / "1.mp4").read_bytes()
    (root / "val" / "two" / "0.mp4").write_bytes(good[:300])
    write_audio(root / "train" / "two" / "sound.mp4")
    found, calls = packed(root, tmp_path / "cache")
    assert [b.path for b in found.broken] == ["train/one/0.mp4", "train/two/sound.mp4", "val/two/0.mp4"]
    assert found.broken[0].reason == "the file is empty"
    assert found.broken[1].reason == "there is no video stream, only audio"
    assert len(found.splits["train"]) == 9 and len(found.splits["val"]) == 3
    assert calls[-1] == (15, 15)
    again, calls = packed(root, tmp_path / "cache")
    assert same(again, found) and calls == []


def turned(folder: Path) -> None:
    """Every video of train gets the label of the next one."""
    table = np.load(folder / "train.npy")
    table["label"] = np.roll(table["label"], 1)
    (folder / "train.npy").unlink()  # who has mapped it keeps what was there
    np.save(folder / "train.npy", table)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "index.json").unlink(),
        lambda folder: (folder / "index.json").write_text("{"),
        lambda folder: (folder / "index.json").write_text("[]"),
        lambda folder: (folder / "index.json").write_bytes(b"\xff\xfe"),
        lambda folder: (folder / "index.json").write_text(
            (folder / "index.json").read_text().replace('"videos"', '"video"')
        ),
        lambda folder: (folder / "index.json").write_text("[" * 100_000),
        turned,
        lambda folder: (folder / "train.bin").unlink(),
        lambda folder: os.truncate(folder / "val.bin", 100),
        lambda folder: (folder / "val.bin").write_bytes((folder / "val.bin").read_bytes() + b"x"),
        lambda folder: (shutil.rmtree(folder), folder.mkdir()),
        lambda folder: (shutil.rmtree(folder), folder.touch()),
    ],
)
def test_a_damaged_cache_is_noticed_and_made_again(root, tmp_path, damage):
    found, _ = packed(root, tmp_path / "cache")
    files = {split: (found.folder / f"{split}.bin").read_bytes() for split in found.splits}
    damage(found.folder)
    again, calls = packed(root, tmp_path / "cache")
    assert len(calls) == 14 and same(again, found)
    assert {split: (again.folder / f"{split}.bin").read_bytes() for split in again.splits} == files
    assert folders(tmp_path / "cache") == [found.folder.name]


def test_processes_or_none_give_the_same_cache(root, tmp_path):
    (root / "train" / "one" / "3.mp4").write_bytes(b"no video")
    one, _ = packed(root, tmp_path / "a", num_workers=0)
    two, calls = packed(root, tmp_path / "b", num_workers=2)
    assert calls == [(i + 1, 14) for i in range(14)]
    assert one.checksum == two.checksum and one.broken == two.broken
    assert (one.folder / "train.bin").read_bytes() == (two.folder / "train.bin").read_bytes()
    assert (one.folder / "train.npy").read_bytes() == (two.folder / "train.npy").read_bytes()


def test_a_decoding_that_was_cut_off_goes_on_from_there(root, tmp_path):
    whole, _ = packed(root, tmp_path / "whole")

    def interrupt(done, total):
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed(root, tmp_path / "cache", progress=interrupt)
    with pytest.raises(DataError, match="was not finished"):
        open_packed(next((tmp_path / "cache").iterdir()))
    found, calls = packed(root, tmp_path / "cache")
    assert calls == [(13, 14), (14, 14)]
    assert found.checksum == whole.checksum
    for split in found.splits:
        name = f"{split}.bin"
        assert (found.folder / name).read_bytes() == (whole.folder / name).read_bytes()


@pytest.mark.parametrize("note", [b"", b"[" * 100_000, b'{"key": "another"}'])
def test_what_was_begun_and_cannot_be_gone_on_with_is_made_again(root, tmp_path, note):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed(root, tmp_path / "cache", progress=interrupt)
    (part,) = (tmp_path / "cache").iterdir()
    (part / "packing.json").write_bytes(note)
    found, calls = packed(root, tmp_path / "cache")
    assert len(calls) == 14
    assert folders(tmp_path / "cache") == [found.folder.name]


@pytest.mark.parametrize("place", ["frames", "header", "line"])
def test_what_was_begun_and_has_changed_since_is_made_again(root, tmp_path, place):
    whole, _ = packed(root, tmp_path / "whole")

    def interrupt(done, total):
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed(root, tmp_path / "cache", progress=interrupt)
    (part,) = (tmp_path / "cache").iterdir()
    if place == "line":
        notes = part / "train.jsonl"
        notes.write_text(notes.read_text().replace('"height"', '"heigth"', 1))
    else:
        data = bytearray((part / "train.bin").read_bytes())
        data[5000 if place == "frames" else 20] ^= 1
        (part / "train.bin").write_bytes(data)
    found, _ = packed(root, tmp_path / "cache")
    assert same(replace(found, folder=whole.folder), whole)
    assert (found.folder / "train.bin").read_bytes() == (whole.folder / "train.bin").read_bytes()
    assert folders(tmp_path / "cache") == [found.folder.name]


def test_what_a_killed_process_left_is_gone_on_with_or_swept_up_and_a_living_ones_kept(root, tmp_path):
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    host, dead = socket.gethostname(), int(process.stdout)

    def interrupt(done, total):
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed(root, tmp_path / "cache", progress=interrupt)
    (part,) = (tmp_path / "cache").iterdir()
    part.rename(tmp_path / "cache" / f".{host}.{dead}.beef.part")
    for pid in (dead, os.getppid()):
        (tmp_path / "cache" / f".{host}.{pid}.abcd.part").mkdir()
    found, calls = packed(root, tmp_path / "cache")
    assert len(calls) == 2
    assert folders(tmp_path / "cache") == sorted([f".{host}.{os.getppid()}.abcd.part", found.folder.name])


def test_what_a_process_of_another_container_writes_is_kept(root, tmp_path):
    # The number of a process of another container is that of none here, as is that of one that has ended.
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    name = f".{socket.gethostname()}.{int(process.stdout)}.abcd.part"
    with new_part(tmp_path, "key") as part:
        part.rename(tmp_path / name)
        sweep(tmp_path)
        assert (tmp_path / name).is_dir()
    sweep(tmp_path)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_will_do(root, tmp_path, monkeypatch, number):
    def refused(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(cache.fcntl, "flock", refused)
    found, calls = packed(root, tmp_path / "cache")
    assert len(calls) == 14
    assert folders(tmp_path / "cache") == [found.folder.name]


def test_two_at_once_do_not_disturb_each_other(root, tmp_path, monkeypatch):
    # Both find no cache and decode; the barrier holds each until the other has decoded too.
    barrier, publish = threading.Barrier(2), cache._publish

    def meet(*args):
        barrier.wait(30)
        publish(*args)

    monkeypatch.setattr(cache, "_publish", meet)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: packed(root, tmp_path / "cache"), range(2))
    assert same(one[0], two[0]) and len(one[1]) == len(two[1]) == 14
    assert folders(tmp_path / "cache") == [one[0].folder.name]


def test_a_training_goes_on_while_its_damaged_cache_is_made_again(root, tmp_path):
    found, _ = packed(root, tmp_path / "cache")
    before = [frames_of(found.splits["train"], index) for index in range(10)]
    (found.folder / "index.json").write_text("{")
    seen = []

    def look(done, total):
        fresh = pickle.loads(pickle.dumps(found.splits["train"]))  # as the loader processes of the next epoch get it
        seen.append(all(np.array_equal(frames_of(fresh, index), before[index]) for index in range(10)))

    packed(root, tmp_path / "cache", progress=look)
    assert seen == [True] * 14


def test_a_cache_that_cannot_be_read_for_a_moment_is_left_alone(root, tmp_path, monkeypatch):
    found, _ = packed(root, tmp_path / "cache")
    stat = (found.folder / "train.bin").stat()
    opened = read.regular_file

    def refused(path):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    for name in ("index.json", "train.bin", "val.npy"):
        monkeypatch.setattr(
            read, "regular_file", lambda path, name=name: (refused if Path(path).name == name else opened)(path)
        )
        with pytest.raises(DataError, match=rf"data\.cache must be readable, but reading .*{name} failed: Stale"):
            packed(root, tmp_path / "cache")
    monkeypatch.setattr(read, "regular_file", opened)
    assert packed(root, tmp_path / "cache")[1] == []
    assert (found.folder / "train.bin").stat() == stat


def test_a_folder_with_something_else_in_it_is_made_again(root, tmp_path):
    large, _ = packed(root, tmp_path / "cache", short_side=24)
    small, _ = packed(root, tmp_path / "cache", short_side=12)
    shutil.rmtree(small.folder)
    shutil.copytree(large.folder, small.folder)
    found, calls = packed(root, tmp_path / "cache", short_side=12)
    assert len(calls) == 14 and found.splits["train"].entry(0).height == 12


def test_a_full_disk_is_an_error_of_one_line_and_what_is_decoded_stays(root, tmp_path, monkeypatch):
    full, write = [False], append._write

    def until_full(file, data):
        if full[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file, data)

    monkeypatch.setattr(append, "_write", until_full)

    def fill(done, total):
        full[0] = done >= 11

    with pytest.raises(
        DataError, match=r"data\.cache must have room, but .* is full after 1\d of 14 videos; free space"
    ):
        packed(root, tmp_path / "cache", progress=fill)
    full[0] = False
    assert len(packed(root, tmp_path / "cache")[1]) < 5


def test_a_complete_cache_is_opened_where_nothing_can_be_written(root, tmp_path, monkeypatch):
    found, _ = packed(root, tmp_path / "cache")

    def refused(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(cache, "make_folder", refused)
    assert packed(root, tmp_path / "cache")[0].checksum == found.checksum


def test_the_checksum_is_that_of_earlier_versions(root, tmp_path):
    found, _ = packed(root, tmp_path / "cache")
    digest = hashlib.sha256(json.dumps(["one", "two"]).encode())
    for split in found.splits.values():
        for entry in split.entries:
            frames = decode_video(root / entry.path, short_side=24).frames
            digest.update(json.dumps([entry.path, entry.label, *frames.shape[:3]]).encode())
            digest.update(np.ascontiguousarray(frames))
    assert found.checksum == digest.hexdigest()


def test_a_cache_that_cannot_be_written_is_an_error_of_one_line(root, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"data\.cache must be a folder that can be written.*Not a directory"):
        packed(root, tmp_path / "file" / "cache")
    with pytest.raises(DataError, match=r"data\.cache must be a folder that can be written"):
        packed(root, tmp_path / "file")


def test_a_named_pipe_is_no_index(root, tmp_path):
    found, _ = packed(root, tmp_path / "cache")
    (found.folder / "index.json").unlink()
    os.mkfifo(found.folder / "index.json")
    again, calls = packed(root, tmp_path / "cache")
    assert len(calls) == 14 and again.checksum == found.checksum
