"""What is trained in an ablation as one value, and how a factor's level changes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nas.ablation.config import BASE, label_of
from nas.errors import NasError, StudyError, unknown
from nas.study.networks import Lookup, Settings, resolve, stated
from search_spaces import codec
from search_spaces.edit import leaves, put
from search_spaces.errors import SpecError
from search_spaces.settings import check_domain, network_of, normal
from search_spaces.spec import ArchSpec
from trainer.config import PLACES, ConfigError, DataConfig
from trainer.recipe import Recipe

# Where data lies and how it is read is nothing to compare; what is a class or a split would not be one comparison.
_FIXED_DATA = (*PLACES, "name", "eval_clips", "layout", "definition", "per_class")


class LevelError(NasError):
    """A level cannot be put where its factor says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A network, how it is trained, and on which clips.

    Attributes:
        spec: The canonical spec.
        recipe: How to train.
        data: Videos and clips.
        other_seeds: Whether its seeds are others than those of its pairs, as only a control's are.
        settings: The settings that the network was stated by, if it was: they also say what has no effect now, but
            will once another setting changes; of a network that a search found, those that the search gave it. Equal
            networks are equal whatever they were stated by.
    """

    spec: ArchSpec
    recipe: Recipe
    data: DataConfig
    other_seeds: bool = False
    settings: Settings | None = dataclasses.field(default=None, compare=False)


def changed(variant: Variant, path: str, value: Any, lookup: Lookup) -> Variant:
    """Returns a variant with a level in the place of what a factor's path names.

    Args:
        variant: What is changed.
        path: See `Factor`.
        value: The level's value.
        lookup: From a name to its spec.

    Raises:
        LevelError: The path names nothing (the nearest is named), or the value is not valid there.
    """
    head, _, rest = path.partition(".")
    try:
        if head == "recipe" and rest:
            return dataclasses.replace(variant, recipe=_replaced(variant.recipe, rest, value, "recipe"))
        if head == "data" and rest:
            if rest.split(".")[0] in _FIXED_DATA:
                raise LevelError(f"factor {path} cannot be varied: results on other data are not one comparison")
            return dataclasses.replace(variant, data=_replaced(variant.data, rest, value, "data"))
        if path == "network":
            spec, settings = resolve(value, lookup)
            return dataclasses.replace(variant, spec=spec, settings=settings)
        if _is_spec_path(variant.spec, path):
            return dataclasses.replace(variant, spec=_edited(variant.spec, path, value), settings=None)
        family_name = variant.spec.family
        level = value if isinstance(value, Mapping) else normal(family_name, path, value)
        settings = {**_stated(variant), path: level}
        return dataclasses.replace(variant, spec=network_of(family_name, settings), settings=settings)
    except (SpecError, ConfigError, StudyError) as error:
        raise LevelError(f"factor {path}, level {value}: {error}") from error


def check_path(variant: Variant, path: str) -> None:
    """Raises LevelError, with the nearest names, unless a factor's path names something in a variant."""
    head, _, rest = path.partition(".")
    if head in ("recipe", "data") and rest:
        known = list(_names(getattr(variant, head)))
        if rest not in known:
            raise LevelError(unknown("factor", path, [f"{head}.{name}" for name in known]))
    elif path == "network":
        return
    elif _is_spec_path(variant.spec, path):
        if not list(_places(variant.spec, path)):
            raise LevelError(unknown("factor", path, sorted({_starred(leaf) for leaf in leaves(variant.spec)})))
    else:
        try:
            check_domain(variant.spec.family, path)
        except SpecError as error:
            raise LevelError(f"factor {path}: {error}") from error


def own_level(variant: Variant, path: str) -> str:
    """Returns the label of what stands at a factor's path; `base` where that is no single value."""
    from search_spaces.catalogue import family

    head, _, rest = path.partition(".")
    if head in ("recipe", "data") and rest:
        value: Any = getattr(variant, head)
        for name in rest.split("."):
            value = getattr(value, name)
        return label_of(value)
    if path == "network" or _is_spec_path(variant.spec, path):
        return BASE
    own = _stated(variant).get(path, family(variant.spec.family).domains.defaults[path])
    return BASE if isinstance(own, Mapping) else label_of(own)


def is_own_level(variant: Variant, path: str, value: Any) -> bool:
    """Whether a level that makes an equal variant is what stands there, and not another that has no effect."""
    own = own_level(variant, path)
    if path.partition(".")[0] not in ("recipe", "data") and own != BASE and not isinstance(value, Mapping):
        value = normal(variant.spec.family, path, value)
    return own in (BASE, label_of(value))


def settings_between(a: Variant, b: Variant) -> dict[str, Any] | None:
    """Returns the domains in which two networks differ, with the second's values; None where settings cannot say it."""
    from search_spaces.catalogue import family

    if a.spec.family != b.spec.family:
        return None
    try:
        mine, other = _stated(a), _stated(b)
    except SpecError:
        return None
    defaults = family(a.spec.family).domains.defaults
    return {
        name: other.get(name, default)
        for name, default in defaults.items()
        if mine.get(name, default) != other.get(name, default)
    }


def _stated(variant: Variant) -> Mapping[str, Any]:
    return variant.settings if variant.settings is not None else stated(codec.dumps(variant.spec))


def _edited(spec: ArchSpec, path: str, value: Any) -> ArchSpec:
    for place in list(_places(spec, path)):
        spec = put(spec, place, value)
    return spec.canonical()


def _is_spec_path(spec: ArchSpec, path: str) -> bool:
    """Whether a path leads into the spec's fields; a bare name that is a domain, too, is the domain."""
    if "." in path or "*" in path:
        return True
    try:
        check_domain(spec.family, path)
    except SpecError:
        return path in leaves(spec)
    return False


def _places(spec: ArchSpec, path: str) -> Iterator[str]:
    """Yields the leaves of a spec that a path names."""
    for leaf in leaves(spec):
        parts, wanted = leaf.split("."), path.split(".")
        if len(parts) == len(wanted) and all(
            w in (p, "*" if p.isdecimal() else p) for p, w in zip(parts, wanted, strict=True)
        ):
            yield leaf


def _starred(leaf: str) -> str:
    return ".".join("*" if part.isdecimal() else part for part in leaf.split("."))


def _names(value: Any, prefix: str = "") -> Iterator[str]:
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if dataclasses.is_dataclass(inner):
            yield from _names(inner, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}"


def _replaced(value: Any, path: str, new: Any, where: str) -> Any:
    """A frozen value with another at a dotted path; a whole number stands for a float where one is wanted."""
    name, _, rest = path.partition(".")
    if name not in {field.name for field in dataclasses.fields(value)}:
        raise LevelError(unknown(f"{where} key", name, [field.name for field in dataclasses.fields(value)]))
    old = getattr(value, name)
    if rest:
        return dataclasses.replace(value, **{name: _replaced(old, rest, new, f"{where}.{name}")})
    if isinstance(new, list):
        new = tuple(new)
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        new = float(new)
    if old is not None and type(new) is not type(old):
        raise LevelError(f"{where}.{name} must be {type(old).__name__}, but is {new!r}")
    return dataclasses.replace(value, **{name: new})
