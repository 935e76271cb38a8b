"""Specs by path: read, change and compare single fields, such as `stages.2.blocks.0.temporal.kind`."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from search_spaces.plain import from_plain, read_field, to_plain
from search_spaces.spec import SpecError, nearest

T = TypeVar("T")


def at(value: object, path: str) -> Any:
    """Returns what stands at a path.

    Args:
        value: A spec, or any dataclass of scalars, tuples and dataclasses.
        path: Field names and tuple indices joined by dots.

    Raises:
        SpecError: No such field or index.
    """
    here = value
    for depth, key in enumerate(path.split(".")):
        here = _step(here, key, ".".join(path.split(".")[:depth]))
    return here


def put(value: T, path: str, new: object) -> T:
    """Returns a copy with another value at a path; everything else stays the same objects.

    Args:
        value: A spec, or any dataclass of scalars, tuples and dataclasses.
        path: Field names and tuple indices joined by dots.
        new: The value; lists stand for tuples, as in JSON.

    Raises:
        SpecError: No such field or index, wrong type, or a value that its field refuses; the message names
            the path.
    """
    try:
        edited: T = _put(value, path.split("."), new, "")
        # An element of a tuple has no field to check it by, so everything is checked.
        from_plain(type(value), to_plain(edited))
    except SpecError as error:
        text = str(error)
        raise SpecError(text if path in text else f"{path}: {text}") from None
    return edited


def leaves(value: object) -> dict[str, object]:
    """Returns every leaf by path. A leaf is a scalar or a tuple of scalars, such as a set of dilations."""
    out: dict[str, object] = {}
    _collect(value, "", out)
    return out


def diff(a: object, b: object) -> frozenset[str]:
    """Returns the paths of all leaves that differ, among them those that only one of the two has."""
    left, right = leaves(a), leaves(b)
    missing = object()
    return frozenset(p for p in left.keys() | right.keys() if left.get(p, missing) != right.get(p, missing))


def _step(here: Any, key: str, path: str) -> Any:
    where = f" at {path}" if path else ""
    if isinstance(here, tuple):
        if not key.isdecimal() or int(key) >= len(here):
            raise SpecError(f"index must be 0 to {len(here) - 1}{where}, but is {key}")
        return here[int(key)]
    if not is_dataclass(here):
        raise SpecError(f"there is nothing below{where}, so no {key}")
    names = [field.name for field in fields(here)]
    if key not in names:
        raise SpecError(f"there is no field {key}{where}{nearest(key, names)}")
    return getattr(here, key)


def _put(here: Any, keys: list[str], new: object, path: str) -> Any:
    if not keys:
        return new
    key, below = keys[0], f"{path}.{keys[0]}" if path else keys[0]
    inner = _put(_step(here, key, path), keys[1:], new, below)
    if isinstance(here, tuple):
        return (*here[: int(key)], inner, *here[int(key) + 1 :])
    value = read_field(type(here), key, inner, below) if len(keys) == 1 else inner
    return replace(here, **{key: value})


def _collect(value: object, path: str, out: dict[str, object]) -> None:
    prefix = f"{path}." if path else ""
    if isinstance(value, tuple) and value and is_dataclass(value[0]):
        for i, item in enumerate(value):
            _collect(item, f"{prefix}{i}", out)
    elif is_dataclass(value):
        for field in fields(value):
            _collect(getattr(value, field.name), f"{prefix}{field.name}", out)
    else:
        out[path] = value
