"""The search space of one family: named domains, rules, sampling, enumeration, counting and neighbours.

A space is a value. `sample` asks a trial for one categorical parameter after another, and for none that has
no effect: values that do the same in the context of what was chosen before are offered once, and a place
where only one is left is not asked for. A value is offered only if some completion fits and obeys every rule,
so nothing is sampled in vain.

Where the context leaves only some of a domain's values, the parameter's name states them (`kernel[3;5]`), so
that every name has one fixed distribution, which is what Optuna's storage demands.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Protocol

from search_spaces.catalogue import family
from search_spaces.codec import digest_canonical
from search_spaces.domains import Place, Scalar
from search_spaces.engine import Choose, Engine, Params
from search_spaces.errors import SpecError, nearest
from search_spaces.spec import ArchSpec

if TYPE_CHECKING:
    import optuna

    # An Optuna trial is a `Suggests`: the type checker holds this to be true.
    _trial_fits: Callable[[optuna.Trial], Suggests] = lambda trial: trial  # noqa: E731

Scope = Literal["network", "stage", "block"]


class Suggests(Protocol):
    """Whoever decides on values; an Optuna trial fits."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Returns one of the choices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Domain:
    """Values that a named choice may have.

    Attributes:
        name: What is chosen; one that the family's `Domains` know.
        values: The choices.
        per: Whether it is chosen once, for each stage or for each block.
    """

    name: str
    values: tuple[Scalar, ...]
    per: Scope = "network"


@dataclass(frozen=True, slots=True)
class Rule:
    """A forbidden combination.

    It matches a network in which some block has, for every domain named, one of the
    values. A domain matches only where it has an effect, so `{kernel: 5}` says nothing about 2d blocks.
    """

    where: tuple[tuple[str, tuple[Scalar, ...]], ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One architecture of a space.

    Attributes:
        params: What was suggested, in order.
        spec: The canonical spec.
        digest: Its digest.
    """

    params: tuple[tuple[str, Scalar], ...]
    spec: ArchSpec
    digest: str


@dataclass(frozen=True, slots=True)
class Size:
    """How large a space is.

    Attributes:
        networks: Distinct networks, or an upper bound of them.
        exact: Whether `networks` is exact; otherwise it equals `settings`.
        settings: Assignments of a value to every domain at every place that fit and obey the rules, those
            included that differ only in what has no effect.
        unmade: Settings of which the family can make no network; counted where `exact`.
        example: One of them with the reason; empty where there is none.
    """

    networks: int
    exact: bool
    settings: int
    unmade: int = 0
    example: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class FamilySpace:
    """Which networks of one family may be searched.

    Attributes:
        family: Family of the catalogue.
        domains: What is chosen. A domain that is left out has its default (`Domains.defaults` of the family).
        forbid: Combinations that are never sampled.
    """

    family: str = "resnet"
    domains: tuple[Domain, ...]
    forbid: tuple[Rule, ...] = ()

    def __post_init__(self) -> None:
        """Raises SpecError where a name, value or scope is not valid, or nothing can be sampled."""
        _check_domains(self.family, self.domains)
        _check_rules(self)
        if not self.engine().feasible({}):
            raise SpecError(
                "domains: no combination of values fits together and obeys the forbid rules"
                f" ({', '.join(family(self.family).domains.fit) or 'forbid'} must agree)"
            )

    def sample(self, trial: Suggests) -> Point:
        """Returns an architecture, each of whose settings the trial has chosen."""
        return self._point(lambda _, name, choices: trial.suggest_categorical(name, choices))

    def random(self, rng: random.Random) -> Point:
        """Returns an architecture with every parameter drawn uniformly."""
        return self._point(lambda _, __, choices: rng.choice(choices))

    def point(self, params: Mapping[str, Scalar]) -> Point:
        """Returns the architecture whose parameters these are, such as those of a stored trial.

        Raises:
            SpecError: A parameter is missing, unknown, or has a value that is not offered.
        """
        settings, taken = self._settled(params)
        spec = self.engine().sites.build(settings)
        return Point(taken, spec, digest_canonical(spec))

    def places(self, params: Mapping[str, Scalar]) -> dict[Place, Scalar]:
        """Returns what stands at every place of the architecture whose parameters these are.

        Places that have one value, or none that does anything, have it, too, though no parameter states it.

        Raises:
            SpecError: A parameter is missing, unknown, or has a value that is not offered.
        """
        return self._settled(params)[0]

    def point_of(self, stated: Mapping[str, Scalar]) -> Point | None:
        """Returns the architecture with one value of each domain, wherever that is asked for; None if there is none.

        Args:
            stated: Values of domains; the others have their defaults.
        """
        engine = self.engine()
        settings: dict[Place, Scalar] = {}
        values = {domain.name: domain.values for domain in self.domains}
        wanted = {**family(self.family).domains.defaults, **stated}

        def take(here: Place, name: str, choices: tuple[Scalar, ...]) -> Scalar:
            value = wanted[here[0]]
            found = engine.stand_in(settings, here, value, choices) if value in values[here[0]] else None
            if found is None:
                raise _CannotStay
            return found

        try:
            settings, params = engine.run(take, settings)
        except _CannotStay:
            return None
        spec = _built(engine, settings)
        return None if spec is None else Point(params, spec, digest_canonical(spec))

    def choices_of(self, point: Point) -> dict[str, tuple[Scalar, ...]]:
        """Returns what each parameter of a point could have been, given those before it."""
        seen: dict[str, tuple[Scalar, ...]] = {}
        params = dict(point.params)

        def take(_: Place, name: str, choices: tuple[Scalar, ...]) -> Scalar:
            seen[name] = choices
            return params[name]

        self.engine().run(take)
        return seen

    def points(self) -> Iterator[Point]:
        """Yields every architecture once, in a fixed order; settings of which the family can make none are left out."""
        engine = self.engine()
        seen: set[ArchSpec] = set()
        for settings, params in engine.walk():
            spec = _built(engine, settings)
            if spec is not None and spec not in seen:
                seen.add(spec)
                yield Point(params, spec, digest_canonical(spec))

    def size(self, limit: int = 200_000) -> Size:
        """Counts the space.

        Args:
            limit: Networks are told apart, and so counted exactly, where there are at most this many
                settings.
        """
        engine = self.engine()
        settings = engine.count()
        if settings > limit:
            return Size(settings, False, settings)
        specs: set[ArchSpec] = set()
        unmade, example = 0, ""
        for found, params in engine.walk():
            try:
                specs.add(engine.sites.build(found))
            except SpecError as error:
                unmade += 1
                example = example or f"{', '.join(f'{name}={value}' for name, value in params)}: {error}"
        return Size(len(specs), True, settings, unmade, example)

    def neighbours(self, point: Point) -> list[Point]:
        """Returns the architectures one setting away, without repeats and without the point itself.

        Settings of a place that only the neighbour has (a block that a greater depth adds) are those of the
        nearest place before it. A change after which another setting would no longer be allowed is left out.
        """
        at_places: dict[Place, tuple[Scalar, ...]] = {}
        params = dict(point.params)

        def take(here: Place, name: str, choices: tuple[Scalar, ...]) -> Scalar:
            at_places[here] = choices
            return params[name]

        old, _ = self.engine().run(take)
        found = {point.digest}
        out: list[Point] = []
        for here, choices in at_places.items():
            for value in choices:
                other = self._moved(old, here, value) if value != old[here] else None
                if other is not None and other.digest not in found:
                    found.add(other.digest)
                    out.append(other)
        return out

    def engine(self) -> Engine:
        """Returns what does the walking; one for equal spaces."""
        return _engine(self)

    def _settled(self, params: Mapping[str, Scalar]) -> tuple[dict[Place, Scalar], Params]:
        left = dict(params)

        def take(_: Place, name: str, choices: tuple[Scalar, ...]) -> Scalar:
            if name not in left:
                raise SpecError(f"parameter {name} is missing{nearest(name, left)}")
            value = left.pop(name)
            if value not in choices:
                raise SpecError(f"parameter {name} must be one of its choices, but is {value}{nearest(value, choices)}")
            return choices[choices.index(value)]

        settings, taken = self.engine().run(take)
        if left:
            known = [name for name, _ in taken]
            raise SpecError(f"parameter {min(left)} is not one of this architecture{nearest(min(left), known)}")
        return settings, taken

    def _point(self, choose: Choose) -> Point:
        engine = self.engine()
        settings, params = engine.run(choose)
        spec = engine.sites.build(settings)
        return Point(params, spec, digest_canonical(spec))

    def _moved(self, old: Mapping[Place, Scalar], changed: Place, value: Scalar) -> Point | None:
        """Returns the point with one setting changed and the others kept, None if they cannot be."""
        engine = self.engine()
        settings: dict[Place, Scalar] = {}

        def keep(here: Place, name: str, choices: tuple[Scalar, ...]) -> Scalar:
            if here == changed:
                wanted: Scalar | None = value
            elif here in old:
                wanted = engine.stand_in(settings, here, old[here], choices)
            else:
                before = [at for at in old if at[0] == here[0] and at < here]
                wanted = engine.stand_in(settings, here, old[max(before)], choices) if before else None
                wanted = choices[0] if wanted is None else wanted
            if wanted not in choices:
                raise _CannotStay
            return wanted

        try:
            settings, params = engine.run(keep, settings)
        except _CannotStay:
            return None
        spec = engine.sites.build(settings)
        return Point(params, spec, digest_canonical(spec))


class _CannotStay(Exception):  # noqa: N818
    """A setting is no longer allowed after another has changed."""


def _built(engine: Engine, settings: Mapping[Place, Scalar]) -> ArchSpec | None:
    """The network of settings; None where its family cannot make it of them."""
    try:
        return engine.sites.build(settings)
    except SpecError:
        return None


@lru_cache(maxsize=64)
def _engine(space: FamilySpace) -> Engine:
    return Engine(
        family(space.family).domains,
        values={domain.name: domain.values for domain in space.domains},
        scopes={domain.name: domain.per for domain in space.domains},
        rules=tuple(rule.where for rule in space.forbid),
    )


def parse_domain(family_name: str, name: str, obj: object) -> Domain:
    """Reads a domain from a list of values, or from `values` and `per`; raises SpecError naming the place."""
    place = f"domains.{name}"
    scopes = family(family_name).domains.scopes
    if name not in scopes:
        raise SpecError(f"domains: unknown domain {name} of family {family_name}{nearest(name, scopes)}")
    per: Any = "network"
    if isinstance(obj, Mapping):
        for key in obj:
            if key not in ("values", "per"):
                raise SpecError(f"{place}: unknown key {key}{nearest(key, ('values', 'per'))}")
        per, obj = obj.get("per", "network"), obj.get("values")
    if per not in scopes[name]:
        raise SpecError(f"{place}.per must be one of its scopes, but is {per}{nearest(per, scopes[name])}")
    if not isinstance(obj, list | tuple):
        raise SpecError(f"{place} must be a list of values, but is {obj}")
    return Domain(name=name, values=tuple(_parse_value(family_name, place, name, value, per) for value in obj), per=per)


def parse_rule(family_name: str, index: int, obj: object, scopes: Mapping[str, str]) -> Rule:
    """Reads a rule from a mapping of domains to forbidden values; raises SpecError naming the place."""
    place = f"forbid.{index}"
    where = []
    for name, values in mapping(place, obj).items():
        if name not in scopes:
            raise SpecError(f"{place}: there is no domain {name}{nearest(name, scopes)}")
        listed = values if isinstance(values, list | tuple) else [values]
        where.append((name, tuple(_parse_value(family_name, f"{place}.{name}", name, v, scopes[name]) for v in listed)))
    return Rule(tuple(where))


_MOST_BLOCKS = 1_000  # of a stage


def _parse_value(family_name: str, place: str, name: str, value: object, scope: str) -> Scalar:
    try:
        found = family(family_name).domains.normalise(name, value, scope)
    except SpecError as error:
        raise SpecError(f"{place}: {error}") from None
    if name == "depth":  # networks are built one block after another, which would not end
        for number in [found] if isinstance(found, int | float) else map(int, re.findall(r"\d{1,18}", found)):
            if number > _MOST_BLOCKS:
                raise SpecError(f"{place}: depth must have numbers of at most {_MOST_BLOCKS:,}, but has {number}")
    return found


def mapping(place: str, obj: object) -> Mapping[str, Any]:
    """Returns the object as a mapping; raises SpecError naming the place if it is none."""
    if not isinstance(obj, Mapping):
        raise SpecError(f"{place} must be a mapping, but is {type(obj).__name__}")
    return obj


def _check_domains(family_name: str, domains: tuple[Domain, ...]) -> None:
    names = [domain.name for domain in domains]
    for domain in domains:
        place = f"domains.{domain.name}"
        checked = parse_domain(family_name, domain.name, {"values": domain.values, "per": domain.per})
        if names.count(domain.name) > 1:
            raise SpecError(f"{place}: a domain must stand once, but stands {names.count(domain.name)} times")
        if checked.values != domain.values:
            raise SpecError(f"{place}: values must be written as {checked.values}, but are {domain.values}")
        if not domain.values:
            raise SpecError(f"{place} must have at least 1 value, but is empty")
        repeated = [v for i, v in enumerate(checked.values) if v in checked.values[:i]]
        if repeated:
            raise SpecError(f"{place}: a value must stand once, but {repeated[0]} is repeated")


def _check_rules(space: FamilySpace) -> None:
    values = {domain.name: domain.values for domain in space.domains}
    for i, rule in enumerate(space.forbid):
        if not rule.where:
            raise SpecError(f"forbid.{i} must name at least 1 domain, but is empty")
        for name, forbidden in rule.where:
            if name not in values:
                raise SpecError(f"forbid.{i}: there is no domain {name}{nearest(name, values)}")
            for value in forbidden:
                if value not in values[name]:
                    hint = nearest(value, values[name])
                    raise SpecError(f"forbid.{i}.{name}: {value} is not a value of the domain{hint}")
