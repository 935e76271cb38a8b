"""What a network knows of a clip just before it names a class: the input of its classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from search_spaces.network import Network
from search_spaces.spec import SpecError


@dataclass(frozen=True, kw_only=True, slots=True)
class Last:
    """A last linear layer of a network.

    Attributes:
        name: Of the module in the network.
        added: Whether its outputs for the parts of a clip are added up (TRN's subsets of frames); elsewhere those for
            frames or places are averaged.
    """

    name: str
    added: bool


@dataclass(kw_only=True, slots=True)
class Tap:
    """The features of the last call of a network.

    Attributes:
        layers: Whose input they are.
        parts: What each layer saw, (N, C), in this order.
    """

    layers: tuple[Last, ...]
    parts: list[Tensor | None] = field(default_factory=list)

    def features(self) -> Tensor:
        """The features (N, C) of the last call, those of several layers side by side."""
        found = [part for part in self.parts if part is not None]
        assert len(found) == len(self.layers), "a forward pass comes first"
        return torch.cat(found, 1)


def last_layers(network: Network) -> tuple[Last, ...]:
    """The linear layers whose outputs are the logits: one, or one a scale in a TRN.

    They are found by what heads call them: `fc` in a head, which may be inside a `head`; the last layer of a chain; the
    last layer of each of `scales`.

    Raises:
        SpecError: The network's last part has none.
    """
    name = network.names[-1]
    found = tuple(_below(network.get_submodule(name), name, added=False))
    if not found:
        kind = type(network.get_submodule(name)).__name__
        raise SpecError(f"features are the input of a network's last linear layer, but {name} ({kind}) has none")
    return found


@contextmanager
def tapped(network: Network) -> Iterator[Tap]:
    """Within the block, each call of the network leaves its features in the tap.

    A feature is what a last linear layer saw: for a clip of several frames or places it is their mean, in a TRN their
    sum, as that is what becomes of its outputs. So logits are the layers' weights times the features, plus a constant.

    Args:
        network: In eval mode, so that dropout lets everything through.
    """
    layers = last_layers(network)
    tap = Tap(layers=layers, parts=[None] * len(layers))
    hooks = [
        network.get_submodule(layer.name).register_forward_pre_hook(_keeper(tap, number, layer.added))
        for number, layer in enumerate(layers)
    ]
    try:
        yield tap
    finally:
        for hook in hooks:
            hook.remove()


def _below(module: nn.Module, name: str, *, added: bool) -> Iterator[Last]:
    if isinstance(module, nn.Linear):
        yield Last(name=name, added=added)
    elif isinstance(module, nn.Sequential):
        yield from _below(module[-1], f"{name}.{len(module) - 1}", added=added)
    else:
        children = dict(module.named_children())
        for inner in ("head", "fc"):
            if inner in children:
                yield from _below(children[inner], f"{name}.{inner}", added=added)
                return
        for number, scale in enumerate(children.get("scales", nn.Module()).children()):
            yield from _below(scale, f"{name}.scales.{number}", added=True)


def _keeper(tap: Tap, number: int, added: bool) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen = inputs[0].detach().float()
        flat = seen.reshape(len(seen), -1, seen.shape[-1])  # (N, frames or places, C)
        tap.parts[number] = flat.sum(1) if added else flat.mean(1)

    return keep
