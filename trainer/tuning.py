"""Fine-tuning: layers that do not learn at first, and learning rates by depth."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

from trainer.config import ConfigError
from trainer.recipe import Recipe

_UNTIL = "until:"


def layers_of(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers of a network by name, from input to classifier: those that it names itself, else its children.

    Side heads are not among them.
    """
    names: Sequence[str] = getattr(model, "names", ()) or [name for name, _ in model.named_children()]
    sides: Collection[str] = getattr(model, "sides", ())
    return [(name, model.get_submodule(name)) for name in names if name not in sides]


def num_frozen(names: Sequence[str], freeze: str) -> int:
    """How many layers `recipe.freeze` means, counted from the input.

    Args:
        names: Of the network's layers, in order; the last is its classifier.
        freeze: `none`, `backbone`, or `until:` with the name of a layer, or of several that begin with it.

    Raises:
        ConfigError: The network has no such layer.
    """
    if freeze == "none":
        return 0
    if freeze == "backbone":
        return len(names) - 1
    wanted = freeze.removeprefix(_UNTIL)
    found = next((i for i, name in enumerate(names) if f"{name}.".startswith(f"{wanted}.")), None)
    if found is None:
        known = ", ".join(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
        raise ConfigError(f"recipe.freeze must name a layer of the network, but is {freeze}; it has {known}")
    if not found:
        raise ConfigError(f"recipe.freeze must leave a layer before the one that it names, but {freeze} is the first")
    return found


def frozen_layers(model: nn.Module, recipe: Recipe) -> list[nn.Module]:
    """The layers that do not learn while `recipe.freeze` lasts.

    Raises:
        ConfigError: As `num_frozen`.
    """
    layers = layers_of(model)
    return [layer for _, layer in layers[: num_frozen([name for name, _ in layers], recipe.freeze)]]


def is_frozen(recipe: Recipe, epoch: int) -> bool:
    """Whether `recipe.freeze` lasts in an epoch, which counts from 1."""
    return recipe.freeze != "none" and (recipe.freeze_epochs == 0 or epoch <= recipe.freeze_epochs)


def groups_by_depth(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Groups of parameters with a `lr_scale` each, for an optimiser; norms and biases have no weight decay.

    The rate of a layer is `recipe.layer_decay` times that of the one behind it (Clark et al. 2020, ELECTRA, section A),
    layers without parameters aside; that of the classifier and of side heads is multiplied by `recipe.head_lr`.
    Parameters of no layer learn as the first one does.
    """
    layers = [layer for _, layer in layers_of(model) if any(True for _ in layer.parameters())]
    scales: dict[nn.Parameter, float] = {}
    for depth, layer in enumerate(reversed(layers)):
        for param in layer.parameters():
            scales.setdefault(param, recipe.layer_decay**depth * (recipe.head_lr if depth == 0 else 1.0))
    for name in getattr(model, "sides", ()):
        scales |= dict.fromkeys(model.get_submodule(name).parameters(), recipe.head_lr)
    rest = recipe.layer_decay ** max(0, len(layers) - 1)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for param in model.parameters():
        key = (scales.get(param, rest), recipe.weight_decay if param.ndim > 1 else 0.0)
        groups.setdefault(key, []).append(param)
    return [{"params": own, "weight_decay": decay, "lr_scale": scale} for (scale, decay), own in groups.items()]
