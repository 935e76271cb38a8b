"""Files that name the classes: in every form that tools write, in the order of their numbers, or refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.trainer.data import built
from tests.trainer.data.built import clips_of
from trainer.data.layouts import DataError, find_videos
from trainer.data.layouts.files import class_names


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Two classes; empty files in place of videos: a layout does not look inside."""
    for split in ("train", "val"):
        for title in ("a b", "c"):
            for number in range(3 if split == "train" else 2):
                path = tmp_path / "plain" / split / title / f"{split}{title}{number}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
    return tmp_path / "plain"


def slowfast(plain: Path) -> Path:
    """Lists with the numbers of the classes, and no file with their names."""
    root = plain.parent / "lists"
    built.slowfast(clips_of(plain), root)
    (root / "classes.txt").unlink()
    return root


def refused(root: Path, **options: str) -> str:
    with pytest.raises(DataError) as error:
        find_videos(root, name="mine", **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_class_names_of_a_file_must_be_those_of_the_folders(plain: Path) -> None:
    built.write_lines(plain / "classes.txt", ["c", "a_b"])
    layout = find_videos(plain, name="mine", annotations="classes.txt")
    assert layout.classes == ("a_b", "c")
    assert dict(layout.class_map) == {"a_b": "a b", "c": "c"}
    built.write_lines(plain / "classes.txt", ["C", "a_b"])
    layout = find_videos(plain, name="mine", annotations="classes.txt")
    assert layout.classes == ("C", "a_b")  # sorted as they are written
    assert {video.path.split("/")[1]: video.label for video in layout.splits["train"]} == {"a b": 1, "c": 0}
    assert [video.label for video in layout.splits["train"]] == [0, 0, 0, 1, 1, 1]
    built.write_lines(plain / "classes.txt", ["c", "a bb"])
    assert "class 'a b' of the folders of train is not in the data; did you mean 'a bb'?" in refused(
        plain, annotations="classes.txt"
    )
    assert "data.annotations must be a folder of lists or a file of class names" in refused(
        plain, annotations="nowhere"
    )


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("classes.json", '{"\\"a b\\"": 0, "c": 1}'),
        ("classes.json", '["a b", "c"]'),
        ("kinetics_400_labels.csv", "id,name\n0,a b\n1,c\n"),
        ("classInd.txt", "1 a b\n2 c\n"),
        ("label_map.txt", "a b\nc\n"),
        # The numbers tell the order, wherever they stand.
        ("classes.csv", "id,name\n1,c\n0,a b\n"),
        ("classes.csv", "id,label\n1,c\n0,a b\n"),
        ("classes.csv", "label,name\n1,c\n0,a b\n"),
        ("classes.csv", "id,class\n0,a b\n1,c\n"),
        ("classes.csv", "name,index\nc,2\na b,1\n"),
        ("classes.csv", "label\na b\nc\n"),
        ("classes.csv", "label,id,split\nc,0,train\na b,1,train\nc,2,val\n"),
        ("classes.csv", "name,label\nx.mp4,c\ny.mp4,a b\nz.mp4,c\n"),
        ("classes.csv", "c,1\na b,0\n"),
        ("labels.txt", "1,c\n0,a b\n"),
        ("labels.txt", "c 1\na b 0\n"),
    ],
)
def test_class_names_are_read_in_the_forms_that_tools_write(plain: Path, file: str, text: str) -> None:
    root = slowfast(plain)
    (root / file).write_text(text)
    assert find_videos(root, name="mine").classes == ("a b", "c")
    shutil.copyfile(root / file, root / "classes.txt")
    assert "one file must name the classes" in refused(root)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("classes.csv", "id,name\n0,a\n2,b\n", "must be numbered one by one, from 0 or 1, but are 0, 2"),
        ("classes.csv", "zebra,1\napple,7\n", "must be numbered one by one, from 0 or 1, but are 1, 7"),
        ("labels.txt", "0,zebra\n5,apple\n", "must be numbered one by one, from 0 or 1, but are 0, 5"),
        ("classes.csv", "id,index\n0,0\n1,1\n", "must have a column label, name, class, class_name, label_name, but"),
        ("classes.csv", "id,name\n0,a\n1,a\n", "must name each once, but"),
    ],
)
def test_class_names_whose_numbers_leave_one_out_are_refused(plain: Path, file: str, text: str, message: str) -> None:
    (plain / file).write_text(text)
    assert message in refused(plain, annotations=file)


def test_names_that_hold_a_number_of_their_own_are_left_as_they_are(tmp_path: Path) -> None:
    for lines in (["route 66", "route 7"], ["class 0", "class 1"], ["3 steps", "10 steps"], ["1 step", "steps"]):
        built.write_lines(tmp_path / "labels.txt", lines)
        assert class_names(tmp_path / "labels.txt") == tuple(lines)


@pytest.mark.parametrize(
    "text", ['{"a": 0, "b": 2}', '{"a": 0, "b": true}', '{"a": 0, "b": 1.0}', "{", "[1, 2]", '"a"']
)
def test_class_names_in_broken_json_are_refused(plain: Path, text: str) -> None:
    root = slowfast(plain)
    (root / "classes.json").write_text(text)
    assert "classes.json must be" in refused(root)
