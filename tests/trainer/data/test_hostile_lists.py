"""Every layout with labels that nobody means: one line of at most 500 characters, never a traceback, never endless."""

from __future__ import annotations

import os
import tracemalloc
import unicodedata
from pathlib import Path

import pytest

from tests.trainer.data import built
from tests.trainer.data.built import BUILDERS, SPECIAL, clips_of
from trainer.data.layouts import DataError, Layout, find_videos

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files whose content tells them apart, in place of videos: a layout does not look inside."""
    monkeypatch.setattr(built, "images_of", lambda path: [None])
    monkeypatch.setattr(built, "write_image", lambda path, image: path.touch())
    monkeypatch.setattr(built.np, "full_like", lambda *_: None)
    number = 0
    for split, count in (("train", 3), ("val", 2)):
        for title in ("a b", "c"):
            for _ in range(count):
                path = tmp_path / "plain" / split / title / f"id_{number:08d}_000001_000011.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bytes([number]))
                number += 1
    return tmp_path / "plain"


# The list of each layout that has one, and a row of it with a place for a label.
LISTS: dict[str, tuple[str, str]] = {
    "slowfast": ("train.csv", "clips with blanks/x.mp4 {}"),
    "pytorchvideo": ("lists/train.csv", "x.mp4 {}"),
    "frame folders": ("train_videofolder.txt", "x 1 {}"),
    "multi-label": ("train.txt", "x 1 {}"),
    "ucf101": ("ucfTrainTestlist/trainlist01.txt", "c/x.mp4 {}"),
    "hmdb51": ("testTrainMulti_7030_splits/c_test_split1.txt", "x.mp4 {}"),
    "cvdf as it comes": ("annotations/train.csv", "{},id_00000000,1,11,train,0"),
}
LABELS: dict[str, str] = {
    "100,000 digits": "9" * 100_000,
    "5,000 digits": "9" * 5_000,
    "ten digits": "9" * 10,
    "negative": "-1",
    "float": "1.5",
    "exponent": "1e999",
    "nan": "nan",
    "word": "archery",
    "nothing": "",
    "quotes": '""',
    "escape": "\x1b]0;title\x07\x1b[2J",
    "return": "0\r0",
    "zero byte": "0\x000",
    "tabs": "\t\t\t",
    "right to left": "\u202e1",
    "brackets": "[red]1[/red]",
    "many labels": ",".join(["1"] * 50_000),
    "many numbers": " ".join(["1"] * 50_000),
    "ten million characters": "x" * 10_000_000,
    "surrogate": "\ud800",
}


def build(plain: Path, name: str) -> Path:
    root = plain.parent / name
    BUILDERS[name][0](clips_of(plain), root)
    return root


def outcome(root: Path, name: str) -> Layout | str:
    """What is read, or the one line that refuses it."""
    try:
        return find_videos(root, name="mine", layout=BUILDERS[name][1], annotations=BUILDERS[name][2])
    except DataError as error:
        assert len(str(error)) <= 500
        assert "\n" not in str(error)
        return str(error)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("name", LISTS)
def test_a_hostile_label_is_refused_in_one_line_or_left_out(plain: Path, name: str, label: str, first: bool) -> None:
    root = build(plain, name)
    file, row = LISTS[name]
    text = (root / file).read_bytes()
    line = row.format(LABELS[label]).encode("utf-8", "surrogatepass")
    (root / file).write_bytes(line + b"\n" + text if first else text + line + b"\n")
    found = outcome(root, name)
    if isinstance(found, Layout):
        assert found.classes == ("a b", "c") or found.left_out or name == "cvdf as it comes"
    else:
        assert Path(file).name in found or "data.root" in found or "classes" in found


@pytest.mark.parametrize("label", LABELS)
def test_a_hostile_label_among_several_of_a_video(plain: Path, label: str) -> None:
    root = build(plain, "slowfast")
    row = f"clips with blanks/x.mp4 0 {LABELS[label]}\n".encode("utf-8", "surrogatepass")
    (root / "train.csv").write_bytes((root / "train.csv").read_bytes() + row)
    try:
        found = find_videos(root, name="mine", layout="multi-label-videos")
    except DataError as error:
        assert len(str(error)) <= 500 and "\n" not in str(error)
    else:
        assert [one.kind for one in found.left_out] == ["missing"]


FOLDERS = {
    "escape": "\x1b]0;title\x07",
    "break": "a\nb",
    "return": "a\rb",
    "tab": "\t",
    "blank": " ",
    "right to left": "\u202eabc",
    "brackets": "[red]x",
    "long": "x" * 255,
    "digits": "9" * 255,
    "backslash": "a\\b",
    "quotes": '"\'"',
    "minus": "-rf",
    "not UTF-8": os.fsdecode(b"\xff\xfe"),
}


@pytest.mark.parametrize("everywhere", [True, False])
@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("layout", ["folders", "mmaction2", "cvdf"])
def test_a_class_folder_with_a_hostile_name(tmp_path: Path, layout: str, name: str, everywhere: bool) -> None:
    root = tmp_path / "data"
    for split in ("train", "val"):
        base = {"folders": split, "mmaction2": f"videos_{split}", "cvdf": f"videos/{split}"}[layout]
        for title in ("a", *([FOLDERS[name]] if everywhere or split == "train" else [])):
            (root / base / title).mkdir(parents=True)
            (root / base / title / "x.mp4").touch()
    try:
        found = find_videos(root, name="mine")
    except DataError as error:
        assert len(str(error)) <= 500 and "\n" not in str(error)
        assert not everywhere or name == "not UTF-8"
    else:
        assert everywhere
        assert set(found.classes) == {"a", FOLDERS[name]}


CLASS_FILES: dict[str, bytes] = {
    "nested": b"[" * 100_000,
    "digits": b'{"a": ' + b"9" * 100_000 + b"}",
    "surrogate": b'["a b", "\\ud800"]',
    "number": b"5",
    "null": b'["a b", null]',
    "true": b'{"a b": false, "c": true, "d": []}',
    "blank": b'["a b", " "]',
    "nan": b'{"a b": NaN, "c": Infinity}',
    "zero": b'["a b", "c\0"]',
    "not UTF-8": b"\xff\xff",
    "nothing": b"",
    "lines of digits": b"1" * 9_000 + b" a b\n" + b"2" * 9_000 + b" c\n",
    "long line": b"x" * 10_000_000,
    "quotes": b'"\n"\n',
    "comma": b"," * 9_000,
}


@pytest.mark.parametrize("file", ["classes.txt", "classes.csv", "classes.json"])
@pytest.mark.parametrize("content", CLASS_FILES)
def test_a_hostile_list_of_classes(plain: Path, file: str, content: str) -> None:
    root = build(plain, "slowfast")
    (root / "classes.txt").unlink()
    (root / file).write_bytes(CLASS_FILES[content])
    try:
        found = find_videos(root, name="mine")
    except DataError as error:
        assert len(str(error)) <= 500 and "\n" not in str(error)
    else:
        assert len(found.classes) == 2


@pytest.mark.parametrize("name", LISTS)
def test_a_mark_at_the_beginning_and_ends_of_lines_of_windows_change_nothing(plain: Path, name: str) -> None:
    root = build(plain, name)
    file = root / LISTS[name][0]
    before = outcome(root, name)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n") + b"\r\n\r\n")
    after = outcome(root, name)
    assert isinstance(before, Layout) and isinstance(after, Layout)
    assert (after.classes, after.splits) == (before.classes, before.splits)


@pytest.mark.parametrize("name", ["slowfast", "frame folders", "multi-label"])
@pytest.mark.parametrize("named", [True, False])
def test_labels_from_one_are_told_that_they_begin_at_zero(plain: Path, name: str, named: bool) -> None:
    root = build(plain, name)
    for path in (root / "classes.txt", root / "category.txt"):
        if path.is_file() and not named:
            path.unlink()
    for path in [
        path for path in root.iterdir() if path.suffix in (".csv", ".txt") and path.stem[:3] in ("tra", "val")
    ]:
        rows = [line.rpartition(" ") for line in path.read_text().splitlines()]
        counted = [f"{row} {','.join(str(int(one) + 1) for one in labels.split(','))}" for row, _, labels in rows]
        path.write_text("\n".join(counted) + "\n")
    message = outcome(root, name)
    assert isinstance(message, str)
    assert "labels of lists must begin at 0, but those of" in message
    assert "go from 1 to 2; subtract 1 from each" in message


@pytest.mark.parametrize(
    ("name", "header"), [("slowfast", "path label"), ("slowfast", "video_path,class_id"), ("frame folders", "a b c")]
)
@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("layout", ["auto", ""])
def test_a_header_is_named_as_one(plain: Path, name: str, header: str, split: str, layout: str) -> None:
    root = build(plain, name)
    path = next(path for path in root.iterdir() if path.name.startswith(split) and path.is_file())
    path.write_text(f"{header}\n{path.read_text()}")
    with pytest.raises(DataError) as error:
        find_videos(root, name="mine", layout=layout or BUILDERS[name][1])
    assert f"a list must have no header, but line 1 of {path} is {header!r}; remove that line" in str(error.value)


def test_two_forms_of_one_name_are_told_apart_in_words(plain: Path, tmp_path: Path) -> None:
    words = "(they look the same, but the first is written in Unicode's form NFC, the second in NFD)"
    assert NFC != NFD
    (plain / "train" / "c").rename(plain / "train" / NFC)
    (plain / "val" / "c").rename(plain / "val" / NFD)
    with pytest.raises(DataError) as error:
        find_videos(plain, name="mine")
    assert words in str(error.value)
    for split, form in (("train", NFD), ("val", NFC)):
        (plain / split / form).mkdir()
        (plain / split / form / "x.mp4").touch()
    with pytest.raises(DataError) as error:
        find_videos(plain, name="mine")
    assert "class folders must differ in more than the form of their letters" in str(error.value)
    assert "NFC" in str(error.value) and "NFD" in str(error.value)


@pytest.mark.parametrize("name", ["slowfast", "ucf101", "hmdb51"])
def test_a_listed_name_in_another_form_than_that_of_the_file_is_told(plain: Path, name: str) -> None:
    root = build(plain, name)
    old = next(path for path in sorted(root.rglob("*.mp4")) if path.parent.name == "c")
    old.rename(old.with_name(f"{NFD}.mp4"))
    for path in [*root.rglob("*.txt"), *root.rglob("*.csv")]:
        path.write_text(path.read_text().replace(old.name, f"{NFC}.mp4"))
    layout = find_videos(root, name="mine")
    assert [one.kind for one in layout.left_out] == ["missing"]
    assert "there is one of that name (they look the same, but the first is written in Unicode's form NFC" in (
        layout.left_out[0].reason
    )


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", LISTS)
def test_a_list_that_is_no_file_is_refused_in_one_line(plain: Path, name: str, kind: str) -> None:
    root = build(plain, name)
    file = root / LISTS[name][0]
    file.unlink()
    SPECIAL[kind](file)
    assert isinstance(outcome(root, name), str)


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("option", ["annotations", "definition", "exclude"])
def test_a_file_that_is_named_must_be_one(plain: Path, tmp_path: Path, kind: str, option: str) -> None:
    SPECIAL[kind](tmp_path / "odd")
    odd = [] if (kind, option) == ("folder", "annotations") else [str(tmp_path / "odd")]
    for value in (*odd, str(tmp_path / ("x" * 300)), "x\0y"):
        with pytest.raises(DataError) as error:
            find_videos(plain, name="mine", **{option: value})
        assert len(str(error.value)) <= 500


@pytest.mark.parametrize(
    "path", ["x" * 300 + "/a.mp4", "a/" * 3_000 + "a.mp4", "clips with blanks/" + "x" * 300 + ".mp4"]
)
def test_a_row_with_a_path_that_no_disk_has_is_left_out(plain: Path, path: str) -> None:
    root = build(plain, "slowfast")
    (root / "train.csv").write_text((root / "train.csv").read_text() + f"{path} 0\n")
    assert [one.kind for one in find_videos(root, name="mine").left_out] == ["missing"]


def test_a_root_with_a_long_name_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="File name too long"):
        find_videos(tmp_path / ("x" * 300), name="mine")


@pytest.mark.parametrize("last", [2_000_000, 999_999])
def test_a_label_that_is_far_too_large_is_told_without_a_list_of_all_below_it(plain: Path, last: int) -> None:
    root = build(plain, "slowfast")
    (root / "classes.txt").unlink()
    lines = (root / "train.csv").read_text().splitlines()
    (root / "train.csv").write_text("\n".join([f"{lines[0].rpartition(' ')[0]} {last}", *lines[1:]]) + "\n")
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"the lists go from 0 to {last} without 2, 3, .*\.\.\.; a file classes"):
            find_videos(root, name="mine")
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
