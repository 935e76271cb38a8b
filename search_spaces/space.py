"""Search spaces: the spaces of one or several families, and how they are read.

With several families, the first parameter is `family`, and the parameters of a family have its name before them
(`resnet.kind`): what does not belong to the chosen family is not asked for.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from search_spaces.catalogue import FAMILIES, family
from search_spaces.domains import Place, Scalar
from search_spaces.errors import SpecError, nearest
from search_spaces.family_space import FamilySpace, Point, Size, Suggests, mapping, parse_domain, parse_rule

_KEYS = ("family", "domains", "forbid")
_OF_FAMILY = ("domains", "forbid")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchSpace:
    """Which networks may be searched.

    Attributes:
        families: The space of each family.
    """

    families: tuple[FamilySpace, ...]

    def __post_init__(self) -> None:
        """Raises SpecError if there is no family, or one stands twice."""
        names = [space.family for space in self.families]
        if not names:
            raise SpecError(f"families must hold at least 1 family (valid: {', '.join(FAMILIES)}), but is empty")
        if len(set(names)) != len(names):
            raise SpecError(f"families: a family must stand once, but are {', '.join(names)}")

    def check(self) -> None:
        """Raises SpecError for values that only the libraries of a family, which this imports, know to be wrong."""
        for space in self.families:
            family(space.family).check({domain.name: domain.values for domain in space.domains})

    def sample(self, trial: Suggests) -> Point:
        """Returns an architecture, each of whose settings the trial has chosen."""
        if len(self.families) == 1:
            return self.families[0].sample(trial)
        name = trial.suggest_categorical("family", [space.family for space in self.families])
        return self._named(self._of(name).sample(_Prefixed(trial, name)), name)

    def random(self, rng: random.Random) -> Point:
        """Returns an architecture with every parameter, the family before all, drawn uniformly."""
        space = rng.choice(self.families) if len(self.families) > 1 else self.families[0]
        return self._named(space.random(rng), space.family)

    def point(self, params: Mapping[str, Scalar]) -> Point:
        """Returns the architecture whose parameters these are, such as those of a stored trial.

        Raises:
            SpecError: A parameter is missing, unknown, or has a value that is not offered.
        """
        name, inner = self._split(params)
        return self._named(self._of(name).point(inner), name)

    def places(self, params: Mapping[str, Scalar]) -> tuple[str, dict[Place, Scalar]]:
        """Returns the family of the architecture whose parameters these are, and what stands at each of its places.

        Raises:
            SpecError: A parameter is missing, unknown, or has a value that is not offered.
        """
        name, inner = self._split(params)
        return name, self._of(name).places(inner)

    def point_of(self, family_name: str, stated: Mapping[str, Scalar]) -> Point | None:
        """Returns the architecture of a family with one value of each domain; None if this space has none.

        Args:
            family_name: Family of the catalogue.
            stated: Values of domains; the others have their defaults.
        """
        if family_name not in [space.family for space in self.families]:
            return None
        found = self._of(family_name).point_of(stated)
        return None if found is None else self._named(found, family_name)

    def choices_of(self, point: Point) -> dict[str, tuple[Scalar, ...]]:
        """Returns what each parameter of a point could have been, given those before it."""
        name, inner = self._split(dict(point.params))
        choices = self._of(name).choices_of(replace(point, params=tuple(inner.items())))
        if len(self.families) == 1:
            return choices
        names: tuple[Scalar, ...] = tuple(space.family for space in self.families)
        return {"family": names, **{f"{name}.{key}": values for key, values in choices.items()}}

    def points(self) -> Iterator[Point]:
        """Yields every architecture once, in a fixed order."""
        for space in self.families:
            yield from (self._named(point, space.family) for point in space.points())

    def size(self, limit: int = 200_000) -> Size:
        """Counts the space.

        Args:
            limit: Networks are told apart, and so counted exactly, where a family has at most this many settings.
        """
        sizes = [space.size(limit) for space in self.families]
        return Size(
            networks=sum(size.networks for size in sizes),
            exact=all(size.exact for size in sizes),
            settings=sum(size.settings for size in sizes),
            unmade=sum(size.unmade for size in sizes),
            example=next((size.example for size in sizes if size.example), ""),
        )

    def neighbours(self, point: Point) -> list[Point]:
        """Returns the architectures of the same family one setting away, without repeats and without the point itself.

        Settings of a place that only the neighbour has (a block that a greater depth adds) are those of the
        nearest place before it. A change after which another setting would no longer be allowed is left out.
        """
        name, inner = self._split(dict(point.params))
        found = self._of(name).neighbours(replace(point, params=tuple(inner.items())))
        return [self._named(other, name) for other in found]

    def _of(self, name: str) -> FamilySpace:
        return next(space for space in self.families if space.family == name)

    def _split(self, params: Mapping[str, Scalar]) -> tuple[str, dict[str, Scalar]]:
        """Returns the family of parameters, and those parameters as the family's own space names them."""
        if len(self.families) == 1:
            return self.families[0].family, dict(params)
        names = [space.family for space in self.families]
        name = params.get("family")
        if name not in names:
            raise SpecError(f"parameter family must be one of its choices, but is {name}{nearest(name, names)}")
        inner = {}
        for key, value in params.items():
            if key == "family":
                continue
            if not key.startswith(f"{name}."):
                raise SpecError(f"parameter {key} is not one of a network of family {name}")
            inner[key.removeprefix(f"{name}.")] = value
        return str(name), inner

    def _named(self, point: Point, name: str) -> Point:
        """Returns a point of a family's space as one of this space."""
        if len(self.families) == 1:
            return point
        return replace(point, params=(("family", name), *((f"{name}.{key}", value) for key, value in point.params)))


class _Prefixed:
    """A trial that is asked under a family's name."""

    def __init__(self, trial: Suggests, name: str) -> None:
        self._trial, self._name = trial, name

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Returns one of the choices."""
        return self._trial.suggest_categorical(f"{self._name}.{name}", choices)


def parse_space(obj: Mapping[str, Any]) -> SearchSpace:
    """Reads a space from plain data.

    Args:
        obj: `family` (`resnet` unless given), `domains` (name to a list of values, or to `values` and `per`) and
            `forbid` (optional list of mappings from domain to a value or a list of values); or `families`, from a
            family's name to its `domains` and `forbid`. A list as a value is a set of dilations, blocks or widths a
            stage, block indices, or strides per stage; it becomes a label such as `1|2|4`.

    Raises:
        SpecError: A key, family, domain, value or scope is unknown; the message names the place and the nearest valid
            one.
    """
    mapping("the search space", obj)
    for key in obj:
        if key not in (*_KEYS, "families"):
            raise SpecError(f"unknown key {key}{nearest(key, (*_KEYS, 'families'))}")
    several = obj.get("families")
    if not several:
        return SearchSpace(
            families=(
                _parse_family(str(obj.get("family") or "resnet"), {k: v for k, v in obj.items() if k in _OF_FAMILY}),
            )
        )
    if obj.get("domains") or obj.get("forbid"):
        raise SpecError("with families, domains and forbid belong to each of them, but stand beside it")
    families = []
    for name, body in mapping("families", several).items():
        if body is None:
            continue
        try:
            families.append(_parse_family(name, mapping("the family", body)))
        except SpecError as error:
            raise SpecError(f"families.{name}: {error}") from None
    return SearchSpace(families=tuple(families))


def _parse_family(name: str, obj: Mapping[str, Any]) -> FamilySpace:
    family(name)
    for key in obj:
        if key not in _OF_FAMILY:
            raise SpecError(f"unknown key {key}{nearest(key, _OF_FAMILY)}")
    if "domains" not in obj:
        raise SpecError("key domains is missing")
    listed = mapping("domains", obj["domains"])
    domains = tuple(parse_domain(name, key, value) for key, value in listed.items() if value is not None)
    scopes = {domain.name: domain.per for domain in domains}
    forbid = obj.get("forbid") or ()
    if not isinstance(forbid, list | tuple):
        raise SpecError(f"forbid must be a list of rules, but is {forbid}")
    rules = tuple(parse_rule(name, i, rule, scopes) for i, rule in enumerate(forbid))
    return FamilySpace(family=name, domains=domains, forbid=rules)
