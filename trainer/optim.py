"""Optimiser, learning rate and averaged weights: functions of recipe, epoch and step."""

from __future__ import annotations

import difflib
import inspect
import math
from typing import Any

import torch
from timm.optim import (  # type: ignore[attr-defined]
    create_optimizer_v2,
    get_optimizer_class,
    list_optimizers,
)
from timm.utils import ModelEmaV3  # type: ignore[attr-defined]
from torch import nn

from trainer.config import ConfigError
from trainer.phases import recipe_at
from trainer.recipe import Recipe
from trainer.tuning import groups_by_depth

# They need a package or a second-order graph that this loop does not give them.
_UNUSABLE = ["bnb*", "fused*", "adahessian", "kron*"]

# One-cycle: the rise takes 30 % of the run and starts at 1/25 of the peak (Smith and Topin, arXiv 1708.07120,
# with the figures that fastai made customary).
_RISE = 0.3
_RISE_START = 1 / 25


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Builds the recipe's optimiser, without weight decay on norms and biases.

    Args:
        model: The network, already on its device.
        recipe: Its `optimizer` is one of timm's names.

    Raises:
        ConfigError: As `check_optimizer`.
    """
    taken = check_optimizer(recipe)
    # One kernel a tensor, not a dozen: 19 ms against 98 ms for R(2+1)D-18's 31 million weights on a core. Torch's fused
    # SGD cannot begin with a part of the parameters and take on the others later.
    extra: dict[str, Any] = {"fused": True} if "fused" in taken and not recipe.freeze_epochs else {}
    for name in ("momentum", "nesterov"):
        if getattr(recipe, name) is not None:
            extra[name] = getattr(recipe, name)
    if recipe.momentum == 0 and "nesterov" in taken:
        extra["nesterov"] = False
    by_depth = recipe.layer_decay != 1 or recipe.head_lr != 1
    optimizer: torch.optim.Optimizer = create_optimizer_v2(
        groups_by_depth(model, recipe) if by_depth else model,
        recipe.optimizer,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        **extra,
    )
    return optimizer


def check_optimizer(recipe: Recipe) -> frozenset[str]:
    """The names of the settings that the recipe's optimiser takes.

    Raises:
        ConfigError: No usable optimiser has that name, or it has no momentum and the recipe gives one.
    """
    known = [str(name) for name in list_optimizers(exclude_filters=_UNUSABLE)]
    if recipe.optimizer not in known:
        near = difflib.get_close_matches(recipe.optimizer, known, n=3) or ["adamw", "sgd"]
        raise ConfigError(
            f"recipe.optimizer must be an optimiser of timm, but is {recipe.optimizer}; did you mean "
            f"{' or '.join(near)}?"
        )
    taken = frozenset(inspect.signature(get_optimizer_class(recipe.optimizer, bind_defaults=False)).parameters)
    for name in ("momentum", "nesterov"):
        value = getattr(recipe, name)
        if value is not None and name not in taken:
            raise ConfigError(
                f"recipe.{name} must be left out with an optimiser that has none, but is {value} with "
                f"{recipe.optimizer}; sgd has it"
            )
    if recipe.momentum == 0 and "nesterov" in taken and recipe.nesterov:
        raise ConfigError("recipe.nesterov must be left out with recipe.momentum 0, but is True")
    return taken


def lr_at(recipe: Recipe, *, epoch: int, step: int, num_steps: int) -> float:
    """Learning rate of one step.

    Args:
        recipe: Names the schedule, the peak and the horizon, or phases, each with its own.
        epoch: From 1.
        step: Step within the epoch, from 0.
        num_steps: Steps of an epoch.

    Returns:
        For `anytime` and `steps`, a value that does not depend on how long training will go on.
    """
    recipe, epoch = recipe_at(recipe, epoch)
    done = (epoch - 1) * num_steps + step
    total = recipe.epochs * num_steps
    if recipe.schedule == "onecycle":
        rise = _RISE * total
        if done < rise:
            return recipe.lr * (_RISE_START + (1 - _RISE_START) * _half_cosine(done / rise))
        return recipe.lr * (1 - _half_cosine((done - rise) / (total - rise)))
    warmup = recipe.warmup_epochs * num_steps
    if done + 1 < warmup:
        return recipe.lr * (done + 1) / warmup
    if recipe.schedule == "cosine" and total > warmup:
        return recipe.lr * (1 - _half_cosine(max(0.0, done - warmup) / (total - warmup)))
    if recipe.schedule == "steps":
        passed = sum(done >= round(milestone * num_steps) for milestone in recipe.steps)
        return float(recipe.lr * recipe.step_factor**passed)
    return recipe.lr


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Gives every parameter group the learning rate, times its `lr_scale` if it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def average_of(model: nn.Module, recipe: Recipe) -> ModelEmaV3 | None:
    """Starts the moving average of a network's weights, or `None` where the recipe has none.

    The decay of step t is 1 - t^(-2/3) until it reaches the recipe's: the first update copies the network,
    and a short run is not held at its initial weights. Running statistics of BatchNorm are averaged like the
    parameters, so that both belong to the same stretch of training. (Taking the network's own statistics instead,
    or estimating them anew over an epoch, made no difference beyond that between seeds.)
    """
    if not recipe.ema_decay:
        return None
    return ModelEmaV3(model, decay=recipe.ema_decay, use_warmup=True)


def _half_cosine(x: float) -> float:
    """Rises from 0 to 1 as x does."""
    return (1 - math.cos(math.pi * min(x, 1.0))) / 2
