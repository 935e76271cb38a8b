"""A study as frozen values: what a search is told, checked once.

The plain values may come from a study file (`nas.study.files`) or from the record in a database.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from nas.errors import StudyError, one_of
from nas.study.features import FEATURES
from nas.study.fidelity import Fidelity, fidelity_of
from nas.study.metric import CHOICES, parse_number, short_number
from nas.study.objectives import Floor, floors_of, is_floor, objectives_of
from nas.study.samplers import OWN, Sampler, normal, sampler_of
from nas.study.schema import InitSchema, PhaseSchema, RecipeSchema, StudySchema, kinds_of, typed
from nas.study.views import Views, views_of
from search_spaces.errors import SpecError
from search_spaces.space import SearchSpace, parse_space
from trainer.config import PLACES, Clip, ConfigError, DataConfig, Init, Log, Phase, Recipe

SAMPLERS = OWN
SCHEDULERS = ("asha", "freeze_thaw", "hyperband", "iepoch", "none")
STEP_COSTS = ("epochs", "macs")
OrderBy = Literal["hypervolume", "fronts"]
LOGS: tuple[Log, ...] = get_args(Log)
LIMITED = ("macs", "params", "activation_bytes")
_MOST = 10**9  # of anything that is counted; more is a slip, and would be waited for without end
_MOST_SEED = 10**18  # further trainings take the seeds after it, and a database holds none from 2**63 on
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
        sampler: One of `SAMPLERS`, or a class of Optuna, of a hub or of NNI.
        scheduler: One of `SCHEDULERS`.
        step_cost: What freeze-thaw holds a gain against: one of `STEP_COSTS`.
        trials: Networks to start in all, over all restarts.
        patience: Steps in a row of which the model expects little, after which a search ends; 0 is none.
        max_epochs: Epochs to train in all, over all restarts; 0 is no limit, and with `freeze_thaw` what halving would
            take for these trials.
        initial: Trials that are drawn evenly over log MACs before the sampler proposes.
        fidelity: The rungs: epochs, share of the videos, frames or pixels at which networks are compared.
        eta: Reduction factor.
        order: What ranks a rung: `hypervolume` (what a network adds to it) or `fronts` (with an epsilon-net inside).
        strata: Classes of cost, equal parts of the range of log MACs, that take turns in promotion; 1 turns it off.
        objectives: Names of `nas.study.objectives.OBJECTIVES`, `error` (1 - what networks are chosen by) first.
        pool: At most this many networks are held ready to be proposed.
        start_with: Networks that are tried first, by name or as settings.
        workers: Processes that train; 0 trains in the driver itself.
        accuracy: What networks are chosen by: `top1`, `top5`, `balanced`, `map`, or `auto`, which is `map` where videos
            have several labels and `top1` elsewhere.
        features: Scores of networks, of `nas.search.scores.FEATURES`, that the model of the sampler `pool` sees.
        repeats: Further trainings, with other seeds, that freeze-thaw may give a network of the front at most.
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
    floors: tuple[Floor, ...]

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs that a trial has been trained in all when it reaches each rung."""
        return self.fidelity.ends


@dataclass(frozen=True, kw_only=True, slots=True)
class PromoteConfig:
    """Full training.

    Attributes:
        epochs: Of one training.
        seeds: Trainings of a network.
        recipe: How.
        test: How often each video is looked at in the test.
        devices: Processes that train together, one a GPU (0 for all visible ones); on the CPU that number.
        checkpoint_steps: Steps between checkpoints within an epoch; 0 writes none.
        keep_best: Whether the weights of the epoch that is best on val are kept too.
        logs: Beside `progress.jsonl`: `csv`, `tensorboard`.
    """

    epochs: int
    seeds: int
    recipe: Recipe
    test: Views
    devices: int
    checkpoint_steps: int
    keep_best: bool
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
        data, recipe = dict(config["data"]), config["recipe"]
        num_classes = data.pop("num_classes")
        data["clip"] = Clip(**data["clip"])
        data["crop_scale"] = _pair("data.crop_scale", data["crop_scale"])
        data["crop_ratio"] = _pair("data.crop_ratio", data["crop_ratio"])
        data["randaugment"] = _pair("data.randaugment", data["randaugment"])
        data["crop"] = _pair("data.crop", data["crop"])
        data["mean"], data["std"] = _triple("data.mean", data["mean"]), _triple("data.std", data["std"])
        promote = dict(config["promote"])
        clips, searched = DataConfig(**data), _searched(recipe, config["search"])
        return Study(
            name=_name(config["name"]),
            texts={key: config[key] for key in TEXTS},
            seed=_at_least("seed", config["seed"], 0, _MOST_SEED),
            data=clips,
            num_classes=_at_least("data.num_classes", num_classes, 0),
            space=parse_space(config["space"]),
            limits=tuple(limit(text) for text in config["constraints"] if not is_floor(text)),
            recipe=searched,
            search=_search(
                config["search"],
                fidelity_of(config["search"], clips, searched),
                [text for text in config["constraints"] if is_floor(text)],
            ),
            promote=PromoteConfig(
                epochs=_at_least("promote.epochs", promote["epochs"], 1),
                seeds=_at_least("promote.seeds", promote["seeds"], 1),
                recipe=recipe_over({**recipe, "epochs": promote["epochs"]}, promote["recipe"], where="promote.recipe"),
                test=_views(promote["test"]),
                devices=_at_least("promote.devices", promote["devices"], 0),
                checkpoint_steps=_at_least("promote.checkpoint_steps", promote["checkpoint_steps"], 0),
                keep_best=promote["keep_best"],
                logs=_logs(promote["logs"]),
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
        return views_of(values)
    except ConfigError as error:
        raise StudyError(f"promote.test: {error}") from error


def _logs(names: Sequence[str]) -> tuple[Log, ...]:
    for name in names:
        if name not in LOGS:
            raise StudyError(one_of("promote.logs", name, LOGS))
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
        raise StudyError(one_of("constraint quantity", match[1], LIMITED))
    return Limit(quantity=match[1], bound=parse_number(match[2]))


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ between two recorded studies, by dotted path; words, places and the budget may change.

    `search.trials` and `search.workers` may change as well, since the same search can go on with more of either. A key
    that a record lacks, because it is newer, has its default there.
    """
    free = {*TEXTS, "search.trials", "search.workers", "promote", "ablation"}
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
            raise StudyError(one_of(f"{where} key", key, sorted(kinds)))
    other = over.get("init", {})
    names = kinds_of(InitSchema)
    if not isinstance(other, Mapping) or not set(other) <= set(names):
        raise StudyError(f"{where}.init must hold keys ({', '.join(names)}), but is {other}")
    init = {**raw.get("init", {}), **typed(other, InitSchema, f"{where}.init")}
    if "weights" in other and "checksum" not in other:
        init["checksum"] = ""  # that of the search's weights
    scalars = [key for key in over if key not in ("init", "steps", "phases")]
    laid = {**over, **{key: typed(over[key], kinds[key], f"{where}.{key}") for key in scalars}}
    values = {**raw, **laid, "init": Init(**init)}
    return Recipe(**values | {"steps": _steps(values, where), "phases": _phases(values, where)})


def _steps(values: Mapping[str, Any], where: str) -> tuple[float, ...]:
    steps = values.get("steps") or ()
    numbers = isinstance(steps, list | tuple) and all(
        isinstance(step, int | float) and not isinstance(step, bool) for step in steps
    )
    if not numbers:
        raise StudyError(f"{where}.steps must be a list of epochs such as [10, 20], but is {steps}")
    return tuple(float(step) for step in steps)


def _phases(values: Mapping[str, Any], where: str) -> tuple[Phase, ...]:
    phases = values.get("phases") or ()
    names = sorted(kinds_of(PhaseSchema))
    if not isinstance(phases, list | tuple) or not all(isinstance(phase, Mapping) for phase in phases):
        raise StudyError(f"{where}.phases must be a list of keys ({', '.join(names)}), but is {phases}")
    for phase in phases:
        for key in phase:
            if key not in names:
                raise StudyError(one_of(f"{where}.phases key", key, names))
        if "epochs" not in phase:
            raise StudyError(f"{where}.phases must each have epochs, but one has {', '.join(phase) or 'nothing'}")
    return tuple(Phase(**typed(phase, PhaseSchema, f"{where}.phases'")) for phase in phases)


def _searched(raw: Mapping[str, Any], search: Mapping[str, Any]) -> Recipe:
    """The recipe of the search; a schedule that ends does so with the training at each rung, where that is settled."""
    return recipe_over({**raw, "epochs": raw["epochs"] or search.get("epochs", 0)}, {}, where="recipe")


def _search(raw: Mapping[str, Any], fidelity: Fidelity, floors: Sequence[str]) -> SearchConfig:
    sampler = sampler_of(raw["sampler"])
    for key, choices in (("scheduler", SCHEDULERS), ("step_cost", STEP_COSTS)):
        if raw[key] not in choices:
            raise StudyError(one_of(f"search.{key}", raw[key], choices))
    if raw["scheduler"] == "freeze_thaw" and sampler.own != "pool":
        raise StudyError(
            f"search.scheduler freeze_thaw decides by the model of the sampler pool, but search.sampler is {sampler}"
        )
    if raw["order"] not in get_args(OrderBy):
        raise StudyError(one_of("search.order", raw["order"], get_args(OrderBy)))
    if raw["accuracy"] not in CHOICES:
        raise StudyError(one_of("search.accuracy", raw["accuracy"], CHOICES))
    objectives, accuracy = objectives_of(raw["objectives"], raw["accuracy"])
    return SearchConfig(
        sampler=sampler,
        trials=_at_least("search.trials", raw["trials"], 1),
        initial=_at_least("search.initial", raw["initial"], 0),
        fidelity=fidelity,
        eta=_at_least("search.eta", raw["eta"], 2),
        order=raw["order"],
        strata=_at_least("search.strata", raw["strata"], 1, 1_000),
        objectives=objectives,
        pool=_at_least("search.pool", raw["pool"], 1),
        start_with=tuple(_start(value) for value in raw["start_with"]),
        workers=_at_least("search.workers", raw["workers"], 0),
        accuracy=accuracy,
        scheduler=raw["scheduler"],
        step_cost=raw["step_cost"],
        max_epochs=_max_epochs(raw["max_epochs"], fidelity),
        patience=_at_least("search.patience", raw["patience"], 0),
        features=_features(raw["features"], sampler),
        repeats=_repeats(raw["repeats"], raw["scheduler"]),
        floors=floors_of(floors, objectives, accuracy),
    )


def _features(names: Sequence[str], sampler: Sampler) -> tuple[str, ...]:
    for name in names:
        if name not in FEATURES:
            raise StudyError(one_of("search.features", name, FEATURES))
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
    return _at_least("search.repeats", value, 0, 100)


def _max_epochs(value: int, fidelity: Fidelity) -> int:
    if value and value < fidelity.ends[-1]:
        raise StudyError(
            f"search.max_epochs must be 0 or at least the {fidelity.ends[-1]} epochs of one network at the last rung, "
            f"but is {value}"
        )
    return _at_least("search.max_epochs", value, 0)


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


def _at_least(key: str, value: int, low: int, most: int = _MOST) -> int:
    if not low <= value <= most:
        bound = f"at least {low}" if value < low else f"at most {most:,}"
        raise StudyError(f"{key} must be {bound}, but is {value}")
    return value


def _pair(key: str, value: Sequence[Any]) -> tuple[Any, Any] | None:
    if value and len(value) != 2:
        raise StudyError(f"{key} must hold two numbers or be [], but is {list(value)}")
    return (value[0], value[1]) if value else None


def _triple(key: str, value: Sequence[float]) -> tuple[float, float, float]:
    if len(value) != 3:
        raise StudyError(f"{key} must hold three numbers, one a channel, but is {list(value)}")
    return (value[0], value[1], value[2])
