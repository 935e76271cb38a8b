"""Networks by the settings of their family's domains: from settings to a spec, and back where that is possible.

A setting is a domain's one value for the whole network, such as `kind: 2plus1d`. It is how a decision is named when it
is to be changed in a network as a whole.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from search_spaces.catalogue import family
from search_spaces.domains import Place, Scalar
from search_spaces.edit import diff
from search_spaces.family_space import FamilySpace, parse_domain
from search_spaces.spec import ArchSpec, SpecError, nearest

Settings = Mapping[str, Scalar]
Build = Callable[[Settings], ArchSpec | None]

_FAR = 1_000_000  # from any network to none


def network_of(family_name: str, settings: Mapping[str, Any]) -> ArchSpec:
    """Returns the canonical spec of settings; a domain that is left out has its default.

    Args:
        family_name: Family of the catalogue.
        settings: From a domain to its value, as a study file writes it.

    Raises:
        SpecError: A domain or value is unknown, or the values do not fit together.
    """
    domains = tuple(parse_domain(family_name, name, [value]) for name, value in settings.items())
    return FamilySpace(family=family_name, domains=domains).random(random.Random(0)).spec


def normal(family_name: str, domain: str, value: object) -> Scalar:
    """Returns a domain's value in its normal form.

    Raises:
        SpecError: The family has no such domain (the nearest is named), or it cannot have the value.
    """
    return parse_domain(family_name, domain, [value]).values[0]


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
