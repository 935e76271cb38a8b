"""Which part of a data set is meant: the same part in every layout, and its definition in words for the record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trainer.data import built
from tests.trainer.data.built import BUILDERS, clips_of
from trainer.config import Clip, ConfigError, DataConfig
from trainer.data.layouts import DataError, Layout, find_videos
from trainer.data.layouts.definitions import read_exclude, write_exclude
from trainer.data.layouts.text import normal

TITLES = ("applauding", "massaging person's head", "opening bottle (not wine)", "tai chi", "yoga", "zumba")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Six classes, 4 + 2 files each, with contents in place of videos."""
    number = 0
    for split, count in (("train", 4), ("val", 2)):
        for title in TITLES:
            for _ in range(count):
                path = tmp_path / "plain" / split / title / f"id-{number:08d}_000001_000011.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(bytes([number]))
                number += 1
    return tmp_path / "plain"


def ids(layout: Layout) -> dict[str, list[tuple[str, str]]]:
    """Class and name of each video, which are the same in every layout."""
    return {
        split: [(layout.classes[video.label], Path(video.path).name) for video in videos]
        for split, videos in layout.splits.items()
    }


@pytest.mark.parametrize(
    "definition", ["classes:Yoga, opening_bottle_not_wine", 'classes:yoga,"opening bottle (not wine)"']
)
def test_classes_are_looked_up_as_tools_write_them(plain: Path, definition: str) -> None:
    layout = find_videos(plain, name="mine", definition=definition)
    assert layout.classes == ("opening bottle (not wine)", "yoga")
    assert {video.label for video in layout.splits["val"]} == {0, 1}
    assert all("yoga" in video.path for video in layout.splits["train"] if video.label == 1)
    assert dict(layout.class_map) == {title: title for title in layout.classes}
    assert layout.definition == "the classes opening bottle (not wine), yoga"


def test_classes_of_a_file(plain: Path, tmp_path: Path) -> None:
    built.write_lines(tmp_path / "mine.txt", ["zumba", "tai_chi"])
    layout = find_videos(plain, name="mine", definition=str(tmp_path / "mine.txt"))
    assert layout.classes == ("tai chi", "zumba")
    assert layout.selection["definition"]["sha256"]
    assert json.dumps(layout.record())


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ("classes:yogaa", "class 'yogaa' of data.definition is not in the data; did you mean 'yoga'?"),
        ("mini-kinetics", "two definitions go by that name: 400 + 25 videos of each of the 200 largest classes"),
        ("Mini Kinetics", "and half of the classes with all their videos (IBM)"),
        (
            "kinetics-5",
            "data.definition must be one of mini-kinetics-200[:FOLDER], mini-kinetics-ibm:FILE, s3d-v3-report",
        ),
        ("mini-kinetics-200", "the ID lists of mini-kinetics-200 must be in a folder, but there is none (looked at "),
        ("mini-kinetics-200:nowhere", "looked at nowhere, "),
        ("ids:", "the ID lists of ids must be in a folder, but there is none (looked at nowhere)"),
    ],
)
def test_a_definition_that_is_not_clear_is_refused(plain: Path, definition: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        find_videos(plain, name="mine", definition=definition)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def lists(plain: Path, folder: Path, *, fill: bool) -> None:
    """ID lists of two classes, half of the videos of each; with `fill`, as many IDs as Mini-Kinetics has."""
    for split, count, size in (("train", 2, 80_000), ("val", 1, 5_000)):
        mine = [path.name[:11] for title in TITLES[1:3] for path in sorted((plain / split / title).iterdir())[:count]]
        if fill:
            mine += [f"{split[:1]}{number:010d}" for number in range(size - len(mine))]
        built.write_lines(folder / f"{split}_ids.txt", mine)


def test_mini_kinetics_is_what_its_lists_of_ids_name(plain: Path) -> None:
    lists(plain, plain / "annotations" / "mini-kinetics-200", fill=True)
    layout = find_videos(plain, name="mine", definition="mini-kinetics-200")
    assert layout.classes == TITLES[1:3]
    assert {split: len(videos) for split, videos in layout.splits.items()} == {"train": 4, "val": 2}
    record = layout.selection["definition"]
    assert record["name"] == "mini-kinetics-200"
    assert record["lists"]["train"]["ids"] == 80_000
    assert record["lists"]["train"]["missing"] == 79_996
    assert layout.definition.startswith("mini-kinetics-200 by the ID lists of ")


def test_lists_of_another_size_are_not_mini_kinetics(plain: Path, tmp_path: Path) -> None:
    lists(plain, tmp_path / "lists", fill=False)
    with pytest.raises(
        DataError, match=r"mini-kinetics-200 has 80,000 train and 5,000 val IDs, but .* holds 4; say ids:"
    ):
        find_videos(plain, name="mine", definition=f"mini-kinetics-200:{tmp_path / 'lists'}")
    assert find_videos(plain, name="mine", definition=f"ids:{tmp_path / 'lists'}").classes == TITLES[1:3]
    (tmp_path / "lists" / "val_more.txt").touch()
    with pytest.raises(DataError, match=r"must hold one file \*val\*\.txt, but .* has val_ids\.txt, val_more\.txt"):
        find_videos(plain, name="mine", definition=f"ids:{tmp_path / 'lists'}")
    (tmp_path / "lists" / "val_more.txt").unlink()
    built.write_lines(tmp_path / "lists" / "val_ids.txt", ["short"])
    with pytest.raises(DataError, match=r"one YouTube ID of 11 characters per line, but line 1"):
        find_videos(plain, name="mine", definition=f"ids:{tmp_path / 'lists'}")
    built.write_lines(tmp_path / "lists" / "val_ids.txt", ["nobodynobod"])
    with pytest.raises(DataError, match=r"none of the 1 val IDs"):
        find_videos(plain, name="mine", definition=f"ids:{tmp_path / 'lists'}")


def test_the_rival_definition_needs_two_hundred_classes(plain: Path, tmp_path: Path) -> None:
    built.write_lines(tmp_path / "half.txt", list(TITLES[:2]))
    with pytest.raises(DataError, match=r"mini-kinetics-ibm must have 200 classes, but .*half\.txt names 2"):
        find_videos(plain, name="mine", definition=f"mini-kinetics-ibm:{tmp_path / 'half.txt'}")


def test_the_five_classes_of_the_report_are_the_same_for_everyone(plain: Path) -> None:
    layout = find_videos(plain, name="mine", definition="s3d-v3-report")
    assert layout.classes == ("applauding", "massaging person's head", "opening bottle (not wine)", "yoga", "zumba")
    assert layout.selection["definition"]["caps"] == {"train": 400, "val": 25, "test": 25}
    assert "since the report does not name its own" in layout.definition
    built.torchvision(clips_of(plain), plain.parent / "other")
    other = find_videos(plain.parent / "other", name="mine", definition="s3d-v3-report")
    assert [normal(title) for title in other.classes] == [normal(title) for title in layout.classes]


def test_a_cap_draws_the_same_videos_in_every_layout(plain: Path) -> None:
    whole = ids(find_videos(plain, name="mine"))
    part = find_videos(plain, name="mine", per_class=2)
    assert [len(videos) for videos in ids(part).values()] == [12, 12]
    assert part.definition == "at most 2 of each class in each split"
    for split, videos in ids(part).items():
        assert set(videos) <= set(whole[split])
    more = find_videos(plain, name="mine", per_class=3)
    assert set(ids(part)["train"]) < set(ids(more)["train"]), "a larger cap adds to a smaller one"
    for name in ("cvdf as it comes", "slowfast", "mmaction2"):
        build, _, annotations = BUILDERS[name]
        build(clips_of(plain), plain.parent / name)
        other = find_videos(plain.parent / name, name="mine", per_class=2, annotations=annotations)
        assert ids(other) == ids(part), name


def test_a_cap_and_a_definition_go_together_and_are_recorded(plain: Path) -> None:
    layout = find_videos(plain, name="mine", definition="classes:yoga", per_class=1)
    assert {split: len(videos) for split, videos in layout.splits.items()} == {"train": 1, "val": 1}
    record = layout.record()
    assert record["definition"] == "the classes yoga; at most 1 of each class in each split"
    assert record["class_map"] == {"yoga": "yoga"}
    assert record["videos"] == {"train": 1, "val": 1}
    assert find_videos(plain, name="mine").record()["definition"] == "all classes and videos"


def test_part_of_multi_label_data_keeps_the_labels_that_are_left(plain: Path) -> None:
    built.multi_label(clips_of(plain), plain.parent / "many")
    layout = find_videos(plain.parent / "many", name="mine", definition="classes:massaging persons head,yoga")
    assert layout.multi_label
    assert {video.labels for video in layout.splits["train"]} == {(0,), (1,)}
    assert len(layout.splits["train"]) == 12  # those of class 0 have class 1, too
    with pytest.raises(DataError, match="needs one class a video, but the data is multi-label"):
        find_videos(plain.parent / "many", name="mine", per_class=1)


def test_where_annotations_lie_is_no_part_of_what_the_data_is() -> None:
    clip = Clip(frames=1, height=1, width=1)
    old = DataConfig(name="a", root="a", cache="a", clip=clip)
    new = DataConfig(name="a", root="b", cache="b", clip=clip, annotations="x", exclude="y")
    assert old.identity() == new.identity()
    assert not {"layout", "definition", "per_class", "annotations", "exclude"} & set(old.identity())
    part = DataConfig(name="a", root="a", cache="a", clip=clip, definition="classes:a", per_class=3)
    assert part.identity() == {**old.identity(), "definition": "classes:a", "per_class": 3}
    with pytest.raises(ConfigError, match=r"data\.per_class must be at least 0, but is -1"):
        DataConfig(name="a", root="a", cache="a", clip=clip, per_class=-1)


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(paths=st.lists(names, unique=True))
def test_an_exclude_list_is_read_as_it_was_written(paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("lists") / "out.txt"
    write_exclude(file, [(path, "a reason\twith a tab") for path in paths])
    assert read_exclude(file) == tuple(paths)


@given(name=names)
def test_a_normal_name_is_normal_already(name: str) -> None:
    assert normal(normal(name)) == normal(name)
    assert normal(name.replace(" ", "_")) == normal(name)


@pytest.mark.parametrize("content", [b"SQLite format 3\0", b"name: a study\n", b"train/a/0.mp4\n", b"#"])
def test_an_exclude_list_takes_the_place_of_no_other_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "study.db"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"a new file or one that .* wrote, but .*study\.db holds something else"):
        write_exclude(file, [("a", "b")])
    assert file.read_bytes() == content
    file.write_bytes(b"")
    write_exclude(file, [("a", "b")])
    write_exclude(file, [("c", "d")])
    assert read_exclude(file) == ("c",)
