"""The families of networks, one line each: the only place that knows them all."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol

from torch import nn

from search_spaces import resnet
from search_spaces.spec import ArchSpec, SpecError, canonicalise, nearest


class Unit(Hashable, Protocol):
    """A link of the chain that a network is; equal units have equal cost on equal input shapes."""

    def build(self) -> nn.Module:
        """Returns the module, which maps one tensor to one tensor."""


class Builder(Protocol):
    """From a spec to an initialised network."""

    def __call__(self, spec: ArchSpec, *, num_classes: int, dropout: float = 0.0) -> nn.Module:
        """Returns the network."""


class Chain(Protocol):
    """From a spec to the units of the same network."""

    def __call__(self, spec: ArchSpec, *, num_classes: int) -> tuple[Unit, ...]:
        """Returns the units in order."""


class Family(NamedTuple):
    """What a family of networks offers."""

    build: Builder
    units: Chain


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "resnet": Family(build=resnet.build, units=resnet.units),
    }
)


def family(name: str) -> Family:
    """Returns a family by name; raises SpecError, with the nearest name, if there is none."""
    if name not in FAMILIES:
        raise SpecError(f"family must be one of the catalogue, but is {name}{nearest(name, FAMILIES)}")
    return FAMILIES[name]


def build(spec: ArchSpec, *, num_classes: int, dropout: float = 0.0) -> nn.Module:
    """Builds the network that a spec describes, with weights drawn from torch's generator.

    Args:
        spec: The network.
        num_classes: Classes.
        dropout: Share of features dropped before the classifier in training.

    Returns:
        A module from clips (N, 3, T, H, W) to logits (N, num_classes).

    Raises:
        SpecError: The family is unknown, or `num_classes` or `dropout` is out of range.
    """
    if num_classes < 1:
        raise SpecError(f"num_classes must be at least 1, but is {num_classes}")
    if not 0 <= dropout < 1:
        raise SpecError(f"dropout must be in [0, 1), but is {dropout}")
    # The canonical form, so that equal digests build equal networks down to the draws of random dilations.
    return family(spec.family).build(canonicalise(spec), num_classes=num_classes, dropout=dropout)


def units(spec: ArchSpec, *, num_classes: int) -> tuple[Unit, ...]:
    """Returns the units whose chain is the network; raises SpecError if the family is unknown."""
    return family(spec.family).units(canonicalise(spec), num_classes=num_classes)
