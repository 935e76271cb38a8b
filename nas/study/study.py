"""A study as frozen values: what a search is told, checked once.

The plain values may come from a study file (`nas.study.files`) or from the record in a database.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

from nas.errors import StudyError, unknown
from nas.study.features import FEATURES
from nas.study.fidelity import Fidelity, fidelity_of
from nas.study.metric import parse_number, short_number
from nas.study.objectives import Floor, floors_of, is_floor, objectives_of
from nas.study.plain import check, frozen, kinds_of, typed
from nas.study.samplers import Sampler, normal, sampler_of
from nas.study.schema import DataSchema, OrderBy, PromoteSchema, RecipeSchema, SearchSchema, StudySchema
from nas.study.views import Views
from search_spaces.errors import SpecError
from search_spaces.space import SearchSpace, parse_space
from trainer.config import PLACES, ConfigError, DataConfig, Log
from trainer.recipe import Recipe

LOGS: tuple[Log, ...] = get_args(Log)
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
    """Sampler, rungs and budget of a search, as the keys of `nas.study.schema.SearchSchema` say.

    Attributes:
        fidelity: The rungs: epochs, share of the videos, frames or pixels at which networks are compared.
        objectives: Names of `nas.study.objectives.OBJECTIVES`, `error` (1 - what networks are chosen by) first.
        features: Names of `nas.study.features.FEATURES`.
        floors: Constraints on what is measured.
    """

    sampler: Sampler
    trials: int
    initial: int
    fidelity: Fidelity
    eta: int
    order: OrderBy
    strata: int
    objectives: tuple[str, ...]
    pool: int
    start_with: tuple[str | Mapping[str, Any], ...]
    workers: int
    accuracy: str
    scheduler: str
    step_cost: str
    max_epochs: int
    patience: int
    features: tuple[str, ...]
    repeats: int
    logs: tuple[Log, ...]
    floors: tuple[Floor, ...]

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs that a trial has been trained in all when it reaches each rung, whatever `search.rungs` counts."""
        return self.fidelity.ends


@dataclass(frozen=True, kw_only=True, slots=True)
class PromoteConfig:
    """Full training, as the keys of `nas.study.schema.PromoteSchema` say."""

    epochs: int
    seeds: int
    recipe: Recipe
    test: Views
    devices: int
    checkpoint_steps: int
    keep_best: bool
    patience: int
    logs: tuple[Log, ...]


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
                f"ROOT/{{train,val[,test]}}/<class>/*.mp4 (or as docs/data.md lists) and give data.root=ROOT or "
                f"NAS_DATA=ROOT{others}{motion}"
            )
        return self.data


def study_of(config: Mapping[str, Any], where: str) -> Study:
    """The frozen study of plain values: those of a file, or those recorded in a database.

    Raises:
        StudyError: A value is out of range; the message names its key and `where`.
    """
    recorded = config
    try:
        config = _filled(asdict(StudySchema()), typed(config, StudySchema, ""))
        for of, values, place in (
            (StudySchema, config, ""),
            (DataSchema, config["data"], "data."),
            (SearchSchema, config["search"], "search."),
            (PromoteSchema, config["promote"], "promote."),
        ):
            check(of, values, place)
        data, recipe, promote = dict(config["data"]), config["recipe"], config["promote"]
        num_classes = data.pop("num_classes")
        clips, searched = frozen(DataConfig, data, "data."), _searched(recipe, config["search"])
        return Study(
            name=_name(config["name"]),
            texts={key: config[key] for key in TEXTS},
            seed=config["seed"],
            data=clips,
            num_classes=num_classes,
            space=parse_space(config["space"]),
            limits=tuple(limit(text) for text in config["constraints"] if not is_floor(text)),
            recipe=searched,
            search=_search(
                config["search"],
                fidelity_of(config["search"], clips, searched),
                [text for text in config["constraints"] if is_floor(text)],
            ),
            promote=PromoteConfig(
                epochs=promote["epochs"],
                seeds=promote["seeds"],
                recipe=recipe_over({**recipe, "epochs": promote["epochs"]}, promote["recipe"], where="promote.recipe"),
                test=_views(promote["test"]),
                devices=promote["devices"],
                checkpoint_steps=promote["checkpoint_steps"],
                keep_best=promote["keep_best"],
                patience=promote["patience"],
                logs=_logs("promote.logs", promote["logs"]),
            ),
            config=recorded,
        )
    except (StudyError, SpecError, ConfigError) as error:
        raise StudyError(f"{error} (in {where})") from error


def _filled(usual: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    """Stated values, and the usual ones of keys that a record lacks because they are newer."""
    keys = {key for key, value in usual.items() if value and isinstance(value, Mapping)}
    both = {key: value for key, value in stated.items() if key in keys and isinstance(value, Mapping)}
    return {**usual, **stated, **{key: _filled(usual[key], value) for key, value in both.items()}}


def _views(values: Mapping[str, Any]) -> Views:
    try:
        return frozen(Views, values)
    except ConfigError as error:
        raise StudyError(f"promote.test: {error}") from error


def _logs(key: str, names: Sequence[str]) -> tuple[Log, ...]:
    for name in names:
        if name not in LOGS:
            raise StudyError(unknown(key, name, LOGS))
    return tuple(log for log in LOGS if log in names)


def limit(text: str) -> Limit:
    """A constraint such as `macs <= 5G`.

    Raises:
        StudyError: The text is not of that form.
    """
    match = re.fullmatch(r"\s*(\w+)\s*<=\s*(\S+)\s*", text)
    if match is None:
        raise StudyError(
            f"a constraint must read like 'macs <= 5G' or 'accuracy >= 0.8', but is {text!r} (quantities with an upper "
            f"bound: {', '.join(LIMITED)})"
        )
    if match[1] not in LIMITED:
        raise StudyError(unknown("constraint quantity", match[1], LIMITED))
    return Limit(quantity=match[1], bound=parse_number(match[2]))


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ between two recorded studies, by dotted path; words, places and the budget may change.

    `search.trials` and `search.workers` may change as well, since the same search can go on with more of either. A key
    that a record lacks, because it is newer, has its default there.
    """
    free = {*TEXTS, "search.trials", "search.workers", "search.logs", "promote", "ablation"}
    free |= {f"data.{name}" for name in PLACES}
    usual = dict(_leaves(asdict(StudySchema())))
    a, b = ({**usual, **dict(_leaves(normal(config)))} for config in (old, new))
    weights, checksum = "recipe.init.weights", "recipe.init.checksum"
    if a[weights] != b[weights]:  # the same weights may lie elsewhere; others are named by their place
        free.add(weights if a[checksum] and a[checksum] == b[checksum] else checksum)
    differ = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
    return {key: (a.get(key), b.get(key)) for key in differ if not {key, key.split(".")[0]} & free}


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.loads(json.dumps(value))


def recipe_over(raw: Mapping[str, Any], over: Mapping[str, Any], *, where: str) -> Recipe:
    """The recipe of plain values, with others laid over them.

    Args:
        raw: The study's recipe.
        over: What replaces some of it.
        where: The key that `over` stands at, for messages.

    Raises:
        StudyError: A key is unknown.
        ConfigError: A value is out of range.
    """
    kinds = kinds_of(RecipeSchema)
    for key in over:
        if key not in kinds:
            raise StudyError(unknown(f"{where} key", key, sorted(kinds)))
    lists = {key for key in ("steps", "phases") if over.get(key, ()) is None}  # as `steps: null` clears them
    laid = {key: [] if key in lists else typed(value, kinds[key], f"{where}.{key}") for key, value in over.items()}
    for phase in laid.get("phases", ()):
        if "epochs" not in phase:
            raise StudyError(f"{where}.phases must each have epochs, but one has {', '.join(phase) or 'nothing'}")
    init = {**raw.get("init", {}), **laid.get("init", {})}
    if "weights" in over.get("init", {}) and "checksum" not in over["init"]:
        init["checksum"] = ""  # that of the search's weights
    values = {**raw, **laid, "init": init}
    check(RecipeSchema, values, f"{where}.")
    return frozen(Recipe, values, f"{where}.")


def _searched(raw: Mapping[str, Any], search: Mapping[str, Any]) -> Recipe:
    """The recipe of the search; a schedule that ends does so with the training at each rung, where that is settled."""
    return recipe_over({**raw, "epochs": raw["epochs"] or search.get("epochs", 0)}, {}, where="recipe")


def _search(raw: Mapping[str, Any], fidelity: Fidelity, floors: Sequence[str]) -> SearchConfig:
    sampler = sampler_of(raw["sampler"])
    if raw["scheduler"] == "freeze_thaw" and sampler.own != "pool":
        raise StudyError(
            f"search.scheduler freeze_thaw decides by the model of the sampler pool, but search.sampler is {sampler}"
        )
    objectives, accuracy = objectives_of(raw["objectives"], raw["accuracy"])
    return SearchConfig(
        sampler=sampler,
        trials=raw["trials"],
        initial=raw["initial"],
        fidelity=fidelity,
        eta=raw["eta"],
        order=raw["order"],
        strata=raw["strata"],
        objectives=objectives,
        pool=raw["pool"],
        start_with=tuple(_start(value) for value in raw["start_with"]),
        workers=raw["workers"],
        accuracy=accuracy,
        scheduler=raw["scheduler"],
        step_cost=raw["step_cost"],
        max_epochs=_max_epochs(raw["max_epochs"], fidelity),
        patience=raw["patience"],
        features=_features(raw["features"], sampler),
        repeats=_repeats(raw["repeats"], raw["scheduler"]),
        logs=_logs("search.logs", raw["logs"]),
        floors=floors_of(floors, objectives, accuracy),
    )


def _features(names: Sequence[str], sampler: Sampler) -> tuple[str, ...]:
    for name in names:
        if name not in FEATURES:
            raise StudyError(unknown("search.features", name, FEATURES))
    if len(set(names)) != len(names):
        raise StudyError(f"search.features must hold each score once, but is {list(names)}")
    if names and sampler.own != "pool":
        raise StudyError(f"search.features are seen by the model of the sampler pool, but search.sampler is {sampler}")
    return tuple(names)


def _repeats(value: int, scheduler: str) -> int:
    if value and scheduler != "freeze_thaw":
        raise StudyError(
            f"search.repeats are decided by the model of the scheduler freeze_thaw, but search.scheduler is {scheduler}"
        )
    return value


def _max_epochs(value: int, fidelity: Fidelity) -> int:
    if value and value < fidelity.ends[-1]:
        raise StudyError(
            f"search.max_epochs must be 0 or at least the {fidelity.ends[-1]} epochs of one network at the last rung, "
            f"but is {value}"
        )
    return value


def _start(value: Any) -> str | Mapping[str, Any]:
    if not isinstance(value, str | Mapping):
        raise StudyError(
            "search.start_with must hold presets, or settings such as {family: resnet, kind: 2d}, but one of them is "
            f"{value!r}"
        )
    return value


def _name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise StudyError(f"name must be letters, digits, '.', '_' and '-', but is {name!r}")
    return name
