from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from trainer.data import cache as pack_module
from trainer.data.cache import new_part, pack, sweep
from trainer.data.decode import decode_video
from trainer.data.layouts import DataError, find_videos


def packed(root: Path, cache: Path, **kwargs):
    calls: list[tuple[int, int]] = []
    found = pack(
        find_videos(root, name="mine"),
        cache,
        **{"short_side": 24, "progress": lambda done, total: calls.append((done, total)), **kwargs},
    )
    return found, calls


def folders(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir())


def test_every_frame_is_where_the_index_says(root, tmp_path):
    found, calls = packed(root, tmp_path / "cache", short_side=18)
    assert calls == [(i + 1, 14) for i in range(14)]
    assert found.classes == ("one", "two") and found.broken == ()
    assert [len(entries) for entries in found.splits.values()] == [10, 4]
    for split, entries in found.splits.items():
        data = np.fromfile(found.file(split), dtype=np.uint8)
        for entry in entries:
            frames = data[entry.offset : entry.offset + entry.num_bytes()].reshape(12, 18, 24, 3)
            assert (entry.num_frames, entry.height, entry.width, entry.fps) == (12, 18, 24, 10)
            np.testing.assert_array_equal(frames, decode_video(root / entry.path, short_side=18).frames)
            assert found.classes[entry.label] in entry.path
    assert found.backend.startswith("pyav ")


def test_videos_of_different_sizes_lie_side_by_side(root, tmp_path, write_video):
    write_video(root / "train" / "one" / "5.avi", 7, height=48, width=24)
    found, _ = packed(root, tmp_path / "cache")
    entry = next(e for e in found.splits["train"] if e.path.endswith(".avi"))
    assert (entry.num_frames, entry.height, entry.width) == (7, 48, 24)
    assert found.file("train").stat().st_size == 10 * 12 * (4 + 24 * 32 * 3) + 7 * (4 + 48 * 24 * 3)


def test_the_cache_is_used_again_and_only_for_the_same_inputs(root, tmp_path, write_video):
    first, _ = packed(root, tmp_path / "cache")
    again, calls = packed(root, tmp_path / "cache")
    assert again == first and calls == []

    settings, calls = packed(root, tmp_path / "cache", max_frames=6)
    assert len(calls) == 14 and settings.splits["train"][0].num_frames == 6

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
    assert packed(root, tmp_path / "cache") == (first, [])

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
    monkeypatch.setattr(pack_module.decode, "backend", lambda: "pyav 0.0")
    assert len(packed(root, tmp_path / "cache")[1]) == 14
    monkeypatch.setattr(pack_module.decode, "VERSION", 99)
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
    assert packed(root, tmp_path / "cache") == (found, [])


def turned(index: Path) -> None:
    """Every video of train gets the label of the next one."""
    content = json.loads(index.read_text())
    labels = [entry["label"] for entry in content["splits"]["train"]]
    for entry, label in zip(content["splits"]["train"], labels[1:] + labels[:1], strict=True):
        entry["label"] = label
    index.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "index.json").unlink(),
        lambda folder: (folder / "index.json").write_text("{"),
        lambda folder: (folder / "index.json").write_text("[]"),
        lambda folder: (folder / "index.json").write_bytes(b"\xff\xfe"),
        lambda folder: (folder / "index.json").write_text(
            (folder / "index.json").read_text().replace('"offset"', '"offsets"')
        ),
        lambda folder: (folder / "index.json").write_text("[" * 100_000),
        lambda folder: turned(folder / "index.json"),
        lambda folder: (folder / "train.bin").unlink(),
        lambda folder: os.truncate(folder / "val.bin", 100),
        lambda folder: (folder / "val.bin").write_bytes((folder / "val.bin").read_bytes() + b"x"),
        lambda folder: (shutil.rmtree(folder), folder.mkdir()),
        lambda folder: (shutil.rmtree(folder), folder.touch()),
    ],
)
def test_a_damaged_cache_is_noticed_and_made_again(root, tmp_path, damage):
    found, _ = packed(root, tmp_path / "cache")
    sizes = {split: found.file(split).stat().st_size for split in found.splits}
    damage(found.folder)
    again, calls = packed(root, tmp_path / "cache")
    assert len(calls) == 14 and again == found
    assert {split: again.file(split).stat().st_size for split in again.splits} == sizes
    assert folders(tmp_path / "cache") == [found.folder.name]


def test_processes_or_none_give_the_same_cache(root, tmp_path):
    (root / "train" / "one" / "3.mp4").write_bytes(b"no video")
    one, _ = packed(root, tmp_path / "a", num_workers=0)
    two, calls = packed(root, tmp_path / "b", num_workers=2)
    assert calls == [(i + 1, 14) for i in range(14)]
    assert one.checksum == two.checksum and one.splits == two.splits and one.broken == two.broken
    assert (one.file("train")).read_bytes() == two.file("train").read_bytes()


def test_an_interrupted_packing_leaves_nothing_behind(root, tmp_path):
    def interrupt(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        packed(root, tmp_path / "cache", progress=interrupt)
    assert folders(tmp_path / "cache") == []
    assert len(packed(root, tmp_path / "cache")[1]) == 14


def test_what_a_killed_process_left_is_swept_up_and_a_living_ones_kept(root, tmp_path):
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    host = socket.gethostname()
    for pid in (int(process.stdout), os.getppid()):
        (tmp_path / "cache" / f".{host}.{pid}.abcd.part").mkdir(parents=True)
    found, _ = packed(root, tmp_path / "cache")
    assert folders(tmp_path / "cache") == sorted([f".{host}.{os.getppid()}.abcd.part", found.folder.name])


def test_what_a_process_of_another_container_writes_is_kept(root, tmp_path):
    # The number of a process of another container is that of none here, as is that of one that has ended.
    process = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    name = f".{socket.gethostname()}.{int(process.stdout)}.abcd.part"
    with new_part(tmp_path) as part:
        part.rename(tmp_path / name)
        sweep(tmp_path)
        assert (tmp_path / name).is_dir()
    sweep(tmp_path)
    assert not (tmp_path / name).exists()


def test_two_at_once_do_not_disturb_each_other(root, tmp_path, monkeypatch):
    # Both find no cache and pack; the barrier holds each until the other has packed too.
    barrier = threading.Barrier(2)
    publish = pack_module._publish

    def meet(*args):
        barrier.wait(30)
        publish(*args)

    monkeypatch.setattr(pack_module, "_publish", meet)
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: packed(root, tmp_path / "cache"), range(2))
    assert one == two and len(one[1]) == 14
    assert folders(tmp_path / "cache") == [one[0].folder.name]


def test_a_full_disk_is_an_error_of_one_line(root, tmp_path, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pack_module, "_flush", full)
    with pytest.raises(DataError, match=r"has room, but using .*cache failed: No space left.* another data.cache"):
        packed(root, tmp_path / "cache")
    assert folders(tmp_path / "cache") == []


def test_a_cache_that_cannot_be_written_is_an_error_of_one_line(root, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"data\.cache must be a folder that can be written.*Not a directory"):
        packed(root, tmp_path / "file" / "cache")
    with pytest.raises(DataError, match=r"data\.cache must be a folder that can be written"):
        packed(root, tmp_path / "file")


def test_a_cache_of_the_version_before_is_used(root, tmp_path):
    found, _ = packed(root, tmp_path / "cache")
    index = found.folder / "index.json"
    index.write_text(json.dumps({k: v for k, v in json.loads(index.read_text()).items() if k != "sha256"}))
    assert packed(root, tmp_path / "cache") == (found, [])


def test_a_named_pipe_is_no_index(root, tmp_path):
    found, _ = packed(root, tmp_path / "cache")
    (found.folder / "index.json").unlink()
    os.mkfifo(found.folder / "index.json")
    with pytest.raises(DataError, match=r"using .*index\.json failed: not a regular file;"):
        packed(root, tmp_path / "cache")
