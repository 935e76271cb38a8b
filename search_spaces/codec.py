"""Specs as canonical JSON: frozen dataclasses as plain data and back, every value checked, and a network's digest.

A network is written in the lowest version that can express it, so its digest is the one that every earlier release gave
it. What a name means changed from version 1 to version 2: `p3d_b` and `p3d_c` are the authors' blocks now, and were
those of a port, which are called `p3d_b_port` and `p3d_c_port` here; `nonlocal` had no bias for its queries, and what
it was is `nonlocal_unbiased`. So a digest never means two networks.
"""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Hashable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from search_spaces.catalogue import family
from search_spaces.errors import SpecError, at_most, nearest
from search_spaces.spec import ArchSpec

T = TypeVar("T")


def to_plain(value: object) -> Any:
    """Returns any frozen dataclass of scalars, tuples and dataclasses as plain data.

    A field marked as added later is left out at its default.
    """
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if is_dataclass(value):
        return {name: to_plain(getattr(value, name)) for name in written_fields(value)}
    return value


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
    return _read(_hints(target)[name][0], to_plain(value), path)


def to_json(value: object) -> str:
    """Returns canonical JSON. Parts are cached, because the networks of a space share most of theirs."""
    if isinstance(value, tuple):
        return f"[{','.join(map(to_json, value))}]"
    return _json_part(value) if is_dataclass(value) and isinstance(value, Hashable) else json.dumps(value)


@lru_cache(maxsize=65536)
def _json_part(value: Hashable) -> str:
    return json_object({name: to_json(getattr(value, name)) for name in written_fields(value)})


def json_object(parts: Mapping[str, str]) -> str:
    """Returns a JSON object of parts that are JSON already, its keys sorted."""
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
        inner = get_args(hint)
        if inner[-1] is not Ellipsis and len(obj) != len(inner):
            raise SpecError(f"{_at(path)}must be a list of {len(inner)}, but has {len(obj)}")
        return tuple(_read(inner[0], item, f"{path}.{i}") for i, item in enumerate(obj))
    if origin in (Union, types.UnionType):
        some = [arg for arg in get_args(hint) if arg is not type(None)]
        return None if obj is None else _read(some[0], obj, path)
    if is_dataclass(hint):
        target: Any = hint
        return from_plain(target, obj, path)
    if type(obj) is int:
        at_most(path, abs(obj))
    if hint is float and type(obj) is int:
        return float(obj)
    if type(obj) is not hint:
        raise SpecError(f"{_at(path)}must be {hint.__name__}, but is {_type_name(obj)} {obj!r}")
    return obj


def written_fields(value: object) -> list[str]:
    """Returns the names of the fields that are written: all but those added later that have their default."""
    cls: Any = type(value)
    return [name for name, skip in _names(cls) if skip is MISSING or getattr(value, name) != skip]


@cache
def _names(cls: Any) -> tuple[tuple[str, object], ...]:
    """Every field's name and the value at which it is left out; MISSING where it never is."""
    return tuple((field.name, field.default if field.metadata.get("added") else MISSING) for field in fields(cls))


@cache
def _hints(cls: type) -> dict[str, tuple[Any, Field[Any]]]:
    hints = get_type_hints(cls)
    return {field.name: (hints[field.name], field) for field in fields(cls)}


def _at(path: str) -> str:
    return f"{path}: " if path else ""


def _type_name(obj: object) -> str:
    return "nothing" if obj is None else type(obj).__name__


VERSION = 2
# What values of version 1 are called here, by the key that they stand under. One name can only be written in version 2:
# that which means something else in version 1.
_FORMER: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "kind": MappingProxyType({"p3d_b": "p3d_b_port", "p3d_c": "p3d_c_port"}),
        "attention": MappingProxyType({"nonlocal": "nonlocal_unbiased"}),
    }
)
_LATTER = {key: {new: old for old, new in names.items()} for key, names in _FORMER.items()}
# The same as it stands in canonical JSON, where nothing else can look like it: quotes within texts are escaped there.
_TEXTS = tuple((f'"{key}":"{old}"', f'"{key}":"{new}"') for key, names in _FORMER.items() for old, new in names.items())


def encode(spec: ArchSpec) -> dict[str, Any]:
    """Returns plain data (dicts, lists, scalars) with the format's version in it."""
    version, plain = _version(_parts(spec)), to_plain(spec)
    return {"version": version, **(_renamed(plain, _LATTER) if version == 1 else plain)}


def decode(obj: object) -> ArchSpec:
    """Reads what `encode` gave, in this version or an earlier one.

    Args:
        obj: Plain data, as from JSON or YAML.

    Raises:
        SpecError: The family is not in the catalogue, a key is unknown or missing, a value has the wrong type or is out
            of range, or the version is not one that this code reads; the message names the path.
    """
    if not isinstance(obj, Mapping):
        raise SpecError(f"a spec must be a mapping, but is {'nothing' if obj is None else type(obj).__name__}")
    data = dict(obj)
    version = data.pop("version", None)
    if version not in range(1, VERSION + 1) or isinstance(version, bool):
        raise SpecError(f"version must be 1 to {VERSION}, but is {version}")
    if version == 1:
        data = _renamed(data, _FORMER)
    return from_plain(family(data.get("family", "resnet")).spec, data)


def dumps(spec: ArchSpec) -> str:
    """Returns canonical JSON: sorted keys, no spaces, ASCII."""
    parts = _parts(spec)
    version = _version(parts)
    if version == 1:
        for old, new in _TEXTS:
            parts = {key: part.replace(new, old) for key, part in parts.items()}
    return json_object({**parts, "version": str(version)})


def loads(text: str) -> ArchSpec:
    """Reads JSON text; raises SpecError as `decode` does, and where the text is not JSON."""
    try:
        obj = json.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # also numbers of thousands of digits, lists in lists
        raise SpecError(f"a spec must be JSON, but {error}") from None
    return decode(obj)


def digest(spec: ArchSpec) -> str:
    """Returns the SHA-256 of the canonical form's JSON in hexadecimal: equal where the networks are equal."""
    return digest_canonical(spec.canonical())


def digest_canonical(spec: ArchSpec) -> str:
    """Returns `digest` of a spec that is known to be canonical, without making it so again."""
    return hashlib.sha256(dumps(spec).encode()).hexdigest()


def _parts(spec: ArchSpec) -> dict[str, str]:
    return {key: to_json(getattr(spec, key)) for key in written_fields(spec)}


def _version(parts: Mapping[str, str]) -> int:
    """The lowest version that can express a network, given its fields as canonical JSON."""
    return 2 if any(old in part for part in parts.values() for old, _ in _TEXTS) else 1


def _renamed(value: Any, names: Mapping[str, Mapping[str, str]]) -> Any:
    """Plain data with other names for some of its values, by the key that they stand under."""
    if isinstance(value, list | tuple):
        return [_renamed(item, names) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: names.get(key, {}).get(item, item) if isinstance(item, str) else _renamed(item, names)
        for key, item in value.items()
    }
