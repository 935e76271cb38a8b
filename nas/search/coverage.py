"""Which levels of a space a search has tried, and which of them it cannot tell apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nas.search.model.encoding import settings_of

SHOWN = 8
Levels = Mapping[str, frozenset[Any]]


def gaps(pool: Iterable[Mapping[str, Any]], tried: Sequence[Mapping[str, Any]]) -> list[str]:
    """Says which levels were never tried, or only together with a level of another domain.

    Args:
        pool: Settings of each network that could have been tried.
        tried: Settings of each network that was.

    Returns:
        At most two lines. Levels that no network could have had apart, as a kernel and an operator that has one, are
        not held against the search.
    """
    possible, rows = [_levels(params) for params in pool], [_levels(params) for params in tried if params]
    offered, seen = _union(possible), _union(rows)
    if not rows:
        return []
    never = [f"{name}={value}" for name, values in offered.items() for value in values - seen.get(name, frozenset())]
    tied: dict[frozenset[str], None] = {}
    for name, values in seen.items():
        for value in values:
            mine = [row for row in rows if value in row.get(name, ())]
            for other, level in _constant(mine, name, seen):
                others = seen[other] - {level}
                if any(value in row.get(name, ()) and row.get(other, frozenset()) & others for row in possible):
                    tied.setdefault(frozenset((f"{name}={value}", f"{other}={level}")))
    lines = []
    if never:
        lines.append(f"never tried: {_listed(sorted(never))} (of {len(rows)} networks)")
    if tied:
        pairs = sorted(" with ".join(sorted(pair)) for pair in tied)
        lines.append(f"tried only together, so that their effects cannot be told apart: {_listed(pairs)}")
    return lines


def _levels(params: Mapping[str, Any]) -> Levels:
    """The values of each domain, at whichever stages and blocks."""
    found: dict[str, set[Any]] = {}
    for name, value in settings_of(params).items():
        found.setdefault(name.partition(".stage")[0], set()).add(value)
    return {name: frozenset(values) for name, values in found.items()}


def _union(rows: Iterable[Levels]) -> dict[str, frozenset[Any]]:
    found: dict[str, frozenset[Any]] = {}
    for row in rows:
        for name, values in row.items():
            found[name] = found.get(name, frozenset()) | values
    return found


def _constant(rows: Sequence[Levels], name: str, seen: Levels) -> list[tuple[str, Any]]:
    """Levels of other domains that all of some networks have, though others were tried."""
    found = []
    for other, values in seen.items():
        if other == name or len(values) < 2 or any(other not in row for row in rows):
            continue
        together = frozenset().union(*(row[other] for row in rows))
        if len(together) == 1:
            found.append((other, next(iter(together))))
    return found


def _listed(items: Sequence[str]) -> str:
    rest = len(items) - SHOWN
    return ", ".join(items[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
