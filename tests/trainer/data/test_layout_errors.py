"""Lists that break their form are refused in one line that names the place; files that cannot be used are counted."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trainer.data import built
from tests.trainer.data.built import BUILDERS, clips_of
from trainer.data.layouts import DataError, find_videos


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Files whose content tells them apart, in place of videos: a layout does not look inside."""
    number = 0
    for split, count in (("train", 3), ("val", 2)):
        for title in ("a b", "c"):
            for _ in range(count):
                path = tmp_path / "plain" / split / title / f"id_{number:08d}_000001_000011.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bytes([number]))
                number += 1
    return tmp_path / "plain"


def build(plain: Path, name: str) -> Path:
    root = plain.parent / name
    BUILDERS[name][0](clips_of(plain), root)
    return root


def refused(root: Path, **options: str) -> str:
    with pytest.raises(DataError) as error:
        find_videos(root, name="mine", **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def change(path: Path, edit: Callable[[str], str]) -> None:
    old = path.read_text(encoding="utf-8")
    new = edit(old)
    assert new != old
    path.write_text(new, encoding="utf-8")


CVDF = "annotations/train.csv"
BAD: list[tuple[str, str, str, Callable[[str], str], str]] = [
    # layout, what is wrong, file, how it is changed, what is said
    (
        "cvdf as it comes",
        "semicolons",
        CVDF,
        lambda t: t.replace(",", ";"),
        "it is separated by semicolons, where commas",
    ),
    ("cvdf as it comes", "tabs", CVDF, lambda t: t.replace(",", "\t"), "it is separated by tabs, where commas"),
    (
        "cvdf as it comes",
        "column",
        CVDF,
        lambda t: t.replace("time_start", "begin"),
        "but lacks time_start (it has label",
    ),
    (
        "cvdf as it comes",
        "commas",
        CVDF,
        lambda t: t.replace('"a b"', "a, b"),
        "line 2 of {root}/annotations/train.csv must",
    ),
    ("cvdf as it comes", "quote", CVDF, lambda t: t.replace('"a b"', "a, b"), "must stand in double quotes"),
    ("cvdf as it comes", "cells", CVDF, lambda t: t.replace(",train,0", ",train"), "must have 6 cells"),
    ("cvdf as it comes", "id", CVDF, lambda t: t.replace("id_00000000", "#NAME?"), "but line 2 of {root}"),
    ("cvdf as it comes", "times", CVDF, lambda t: t.replace(",11,", ",0:11,"), "times must be seconds"),
    ("cvdf as it comes", "label", CVDF, lambda t: t.replace('"a b"', ""), "a row must have a label"),
    ("cvdf as it comes", "names", CVDF, lambda t: t.replace('"c"', '"A_B"'), "names must differ in more than case"),
    ("slowfast", "delimiter", "train.csv", lambda t: t.replace(".mp4 ", ".mp4;"), "a row must read `path label`"),
    ("slowfast", "mixed", "train.csv", lambda t: t.replace(".mp4 1", ".mp4,1"), "a list must have one separator"),
    ("slowfast", "no label", "train.csv", lambda t: t.replace(".mp4 1", ".mp4"), "line 1 of {root}/train.csv is"),
    ("slowfast", "range", "train.csv", lambda t: t.replace(".mp4 1", ".mp4 2"), "a label must be in 0..1"),
    ("slowfast", "negative", "train.csv", lambda t: t.replace(".mp4 1", ".mp4 -1"), "a row must read `path label`"),
    ("slowfast", "twice", "train.csv", lambda t: t + t.splitlines()[0][:-1] + "0\n", "a video must have one label"),
    ("slowfast", "up", "train.csv", lambda t: t.replace("clips with", "../clips with"), "must stay below data.root"),
    ("slowfast", "outside", "train.csv", lambda t: "/else" + t, "an absolute path of a list must lie below data.root"),
    ("slowfast", "empty", "val.csv", lambda t: "", "at least one row `path label`, but {root}/val.csv"),
    (
        "slowfast",
        "classes",
        "classes.txt",
        lambda t: t + "c\n",
        "must name each once, but {root}/classes.txt names 'c'",
    ),
    ("frame folders", "frames", "val_videofolder.txt", lambda t: t.replace(" 1 0", " 0"), "`folder frames label`"),
    ("frame folders", "none", "val_videofolder.txt", lambda t: t.replace(" 1 0", " 0 0"), "must have at least 1 frame"),
    ("frame folders", "range", "val_videofolder.txt", lambda t: t.replace(" 1 1", " 1 7"), "has 7"),
    ("multi-label", "commas", "val.txt", lambda t: t.replace(" 0,1", " 0, 1"), "`path frames label,label,...`"),
    ("multi-label", "range", "val.txt", lambda t: t.replace(" 0,1", " 0,2"), "a label must be in 0..1"),
    (
        "ucf101",
        "label",
        "ucfTrainTestlist/trainlist01.txt",
        lambda t: t.replace(".mp4 2", ".mp4 1"),
        "gives c 1, not 2",
    ),
    (
        "ucf101",
        "zero",
        "ucfTrainTestlist/trainlist01.txt",
        lambda t: t.replace(".mp4 1", ".mp4 0"),
        "gives a b 0, not 1",
    ),
    ("ucf101", "class", "ucfTrainTestlist/testlist01.txt", lambda t: t.replace("c/", "d/"), "with a class of classInd"),
    ("ucf101", "none", "ucfTrainTestlist/trainlist01.txt", lambda t: t.replace(" 2", ""), "must end in its label"),
    ("ucf101", "gap", "ucfTrainTestlist/classInd.txt", lambda t: t.replace("2 c", "3 c"), "numbered one by one"),
    ("hmdb51", "use", "testTrainMulti_7030_splits/c_test_split1.txt", lambda t: t.replace(" 2", " 3"), "0, 1 or 2"),
    ("hmdb51", "twice", "testTrainMulti_7030_splits/c_test_split1.txt", lambda t: t + t, "in one list, once"),
]


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frame folders with one image file each, whatever it holds."""
    monkeypatch.setattr(built, "images_of", lambda path: [None])
    monkeypatch.setattr(built, "write_image", lambda path, image: path.touch())
    monkeypatch.setattr(built.np, "full_like", lambda *_: None)


@pytest.mark.parametrize(("name", "what", "file", "edit", "message"), BAD, ids=[f"{b[0]}: {b[1]}" for b in BAD])
@pytest.mark.usefixtures("no_pictures")
def test_a_list_that_breaks_its_form_is_refused_in_one_line(
    plain: Path, name: str, what: str, file: str, edit: Callable[[str], str], message: str
) -> None:
    root = build(plain, name)
    find_videos(root, name="mine")
    change(root / file, edit)
    assert message.format(root=root) in refused(root, layout=BUILDERS[name][1])


@pytest.mark.parametrize("name", ["cvdf as it comes", "slowfast", "ucf101", "hmdb51"])
def test_a_list_that_is_not_utf8_names_the_byte(plain: Path, name: str) -> None:
    root = build(plain, name)
    path = next(p for p in sorted(root.rglob("*.*")) if p.name.startswith("train") or "test_split" in p.name)
    path.write_bytes(path.read_bytes() + b"caf\xe9\n")
    message = refused(root, layout=BUILDERS[name][1])
    assert "a list must be UTF-8" in message
    assert "0xe9" in message
    assert str(path) in message


def test_a_list_of_no_known_form_is_named_with_the_forms(plain: Path) -> None:
    root = build(plain, "slowfast")
    change(root / "train.csv", lambda text: text.replace(".mp4 ", ".mp4;"))
    message = refused(root)
    assert "a list of videos must have rows `path label` (slowfast), `folder frames label` (frames)" in message
    assert f"but {root / 'train.csv'} has neither" in message


@pytest.mark.parametrize("how", ["link", "copy"])
def test_a_list_of_test_that_is_the_one_of_val_is_no_split(plain: Path, how: str) -> None:
    root = build(plain, "slowfast")
    if how == "link":
        (root / "test.csv").symlink_to("val.csv")
    else:
        shutil.copyfile(root / "val.csv", root / "test.csv")
    layout = find_videos(root, name="mine")
    assert (list(layout.splits), layout.left_out) == (["train", "val"], ())


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("test_results.txt", "all is well\n", "its rows do not read `path label`"),
        ("test.csv", "a.mp4\nb.mp4\n", "its rows do not read `path label`"),
        ("test_videofolder.txt", "x.mp4 0\ny.mp4 0\n", "all of its labels are 0, as TSM writes them where"),
    ],
)
def test_a_list_of_test_that_cannot_be_used_is_left_out(plain: Path, file: str, text: str, reason: str) -> None:
    root = build(plain, "slowfast")
    (root / file).write_text(text)
    layout = find_videos(root, name="mine")
    assert list(layout.splits) == ["train", "val"]
    assert [(one.path, one.split, one.kind) for one in layout.left_out] == [(str(root / file), "test", "list")]
    assert layout.left_out[0].reason.startswith(reason)


def test_a_list_of_test_with_labels_is_a_split(plain: Path) -> None:
    root = build(plain, "slowfast")
    videos = [built.put(clip, root / "more" / clip.path.name) for clip in built.of(clips_of(plain), "val")]
    built.write_lines(root / "test.csv", [f"more/{path.name} {number % 2}" for number, path in enumerate(videos)])
    (root / "test_results.txt").write_text("all is well\n")
    layout = find_videos(root, name="mine")
    assert {split: len(videos) for split, videos in layout.splits.items()} == {"train": 6, "val": 4, "test": 4}
    assert not layout.left_out


def test_labels_without_class_names_must_have_no_gap(plain: Path) -> None:
    root = build(plain, "slowfast")
    (root / "classes.txt").unlink()
    assert find_videos(root, name="mine").classes == ("0", "1")
    for split in ("train", "val"):
        change(root / f"{split}.csv", lambda text: text.replace(".mp4 1", ".mp4 3"))
    assert "must be numbered from 0 without gaps, but the lists go from 0 to 3 without 1, 2" in refused(root)


def test_a_video_in_two_splits_is_refused(plain: Path) -> None:
    root = build(plain, "slowfast")
    row = (root / "train.csv").read_text().splitlines()[0]
    change(root / "val.csv", lambda text: f"{text}{row}\n")
    assert "a video must be in one split, but" in refused(root)


def test_a_row_that_stands_twice_is_counted_once(plain: Path) -> None:
    root = build(plain, "slowfast")
    change(root / "train.csv", lambda text: text + text.splitlines()[0] + "\n")
    layout = find_videos(root, name="mine")
    assert len(layout.splits["train"]) == 6
    assert [one.kind for one in layout.left_out] == ["repeated"]
    root = build(plain, "cvdf as it comes")
    change(root / CVDF, lambda text: text + text.splitlines()[1] + "\n")
    layout = find_videos(root, name="mine")
    assert len(layout.splits["train"]) == 6
    assert [one.kind for one in layout.left_out] == ["repeated"]


def test_an_id_with_rows_of_two_classes_is_left_out_unless_the_times_decide(plain: Path) -> None:
    root = build(plain, "cvdf as it comes")
    change(root / CVDF, lambda text: text + "c,id_00000000,70,80,train,0\n")
    assert [video.label for video in find_videos(root, name="mine").splits["train"]] == [0, 0, 0, 1, 1, 1]
    change(root / CVDF, lambda text: text.replace("id_00000000,70,80", "id_00000000,1,11"))
    layout = find_videos(root, name="mine")
    assert [(one.kind, one.path) for one in layout.left_out] == [("contradictory", "train/" + first(plain))]
    assert len(layout.splits["train"]) == 5


def first(plain: Path) -> str:
    return clips_of(plain)[0].path.name


def test_quotes_float_times_and_a_byte_order_mark_are_read(plain: Path) -> None:
    root = build(plain, "cvdf as it comes")
    built.write_table(root / CVDF, built.of(clips_of(plain), "train"), quote=lambda text: f'"""{text}"""')
    change(root / CVDF, lambda text: "\ufeff" + text.replace(",11,", ",11.0,").replace("\n", "\r\n"))
    assert find_videos(root, name="mine").classes == ("a b", "c")


def test_listed_files_that_are_not_there_are_counted(plain: Path) -> None:
    for name in ("slowfast", "ucf101", "hmdb51"):
        root = build(plain, name)
        next(root.rglob(first(plain))).unlink()
        layout = find_videos(root, name="mine")
        assert [(one.kind, one.split) for one in layout.left_out] == [("missing", "train")], name
        assert len(layout.splits["train"]) == 5


def test_a_class_whose_videos_are_all_missing_says_so(plain: Path) -> None:
    root = build(plain, "slowfast")
    for path in (root / "clips with blanks" / "c").glob("*0000000[89]_*"):
        path.unlink()
    for path in (root / "clips with blanks" / "c").iterdir():
        if path.name in {clip.path.name for clip in built.of(clips_of(plain), "val")}:
            path.unlink()
    message = refused(root)
    assert "val of " in message
    assert "has none of c (2 of its videos are left out; `nas data check` names them)" in message


def test_names_that_are_not_utf8_are_left_out(plain: Path) -> None:
    odd = os.fsencode(plain / "train" / "c") + b"/caf\xe9.mp4"
    Path(os.fsdecode(odd)).write_bytes(b"x")
    layout = find_videos(plain, name="mine")
    assert [(one.kind, one.path) for one in layout.left_out] == [("name", "train/c/caf\\xe9.mp4")]
    for split in ("train", "val"):
        Path(os.fsdecode(os.fsencode(plain / split) + b"/\xe9")).mkdir()
    assert "a folder's name must be UTF-8" in refused(plain)


def test_links_are_followed_and_those_that_lead_nowhere_are_left_out(plain: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.mp4"
    outside.write_bytes(b"x")
    (plain / "train" / "c" / "link.mp4").symlink_to(outside)
    (plain / "train" / "c" / "gone.mp4").symlink_to(tmp_path / "nowhere")
    (plain / "train" / "c" / "round.mp4").symlink_to("round.mp4")
    (plain / "train" / "c" / "up").symlink_to(plain)
    layout = find_videos(plain, name="mine")
    assert "train/c/link.mp4" in [video.path for video in layout.splits["train"]]
    assert [(one.kind, one.path) for one in layout.left_out] == [
        ("link", f"train/c/{n}.mp4") for n in ("gone", "round")
    ]


def test_what_is_neither_a_file_nor_a_folder_is_called_what_it_is(plain: Path) -> None:
    root = plain.parent / "lists"
    BUILDERS["slowfast"][0](clips_of(plain), root)
    folder = plain / "train" / "c"
    (folder / "device.mp4").symlink_to("/dev/null")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "to_pipe.mp4").symlink_to("pipe.mp4")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as one, contextlib.chdir(folder):
        one.bind("socket.mp4")
    assert [(one.kind, one.path, one.reason) for one in find_videos(plain, name="mine").left_out] == [
        ("link", "train/c/device.mp4", "a link to a device"),
        ("special", "train/c/pipe.mp4", "it is a pipe"),
        ("special", "train/c/socket.mp4", "it is a socket"),
        ("link", "train/c/to_pipe.mp4", "a link to a pipe"),
    ]
    path = (root / "train.csv").read_text().splitlines()[0].rpartition(" ")[0]
    (root / path).unlink()
    (root / path).symlink_to("/dev/null")
    [left] = find_videos(root, name="mine").left_out
    assert left.kind == "missing" and left.reason.endswith("no such file; what is there is a link to a device")


def test_a_class_folder_that_is_hidden_is_told(plain: Path) -> None:
    for split in ("train", "val"):
        shutil.copytree(plain / split / "c", plain / split / ".c2")
        (plain / split / ".empty").mkdir()
    layout = find_videos(plain, name="mine")
    assert ".c2" not in layout.classes
    assert [(one.kind, one.path) for one in layout.left_out] == [
        ("misplaced", f"{split}/.c2") for split in ("train", "val")
    ]
    assert layout.left_out[0].reason.endswith("videos lie in a folder that is hidden, by the dot before its name")


def test_a_folder_without_any_layout_says_what_would_do(tmp_path: Path) -> None:
    message = refused(tmp_path)
    assert "has no folder train; videos must lie as ROOT/{train,val[,test]}/CLASS/NAME.mp4" in message
    assert "or in another layout that data.layout can name" in message
