"""Paths through a supernet: the places that networks have in common, and what each takes there. Free of torch.

A place is a link of the networks' chains, such as `stages.0.1`. What stands there is a unit; units of one form, such as
all (2+1)D blocks, share weights, whatever their width, kernel, dilation and stride. A form is a choice, and so is the
unit within it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import Literal

from search_spaces.catalogue import links
from search_spaces.families.resnet.show import kind_text
from search_spaces.families.resnet.units import BlockUnit, StemUnit
from search_spaces.graph import Unit
from search_spaces.spec import ArchSpec

FAMILIES = ("resnet",)
"""Families that have a supernet."""

Strategy = Literal["random", "darts"]
STRATEGIES: tuple[Strategy, ...] = ("random", "darts")
"""Of NNI: RandomOneShot and DARTS."""

SKIP = "skip"
"""The form of a place that a network does without."""

Path = Mapping[str, str | int]
"""A choice by label: the form of each place, and behind `form at place` the number of the unit."""


@dataclass(frozen=True, slots=True)
class Place:
    """What may stand at one place.

    Attributes:
        name: Of the link.
        forms: The units of each form, in the order in which networks bring them.
        optional: Whether some networks do without it, such as shallower ones.
    """

    name: str
    forms: Mapping[str, tuple[Unit, ...]]
    optional: bool

    def label(self, form: str) -> str:
        """The label of the choice among the units of a form."""
        return f"{form} at {self.name}"


@dataclass(frozen=True, slots=True)
class Cover:
    """The places that networks have in common.

    Attributes:
        places: In the order of the chain.
        paths: Of each network, by digest.
    """

    places: tuple[Place, ...]
    paths: Mapping[str, Path]


def cover(networks: Mapping[str, ArchSpec], *, num_classes: int, dropout: float = 0.0, planes: int = 3) -> Cover:
    """Returns the places of networks, and the path of each.

    Args:
        networks: By digest, of `FAMILIES`.
        num_classes: Classes of the data.
        dropout: Share of features dropped before the classifier.
        planes: Planes of a clip.
    """
    chains: dict[str, dict[str, Unit]] = {}
    for digest, spec in networks.items():
        whole = links(spec, num_classes=num_classes, dropout=dropout, planes=planes)
        chains[digest] = {}
        for name, unit in whole:
            assert isinstance(unit, Unit)
            chains[digest][name] = unit
    order = TopologicalSorter[str]()
    for names in dict.fromkeys(tuple(chain) for chain in chains.values()):
        order.add(names[0])
        for before, after in pairwise(names):
            order.add(after, before)
    places = [_place(name, [chain.get(name) for chain in chains.values()]) for name in order.static_order()]
    numbers = {
        place.name: {unit: (form, i) for form, units in place.forms.items() for i, unit in enumerate(units)}
        for place in places
    }
    paths: dict[str, Path] = {}
    for digest, chain in chains.items():
        path: dict[str, str | int] = {}
        for place in places:
            path[place.name] = SKIP
            if place.name in chain:
                form, number = numbers[place.name][chain[place.name]]
                path[place.name], path[place.label(form)] = form, number
        paths[digest] = path
    return Cover(tuple(places), paths)


def mixture(places: Cover, path: Path) -> Path:
    """A path with all forms that could stand where it goes: units that take and give what its own unit does.

    Of each other form it is the unit of the same kernel and dilation, or else the first.

    Returns:
        The path, with the number of a unit behind the label of every such form.
    """
    found = dict(path)
    for place in places.places:
        own = path[place.name]
        if own == SKIP:
            continue
        number = path[place.label(str(own))]
        assert isinstance(number, int)
        unit = place.forms[str(own)][number]
        for form, units in place.forms.items():
            if form == own:
                continue
            near = [(_distance(unit, other), i) for i, other in enumerate(units) if _ends(other) == _ends(unit)]
            if near:
                found[place.label(form)] = min(near)[1]
    return found


def log_share(places: Cover, path: Path, shares: Mapping[str, Mapping[str, float]]) -> float:
    """The sum of the logarithms of the shares of a path's forms, over the places where it has one.

    Args:
        places: The networks.
        path: Of one.
        shares: Of forms, by place.
    """
    taken = [(place.name, str(path[place.name])) for place in places.places]
    return sum(math.log(shares[name][form]) for name, form in taken if form != SKIP)


def _ends(unit: Unit) -> Unit | tuple[object, ...]:
    """What a block takes and gives; of anything else, nothing else may stand in its place."""
    if not isinstance(unit, BlockUnit):
        return unit
    block = unit.block
    return (unit.in_planes, block.out_planes, block.spatial_stride, block.temporal_stride)


def _distance(unit: Unit, other: Unit) -> int:
    assert isinstance(unit, BlockUnit) and isinstance(other, BlockUnit)
    one, two = unit.block.temporal, other.block.temporal
    return sum((one.kernel != two.kernel, one.dilation != two.dilation, one.midplanes != two.midplanes))


def _place(name: str, units: list[Unit | None]) -> Place:
    forms: dict[str, list[Unit]] = {}
    for unit in dict.fromkeys(units):
        if unit is not None:
            forms.setdefault(form_of(unit), []).append(unit)
    return Place(name, {form: tuple(of) for form, of in forms.items()}, None in units)


def form_of(unit: Unit) -> str:
    """The form of a unit: what its weights are of. Those of different temporal operators have nothing in common."""
    if isinstance(unit, BlockUnit):
        block = unit.block
        parts = [block.kind, kind_text(block.temporal), *([] if block.attention == "none" else [block.attention])]
        return "_".join([*parts, "relu_first"] if unit.norms.relu_first else parts)
    if isinstance(unit, StemUnit):
        return f"{unit.stem.kind}_relu_first" if unit.norms.relu_first else unit.stem.kind
    return type(unit).__name__.lower()
