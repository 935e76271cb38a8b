"""From a study to the plan of its ablation: the base, the arms, what each costs, and what is recorded already."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from nas.ablation.answer import OVER
from nas.ablation.config import AblationConfig, Factor, Level, ablation_of, label_of
from nas.ablation.designs import arms_of
from nas.ablation.plan import Estimate, Plan, estimate, match_costs, plan_of
from nas.ablation.variants import Lookup, Variant, resolve
from nas.errors import StudyError
from nas.fidelity import recorded_fidelity
from nas.store import Row, Store
from nas.study import Study, recipe_over
from search_spaces.codec import digest
from search_spaces.settings import network_of, settings_in, settings_of
from search_spaces.spec import ArchSpec, SpecError
from trainer.config import ConfigError, Recipe


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

    trials: Mapping[str, Row] = dataclasses.field(default_factory=dict)

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


def priced(plan: Plan, store: Store | None, row: Row | None) -> Estimate:
    """What a plan costs, beside what is recorded."""
    if store is None or row is None:
        return estimate(plan, [], [])
    done = [(run["key"], run["epochs"]) for run in store.runs(row["id"]) if run["state"] in OVER]
    fidelity = recorded_fidelity(row)
    return estimate(plan, done, store.epoch_seconds(row["id"], beyond=fidelity.before(max(0, len(fidelity) - 1))))
