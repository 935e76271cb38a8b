"""Specs as canonical JSON: typed encoder and decoder for frozen dataclasses, and a network's digest."""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache, lru_cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from search_spaces.spec import ArchSpec, SpecError, canonicalise, nearest

VERSION = 1
T = TypeVar("T")


def encode(spec: ArchSpec) -> dict[str, Any]:
    """Returns plain data (dicts, lists, scalars) with the format's version in it."""
    return {"version": VERSION, **_plain(spec)}


def decode(obj: object) -> ArchSpec:
    """Reads what `encode` gave.

    Args:
        obj: Plain data, as from JSON or YAML.

    Raises:
        SpecError: A key is unknown or missing, a value has the wrong type or is out of range, or the version
            is not one that this code reads; the message names the path.
    """
    if not isinstance(obj, Mapping):
        raise SpecError(f"a spec must be a mapping, but is {_type_name(obj)}")
    data = dict(obj)
    version = data.pop("version", None)
    if version != VERSION or isinstance(version, bool):
        raise SpecError(f"version must be {VERSION}, but is {version}")
    return from_plain(ArchSpec, data)


def dumps(spec: ArchSpec) -> str:
    """Returns canonical JSON: sorted keys, no spaces, ASCII."""
    parts = {name: _json(getattr(spec, name)) for name in _names(ArchSpec)}
    return _object({**parts, "version": str(VERSION)})


def loads(text: str) -> ArchSpec:
    """Reads JSON text; raises SpecError as `decode` does, and where the text is not JSON."""
    try:
        obj = json.loads(text)
    except json.JSONDecodeError as error:
        raise SpecError(f"a spec must be JSON, but {error}") from None
    return decode(obj)


def digest(spec: ArchSpec) -> str:
    """Returns the SHA-256 of the canonical form's JSON in hexadecimal: equal where the networks are equal."""
    return digest_canonical(canonicalise(spec))


def digest_canonical(spec: ArchSpec) -> str:
    """Returns `digest` of a spec that is known to be canonical, without making it so again."""
    return hashlib.sha256(dumps(spec).encode()).hexdigest()


def to_plain(value: object) -> Any:
    """Returns any frozen dataclass of scalars, tuples and dataclasses as plain data."""
    return _plain(value)


def from_plain(cls: type[T], obj: object, path: str = "") -> T:
    """Reads plain data as a dataclass.

    Args:
        cls: The dataclass. Its fields are scalars, Literals, tuples of one type, optionals, or dataclasses.
        obj: Plain data.
        path: Where `obj` stands, for messages.

    Raises:
        SpecError: As `decode`.
    """
    if not isinstance(obj, Mapping):
        raise SpecError(f"{_at(path)}must be a mapping, but is {_type_name(obj)}")
    target: Any = cls
    known = _hints(target)
    for key in obj:
        if key not in known:
            raise SpecError(f"{_at(path)}unknown key {key}{nearest(key, known)}")
    values: dict[str, Any] = {}
    for name, (hint, field) in known.items():
        if name in obj:
            values[name] = _read(hint, obj[name], f"{path}.{name}" if path else name)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise SpecError(f"{_at(path)}key {name} is missing")
    try:
        return cls(**values)
    except SpecError as error:
        raise SpecError(f"{_at(path)}{error}") from None


def read_field(cls: type, name: str, value: object, path: str) -> Any:
    """Returns a value, plain or not, as one of the type that a dataclass's field has.

    Raises:
        SpecError: The value has another type or is out of range; the message names `path`.
    """
    target: Any = cls
    return _read(_hints(target)[name][0], _plain(value), path)


def _plain(value: object) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        cls: Any = type(value)
        return {name: _plain(getattr(value, name)) for name in _names(cls)}
    return value


def _json(value: object) -> str:
    """Returns canonical JSON. Parts are cached, because the networks of a space share most of theirs."""
    if isinstance(value, tuple):
        return f"[{','.join(map(_json, value))}]"
    return _json_part(value) if is_dataclass(value) and isinstance(value, Hashable) else json.dumps(value)


@lru_cache(maxsize=65536)
def _json_part(value: Hashable) -> str:
    return _object({name: _json(getattr(value, name)) for name in _names(type(value))})


def _object(parts: Mapping[str, str]) -> str:
    return "{" + ",".join(f'"{name}":{parts[name]}' for name in sorted(parts)) + "}"


def _read(hint: Any, obj: object, path: str) -> Any:
    origin = get_origin(hint)
    if origin is Literal:
        choices = get_args(hint)
        if not any(type(obj) is type(c) and obj == c for c in choices):
            raise SpecError(f"{_at(path)}must be one of its choices, but is {obj}{nearest(obj, choices)}")
        return obj
    if origin is tuple:
        if not isinstance(obj, list | tuple):
            raise SpecError(f"{_at(path)}must be a list, but is {_type_name(obj)}")
        return tuple(_read(get_args(hint)[0], item, f"{path}.{i}") for i, item in enumerate(obj))
    if origin in (Union, types.UnionType):
        inner = [arg for arg in get_args(hint) if arg is not type(None)]
        return None if obj is None else _read(inner[0], obj, path)
    if is_dataclass(hint):
        target: Any = hint
        return from_plain(target, obj, path)
    if hint is float and type(obj) is int:
        return float(obj)
    if type(obj) is not hint:
        raise SpecError(f"{_at(path)}must be {hint.__name__}, but is {_type_name(obj)} {obj!r}")
    return obj


@cache
def _names(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls))


@cache
def _hints(cls: type) -> dict[str, tuple[Any, Field[Any]]]:
    hints = get_type_hints(cls)
    return {field.name: (hints[field.name], field) for field in fields(cls)}


def _at(path: str) -> str:
    return f"{path}: " if path else ""


def _type_name(obj: object) -> str:
    return "nothing" if obj is None else type(obj).__name__
