"""The families of networks, one line each, and their published networks by name: the only place that knows them all."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from search_spaces.errors import SpecError, nearest
from search_spaces.families import c3d
from search_spaces.families.inception import v1 as inception_v1
from search_spaces.families.inception import v3 as inception_v3
from search_spaces.families.resnet import family as resnet
from search_spaces.families.slowfast import family as slowfast
from search_spaces.families.timm import family as timm_family
from search_spaces.families.x3d import family as x3d
from search_spaces.family import Family, Preset
from search_spaces.graph import Link
from search_spaces.spec import ArchSpec

if TYPE_CHECKING:
    from torch import nn


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            resnet.FAMILY,
            inception_v1.FAMILY,
            inception_v3.FAMILY,
            slowfast.FAMILY,
            x3d.FAMILY,
            timm_family.FAMILY,
            c3d.FAMILY,
        )
    }
)


def family(name: object) -> Family:
    """Returns a family by name; raises SpecError, with the nearest name, if there is none."""
    if not isinstance(name, str) or name not in FAMILIES:  # what was read may be a list
        raise SpecError(f"family must be one of the catalogue, but is {name}{nearest(name, FAMILIES)}")
    return FAMILIES[name]


def build(
    spec: ArchSpec, *, num_classes: int, dropout: float = 0.0, planes: int = 3, zero_init: bool | None = None
) -> nn.Module:
    """Builds the network that a spec describes, with weights drawn from torch's generator.

    Args:
        spec: The network.
        num_classes: Classes.
        dropout: Share of features dropped before the classifier in training.
        planes: Planes of a clip: 3 of RGB, 2 of optical flow.
        zero_init: Whether the last norm of every residual branch begins with a weight of 0; None is as published.

    Returns:
        A module from clips (N, planes, T, H, W) to logits (N, num_classes); in training mode, a network with side heads
        gives a tuple of logits, its own first.

    Raises:
        SpecError: `num_classes`, `dropout` or `planes` is out of range.
    """
    from search_spaces.modules import Network

    if not 0 <= dropout < 1:
        raise SpecError(f"dropout must be in [0, 1), but is {dropout}")
    # The canonical form, so that equal digests build equal networks down to the draws of random dilations.
    canonical = spec.canonical()
    network = Network(links(canonical, num_classes=num_classes, dropout=dropout, planes=planes))
    canonical.initialise(network)
    if zero_init is not None or canonical.begins_at_zero():
        canonical.start_branches(network, at_zero=zero_init is not False)
    return network


def links(spec: ArchSpec, *, num_classes: int, dropout: float = 0.0, planes: int = 3) -> tuple[Link, ...]:
    """Returns the units whose chain is the network; raises SpecError if `num_classes` or `planes` is out of range."""
    if num_classes < 1:
        raise SpecError(f"num_classes must be at least 1, but is {num_classes}")
    if planes < 1:
        raise SpecError(f"planes must be at least 1, but is {planes}")
    return spec.canonical().links(num_classes=num_classes, dropout=dropout, planes=planes)


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {entry.name: entry for family in FAMILIES.values() for entry in family.presets}
)


def preset(name: str, *, frames: int | None = None) -> ArchSpec:
    """Returns a published network's spec.

    Args:
        name: Its name in `PRESETS`.
        frames: Frames of the clips that it will see; those that it was published for, unless given.

    Raises:
        SpecError: There is no such network (the message names the nearest), or frames is below 1.
    """
    if name not in PRESETS:
        raise SpecError(f"there is no network {name}{nearest(name, PRESETS)}")
    entry = PRESETS[name]
    if frames is not None and frames < 1:
        raise SpecError(f"frames must be at least 1, but is {frames}")
    return entry.make(entry.clip[0] if frames is None else frames)
