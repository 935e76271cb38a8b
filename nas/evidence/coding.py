"""Factorial designs as columns: levels coded so that effects are averages, and what a fraction cannot tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from nas.evidence.values import EvidenceError

Factors = Mapping[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """A design matrix and which of its columns belong to what.

    Attributes:
        design: (runs, columns) of full column rank: one column a seed, then those of each term.
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
