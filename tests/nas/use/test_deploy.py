"""A trained network as ONNX, as an exported program and as plain source: the same classes and probabilities."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas.cli.main import main
from nas.errors import NasError, NotFoundError
from nas.train.folder import read_content, write_content
from nas.train.network import load_network, save_network
from nas.use import deploy as deployed
from nas.use.deploy import KINDS, deploy
from nas.use.onnx_network import Form, OnnxNetwork
from search_spaces.catalogue import build, preset
from search_spaces.settings import network_of
from search_spaces.spec import ArchSpec
from tests.nas.use.conftest import Place, said_json
from trainer.config import Clip, ConfigError, DataConfig

SMALL = {"depth": "1-1", "stem_width": 8, "stem": "3x3x3/2"}
NETWORKS: dict[str, tuple[ArchSpec, tuple[int, int]]] = {
    "resnet": (network_of("resnet", {**SMALL, "kind": "2plus1d", "attention": "se"}), (4, 24)),
    "random dilation": (network_of("resnet", {**SMALL, "kind": "3d", "dilation": "1|2"}), (4, 24)),
    "non-local": (network_of("resnet", {**SMALL, "kind": "p3d_b", "attention": "nonlocal"}), (4, 24)),
    "inception_v1": (network_of("inception_v1", {"width": 0.125, "attention": "gate"}), (8, 32)),
    "inception_v3": (network_of("inception_v3", {"width": 0.125, "aux": True, "temporal_stride": "none"}), (8, 107)),
    "slowfast": (network_of("slowfast", {"depth": "1-1", "width": 0.25}), (32, 32)),
    "x3d": (network_of("x3d", {"depth": "1-1", "width": 0.5}), (4, 32)),
    "timm, TSM": (network_of("timm", {"model": "test_resnet", "shift": "tsm"}), (8, 32)),
    "timm, TRN": (network_of("timm", {"model": "test_resnet", "head": "trn"}), (8, 32)),
}


def folder_of(place: Path, spec: ArchSpec, clip: tuple[int, int], **record: Any) -> Path:
    """A folder as `nas promote` leaves it, of a network whose norms have seen something."""
    torch.manual_seed(0)
    frames, size = clip
    model = build(spec, num_classes=5)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_mean"):
                value.uniform_(-0.2, 0.2)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif name.endswith("fc.weight"):
                value.mul_(20)  # so that classes differ
    data = DataConfig(
        name="d", root=str(place / "nowhere"), cache="c", clip=Clip(frames=frames, height=size, width=size)
    )
    save_network(place, model.eval(), spec=spec, class_names=tuple("abcde"), data=data, record=record)
    return place


LARGE = ("inception_v1", "inception_v3", "slowfast")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(name, kind, marks=pytest.mark.slow if name in LARGE and kind != "onnx" else ())
        for name in NETWORKS
        for kind in KINDS
    ],
)
def test_a_file_computes_what_the_network_does(name: str, kind: str, tmp_path: Path) -> None:
    network = load_network(folder_of(tmp_path / "net", *NETWORKS[name]))
    found = deploy(network, tmp_path / "net.py", kind, Form(uint8=kind == "onnx"), data=None)
    assert (found.videos, found.clips, found.equal) == (0, 4, 4)
    assert found.difference < 1e-5
    left = {"net.py", "net.pt"} if kind == "source" else {"net.py"}
    assert {path.name for path in tmp_path.iterdir()} == {"net", *left}


@pytest.mark.slow
def test_c3d_too(tmp_path: Path) -> None:
    network = load_network(folder_of(tmp_path / "net", preset("c3d"), (16, 112)))
    assert deploy(network, tmp_path / "net.onnx", "onnx", Form(), data=None).difference < 1e-5


@pytest.mark.parametrize("form", [Form(batch=3), Form(batch=1, uint8=True), Form(half=True)])
@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_forms(kind: str, form: Form, tmp_path: Path) -> None:
    network = load_network(folder_of(tmp_path / "net", *NETWORKS["resnet"]))
    found = deploy(network, tmp_path / "net.file", kind, form, data=None)
    assert found.equal == 4
    assert 0 < found.difference < 2e-2 if form.half else found.difference < 1e-5


def test_what_computes_something_else_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = load_network(folder_of(tmp_path / "net", *NETWORKS["resnet"]))
    (tmp_path / "net.onnx").write_bytes(b"of before")
    monkeypatch.setattr(deployed, "session_of", lambda content: lambda clips: torch.ones(len(clips), 5))
    with pytest.raises(NasError, match=r"a probability differs by .*; nothing was written"):
        deploy(network, tmp_path / "net.onnx", "onnx", Form(), data=None)
    assert (tmp_path / "net.onnx").read_bytes() == b"of before"
    assert {path.name for path in tmp_path.iterdir()} == {"net", "net.onnx"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_gives_no_numbers_is_not_kept(kind: str, tmp_path: Path) -> None:
    network = load_network(folder_of(tmp_path / "net", *NETWORKS["resnet"]))
    with torch.no_grad():
        network.model.get_submodule("head.fc").weight.fill_(float("nan"))
    with pytest.raises(NasError, match="a probability differs by nan"):
        deploy(network, tmp_path / "net.py", kind, Form(), data=None)
    assert {path.name for path in tmp_path.iterdir()} == {"net"}


@pytest.mark.parametrize("kind", KINDS)
def test_no_place_of_this_machine_is_in_a_file(kind: str, tmp_path: Path) -> None:
    network = load_network(folder_of(tmp_path / "net", *NETWORKS["timm, TSM"]))
    definition = str(tmp_path / "classes.txt")
    object.__setattr__(network, "data", replace(network.data, definition=definition))
    deploy(network, tmp_path / "net.py", kind, Form(), data=None)
    for file in tmp_path.glob("net.*"):
        content = file.read_bytes()
        assert all(
            place.encode() not in content for place in (str(tmp_path), "site-packages", "search_spaces/", "nas/")
        )


def test_source_runs_on_the_device_that_its_clips_are_on(tmp_path: Path) -> None:
    for name in ("resnet", "timm, TRN"):
        network = load_network(folder_of(tmp_path / name, *NETWORKS[name]))
        deploy(network, tmp_path / "net.py", "source", Form(), data=None)
        names: dict[str, Any] = {}
        exec((tmp_path / "net.py").read_text(), names)
        clip = network.data.clip
        with torch.device("meta"):
            clips = torch.zeros(2, 3, clip.frames, clip.height, clip.width)
        assert names["load"](tmp_path / "net.pt").to("meta")(clips).device.type == "meta"


def test_differences_of_frames_are_not_computed_inside(tmp_path: Path) -> None:
    spec, clip = NETWORKS["resnet"]
    network = load_network(folder_of(tmp_path / "net", spec, clip))
    object.__setattr__(network, "data", DataConfig(name="d", root="r", cache="c", input="difference"))
    with pytest.raises(ConfigError, match="--uint8 takes frames, but the network sees their differences"):
        deploy(network, tmp_path / "net.onnx", "onnx", Form(uint8=True), data=None)


def test_an_onnx_file_is_evaluated_as_its_network(place: Place, tmp_path: Path) -> None:
    folder, file = str(place.folders[0]), str(tmp_path / "net.onnx")
    (row,) = said_json("deploy", folder, "--onnx", file, "--uint8", "--json")
    assert row["videos"] == row["equal"] == 18
    assert row["difference"] < 1e-5
    options = ["--clips", "2", "--split", "test", "--json"]
    mine = said_json("evaluate", folder, str(place.data), *options)
    theirs = said_json("evaluate", file, str(place.data), *options)
    for key in ("confusion", "classes", "num_videos", "num_clips", "video1", "clip1", "checksum", "digest"):
        assert theirs[key] == mine[key]
    assert theirs["loss"] == pytest.approx(mine["loss"], abs=1e-5)


def test_the_metadata_says_how_to_use_a_file(place: Place, tmp_path: Path) -> None:
    import onnxruntime as ort

    file = tmp_path / "net.onnx"
    assert main(["deploy", str(place.folders[0]), "--onnx", str(file)]) == 0
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    facts = json.loads(session.get_modelmeta().custom_metadata_map["video-nas"])
    network = load_network(place.folders[0])
    assert facts["classes"] == list(network.class_names)
    assert facts["data"]["clip"] == {"frames": 4, "height": 12, "width": 12, "stride": 1}
    assert facts["data"]["root"] == facts["data"]["cache"] == ""
    mean, std = (np.float32(facts[key]).reshape(-1, 1, 1, 1) for key in ("mean", "std"))
    frames = np.random.default_rng(0).integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)
    clip = (np.moveaxis(frames, 3, 0).astype(np.float32) / 255 - mean) / std
    (logits,) = session.run(["logits"], {"clip": clip[None]})
    with torch.inference_mode():
        np.testing.assert_allclose(logits, network(torch.from_numpy(clip[None])).numpy(), rtol=1e-4, atol=1e-4)


def test_plain_source_needs_torch_alone(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "plain.py"
    assert main(["deploy", str(place.folders[0]), "--source", str(file)]) == 0
    script = (
        "import sys, torch\n"
        "sys.modules.update(dict.fromkeys(('nas', 'search_spaces', 'trainer', 'timm', 'torchvision')))\n"
        "import plain\n"
        "network = plain.load('plain.pt')\n"
        "print(network(torch.zeros(2, 3, 4, 12, 12)).tolist())\n"
        "print(plain.FACTS['classes'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, env={})
    assert done.returncode == 0, done.stderr
    logits, classes = done.stdout.splitlines()
    network = load_network(place.folders[0])
    with torch.inference_mode():
        expected = network(torch.zeros(2, 3, 4, 12, 12))
    torch.testing.assert_close(torch.tensor(json.loads(logits)), expected, rtol=1e-4, atol=1e-5)
    assert classes == str(list(network.class_names))


BAD: list[tuple[list[str], str]] = [
    ([], "name a file to write: --onnx FILE, --pt2 FILE, --source FILE or --card FILE"),
    (["--onnx", "{out}", "--batch", "0"], "--batch must be dynamic or 1 to 4096, but is 0"),
    (["--onnx", "{out}", "--batch", "²"], "--batch must be dynamic or 1 to 4096"),
    (["--source", "{out}"], "--source must be a file that ends in .py"),
    (["--source", "{out}.py", "--half"], "--half must go with --onnx or --pt2, but not with --source"),
    (["--onnx", "/proc/net.onnx"], "No such file or directory"),
    (["--onnx", "{out}", "--pt2", "{out}"], "two outputs would be"),
    (["--pt2", "{out}.pt", "--source", "{out}.py"], "two outputs would be"),
    (["--pt2", "{net}/weights.safetensors"], "whose files are the network's; name another place"),
    (["--source", "{net}/training/best.py"], "whose files are the network's; name another place"),
    (["--onnx", "{out}", "--data", "nothing"], "DATA must be a folder, a study file or a database"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_input_is_one_line(
    place: Place, tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"{out}": str(tmp_path / "out"), "{net}": str(place.folders[0])}
    for key, value in places.items():
        options = [option.replace(key, value) for option in options]
    assert main(["deploy", str(place.folders[0]), *options]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("error: ") and message in said[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no onnx", b"\x08\x08\x12\x00"])
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(NotFoundError, match="must be an ONNX file that `nas deploy` wrote"):
        OnnxNetwork(tmp_path / "net.onnx")
    with pytest.raises(NotFoundError, match="there is no file"):
        OnnxNetwork(tmp_path / "nothing.onnx")


def test_an_onnx_file_takes_clips_of_its_size(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "net.onnx")
    assert main(["deploy", str(place.folders[0]), "--onnx", file]) == 0
    assert main(["evaluate", file, str(place.data), "--short-sides", "16,20", "--full"]) == 2
    assert "the file cannot take clips of 3x4x16x16" in capsys.readouterr().err


def test_without_the_extra_the_command_is_named(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    network = load_network(place.folders[0])
    with pytest.raises(NasError, match=r"--onnx needs onnxruntime: pip install 'video-nas\[deploy\]'"):
        deploy(network, tmp_path / "net.onnx", "onnx", Form(), data=None)


def test_a_card_says_what_was_trained_and_tested(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, file = place.folders[0], tmp_path / "card.md"
    assert main(["deploy", str(folder), "--card", str(file)]) == 0
    assert f"{file}: what the network is" in capsys.readouterr().out
    text = file.read_text("utf-8")
    network = load_network(folder)
    record = network.record
    for title in ("## Network", "## Training", "## Accuracy", "## Limits"):
        assert title in text
    assert "it's still, move left, move right" in text and record["digest"] in text
    for split in ("test", "val"):
        assert f"On {split}: 18 videos" in text
        assert f"| video@1 | {record['accuracy'][split]['top1']:.3f} |" in text
    assert f"| epochs | {record['epochs']} |" in text and " ms, quartiles " in text
    assert "differences of a few points say nothing" in text
    assert str(place.data) not in text  # no path of the machine


def test_names_in_a_card_are_no_markup(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "net", NETWORKS["resnet"][0], (4, 24), epochs=3)
    content = read_content(folder)
    content["classes"][0] = "a | <script>alert(1)</script> [x](y)\n# b"
    write_content(folder, content)
    assert main(["deploy", str(folder), "--card", str(tmp_path / "card.md")]) == 0
    text = (tmp_path / "card.md").read_text("utf-8")
    assert "<script>" not in text.replace("\\<script\\>", "") and "\n# b" not in text and "[x]" not in text
    assert "No test of each video is kept" in text
