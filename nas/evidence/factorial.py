"""Factorial designs: main effects and interactions from a linear model with the seed as a block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from nas.errors import unknown
from nas.evidence.paired import inference
from nas.evidence.spread import spread_of
from nas.evidence.values import Effect, EvidenceError, Result, check_levels, small_sample_factor, table_of

Factors = Mapping[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """A design matrix and which of its columns belong to what.

    Attributes:
        design: (runs, columns) of full column rank: one column per seed, then those of each term.
        terms: First and last (exclusive) column of each main effect and interaction that can be estimated.
        aliased: Terms that cannot be told from others here, and those others.
    """

    design: NDArray[np.float64]
    terms: Mapping[tuple[str, ...], tuple[int, int]]
    aliased: Mapping[tuple[str, ...], tuple[tuple[str, ...], ...]]


def code(levels: Sequence[str], level: str) -> NDArray[np.float64]:
    """A level in sum-to-zero coding, (levels - 1,): coefficients are deviations from the mean over levels."""
    position = list(levels).index(level)
    return -np.ones(len(levels) - 1) if position == len(levels) - 1 else np.eye(len(levels) - 1)[position]


def code_term(factors: Factors, term: tuple[str, ...], levels: Mapping[str, str]) -> NDArray[np.float64]:
    """The columns of a main effect or of an interaction for one run."""
    row: NDArray[np.float64] = np.ones(1)
    for name in term:
        row = np.kron(row, code(factors[name], levels[name])).astype(np.float64)
    return row


def columns(runs: Sequence[tuple[Mapping[str, str], int]], factors: Factors, *, interactions: bool = True) -> Columns:
    """Codes runs, and finds which terms they can estimate.

    Main effects come first, then interactions of two factors in the order of the factors. An interaction whose columns
    are not independent of those before it is left out and listed with the terms that it is mixed up with: in a half of
    a 2x2x2 design, a x b and c are one and the same column.

    Args:
        runs: Levels and seed of each.
        factors: Levels of each factor, the reference first.
        interactions: Whether to fit them.

    Raises:
        EvidenceError: A main effect cannot be estimated.
    """
    seeds = sorted({seed for _, seed in runs})
    design = np.array([[float(seed == other) for other in seeds] for _, seed in runs])
    terms: dict[tuple[str, ...], tuple[int, int]] = {}
    aliased: dict[tuple[str, ...], tuple[tuple[str, ...], ...]] = {}
    wanted: list[tuple[str, ...]] = [(name,) for name in factors]
    wanted += list(combinations(factors, 2)) if interactions else []
    for term in wanted:
        block = np.array([code_term(factors, term, levels) for levels, _ in runs])
        both = np.hstack([design, block])
        if np.linalg.matrix_rank(both) == both.shape[1]:
            terms[term] = (design.shape[1], both.shape[1])
            design = both
            continue
        mixed = _mixed_with(block, design, terms)
        if len(term) == 1:
            what = f"it changes together with {' and '.join(' x '.join(m) for m in mixed)}" if mixed else "too few runs"
            raise EvidenceError(
                f"the effect of factor {term[0]!r} must be separable, but {what}; "
                f"add runs in which only {term[0]!r} differs"
            )
        aliased[term] = mixed
    return Columns(design=design, terms=terms, aliased=aliased)


def _mixed_with(
    block: NDArray[np.float64], design: NDArray[np.float64], terms: Mapping[tuple[str, ...], tuple[int, int]]
) -> tuple[tuple[str, ...], ...]:
    """Terms that are needed to write the block's dependent part as a sum of columns of the design."""
    coefficients, *_ = np.linalg.lstsq(design, block, rcond=None)
    return tuple(term for term, (start, end) in terms.items() if np.abs(coefficients[start:end]).max() > 1e-8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Combination:
    """One combination of levels, and its results by seed."""

    levels: Mapping[str, str]
    results: Mapping[int, Result]


@dataclass(frozen=True, kw_only=True, slots=True)
class Factorial:
    """What a factorial design says.

    Attributes:
        effects: Each level of each factor against its reference, averaged over the other factors; then interactions:
            what two changes earn together beyond the sum of what each earns alone. To be given to `judge`.
        aliased: Sentences on what this fraction cannot tell apart.
        runs: Trainings used.
        left_out: Combinations of arm and seed that are missing.
        seeds: Blocks.
        df: Degrees of freedom that are left for noise.
        residual: Standard deviation of a run about the model.
    """

    effects: tuple[Effect, ...]
    aliased: tuple[str, ...]
    runs: int
    left_out: int
    seeds: int
    df: int
    residual: float


def factorial(
    arms: Sequence[Combination],
    factors: Factors,
    *,
    interactions: bool = True,
    confidence: float = 0.95,
    margin: float = 0.01,
) -> Factorial:
    """Fits top-1 = seed + main effects + interactions of two factors, by least squares.

    The design may be full or a fraction of it, and runs may be missing as long as every factor can be told from the
    others. Interactions of three factors and more are taken as noise. As for pairs, intervals speak for new seeds and
    new clips where clips are known: the contrast is split by clip.

    Args:
        arms: Combinations of levels with their results.
        factors: The levels of each factor; the first is the reference.
        interactions: Whether to fit those of two factors.
        confidence: Of intervals.
        margin: The smallest difference that matters.

    Raises:
        EvidenceError: A level that is not among the factors', a combination twice, fewer than two seeds, a factor that
            cannot be told from others, or no runs left for the noise.
    """
    check_levels(confidence=confidence, margin=margin)
    _check(arms, factors)
    seeds = sorted({seed for arm in arms for seed in arm.results})
    runs = [(arm.levels, seed, arm.results[seed]) for arm in arms for seed in sorted(arm.results)]
    if len(seeds) < 2:
        raise EvidenceError(f"a factorial design needs 2 seeds or more to see noise, but got {len(seeds)}")
    coded = columns([(levels, seed) for levels, seed, _ in runs], factors, interactions=interactions)
    df = len(runs) - coded.design.shape[1]
    if df < 1:
        raise EvidenceError(
            f"runs must outnumber what is fitted, but there are {len(runs)} runs for {coded.design.shape[1]} "
            "numbers; add seeds or leave interactions out"
        )
    table = table_of([result for _, _, result in runs])
    values = np.array([result.top1 for _, _, result in runs]) if table is None else table.mean(axis=1)
    residual = _residual(values, coded.design, df)
    effects = [
        _effect(
            values,
            table,
            coded,
            term=term,
            levels=levels,
            references=tuple(factors[name][0] for name in term),
            contrast=contrast,
            seeds=len(seeds),
            left_out=len(arms) * len(seeds) - len(runs),
            residual=residual,
            confidence=confidence,
            margin=margin,
        )
        for term, levels, contrast in _contrasts(coded, factors)
    ]
    return Factorial(
        effects=tuple(effects),
        aliased=tuple(_alias(term, others) for term, others in coded.aliased.items()),
        runs=len(runs),
        left_out=len(arms) * len(seeds) - len(runs),
        seeds=len(seeds),
        df=df,
        residual=residual,
    )


def _check(arms: Sequence[Combination], factors: Factors) -> None:
    for name, levels in factors.items():
        if len(levels) < 2 or len(set(levels)) < len(levels):
            raise EvidenceError(f"factor {name!r} must have 2 different levels or more, but has {list(levels)}")
    seen: set[tuple[str, ...]] = set()
    for arm in arms:
        if arm.levels.keys() != factors.keys():
            raise EvidenceError(f"each arm must state {list(factors)}, but one states {list(arm.levels)}")
        for name, level in arm.levels.items():
            if level not in factors[name]:
                raise EvidenceError(unknown(f"level of {name!r}", level, factors[name]))
        key = tuple(arm.levels[name] for name in factors)
        if key in seen:
            raise EvidenceError(f"each combination of levels may be there once, but {dict(arm.levels)} is there twice")
        seen.add(key)


def _residual(values: NDArray[np.float64], design: NDArray[np.float64], df: int) -> float:
    """Standard deviation of a run about the model; 0 where all runs fit it, which says nothing of noise."""
    coefficients, *_ = np.linalg.lstsq(design, values, rcond=None)
    residual = float(np.sqrt(((values - design @ coefficients) ** 2).sum() / df))
    return residual if residual >= 1e-12 else 0.0


def _contrasts(coded: Columns, factors: Factors) -> list[tuple[tuple[str, ...], tuple[str, ...], NDArray[np.float64]]]:
    """Factors and levels, with the sum of coefficients that is their effect against the references."""
    found = []
    for term, (start, end) in coded.terms.items():
        for levels in product(*(factors[name][1:] for name in term)):
            block: NDArray[np.float64] = np.ones(1)
            for name, level in zip(term, levels, strict=True):
                step = code(factors[name], level) - code(factors[name], factors[name][0])
                block = np.kron(block, step).astype(np.float64)
            contrast = np.zeros(coded.design.shape[1])
            contrast[start:end] = block
            found.append((term, levels, contrast))
    return found


def _effect(
    values: NDArray[np.float64],
    table: NDArray[np.float64] | None,
    coded: Columns,
    *,
    term: tuple[str, ...],
    levels: tuple[str, ...],
    references: tuple[str, ...],
    contrast: NDArray[np.float64],
    seeds: int,
    left_out: int,
    residual: float,
    confidence: float,
    margin: float,
) -> Effect:
    spread = spread_of(values, table, design=coded.design, contrast=contrast)
    # Of two runs that differ in this alone, to be comparable with the effect size of pairs.
    sd = residual * np.sqrt(2)
    return Effect(
        factor=" x ".join(term),
        level=" and ".join(levels),
        reference=" and ".join(references),
        kind="main" if len(term) == 1 else "interaction",
        pairs=seeds,
        left_out=left_out,
        clips=None if table is None else table.shape[1],
        basis="seeds" if table is None else "seeds and clips",
        difference=spread.difference,
        sd=float(sd),
        effect_size=small_sample_factor(spread.df) * spread.difference / sd if sd > 0 and spread.df > 1 else None,
        confidence=confidence,
        boot_low=None,
        boot_high=None,
        p_wilcoxon=None,
        margin=margin,
        spread=spread if spread.known else None,
        **inference(spread, confidence=confidence, margin=margin),
    )


def _alias(term: tuple[str, ...], others: tuple[tuple[str, ...], ...]) -> str:
    """One sentence on an interaction that was left out."""
    if not others:
        return f"{' x '.join(term)} cannot be estimated with these runs"
    return (
        f"{' x '.join(term)} cannot be told from {' and '.join(' x '.join(other) for other in others)} in this design"
    )
