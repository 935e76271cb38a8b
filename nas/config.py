"""A study file and its overrides, read once into frozen values.

`data=NAME` picks a variant that the file itself states under `variants:` and lays it over the rest; every other
override is `key=value` in Hydra's grammar. Nothing is composed from other files, the working directory stays, no file
is written.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from nas.errors import StudyError, one_of
from nas.schema import StudySchema
from nas.search.scheduler import OrderBy
from search_spaces.space import SearchSpace, parse_space
from search_spaces.spec import SpecError
from trainer.config import Clip, ConfigError, DataConfig, Recipe

SAMPLERS = ("random", "tpe", "nsga2", "gp")
OBJECTIVES = ("error", "macs", "params")
LIMITED = ("macs", "params", "activation_bytes")
TEXTS = ("question", "hypothesis", "baseline", "decision_rule", "budget")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """A constraint on exact cost: `quantity <= bound`."""

    quantity: str
    bound: int

    def __str__(self) -> str:
        return f"{self.quantity} <= {short_number(self.bound)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchConfig:
    """Sampler, rungs and budget of a search.

    Attributes:
        sampler: One of `random`, `tpe`, `nsga2`, `gp`.
        trials: Networks to start in all, over all restarts.
        initial: How many of them are drawn evenly over log MACs before the sampler proposes.
        rungs: Epochs at which is decided, ascending.
        eta: Reduction factor.
        order: What ranks a rung: `hypervolume` (what a network adds to it) or `fronts` (with an epsilon-net inside).
        strata: Classes of cost, equal parts of the range of log MACs, that take turns in promotion; 1 turns it off.
        objectives: What is minimised, `error` (1 - top-1 on val) first.
        pool: At most this many networks are held ready to be proposed.
        start_with: Named networks that are tried first.
        workers: Processes that train; 0 trains in the driver itself.
    """

    sampler: str
    trials: int
    initial: int
    rungs: tuple[int, ...]
    eta: int
    order: OrderBy
    strata: int
    objectives: tuple[str, ...]
    pool: int
    start_with: tuple[str, ...]
    workers: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PromoteConfig:
    """Full training: epochs, number of seeds, and the recipe."""

    epochs: int
    seeds: int
    recipe: Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """One question: a space, data, a recipe and a budget.

    Attributes:
        name: Names the folder and the rows of the study.
        texts: Question, hypothesis, baseline, decision rule and budget in words.
        seed: Seeds the pool, the sampler and every training.
        data: Videos and clips.
        num_classes: Classes that costs are counted for when the data is not at hand; 0 asks the data.
        space: What may be searched.
        limits: Constraints on cost.
        recipe: How networks are trained in the search.
        search: Sampler, rungs, budget.
        promote: Full training.
        config: All of the above as plain JSON values, as it is recorded.
        variants: Names that `data=NAME` may pick in the study's file.
    """

    name: str
    texts: Mapping[str, str]
    seed: int
    data: DataConfig
    num_classes: int
    space: SearchSpace
    limits: tuple[Limit, ...]
    recipe: Recipe
    search: SearchConfig
    promote: PromoteConfig
    config: Mapping[str, Any]
    variants: tuple[str, ...] = ()

    def located_data(self) -> DataConfig:
        """The data, once the study says where it lies.

        Raises:
            StudyError: `data.root` is empty.
        """
        if not self.data.root:
            others = "".join(f", or data={name} to take that variant of the study" for name in self.variants)
            motion = " (`nas data make motion` writes it)" if "motion" in self.variants else ""
            raise StudyError(
                f"data.root is empty, so the videos of {self.data.name} are missing: lay them out as "
                f"ROOT/{{train,val[,test]}}/<class>/*.mp4 and give data.root=ROOT or NAS_DATA=ROOT{others}{motion}"
            )
        return self.data


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> Study:
    """Reads a study file.

    Args:
        path: The YAML file.
        overrides: `key=value` settings; `data=NAME` picks a variant of the file.

    Raises:
        StudyError: One line that says which key or value breaks which rule, and what would be valid.
    """
    where = str(path)
    raw = _read(Path(path))
    settings = [_override(text) for text in overrides]
    variant = next((str(value) for key, value in settings if key == "data"), None)
    _check_keys(raw, StudySchema(), "", where)
    variants = raw.pop("variants", None) or {}
    for name, body in variants.items():
        _check_keys(body or {}, StudySchema(), "", f"{where}, variants.{name}")
    base_name = (raw.get("data") or {}).get("name", "folder")
    if variant is not None and variant != base_name:
        if variant not in variants:
            raise StudyError(f"{one_of('data', variant, [base_name, *variants])} in {where}")
        raw = _merged(raw, variants[variant] or {})
    for key, value in settings:
        if key != "data":
            _check_keys(_nested(key, value), StudySchema(), "", "the command line")
            raw = _merged(raw, _nested(key, value))
    plain = _typed(raw, where)
    if not plain["name"]:
        plain["name"] = Path(path).stem
    return dataclasses.replace(study_of(plain, where), variants=tuple(variants))


def study_of(config: Mapping[str, Any], where: str) -> Study:
    """The frozen study of plain values: those of a file, or those recorded in a database.

    Raises:
        StudyError: A value is out of range; the message names its key and `where`.
    """
    data, recipe = dict(config["data"]), dict(config["recipe"])
    try:
        num_classes = data.pop("num_classes")
        data["clip"] = Clip(**data["clip"])
        data["crop_scale"] = _pair(data["crop_scale"])
        data["mean"], data["std"] = _triple("data.mean", data["mean"]), _triple("data.std", data["std"])
        promote = dict(config["promote"])
        unknown = sorted(set(promote["recipe"]) - set(recipe))
        if unknown:
            raise StudyError(one_of("promote.recipe key", unknown[0], recipe))
        return Study(
            name=_name(config["name"]),
            texts={key: config[key] for key in TEXTS},
            seed=config["seed"],
            data=DataConfig(**data),
            num_classes=num_classes,
            space=parse_space(config["space"]),
            limits=tuple(limit(text) for text in config["constraints"]),
            recipe=Recipe(**recipe),
            search=_search(config["search"]),
            promote=PromoteConfig(
                epochs=_at_least("promote.epochs", promote["epochs"], 1),
                seeds=_at_least("promote.seeds", promote["seeds"], 1),
                recipe=Recipe(**{**recipe, "epochs": promote["epochs"], **promote["recipe"]}),
            ),
            config=config,
        )
    except (StudyError, SpecError, ConfigError) as error:
        raise StudyError(f"{error} (in {where})") from error


def apply_promote(config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A recorded study with other settings of its promotion.

    Args:
        config: As recorded in a database.
        overrides: `promote.key=value` settings; `data.root` and `data.cache` may be given too, since folders move.

    Raises:
        StudyError: A setting is not known, or is one that the search was made with.
    """
    result = dict(config)
    for key, value in (_override(text) for text in overrides):
        if not key.startswith("promote.") and key not in ("data.root", "data.cache", "data.num_workers"):
            raise StudyError(
                f"a promotion keeps the search's {key}; promote.…, data.root, data.cache, data.num_workers may be set"
            )
        _check_keys(_nested(key, value), StudySchema(), "", "the command line")
        result = _merged(result, _nested(key, value))
    return _typed(result, "the command line")


def limit(text: str) -> Limit:
    """A constraint such as `macs <= 5G`.

    Raises:
        StudyError: The text is not of that form.
    """
    match = re.fullmatch(r"\s*(\w+)\s*<=\s*(\S+)\s*", text)
    if match is None:
        raise StudyError(
            f"a constraint must read like 'macs <= 5G', but is {text!r} (quantities: {', '.join(LIMITED)})"
        )
    if match[1] not in LIMITED:
        raise StudyError(one_of("constraint quantity", match[1], LIMITED))
    return Limit(quantity=match[1], bound=parse_number(match[2]))


def parse_number(text: str) -> int:
    """A whole number with an optional k, M, G or T, such as `2.5G`.

    Raises:
        StudyError: The text is not such a number, or it is not above 0.
    """
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([kKMGT]?)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise StudyError(f"a number above 0 such as 300M or 2.5G is needed, but got {text!r} (units: k, M, G, T)")
    unit: int = 1000 ** " kMGT".index(match[2].replace("K", "k") or " ")
    return round(float(match[1]) * unit)


def short_number(value: float) -> str:
    """`value` with three significant digits and a unit: 40.7G."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}" if value / size < 1000 else f"{value / size:.0f}{unit}"
    return f"{value:.3g}"


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ between two recorded studies, by dotted path; words, places and the budget may change.

    `search.trials` and `search.workers` may change as well, since the same search can go on with more of either.
    """
    free = {*TEXTS, "search.trials", "search.workers", "data.root", "data.cache", "data.num_workers", "promote"}
    a, b = dict(_leaves(old)), dict(_leaves(new))
    differ = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
    return {key: (a.get(key), b.get(key)) for key in differ if not {key, key.split(".")[0]} & free}


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        near = ", ".join(sorted(str(p) for p in path.parent.glob("*.y*ml"))[:8]) if path.parent.is_dir() else "none"
        raise StudyError(f"study file {path} cannot be read: {error.strerror} (files beside it: {near})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise StudyError(f"{place} must be YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(raw, dict):
        raise StudyError(f"{path} must hold keys and values, but holds {type(raw).__name__}")
    return raw


def _override(text: str) -> tuple[str, Any]:
    if text.startswith(("+", "~")) or text.startswith("hydra"):
        raise StudyError(f"an override must read key=value without +, ~ or hydra., but is {text!r}")
    if "=" not in text:
        raise StudyError(f"an override must read key=value, but is {text!r} (for example search.trials=9)")
    try:
        parsed = OverridesParser.create().parse_override(text)
        if parsed.is_sweep_override():
            raise StudyError(f"an override must name one value, but {text!r} names several; write a list as key=[a,b]")
        return parsed.key_or_group, OmegaConf.to_container(OmegaConf.create({"v": parsed.value()}))["v"]  # type: ignore[index, call-overload]
    except HydraException as error:
        raise StudyError(f"override {text!r} cannot be read: {str(error).splitlines()[0]}") from error


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
            raise StudyError(f"{one_of('key', f'{prefix}{key}', sorted(prefix + name for name in known))} in {where}")
        if value is not None:
            _check_keys(value, getattr(schema, key), f"{prefix}{key}.", where)


def _names(schema: Any) -> str:
    return ", ".join(f.name for f in dataclasses.fields(schema))


def _typed(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    try:
        merged = OmegaConf.merge(OmegaConf.structured(StudySchema), OmegaConf.create(dict(raw)))
        plain = cast(dict[str, Any], OmegaConf.to_container(merged, resolve=True))
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "a key"
        raise StudyError(f"{key}: {str(error).splitlines()[0]} (in {where})") from error
    plain.pop("variants", None)
    domains = plain["space"]["domains"]
    plain["space"]["domains"] = {name: values for name, values in domains.items() if values is not None}
    return plain


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`, key by key; lists and values are replaced whole."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = _merged(cast(Mapping[str, Any], below), value) if both else value
    return result


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return cast(dict[str, Any], value)


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.loads(json.dumps(value))


def _search(raw: Mapping[str, Any]) -> SearchConfig:
    rungs = tuple(raw["rungs"])
    if not rungs or any(a >= b for a, b in zip((0, *rungs), rungs, strict=False)):
        raise StudyError(f"search.rungs must be ascending numbers of epochs such as [3, 9, 27], but is {list(rungs)}")
    if raw["sampler"] not in SAMPLERS:
        raise StudyError(one_of("search.sampler", raw["sampler"], SAMPLERS))
    if raw["order"] not in get_args(OrderBy):
        raise StudyError(one_of("search.order", raw["order"], get_args(OrderBy)))
    objectives = tuple(raw["objectives"])
    for name in objectives:
        if name not in OBJECTIVES:
            raise StudyError(one_of("search.objectives", name, OBJECTIVES))
    if not objectives or objectives[0] != "error" or len(set(objectives)) != len(objectives):
        raise StudyError(f"search.objectives must begin with error, each once, but is {list(objectives)}")
    return SearchConfig(
        sampler=raw["sampler"],
        trials=_at_least("search.trials", raw["trials"], 1),
        initial=_at_least("search.initial", raw["initial"], 0),
        rungs=rungs,
        eta=_at_least("search.eta", raw["eta"], 2),
        order=raw["order"],
        strata=_at_least("search.strata", raw["strata"], 1),
        objectives=objectives,
        pool=_at_least("search.pool", raw["pool"], 1),
        start_with=tuple(raw["start_with"]),
        workers=_at_least("search.workers", raw["workers"], 0),
    )


def _name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise StudyError(f"name must be letters, digits, '.', '_' and '-', but is {name!r}")
    return name


def _at_least(key: str, value: int, low: int) -> int:
    if value < low:
        raise StudyError(f"{key} must be at least {low}, but is {value}")
    return value


def _pair(value: Sequence[float]) -> tuple[float, float] | None:
    if value and len(value) != 2:
        raise StudyError(f"data.crop_scale must be [low, high] or [], but is {list(value)}")
    return (value[0], value[1]) if value else None


def _triple(key: str, value: Sequence[float]) -> tuple[float, float, float]:
    if len(value) != 3:
        raise StudyError(f"{key} must hold three numbers, one a channel, but is {list(value)}")
    return (value[0], value[1], value[2])
