"""Study files and overrides, read once into plain values and from there into a `Study`.

`data=NAME` picks a variant that the file itself states under `variants:` and lays it over the rest. Every other
override is `key=value`: the value of a key that is text is taken as it is, any other in Hydra's grammar. Nothing is
composed from other files, the working directory stays, no file is written.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from math import log
from pathlib import Path
from typing import Any, cast, get_origin, get_type_hints

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nas.errors import StudyError, unknown
from nas.places import path_of
from nas.study.plain import kinds_of, literal, plain_values, yaml_of
from nas.study.schema import RecipeSchema, StudySchema
from nas.study.study import Study, study_of
from trainer.config import PLACES
from trainer.files import content_of

MOVABLE = tuple(f"data.{name}" for name in PLACES)
"""Settings that say where data lies and how it is read, which may change while a study goes on."""


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Reads a study file.

    Args:
        path: The YAML file.
        overrides: `key=value` settings; `data=NAME` picks a variant of the file.

    Raises:
        StudyError: One line that says which key or value breaks which rule, and what would be valid.
    """
    where = str(path)
    raw = _read(path_of(path))
    settings = [_override(text) for text in overrides]
    variant = next((str(value) for key, value in settings if key == "data"), None)
    _check_keys(raw, StudySchema(), "", where)
    variants = raw.pop("variants", None) or {}
    if not isinstance(variants, Mapping):
        raise StudyError(f"variants must hold a name and keys for each variant, but is {variants!r} (in {where})")
    for name, body in variants.items():
        _check_keys(body or {}, StudySchema(), "", f"{where}, variants.{name}")
    base_name = (raw.get("data") or {}).get("name", "folder")
    if variant is not None and variant != base_name:
        if variant not in variants:
            raise StudyError(f"{unknown('data', variant, [base_name, *variants])} in {where}")
        raw = _merged(raw, variants[variant] or {})
    for key, value in settings:
        if key != "data":
            _check_keys(_nested(key, value), StudySchema(), "", "the command line")
            raw = _merged(raw, _nested(key, value))
    laid = f"{where} with {' '.join(overrides)}" if settings else where
    plain = _typed(raw, laid)
    if not plain["name"]:
        plain["name"] = Path(path).stem
    study = dataclasses.replace(study_of(plain, laid), variants=tuple(variants))
    if study.search.sampler.source == "optuna":  # which is always there, so a slip is said whatever the command
        from nas.search.sampler.foreign import check

        try:
            check(study.search.sampler, study.search.objectives)
        except StudyError as error:
            raise StudyError(f"{error} (in {laid})") from error
    return study


def apply_promote(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A recorded study with other settings of its promotion.

    Args:
        config: As recorded in a database.
        overrides: `promote.key=value` settings; those of `MOVABLE` may be given too, since folders move.

    Raises:
        StudyError: A setting is not known, or is one that the search was made with.
    """
    result: dict[str, Any] = _without_interpolation(dict(config))
    for key, value in (_override(text) for text in overrides):
        if not key.startswith("promote.") and key not in MOVABLE:
            raise StudyError(f"a promotion keeps the search's {key}; promote.…, {', '.join(MOVABLE)} may be set")
        _check_keys(_nested(key, value), StudySchema(), "", "the command line")
        result = _merged(result, _nested(key, value))
    return _typed(result, "the command line")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = content_of(path, largest=_LARGEST)
    except OSError as error:
        raise StudyError(f"study file {path} cannot be read: {error.strerror} ({_beside(path)})") from error
    if content.startswith(_SQLITE):
        raise StudyError(
            f"a study file is needed, but {path} is a database; give the file that it was made with, and the "
            "database with --db"
        )
    try:
        raw = yaml_of(content.decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise StudyError(f"{place} must be YAML: {getattr(error, 'problem', error)}") from error
    except StudyError as error:
        raise StudyError(f"{error} (in {path})") from error
    if not isinstance(raw, dict):
        raise StudyError(f"{path} must hold keys and values, but holds {type(raw).__name__}")
    return raw


def _beside(path: Path) -> str:
    """Study files beside one that cannot be read."""
    try:
        near = ", ".join(sorted(str(p) for p in path.parent.glob("*.y*ml"))[:8])
    except OSError:
        near = ""
    return f"files beside it: {near or 'none'}"


_LARGEST = 2**20  # bytes of a study file
_SQLITE = b"SQLite format 3\x00"


def _override(text: str) -> tuple[str, Any]:
    if text.startswith(("+", "~")) or text.startswith("hydra"):
        raise StudyError(f"an override must read key=value without +, ~ or hydra., but is {text!r}")
    if "=" not in text:
        raise StudyError(f"an override must read key=value, but is {text!r} (for example search.trials=9)")
    key, _, stated = text.partition("=")
    if "@" in key:  # with which Hydra's grammar names a package, which nothing here has
        raise StudyError(f"an override must read key=value without @, but is {text!r} (for example search.trials=9)")
    if _is_text(key) or (key in _NAMES and not stated.lstrip().startswith("{")):
        return key, _without_interpolation(literal(stated))
    if stated.count("[") + stated.count("{") > _MOST_BRACKETS:
        raise StudyError(f"override {key} must have at most {_MOST_BRACKETS} lists and mappings, but has more")
    try:
        parsed = OverridesParser.create().parse_override(text)
        if parsed.is_sweep_override():
            raise StudyError(f"an override must name one value, but {text!r} names several; write a list as key=[a,b]")
        value = OmegaConf.to_container(OmegaConf.create({"v": parsed.value()}))["v"]  # type: ignore[index, call-overload]
    except HydraException as error:
        raise StudyError(f"override {text!r} cannot be read: {str(error).splitlines()[0]}") from error
    except (OmegaConfBaseException, RecursionError, ValueError) as error:
        raise StudyError(f"override {text!r} cannot be read: its value is too deep or too large") from error
    return str(parsed.key_or_group), plain_values(value, key)


_MOST_BRACKETS = 2_000
_NAMES = ("ablation.base", "ablation.to", "search.sampler")  # or settings in braces


def _without_interpolation(value: Any) -> Any:
    """Values as OmegaConf gives them back unchanged, whatever dollars and braces they hold."""
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + "\\${", value)
    if isinstance(value, Mapping):
        return {key: _without_interpolation(inner) for key, inner in value.items()}
    return [_without_interpolation(inner) for inner in value] if isinstance(value, list | tuple) else value


def _is_text(key: str) -> bool:
    """Whether the value of a key is text; `data` alone is the name of a variant."""
    kind: Any = StudySchema
    for part in key.split("."):
        kind = kinds_of(cast(type, kind)).get(part) if dataclasses.is_dataclass(kind) else None
        if part == "recipe" and kind == dict[str, Any]:  # what is laid over the study's recipe
            kind = RecipeSchema
    return kind is str or key == "data"


def _check_keys(raw: Any, schema: Any, prefix: str, where: str) -> None:
    """Refuses a key that the schema does not know, by its full path, with the nearest valid one."""
    if not isinstance(raw, Mapping):
        if dataclasses.is_dataclass(schema):
            at = prefix.rstrip(".") or "the file"
            raise StudyError(f"{at} must hold keys ({_names(schema)}), but is {raw!r} (in {where})")
        return
    if not dataclasses.is_dataclass(schema):
        return
    known = {f.name for f in dataclasses.fields(schema)}
    for key, value in raw.items():
        if key not in known:
            raise StudyError(f"{unknown('key', f'{prefix}{key}', sorted(prefix + name for name in known))} in {where}")
        if value is not None:
            _check_keys(value, getattr(schema, key), f"{prefix}{key}.", where)


def _names(schema: Any) -> str:
    return ", ".join(f.name for f in dataclasses.fields(schema))


def _check_references(raw: Any, where: str) -> None:
    """Refuses references to keys that could make far more text or values of a study than it holds.

    Each reference to a value with k references of its own makes k of it, and n references in all make at most 3^(n/3).
    """
    left, size, count = [raw], 0, 0
    while left:
        at = left.pop()
        size += len(at) + 1 if isinstance(at, str) else 1
        if isinstance(at, str):
            count += len(re.findall(r"(?<!\\)\$\{(?!oc\.env:)", at))
        else:
            left.extend(at.values() if isinstance(at, Mapping) else at if isinstance(at, list | tuple) else ())
    if count and (count / 3) * log(3) + log(size) > log(_LARGEST_RESOLVED):
        raise StudyError(
            f"a study may have few references by ${{...}} where it is large, but has {count} of them (in {where})"
        )


_LARGEST_RESOLVED = 2**28  # characters and values, once references are resolved


def _check_containers(raw: Mapping[str, Any], schema: type, where: str, path: str = "") -> None:
    """Refuses what is no list or mapping where the schema has one: OmegaConf names its own classes, and not the key."""
    for name, hint in get_type_hints(schema).items():
        value, key = raw.get(name), f"{path}{name}"
        if value is None or (isinstance(value, str) and "${" in value):
            continue
        kind = get_origin(hint) or hint
        if kind is list and not isinstance(value, list | tuple):
            raise StudyError(f"{key} must be a list, but is {str(value)[:100]} (in {where})")
        if (kind is dict or is_dataclass(kind)) and not isinstance(value, Mapping):
            raise StudyError(f"{key} must be a mapping of keys, but is {str(value)[:100]} (in {where})")
        if is_dataclass(kind):
            _check_containers(value, cast(type, kind), where, f"{key}.")


def _typed(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    _check_references(raw, where)
    _check_containers(raw, StudySchema, where)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(StudySchema), OmegaConf.create(dict(raw)))
        plain = cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "a key"
        raise StudyError(f"{key}: {(str(error).splitlines() or ['not valid'])[0]} (in {where})") from error
    except RecursionError as error:
        raise StudyError(f"a value must not refer to itself by ${{...}}, but one does (in {where})") from error
    plain.pop("variants", None)
    domains = plain["space"]["domains"]
    plain["space"]["domains"] = {name: values for name, values in domains.items() if values is not None}
    return plain


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`, key by key; lists, values and a sampler are replaced whole."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping) and key != "sampler"
        result[key] = _merged(cast(Mapping[str, Any], below), value) if both else value
    return result


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return cast(dict[str, Any], value)
