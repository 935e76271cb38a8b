"""What a check of a data set finds: by headers, quickly, the same as training would; and what is there twice."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import pytest

from tests.trainer.data import built
from tests.trainer.data.conftest import pictures
from tests.trainer.data.crash import headers_or_crash
from trainer.config import Clip, DataConfig
from trainer.data.check import DataReport, Range, check_data, excluded
from trainer.data.dataset import open_data, open_usable
from trainer.data.headers import Needed
from trainer.data.layouts import DataError, find_layout, find_videos
from trainer.data.layouts.definitions import read_exclude, write_exclude
from trainer.data.scan import files_of, scan


def config(root: Path, **changes) -> DataConfig:
    clip = changes.pop("clip", Clip(frames=8, height=16, width=16))
    values = {"name": "mine", "root": str(root), "cache": str(root.parent / "cache"), "short_side": 24}
    return DataConfig(clip=clip, **{**values, **changes})


def kinds(report: DataReport) -> dict[str, str]:
    return {one.path: one.kind for one in report.broken}


def test_report(root, write_video, write_audio):
    (root / "train" / "one" / "0.mp4").write_bytes(b"")
    write_audio(root / "train" / "two" / "5.mp4")
    write_video(root / "train" / "two" / "6.mp4", 20, height=48, width=24, fps=25)
    write_video(root / "train" / "two" / "7.mp4", 7)
    report = check_data(config(root))
    train = report.splits["train"]
    assert train.num_videos == 10
    assert train.per_class == {"one": 4, "two": 6}
    assert train.num_broken == 3
    assert train.frames == Range(low=12, median=12, high=20)
    assert train.height == Range(low=24, median=24, high=48)
    assert train.width == Range(low=24, median=32, high=32)
    assert train.fps == Range(low=10, median=10, high=25)
    assert train.seconds == Range(low=0.8, median=1.2, high=1.2)
    assert report.splits["val"].per_class == {"one": 2, "two": 2}
    assert report.splits["val"].num_broken == 0
    assert kinds(report) == {"train/one/0.mp4": "empty", "train/two/5.mp4": "no video", "train/two/7.mp4": "short"}
    assert report.counts == {"empty": 1, "no video": 1, "short": 1}
    assert report.problem is None
    assert not report.clean
    assert json.dumps(report.layout)


def test_report_states_what_cannot_be_trained_on(root):
    report = check_data(config(root, clip=Clip(frames=13, height=16, width=16)))
    assert report.splits["train"].per_class == {"one": 0, "two": 0}
    assert report.splits["train"].frames is None
    assert report.problem is not None
    assert "of one in train all are broken or short (the first, train/one/0.mp4: 12 frames, needs 13)" in report.problem
    assert check_data(config(root, clip=Clip(frames=13, height=16, width=16), short="loop")).clean


def damaged(folder: Path, write_video, write_audio) -> None:
    """One file of each way in which a file can be broken, and of each way in which it is only unusual."""
    whole = write_video(folder / "whole.avi", 40)
    (folder / "cut.avi").write_bytes(whole.read_bytes()[: whole.stat().st_size // 4])
    whole = write_video(folder / "front.mp4", 40, options={"movflags": "faststart"})
    (folder / "cut_front.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
    (folder / "little_cut.mp4").write_bytes(whole.read_bytes() + b"\0\0\1\0free1234")
    whole = write_video(folder / "back.mp4", 40)
    (folder / "cut_back.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    whole = write_video(folder / "whole.mkv", 40)
    (folder / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 3])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_bytes(b"no video" * 100)
    (folder / "codec.mp4").write_bytes((folder / "back.mp4").read_bytes().replace(b"avc1", b"xvc1"))
    write_audio(folder / "sound.mp4")
    write_video(folder / "one.mp4", 1)
    write_video(folder / "nine.mkv", 9)


def test_a_single_class_cannot_be_trained_on(root, tmp_path):
    shutil.copytree(root, tmp_path / "one")
    for folder in [*(tmp_path / "one").glob("train/*")][1:]:
        for split in ("train", "val", "test"):
            shutil.rmtree(tmp_path / "one" / split / folder.name, ignore_errors=True)
    problem = check_data(config(tmp_path / "one")).problem
    assert problem is not None and problem.startswith("data must have at least 2 classes to be told apart, but has 1: ")


def test_a_header_scan_refuses_exactly_what_training_refuses(tmp_path, write_video, write_audio):
    for split in ("train", "val"):
        damaged(tmp_path / "data" / split / "a", write_video, write_audio)
    c = config(tmp_path / "data", clip=Clip(frames=10, height=16, width=16))
    scanned, decoded = kinds(check_data(c)), kinds(check_data(c, decode=True))
    assert scanned == decoded
    assert set(scanned) == {one.path for one in open_data(c).broken}
    assert check_data(c).remarks["cut off"] == 2  # what is missing is no picture
    assert {path.removeprefix("train/a/"): kind for path, kind in scanned.items() if path.startswith("train")} == {
        "cut.avi": "truncated",
        "cut_front.mp4": "truncated",
        "cut_back.mp4": "truncated",
        "cut.mkv": "truncated",
        "empty.mp4": "empty",
        "text.mp4": "undecodable",
        "codec.mp4": "undecodable",
        "sound.mp4": "no video",
        "one.mp4": "short",
        "nine.mkv": "short",
    }


@pytest.mark.parametrize(
    "changes",
    [{"fps": 4.0}, {"fps": 4.0, "max_frames": 12}, {"fps": 20.0}, {"max_frames": 9}, {"max_frames": 10}, {"fps": 10.0}],
)
def test_the_rate_and_the_most_frames_of_a_study_count(tmp_path, write_video, changes):
    """Videos of 6 to 30 frames at 10 a second, in files that count them and in files that do not."""
    for split in ("train", "val"):
        for frames in (6, 9, 11, 22, 24, 27, 30):
            for suffix in ("mp4", "mkv"):
                write_video(tmp_path / "data" / split / "a" / f"{frames}.{suffix}", frames)
    c = config(tmp_path / "data", clip=Clip(frames=10, height=16, width=16), **changes)
    trained = {one.path: one.reason for one in open_usable(c).broken}
    assert {one.path: f"{one.kind}: {one.reason}" for one in check_data(c).broken} == trained
    assert (len(trained) == 28) == (changes == {"max_frames": 9})


def test_equal_files_are_found_by_their_content(root):
    train, val = root / "train", root / "val"
    shutil.copyfile(train / "one" / "1.mp4", val / "one" / "leak.mp4")
    shutil.copyfile(train / "two" / "1.mp4", train / "two" / "again.mp4")
    shutil.copyfile(train / "one" / "2.mp4", train / "two" / "other.mp4")
    report = check_data(config(root))
    assert [(one.paths, one.by) for one in report.leaks] == [(("train/one/1.mp4", "val/one/leak.mp4"), "content")]
    assert {one.paths: one.classes for one in report.duplicates} == {
        ("train/two/1.mp4", "train/two/again.mp4"): ("two", "two"),
        ("train/one/2.mp4", "train/two/other.mp4"): ("one", "two"),
    }
    assert excluded(report) == [
        ("train/one/1.mp4", "the same bytes as val/one/leak.mp4"),
        ("train/one/2.mp4", "the same bytes under one and two"),
        ("train/two/again.mp4", "the same bytes as train/two/1.mp4"),
        ("train/two/other.mp4", "the same bytes under one and two"),
    ]


def test_large_files_are_equal_only_if_all_their_bytes_are(tmp_path):
    for split in ("train", "val"):
        (tmp_path / "data" / split / "a").mkdir(parents=True)
    middle = bytes(300_000)
    for name, odd in (("train/a/0.mp4", b"0"), ("train/a/1.mp4", b"1"), ("val/a/0.mp4", b"0")):
        (tmp_path / "data" / name).write_bytes(middle + odd + middle)
    report = check_data(config(tmp_path / "data"))
    assert [one.paths for one in report.leaks] == [("train/a/0.mp4", "val/a/0.mp4")]
    assert report.duplicates == ()


def test_parts_of_one_youtube_video_in_two_splits_are_a_leak(root):
    for number, (split, label) in enumerate((("train", "one"), ("val", "one"), ("train", "two"), ("train", "two"))):
        path = root / split / label / f"{number}.mp4"
        if path.exists() or (path := root / split / label / "0.mp4").exists():
            path.rename(path.with_name(f"abc_-defghi_{number:06d}_{number + 10:06d}.mp4"))
    report = check_data(config(root))
    assert [(one.by, len(one.paths)) for one in report.leaks] == [("id", 4)]
    assert [path.split("/")[0] for path, _ in excluded(report)] == ["train"] * 3


def test_a_good_part_of_a_youtube_video_is_kept_where_the_others_are_broken(root):
    good, gone = root / "train" / "one" / "0.mp4", root / "val" / "one" / "0.mp4"
    good.rename(good.with_name("abc_-defghi_000000_000010.mp4"))
    gone.unlink()
    gone.with_name("abc_-defghi_000020_000030.mp4").touch()
    report = check_data(config(root))
    assert len(report.leaks) == 1
    assert excluded(report) == [("val/one/abc_-defghi_000020_000030.mp4", "empty: the file is empty")]


def test_the_exclude_list_is_what_a_study_leaves_out(root, tmp_path, write_video):
    (root / "train" / "one" / "0.mp4").write_bytes(b"")
    odd = write_video(root / "train" / "one" / '"odd\tname".mp4', pictures(12, 24, 32, first=70))
    shutil.copyfile(odd, root / "val" / "one" / "#leak.mp4")
    path = tmp_path / "lists" / "out.txt"
    write_exclude(path, excluded(check_data(config(root))))
    assert read_exclude(path) == ('train/one/"odd\tname".mp4', "train/one/0.mp4")
    part = config(root, exclude=str(path))
    assert check_data(part).clean
    layout = find_layout(part)
    assert len(layout.splits["train"]) == 9
    assert "2 excluded by out.txt" in layout.line()
    path.write_text("train/nobody/0.mp4\n")
    with pytest.raises(DataError, match=r"none of the 1 in .*out\.txt is one"):
        find_layout(part)
    with pytest.raises(DataError, match=r"data\.exclude must be a file, but nowhere is none"):
        find_layout(config(root, exclude="nowhere"))


def test_what_lies_behind_links_out_of_the_root_is_named(root, tmp_path):
    outside = tmp_path / "elsewhere"
    shutil.move(root / "train" / "two", outside)
    (root / "train" / "two").symlink_to(outside)
    shutil.move(root / "val" / "one" / "0.mp4", tmp_path / "0.mp4")
    (root / "val" / "one" / "0.mp4").symlink_to(tmp_path / "0.mp4")
    (root / "val" / "one" / "inside.mp4").symlink_to(root / "val" / "two" / "0.mp4")
    report = check_data(config(root))
    assert report.outside == (*(f"train/two/{number}.mp4" for number in range(5)), "val/one/0.mp4")


def test_rows_without_a_file_and_their_class_are_reported(root, tmp_path):
    built.write_lines(root / "lists" / "train.csv", [f"train/one/{i}.mp4 0" for i in range(5)] + ["train/two/9.mp4 1"])
    built.write_lines(root / "lists" / "val.csv", ["val/one/0.mp4 0", "val/two/0.mp4 1"])
    c = config(root, layout="slowfast", annotations="lists")
    report = check_data(c)
    assert kinds(report) == {"train/two/9.mp4": "missing"}
    assert report.problem is not None
    assert "of 1 in train there is none" in report.problem
    with pytest.raises(DataError, match=r"train of .* has none of 1"):
        find_layout(c)


def test_an_interrupted_check_goes_on_from_its_journal(root, tmp_path):
    journal = tmp_path / "deep" / "journal.jsonl"
    files = files_of(find_videos(root, name="mine"))

    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done >= 5:
            raise StopError

    with pytest.raises(StopError):  # here the progress is told at the end only, so the journal is cut by hand
        scan(files, journal=journal, progress=stop)
    lines = journal.read_text().splitlines(keepends=True)
    assert len(lines) == 15
    journal.write_text("".join(lines[:6]) + lines[6][:20])
    again = scan(files, journal=journal)
    assert again.read == 9
    assert scan(files, journal=journal) == type(again)(headers=again.headers, read=0)
    assert dict(again.headers) == dict(scan(files).headers)


def test_a_file_that_has_changed_is_read_again(root, tmp_path):
    journal = tmp_path / "journal.jsonl"
    assert check_data(config(root), journal=journal).clean
    (root / "val" / "one" / "0.mp4").write_bytes(b"")
    assert kinds(check_data(config(root), journal=journal)) == {"val/one/0.mp4": "empty"}
    files = files_of(find_videos(root, name="mine"))
    assert scan(files, journal=journal, needed=Needed(frames=8)).read == 0
    assert scan(files, journal=journal, needed=Needed(frames=9)).read == 14


def test_a_file_of_the_same_size_and_another_time_is_read_again(root, tmp_path):
    journal = tmp_path / "journal.jsonl"
    assert check_data(config(root), journal=journal).clean
    path = root / "val" / "one" / "0.mp4"
    path.write_bytes(bytes(path.stat().st_size))
    assert kinds(check_data(config(root), journal=journal)) == {"val/one/0.mp4": "undecodable"}


@pytest.mark.parametrize("text", ["", "{}\n", "no json", '{"format": 0}\n[1]\n', "\xff"])
def test_a_journal_that_does_not_fit_is_written_anew(root, tmp_path, text):
    journal = tmp_path / "journal.jsonl"
    journal.write_text(text, encoding="latin-1")
    files = files_of(find_videos(root, name="mine"))
    assert scan(files, journal=journal).read == 14
    assert scan(files, journal=journal).read == 0


def test_a_journal_that_cannot_grow_is_an_error_of_one_line(root, tmp_path):
    """The limit on the size of a file stands for a full disk: a write fails in the same place."""
    files = files_of(find_videos(root, name="mine")) * 20
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(DataError, match=r"cannot: File too large; free space, or choose another data\.cache"):
            scan(files, journal=tmp_path / "journal.jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_several_processes_read_what_one_reads(root):
    files = files_of(find_videos(root, name="mine"))
    calls = []
    many = scan(files, num_workers=2, progress=lambda done, total: calls.append((done, total)))
    assert dict(many.headers) == dict(scan(files, num_workers=0).headers)
    assert calls[0] == (0, 14)
    assert calls[-1] == (14, 14)


def test_a_file_that_kills_its_reader_is_named_and_the_others_are_read(root, monkeypatch):
    from trainer.data import scan as module

    files = files_of(find_videos(root, name="mine"))
    monkeypatch.setattr(module, "_CHUNK", 4)
    monkeypatch.setattr(module, "_headers", headers_or_crash)
    headers = scan(files, num_workers=1).headers
    assert {path: header.reason for path, header in headers.items() if header.kind} == {
        "train/one/2.mp4": "the decoder crashed"
    }
    assert len(headers) == 14
