from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from trainer.data.augment import Box
from trainer.data.decode import decode_video
from trainer.data.layouts import DataError, find_videos
from trainer.data.pack import append as appending
from trainer.data.pack.read import Packed, open_packed
from trainer.data.pack.write import write_pack
from trainer.files import sealed

WHOLE = Box(top=0, left=0, height=24, width=32)
REPOSITORY = Path(__file__).parents[3]

# Packs in a process of its own, each video flushed; after so many videos it kills itself, or the disk is full.
SCRIPT = """
import os, resource, signal, sys
from trainer.data.pack import append, write
from trainer.data.layouts import DataError, find_videos
root, folder, how, after = sys.argv[1:]
append._GROUP_BYTES = 1
if how == "full":
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(after), int(after)))
def progress(done, total):
    if how == "kill" and done == int(after):
        os.kill(os.getpid(), signal.SIGKILL)
try:
    write.write_pack(find_videos(root, name="mine"), folder, short_side=24, coding="raw", num_workers=0,
                     progress=progress)
except DataError as error:
    sys.exit(str(error))
"""


def pack(root: Path, folder: Path, **options) -> tuple[Packed, list[tuple[int, int]]]:
    calls: list[tuple[int, int]] = []
    options = {"short_side": 24, "coding": "raw", "num_workers": 0, **options}
    found = write_pack(find_videos(root, name="mine"), folder, progress=lambda *done: calls.append(done), **options)
    return found, calls


def run(root: Path, folder: Path, how: str, after: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, str(root), str(folder), how, str(after)]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.mark.parametrize("coding", ["raw", "jpeg"])
def test_any_frame_of_any_video_is_found(root, tmp_path, write_video, coding):
    write_video(root / "val" / "two" / "tall.mp4", 5, height=48, width=24)
    found, calls = pack(root, tmp_path / "pack", coding=coding)
    assert calls == [(i + 1, 15) for i in range(15)]
    assert found.classes == ("one", "two") and found.broken == () and found.coding == coding
    for split in found.splits.values():
        for index, entry in enumerate(split.entries):
            frames = decode_video(root / entry.path, short_side=24).frames
            assert (entry.num_frames, entry.height, entry.width, entry.fps) == (*frames.shape[:3], 10)
            assert found.classes[entry.label] in entry.path
            numbers = np.array([3, 0, 3, len(frames) - 1])
            box = Box(top=2, left=1, height=entry.height - 5, width=entry.width - 4)
            pixels = split.read(index, numbers, box).astype(int)
            assert np.abs(pixels - frames[numbers, 2:-3, 1:-3]).max() <= (0 if coding == "raw" else 3)


def test_the_table_and_the_lines_for_people_say_the_same(root, tmp_path):
    found, _ = pack(root, tmp_path / "pack")
    lines = [json.loads(line) for line in (found.folder / "train.jsonl").read_text().splitlines()]
    entries = found.splits["train"].entries
    for line, entry in zip(lines, entries, strict=True):
        assert all(line[name] == getattr(entry, name) for name in ("path", "label", "num_frames", "offset", "fps"))
        assert len(line["sha256"]) == 64 and line["bytes"] == entry.num_bytes()


def test_packing_again_opens_what_is_there(root, tmp_path):
    found, _ = pack(root, tmp_path / "pack")
    before = contents(found.folder)
    again, calls = pack(root, tmp_path / "pack")
    assert calls == [] and again.checksum == found.checksum and contents(found.folder) == before


def test_processes_or_none_write_the_same_files(root, tmp_path):
    (root / "train" / "one" / "3.mp4").write_bytes(b"no video")
    one, _ = pack(root, tmp_path / "a", coding="jpeg")
    two, _ = pack(root, tmp_path / "b", coding="jpeg", num_workers=2)
    assert contents(one.folder) == contents(two.folder)


def test_broken_sources_are_listed_and_left_out(root, tmp_path, write_audio):
    (root / "train" / "one" / "0.mp4").write_bytes(b"")
    write_audio(root / "val" / "two" / "sound.mp4")
    found, _ = pack(root, tmp_path / "pack")
    assert [(b.path, b.reason) for b in found.broken] == [
        ("train/one/0.mp4", "the file is empty"),
        ("val/two/sound.mp4", "there is no video stream, only audio"),
    ]
    assert [len(split) for split in found.splits.values()] == [9, 4]


@pytest.mark.parametrize("after", [3, 12])  # in the middle of train, and of val
def test_after_a_kill_packing_goes_on_and_ends_with_the_same_files(root, tmp_path, after):
    (root / "train" / "one" / "1.mp4").write_bytes(b"no video")
    whole, _ = pack(root, tmp_path / "whole")
    assert run(root, tmp_path / "pack", "kill", after).returncode == -signal.SIGKILL
    with pytest.raises(DataError, match=r"pack was not finished; run the same `nas data pack` again"):
        open_packed(tmp_path / "pack")
    found, calls = pack(root, tmp_path / "pack")
    assert calls == [(i + 1, 14) for i in range(after, 14)]
    assert contents(found.folder) == contents(whole.folder)


def test_half_a_video_and_half_a_line_are_cut_off(root, tmp_path):
    whole, _ = pack(root, tmp_path / "whole")
    run(root, tmp_path / "pack", "kill", 6)
    for name, tail in (("train.bin", b"half a video"), ("train.jsonl", b'{"path": "train/tw')):
        with (tmp_path / "pack" / name).open("ab") as file:
            file.write(tail)
    found, calls = pack(root, tmp_path / "pack")
    assert calls[0] == (7, 14) and contents(found.folder) == contents(whole.folder)


def test_lines_whose_frames_are_lost_are_packed_again(root, tmp_path):
    whole, _ = pack(root, tmp_path / "whole")
    run(root, tmp_path / "pack", "kill", 6)
    file = tmp_path / "pack" / "train.bin"
    os.truncate(file, file.stat().st_size - 1)
    found, calls = pack(root, tmp_path / "pack")
    assert calls[0] == (6, 14) and contents(found.folder) == contents(whole.folder)


def test_a_full_disk_is_one_line_and_what_is_there_can_be_gone_on_with(root, tmp_path):
    whole, _ = pack(root, tmp_path / "whole")
    size = whole.splits["train"].entries[0].num_bytes()
    process = run(root, tmp_path / "pack", "full", 64 + 4 * (4 * 12 + size) + 100)
    assert process.returncode == 1
    assert process.stderr.strip() == (
        f"a pack must have room, but {tmp_path / 'pack'} is full after 4 of 14 videos; free space and run the same"
        " command again: it goes on from there"
    )
    found, calls = pack(root, tmp_path / "pack")
    assert calls[0] == (5, 14) and contents(found.folder) == contents(whole.folder)


def test_a_disk_that_is_full_from_the_start_leaves_nothing_in_the_way(root, tmp_path):
    whole, _ = pack(root, tmp_path / "whole")
    process = run(root, tmp_path / "pack", "full", 10)
    assert "is full after 0 of 14 videos; free space and run the same command again" in process.stderr
    assert contents(tmp_path / "pack") == {}
    (tmp_path / "pack" / ".packing.json.part").write_bytes(b"{")  # of a process that was killed just then
    found, _ = pack(root, tmp_path / "pack")
    assert contents(found.folder) == contents(whole.folder)


@pytest.mark.parametrize("file", ["train.bin", "train.jsonl"])
def test_what_could_not_be_put_onto_the_disk_is_packed_again(root, tmp_path, monkeypatch, file):
    whole, _ = pack(root, tmp_path / "whole")
    monkeypatch.setattr(appending, "_GROUP_BYTES", 1)
    fsync, calls = os.fsync, []

    def failing(descriptor: int) -> None:
        path = tmp_path / "pack" / file
        calls.append(path.exists() and os.path.samestat(os.fstat(descriptor), path.stat()))
        if calls[-1] and sum(calls) == 4:  # once, and then never again, as systems do
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(DataError, match="is full after 3 of 14 videos"):
        pack(root, tmp_path / "pack")
    assert len((tmp_path / "pack" / "train.jsonl").read_text().splitlines()) == 3
    found, progress = pack(root, tmp_path / "pack")
    assert progress[0] == (4, 14) and contents(found.folder) == contents(whole.folder)


def test_lines_that_do_not_follow_the_list_are_packed_again(root, tmp_path):
    whole, _ = pack(root, tmp_path / "whole")
    run(root, tmp_path / "pack", "kill", 6)
    lines = tmp_path / "pack" / "train.jsonl"
    kept = lines.read_text().splitlines(keepends=True)
    lines.write_text("".join([*kept[:4], kept[3], *kept[4:]]))
    found, calls = pack(root, tmp_path / "pack")
    assert calls[0] == (5, 14) and contents(found.folder) == contents(whole.folder)


def test_a_folder_holds_one_pack(root, tmp_path, write_video):
    pack(root, tmp_path / "pack")
    with pytest.raises(DataError, match=r"holds one of short_side 24 instead of 12; give another folder"):
        pack(root, tmp_path / "pack", short_side=12)
    write_video(root / "val" / "two" / "new.mp4", 12)
    with pytest.raises(DataError, match=r"holds one of other videos, or of others by now; give another folder"):
        pack(root, tmp_path / "pack")
    run(root, tmp_path / "begun", "kill", 3)
    with pytest.raises(DataError, match=r"begun holds one of coding raw instead of jpeg"):
        pack(root, tmp_path / "begun", coding="jpeg")
    with pytest.raises(DataError, match=r"a folder of its own, but .*data holds train, val; give another"):
        pack(root, root)


def test_two_processes_do_not_pack_into_one_folder(root, tmp_path):
    (tmp_path / "pack").mkdir()
    with (
        FileLock(tmp_path / "pack" / ".lock"),
        pytest.raises(DataError, match=r"one process must make a pack, but another one is packing into .*pack"),
    ):
        pack(root, tmp_path / "pack")


def test_a_folder_that_cannot_be_written_is_one_line(root, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"a pack must be a folder that can be written, but using .*file"):
        pack(root, tmp_path / "file" / "pack")


def other(folder: Path, root: Path) -> Path:
    """A pack of the same videos with other settings, so of the same names and numbers of files."""
    return pack(root, folder.with_name("other"), max_frames=11)[0].folder


def as_jpeg(folder: Path, root: Path) -> Path:
    """The same videos packed as JPEGs in its place."""
    shutil.rmtree(folder)
    return pack(root, folder, coding="jpeg")[0].folder


def edit(folder: Path, **changes) -> None:
    index = json.loads((folder / "index.json").read_text())
    if changes.get("settings"):
        changes["settings"] = {**index["settings"], **changes["settings"]}
    (folder / "index.json").write_text(json.dumps(sealed({**index, **changes})))


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def unsealed(folder: Path, **changes) -> None:
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**index, **changes}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f, r: edit(f, format=7), r"a pack must be of format 1, but .*pack is of format 7; remove the folder"),
        (lambda f, r: shutil.copy(other(f, r) / "train.bin", f), r"belong together, but train\.bin and train\.npy in"),
        (lambda f, r: shutil.copy(other(f, r) / "val.npy", f), r"but val\.bin and val\.npy in .* are of another pack"),
        (lambda f, r: shutil.copy(other(f, r) / "index.json", f), r"are of another pack or not whole; copy the whole"),
        (lambda f, r: os.truncate(f / "val.bin", 1000), r"val\.bin and val\.npy in .* not whole"),
        (lambda f, r: (f / "val.bin").unlink(), r"cannot be read \(.*val\.bin: No such file"),
        (lambda f, r: (f / "index.json").write_text("{"), r"index\.json must be as `nas data pack` wrote it, but is d"),
        (lambda f, r: (f / "index.json").write_text("[" * 100_000), r"index\.json must be as .* but is damaged"),
        (lambda f, r: unsealed(f, classes=["b", "a"]), r"index\.json must be as .* but was changed; remove the folder"),
        (lambda f, r: piped(f / "index.json"), r"index\.json must be as .* but is damaged"),
        (lambda f, r: piped(f / "val.bin"), r"cannot be read \(.*val\.bin: not a regular file\)"),
        (lambda f, r: piped(f / "val.npy"), r"cannot be read \(.*val\.npy: not a regular file\)"),
        (lambda f, r: edit(f, settings={}), r"index\.json must be as `nas data pack` wrote it, but is damaged"),
        (lambda f, r: edit(f, settings={"short_side": 1e999}), r"index\.json must be as .* but is damaged"),
        (lambda f, r: edit(f, settings={"coding": "png"}), r"index\.json must be as .* but is damaged"),
        (lambda f, r: edit(as_jpeg(f, r), settings={"coding": "raw"}), r"index\.json must be as .* but is damaged"),
        (lambda f, r: edit(f, classes="ab"), r"index\.json must be as .* but is damaged"),
        (lambda f, r: edit(f, classes=[1, 2]), r"index\.json must be as .* but is damaged"),
        (lambda f, r: edit(f, classes=["one", "one"]), r"index\.json must be as .* but is damaged"),
        (lambda f, r: edit(f, splits=[]), r"index\.json must be as `nas data pack` wrote it, but is damaged"),
        (lambda f, r: (f / "index.json").unlink(), r"data\.root must be a pack where .* but .*pack has no index\.json"),
    ],
)
def test_what_does_not_belong_together_is_refused_in_one_line(root, tmp_path, damage, message):
    found, _ = pack(root, tmp_path / "pack")
    damage(found.folder, root)
    with pytest.raises(DataError, match=message) as error:
        open_packed(tmp_path / "pack")
    assert "\n" not in str(error.value)


def test_a_video_at_most_as_fast_as_asked(root, tmp_path, write_video):
    write_video(root / "val" / "two" / "slow.mp4", 12, fps=3)
    found, _ = pack(root, tmp_path / "pack", fps=5.0)
    *others, slow = found.splits["val"].entries
    assert {(entry.num_frames, entry.fps) for entry in others} == {(6, 5.0)}
    assert (slow.num_frames, slow.fps) == (12, 3.0)
    frames = decode_video(root / "val" / "two" / "slow.mp4", short_side=24).frames
    np.testing.assert_array_equal(found.splits["val"].read(4, np.arange(12), WHOLE), frames)
    frames = decode_video(root / "val" / "one" / "0.mp4", short_side=24).frames
    np.testing.assert_array_equal(found.splits["val"].read(0, np.arange(6), WHOLE), frames[1::2])


def test_names_may_hold_spaces_quotes_and_other_letters(root, tmp_path, write_video):
    write_video(root / "x.mp4", 4).rename(root / "train" / "one" / "caf\u00e9 'n' \"b\".mp4")
    found, _ = pack(root, tmp_path / "pack")
    assert "train/one/caf\u00e9 'n' \"b\".mp4" in [entry.path for entry in found.splits["train"].entries]


def test_only_what_is_flushed_is_promised(root, tmp_path, monkeypatch):
    monkeypatch.setattr(appending, "_GROUP_BYTES", 1)
    seen: list[int] = []

    def look(done: int, total: int) -> None:
        seen.append(len((tmp_path / "pack" / "train.jsonl").read_text().splitlines()))

    write_pack(find_videos(root, name="mine"), tmp_path / "pack", short_side=24, num_workers=0, progress=look)
    assert seen[:10] == list(range(1, 11))
