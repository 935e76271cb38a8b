"""The way from one network to another, one change at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass
from typing import Any

from search_spaces.edit import at, diff, put
from search_spaces.spec import ArchSpec, SpecError


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
