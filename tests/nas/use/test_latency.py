"""Networks that are timed take turns, on the engine and for the clips that were asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nas.cli.main import main
from nas.use.latency import latencies
from tests.nas.use.conftest import Place, said_json
from trainer.device import threads_of

TINY = "{family: resnet, depth: 1-1, stem_width: 8, stem: 1x3x3/2, kind: 3d}"
FLAT = "{family: resnet, depth: 1-1, stem_width: 8, stem: 1x3x3/2, kind: 2d}"


def test_networks_take_turns() -> None:
    calls: list[int] = []
    heard: list[tuple[int, int]] = []
    found = latencies(
        [lambda i=i: calls.append(i) for i in range(3)],
        seconds=0.01,
        progress=lambda done, total: heard.append((done, total)),
    )
    assert len({one.runs for one in found}) == 1
    assert found[0].runs >= 5
    turns = calls[-3 * found[0].runs :]
    rounds = [turns[i : i + 3] for i in range(0, len(turns), 3)]
    assert all(sorted(one) == [0, 1, 2] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1
    assert [done for done, _ in heard] == list(range(1, found[0].runs + 1))
    assert all(0 <= one.low <= one.median <= one.high for one in found)


def test_threads_are_as_before_afterwards() -> None:
    before = torch.get_num_threads()
    with threads_of(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_networks_by_name_are_timed(engine: str) -> None:
    command = ["latency", TINY, FLAT, "--clip", "4x16x16", "--num-classes", "3", "--seconds", "0.1", "--batch", "2"]
    found = said_json(*command, "--engine", engine, "--json")
    assert [row["network"] for row in found["networks"]] == [TINY, FLAT]
    tiny, flat = found["networks"]
    assert tiny["macs"] > flat["macs"] > 0
    assert all(row["runs"] >= 5 and 0 < row["low"] <= row["ms"] <= row["high"] for row in (tiny, flat))
    assert {row["engine"] for row in (tiny, flat)} == {engine}
    assert found["batch"] == 2
    assert found["rank_correlation"] is None


def test_a_promoted_network_and_its_file_are_timed(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, fixed = str(tmp_path / "net.onnx"), str(tmp_path / "fixed.onnx")
    assert main(["deploy", str(place.folders[0]), "--onnx", file, "--uint8"]) == 0
    assert main(["deploy", str(place.folders[0]), "--onnx", fixed, "--batch", "1"]) == 0
    names = [*map(str, place.folders), file]
    found = said_json("latency", *names, "--seconds", "0.1", "--batch", "3", "--json")
    assert [row["clip"] for row in found["networks"]] == ["4x12x12", "4x12x12", "4x12x12", ""]
    assert -1 <= found["rank_correlation"] <= 1
    capsys.readouterr()
    assert main(["latency", fixed, "--batch", "2"]) == 2
    assert "fixed.onnx cannot be run by onnxruntime: it takes 1 clips at once" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([TINY, "--engine", "tensorrt"], "engine 'tensorrt' is not known"),
        ([TINY, "--device", "tpu"], "device 'tpu' is not known"),
        ([TINY, "--engine", "onnxruntime", "--device", "cuda"], "--engine onnxruntime is timed on a CPU"),
        (["nothing.onnx"], "there is no file nothing.onnx"),
        (["r3d_19"], "no preset is called 'r3d_19' (did you mean r3d_18?)"),
    ],
)
def test_bad_input_is_one_line(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["latency", *options]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and message in said[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["latency", TINY, "--device", "cuda", "--clip", "4x16x16"]) == 2
    assert "--device cuda needs a GPU that torch can use" in capsys.readouterr().err
