"""The training loop: from wherever the folder stands to the end of an epoch."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainer.checkpoint import RunFolder, check_network
from trainer.config import ConfigError, DataConfig, Recipe
from trainer.data import clips as video_clips
from trainer.evaluate import Batches, evaluate
from trainer.failures import NonFiniteLoss, Stopped, named
from trainer.learner import Learner, Losses
from trainer.metrics import EpochResult, from_line, to_line
from trainer.optim import lr_at, mixup_shares

# What may change between two calls on one folder: what does not reach the weights.
_FREE = {"eval_every"}


@dataclass(frozen=True, kw_only=True, slots=True)
class FitResult:
    """What `fit` gives back.

    Attributes:
        epochs: Epochs 1 to `until_epoch`, also those of earlier calls.
        resumed_from: Epoch of the checkpoint that this call went on from; 0 if it began anew.
        damaged: A line for every checkpoint that could not be read and was passed over.
    """

    epochs: tuple[EpochResult, ...]
    resumed_from: int
    damaged: tuple[str, ...]


def fit(
    model: nn.Module,
    data: Any,
    data_config: DataConfig,
    recipe: Recipe,
    *,
    seed: int,
    until_epoch: int,
    folder: Path,
    device: str | torch.device = "cpu",
    on_epoch: Callable[[EpochResult], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    checkpoint_every: int = 1,
    batches: Batches = video_clips,
) -> FitResult:
    """Trains a network until an epoch is done, going on from the folder's last checkpoint.

    The randomness of an epoch comes from (seed, epoch) alone. Training to epoch 2 and later to 4 gives the
    weights and the lines of training to 4 at once, bit for bit on a CPU with the same threads; so
    does a kill at any moment. (One difference is meant: epoch 2, as the end of a call, has been evaluated,
    whatever `eval_every` says.) Torch's generators are as before when this returns.

    Args:
        model: The network as initialised; afterwards it holds the weights of the last checkpoint (not the
            averaged ones: for those see `checkpoint.load_weights`) and stays on the device.
        data: The opened data.
        data_config: How clips are taken from it.
        recipe: How to train.
        seed: Of everything random in training.
        until_epoch: Last epoch to train, from 1. Where the folder has it already, nothing is trained.
        folder: Of this run alone; made if absent.
        device: One device, such as `cpu` or `cuda:0`.
        on_epoch: Called after each epoch of this call, once its line and its checkpoint are on the disk.
        should_stop: Asked before each step; training ends with Stopped when it says so.
        checkpoint_every: Epochs between checkpoints; the last epoch always has one.
        batches: Where clips come from.

    Raises:
        ConfigError: A setting does not fit the data, or the folder holds another run.
        TrainingFailed: As NonFiniteLoss, OutOfMemory, BrokenClip, DiskFull or FolderBusy; the last checkpoint
            stands.
        Stopped: As asked.
    """
    _check(recipe, until_epoch=until_epoch, checkpoint_every=checkpoint_every)
    device = torch.device(device)
    files = RunFolder(folder)
    stop = should_stop if should_stop is not None else lambda: False
    with files.locked(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        num_steps = batches.num_batches(data, data_config, split="train", batch_size=recipe.batch_size)
        if num_steps < 1:
            raise ConfigError(f"the training split must fill one batch, but {data_config.root} gives none")
        identity = _identity(data, data_config, recipe, seed)
        kept, damaged = files.restore()
        if kept is not None:
            _check_same(identity, kept.run, files.last)
            check_network(model, kept.model, files.last)
        with named("the set-up"):
            learner = Learner(model, recipe, device)
            if kept is not None:
                learner.load(kept)
        lines = [] if kept is None else list(kept.lines)
        start = saved = len(lines)
        for epoch in range(start + 1, until_epoch + 1):
            began = time.perf_counter()
            with named(f"epoch {epoch}"):
                torch.manual_seed(_epoch_seed(seed, epoch))
                source = batches.train_batches(
                    data, data_config, batch_size=recipe.batch_size, seed=seed, epoch=epoch, device=device
                )
                losses = Losses(epoch)
                shares = mixup_shares(recipe, seed=seed, epoch=epoch)
                learner.model.train()
                for step, (clips, labels) in enumerate(source):
                    if stop():
                        raise Stopped(saved)
                    lr = lr_at(recipe, epoch=epoch, step=step, num_steps=num_steps)
                    done = (epoch - 1) * num_steps + step + 1
                    loss = learner.step(
                        clips, labels, lr=lr, share=next(shares), num_classes=len(data.classes), done=done
                    )
                    losses.add(loss, len(labels))
                train_loss = losses.mean()
            trained = time.perf_counter() - began
            val = None
            if epoch % recipe.eval_every == 0 or epoch == until_epoch:
                val = evaluate(learner.evaluated, data, data_config, recipe, "val", device, batches=batches).metrics
                if not math.isfinite(val.loss):
                    raise NonFiniteLoss(epoch=epoch, step=0, value=val.loss)
            result = EpochResult(
                epoch=epoch,
                train_loss=train_loss,
                lr=lr_at(recipe, epoch=epoch, step=losses.num_steps - 1, num_steps=num_steps),
                seconds=time.perf_counter() - began,
                steps=losses.num_steps,
                clips_per_s=losses.num_clips / trained,
                val=val,
            )
            lines.append(to_line(result))
            files.append(lines[-1])
            if epoch % checkpoint_every == 0 or epoch == until_epoch:
                files.write(learner.checkpoint(epoch, identity, lines))
                saved = epoch
            if on_epoch is not None:
                on_epoch(result)
    return FitResult(epochs=tuple(from_line(line) for line in lines[:until_epoch]), resumed_from=start, damaged=damaged)


def _epoch_seed(seed: int, epoch: int) -> int:
    """Seeds of neighbouring runs and epochs have nothing in common, unlike seed + epoch."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:8], "big") >> 1


def _check(recipe: Recipe, *, until_epoch: int, checkpoint_every: int) -> None:
    for name, value in (("until_epoch", until_epoch), ("checkpoint_every", checkpoint_every)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, but is {value}")
    if recipe.schedule != "anytime" and until_epoch > recipe.epochs:
        raise ConfigError(
            f"until_epoch must be at most recipe.epochs = {recipe.epochs} with schedule {recipe.schedule}, "
            f"but is {until_epoch}; only schedule anytime can be prolonged"
        )


def _identity(data: Any, data_config: DataConfig, recipe: Recipe, seed: int) -> dict[str, str]:
    """What must not change for a run to go on, by name."""
    fields = {f"recipe.{name}": value for name, value in recipe.identity().items() if name not in _FREE}
    fields |= {f"data.{name}": value for name, value in data_config.identity().items() if name not in _FREE}
    fields |= {"seed": seed, "data checksum": data.checksum, "classes": tuple(data.classes)}
    return {name: str(value) for name, value in fields.items()}


def _check_same(now: Mapping[str, str], kept: Mapping[str, str], path: Path) -> None:
    for name in {**now, **kept}:
        if now.get(name) != kept.get(name):
            raise ConfigError(
                f"a run must go on as it began, but {name} is {now.get(name)} and was {kept.get(name)} in "
                f"{path}; use another folder"
            )
