"""The loop on decoded videos: what the data layer gives is what the loop expects."""

from __future__ import annotations

import dataclasses
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory as pinned

from trainer.config import Clip, DataConfig
from trainer.data import clips as video_clips
from trainer.data.layouts import DataError, DataGoneError
from trainer.data.loading import Batch, load
from trainer.data.motion_clips import make_motion
from trainer.evaluate import evaluate
from trainer.failures import DataAway, WorkerDied, environment_failure


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motion")
    make_motion(folder / "root", train_per_class=3, val_per_class=2, test_per_class=0, frames=8, size=16)
    config = DataConfig(
        name="motion",
        root=str(folder / "root"),
        cache=str(folder / "cache"),
        clip=Clip(frames=4, height=12, width=12),
        short_side=16,
        eval_clips=2,
    )
    return video_clips.open_data(config), config


def train(toy, videos, folder, until_epoch, **options):
    data, config = videos
    return toy.train(
        folder, until_epoch, model=toy.network(8), data=data, config=config, batches=video_clips, **options
    )


def test_going_on_equals_never_stopping(toy, videos, tmp_path):
    train(toy, videos, tmp_path / "whole", 2, mixup=0.2)
    train(toy, videos, tmp_path / "parts", 1, mixup=0.2)
    result = train(toy, videos, tmp_path / "parts", 2, mixup=0.2)
    toy.same_run(tmp_path / "whole", tmp_path / "parts")
    assert [e.steps for e in result.epochs] == [3, 3]
    assert result.epochs[-1].val.num_clips == 16


def test_loader_processes_do_not_change_the_run(toy, videos, tmp_path):
    data, config = videos
    train(toy, videos, tmp_path / "none", 1)
    train(toy, (data, dataclasses.replace(config, num_workers=1)), tmp_path / "one", 1)
    toy.same_run(tmp_path / "none", tmp_path / "one")


def test_every_video_is_evaluated_once(toy, videos):
    data, config = videos
    got = evaluate(toy.network(8), data, config, toy.recipe(), "val")
    assert got.videos.tolist() == list(range(16))
    assert got.labels.tolist() == data.splits["val"].labels.tolist()
    assert torch.equal(got.confusion.sum(1), torch.full((8,), 2))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_cache_that_vanishes_is_data_that_is_away(toy, videos, tmp_path, num_workers):
    data, config = videos
    gone = dataclasses.replace(data.splits["train"], file=tmp_path / "gone")
    data = dataclasses.replace(data, splits=dict(data.splits) | {"train": gone})
    config = dataclasses.replace(config, num_workers=num_workers)
    with pytest.raises(DataAway, match="must stay in place") as caught:
        train(toy, (data, config), tmp_path / "run", 1)
    assert "\n" not in str(caught.value)


def test_each_process_of_an_evaluation_counts_the_unreadable_among_its_own(videos, tmp_path):
    """2 of 16 are a quarter of the first process's 8, which takes every other batch."""
    data, config = videos
    shutil.copytree(config.root, tmp_path / "root")
    config = dataclasses.replace(config, root=str(tmp_path / "root"), source="decode", max_broken=0.2, eval_clips=1)
    data = video_clips.open_data(config)
    for number in (0, 4):
        (tmp_path / "root" / data.split("val").entry(number).path).write_bytes(b"broken by now")

    def clips(part):
        batches = video_clips.eval_batches(data, config, split="val", batch_size=2, part=part)
        return sum(len(labels) for _, labels, _ in batches)

    assert (clips((0, 1)), clips((1, 2))) == (14, 8)
    with pytest.raises(DataError, match=r"at most data\.max_broken = 0\.2 of the clips .* but 2 of 8 were"):
        clips((0, 2))


def test_batches_of_loader_processes_are_pinned_for_the_copy_to_a_gpu():
    """Torch's loader asks the batch itself; without a GPU there is no memory to pin, and torch says so."""
    numbers = torch.arange(2)
    batch = Batch(pixels=torch.ones(2, 3), samples=numbers, videos=numbers, problems=[("a.mp4", "why")])
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match=r"NVIDIA|accelerator|CUDA"):
            pinned(batch)
        return
    found = pinned(batch)
    assert found.pixels.is_pinned() and torch.equal(found.pixels, batch.pixels)
    assert found.problems == batch.problems


# Loads a batch and waits.
_LOADS = """
import pickle, sys, time
from trainer.data.clips import open_data, train_batches
config = pickle.load(sys.stdin.buffer)
batches = train_batches(open_data(config), config, batch_size=4, seed=0, epoch=1)
next(batches)
print("loaded", flush=True)
time.sleep(600)
"""


def test_loader_processes_and_their_server_end_with_a_killed_run(videos):
    root = Path(__file__).parents[2]
    config = dataclasses.replace(videos[1], num_workers=1)
    process = subprocess.Popen(
        [sys.executable, "-c", _LOADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ, cwd=root
    )
    left = []
    try:
        process.stdin.write(pickle.dumps(config))
        process.stdin.close()
        assert process.stdout.readline() == b"loaded\n"
        server = children(process.pid)
        left = server + [pid for each in server for pid in children(each)]
        assert len(left) >= 2
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    deadline = time.monotonic() + 20
    while (left := [pid for pid in left if still_runs(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, 9)
    assert not left


def children(pid):
    """Processes that a process has started."""
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]


def still_runs(pid):
    """Whether a process is there, and is more than a number that nobody has asked for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class Deadly:
    """A plan whose second batch ends the process that makes it."""

    def __init__(self, how):
        self.how = how

    def __len__(self):
        return 3

    def __getitem__(self, number):
        if number == 1:
            os.kill(os.getpid(), self.how)
        numbers = torch.zeros(1, dtype=torch.int64)
        return Batch(pixels=torch.zeros(1, 1, 1, 1, 3), samples=numbers, videos=numbers, problems=[])


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS])
def test_a_loader_process_that_ends_is_a_worker_that_died(how):
    with pytest.raises(
        WorkerDied, match="loader processes must live, but one ended while it read data/here: "
    ) as caught:
        list(load(Deadly(how), 1, torch.device("cpu"), place="data/here", preload=[__name__]))
    assert "\n" not in str(caught.value)
    assert environment_failure(caught.value) is caught.value


@pytest.mark.parametrize("broken", [EOFError(), ConnectionResetError(104, "reset"), FileNotFoundError(2, "no socket")])
def test_a_loader_process_that_ends_before_its_batch_is_fetched_is_one_that_died(monkeypatch, broken):
    def gone(*_):
        raise broken

    monkeypatch.setattr(torch.multiprocessing.reductions, "rebuild_storage_fd", gone)
    monkeypatch.setattr(torch.multiprocessing.reductions, "rebuild_storage_filename", gone)
    with pytest.raises(WorkerDied, match="loader processes must live, but one ended while it read data/here: "):
        list(load(Deadly(signal.SIGKILL), 1, torch.device("cpu"), place="data/here", preload=[__name__]))


@pytest.mark.parametrize("error", [DataError, DataGoneError])
def test_an_error_of_a_loader_process_keeps_its_kind(error):
    with pytest.raises(DataError, match=r"^it is so$") as caught:
        list(load(Failing(error), 1, torch.device("cpu"), place="data/here", preload=[__name__]))
    assert type(caught.value) is error


class Failing(Deadly):
    """A plan that raises."""

    def __getitem__(self, number):
        raise self.how("it is so")
