"""A network with its optimiser and its average, and one step of their training; activation checkpointing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from timm.layers.norm_act import convert_sync_batchnorm
from timm.utils import ModelEmaV3  # type: ignore[attr-defined]
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from trainer.batchnorm import SyncedStatistics, freeze_statistics, norms_of, without_update
from trainer.checkpoint import Checkpoint, Partial
from trainer.device import channels_last, compile_errors, compiled, fabric_for
from trainer.evaluate import check_classes
from trainer.failures import NonFiniteLoss
from trainer.losses import Cut, cutmix, loss_of, mixup
from trainer.optim import average_of, make_optimizer, set_lr
from trainer.processes import ALONE, Team
from trainer.recipe import Recipe
from trainer.tuning import frozen_layers, is_frozen


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The parts of a network that are computed again, none within another.

    A block is what stands in a row and has members (a residual block, an inception unit), a row of plain layers, or a
    part that holds no row (a stem). Rows are `nn.Sequential`, `nn.ModuleList`, and modules that have no class but that.
    """
    return list(_blocks([model]))


def _blocks(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    for module in modules:
        if _is_row(module):
            members = list(module.children())
            if any(True for member in members for _ in member.children()):
                yield from _blocks(member for member in members if _is_row(member))
                yield from (member for member in members if not _is_row(member) and _is_block(member))
            elif isinstance(module, nn.Sequential) and _is_block(module):
                yield module
        elif any(_is_row(inner) for inner in module.modules()):
            yield from _blocks(module.children())
        elif _is_block(module):
            yield module


def _is_row(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList) or type(module) is nn.Module


def _is_block(module: nn.Module) -> bool:
    return any(True for _ in module.children()) and any(True for _ in module.parameters())


@contextmanager
def recomputed(
    blocks: Sequence[nn.Module], *, again: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Iterator[None]:
    """Within it, forward and backward passes compute the blocks' activations again instead of keeping them.

    Dropout draws the same numbers again; batch normalisation counts a batch once.

    Args:
        blocks: Of the network.
        again: Makes the context of what is computed again; what surrounds the backward pass does not reach there.
    """
    for block in blocks:
        norms = list(norms_of(block))
        block.forward = partial(_forward, block.forward, partial(_contexts, norms, again))
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the one of its class shows again


def _forward(forward: Callable[..., Any], contexts: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _contexts(
    norms: Sequence[_BatchNorm], again: Callable[[], AbstractContextManager[object]]
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _both(norms, again)


@contextmanager
def _both(norms: Sequence[_BatchNorm], again: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    with without_update(norms), again():
        yield


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
        self.frozen = frozen_layers(self.raw, recipe)
        self.idle: list[nn.Parameter] = []  # parameters whose gradients are dropped

    @property
    def evaluated(self) -> nn.Module:
        """The network whose accuracy counts."""
        if self.average is None:
            return self.raw
        averaged: nn.Module = self.average.module
        return averaged

    def training(self, epoch: int) -> None:
        """Puts the network into training mode; in an epoch in which layers are frozen, all of it but these."""
        self.model.train()
        if self.recipe.frozen_bn:
            freeze_statistics(self.raw)
        frozen = is_frozen(self.recipe, epoch)
        params = [param for layer in self.frozen for param in layer.parameters()]
        if self.team.size == 1:
            for param in params:
                param.requires_grad_(not frozen)
        # Processes agree on gradients once, when they begin: which tensors have one must not change.
        self.idle = params if frozen and self.team.size > 1 else []
        for layer in self.frozen if frozen else ():
            freeze_statistics(layer)

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
            clips: (N, C, T, H, W); of a team, this process's part.
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
        for param in self.idle:
            param.grad = None
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
        # What is drawn on the CPU beside a GPU is for the whole batch: see `trainer.loop`.
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
    """The tensor in a number of parts of nearly equal length."""
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
