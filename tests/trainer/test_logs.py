"""Logs hold what the lines of progress hold, whatever interrupts a run."""

from __future__ import annotations

import csv
import warnings

import pytest

from trainer.config import ConfigError
from trainer.logs import COLUMNS, check_logs, to_csv


def table(folder):
    with (folder / "progress.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def events(folder):
    """{name: {epoch: value}} of the TensorBoard log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        log = loading.EventAccumulator(str(folder / "tensorboard"))
        log.Reload()
    return {name: {one.step: one.value for one in log.Scalars(name)} for name in log.Tags()["scalars"]}


def test_the_table_is_the_lines(toy, tmp_path):
    result = toy.train(tmp_path, 3, logs=["csv"], eval_every=2)
    rows = table(tmp_path)
    assert list(rows[0]) == list(COLUMNS)
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert [float(row["train_loss"]) for row in rows] == [e.train_loss for e in result.epochs]
    assert [row["val_top1"] for row in rows] == ["", *(str(e.val.top1) for e in result.epochs[1:])]
    assert {row["val_map_class"] for row in rows} == {""}  # one label a clip
    assert (tmp_path / "progress.csv").read_text() == to_csv(result.epochs)


def test_tensorboard_shows_every_epoch_once_after_an_interruption(toy, tmp_path):
    pytest.importorskip("tensorboard")

    def stop(result):
        if result.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.train(tmp_path, 4, logs=["csv", "tensorboard"], on_epoch=stop, checkpoint_every=3)
    assert [row["epoch"] for row in table(tmp_path)] == ["1", "2"]
    result = toy.train(tmp_path, 4, logs=["csv", "tensorboard"], checkpoint_every=3)
    assert result.resumed_from == 0  # epochs 1 and 2 were logged, but not kept
    assert [row["epoch"] for row in table(tmp_path)] == ["1", "2", "3", "4"]
    found = events(tmp_path)
    assert found["train/train_loss"] == pytest.approx({e.epoch: e.train_loss for e in result.epochs})
    assert found["val/top1"] == pytest.approx({e.epoch: e.val.top1 for e in result.epochs})
    assert set(found) >= {"train/lr", "train/clips_per_s", "val/loss", "val/top5"}


def test_logs_change_nothing_in_the_run_and_may_come_later(toy, tmp_path):
    toy.train(tmp_path / "plain", 2)
    assert not (tmp_path / "plain" / "progress.csv").exists()
    toy.train(tmp_path / "logged", 1)
    toy.train(tmp_path / "logged", 2, logs=["csv"])
    toy.same_run(tmp_path / "plain", tmp_path / "logged")
    assert len(table(tmp_path / "logged")) == 2


def test_logs_that_cannot_be_written_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match=r"logs must be one of csv, tensorboard, but is wandb"):
        check_logs(["wandb"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    check_logs(["csv"])
    with pytest.raises(ConfigError, match=r"needs the package tensorboard.*install video-nas\[logs\]"):
        check_logs(["tensorboard"])
