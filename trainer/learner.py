"""A network with its optimiser and its average, and one step of their training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from timm.layers.norm_act import convert_sync_batchnorm
from timm.utils import ModelEmaV3  # type: ignore[attr-defined]
from torch import Tensor, nn

from trainer.batchnorm import SyncedStatistics, freeze_statistics
from trainer.checkpoint import Checkpoint, Partial
from trainer.compiled import compile_errors, compiled
from trainer.config import Recipe
from trainer.device import channels_last, fabric_for
from trainer.evaluate import check_classes
from trainer.failures import NonFiniteLoss
from trainer.losses import loss_of
from trainer.mixing import Cut, cutmix, mixup
from trainer.optim import average_of, make_optimizer, set_lr
from trainer.recompute import blocks_of, recomputed
from trainer.team import ALONE, Team

# Reading a loss makes the host wait for the device, so that losses are read in groups.
_STEPS_PER_READING = 16


class Learner:
    """A network with its optimiser and its average, on a device.

    Args:
        model: The network.
        recipe: How to train it.
        device: Where.
        team: The processes that train it together, each with a part of every batch.
        weights: Of the classes (K,).
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        device: torch.device,
        *,
        team: Team = ALONE,
        weights: Tensor | None = None,
    ) -> None:
        self.recipe, self.team, self.device = recipe, team, device
        self.weights = None if weights is None else weights.to(device)
        self.fabric: Fabric = fabric_for(recipe.precision, device, team)
        self.raw = model.to(device)
        if team.size > 1 and device.type == "cuda" and not recipe.frozen_bn:
            self.raw = convert_sync_batchnorm(self.raw)  # type: ignore[no-untyped-call]
        if recipe.channels_last:
            # Spares oneDNN and cuDNN reordering around convolutions.
            channels_last(self.raw)
        self.optimizer = make_optimizer(self.raw, recipe)
        self.average: ModelEmaV3 | None = average_of(self.raw, recipe)
        network = compiled(self.raw) if recipe.compile else self.raw
        self.model, self.stepper = self.fabric.setup(network, self.optimizer)
        self.blocks = blocks_of(self.raw) if recipe.checkpointing else []

    @property
    def evaluated(self) -> nn.Module:
        """The network whose accuracy counts."""
        if self.average is None:
            return self.raw
        averaged: nn.Module = self.average.module
        return averaged

    def training(self) -> None:
        """Puts the network into training mode."""
        self.model.train()
        if self.recipe.frozen_bn:
            freeze_statistics(self.raw)

    def step(
        self,
        clips: Tensor,
        labels: Tensor,
        *,
        lr: float,
        share: float | None,
        num_classes: int,
        done: int,
        cut: Cut | None = None,
    ) -> Tensor:
        """Updates the weights once; returns the loss as a scalar on the device, without waiting for it.

        A network with auxiliary classifiers gives their logits behind its own in a tuple. They have the same targets.

        Args:
            clips: (N, 3, T, H, W); of a team, this process's part.
            labels: (N,), or 0/1 of each class (N, K).
            lr: Learning rate.
            share: Of mixup; `None` for none.
            num_classes: K.
            done: Steps since the run began, this one included.
            cut: Box of cutmix; it goes before mixup.

        Returns:
            The mean loss of the clips of this process.
        """
        recipe = self.recipe
        set_lr(self.optimizer, lr)
        smoothing = recipe.label_smoothing
        targets = labels
        if cut is not None:
            clips, targets = cutmix(clips, labels, cut=cut, num_classes=num_classes, smoothing=smoothing)
        elif share is not None:
            clips, targets = mixup(clips, labels, share=share, num_classes=num_classes, smoothing=smoothing)
        if targets.ndim > labels.ndim:
            smoothing = 0.0  # it is in the targets
        if recipe.channels_last:
            clips = clips.to(memory_format=torch.channels_last_3d)
        with ExitStack() as around:
            shared = SyncedStatistics if self.team.size > 1 and self.device.type == "cpu" else nullcontext
            around.enter_context(shared())
            if self.blocks:
                around.enter_context(recomputed(self.blocks, again=shared))
            if recipe.compile:
                around.enter_context(compile_errors())
            loss = self._learn(clips, targets, smoothing=smoothing, num_classes=num_classes)
        if recipe.clip_grad:
            nn.utils.clip_grad_norm_(self.raw.parameters(), recipe.clip_grad)
        self.stepper.step()
        self.stepper.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.raw, step=done)
        return loss

    def _learn(self, clips: Tensor, targets: Tensor, *, smoothing: float, num_classes: int) -> Tensor:
        """Adds up the gradients of a batch; returns its loss."""
        wanted = self.recipe.accumulate
        if wanted > 1:  # as many for all, whose parts meet in batch normalisation and where gradients are averaged
            wanted = self.team.least(min(wanted, len(clips)), self.device)
        parts = list(zip(*(_parts(tensor, wanted) for tensor in (clips, targets)), strict=True))
        # Gradients are averaged over the team, and each clip of all processes is to count alike.
        ours = None if self.team.size == 1 else self.team.size * len(clips) / self.team.total(len(clips), self.device)
        # What is drawn on the CPU beside a GPU is for the whole batch: see `trainer.randomness`.
        drawn = torch.get_rng_state() if len(parts) > 1 and self.device.type != "cpu" else None
        losses = []
        for number, (some, theirs) in enumerate(parts):
            if drawn is not None:
                torch.set_rng_state(drawn)
            waits = self.team.size > 1 and number < len(parts) - 1
            with self.fabric.no_backward_sync(self.model, enabled=waits):
                loss = self._loss(some, theirs, smoothing=smoothing, num_classes=num_classes)
                if len(parts) > 1:
                    loss = loss * (len(some) / len(clips))
                self.fabric.backward(loss if ours is None else loss * ours)
            losses.append(loss.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _loss(self, clips: Tensor, targets: Tensor, *, smoothing: float, num_classes: int) -> Tensor:
        given = self.model(clips)
        logits, *sides = given if isinstance(given, tuple) else (given,)
        check_classes(logits, num_classes)
        loss = loss_of(self.recipe, logits, targets, smoothing=smoothing, weights=self.weights)
        for side in sides:
            check_classes(side, num_classes)
            of_side = loss_of(self.recipe, side, targets, smoothing=smoothing, weights=self.weights)
            loss = loss + self.recipe.aux_weight * of_side
        return loss

    def load(self, kept: Checkpoint) -> None:
        """Takes over a checkpoint's state."""
        self.raw.load_state_dict(kept.model)
        self.optimizer.load_state_dict(dict(kept.optimizer))
        if self.average is not None and kept.ema is not None:
            self.average.module.load_state_dict(kept.ema)

    def checkpoint(
        self, epoch: int, identity: Mapping[str, str], lines: Sequence[str], partial: Partial | None = None
    ) -> Checkpoint:
        """The state after an epoch, or within the one after it."""
        return Checkpoint(
            epoch=epoch,
            run=identity,
            model=self.raw.state_dict(),
            ema=None if self.average is None else self.average.module.state_dict(),
            optimizer=self.optimizer.state_dict(),
            lines=lines,
            partial=partial,
        )

    def weights_only(self, epoch: int, identity: Mapping[str, str], line: str) -> Checkpoint:
        """The weights that were evaluated after an epoch, and the epoch's line."""
        return Checkpoint(
            epoch=epoch, run=identity, model=self.evaluated.state_dict(), ema=None, optimizer={}, lines=[line]
        )


def _parts(tensor: Tensor, number: int) -> Iterator[Tensor]:
    """The tensor in so many parts of nearly equal length."""
    return iter((tensor,) if number == 1 else tensor.tensor_split(number))


@dataclass(slots=True)
class Losses:
    """Losses of an epoch, read from the device in groups."""

    epoch: int
    num_steps: int = 0
    num_clips: int = 0
    total: float = 0.0
    team: Team = ALONE
    waiting: list[tuple[Tensor, int]] = field(default_factory=list)

    def add(self, loss: Tensor, num_clips: int) -> None:
        """Notes a step's loss; once a group is full, raises NonFiniteLoss for its first bad one."""
        self.waiting.append((loss, num_clips))
        if len(self.waiting) == _STEPS_PER_READING:
            self.read()

    def mean(self) -> float:
        """Mean over the epoch's clips."""
        self.read()
        return self.total / self.num_clips

    def read(self) -> None:
        """Waits for the losses that were not read so far.

        Raises:
            NonFiniteLoss: One is not finite.
        """
        if not self.waiting:
            return
        values = torch.stack([loss for loss, _ in self.waiting])
        counts = [num_clips for _, num_clips in self.waiting]
        if self.team.size > 1:
            numbers = torch.tensor(counts, device=values.device, dtype=torch.float64)
            sums = torch.stack((values.double() * numbers, numbers))
            dist.all_reduce(sums)
            values, counts = sums[0] / sums[1], [round(number) for number in sums[1].tolist()]
        for value, num_clips in zip(values.tolist(), counts, strict=True):
            self.num_steps += 1
            if not math.isfinite(value):
                raise NonFiniteLoss(epoch=self.epoch, step=self.num_steps, value=value)
            self.num_clips += num_clips
            self.total += value * num_clips
        self.waiting.clear()
