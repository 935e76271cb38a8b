"""Untrained networks, made ready for a score: drawn by a seed, without norms, with weights that a score sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from search_spaces.catalogue import build
from search_spaces.spec import ArchSpec

Seen = Callable[[nn.Module, Tensor], None]


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Draws follow from the seed in this block, and torch's generator is afterwards where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def drawn(spec: ArchSpec, *, num_classes: int, planes: int) -> nn.Module:
    """A network with initial weights by torch's generator; no residual branch begins at zero, where nothing is seen."""
    return build(spec, num_classes=num_classes, planes=planes, zero_init=False)


def without_norms(network: nn.Module) -> nn.Module:
    """The network with every norm an identity, the activation in it included; the network itself is changed.

    A new network's batch norms in evaluation mode are that anyway, but for weights; other norms would take away what
    is measured, the scale of features.
    """
    for module in network.modules():
        own = isinstance(module, _BatchNorm | nn.LayerNorm | nn.GroupNorm)
        if own or ("norm" in type(module).__name__.lower() and not list(module.children())):
            module.forward = _same
    return network


def without_activations(network: nn.Module) -> nn.Module:
    """The network with every activation that is a module of its own an identity; the network itself is changed."""
    for module in network.modules():
        if type(module).__name__.lower().removesuffix("me") in _ACTIVATIONS:
            module.forward = _same
    return network


_ACTIVATIONS = ("relu", "relu6", "silu", "swish", "hardswish", "gelu", "leakyrelu", "elu", "mish")


def classifies(layer: nn.Module, num_classes: int) -> bool:
    """Whether a layer is taken to be a classifier, of which a network may have several: linear, of so many outputs."""
    return isinstance(layer, nn.Linear) and layer.out_features == num_classes


def weighted(network: nn.Module) -> list[nn.Module]:
    """Convolutions and linear layers."""
    return [module for module in network.modules() if isinstance(module, _ConvNd | nn.Linear)]


def weight_of(layer: nn.Module) -> Tensor:
    """Of a convolution or a linear layer."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def watch(network: nn.Module, seen: Seen) -> None:
    """Calls a function with each convolution or linear layer and its output, in the order in which they are run."""

    def hook(module: nn.Module, inputs: object, out: Tensor) -> None:
        seen(module, out)

    for layer in weighted(network):
        layer.register_forward_hook(hook)


def _same(x: Tensor) -> Tensor:
    return x.clone()  # what follows may work in place, and whoever gave it needs it as it was
