"""Several processes that train one network together give what one gives with the same batches."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.config import Clip, ConfigError, DataConfig
from trainer.data import clips as video_clips
from trainer.data.motion_clips import make_motion
from trainer.failures import NonFiniteLoss, Stopped, WorkerDied
from trainer.processes import share_of

EXACT = {"optimizer": "sgd", "momentum": 0.9, "ema_decay": 0.9, "lr": 0.05}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """16 training clips of 8 classes and as many to validate."""
    folder = tmp_path_factory.mktemp("motion")
    make_motion(folder / "root", train_per_class=2, val_per_class=2, test_per_class=0, frames=8, size=16)
    config = DataConfig(
        name="motion",
        root=str(folder / "root"),
        cache=str(folder / "cache"),
        clip=Clip(frames=4, height=12, width=12),
        short_side=16,
        eval_clips=2,
    )
    return video_clips.open_data(config), config


def train(toy, videos, folder, until_epoch, *, model=None, **options):
    data, config = videos
    model = toy.network(8, dropout=0.0) if model is None else model
    return toy.train(folder, until_epoch, model=model, data=data, config=config, batches=video_clips, **options)


def assert_close(one, two):
    assert len(one.epochs) == len(two.epochs)
    for a, b in zip(one.epochs, two.epochs, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, abs=1e-5)
        assert a.val.loss == pytest.approx(b.val.loss, abs=1e-5)
        assert (a.val.top1, a.val.num_clips, a.steps, a.lr) == (b.val.top1, b.val.num_clips, b.steps, b.lr)


def same_weights(toy, left, right):
    ours, theirs = toy.tensors(left), toy.tensors(right)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-5, msg=name)


def gone_on(pid):
    """Whether a process still runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_two_processes_train_as_one_with_the_doubled_batch(toy, videos, tmp_path):
    """Batches of 6, 6 and 4 clips, in halves; batch normalisation, mixup, cutmix, average and evaluation included."""
    options = EXACT | {"batch_size": 6, "mixup": 0.4, "cutmix": 0.5, "clip_grad": 1.0, "label_smoothing": 0.1}
    seen = []
    one = train(toy, videos, tmp_path / "one", 3, **options)
    two = train(toy, videos, tmp_path / "two", 3, devices=2, on_epoch=seen.append, **options)
    assert_close(one, two)
    same_weights(toy, tmp_path / "one", tmp_path / "two")
    assert tuple(seen) == two.epochs


def test_two_processes_may_be_stopped_anywhere_and_one_goes_on(toy, videos, tmp_path):
    """Also where blocks are computed again, whose batch normalisation then meets the other process a second time."""
    model = toy.network(8, dropout=0.0)
    one = train(toy, videos, tmp_path / "one", 2, batch_size=6, **EXACT)
    whole = EXACT | {"batch_size": 6, "checkpointing": True, "checkpoint_steps": 1}
    seen = []
    with pytest.raises(Stopped):
        train(toy, videos, tmp_path / "two", 2, devices=2, **whole, on_epoch=seen.append, should_stop=lambda: seen)
    two = train(toy, videos, tmp_path / "two", 2, model=model, **whole)
    assert two.resumed_from + two.resumed_step > 0
    assert_close(one, two)
    assert torch.equal(model[0].weight, toy.tensors(tmp_path / "two")["/model/0.weight"])


def test_steps_of_the_schedule_are_those_that_the_processes_do(toy, videos, tmp_path):
    """A second batch of 2 clips, which one process would see, is too small for two: the warm-up ends in epoch 2."""
    options = EXACT | {"batch_size": 14, "lr": 0.06, "warmup_epochs": 2.0}
    one = train(toy, videos, tmp_path / "one", 2, **options)
    two = train(toy, videos, tmp_path / "two", 2, devices=2, **options)
    assert [(epoch.steps, epoch.lr) for epoch in one.epochs] == [(2, pytest.approx(0.03)), (2, pytest.approx(0.06))]
    assert [(epoch.steps, epoch.lr) for epoch in two.epochs] == [(1, pytest.approx(0.03)), (1, pytest.approx(0.06))]


def test_a_folder_within_a_later_epoch_is_left_as_it_is(toy, videos, tmp_path):
    model, asked = toy.network(8, dropout=0.0), iter(range(99))
    with pytest.raises(Stopped):
        train(toy, videos, tmp_path, 2, batch_size=6, checkpoint_steps=1, should_stop=lambda: next(asked) == 4, **EXACT)
    before = (tmp_path / "last.pt").read_bytes()
    result = train(toy, videos, tmp_path, 1, model=model, devices=2, batch_size=6, **EXACT)
    assert ([epoch.epoch for epoch in result.epochs], result.resumed_step) == ([1], 0)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert torch.equal(model[0].weight, toy.tensors(tmp_path)["/model/0.weight"])


def test_stopping_ends_all_at_once_and_says_what_is_kept(toy, videos, tmp_path):
    """First before anything could be trained, in a folder that stands at epoch 2; then after an epoch."""
    options = EXACT | {"batch_size": 6}
    train(toy, videos, tmp_path, 2, **options)
    heard = []
    for should_stop in (lambda: True, lambda: bool(heard)):
        with pytest.raises(Stopped) as caught:
            train(toy, videos, tmp_path, 500, devices=2, on_epoch=heard.append, should_stop=should_stop, **options)
        kept = torch.load(tmp_path / "last.pt", weights_only=True)["epoch"]
        assert caught.value.epoch == kept == len(toy.lines(tmp_path))
        assert multiprocessing.active_children() == []
    assert heard[-1].epoch <= kept


def test_processes_with_unlike_numbers_of_clips_accumulate_as_many_parts(toy, videos, tmp_path):
    """Of the last batch's 5 clips, one process has 2 and the other 3, and 4 parts are asked for."""
    options = EXACT | {"batch_size": 11, "accumulate": 4}
    result = train(toy, videos, tmp_path / "normalised", 2, devices=2, **options)
    assert [epoch.steps for epoch in result.epochs] == [2, 2]
    one = train(toy, videos, tmp_path / "one", 2, frozen_bn=True, **options)
    two = train(toy, videos, tmp_path / "two", 2, devices=2, frozen_bn=True, **options)
    assert_close(one, two)


def test_frozen_layers_stay_in_all_processes_and_learn_behind_the_freeze(toy, videos, tmp_path):
    options = EXACT | {"freeze": "backbone", "freeze_epochs": 1, "frozen_bn": True}
    first = train(toy, videos, tmp_path / "first", 1, devices=2, **options)
    kept = toy.tensors(tmp_path / "first")
    one = train(toy, videos, tmp_path / "one", 2, **options)
    two = train(toy, videos, tmp_path / "two", 2, devices=2, **options)
    assert_close(one, two)
    assert torch.equal(kept["/model/0.weight"], toy.network().state_dict()["0.weight"])
    assert not torch.equal(toy.tensors(tmp_path / "two")["/model/0.weight"], kept["/model/0.weight"])
    assert first.epochs[0].train_loss == two.epochs[0].train_loss


def test_a_failure_of_all_is_that_of_one(toy, videos, tmp_path):
    with pytest.raises(NonFiniteLoss, match="loss must be finite, but is nan at step") as caught:
        train(toy, videos, tmp_path, 2, devices=2, batch_size=4, optimizer="sgd", lr=1e30, ema_decay=0.0)
    assert caught.value.epoch == 1
    assert multiprocessing.active_children() == []


def test_a_killed_process_ends_the_others_in_one_line(toy, videos, tmp_path):
    pids = []

    def kill(result):
        pids.extend(process.pid for process in multiprocessing.active_children())
        os.kill(pids[-1], signal.SIGKILL)

    with pytest.raises(WorkerDied, match=r"process \d of those that train together ended with code -9") as caught:
        train(toy, videos, tmp_path, 500, devices=2, batch_size=4, on_epoch=kill)
    assert "\n" not in str(caught.value)
    assert len(pids) == 2
    assert not any(gone_on(pid) for pid in pids)
    assert train(toy, videos, tmp_path, 1, batch_size=4).resumed_from >= 1  # the folder is free and whole


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"devices": 0}, "devices must be at least 1, or 0 for all visible GPUs on cuda, but is 0 on cpu"),
        ({"devices": 3, "batch_size": 5}, "recipe.batch_size must be at least 2 for each of 3 devices, but is 5"),
        ({"devices": 99, "device": "cuda"}, r"devices must be at most the \d+ visible GPUs, but is 99"),
    ],
)
def test_devices_that_cannot_share_a_batch_are_refused(toy, tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        toy.train(tmp_path, 1, **options)


@given(num_clips=st.integers(2, 60), size=st.integers(1, 8))
def test_the_parts_of_a_batch_are_the_batch_with_its_mirror_images(num_clips, size):
    size = min(size, num_clips // 2)
    batch = tuple(range(100, 100 + num_clips))
    parts = [share_of(batch, (rank, size)) for rank in range(size)]
    assert sorted(clip for part in parts for clip in part) == list(batch)
    for part in parts:
        assert abs(len(part) - num_clips / size) <= 2
        assert [a + b for a, b in zip(part, reversed(part), strict=True)] == [199 + num_clips] * len(part)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_the_parts_of_an_epoch_are_its_clips(videos, parts):
    data, config = videos
    count = video_clips.num_batches(data, config, split="train", batch_size=6, parts=parts)
    whole, *shares = (
        list(video_clips.train_batches(data, config, batch_size=6, seed=3, epoch=1, part=part))
        for part in [(0, 1), *((rank, parts) for rank in range(parts))]
    )
    for number in range(count):
        rows = torch.cat([share[number][0] for share in shares])
        ours, theirs = rows.flatten(1).sum(1).sort().values, whole[number][0].flatten(1).sum(1).sort().values
        torch.testing.assert_close(ours, theirs)
    assert [len(labels) for _, labels in whole[count:]] == ([4] if parts == 3 else [])  # 4 clips are too few for three


def test_passed_over_batches_are_not_loaded_and_change_nothing(videos):
    data, config = videos
    whole = list(video_clips.train_batches(data, config, batch_size=6, seed=3, epoch=1))
    rest = list(video_clips.train_batches(data, config, batch_size=6, seed=3, epoch=1, start_batch=2))
    assert len(rest) == 1
    assert torch.equal(rest[0][0], whole[2][0])
