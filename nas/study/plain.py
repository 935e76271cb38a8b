"""Plain values, as YAML and JSON have them: their limits, their types, and the way to frozen classes.

OmegaConf and Hydra check keys and types against loose, mutable dataclasses. `schema_of` makes such a class of a frozen
one, `typed` and `check` hold plain values to it, and `frozen` makes the frozen object of them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass
from functools import lru_cache, partial
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import yaml

from nas.errors import StudyError, unknown
from trainer.settings import MARK, declared, faults

T = TypeVar("T")

DEEPEST, MOST_VALUES, LARGEST_NUMBER = 20, 100_000, 2**63
"""Levels of lists and mappings in a study, its values in all (each use of an anchor counts), and their size."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML in which a value that contradicts its tag, such as `!!int x`, has a place as any other fault has.

    A key stands once, since the last of two would silently be the one that counts; and merges (`<<`) of merges, each of
    which may double what is there, end at the number of values that a study may have.
    """

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    problem = f"a key must stand once, but {key.value[:100]} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return node

    def flatten_mapping(self, node: Any) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MOST_VALUES:
            problem = f"a study must have at most {MOST_VALUES:,} values, but merges have made more"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:
            problem = f"a value cannot be read as {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


def yaml_of(text: str) -> Any:
    """What a YAML document holds: text, numbers, lists and mappings.

    Raises:
        YAMLError: It is none; `problem_mark` says where.
        StudyError: It holds other values, or too many of them.
    """
    try:
        return plain_values(yaml.load(text, _Loader), "")
    except RecursionError as error:
        raise StudyError(f"YAML must have at most {DEEPEST} levels of lists and keys, but has far more") from error


def plain_values(value: Any, where: str) -> Any:
    """Returns a value that YAML or an override gave, once all of it is known to be text, numbers, lists and mappings.

    Args:
        value: Perhaps with dates, bytes or sets in it, or with itself, by an anchor.
        where: The place, for messages; empty for a whole study.

    Raises:
        StudyError: It holds something else, or too much.
    """
    left = [(value, where, 0)]
    count = 0
    while left:
        at, place, depth = left.pop()
        count += 1
        if depth > DEEPEST or count > MOST_VALUES:
            limits = f"{DEEPEST} levels and {MOST_VALUES:,} values"
            raise StudyError(
                f"{where or 'a study'} must have at most {limits}, but has more; an anchor may stand inside of itself"
            )
        if isinstance(at, Mapping):
            for key, inner in at.items():
                if not isinstance(key, str | int | float):
                    raise StudyError(f"{place or 'a study'}: a key must be text or a number, but is {key!r}")
                left.append((key, place, depth + 1))
                left.append((inner, f"{place}.{key}".lstrip(".") if len(place) < 100 else place, depth + 1))
        elif isinstance(at, list | tuple):
            left.extend((inner, place, depth + 1) for inner in at)
        elif isinstance(at, int) and not -LARGEST_NUMBER < at < LARGEST_NUMBER:
            raise StudyError(f"{place}: a whole number must be below 2^63, but has {at.bit_length()} bits")
        elif not isinstance(at, str | int | float | NoneType):
            found = f"{type(at).__name__} {at}"
            raise StudyError(f"{place} must be text, a number, a list or keys, but is {found}; write text in quotes")
    return value


def typed(value: Any, kind: Any, where: str) -> Any:
    """A value of the type that the schema states; keys that are missing stay so.

    Args:
        value: Plain. Text that reads as a number is one where the schema has a number: YAML takes `1e-3` for text.
        kind: A type of this module's fields, or one of its classes.
        where: Its key, for messages; empty for a whole study.

    Raises:
        StudyError: It is of another type, or a key is unknown.
    """
    if is_dataclass(kind):
        hints = kinds_of(cast(type, kind))
        if not isinstance(value, Mapping):
            raise StudyError(f"{where or 'a study'} must hold keys ({', '.join(hints)}), but is {value!r}")
        before = f"{where}." if where else ""
        for key in value:
            if key not in hints:
                raise StudyError(unknown("key", f"{before}{key}", [before + name for name in hints]))
        return {key: typed(inner, hints[key], f"{before}{key}") for key, inner in value.items()}
    if get_origin(kind) is UnionType:
        return None if value is None else typed(value, get_args(kind)[0], where)
    if get_origin(kind) is list:
        if not isinstance(value, list | tuple):
            raise StudyError(f"{where} must be a list, but is {value!r}")
        return [typed(inner, get_args(kind)[0], where) for inner in value]
    if get_origin(kind) is dict:
        if not isinstance(value, Mapping):
            raise StudyError(f"{where} must hold keys, but is {value!r}")
        return plain_values(dict(value), where)
    return plain_values(value, where) if kind is Any else _scalar(value, kind, where)


_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def _scalar(value: Any, kind: Any, where: str) -> Any:
    if isinstance(value, str) and kind is int and re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", value):
        value = int(value)
    if isinstance(value, str) and kind is float:
        with suppress(ValueError):
            value = float(value)
    good = isinstance(value, int | float if kind is float else kind) and (kind is bool or not isinstance(value, bool))
    if not good:
        raise StudyError(f"{where} must be {_WORDS[kind]}, but is {value!r}")
    plain_values(value, where)
    return float(value) if kind is float else value


@lru_cache(maxsize=64)
def kinds_of(schema: Hashable) -> dict[str, Any]:
    """The types of the keys of a class of `nas.study.schema`."""
    hints = get_type_hints(schema)
    return {f.name: hints[f.name] for f in fields(schema)}  # type: ignore[arg-type]


def literal(text: str) -> str:
    """The value of a text key as it was typed, without one pair of quotes around the whole of it."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def schema_of(of: type, *, after: Mapping[str, tuple[str, type, Any]] = MappingProxyType({})) -> Any:
    """The loose class of a frozen one: its keys with their defaults, in the types that YAML has.

    A choice of texts is text. A tuple is a list, and so is one that may be None, which is then empty. A frozen class
    inside is its own loose class. `frozen` is the way back.

    Args:
        of: The frozen class; all its fields have defaults.
        after: Further keys, by the one that each follows: name, type and setting.
    """
    hints, marks = get_type_hints(of), declared(of)
    made: list[tuple[str, Any, Any]] = []
    for one in fields(of):
        usual = one.default if one.default_factory is MISSING else one.default_factory()
        kind, value = _loose(hints[one.name], usual)
        made.append((one.name, kind, _usual(value, {MARK: marks[one.name]} if one.name in marks else {})))
        if one.name in after:
            made.append(after[one.name])
    return make_dataclass(f"{of.__name__}Schema", made, namespace={"__doc__": f"The keys of `{of.__name__}`."})


def _loose(kind: Any, usual: Any) -> tuple[Any, Any]:
    """The type that YAML has for a type of a frozen class, and the default in it."""
    parts = [part for part in get_args(kind) if part is not NoneType]
    if get_origin(kind) in (Union, UnionType):
        if NoneType in get_args(kind) and get_origin(parts[0]) is tuple:
            return list[get_args(parts[0])[0]], [] if usual is None else list(usual)  # type: ignore[misc]
        return (kind, usual) if NoneType in get_args(kind) else (Any, usual)
    if get_origin(kind) is Literal:
        return str, usual
    if get_origin(kind) is tuple:
        inner = parts[0]
        return list[schema_of(inner) if isinstance(inner, type) and is_dataclass(inner) else inner], list(usual)  # type: ignore[misc]
    if is_dataclass(kind):
        loose = schema_of(cast(type, kind))
        return loose, loose(**{one.name: getattr(usual, one.name) for one in fields(loose)})
    return kind, usual


def _usual(value: Any, metadata: Mapping[Any, Any]) -> Any:
    """A field with a default; one that may change is made anew each time."""
    if isinstance(value, list) or is_dataclass(value):
        return field(default_factory=partial(copy.deepcopy, value), metadata=metadata)
    return field(default=value, metadata=metadata)


def frozen(of: type[T], values: Mapping[str, Any], place: str = "") -> T:
    """The object of a frozen class that plain values stand for, as `schema_of` or JSON has them.

    Args:
        of: The frozen class.
        values: By key; one that is missing has its default.
        place: What the keys are named after in messages, such as `data.`.

    Raises:
        StudyError: A list has another length than its tuple.
        ConfigError: A value is out of range.
        TypeError: What should be a mapping is none.
        KeyError: A key is unknown.
    """
    hints, given = get_type_hints(of), {**values}
    return of(**{name: _frozen(hints[name], value, f"{place}{name}") for name, value in given.items()})


def _frozen(kind: Any, value: Any, where: str) -> Any:
    parts = [part for part in get_args(kind) if part is not NoneType]
    optional = NoneType in get_args(kind)
    if optional and get_origin(parts[0]) is tuple:
        if not value:
            return None
        kind, parts = parts[0], list(get_args(parts[0]))
    if get_origin(kind) is tuple:
        if parts[-1] is not Ellipsis and len(value) != len(parts):
            rule = "two numbers or be []" if optional else "three numbers, one a channel"
            raise StudyError(f"{where} must hold {rule}, but is {list(value)}")
        return tuple(_frozen(parts[0], inner, where) for inner in value)
    if is_dataclass(kind) and isinstance(value, Mapping):
        return frozen(cast(type, kind), value, f"{where}.")
    return value


def check(of: type, values: Mapping[str, Any], place: str) -> None:
    """Raises StudyError where a value of a class of `nas.study.schema` breaks the rule of its key.

    Args:
        of: The class.
        values: All of its values, by key.
        place: What the keys are named after, such as `search.`.
    """
    for name, mark in declared(of).items():
        if mark.choices and values[name] not in mark.choices:
            raise StudyError(unknown(f"{place}{name}", values[name], mark.choices))
    for fault in faults(of, values, place):
        raise StudyError(fault)
