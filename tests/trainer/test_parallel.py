"""Several processes that train one network together give what one gives with the same batches."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.config import Clip, ConfigError, DataConfig
from trainer.data import clips as video_clips
from trainer.data.motion import make_motion
from trainer.failures import BrokenClip, NonFiniteLoss, OutOfMemory, Stopped
from trainer.team import part_of

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


def assert_close(one, two, folder_one, folder_two):
    assert len(one.epochs) == len(two.epochs)
    for a, b in zip(one.epochs, two.epochs, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, abs=1e-5)
        assert a.val.loss == pytest.approx(b.val.loss, abs=1e-5)
        assert (a.val.top1, a.val.num_clips, a.steps, a.lr) == (b.val.top1, b.val.num_clips, b.steps, b.lr)
    return folder_one, folder_two


def same_weights(toy, left, right):
    ours, theirs = toy.tensors(left), toy.tensors(right)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-5, msg=name)


def test_two_processes_train_as_one_with_the_doubled_batch(toy, videos, tmp_path):
    """Batches of 6, 6 and 4 clips, in halves; batch normalisation, mixup, cutmix, average and evaluation included."""
    options = EXACT | {"batch_size": 6, "mixup": 0.4, "cutmix": 0.5, "clip_grad": 1.0, "label_smoothing": 0.1}
    seen = []
    one = train(toy, videos, tmp_path / "one", 3, **options)
    two = train(toy, videos, tmp_path / "two", 3, devices=2, on_epoch=seen.append, **options)
    assert_close(one, two, tmp_path / "one", tmp_path / "two")
    same_weights(toy, tmp_path / "one", tmp_path / "two")
    assert tuple(seen) == two.epochs
