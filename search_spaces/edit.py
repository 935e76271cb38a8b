"""Specs by path: read, change and compare single fields, and the way from one network to another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

from search_spaces.codec import from_plain, read_field, to_plain
from search_spaces.errors import SpecError, nearest
from search_spaces.spec import ArchSpec

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


@dataclass(frozen=True, slots=True)
class Step:
    """One change.

    Attributes:
        path: What was changed, as a path in the spec.
        spec: The canonical spec after it.
    """

    path: str
    spec: ArchSpec


def steps(a: ArchSpec, b: ArchSpec) -> list[Step]:
    """Returns the changes that lead from one network to another of its family.

    A change is one field's, or one block more or less; where a field cannot change alone (a stem that becomes a pair of
    convolutions also needs planes between them), it is the smallest part of the spec that can. Changes go from the
    input to the output, and every spec on the way is valid and canonical.

    Args:
        a: Where the way begins.
        b: Where it ends.

    Returns:
        The steps; the last one's spec is the canonical form of `b`. None if both are the same network.

    Raises:
        SpecError: The networks are of two families.
    """
    if a.family != b.family:
        raise SpecError(f"a path needs two networks of one family, but they are of {a.family} and {b.family}")
    now, goal = a.canonical(), b.canonical()
    found = []
    while now != goal:
        step = _next(now, goal)
        found.append(step)
        now = step.spec
    return found


def _next(now: ArchSpec, goal: ArchSpec) -> Step:
    left = diff(now, goal)
    for path, value in _moves(now, goal):
        try:
            spec = put(now, path, value).canonical()
        except SpecError:
            continue
        # What is canonical may take a change back, so only one that comes nearer counts.
        if len(diff(spec, goal)) < len(left):
            return Step(path, spec)
    return Step("", goal)


def _moves(now: Any, goal: Any) -> Iterator[tuple[str, Any]]:
    """Yields changes, single fields before the parts that they belong to, and those from the input on."""
    leaves: list[tuple[str, Any]] = []
    parts: list[tuple[str, Any]] = []
    for path, value, leaf in _differences(now, goal, ""):
        (leaves if leaf else parts).append((path, value))
    yield from leaves
    # Small parts before those that hold them.
    yield from sorted(parts, key=lambda part: -part[0].count("."))


def _differences(now: Any, goal: Any, path: str) -> Iterator[tuple[str, Any, bool]]:
    """Yields (path, value in the goal, whether it is one field or one element more or less)."""
    prefix = f"{path}." if path else ""
    if is_dataclass(now) and type(now) is type(goal):
        for name in now.__dataclass_fields__:
            mine, other = getattr(now, name), getattr(goal, name)
            if mine != other:
                yield from _differences(mine, other, f"{prefix}{name}")
        if path:
            yield path, goal, False
    elif _are_parts(now) and _are_parts(goal):
        for i, (mine, other) in enumerate(zip(now, goal, strict=False)):
            if mine != other:
                yield from _differences(mine, other, f"{prefix}{i}")
        if len(now) < len(goal):
            yield path, (*now, goal[len(now)]), True
        elif len(now) > len(goal):
            yield path, now[:-1], True
        yield path, goal, False
    else:
        yield path, goal, True


def _are_parts(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and is_dataclass(value[0])


def value_at(spec: ArchSpec, path: str) -> Any:
    """Returns what stands at a path, None where the spec has no such place; for tables of differences."""
    try:
        return at(spec, path)
    except SpecError:
        return None
