from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from trainer.checkpoint import load_weights
from trainer.config import CheckpointError, ConfigError
from trainer.failures import DiskFailed, environment_failure


@pytest.mark.parametrize(
    ("mode", "checkpoint_every", "least"), [("instants", 1, 20), ("instants", 2, 15), ("moments", 1, 12)]
)
def test_a_kill_loses_and_doubles_nothing(tmp_path, mode, checkpoint_every, least):
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    script = str(Path(__file__).with_name("killed_runs.py"))
    done = subprocess.run(
        [sys.executable, script, str(tmp_path), mode, str(checkpoint_every)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= least


@pytest.fixture(scope="module")
def two_epochs(toy, tmp_path_factory):
    """A folder that stands at epoch 2, as bytes by name, and one that stands at epoch 3."""
    folder = tmp_path_factory.mktemp("run")
    toy.train(folder / "a", 2)
    toy.train(folder / "b", 3)
    return {path.name: path.read_bytes() for path in (folder / "a").iterdir()}, folder / "b"


def put_back(folder, files):
    for old in folder.iterdir():
        old.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_the_folder_holds_three_files(two_epochs):
    assert set(two_epochs[0]) == {"last.pt", "prev.pt", "progress.jsonl"}


@settings(max_examples=18, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True), harm=st.sampled_from(["flip", "cut", "gap"]))
@example(share=0.4, harm="gap")
@example(share=0.9999, harm="cut")
def test_a_damaged_checkpoint_falls_back_to_the_one_before(toy, two_epochs, tmp_path, share, harm):
    files, whole = two_epochs
    put_back(tmp_path, files)
    content = bytearray(files["last.pt"])
    place = int(share * len(content))
    if harm == "flip":
        content[place] ^= 0xFF
    else:
        del content[place : None if harm == "cut" else place + 3000]
    (tmp_path / "last.pt").write_bytes(content)
    result = toy.train(tmp_path, 3)
    toy.same_run(tmp_path, whole)
    assert result.resumed_from == 1
    assert len(result.damaged) == 1
    assert "last.pt is damaged" in result.damaged[0]
    assert "\n" not in result.damaged[0]


def test_a_flipped_bit_in_a_weight_is_found(toy, two_epochs, tmp_path):
    files, whole = two_epochs
    put_back(tmp_path, files)
    weight = torch.load(tmp_path / "last.pt", weights_only=True)["model"]["0.weight"]
    raw = weight.permute(0, 2, 3, 4, 1).contiguous().numpy().tobytes()  # as stored: channels last
    content = bytearray(files["last.pt"])
    content[content.index(raw) + 8] ^= 1
    (tmp_path / "last.pt").write_bytes(content)
    assert "checksum" in toy.train(tmp_path, 3).damaged[0]
    toy.same_run(tmp_path, whole)


def unsealed(content):
    """A checkpoint as earlier versions wrote it: without a digest."""
    return content[: content.rindex(b"sha256:") - 2] + b"\0\0"


def test_every_flipped_bit_is_found(toy, two_epochs, tmp_path):
    content = two_epochs[0]["last.pt"]
    path = tmp_path / "last.pt"
    random_ = random.Random(0)
    size = len(content)
    # The digest, what announces it and the record of the archive's end come last: they are tried byte by byte.
    for place in (*(random_.randrange(size) for _ in range(200)), *range(size - 71 - 22, size)):
        harmed = bytearray(content)
        harmed[place] ^= 1 << random_.randrange(8)
        path.write_bytes(harmed)
        with pytest.raises(ConfigError, match=r"last\.pt is damaged"):
            load_weights(path, toy.network())
    for length in range(1, 71 + 22):
        path.write_bytes(content[:-length])
        with pytest.raises(ConfigError, match=r"last\.pt is damaged"):
            load_weights(path, toy.network())


@pytest.mark.parametrize("old", [False, True])
def test_a_flipped_bit_in_the_table_of_contents_is_found(toy, two_epochs, tmp_path, old):
    """0x10 of an entry's external attributes makes it a folder: no checksum of an archive sees it."""
    content = bytearray(two_epochs[0]["last.pt"])
    if old:
        content = bytearray(unsealed(bytes(content)))
        (tmp_path / "last.pt").write_bytes(content)
        assert load_weights(tmp_path / "last.pt", toy.network()) == 2
    place = -1
    for _ in range(content.count(b"PK\x01\x02")):
        place = content.index(b"PK\x01\x02", place + 1)
        harmed = bytearray(content)
        harmed[place + 38] ^= 0x10
        (tmp_path / "last.pt").write_bytes(harmed)
        with pytest.raises(ConfigError, match=r"last\.pt is damaged"):
            load_weights(tmp_path / "last.pt", toy.network())


def test_a_checkpoint_without_a_digest_is_read(toy, two_epochs, tmp_path):
    files, whole = two_epochs
    put_back(tmp_path, {name: unsealed(c) if name.endswith(".pt") else c for name, c in files.items()})
    result = toy.train(tmp_path, 3)
    assert (result.resumed_from, result.damaged) == (2, ())
    toy.same_run(tmp_path, whole)


def test_code_in_a_checkpoint_is_damage_and_no_advice(toy, tmp_path):
    torch.save({"epoch": os.system}, tmp_path / "last.pt")
    result = toy.train(tmp_path, 1)
    assert result.damaged == (f"{tmp_path}/last.pt is damaged (it holds objects that are not loaded)",)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_in_the_place_of_the_lines_is_replaced(toy, two_epochs, tmp_path):
    put_back(tmp_path, two_epochs[0])
    (tmp_path / "progress.jsonl").unlink()
    os.mkfifo(tmp_path / "progress.jsonl")
    toy.train(tmp_path, 3)
    assert toy.lines(tmp_path) == toy.lines(two_epochs[1])


def test_a_named_pipe_is_no_checkpoint(toy, tmp_path):
    os.mkfifo(tmp_path / "last.pt")
    with pytest.raises(ConfigError, match=r"last\.pt is damaged"):
        load_weights(tmp_path / "last.pt", toy.network())


def test_the_good_checkpoint_survives_the_fall_back(toy, two_epochs, tmp_path):
    files, _ = two_epochs
    put_back(tmp_path, files | {"last.pt": b""})

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.train(tmp_path, 3, should_stop=stop)
    assert (tmp_path / "last.pt").read_bytes() == files["prev.pt"]
    assert len(toy.lines(tmp_path)) == 1


def test_without_a_readable_checkpoint_the_run_begins_anew(toy, two_epochs, tmp_path):
    files, whole = two_epochs
    put_back(tmp_path, files | {"last.pt": b"", "prev.pt": files["prev.pt"][:1000]})
    result = toy.train(tmp_path, 3)
    assert result.resumed_from == 0
    assert len(result.damaged) == 2
    toy.same_run(tmp_path, whole)


@pytest.mark.parametrize("content", [None, b"", b'{"epoch": 1', b"{}\n{}\n{}\n{}\n"])
def test_lines_are_made_equal_to_the_checkpoint(toy, two_epochs, tmp_path, content):
    files, whole = two_epochs
    put_back(tmp_path, files)
    (tmp_path / "progress.jsonl").unlink()
    if content is not None:
        (tmp_path / "progress.jsonl").write_bytes(content)
    toy.train(tmp_path, 3)
    toy.same_run(tmp_path, whole)


def test_a_line_without_its_checkpoint_is_cut(toy, two_epochs, tmp_path):
    files, whole = two_epochs
    put_back(tmp_path, files)
    with (tmp_path / "progress.jsonl").open("ab") as file:
        file.write((whole / "progress.jsonl").read_bytes().splitlines(keepends=True)[2])
    assert toy.train(tmp_path, 2).resumed_from == 2
    assert (tmp_path / "progress.jsonl").read_bytes() == files["progress.jsonl"]


def test_a_checkpoint_of_another_version_is_refused(toy, two_epochs, tmp_path):
    files, _ = two_epochs
    put_back(tmp_path, files)
    fields = torch.load(tmp_path / "last.pt", weights_only=True)
    torch.save(fields | {"version": 99}, tmp_path / "last.pt")
    with pytest.raises(ConfigError, match=r"must be of version 1, but .*last\.pt is of version 99"):
        toy.train(tmp_path, 3)
    with pytest.raises(ConfigError, match="version 99"):
        load_weights(tmp_path / "last.pt", toy.network())


def test_a_checkpoint_of_another_network_of_equal_shapes_is_refused(toy, two_epochs, tmp_path):
    toy.train(tmp_path / "a", 1, network="one")
    with pytest.raises(CheckpointError, match=r"must go on as it began, but network is other and was one in") as caught:
        toy.train(tmp_path / "a", 2, network="other")
    assert isinstance(environment_failure(caught.value), DiskFailed)  # of the folder, never of the network
    assert toy.train(tmp_path / "a", 2, network="one").resumed_from == 1
    (tmp_path / "b").mkdir()
    put_back(tmp_path / "b", two_epochs[0])  # of a version that did not write the network down
    assert toy.train(tmp_path / "b", 3, network="one").resumed_from == 2


def test_load_weights_refuses_damage_and_other_networks(toy, two_epochs, tmp_path):
    files, _ = two_epochs
    put_back(tmp_path, files | {"prev.pt": b"x"})
    with pytest.raises(ConfigError, match=r"prev.pt is damaged"):
        load_weights(tmp_path / "prev.pt", toy.network())
    for content in (torch.zeros(3), 7, "weights", None):
        torch.save(content, tmp_path / "prev.pt")
        with pytest.raises(ConfigError, match=r"prev.pt is damaged"):
            load_weights(tmp_path / "prev.pt", toy.network())
    with pytest.raises(ConfigError, match=r"0\.weight is"):
        load_weights(tmp_path / "last.pt", toy.network(width=4))
    with pytest.raises(FileNotFoundError):
        load_weights(tmp_path / "absent.pt", toy.network())


def test_a_checkpoint_that_may_not_be_read_is_not_given_up(toy, two_epochs, tmp_path):
    """What cannot be opened now may be whole: it is neither replaced nor passed over."""
    files, _ = two_epochs
    put_back(tmp_path, files)
    (tmp_path / "last.pt").unlink()
    (tmp_path / "last.pt").mkdir()
    with pytest.raises(IsADirectoryError):
        toy.train(tmp_path, 3)
    assert (tmp_path / "prev.pt").read_bytes() == files["prev.pt"]
