"""Training a network: here in this process, or by several processes together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainer.checkpoint import RunFolder
from trainer.config import ConfigError, DataConfig, Log
from trainer.data import clips as video_clips
from trainer.evaluate import Batches
from trainer.logs import check_logs
from trainer.loop import FitResult, RunPlan, run
from trainer.metrics import EpochResult
from trainer.parallel import run_together
from trainer.recipe import Recipe

__all__ = ["FitResult", "check_team", "fit"]


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
    checkpoint_steps: int = 0,
    devices: int = 1,
    keep_best: bool = False,
    best_by: str = "",
    patience: int = 0,
    logs: Sequence[Log] = (),
    batches: Batches = video_clips,
    network: str = "",
) -> FitResult:
    """Trains a network until an epoch is done, going on from the folder's last checkpoint.

    The randomness of an epoch comes from (seed, epoch) alone. Training to epoch 2 and later to 4 gives the
    weights and the lines of training to 4 at once, bit for bit on a CPU with the same threads; so
    does a kill at any moment. (One difference is meant: epoch 2, as the end of a call, has been evaluated,
    whatever `eval_every` says.) Torch's generators are as before when this returns.

    Args:
        model: The network as initialised; afterwards it holds the weights of the last checkpoint, which may be beyond
            `until_epoch` (not the averaged ones: for those see `checkpoint.load_weights`), and stays on the device.
        data: The opened data.
        data_config: How clips are taken from it.
        recipe: How to train.
        seed: Of everything random in training.
        until_epoch: Last epoch to train, from 1. Where the folder has it already, nothing is trained.
        folder: Of this run alone; made if absent.
        device: One device, such as `cpu` or `cuda:0`; with several devices their kind, `cpu` or `cuda`.
        on_epoch: Called after each epoch of this call, once its line and its checkpoint are on the disk.
        should_stop: Asked before each step; training ends with Stopped when it says so.
        checkpoint_every: Epochs between checkpoints; the last epoch always has one.
        checkpoint_steps: Steps between checkpoints within an epoch; 0 writes none. A run that goes on from one gives
            the weights and lines of a run that was never stopped, too.
        devices: Processes that train together, each with a part of every batch: one a GPU, 0 for all visible ones; on
            `cpu` that number of processes. `recipe.batch_size` is that of all together, batch normalisation sees all
            clips, and but for rounding and dropout (on CPUs random dilations too) the result is that of one process.
            Their number may change between calls.
        keep_best: Whether the weights of the epoch that is most accurate on val are kept too, in `best.pt` (where two
            are alike, those of the smaller loss). What an epoch reports is of its own weights in any case. Weights of
            an epoch before this was asked for, or of a file that is damaged, are gone: an epoch has to be better.
        best_by: The metric by which `keep_best` and `patience` compare epochs, such as `balanced`; empty for the data's
            own.
        patience: Epochs in a row that are not more accurate on val than one before, after which training ends early and
            `best.pt` holds the best; an epoch that was not evaluated ends nothing. 0 trains to `until_epoch`.
        logs: Logs beside the lines: `csv` (`progress.csv`), `tensorboard` (`tensorboard/`), `mlflow` and `wandb`.
        batches: Where clips come from.
        network: What tells the network from others whose weights have the same shapes, such as its digest; a checkpoint
            of another one is refused.

    Raises:
        ConfigError: A setting does not fit the data.
        CheckpointError: The folder holds another run.
        TrainingFailed: As NonFiniteLoss, OutOfMemory, BrokenClip, DiskFull or FolderBusy; the last checkpoint
            stands.
        Stopped: As asked.
    """
    device = torch.device(device)
    devices = check_team(recipe, device, devices)
    if patience < 0:
        raise ConfigError(f"patience must be at least 0, but is {patience}")
    _check(recipe, until_epoch=until_epoch, checkpoint_every=checkpoint_every, checkpoint_steps=checkpoint_steps)
    check_logs(logs)
    plan = RunPlan(
        model=model,
        data=data,
        data_config=data_config,
        recipe=recipe,
        seed=seed,
        until_epoch=until_epoch,
        folder=folder,
        device=device,
        batches=batches,
        checkpoint_every=checkpoint_every,
        checkpoint_steps=checkpoint_steps,
        keep_best=keep_best,
        best_by=best_by,
        patience=patience,
        logs=tuple(logs),
        network=network,
    )
    if devices == 1:
        return run(plan, on_epoch=on_epoch, should_stop=should_stop)
    result = run_together(plan, devices, on_epoch=on_epoch, should_stop=should_stop)
    kept = RunFolder(folder).newest()
    assert kept is not None
    model.load_state_dict(kept.model)
    model.to(device)
    return result


def check_team(recipe: Recipe, device: str | torch.device, devices: int) -> int:
    """The number of processes that train together: what `devices` of `fit` asks for.

    Raises:
        ConfigError: There are fewer devices than asked for, or the batch is too small for them.
    """
    device = torch.device(device)
    visible = torch.cuda.device_count()
    if device.type == "cuda" and devices > visible:
        raise ConfigError(f"devices must be at most the {visible} visible GPUs, but is {devices}")
    if devices < (0 if device.type == "cuda" else 1):
        raise ConfigError(
            f"devices must be at least 1, or 0 for all visible GPUs on cuda, but is {devices} on {device}"
        )
    size = devices or max(visible, 1)
    if size > 1 and recipe.batch_size < 2 * size:
        raise ConfigError(
            f"recipe.batch_size must be at least 2 for each of {size} devices, but is {recipe.batch_size}"
        )
    return size


def _check(recipe: Recipe, *, until_epoch: int, checkpoint_every: int, checkpoint_steps: int) -> None:
    for name, value in (("until_epoch", until_epoch), ("checkpoint_every", checkpoint_every)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, but is {value}")
    if checkpoint_steps < 0:
        raise ConfigError(f"checkpoint_steps must be at least 0, but is {checkpoint_steps}")
    if recipe.has_horizon and until_epoch > recipe.epochs:
        raise ConfigError(
            f"until_epoch must be at most recipe.epochs = {recipe.epochs} with schedule {recipe.schedule}, "
            f"but is {until_epoch}; only the schedules anytime and steps can be prolonged"
        )
