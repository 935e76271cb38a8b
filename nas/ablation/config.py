"""What a study says of its ablation, as frozen values, checked once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from nas.errors import StudyError, unknown
from nas.study.plain import check
from nas.study.schema import AblationSchema

EXPECTED = ("better", "worse", "equivalent")
BASE = "base"
CONTROL = "A/A"


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """One value of a factor.

    Attributes:
        label: How it is shown.
        value: What stands at the factor's path.
    """

    label: str
    value: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Factor:
    """What is varied.

    Attributes:
        path: `recipe.KEY`, `data.KEY`, `network` (whole networks by name), a domain of the base's family (`kind`), or a
            path in the spec, where `*` stands for every index (`stages.*.blocks.*.temporal.kind`).
        levels: Its values.
    """

    path: str
    levels: tuple[Level, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A document's comparison, to be held against what is measured.

    Attributes:
        text: In one sentence.
        document: Who says so, and where.
        arm: `FACTOR=LEVEL` of what is claimed to differ, or `base`.
        than: `FACTOR=LEVEL` of what it is compared with, or `base`.
        expect: `better`, `worse` or `equivalent`.
        stated: The document's difference in points of top-1; None where it gives none.
    """

    text: str
    document: str
    arm: str
    than: str
    expect: str
    stated: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AblationConfig:
    """Design, seeds and decision rule of an ablation, as the keys of `nas.study.schema.AblationSchema` say.

    Attributes:
        against: From a factor to the label of a level.
        epochs: Of each training; at least 1.
        margin: A share of 1.
        first_seed: Added to the study's seed for the first pair, so that no pair has a seed with which a search of the
            database trained one of the networks.
    """

    base: Any
    to: Any
    design: str
    factors: tuple[Factor, ...]
    against: Mapping[str, str]
    orders: int
    fraction: int
    match: str
    control: bool
    seeds: int
    min_seeds: int
    looks: int
    epochs: int
    recipe: Mapping[str, Any]
    margin: float
    confidence: float
    precision: float
    motion: bool
    claims: tuple[Claim, ...]
    first_seed: int = 0

    def record(self) -> dict[str, Any]:
        """Returns what makes two ablations the same question, as plain values: all that bears on the effects."""
        kept: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        for free in ("claims", "motion"):
            del kept[free]
        for later in (
            "against",
            "recipe",
            "first_seed",
        ):  # ablations recorded before there were such keys keep their names
            if not kept[later]:
                del kept[later]
        return kept

    def name(self) -> str:
        """Returns how the ablation is called: its design, and letters that change with what was decided beforehand."""
        letters = hashlib.sha256(json.dumps(self.record(), sort_keys=True).encode()).hexdigest()[:6]
        return f"{self.design}-{letters}"


def recorded(design: Mapping[str, Any]) -> AblationConfig:
    """The ablation that `AblationConfig.record` has written, without claims.

    Args:
        design: As a database has it; keys that came later may be missing.

    Raises:
        KeyError: A key is missing.
        TypeError: A value is of another type.
        ValueError: A value is out of range.
    """
    kept = {"against": {}, "recipe": {}, "first_seed": 0, **design, "claims": (), "motion": False}
    whole = {name: _whole(kept[name]) for name in ("seeds", "min_seeds", "looks", "epochs")}
    shares = {name: float(kept[name]) for name in ("confidence", "margin", "precision")}
    if min(whole.values()) < 1 or not 0 < shares["confidence"] < 1 or not 0 < shares["margin"] < 1:
        raise ValueError("seeds, looks, confidence or margin are out of range")
    factors = tuple(
        Factor(path=factor["path"], levels=tuple(Level(label=x["label"], value=x["value"]) for x in factor["levels"]))
        for factor in kept["factors"]
    )
    known = {field.name: kept[field.name] for field in fields(AblationConfig)}
    return AblationConfig(**{**known, **whole, **shares, "factors": factors})


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value


def ablation_of(config: Mapping[str, Any], *, last_rung: int, where: str) -> AblationConfig:
    """Reads `ablation` of a study.

    Args:
        config: Its plain values.
        last_rung: Epochs where `epochs` is 0.
        where: For messages.

    Raises:
        StudyError: A key is unknown, or a value is out of range.
    """
    raw = {**asdict(AblationSchema()), **config}
    try:
        for key in raw:
            if key not in {field.name for field in fields(AblationSchema)}:
                raise StudyError(unknown("ablation key", key, [field.name for field in fields(AblationSchema)]))
        _check_seeds(raw["seeds"])
        check(AblationSchema, raw, "ablation.")
        factors = tuple(_factor(path, levels) for path, levels in raw["factors"].items() if levels is not None)
        read = AblationConfig(
            base=raw["base"],
            to=raw["to"],
            design=raw["design"],
            factors=factors,
            against={path: label_of(level) for path, level in raw["against"].items() if level is not None},
            orders=raw["orders"],
            fraction=raw["fraction"],
            match=raw["match"],
            control=bool(raw["control"]) or raw["design"] == "control",
            seeds=raw["seeds"],
            min_seeds=raw["min_seeds"],
            looks=raw["looks"],
            epochs=raw["epochs"] or last_rung,
            recipe=raw["recipe"],
            margin=float(raw["margin"]),
            confidence=float(raw["confidence"]),
            precision=float(raw["precision"]),
            motion=bool(raw["motion"]),
            claims=tuple(_claim(i, body) for i, body in enumerate(raw["claims"])),
        )
        _check(read)
    except StudyError as error:
        raise StudyError(f"{error} (in {where})") from error
    return read


def _check(config: AblationConfig) -> None:
    if config.min_seeds > config.seeds:
        raise StudyError(
            f"ablation.min_seeds must be at most ablation.seeds, but are {config.min_seeds} and {config.seeds}"
        )
    if config.design == "control" and config.factors:
        raise StudyError(
            f"design control trains the base against itself and has no factors, but has {config.factors[0].path}"
        )
    if config.against and config.design != "ofat":
        raise StudyError(f"ablation.against needs design ofat, but ablation.design is {config.design}")
    if config.design == "path" and not config.to:
        raise StudyError("ablation.to must name the network at which a path ends, but is empty")
    if config.design not in ("path", "ofat", "control") and not config.factors:
        raise StudyError(
            "ablation.factors must hold at least 1 factor with its levels, such as kind: [2d, 3d], but is empty"
        )
    for factor in config.factors:
        labels = [level.label for level in factor.levels]
        if len(set(labels)) < len(labels):
            raise StudyError(f"ablation.factors.{factor.path}: a level must stand once, but are {', '.join(labels)}")
        if config.against.get(factor.path, labels[0]) not in labels:
            raise StudyError(unknown(f"level of ablation.against.{factor.path}", config.against[factor.path], labels))
    for path in config.against:
        if path not in {factor.path for factor in config.factors}:
            raise StudyError(unknown("factor of ablation.against", path, [factor.path for factor in config.factors]))
    if config.design == "leave_out":
        several = [factor.path for factor in config.factors if len(factor.levels) != 1]
        if several:
            raise StudyError(
                f"ablation.factors.{several[0]}: with design leave_out a component has one level, what it is without; "
                "use design ofat for several"
            )
    if config.design in ("factorial", "fractional"):
        single = [factor.path for factor in config.factors if len(factor.levels) < 2]
        if single:
            raise StudyError(f"ablation.factors.{single[0]} must have at least 2 levels in a factorial, but has 1")
    if config.design == "fractional":
        many = [factor.path for factor in config.factors if len(factor.levels) != 2]
        if many:
            raise StudyError(f"ablation.factors.{many[0]}: a fractional factorial needs 2 levels of each factor")
        most = _largest_fraction(len(config.factors))
        if config.fraction & (config.fraction - 1) or config.fraction > most:
            raise StudyError(
                f"ablation.fraction must be a power of 2 and at most {most} for {len(config.factors)} factors, but is "
                f"{config.fraction}: main effects could not be told apart"
            )


def _largest_fraction(factors: int) -> int:
    """The largest fraction of 2^k combinations in which each main effect stands by itself (1 where there is none)."""
    fits = [p for p in range(factors) if p <= 2 ** (factors - p) - (factors - p) - 1]
    return int(2 ** max(fits))


def _factor(path: str, levels: Any) -> Factor:
    if isinstance(levels, Mapping):
        pairs = [(str(label), value) for label, value in levels.items()]
    elif isinstance(levels, list | tuple) and levels:
        pairs = [(label_of(value), value) for value in levels]
    else:
        raise StudyError(f"ablation.factors.{path} must be a list of levels, or a mapping from names to them")
    return Factor(path=path, levels=tuple(Level(label=label, value=value) for label, value in pairs))


def label_of(value: Any) -> str:
    """A level's value in short: lists joined by `|`, as in a space, and values of stages or blocks likewise."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return "|".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _claim(index: int, body: Any) -> Claim:
    place = f"ablation.claims.{index}"
    names = ("claim", "document", "arm", "than", "expect", "stated")
    if not isinstance(body, Mapping):
        raise StudyError(f"{place} must be a mapping with {', '.join(names)}, but is {body!r}")
    for key in body:
        if key not in names:
            raise StudyError(unknown(f"{place} key", str(key), names))
    for key in ("claim", "document", "arm"):
        if not body.get(key):
            raise StudyError(f"{place}.{key} is missing")
    stated = body.get("stated")
    return Claim(
        text=str(body["claim"]),
        document=str(body["document"]),
        arm=str(body["arm"]),
        than=str(body.get("than", BASE)),
        expect=_choice(f"{place}.expect", body.get("expect", "better"), EXPECTED),
        stated=None if stated is None else float(stated),
    )


def _check_seeds(value: int) -> None:
    if value < 2:
        raise StudyError(
            f"ablation.seeds must be at least 2, but is {value}: one training of each says nothing of the noise, so no "
            "difference could be tested"
        )


def _choice(key: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise StudyError(unknown(key, str(value), choices))
    return str(value)
