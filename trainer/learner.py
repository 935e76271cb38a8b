"""A network with its optimiser and its average, and one step of their training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from lightning_fabric import Fabric
from timm.utils import ModelEmaV3  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.checkpoint import Checkpoint
from trainer.config import Recipe
from trainer.device import channels_last, fabric_for
from trainer.evaluate import check_classes
from trainer.failures import NonFiniteLoss
from trainer.optim import average_of, make_optimizer, mixup, set_lr

# Reading a loss makes the host wait for the device, so that losses are read in groups.
_STEPS_PER_READING = 16


class Learner:
    """A network with its optimiser and its average, on a device."""

    def __init__(self, model: nn.Module, recipe: Recipe, device: torch.device) -> None:
        self.recipe = recipe
        self.raw = model.to(device)
        if recipe.channels_last:
            # Spares oneDNN and cuDNN reordering around convolutions.
            channels_last(self.raw)
        self.fabric: Fabric = fabric_for(recipe.precision, device)
        self.optimizer = make_optimizer(self.raw, recipe)
        self.average: ModelEmaV3 | None = average_of(self.raw, recipe)
        self.model, self.stepper = self.fabric.setup(self.raw, self.optimizer)

    @property
    def evaluated(self) -> nn.Module:
        """The network whose accuracy counts."""
        if self.average is None:
            return self.raw
        averaged: nn.Module = self.average.module
        return averaged

    def step(
        self, clips: Tensor, labels: Tensor, *, lr: float, share: float | None, num_classes: int, done: int
    ) -> Tensor:
        """Updates the weights once; returns the loss as a scalar on the device, without waiting for it.

        A network with auxiliary classifiers gives their logits behind its own in a tuple. They have the same targets.
        """
        recipe = self.recipe
        set_lr(self.optimizer, lr)
        smoothing = recipe.label_smoothing
        targets = labels
        if share is not None:
            clips, targets = mixup(clips, labels, share=share, num_classes=num_classes, smoothing=smoothing)
            smoothing = 0.0  # it is in the targets
        if recipe.channels_last:
            clips = clips.to(memory_format=torch.channels_last_3d)
        given = self.model(clips)
        logits, *sides = given if isinstance(given, tuple) else (given,)
        check_classes(logits, num_classes)
        loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
        for side in sides:
            check_classes(side, num_classes)
            loss = loss + recipe.aux_weight * F.cross_entropy(side, targets, label_smoothing=smoothing)
        self.fabric.backward(loss)
        if recipe.clip_grad:
            nn.utils.clip_grad_norm_(self.raw.parameters(), recipe.clip_grad)
        self.stepper.step()
        self.stepper.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.raw, step=done)
        return loss.detach()

    def load(self, kept: Checkpoint) -> None:
        """Takes over a checkpoint's state."""
        self.raw.load_state_dict(kept.model)
        self.optimizer.load_state_dict(dict(kept.optimizer))
        if self.average is not None and kept.ema is not None:
            self.average.module.load_state_dict(kept.ema)

    def checkpoint(self, epoch: int, identity: Mapping[str, str], lines: Sequence[str]) -> Checkpoint:
        """The state after an epoch."""
        return Checkpoint(
            epoch=epoch,
            run=identity,
            model=self.raw.state_dict(),
            ema=None if self.average is None else self.average.module.state_dict(),
            optimizer=self.optimizer.state_dict(),
            lines=lines,
        )


@dataclass(slots=True)
class Losses:
    """Losses of an epoch, read from the device in groups."""

    epoch: int
    num_steps: int = 0
    num_clips: int = 0
    total: float = 0.0
    waiting: list[tuple[Tensor, int]] = field(default_factory=list)

    def add(self, loss: Tensor, num_clips: int) -> None:
        """Notes a step's loss; once a group is full, raises NonFiniteLoss for its first bad one."""
        self.waiting.append((loss, num_clips))
        if len(self.waiting) == _STEPS_PER_READING:
            self._read()

    def mean(self) -> float:
        """Mean over the epoch's clips."""
        self._read()
        return self.total / self.num_clips

    def _read(self) -> None:
        if not self.waiting:
            return
        values = torch.stack([loss for loss, _ in self.waiting]).tolist()
        for value, (_, num_clips) in zip(values, self.waiting, strict=True):
            self.num_steps += 1
            if not math.isfinite(value):
                raise NonFiniteLoss(epoch=self.epoch, step=self.num_steps, value=value)
            self.num_clips += num_clips
            self.total += value * num_clips
        self.waiting.clear()
