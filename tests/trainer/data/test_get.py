"""Kinetics fetched from a real local server: ranges, checksums, broken archives, what is left on disk."""

from __future__ import annotations

import hashlib
import json
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests.trainer.data import built
from tests.trainer.data.built import CLASSES, Clip
from tests.trainer.data.conftest import pictures
from tests.trainer.data.web import Server, archive, publish
from trainer.data import download
from trainer.data import kinetics as get
from trainer.data.download import FetchError, fetch
from trainer.data.kinetics import REPLACEMENT, get_kinetics
from trainer.data.layouts import DataError, find_videos


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "_PAUSE", 0.01)
    monkeypatch.setattr(download.fetch, "__kwdefaults__", {**download.fetch.__kwdefaults__, "pause": 0.01})
    running = Server()
    yield running
    running.close()


@pytest.fixture
def kinetics(server: Server, tmp_path: Path, write_video) -> list[Clip]:
    """Two classes with 2 train and 1 val videos each, in two archives of train and one of val, and tables."""
    clips = []
    for number in range(6):
        split = "val" if number >= 4 else "train"
        title = CLASSES[number % 2]
        path = tmp_path / "source" / split / title / f"-_{number:02d}_abc-{number:02d}_000001_000011.mp4"
        write_video(path, pictures(6, 24, 32, first=3 * number))
        clips.append(Clip(path=path, split=split, label=number % 2))
    publish(server, clips, tmp_path)
    server.files[f"/{REPLACEMENT}"] = archive({f"{REPLACEMENT[:-4]}/{clips[0].path.name}": clips[1].path.read_bytes()})
    return clips


def test_what_is_fetched_is_a_data_set(server: Server, kinetics: list[Clip], tmp_path: Path) -> None:
    heard = []
    root = tmp_path / "k400"
    got = get_kinetics(root, base=server.base + "/", listener=lambda *news: heard.append(news))
    assert got.broken == ()
    assert [(one.split, one.videos) for one in got.archives] == [("train", 2)] * 1 + [("train", 2), ("val", 2)] + [
        ("replacement", 1)
    ]
    assert dict(got.videos) == {"train": 4, "val": 2}
    layout = find_videos(root, name="kinetics")
    assert layout.kind == "cvdf"
    assert layout.classes == CLASSES[:2]
    assert not layout.left_out
    first = root / "videos" / "train" / CLASSES[0] / kinetics[0].path.name
    assert first.read_bytes() == kinetics[1].path.read_bytes(), "the replacement stands in for the corrupted video"
    assert sorted(path.name for path in root.iterdir()) == [
        ".get.lock",
        "annotations",
        "get.jsonl",
        "replacement",
        "videos",
    ]
    assert heard[-1] == ("archives", 4, 4)
    assert any(text == "train part_1.tar.gz: bytes" and done == total for text, done, total in heard)


def test_flat_videos_are_a_data_set_too(server: Server, kinetics: list[Clip], tmp_path: Path) -> None:
    got = get_kinetics(tmp_path / "k400", base=server.base, arrange=False, keep=True)
    assert dict(got.videos) == {"train": 4, "val": 2}
    layout = find_videos(tmp_path / "k400", name="kinetics")
    assert layout.kind == "cvdf-flat"
    assert len(layout.splits["train"]) == 4
    assert len(list((tmp_path / "k400" / ".archives").iterdir())) == 4


def test_an_archive_that_would_fill_the_disk_is_refused_and_the_others_go_on(
    server: Server, kinetics: list[Clip], tmp_path: Path
) -> None:
    bomb = {f"{kinetics[0].path.stem}{k}.mp4": bytes(1 << 20) for k in range(40)}
    server.files["/train/part_0.tar.gz"] = archive(bomb)
    got = get_kinetics(tmp_path / "k400", base=server.base, arrange=False)
    assert [(one.split, one.name) for one in got.broken] == [("train", "part_0.tar.gz")]
    assert "is refused: it must unpack to at most 16,9" in got.broken[0].reason
    assert dict(got.videos) == {"train": 2, "val": 2}
    assert not (tmp_path / "k400" / ".archives").exists()
    again = get_kinetics(tmp_path / "k400", base=server.base, arrange=False, unpack_limit=50 << 20)
    assert (again.broken, again.videos["train"]) == ((), 42)


def test_a_book_of_archives_may_have_long_lines(server: Server, kinetics: list[Clip], tmp_path: Path) -> None:
    others = {f"{number}-{'n' * 300}.txt": b"" for number in range(90)}
    server.files["/train/part_0.tar.gz"] = archive({kinetics[0].path.name: b"x", **others})
    first = get_kinetics(tmp_path / "k400", base=server.base, arrange=False)
    assert len(first.archives[0].refused) == 90
    assert get_kinetics(tmp_path / "k400", base=server.base, arrange=False) == first


def test_an_archive_that_is_larger_than_any_is_not_fetched(
    server: Server, kinetics: list[Clip], tmp_path: Path
) -> None:
    largest = 200_000
    server.files["/train/part_1.tar.gz"] += bytes(largest)
    got = get_kinetics(tmp_path / "k400", base=server.base, unpack_limit=largest)
    assert [one.name for one in got.broken] == ["part_1.tar.gz"]
    assert f"it must have at most {largest:,} bytes, but has" in got.broken[0].reason
    assert not (tmp_path / "k400" / ".archives").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"http://[bad/part_0.tar.gz", "must name one .tar.gz a line"),
        (b"https://x/" + b"n" * 300 + b".tar.gz", "must name one .tar.gz a line"),
        (b"https://x/\x1b]0;t\x07.tar.gz", "must name one .tar.gz a line"),
        (b"https://x/part 0.tar.gz", "must name one .tar.gz a line"),
        (b"https://x/..tar.gz/..", "must name one .tar.gz a line"),
        (b"\n\n", "holds nothing"),
        (b"".join(b"https://x/part_%d.tar.gz\n" % k for k in range(10_001)), "at most 10,000 archives"),
        (b"x" * (4 * 2**20 + 1), "a list must have at most 4,194,304 bytes"),
        (b"\xff\xfe", "cannot be fetched"),
    ],
)
def test_a_hostile_list_of_a_mirror_is_refused_in_one_line(
    server: Server, kinetics: list[Clip], tmp_path: Path, content: bytes, message: str
) -> None:
    server.files["/train/k400_train_path.txt"] = content
    with pytest.raises(DataError) as error:
        get_kinetics(tmp_path / "k400", base=server.base)
    assert message in str(error.value)
    assert len(str(error.value)) <= 500 and "\n" not in str(error.value)
    assert not [path for path in (tmp_path / "k400").rglob("*") if path.is_file() and path.name != ".get.lock"]


def test_a_table_without_an_end_is_refused_and_leaves_nothing(
    server: Server, kinetics: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get, "_LARGEST_TABLE", 10_000)
    server.files["/annotations/train.csv"] += b"x" * 10_000
    with pytest.raises(DataError, match=r"train\.csv is not fetched: it must have at most 10,000 bytes, but has"):
        get_kinetics(tmp_path / "k400", base=server.base)
    assert list((tmp_path / "k400" / "annotations").iterdir()) == []


def test_nothing_is_fetched_twice(server: Server, kinetics: list[Clip], tmp_path: Path) -> None:
    first = get_kinetics(tmp_path / "k400", base=server.base)
    server.asked.clear()
    again = get_kinetics(tmp_path / "k400", base=server.base)
    assert again == first
    assert not [path for path, _ in server.asked if path.endswith("gz") and path != f"/{REPLACEMENT}"]
    assert server.asked.count((f"/{REPLACEMENT}", "")) == 1  # asked whether there is one


def test_a_connection_that_ends_early_is_gone_on_with(server: Server, tmp_path: Path) -> None:
    body = bytes(range(256)) * 5000
    server.files["/a.tar.gz"] = body
    server.cut = [1000, 300_000, 0]
    digest = fetch(f"{server.base}/a.tar.gz", tmp_path / "a")
    assert digest == hashlib.sha256(body).hexdigest()
    assert (tmp_path / "a").read_bytes() == body
    assert [wanted for _, wanted in server.asked] == ["", "bytes=1000-", "bytes=301000-", "bytes=301000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_file_that_was_whole_but_not_renamed_is_taken(server: Server, tmp_path: Path) -> None:
    server.files["/a.gz"] = b"12345"
    (tmp_path / "a.part").write_bytes(b"12345")
    fetch(f"{server.base}/a.gz", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"12345"


def test_a_server_without_ranges_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.files["/a.gz"] = b"123456789"
    server.cut, server.ranges = [4], False
    fetch(f"{server.base}/a.gz", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"123456789"
    assert [wanted for _, wanted in server.asked] == ["", "bytes=4-"]


@pytest.mark.parametrize("parts", ["", "-2"], ids=["MD5", "no MD5"])
def test_a_file_that_has_changed_meanwhile_is_fetched_anew(server: Server, tmp_path: Path, parts: str) -> None:
    server.parts = parts
    server.files["/a.gz"] = b"old old old"
    server.cut = [4]
    with pytest.raises(FetchError, match="ended after 4 of 11 bytes"):
        fetch(f"{server.base}/a.gz", tmp_path / "a", tries=1)
    server.files["/a.gz"] = b"new new new"
    fetch(f"{server.base}/a.gz", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"new new new"


def test_a_wrong_checksum_is_tried_again_and_then_told(server: Server, tmp_path: Path) -> None:
    server.files["/a.gz"] = b"12345"
    right = hashlib.sha256(b"12345").hexdigest()
    with pytest.raises(FetchError, match=f"its sha256 must be {'0' * 64}, but is {right}"):
        fetch(f"{server.base}/a.gz", tmp_path / "a", checksum="0" * 64, tries=2)
    assert len(server.asked) == 2
    assert not list(tmp_path.glob("a*"))
    assert fetch(f"{server.base}/a.gz", tmp_path / "a", checksum=right.upper()) == right


def test_bytes_that_differ_from_the_servers_own_checksum_are_not_taken(server: Server, tmp_path: Path) -> None:
    server.files["/a.gz"] = b"12345"
    (tmp_path / "a.part").write_bytes(b"xx")  # damaged on disk, and then gone on with
    fetch(f"{server.base}/a.gz", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"12345"
    assert [wanted for _, wanted in server.asked] == ["bytes=2-", ""]


def test_broken_and_missing_archives_are_recorded_and_tried_again(
    server: Server, kinetics: list[Clip], tmp_path: Path
) -> None:
    root = tmp_path / "k400"
    whole = server.files["/train/part_0.tar.gz"]
    server.files["/train/part_0.tar.gz"] = whole[: len(whole) // 2]
    del server.files["/val/part_0.tar.gz"]
    got = get_kinetics(root, base=server.base, arrange=False)
    assert [(one.split, one.name) for one in got.broken] == [("train", "part_0.tar.gz"), ("val", "part_0.tar.gz")]
    assert "the archive is damaged" in got.broken[0].reason
    assert "the server answers 404" in got.broken[1].reason
    lines = [json.loads(line) for line in (root / "get.jsonl").read_text().splitlines() if line]
    assert [line["state"] for line in lines] == ["broken", "unpacked", "broken", "unpacked"]
    server.files["/train/part_0.tar.gz"] = whole
    server.files["/val/part_0.tar.gz"] = archive({c.path.name: c.path.read_bytes() for c in built.of(kinetics, "val")})
    got = get_kinetics(root, base=server.base)
    assert got.broken == ()
    assert find_videos(root, name="kinetics").kind == "cvdf"


def test_a_replacement_that_comes_later_takes_the_place_of_an_arranged_video(
    server: Server, kinetics: list[Clip], tmp_path: Path
) -> None:
    root = tmp_path / "k400"
    whole = server.files[f"/{REPLACEMENT}"]
    server.files[f"/{REPLACEMENT}"] = whole[: len(whole) // 2]
    assert [one.name for one in get_kinetics(root, base=server.base, tries=1).broken] == [REPLACEMENT]
    first = root / "videos" / "train" / CLASSES[0] / kinetics[0].path.name
    assert first.read_bytes() == kinetics[0].path.read_bytes()
    server.files[f"/{REPLACEMENT}"] = whole
    got = get_kinetics(root, base=server.base)
    assert (got.broken, dict(got.videos)) == ((), {"train": 4, "val": 2})
    assert first.read_bytes() == kinetics[1].path.read_bytes()
    assert not list((root / "replacement").rglob("*.mp4"))


def test_a_part_whose_class_is_not_known_is_set_aside_and_not_deleted(
    server: Server, kinetics: list[Clip], tmp_path: Path
) -> None:
    """Two classes for one YouTube ID: the times of the rows decide for one part, and no row has those of the other."""
    clip = built.of(kinetics, "val")[0]
    other = f"{clip.path.stem[:11]}_000050_000060.mp4"
    members = {one.path.name: one.path.read_bytes() for one in built.of(kinetics, "val")}
    server.files["/val/part_0.tar.gz"] = archive({**members, other: b"another part"})
    server.files["/annotations/val.csv"] += f'"{CLASSES[1]}",{clip.path.stem[:11]},90,100,val,0\n'.encode()
    root = tmp_path / "k400"
    assert get_kinetics(root, base=server.base).unlisted == 1
    assert (root / "unlisted" / "val" / other).read_bytes() == b"another part"


def test_a_class_that_would_be_a_hidden_folder_is_refused(server: Server, kinetics: list[Clip], tmp_path: Path) -> None:
    table = server.files["/annotations/train.csv"].decode()
    server.files["/annotations/train.csv"] = table.replace(CLASSES[0], f".{CLASSES[0]}").encode()
    with pytest.raises(DataError, match=r"must be the name of a folder that is not hidden, .*train\.csv has .\."):
        get_kinetics(tmp_path / "k400", base=server.base, splits=["train"])


def test_one_process_fetches_into_a_folder(server: Server, kinetics: list[Clip], tmp_path: Path) -> None:
    root = tmp_path / "k400"
    root.mkdir()
    with (
        FileLock(root / ".get.lock"),
        pytest.raises(DataError, match=f"one process must fetch into a folder, but another .* into {root}$"),
    ):
        get_kinetics(root, base=server.base)
    assert not server.asked
    assert get_kinetics(root, base=server.base).broken == ()


def test_checksums_tell_archives_of_one_name_apart_by_their_split(
    server: Server, kinetics: list[Clip], tmp_path: Path
) -> None:
    sums = {
        name[1:]: hashlib.sha256(body).hexdigest() for name, body in server.files.items() if name.endswith("_0.tar.gz")
    }
    assert list(sums) == ["train/part_0.tar.gz", "val/part_0.tar.gz"]
    assert get_kinetics(tmp_path / "k400", base=server.base, checksums=sums, tries=1).broken == ()
    wrong = {**sums, "val/part_0.tar.gz": "0" * 64}
    got = get_kinetics(tmp_path / "other", base=server.base, checksums=wrong, tries=1)
    assert [(one.split, one.name) for one in got.broken] == [("val", "part_0.tar.gz")]
    bare = {"part_0.tar.gz": sums["train/part_0.tar.gz"]}
    with pytest.raises(DataError, match=r"but train and val have a part_0\.tar\.gz each; write train/part_0\.tar\.gz"):
        get_kinetics(tmp_path / "third", base=server.base, checksums=bare)


def test_checksums_that_the_user_gives_are_held_to(server: Server, kinetics: list[Clip], tmp_path: Path) -> None:
    server.etags = False
    sums = {"part_1.tar.gz": "f" * 32}
    got = get_kinetics(tmp_path / "k400", base=server.base, checksums=sums, tries=1, splits=["train"])
    assert [one.name for one in got.broken] == ["part_1.tar.gz"]
    assert "its md5 must be ffff" in got.broken[0].reason


def test_videos_in_no_table_are_set_aside(server: Server, kinetics: list[Clip], tmp_path: Path) -> None:
    server.files["/val/part_0.tar.gz"] = archive(
        {**{c.path.name: c.path.read_bytes() for c in built.of(kinetics, "val")}, "zzzzzzzzzzz_000001_000002.mp4": b"x"}
    )
    root = tmp_path / "k400"
    got = get_kinetics(root, base=server.base)
    assert got.unlisted == 1
    assert (root / "unlisted" / "val" / "zzzzzzzzzzz_000001_000002.mp4").is_file()
    assert find_videos(root, name="kinetics").kind == "cvdf"


def test_a_disk_that_fills_up_is_told_and_the_same_call_goes_on(
    server: Server, kinetics: list[Clip], tmp_path: Path
) -> None:
    """The limit on the size of a file stands for a full disk: a write fails in the same place."""
    root = tmp_path / "k400"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, before[1]))
    try:
        with pytest.raises(DataError, match=r"a disk with room .* File too large; mend that and give the same command"):
            get_kinetics(root, base=server.base)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    got = get_kinetics(root, base=server.base)
    assert got.broken == ()
    assert dict(got.videos) == {"train": 4, "val": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "ftp://x"}, "must begin with http:// or https://"),
        ({"base": "x"}, "must begin with http:// or https://, but is 'x'"),
        ({"base": "http://[::1"}, r"must read http://HOST/PATH, but is 'http://\[::1': Invalid IPv6"),
        ({"base": "http://x:port"}, "must read http://HOST/PATH, but is 'http://x:port'"),
        ({"base": "http://"}, "must read http://HOST/PATH, but is 'http://': it names no host"),
        ({"base": "http://127.0.0.1:1"}, "cannot be fetched: .*refused; give the same command again"),
        ({"splits": ["training"]}, "a split must be one of train, val, test, but is 'training'"),
        ({"splits": ["test"]}, "k400_test_path.txt cannot be fetched: the server answers 404"),
    ],
)
def test_bad_input_is_one_line(server: Server, kinetics: list[Clip], tmp_path: Path, options, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        get_kinetics(tmp_path / "k400", **{"base": server.base, **options})
    assert "\n" not in str(error.value)


def test_a_list_that_names_no_archives_is_refused(server: Server, tmp_path: Path) -> None:
    server.files["/val/k400_val_path.txt"] = b"<html>\n"
    with pytest.raises(DataError, match=r"must name one \.tar\.gz a line, but .* holds"):
        get_kinetics(tmp_path / "k400", base=server.base, splits=["val"])


@pytest.mark.parametrize(
    "base", ["http://me:hunter2@127.0.0.1:1/k", "ftp://me:hunter2@x", "hunter2@x", "http://127.0.0.1:1/k?token=hunter2"]
)
def test_an_address_with_a_secret_is_refused_without_repeating_it(tmp_path: Path, base: str) -> None:
    with pytest.raises(DataError, match="without a user, a password or a query") as error:
        get_kinetics(tmp_path / "k400", base=base)
    assert "hunter2" not in str(error.value)
    assert not (tmp_path / "k400").exists()


def test_what_a_mirror_sends_in_place_of_a_table_does_not_stay(
    server: Server, kinetics: list[Clip], tmp_path: Path
) -> None:
    table = server.files["/annotations/train.csv"]
    server.files["/annotations/train.csv"] = b"<html>be back soon</html>"
    with pytest.raises(DataError, match=r"a column youtube_id, but http://.*/annotations/train\.csv has none"):
        get_kinetics(tmp_path / "k400", base=server.base)
    server.files["/annotations/train.csv"] = table
    assert dict(get_kinetics(tmp_path / "k400", base=server.base).videos) == {"train": 4, "val": 2}
    (tmp_path / "k400" / "annotations" / "train.csv").write_text("a list of mine")
    with pytest.raises(DataError, match=r"youtube_id, but .*k400/annotations/train\.csv has none; remove it"):
        get_kinetics(tmp_path / "k400", base=server.base)
    assert (tmp_path / "k400" / "annotations" / "train.csv").read_text() == "a list of mine"
