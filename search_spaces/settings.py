"""Networks by the settings of their family's domains: from settings to a spec, and back where that is possible.

A setting is a domain's one value for the whole network, such as `kind: 2plus1d`. It is how a decision is named when it
is to be changed in a network as a whole. Where a space chooses a domain for each stage or block, a network's setting is
a mapping from places to values: `kind: {stage0: 2d, stage1: 3d}`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from search_spaces.catalogue import family
from search_spaces.domains import Place, Scalar
from search_spaces.edit import diff
from search_spaces.errors import SpecError, nearest
from search_spaces.family_space import Domain, FamilySpace, parse_domain
from search_spaces.space import SearchSpace
from search_spaces.spec import ArchSpec

Settings = Mapping[str, Scalar]
Local = Mapping[str, Scalar]  # from a place, such as stage0 or stage0.block1, to a value
Build = Callable[[Settings], ArchSpec | None]

_FAR = 1_000_000  # from any network to none


def network_of(family_name: str, settings: Mapping[str, Any]) -> ArchSpec:
    """Returns the canonical spec of settings; a domain that is left out has its default.

    Args:
        family_name: Family of the catalogue.
        settings: From a domain to its value, as a study file writes it, or to a value for each stage or block. A stage
            or block that is not named has the value of the nearest one before it.

    Raises:
        SpecError: A domain or value is unknown, or the values do not fit together.
    """
    local = {name: value for name, value in settings.items() if isinstance(value, Mapping)}
    domains = tuple(parse_domain(family_name, name, [value]) for name, value in settings.items() if name not in local)
    if not local:
        return FamilySpace(family=family_name, domains=domains).random(random.Random(0)).spec
    domains += tuple(_local_domain(family_name, name, value) for name, value in local.items())
    scopes = {domain.name: domain.per for domain in domains}
    sites = family(family_name).domains.sites(scopes, {domain.name: domain.values for domain in domains})
    places: dict[Place, Scalar] = {(d.name,): d.values[0] for d in domains if d.per == "network"}
    counts = sites.counts(places)
    for domain in (d for d in domains if d.per != "network"):
        stated = {_place(domain.name, where): value for where, value in local[domain.name].items()}
        every = _places(domain, counts)
        if missing := [place for place in stated if place not in every]:
            raise SpecError(
                f"{domain.name} must be stated for places of the network, {_where(every[0])} to {_where(every[-1])}, "
                f"but is for {_where(missing[0])}"
            )
        for here in every:
            before = [place for place in stated if place <= here]
            places[here] = normal(family_name, domain.name, stated[max(before) if before else min(stated)], domain.per)
    for here, value in places.items():
        if not sites.fits(places, here[0], value):
            raise SpecError(f"{here[0]} cannot be {value} beside the other settings of the network")
    return sites.build(places).canonical()


def settings_in(space: SearchSpace, params: Mapping[str, Scalar]) -> dict[str, Any]:
    """Returns the settings of a network that a space made, as `network_of` takes them.

    A domain that the space chooses for each stage or block has one value where it is the same at all of them, and this
    gives the same network; else a mapping from places to values.

    Args:
        space: The space.
        params: The network's parameters, such as those of a stored trial.

    Raises:
        SpecError: They are not those of a network of this space.
    """
    family_name, places = space.places(params)
    settings: dict[str, Any] = {}
    for here, value in places.items():
        if len(here) == 1:
            settings[here[0]] = value
        else:
            settings.setdefault(here[0], {})[_where(here)] = value
    spec = space.point(params).spec
    for name, local in [(name, value) for name, value in settings.items() if isinstance(value, Mapping)]:
        values = list(dict.fromkeys(local.values()))
        whole = {**settings, name: values[0]}
        if len(values) == 1 and "network" in family(family_name).domains.scopes[name]:
            try:
                settings = whole if network_of(family_name, whole) == spec else settings
            except SpecError:
                continue
    return settings


def normal(family_name: str, domain: str, value: object, scope: str = "network") -> Scalar:
    """Returns a domain's value in its normal form.

    Args:
        family_name: Family of the catalogue.
        domain: What is chosen.
        value: Its value, as a study file writes it.
        scope: Whether it is chosen for the network, for a stage or for a block.

    Raises:
        SpecError: The family has no such domain (the nearest is named), or it cannot have the value.
    """
    return parse_domain(family_name, domain, {"values": [value], "per": scope}).values[0]


def check_domain(family_name: str, domain: str) -> None:
    """Raises SpecError, with the nearest name, unless the family has a domain of that name."""
    known = family(family_name).domains.scopes
    if domain not in known:
        raise SpecError(f"there is no domain {domain} of family {family_name}{nearest(domain, known)}")


def settings_of(spec: ArchSpec, hints: Mapping[str, tuple[Scalar, ...]] | None = None) -> dict[str, Scalar]:
    """Returns settings that give a network, found by changing one at a time for the better.

    Args:
        spec: The network.
        hints: Values of domains to try beside the family's usual ones, such as those of a study's space.

    Returns:
        The settings that are not defaults.

    Raises:
        SpecError: No settings for the whole network were found, as is so where stages differ in more than a placement
            can say.
    """
    goal = spec.canonical()
    offered = family(spec.family)
    domains = offered.domains
    choices = _choices(spec, hints or {})

    def build(settings: Settings) -> ArchSpec | None:
        own = {name: value for name, value in settings.items() if value != domains.defaults[name]}
        places: dict[Place, Scalar] = {(name,): value for name, value in own.items()}
        try:
            sites = domains.sites(dict.fromkeys(own, "network"), {name: (value,) for name, value in own.items()})
            if not all(sites.fits(places, name, value) for name, value in own.items()):
                return None
            return sites.build(places).canonical()
        except SpecError:
            return None

    now: dict[str, Scalar] = dict(domains.defaults)
    left = _distance(build(now), goal)
    while left:
        better = _best_change(now, left, choices, build, goal) or _best_pair(now, left, choices, build, goal)
        if better is None:
            raise SpecError(
                f"{spec.describe()} cannot be written as settings of the {spec.family} domains, so its decisions are "
                "named by their path in the spec, such as stages.*.blocks.*.temporal.kind"
            )
        now, left = better
    return {name: value for name, value in now.items() if value != domains.defaults[name]}


def _local_domain(family_name: str, name: str, local: Local) -> Domain:
    """The domain of a setting that has a value for each stage or block."""
    check_domain(family_name, name)
    places = [_place(name, where) for where in local]
    scopes = sorted({len(place) for place in places})
    if len(scopes) != 1:
        raise SpecError(f"{name} must be stated for stages or for blocks, but is {dict(local)}")
    scope = ("stage", "block")[scopes[0] - 2]
    values = dict.fromkeys(normal(family_name, name, value, scope) for value in local.values())
    return parse_domain(family_name, name, {"values": list(values), "per": scope})


def _place(name: str, where: str) -> Place:
    """The place of `stage0` or `stage0.block1`."""
    found = re.fullmatch(r"stage(\d{1,4})(?:\.block(\d{1,4}))?", str(where))
    if found is None:
        raise SpecError(f"a place of {name} must be like stage0 or stage0.block1, but is {where}")
    stage, block = found.groups()
    return (name, int(stage)) if block is None else (name, int(stage), int(block))


def _where(here: Place) -> str:
    return ".".join(f"{level}{index}" for level, index in zip(("stage", "block"), here[1:], strict=False))


def _places(domain: Domain, counts: tuple[int, ...]) -> list[Place]:
    if domain.per == "stage":
        return [(domain.name, s) for s in range(len(counts))]
    return [(domain.name, s, b) for s, count in enumerate(counts) for b in range(count)]


def _best_change(
    now: Settings, left: int, choices: Mapping[str, tuple[Scalar, ...]], build: Build, goal: ArchSpec
) -> tuple[dict[str, Scalar], int] | None:
    """The one change that comes nearest to the goal, and how near; None where none comes nearer."""
    changes = [{name: value} for name, values in choices.items() for value in values if value != now[name]]
    return _best(now, left, changes, build, goal)


def _best_pair(
    now: Settings, left: int, choices: Mapping[str, tuple[Scalar, ...]], build: Build, goal: ArchSpec
) -> tuple[dict[str, Scalar], int] | None:
    """The same for two changes at once, of a domain and of one that its effect rests on, as a cut's on a placement."""
    gates = family(goal.family).domains.gates
    changes = [
        {gate: outer, name: inner}
        for name, needed in gates.items()
        for gate in needed
        if name in choices and gate in choices
        for outer in choices[gate]
        for inner in choices[name]
    ]
    return _best(now, left, changes, build, goal)


def _best(
    now: Settings, left: int, changes: Sequence[Settings], build: Build, goal: ArchSpec
) -> tuple[dict[str, Scalar], int] | None:
    best: tuple[dict[str, Scalar], int] | None = None
    for change in changes:
        settings = {**now, **change}
        distance = _distance(build(settings), goal)
        if distance < (best[1] if best else left):
            best = (settings, distance)
        if not distance:
            break
    return best


def _distance(spec: ArchSpec | None, goal: ArchSpec) -> int:
    return _FAR if spec is None else len(diff(spec, goal))


def _choices(spec: ArchSpec, hints: Mapping[str, tuple[Scalar, ...]]) -> dict[str, tuple[Scalar, ...]]:
    """Values of each domain that are worth a try."""
    offered = family(spec.family)
    stated: Any = offered.sample()["domains"]
    found: dict[str, tuple[Scalar, ...]] = {}
    for name, default in offered.domains.defaults.items():
        body = stated.get(name, [])
        listed = [*hints.get(name, ()), *(body["values"] if isinstance(body, Mapping) else body)]
        own = getattr(spec, name, None)  # some domains are a field of the spec, such as timm's model
        tried = [default, *offered.usual.get(name, ())]
        for value in [*listed, *([own] if isinstance(own, str | int | float) else [])]:
            try:
                tried.append(normal(spec.family, name, value))
            except SpecError:
                continue  # a value of a stage or block
        found[name] = tuple(dict.fromkeys(tried))
    return found
