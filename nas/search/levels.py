"""What a setting earns over a whole search: mean accuracy per level, and the front if only that level were allowed.

Pure: no torch, no Optuna, no database. Everything is computed within one rung, so networks that were trained for
different times never meet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nas.study.front import CORNER, front, hypervolume
from nas.study.metric import accuracy_of
from nas.study.objectives import averaged

Row = Mapping[str, Any]

MIN_NETWORKS = 20  # with settings at a rung below which no importances are computed
FEW = 10  # networks in a rung below which no partial effects are given
IN_A_LEVEL = 3  # networks of a level below which its mean has no interval


@dataclass(frozen=True, kw_only=True, slots=True)
class MarginalFront:
    """The front of those networks that have one level of one factor.

    Attributes:
        factor: A domain of the study, such as `kind`; `kind.stage1` where it is chosen per stage. With a domain that is
            chosen at several places, `kind` itself stands for the networks that have one level at all of them.
        level: A value of it.
        rung: The rung that is looked at.
        epochs: Of that rung.
        networks: At the rung with this level.
        digests: Of the networks on the front, by rising MACs.
        macs: Of each of them, for one clip.
        accuracy: Of each of them, as shares of 1.
        share: Hypervolume as a share of that of the whole front: 1 where the level alone gives all of it.
    """

    factor: str
    level: str
    rung: int
    epochs: int
    networks: int
    digests: tuple[str, ...]
    macs: tuple[int, ...]
    accuracy: tuple[float, ...]
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PartialEffect:
    """Mean accuracy of the networks that have one level of one factor.

    Attributes:
        factor: As in `MarginalFront`.
        level: A value of it.
        rung: The rung that is looked at.
        epochs: Of that rung.
        networks: With this level at the rung.
        mean: Of accuracy, as a share of 1.
        low: Lower end of the t interval of the mean over networks, cut to 0..1; None for fewer than `IN_A_LEVEL`.
        high: Its upper end.
        adjusted: The mean at equal cost (log MACs, and family where there are several, at the rung's mean), by least
            squares; None where the networks cannot tell level and cost apart, or are fewer than `IN_A_LEVEL`.
        adjusted_low: Lower end of its t interval.
        adjusted_high: Its upper end.
    """

    factor: str
    level: str
    rung: int
    epochs: int
    networks: int
    mean: float
    low: float | None
    high: float | None
    adjusted: float | None
    adjusted_low: float | None
    adjusted_high: float | None


def levels_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Level of each factor that a network was asked for.

    The parameters of one domain become one factor: what names its choices (`kernel[3;5]`) and the family
    (`resnet.kind`) is left out, and `family` stands for itself. A domain of a stage or block keeps its place
    (`kind.stage1`).

    Args:
        settings: Parameters of a trial. A named network outside the space has none, and so no levels.
    """
    family = settings.get("family")
    return {factor_of(name, family): level_of(value) for name, value in settings.items()}


def factor_of(parameter: str, family: str | None = None) -> str:
    """The factor that a parameter of a network of `family` belongs to."""
    name = re.sub(r"\[.*\]$", "", parameter)
    return name.removeprefix(f"{family}.") if family is not None else name


def level_of(value: object) -> str:
    """A setting's value as it is written in a study."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def uniform_levels(levels: Mapping[str, str]) -> dict[str, str]:
    """Level of each domain that is chosen at several places and has the same value at all of them."""
    places: dict[str, list[str]] = {}
    for factor, level in levels.items():
        domain, dot, _ = factor.partition(".")
        if dot:
            places.setdefault(domain, []).append(level)
    return {domain: found[0] for domain, found in places.items() if len(found) > 1 and len(set(found)) == 1}


def rungs_of(evaluations: Sequence[Row]) -> dict[int, list[Row]]:
    """Networks of a search by rung, the lowest first; with their means, where they were trained with several seeds."""
    found: dict[int, list[Row]] = {}
    for row in averaged(evaluations):
        if row["rung"] is not None:
            found.setdefault(row["rung"], []).append(row)
    return dict(sorted(found.items()))


def marginal_fronts(evaluations: Sequence[Row], *, rung: int | None = None) -> list[MarginalFront]:
    """The front for each level of each factor: what would be left of it if only this level were allowed.

    Axes are error and log10 of MACs, scaled to 0..1 over the networks of the rung, up to a corner at 1.05 on each. The
    front is that of the networks that the search has tried, so a level that it neglected looks poorer than it is.

    Args:
        evaluations: Rows of `Store.evaluations`: `settings`, `rung`, `epochs`, `macs`, `digest`, and what `accuracy_of`
            reads.
        rung: Which rung; the highest that was reached unless given.

    Returns:
        By factor and level; factors with a single level are left out. Empty for an empty rung.
    """
    rungs = rungs_of(evaluations)
    rows = rungs.get(max(rungs, default=0) if rung is None else rung, [])
    if not rows:
        return []
    scaled = _scaled(rows)
    whole = hypervolume(scaled, (CORNER, CORNER))
    found = []
    for factor, members in _members(rows).items():
        for level, places in members.items():
            inside = [places[i] for i in front(scaled[places])]
            inside.sort(key=lambda i: (rows[i]["macs"], rows[i]["digest"]))
            found.append(
                MarginalFront(
                    factor=factor,
                    level=level,
                    rung=rows[0]["rung"],
                    epochs=rows[0]["epochs"],
                    networks=len(places),
                    digests=tuple(rows[i]["digest"] for i in inside),
                    macs=tuple(rows[i]["macs"] for i in inside),
                    accuracy=tuple(accuracy_of(rows[i]) for i in inside),
                    share=hypervolume(scaled[places], (CORNER, CORNER)) / whole,
                )
            )
    return found


def partial_effects(
    evaluations: Sequence[Row], *, rung: int | None = None, confidence: float = 0.95
) -> list[PartialEffect]:
    """Mean accuracy per level, as found and at equal cost, with t intervals over the networks.

    At rungs above the first, the networks are survivors: a level whose networks were stopped early has only its best
    left there, so the lowest rung is the fairest to compare levels.

    Args:
        evaluations: Rows of `Store.evaluations`.
        rung: Which rung; the lowest unless given.
        confidence: Of the intervals.

    Returns:
        By factor and level; factors with a single level are left out. Empty for fewer than `FEW` networks.
    """
    rungs = rungs_of(evaluations)
    rows = rungs.get(min(rungs, default=0) if rung is None else rung, [])
    if len(rows) < FEW:
        return []
    accuracy = np.array([accuracy_of(row) for row in rows], dtype=float)
    found = []
    for factor, members in _members(rows).items():
        adjusted = _adjusted(rows, accuracy, factor, members, confidence)
        for level, places in members.items():
            mean, low, high = _mean(accuracy[places], confidence)
            at_cost, at_cost_low, at_cost_high = adjusted[level]
            found.append(
                PartialEffect(
                    factor=factor,
                    level=level,
                    rung=rows[0]["rung"],
                    epochs=rows[0]["epochs"],
                    networks=len(places),
                    mean=mean,
                    low=low,
                    high=high,
                    adjusted=at_cost,
                    adjusted_low=at_cost_low,
                    adjusted_high=at_cost_high,
                )
            )
    return found


def beyond_cost(accuracy: ArrayLike, macs: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """What of accuracy the cost does not explain.

    Args:
        accuracy: (networks,) shares of 1.
        macs: (networks,).

    Returns:
        (networks,) residuals of the least-squares parabola of accuracy over log10 of MACs (accuracy levels off, which a
        straight line would blame on whatever makes networks dear), and the share of variance that it explains.
    """
    values = np.asarray(accuracy, dtype=float)
    design = _cost_columns(np.asarray(macs, dtype=float))
    design = np.column_stack([np.ones(len(values)), design])
    residual = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    variance = float(values.var())
    return residual, 1.0 - float(residual.var()) / variance if variance > 0 else 0.0


def _members(rows: Sequence[Row]) -> dict[str, dict[str, list[int]]]:
    """Positions of the networks that have a level, by factor and level; of factors that have at least two."""
    found: dict[str, dict[str, list[int]]] = {}
    for place, row in enumerate(rows):
        levels = levels_of(row["settings"] or {})
        for factor, level in {**uniform_levels(levels), **levels}.items():
            found.setdefault(factor, {}).setdefault(level, []).append(place)
    return {
        factor: dict(sorted(members.items(), key=lambda item: _natural(item[0])))
        for factor, members in sorted(found.items(), key=lambda item: _natural(item[0]))
        if len(members) > 1
    }


def _natural(text: str) -> tuple[tuple[int, float, str], ...]:
    """Orders texts with the numbers in them as numbers."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return tuple((0, float(part), "") if i % 2 else (1, 0.0, part) for i, part in enumerate(parts) if part)


def _scaled(rows: Sequence[Row]) -> NDArray[np.float64]:
    """(networks, 2) error and log10 of MACs, each 0..1 over the rows."""
    points = np.array([(1.0 - accuracy_of(row), np.log10(row["macs"])) for row in rows], dtype=float)
    low, high = points.min(axis=0), points.max(axis=0)
    scaled: NDArray[np.float64] = (points - low) / np.where(high > low, high - low, 1.0)
    return scaled


def _cost_columns(macs: NDArray[np.float64]) -> NDArray[np.float64]:
    """(networks, 2) centred log10 of MACs, and its square, centred as well."""
    log = np.log10(macs) - np.log10(macs).mean()
    return np.column_stack([log, log**2 - (log**2).mean()])


def _mean(values: NDArray[np.float64], confidence: float) -> tuple[float, float | None, float | None]:
    mean = float(values.mean())
    if len(values) < IN_A_LEVEL:
        return mean, None, None
    half = _t(confidence, len(values) - 1) * float(values.std(ddof=1)) / len(values) ** 0.5
    return mean, max(0.0, mean - half), min(1.0, mean + half)


def _adjusted(
    rows: Sequence[Row],
    accuracy: NDArray[np.float64],
    factor: str,
    members: Mapping[str, Sequence[int]],
    confidence: float,
) -> dict[str, tuple[float | None, float | None, float | None]]:
    """Means per level at equal cost and family, with intervals: an analysis of covariance."""
    places = sorted(place for found in members.values() for place in found)
    columns = [_cost_columns(np.array([rows[place]["macs"] for place in places], dtype=float))]
    families = [str((rows[place]["settings"] or {}).get("family")) for place in places]
    if factor != "family":
        for name in sorted(set(families))[1:]:
            column = np.array([family == name for family in families], dtype=float)
            columns.append((column - column.mean())[:, None])
    dummies = np.array([[place in found for found in members.values()] for place in places], dtype=float)
    design = np.column_stack([dummies, *columns])
    inverse = np.linalg.pinv(design)
    freedom = len(places) - int(np.linalg.matrix_rank(design))
    if freedom < IN_A_LEVEL:
        return dict.fromkeys(members, (None, None, None))
    coefficients = inverse @ accuracy[places]
    residual = accuracy[places] - design @ coefficients
    variance = float(residual @ residual) / freedom
    found: dict[str, tuple[float | None, float | None, float | None]] = {}
    for i, level in enumerate(members):
        at = np.eye(design.shape[1])[i]  # this level, every covariate at its mean
        # Otherwise there are too few, or cost or family is the level under another name.
        if len(members[level]) < IN_A_LEVEL or not np.allclose(at @ inverse @ design, at, atol=1e-6):
            found[level] = (None, None, None)
            continue
        mean = float(coefficients[i])
        half = _t(confidence, freedom) * float(np.sqrt(variance * (inverse @ inverse.T)[i, i]))
        found[level] = (mean, mean - half, mean + half)
    return found


def _t(confidence: float, freedom: int) -> float:
    from scipy.special import stdtrit  # scipy is not needed for fronts

    return float(stdtrit(freedom, (1.0 + confidence) / 2.0))
