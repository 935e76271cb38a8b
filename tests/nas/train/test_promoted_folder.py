"""What a promoted folder holds is what was written, or is refused in one line."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nas
from nas.cli.main import main
from nas.errors import NotFoundError
from nas.study.views import Views
from nas.train.folder import read_content, write_content
from nas.train.network import TrainedNetwork, load_network, save_network
from nas.use.multi_view import kept_scores
from nas.use.probabilities import Scores, save_scores, scores_file
from search_spaces import catalogue as presets
from search_spaces import codec
from search_spaces.catalogue import build
from trainer.config import Clip, DataConfig

DATA = DataConfig(name="toy", root="nowhere", cache="nowhere", clip=Clip(frames=4, height=16, width=16), short_side=16)
CLASSES = ("left", "right")


def make(folder: Path) -> None:
    torch.manual_seed(0)
    spec = presets.preset("r3d_18").scaled(1 / 16).canonical()
    model = build(spec, num_classes=2)
    scores = Scores(
        split="val",
        classes=CLASSES,
        paths=("val/left/0.mp4", "val/right/0.mp4"),
        labels=np.array([0, 1]),
        probabilities=np.array([[0.75, 0.25], [0.5, 0.5]], np.float32),
        clips_right=np.array([1.0, 0.0]),
        views=Views(clips=1),
    )
    folder.mkdir()
    save_scores(scores_file(folder, "val"), scores)
    record = {
        "digest": codec.digest(spec),
        "recipe": {"batch_size": 2, "channels_last": True},
        "views": {"clips": 1, "crops": 1, "short_sides": [], "full": False},
        "multi_label": False,
    }
    save_network(folder, model, spec=spec, class_names=CLASSES, data=DATA, record=record)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("promoted") / "whole"
    make(folder)
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def refused(folder: Path) -> str:
    with pytest.raises(NotFoundError) as caught:
        nas.load(folder)
    text = str(caught.value)
    assert "\n" not in text and len(text) <= 500 and "weights_only" not in text
    return text


def test_what_was_saved_is_loaded(whole: Path) -> None:
    network = load_network(whole)
    assert isinstance(network, TrainedNetwork)
    assert (network.class_names, network.data, network.views) == (CLASSES, DATA, Views(clips=1))
    torch.manual_seed(0)
    again = build(network.spec, num_classes=2)
    assert all(torch.equal(a, b) for a, b in zip(network.model.parameters(), again.parameters(), strict=True))
    assert kept_scores(whole, "val") is not None
    assert set(read_content(whole)["files"]) == {"weights.safetensors", "scores-val.npz"}


def test_every_flipped_bit_is_found(whole: Path, folder: Path) -> None:
    random_ = random.Random(0)
    for name, loads in (
        ("weights.safetensors", nas.load),
        ("network.json", nas.load),
        ("scores-val.npz", lambda folder: kept_scores(folder, "val")),
    ):
        content = (whole / name).read_bytes()
        for _ in range(60):
            place = random_.randrange(len(content))
            harmed = bytearray(content)
            harmed[place] ^= 1 << random_.randrange(8)
            (folder / name).write_bytes(harmed)
            if name == "network.json" and content[place : place + 1].isspace() and chr(harmed[place]).isspace():
                continue  # the layout of the text means nothing
            with pytest.raises(NotFoundError) as caught:
                loads(folder)
            assert "\n" not in str(caught.value) and len(str(caught.value)) <= 500
        (folder / name).write_bytes(content)
    nas.load(folder)


def test_a_network_that_was_put_into_another_ones_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    content = read_content(folder)
    other = build(codec.decode(content["spec"]), num_classes=2)
    torch.manual_seed(1)
    save_network(
        tmp_path / "other", other, spec=codec.decode(content["spec"]), class_names=CLASSES, data=DATA, record={}
    )
    shutil.copy(tmp_path / "other" / "weights.safetensors", folder / "weights.safetensors")
    assert "its digest differs" in refused(folder)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo never",)


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(50_000_000))
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    return buffer.getvalue()


def put(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


HOSTILE_FILES: dict[str, Callable[[Path], object]] = {
    "code": put(pickle.dumps(Payload())),
    "code in an archive": lambda path: torch.save({"a": Payload()}, path),
    "text": put(b"root:x:0:0:root:/root:/bin/bash\n" * 20),
    "empty": put(b""),
    "zip bomb": put(bomb()),
    "folder": lambda path: path.mkdir(),
    "named pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "tensors of another network": lambda path: torch.save({"a": torch.zeros(3)}, path),
    "no tensors": lambda path: torch.save({"a": 3}, path),
    "a list": lambda path: torch.save([1, 2], path),
    "nothing": lambda path: None,
}


@pytest.mark.parametrize("name", HOSTILE_FILES)
@pytest.mark.parametrize("file", ["weights.pt", "weights.safetensors", "network.json"])
def test_a_hostile_file_is_refused_in_one_line(folder: Path, name: str, file: str) -> None:
    if file == "weights.pt":  # a folder of the format before, whose weights have no digest
        old_format(folder)
    (folder / file).unlink()
    HOSTILE_FILES[name](folder / file)
    refused(folder)


def old_format(folder: Path) -> None:
    """Makes the folder one as the format before had it."""
    content = read_content(folder)
    weights = load_network(folder).model.state_dict()
    (folder / "weights.safetensors").unlink()
    torch.save(weights, folder / "weights.pt")
    content = {key: value for key, value in content.items() if key != "files"} | {"format": 1}
    (folder / "network.json").write_text(json.dumps(content))


def test_a_folder_of_the_format_before_is_read(whole: Path, folder: Path) -> None:
    old_format(folder)
    old, new = nas.load(folder), nas.load(whole)
    assert all(torch.equal(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True))
    path = folder / "weights.pt"
    content = bytearray(path.read_bytes())
    place = content.index(next(iter(new.parameters())).detach().numpy().tobytes()[:64])
    content[place] ^= 1
    path.write_bytes(content)
    assert "checksum" in refused(folder)


NAN = float("nan")
HOSTILE_VALUES: dict[str, tuple[tuple[str, ...], Any]] = {
    "endless clips": (("data", "clip", "frames"), 10**9),
    "fractions of frames": (("data", "clip", "frames"), 8.5),
    "text as frames": (("data", "clip", "frames"), "8"),
    "a truth as frames": (("data", "clip", "frames"), True),
    "huge number": (("data", "clip", "height"), 10**400),
    "endless views": (("record", "views", "clips"), 10**9),
    "views of another kind": (("record", "views"), [1]),
    "unknown views": (("record", "views", "of_tomorrow"), 1),
    "nan mean": (("data", "mean"), [NAN, 0.0, 0.0]),
    "short mean": (("data", "mean"), [0.5]),
    "text as mean": (("data", "mean"), "grey"),
    "unknown key": (("data", "of_tomorrow"), 1),
    "unknown sampling": (("data", "sampling"), "sparse"),
    "no classes": (("classes",), []),
    "one class too many": (("classes",), ["left", "right", "up"]),
    "numbers as classes": (("classes",), [1, 2]),
    "record as list": (("record",), [1]),
    "record as text": (("record",), "none"),
    "recipe as list": (("record", "recipe"), []),
    "endless batch": (("record", "recipe", "batch_size"), 10**12),
    "negative batch": (("record", "recipe", "batch_size"), -1),
    "another digest": (("record", "digest"), "0" * 64),
    "number as digest": (("record", "digest"), 3),
    "flow of another kind": (("record", "flow"), {"method": "magic"}),
    "spec as list": (("spec",), []),
    "endless spec": (("spec", "stages"), [[0] * 1000] * 200),
    "unknown family": (("spec", "family"), "perceptron"),
    "files as list": (("files",), ["weights.safetensors"]),
    "no digest of the weights": (("files",), {}),
    "format of tomorrow": (("format",), 99),
    "format as list": (("format",), [2]),
    "no format": (("format",), None),
}


@pytest.mark.parametrize("name", HOSTILE_VALUES)
def test_a_hostile_value_is_refused_in_one_line(folder: Path, name: str) -> None:
    """Also where whoever changed the file gave it the digest that it must have."""
    path, value = HOSTILE_VALUES[name]
    content = copy.deepcopy(read_content(folder))
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    write_content(folder, content)
    refused(folder)


@pytest.mark.parametrize("key", ["spec", "classes", "data", "record", "files", "format"])
def test_a_part_that_is_missing_is_named(folder: Path, key: str) -> None:
    content = read_content(folder)
    del content[key]
    write_content(folder, content)
    assert {"files": "digest of weights.safetensors"}.get(key, key) in refused(folder)


@pytest.mark.parametrize(
    "text", ["[]", "3", "null", '"x"', "[" * 100_000, "{", '{"a": NaN}', "9" * 5000, "\ufeff{}", "ÿ"]
)
def test_text_that_is_no_record_is_refused(folder: Path, text: str) -> None:
    (folder / "network.json").write_bytes(text.encode("latin-1" if text == "ÿ" else "utf-8"))
    refused(folder)


def test_a_command_that_gets_a_promoted_folders_record_takes_its_network(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cost", str(whole / "network.json"), "--clip", "4x32x32", "--num-classes", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["params"] == sum(p.numel() for p in nas.load(whole).parameters())
