"""What a network takes from its 2D parent: tensors by name and shape, and whether a given state dict holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import nn

from search_spaces.layers import P3D, Conv2Plus1D, ConvNorm, MixedConv
from search_spaces.network import Network, SideHead
from search_spaces.spec import ArchSpec, SpecError, Twin, Unit

Shape = tuple[int, ...]


class Need(NamedTuple):
    """A tensor of the parent; `name` is ours within the link, `loose` says that the number of rows may differ."""

    key: str
    shape: Shape
    name: str
    loose: bool


class Part(NamedTuple):
    """A link as far as inflation goes: what it takes, what in it keeps its values, whether it is a side head."""

    needs: tuple[Need, ...]
    left: tuple[str, ...]
    side: bool


def parts_of_network(network: Network, spec: ArchSpec) -> dict[str, Part]:
    """Returns the parts of a network that was built from a spec, by link.

    Raises:
        SpecError: The network has no 2D parent, or a unit that none can stand for.
    """
    twins = _by_link(spec, network.names)
    return {name: _part(network.get_submodule(name), twins[name]) for name in network.names}


def parts_of_spec(spec: ArchSpec, *, num_classes: int) -> dict[str, Part]:
    """Returns the parts of a network that need not be built.

    Raises:
        SpecError: As `parts_of_network`.
    """
    links = spec.canonical().links(num_classes=num_classes)
    twins = _by_link(spec, [link.name for link in links])
    return {name: _part_of_unit(unit, twins[name]) for name, unit in links}


def _by_link(spec: ArchSpec, names: Sequence[str]) -> dict[str, tuple[Twin, ...]]:
    """Twins by the link that they are in, their paths within it."""
    twins: dict[str, list[Twin]] = {name: [] for name in names}
    for twin in (twin for twin in _twins(spec) if twin.path):
        keys = twin.path.split(".")
        link = next(n for i in range(len(keys), 0, -1) if (n := ".".join(keys[:i])) in twins)
        twins[link].append(twin._replace(path=twin.path[len(link) + 1 :]))
    return {name: tuple(inside) for name, inside in twins.items()}


def _twins(spec: ArchSpec) -> tuple[Twin, ...]:
    """The spec's twins; one without a path names tensors that we have no use for, such as auxiliary classifiers."""
    twins = spec.canonical().twin()
    if not twins:
        raise SpecError(f"networks of the family {spec.family} have no 2D parent whose weights they could take")
    return twins


@lru_cache(maxsize=16384)
def _part_of_unit(unit: Unit, twins: tuple[Twin, ...]) -> Part:
    with torch.device("meta"):
        return _part(unit.build(), twins)


def _part(module: nn.Module, twins: Iterable[Twin]) -> Part:
    needs: list[Need] = []
    for twin in twins:
        for path, prefix in _sources(module, twin):
            for name, value in module.get_submodule(path).state_dict().items():
                if not name.endswith("num_batches_tracked"):
                    shape = tuple(value.shape[:2] + value.shape[3:] if value.dim() == 5 else value.shape)
                    needs.append(Need(_join(prefix, name), shape, _join(path, name), not twin.norm))
    known = {need.name for need in needs}
    for path, inner in module.named_modules():
        if isinstance(inner, P3D):
            known |= {_join(path, "temporal", name) for name, _ in inner.temporal.named_parameters()}
    return Part(tuple(needs), tuple(_unknown(module, known, "")), isinstance(module, SideHead))


def _sources(module: nn.Module, twin: Twin) -> list[tuple[str, str]]:
    """Our modules that a twin fills, by path, each with the prefix of its tensors in the parent."""
    unit, path = module.get_submodule(twin.path), twin.path
    if isinstance(unit, P3D):
        unit, path = unit.spatial, _join(path, "spatial")
    if not isinstance(unit, ConvNorm):
        return [(path, twin.conv)]
    if isinstance(unit.conv, MixedConv):
        raise SpecError(f"kind csn_ip cannot take 2D weights such as {twin.conv}: its planes are convolved alone")
    if isinstance(unit.conv, Conv2Plus1D):
        raise SpecError(
            f"kind 2plus1d cannot take 2D weights such as {twin.conv}: between its two convolutions are a norm and a "
            f"ReLU on {unit.conv.spatial.out_channels} planes of its own (p3d_a is the separable kind that can)"
        )
    return [(_join(path, "conv"), twin.conv), (_join(path, "norm"), twin.norm)]


def _unknown(module: nn.Module, known: set[str], path: str) -> list[str]:
    """The largest modules that hold no parameter of `known`, by path."""
    names = [_join(path, name) for name, _ in module.named_parameters()]
    if known.issuperset(names):
        return []
    if known.isdisjoint(names):
        return [path]
    found = [_join(path, name) for name, _ in module.named_parameters(recurse=False) if _join(path, name) not in known]
    for name, child in module.named_children():
        found += _unknown(child, known, _join(path, name))
    return found


def match(parts: Mapping[str, Part], spec: ArchSpec, shapes: Mapping[str, Shape]) -> tuple[set[str], tuple[str, ...]]:
    """Holds what a network needs against a state dict.

    Args:
        parts: Of the network, in the order of its links.
        spec: Of the network.
        shapes: Shape of each tensor of the state dict.

    Returns:
        The tensors to take, and the paths of our modules that keep their initial values.

    Raises:
        SpecError: Tensors are missing, unexpected or of another shape. Allowed are a classifier for another number of
            classes, and that those of side heads are not there at all.
    """
    used: set[str] = set()
    left = [_join(name, path) for name, part in parts.items() for path in part.left]
    spare = tuple(twin.conv for twin in _twins(spec) if not twin.path)
    known: set[str] = set()
    missing: list[str] = []
    other: list[str] = []
    separated = False
    last = list(parts)[-1]
    for name, part in parts.items():
        if part.side and not any(need.key in shapes for need in part.needs):
            left.append(name)
            continue
        known |= {need.key for need in part.needs}
        for need in part.needs:
            ours, theirs = _trimmed(need.shape), _trimmed(shapes.get(need.key, ()))
            if need.key not in shapes:
                missing.append(need.key)
            elif ours == theirs:
                used.add(need.key)
            elif need.loose and (part.side or name == last) and ours[1:] == theirs[1:]:
                left.append(_join(name, need.name.rpartition(".")[0]))
            else:
                other.append(f"{need.key} {_size(shapes[need.key])}, not {_size(need.shape)}")
                separated |= need.shape[1:2] == (1,) and len(need.shape) == 4
    unexpected = [
        key for key in shapes if not (key in known or key.endswith("num_batches_tracked") or key.startswith(spare))
    ]
    complaints = [("missing", missing), ("unexpected", unexpected), ("of another shape", other)]
    if any(keys for _, keys in complaints):
        text = "; ".join(f"{len(keys)} {what} ({_few(keys)})" for what, keys in complaints if keys)
        hint = "; channel-separated (csn) units have no 2D parent" if separated else ""
        raise SpecError(f"the weights must be those of the network's 2D parent, but of its tensors are {text}{hint}")
    return used, tuple(dict.fromkeys(left))


def _trimmed(shape: Shape) -> Shape:
    """The shape without the ones at its end: a linear layer is a 1x1 convolution."""
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _size(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a number"


def _few(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)
