"""Settings: fields of a dataclass with their default, range and meaning, each written once.

The check of values, the schema of a study file and the tables of the documentation are made of these fields.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache, partial
from types import NoneType
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

MARK = "setting"
"""The key of a setting in the metadata of its field."""

# Bounds above it only keep slips out that would end in hours or in a full memory, and are no part of the rule.
_LARGEST_RULE = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What is known of a field beside its name, type and default.

    Attributes:
        text: What it means, in one or two sentences of Markdown.
        low: The least value.
        high: The largest value.
        above: Whether `low` itself is out of range.
        below: Whether `high` itself is out of range.
        choices: All values that it may have; empty where the type or the range says it.
        added: Whether the field came later. An identity leaves such a field out at its default, so that what was begun
            without it goes on.
        optional: Whether it may be None, as its type says.
    """

    text: str
    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    choices: Sequence[object] = ()
    added: bool = False
    optional: bool = False

    @property
    def has_range(self) -> bool:
        """Whether values have a bound."""
        return self.low > -math.inf or self.high < math.inf

    @property
    def rule(self) -> str:
        """The range in words, such as `at least 1` or `in [0, 1)`; empty where there is none."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        if not self.has_range:
            return ""
        if self.high > _LARGEST_RULE:
            return f"{'above' if self.above else 'at least'} {self.low:g}"
        return f"in {'(' if self.above else '['}{self.low:g}, {self.high:g}{')' if self.below else ']'}"

    def fault(self, value: Any) -> str | None:
        """Which rule a value breaks, such as `must be at least 1`; None where it breaks none."""
        if self.choices and value not in self.choices:
            return f"must be {self.rule}"
        if not self.has_range or (value is None and self.optional):
            return None
        low = value > self.low if self.above else value >= self.low
        high = value < self.high if self.below or self.high == math.inf else value <= self.high
        if low and high:
            return None
        if self.high <= _LARGEST_RULE:
            return f"must be {self.rule}"
        if self.high < value < math.inf:
            return f"must be at most {self.high:,.0f}"
        return f"must be {'' if value <= self.low else 'finite and '}{self.rule}"


def setting(
    default: Any,
    text: str,
    *,
    at_least: float = -math.inf,
    above: float = -math.inf,
    at_most: float = math.inf,
    below: float = math.inf,
    choices: Sequence[object] = (),
    added: bool = False,
) -> Any:
    """A field of a dataclass that is a setting.

    Args:
        default: Its default; one that can be changed is copied for each object.
        text: What it means, in Markdown.
        at_least: The least value.
        above: What all values are above.
        at_most: The largest value.
        below: What all values are below.
        choices: All values, where they are few and the type does not name them.
        added: Whether records may lack it; see `Setting`.
    """
    mark = Setting(
        text=text,
        low=max(at_least, above),
        high=min(at_most, below),
        above=above > -math.inf,
        below=below < math.inf,
        choices=choices,
        added=added,
    )
    metadata = {MARK: mark}
    if type(default).__hash__ is None:  # it can be changed
        return field(default_factory=partial(copy.deepcopy, default), metadata=metadata)
    return field(default=default, metadata=metadata)


def declared(of: type) -> Mapping[str, Setting]:
    """The fields of a dataclass that are settings, by name. A type that lists its values gives them as choices."""
    return _settings(cast(Any, of))


@lru_cache(maxsize=64)
def _settings(of: Any) -> Mapping[str, Setting]:
    hints = get_type_hints(of)
    marks = {one.name: one.metadata[MARK] for one in fields(of) if MARK in one.metadata}
    return {name: _of_type(mark, hints[name]) for name, mark in marks.items()}


def _of_type(mark: Setting, kind: Any) -> Setting:
    """A setting with what its type says of it."""
    choices = mark.choices or (get_args(kind) if get_origin(kind) is Literal else ())
    return replace(mark, choices=choices, optional=NoneType in get_args(kind))


def values_of(value: Any) -> dict[str, Any]:
    """The settings of an object, by name."""
    return {name: getattr(value, name) for name in declared(type(value))}


def faults(of: type, values: Mapping[str, Any], place: str) -> Iterator[str]:
    """Yields a line for each setting of a dataclass that is out of range.

    Args:
        of: The dataclass.
        values: Of its fields, by name.
        place: What its fields are named after, such as `recipe.`.
    """
    for name, mark in declared(of).items():
        fault = mark.fault(values[name])
        if fault is not None:
            yield f"{place}{name} {fault}, but is {values[name]}"
