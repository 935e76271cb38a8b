"""The plan of an ablation: its arms, the trainings that they need, and which of them are recorded already."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.ablation.answer import OVER
from nas.ablation.config import AblationConfig, Factor, Level, ablation_of, label_of
from nas.ablation.designs import Arm, Arms, arms_of, check_left, matched
from nas.ablation.variants import LevelError, Variant
from nas.cost.cost import Cost, cost_of
from nas.errors import StudyError
from nas.store.database import Store
from nas.store.records import SecondsRow, StudyRow, TrialRow
from nas.study.fidelity import recorded_fidelity
from nas.study.networks import Lookup, resolve
from nas.study.study import Study, recipe_over
from nas.train.jobs import TrainJob, job_key
from search_spaces import codec
from search_spaces.codec import digest
from search_spaces.errors import ClipError, SpecError
from search_spaces.settings import network_of, settings_in, settings_of
from search_spaces.spec import ArchSpec
from trainer.config import ConfigError
from trainer.outcomes import TESTS
from trainer.recipe import Recipe

CONTROL_SEEDS = 1_000_000  # added to the seeds of a control's runs


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """One training that a plan needs.

    Attributes:
        arm: Position of its arm.
        pair: From 0; trainings of equal pair are compared with each other.
        seed: Of the training.
        key: Names what is trained, see `job_key`.
        job: What an executor gets, without folder.
    """

    arm: int
    pair: int
    seed: int
    key: str
    job: TrainJob


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """An ablation before it begins.

    Attributes:
        config: As the study states it.
        arms: What is compared, and what was dropped.
        costs: Of each arm's network at its own clip.
        trainings: Pair by pair, so that an early look has whole pairs.
        searched: Digests of its networks that a search of the database trained; `config.first_seed` is because of them.
    """

    config: AblationConfig
    arms: Arms
    costs: tuple[Cost, ...]
    trainings: tuple[Training, ...]
    searched: tuple[str, ...] = ()

    @property
    def seeds(self) -> tuple[int, int]:
        """The first and the last seed of its pairs."""
        own = [training.seed for training in self.trainings if training.arm == 0]
        return own[0], own[-1]


def plan_of(
    config: AblationConfig,
    arms: Arms,
    *,
    num_classes: int,
    seed: int,
    checksum: str,
    num_pairs: int | None = None,
    searched: Mapping[str, int] | None = None,
) -> Plan:
    """Makes the plan.

    A result that selected a network is no evidence for it: it is the best of many, so it is too good by what luck gave
    it ("winner's curse"). Where a search trained one of the networks, all pairs have later seeds than it had.

    Args:
        config: Design, seeds and epochs.
        arms: Of the design.
        num_classes: Classes of the data.
        seed: The study's; pair i has seed + i, or with networks of a search the first seed after its own + i.
        checksum: Of the data; trainings on other data are others.
        num_pairs: Pairs, where they are not those of `config`.
        searched: From the digest of each network that a search of the database trained to the highest seed that it had.

    Raises:
        LevelError: A network does not fit the clip of its arm.
    """
    costs = tuple(_cost(arm, num_classes) for arm in arms.arms)
    base = codec.dumps(arms.arms[0].variant.spec)
    digests = dict.fromkeys(codec.digest(arm.variant.spec) for arm in arms.arms)
    found = {digest: (searched or {})[digest] for digest in digests if digest in (searched or {})}
    if found:
        config = dataclasses.replace(config, first_seed=max(0, max(found.values()) + 1 - seed))
    seed += config.first_seed
    trainings = []
    for pair in range(config.seeds if num_pairs is None else num_pairs):
        for arm in arms.arms:
            job = _job(arm.variant, base, config, num_classes=num_classes, seed=seed + pair)
            key = job_key(job, checksum)
            trainings.append(Training(arm=arm.position, pair=pair, seed=job.seed, key=key, job=job))
    return Plan(config=config, arms=arms, costs=costs, trainings=tuple(trainings), searched=tuple(found))


def _job(variant: Variant, base: str, config: AblationConfig, *, num_classes: int, seed: int) -> TrainJob:
    spec = codec.dumps(variant.spec)
    return TrainJob(
        spec=spec,
        num_classes=num_classes,
        data=variant.data,
        recipe=variant.recipe,
        seed=seed + CONTROL_SEEDS if variant.other_seeds else seed,
        folder="",
        until_epoch=config.epochs,
        paired_with="" if spec == base else base,
        by_clip=True,
        motion=TESTS[1:] if config.motion else (),
    )


def _cost(arm: Arm, num_classes: int) -> Cost:
    clip = arm.variant.data.clip
    try:
        return cost_of(arm.variant.spec, clip, num_classes=num_classes, planes=arm.variant.data.planes)
    except ClipError as error:
        raise LevelError(f"{arm.factor}={arm.level}: {error}") from error


def match_costs(config: AblationConfig, arms: Arms, *, num_classes: int) -> Arms:
    """Rescales every arm's width so that its MACs are the base's, where the study asks for it; see `matched`."""
    if config.match == "none":
        return arms
    rescaled = matched(arms, num_classes=num_classes)
    check_left(rescaled, config.design)
    return rescaled


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a plan costs.

    Attributes:
        trainings: In all, different ones.
        done: Of them, those that the record has.
        epochs: That are left to train.
        hours: Of one worker; None where no training of the study tells how long an epoch takes.
    """

    trainings: int
    done: int
    epochs: int
    hours: float | None


def estimate(plan: Plan, done: Sequence[tuple[str, int]], history: Sequence[SecondsRow]) -> Estimate:
    """Says what a plan costs.

    Args:
        plan: The plan.
        done: Keys and epochs of recorded trainings.
        history: Epochs of the study with `seconds` and the network's `train_macs`.
    """
    wanted = {(t.key, plan.config.epochs): t for t in plan.trainings}
    left = [t for name, t in wanted.items() if name not in set(done)]
    epochs = len(left) * plan.config.epochs
    seconds = [_seconds(plan.costs[t.arm].train_macs, history) for t in left]
    known = [value for value in seconds if value is not None]
    hours = plan.config.epochs * sum(known) / 3600 if len(known) == len(left) else None
    return Estimate(trainings=len(wanted), done=len(wanted) - len(left), epochs=epochs, hours=hours)


def _seconds(train_macs: int, history: Sequence[SecondsRow]) -> float | None:
    """Seconds of one epoch: those of the recorded networks that are nearest in MACs, in proportion but never less."""
    if not history:
        return None
    nearest = sorted(history, key=lambda row: abs(row["train_macs"] - train_macs))[:9]
    return statistics.median(
        [float(row["seconds"]) * max(1.0, train_macs / float(row["train_macs"])) for row in nearest]
    )


def config_of(study: Study, where: str, over: Mapping[str, Any] | None = None) -> AblationConfig:
    """The ablation that a study states.

    Args:
        study: The study.
        where: For messages.
        over: Keys of `ablation` that the command line gives.

    Raises:
        StudyError: A key is unknown, a value is out of range, or there is no base.
    """
    raw = {**dict(study.config.get("ablation", {})), **(over or {})}
    if not raw.get("base"):
        raise StudyError(
            f"ablation.base must name the network that decisions are taken away from or changed in, but is empty in "
            f"{where}; add it, or give --base (a preset, a digest of the study, or a .json file)"
        )
    return ablation_of(raw, last_rung=study.search.fidelity.full_epochs, where=where)


def between(networks: list[str], *, seeds: int, epochs: int, config: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of the ablation that compares whole networks.

    Args:
        networks: Their names; the first is the base.
        seeds: Pairs at most.
        epochs: Of each training; 0 is the study's last rung.
        config: `ablation` of the study, whose recipe, margin and confidence stay.
    """
    kept = {key: config[key] for key in ("recipe", "margin", "confidence", "precision") if key in config}
    first, *others = networks
    return {
        **kept,
        "base": first,
        "factors": {"network": {name: name for name in others}},
        "control": False,
        "seeds": seeds,
        "min_seeds": min(3, seeds) if seeds > 1 else 2,
        "looks": max(1, seeds - 2),
        "epochs": epochs,
    }


def completed(study: Study, config: AblationConfig, lookup: Lookup) -> AblationConfig:
    """The ablation with the decisions of the study's space as its factors, where it names none itself.

    Each domain that is chosen once for a network of the base's family is a factor with its values as levels.
    """
    if config.factors or config.design != "ofat":
        return config
    spec, _ = resolve(config.base, lookup)
    domains = [d for space in study.space.families if space.family == spec.family for d in space.domains]
    factors = tuple(
        Factor(path=d.name, levels=tuple(Level(label=label_of(value), value=value) for value in d.values))
        for d in domains
        if d.per == "network" and len(d.values) > 1
    )
    if not factors:
        raise StudyError(
            f"ablation.factors must hold at least 1 factor with its levels, and the space of {study.name} has no "
            f"domain of family {spec.family} to take them from"
        )
    return dataclasses.replace(config, factors=factors)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Searched:
    """Networks that the search of a database trained.

    Attributes:
        trials: By digest: their settings, as the space names them, and the seed that they were trained with.
    """

    trials: Mapping[str, TrialRow] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, store: Store | None) -> Searched:
        """Reads them; none where there is no database, or no study in it."""
        rows = [] if store is None else [row for study in store.studies() for row in store.trials(study["id"])]
        return cls(trials={row["digest"]: row for row in sorted(rows, key=lambda row: int(row["seed"]))})

    def settings(self, study: Study, spec: ArchSpec) -> Mapping[str, Any] | None:
        """The settings that the study's space made a network of; None for one that it did not make."""
        row = self.trials.get(digest(spec))
        if row is None or not row["params"]:  # a published network that the search began with
            return None
        try:
            found = settings_in(study.space, row["params"])
            return found if network_of(spec.family, found) == spec else None
        except SpecError:  # the study has another space than the database was made with
            return None

    @property
    def seeds(self) -> dict[str, int]:
        """From a digest to the highest seed that the network was trained with."""
        return {key: int(row["seed"]) for key, row in self.trials.items()}


def prepared(
    study: Study,
    config: AblationConfig,
    *,
    lookup: Lookup,
    num_classes: int,
    checksum: str,
    searched: Searched = Searched(),
) -> Plan:
    """The plan of an ablation.

    Args:
        study: Recipe, data and seed.
        config: The ablation.
        lookup: From a network's name to its spec and settings.
        num_classes: Classes of the data.
        checksum: Of the data; empty while it is not known, so that nothing counts as trained.
        searched: Networks that the search of the database trained: what they are compared by are other trainings.

    Raises:
        NasError: A network or factor does not exist, or nothing is left to compare.
    """
    spec, settings = resolve(config.base, lookup)
    if settings is None:
        settings = _settings(study, spec)
    base = Variant(spec=spec, settings=settings, recipe=_recipe(study, config), data=study.data)
    arms = match_costs(config, arms_of(config, base, lookup), num_classes=num_classes)
    return plan_of(config, arms, num_classes=num_classes, seed=study.seed, checksum=checksum, searched=searched.seeds)


def _recipe(study: Study, config: AblationConfig) -> Recipe:
    """The study's recipe with the ablation's laid over it; a schedule that ends does so with the trainings."""
    over = dict(config.recipe)
    if over.get("schedule", "anytime") != "anytime":
        over = {"epochs": config.epochs, **over}
    try:
        return recipe_over(dataclasses.asdict(study.recipe), over, where="ablation.recipe")
    except ConfigError as error:
        raise StudyError(f"{error} (ablation.recipe of {study.name})") from error


def _settings(study: Study, spec: ArchSpec) -> Mapping[str, Any] | None:
    """The settings of a named network, with the values of the study's space among those to try; None without any."""
    hints = {d.name: d.values for space in study.space.families if space.family == spec.family for d in space.domains}
    try:
        return settings_of(spec, hints)
    except SpecError:
        return None


def priced(plan: Plan, store: Store | None, row: StudyRow | None) -> Estimate:
    """What a plan costs, beside what is recorded."""
    if store is None or row is None:
        return estimate(plan, [], [])
    done = [(run["key"], run["epochs"]) for run in store.runs(row["id"]) if run["state"] in OVER]
    fidelity = recorded_fidelity(row)
    return estimate(plan, done, store.epoch_seconds(row["id"], beyond=fidelity.before(max(0, len(fidelity) - 1))))
