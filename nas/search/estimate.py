"""What a model expects of the networks of a search after all results; one lucky seed moves that less than the front.

The model is that of the sampler `pool`, over the networks that were tried, whatever sampler tried them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.search.calibration import QUANTILE
from nas.search.model.belief import Model, Result
from nas.search.pool import traits_of
from nas.study.objectives import OBJECTIVES, Floor, averaged, exact, front_rows, measured, minimised, value_of
from search_spaces import codec
from search_spaces.domains import Scalar

MOST = 600  # results that are learned from: of networks on the measured front, at the last rung, then the newest


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tried:
    digest: str
    params: Mapping[str, Scalar]
    spec: Mapping[str, Any]
    costs: Mapping[str, int]

    @property
    def traits(self) -> Mapping[str, Scalar]:
        return traits_of(codec.decode(self.spec))

    def quantity(self, name: str) -> int:
        return self.costs[name]


def expected_front(
    evaluations: Sequence[Mapping[str, Any]],
    specs: Mapping[str, Mapping[str, Any]],
    names: Sequence[str],
    *,
    widening: float = 1.0,
    floors: Sequence[Floor] = (),
) -> list[dict[str, Any]]:
    """The front of what is expected of the networks at the highest rung with results, ascending in MACs.

    Args:
        evaluations: Rows of `Store.evaluations`.
        specs: Of the networks, encoded, by digest.
        names: Of the objectives.
        widening: What deviations are multiplied by, as `nas.search.calibration` learns it from a search by a model.
        floors: Constraints on what is measured; networks below them, by what is expected, are left out.

    Returns:
        Rows of `nas.study.objectives.averaged` with `accuracy` as measured, and `expected` with the ends `expected_low`
        and `expected_high` of the 90 % interval of what is believed of the network.
    """
    if not evaluations:
        return []
    top = max(row["rung"] for row in evaluations)
    there = {row["digest"] for row in evaluations if row["rung"] == top}
    best = {row["digest"] for row in front_rows([row for row in evaluations if row["rung"] == top], names)}

    def late(row: Mapping[str, Any]) -> tuple[bool, bool, bool, int]:
        return row["digest"] not in best, row["digest"] not in there, row["rung"] != top, -row["id"]

    kept = sorted(evaluations, key=late)[:MOST]
    kept.sort(key=lambda row: row["id"])
    known = {
        row["digest"]: _Tried(
            digest=row["digest"],
            params=row["settings"] or {},
            spec=specs[row["digest"]],
            costs={name: row[name] for name in ("macs", *exact(names))},
        )
        for row in kept
    }
    own = measured(names)
    results = [
        Result(digest=row["digest"], rung=row["rung"], errors=minimised(row, own), videos=max(1, row["num_clips"]))
        for row in kept
    ]
    widths = [OBJECTIVES[name].width for name in own]
    belief = Model(tuple(known.values()), exact(names), top + 1, widths=widths).believe(results, known)
    place = {digest: i for i, digest in enumerate(belief.digests)}
    means, variances = belief.tried
    measured_there = {row["digest"]: row for row in averaged(evaluations) if row["rung"] == top}
    found = []
    allowed = [
        digest
        for digest in belief.whole
        if all(
            1.0 - math.exp(float(means[own.index(floor.quantity), place[digest]])) >= floor.bound for floor in floors
        )
    ]
    for digest in belief.front(allowed):
        mean, spread = float(means[0, place[digest]]), math.sqrt(float(variances[0, place[digest]]))
        half = QUANTILE * widening * spread
        ends = [1.0 - min(1.0, math.exp(mean + sign * half)) for sign in (1, 0, -1)]
        low, middle, high = ends
        row = measured_there[digest]
        found.append(
            {
                **row,
                "accuracy": value_of(row, names[0]),
                **{name: value_of(row, name) for name in names[1:]},
                "expected": middle,
                "expected_low": low,
                "expected_high": high,
            }
        )
    return sorted(found, key=lambda row: (row["macs"], row["digest"]))
