"""Checkpoints within an epoch, the best checkpoint, and what a kill leaves of both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainer.checkpoint import load_weights
from trainer.config import ConfigError
from trainer.evaluate import evaluate
from trainer.failures import Stopped

OPTIONS = {"mixup": 0.3, "cutmix": 0.5, "warmup_epochs": 1.5, "clip_grad": 1.0}


def interrupted(toy, folder, epoch, step, until_epoch, **options):
    """Ends a run before a step, as a kill would, but for the files."""

    def hook(*place):
        if place == (epoch, step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.train(folder, until_epoch, batches=toy.ToyBatches(hook), **options)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion"])
@pytest.mark.parametrize("checkpoint_steps", [1, 2, 4])
def test_going_on_within_an_epoch_equals_never_stopping(toy, tmp_path, optimizer, checkpoint_steps):
    """Six steps per epoch; dropout, mixup, cutmix and averaged weights included."""
    options = OPTIONS | {"optimizer": optimizer, "batch_size": 4}
    toy.train(tmp_path / "whole", 3, **options)
    interrupted(toy, tmp_path / "parts", 2, 5, 3, checkpoint_steps=checkpoint_steps, **options)
    batches = toy.ToyBatches()
    result = toy.train(tmp_path / "parts", 3, batches=batches, **options)
    kept = 5 // checkpoint_steps * checkpoint_steps
    assert (result.resumed_from, result.resumed_step) == (1, kept)
    assert batches.seen[0] == (2, kept)
    toy.same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["instants", "moments"])
def test_a_kill_anywhere_loses_and_doubles_nothing(tmp_path, mode):
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    script = str(Path(__file__).with_name("killed_runs.py"))
    done = subprocess.run(
        [sys.executable, script, str(tmp_path), mode, "1", "1"],
        env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 12


def test_kills_in_mid_epoch_go_on_with_the_uninterrupted_losses(tmp_path):
    """Signal 9 before the second step of every epoch, again and again."""
    root = Path(__file__).parents[2]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    script = str(Path(__file__).with_name("killed_runs.py"))
    done = subprocess.run(
        [sys.executable, script, str(tmp_path), "steps", "1", "1"],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 3


def test_steps_are_counted_within_their_epoch(toy, tmp_path):
    found = []

    def hook(epoch, step):
        last = tmp_path / "last.pt"
        fields = torch.load(last, weights_only=True) if last.exists() else {"epoch": 0}
        found.append((fields["epoch"], fields.get("partial", {}).get("step", 0)))

    toy.train(tmp_path, 2, batches=toy.ToyBatches(hook), checkpoint_steps=2, batch_size=4)
    assert found == [(e, s) for e in (0, 1) for s in (0, 0, 2, 2, 4, 4)]
    assert "partial" not in torch.load(tmp_path / "last.pt", weights_only=True)


def test_stopping_within_an_epoch_goes_on_from_its_checkpoint(toy, tmp_path):
    batches = toy.ToyBatches()
    with pytest.raises(Stopped) as caught:
        toy.train(tmp_path / "a", 2, batches=batches, should_stop=lambda: len(batches.seen) == 5, checkpoint_steps=1)
    assert caught.value.epoch == 1
    assert toy.train(tmp_path / "a", 2).resumed_step == 1
    toy.train(tmp_path / "whole", 2)
    toy.same_run(tmp_path / "a", tmp_path / "whole")


def test_weights_of_a_moment_within_an_epoch_are_not_taken_for_those_of_one(toy, tmp_path):
    interrupted(toy, tmp_path, 2, 2, 3, checkpoint_steps=1)
    with pytest.raises(ConfigError, match=r"end of an epoch, but .*last\.pt is of step 2 of epoch 2; let") as caught:
        load_weights(tmp_path / "last.pt", toy.network())
    assert "\n" not in str(caught.value)
    toy.train(tmp_path, 2)
    assert load_weights(tmp_path / "last.pt", toy.network()) == 2


def test_checkpoint_steps_below_zero_are_refused(toy, tmp_path):
    with pytest.raises(ConfigError, match="checkpoint_steps must be at least 0, but is -1"):
        toy.train(tmp_path, 1, checkpoint_steps=-1)


def rank(result):
    return result.val.top1, -result.val.loss


def test_the_best_checkpoint_is_that_of_the_most_accurate_epoch(toy, tmp_path):
    """A rate that is too large, so that the last epoch is not the best."""
    options = {"optimizer": "sgd", "lr": 0.3, "ema_decay": 0.0, "weight_decay": 0.0}
    result = toy.train(tmp_path, 6, keep_best=True, **options)
    best = max(result.epochs, key=rank)
    assert best.epoch < 6
    assert result.best_epoch == best.epoch
    model = toy.network()
    assert load_weights(tmp_path / "best.pt", model) == best.epoch
    again = evaluate(model, toy.Toy(), toy.CONFIG, toy.recipe(), "val", batches=toy.ToyBatches())
    assert again.metrics == best.val
    assert load_weights(tmp_path / "last.pt", model) == 6


def test_the_best_checkpoint_is_of_the_averaged_weights(toy, tmp_path):
    result = toy.train(tmp_path, 2, keep_best=True, ema_decay=0.9)
    model = toy.network()
    load_weights(tmp_path / "best.pt", model)
    again = evaluate(model, toy.Toy(), toy.CONFIG, toy.recipe(), "val", batches=toy.ToyBatches())
    assert again.metrics == max(result.epochs, key=rank).val


@pytest.mark.parametrize("epoch", [2, 3, 4, 5, 6])
def test_the_best_checkpoint_survives_interruptions(toy, tmp_path, epoch):
    options = {"optimizer": "sgd", "lr": 0.3, "ema_decay": 0.0, "weight_decay": 0.0, "keep_best": True}
    whole = toy.train(tmp_path / "whole", 6, **options)
    interrupted(toy, tmp_path / "parts", epoch, 1, 6, checkpoint_every=3, **options)
    parts = toy.train(tmp_path / "parts", 6, **options)
    assert parts.best_epoch == whole.best_epoch
    left, right = toy.tensors(tmp_path / "whole", "best.pt"), toy.tensors(tmp_path / "parts", "best.pt")
    assert all(torch.equal(value, right[name]) for name, value in left.items())


@pytest.mark.parametrize("begun", [False, True])
def test_an_epoch_that_is_worse_than_one_before_does_not_become_the_best(toy, tmp_path, begun):
    """Switched on when the best epoch's weights are gone; or the best checkpoint is damaged then, which is said."""
    options = {"optimizer": "sgd", "lr": 1.0, "ema_decay": 0.0, "data": toy.Toy(noise=5.0)}
    path = tmp_path / "best.pt"
    first = toy.train(tmp_path, 3, keep_best=begun, **options)
    assert max(first.epochs, key=rank).epoch == 2
    if begun:
        path.write_bytes(path.read_bytes()[:900])
    second = toy.train(tmp_path, 4, keep_best=True, **options)
    assert max(second.epochs, key=rank).epoch == 2
    assert second.best_epoch is None
    assert [line.partition(" is damaged")[0] for line in second.damaged] == [str(path)] * begun


def test_the_epoch_that_stands_is_the_best_if_it_is_so(toy, tmp_path):
    """Its weights are still there when the best ones are asked for."""
    toy.train(tmp_path, 1)
    result = toy.train(tmp_path, 1, keep_best=True)
    assert result.best_epoch == 1
    model = toy.network()
    assert load_weights(tmp_path / "best.pt", model) == 1
    again = evaluate(model, toy.Toy(), toy.CONFIG, toy.recipe(), "val", batches=toy.ToyBatches())
    assert again.metrics == result.epochs[0].val


def test_a_run_begun_anew_has_no_best_of_before(toy, tmp_path):
    toy.train(tmp_path, 1, keep_best=True)
    for name in ("last.pt", "prev.pt"):
        (tmp_path / name).unlink(missing_ok=True)
    toy.train(tmp_path, 1)
    assert not (tmp_path / "best.pt").exists()


def test_no_best_checkpoint_unless_asked_for(toy, tmp_path):
    assert toy.train(tmp_path, 1).best_epoch is None
    assert not (tmp_path / "best.pt").exists()


@pytest.mark.parametrize("epoch", [0, 2, 4, 5])
def test_patience_ends_a_run_after_epochs_without_a_better_one(toy, tmp_path, epoch):
    """Whenever it was interrupted; a rate that is too large, so that the last epoch is not the best."""
    options = {"optimizer": "sgd", "lr": 0.3, "ema_decay": 0.0, "weight_decay": 0.0}
    whole = [rank(one) for one in toy.train(tmp_path / "whole", 12, **options).epochs]
    best = next(last for last in range(12) if all(whole[later] <= whole[last] for later in (last + 1, last + 2)))
    assert best + 3 < 12
    folder, options = tmp_path / "patient", {**options, "patience": 2, "checkpoint_every": 4}
    if epoch:
        interrupted(toy, folder, epoch, 1, 12, **options)
    for _ in range(2):  # it is over, too, where it is asked for again
        result = toy.train(folder, 12, **options)
        assert [rank(one) for one in result.epochs] == whole[: best + 3]
        assert result.best_epoch == best + 1
        assert load_weights(folder / "best.pt", toy.network()) == best + 1
        assert load_weights(folder / "last.pt", toy.network()) == best + 3


def test_epochs_that_are_not_evaluated_end_nothing(toy, tmp_path):
    options = {"optimizer": "sgd", "lr": 0.3, "ema_decay": 0.0, "weight_decay": 0.0, "eval_every": 4}
    result = toy.train(tmp_path, 24, patience=2, **options)
    ranks = {one.epoch: rank(one) for one in result.epochs if one.val is not None}
    assert len(result.epochs) % 4 == 0 and set(ranks) == set(range(4, len(result.epochs) + 1, 4))
    rising = [ranks[epoch] for epoch in sorted(ranks)][:-1]
    assert rising == sorted(rising)  # only the last evaluation was not better
    assert len(result.epochs) == 24 or ranks[len(result.epochs)] <= rising[-1]


def test_patience_below_zero_is_refused(toy, tmp_path):
    with pytest.raises(ConfigError, match="patience must be at least 0, but is -1"):
        toy.train(tmp_path, 1, patience=-1)
