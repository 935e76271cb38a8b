"""The schema of a study file: plain dataclasses that OmegaConf checks keys and types against.

They are mutable and loose because Hydra needs them so; `nas.study.files` converts them once into frozen values.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, cast, get_args, get_origin, get_type_hints

import yaml

from nas.errors import StudyError, one_of


@dataclass
class ClipSchema:
    """`data.clip`: what a network sees."""

    frames: int = 16
    height: int = 112
    width: int = 112
    stride: int = 1


@dataclass
class DataSchema:
    """`data`: which videos, and how clips are taken from them."""

    name: str = "folder"
    root: str = ""
    cache: str = "runs/cache"
    num_classes: int = 0
    clip: ClipSchema = field(default_factory=ClipSchema)
    sampling: str = "dense"
    short_side: int = 128
    max_frames: int = 0
    crop_scale: list[float] = field(default_factory=list)
    flip: bool = False
    reversal: str = "none"
    short: str = "skip"
    eval_clips: int = 1
    mean: list[float] = field(default_factory=lambda: [0.43216, 0.394666, 0.37645])
    std: list[float] = field(default_factory=lambda: [0.22803, 0.22145, 0.216989])
    num_workers: int = 0
    source: str = "cache"
    fps: float = 0.0
    max_broken: float = 0.05
    eval_crops: int = 1
    crop_ratio: list[float] = field(default_factory=list)
    randaugment: list[int] = field(default_factory=list)
    colour: float = 0.0
    erasing: float = 0.0
    layout: str = "auto"
    annotations: str = ""
    definition: str = ""
    per_class: int = 0
    exclude: str = ""
    share: float = 1.0
    crop: list[int] = field(default_factory=list)
    input: str = "rgb"


@dataclass
class SpaceSchema:
    """`space`: the domains of the search, and the combinations that are never tried."""

    family: str = "resnet"
    domains: dict[str, Any] = field(default_factory=dict)
    forbid: list[Any] = field(default_factory=list)
    families: dict[str, Any] = field(default_factory=dict)


@dataclass
class InitSchema:
    """`recipe.init`: 2D weights that networks begin with."""

    weights: str = ""
    mode: str = "replicate"
    checksum: str = ""


@dataclass
class PhaseSchema:
    """One of `recipe.phases`: a stretch of training on other clips; what is 0 is as everywhere else."""

    epochs: int = 0
    frames: int = 0
    stride: int = 0
    size: int = 0
    lr: float = 0.0


@dataclass
class RecipeSchema:
    """`recipe`: how a network is trained in the search."""

    batch_size: int = 16
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    schedule: str = "anytime"
    epochs: int = 0
    warmup_epochs: float = 1.0
    ema_decay: float = 0.99
    label_smoothing: float = 0.0
    mixup: float = 0.0
    dropout: float = 0.0
    clip_grad: float = 0.0
    precision: str = "auto"
    channels_last: bool = True
    eval_every: int = 1
    aux_weight: float = 0.4
    init: InitSchema = field(default_factory=InitSchema)
    momentum: float | None = None
    nesterov: bool | None = None
    steps: list[float] = field(default_factory=list)
    step_factor: float = 0.1
    loss: str = "cross_entropy"
    bce_scale: float = 1.0
    class_weights: str = "none"
    cutmix: float = 0.0
    frozen_bn: bool = False
    accumulate: int = 1
    checkpointing: bool = False
    compile: bool = False
    phases: list[PhaseSchema] = field(default_factory=list)
    zero_init: Any = "as_published"


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
class ViewsSchema:
    """`promote.test`: how often and where a promoted network looks at a video in its test."""

    clips: int = 10
    crops: int = 1
    short_sides: list[int] = field(default_factory=list)
    full: bool = False


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
