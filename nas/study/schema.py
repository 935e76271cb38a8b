"""The schema of a study file: plain dataclasses that OmegaConf checks keys and types against.

They are mutable and loose because Hydra needs them so; `nas.study.files` converts them once into frozen values. The
keys of data and recipe are those of the frozen classes of `trainer.config`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, make_dataclass
from functools import lru_cache, partial
from types import MappingProxyType, NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Union, cast, get_args, get_origin, get_type_hints

import yaml

from nas.errors import StudyError, one_of
from nas.study.views import Views
from trainer.config import DataConfig, Init, Phase, Recipe


def schema_of(of: type, *, after: Mapping[str, tuple[str, type, Any]] = MappingProxyType({})) -> Any:
    """The loose class of a frozen one: its keys with their defaults, in the types that YAML has.

    A choice of texts is text. A tuple is a list, and so is one that may be None, which is then empty. A frozen class
    inside is its own loose class.

    Args:
        of: The frozen class; all its fields have defaults.
        after: Further keys, by the one that each follows: name, type and default.
    """
    hints = get_type_hints(of)
    made: list[tuple[str, Any, Any]] = []
    for one in fields(of):
        usual = one.default if one.default_factory is MISSING else one.default_factory()
        kind, value = _loose(hints[one.name], usual)
        made.append((one.name, kind, _usual(value)))
        if one.name in after:
            name, other, default = after[one.name]
            made.append((name, other, _usual(default)))
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


def _usual(value: Any) -> Any:
    """A default as a field has it: one that may change is made anew each time."""
    changes = isinstance(value, list) or is_dataclass(value)
    return field(default_factory=partial(copy.deepcopy, value)) if changes else value


if TYPE_CHECKING:  # made of the frozen classes when this is imported
    DataSchema: TypeAlias = Any
    InitSchema: TypeAlias = Any
    PhaseSchema: TypeAlias = Any
    RecipeSchema: TypeAlias = Any
    ViewsSchema: TypeAlias = Any
else:
    DataSchema = schema_of(DataConfig, after={"cache": ("num_classes", int, 0)})
    RecipeSchema, InitSchema, PhaseSchema, ViewsSchema = map(schema_of, (Recipe, Init, Phase, Views))


@dataclass
class SpaceSchema:
    """`space`: the domains of the search, and the combinations that are never tried."""

    family: str = "resnet"
    domains: dict[str, Any] = field(default_factory=dict)
    forbid: list[Any] = field(default_factory=list)
    families: dict[str, Any] = field(default_factory=dict)


@dataclass
class SearchSchema:
    """`search`: sampler, rungs and budget."""

    sampler: Any = "pool"
    scheduler: str = "asha"
    step_cost: str = "epochs"
    trials: int = 27
    initial: int = 9
    fidelity: str = "epochs"
    rungs: list[Any] = field(default_factory=lambda: [1, 3, 9])
    epochs: int = 0
    max_epochs: int = 0
    patience: int = 0
    eta: int = 3
    order: str = "hypervolume"
    strata: int = 1
    objectives: list[str] = field(default_factory=lambda: ["error", "macs"])
    pool: int = 4000
    start_with: list[Any] = field(default_factory=list)
    workers: int = 0
    accuracy: str = "auto"
    features: list[str] = field(default_factory=list)
    repeats: int = 0


@dataclass
class PromoteSchema:
    """`promote`: full training. `recipe` lays over the search's recipe."""

    epochs: int = 30
    seeds: int = 1
    recipe: dict[str, Any] = field(default_factory=dict)
    test: ViewsSchema = field(default_factory=ViewsSchema)
    devices: int = 1
    checkpoint_steps: int = 0
    keep_best: bool = False
    logs: list[str] = field(default_factory=list)


@dataclass
class AblationSchema:
    """`ablation`: which decisions are compared, and when an answer counts. `recipe` lays over the search's recipe."""

    base: Any = ""
    to: Any = ""
    design: str = "ofat"
    factors: dict[str, Any] = field(default_factory=dict)
    against: dict[str, Any] = field(default_factory=dict)
    orders: int = 1
    fraction: int = 2
    match: str = "none"
    control: bool = True
    seeds: int = 5
    min_seeds: int = 3
    looks: int = 1
    epochs: int = 0
    recipe: dict[str, Any] = field(default_factory=dict)
    margin: float = 0.01
    confidence: float = 0.95
    precision: float = 0.0
    motion: bool = False
    claims: list[Any] = field(default_factory=list)


@dataclass
class StudySchema:
    """A whole study file."""

    name: str = ""
    question: str = ""
    hypothesis: str = ""
    baseline: str = ""
    decision_rule: str = ""
    budget: str = ""
    seed: int = 0
    data: DataSchema = field(default_factory=DataSchema)
    space: SpaceSchema = field(default_factory=SpaceSchema)
    constraints: list[str] = field(default_factory=list)
    recipe: RecipeSchema = field(default_factory=RecipeSchema)
    search: SearchSchema = field(default_factory=SearchSchema)
    promote: PromoteSchema = field(default_factory=PromoteSchema)
    ablation: AblationSchema = field(default_factory=AblationSchema)
    variants: dict[str, Any] = field(default_factory=dict)


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
                raise StudyError(one_of("key", f"{before}{key}", [before + name for name in hints]))
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
    """The types of the keys of a class of this module."""
    hints = get_type_hints(schema)
    return {f.name: hints[f.name] for f in fields(schema)}  # type: ignore[arg-type]


def literal(text: str) -> str:
    """The value of a text key as it was typed, without one pair of quotes around the whole of it."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
