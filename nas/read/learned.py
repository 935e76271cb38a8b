"""What a search has come to know, from its stored record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas.read.ranks import Agreement, agreements
from nas.search.calibration import Calibration, Expected, calibration, expectations
from nas.study.front import CORNER, hypervolume
from nas.study.metric import accuracy_of, short_number
from nas.study.objectives import (
    ERROR,
    OBJECTIVES,
    USUAL,
    Floor,
    averaged,
    meets,
    minimised,
)

if TYPE_CHECKING:
    from nas.store.drivers import CommandStart


_FIRST = ("named", "initial", "random")


@dataclass(frozen=True, kw_only=True, slots=True)
class VolumeBox:
    """The box in which hypervolumes are taken: each objective between the best and the worst network tried.

    The reference lies 5 % of each range beyond the worst, so that the worst count for something, too.

    Attributes:
        low: (objectives,) as `nas.study.objectives.minimised` gives them.
        high: (objectives,).
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[Sequence[float]]) -> VolumeBox:
        """Around vectors of objectives, one at least."""
        columns = list(zip(*values, strict=True))
        return cls(low=tuple(min(one) for one in columns), high=tuple(max(one) for one in columns))

    def share(self, values: Sequence[Sequence[float]]) -> float:
        """What vectors of objectives dominate of the box from the best of each to the reference."""
        if not values:
            return 0.0
        ranges = [(low, high - low or 1.0) for low, high in zip(self.low, self.high, strict=True)]
        scaled = [[(v - low) / wide for v, (low, wide) in zip(one, ranges, strict=True)] for one in values]
        return hypervolume(scaled, [CORNER] * len(ranges)) / CORNER ** len(ranges)


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """Hypervolume so far of the front at the highest rung reached.

    Attributes:
        rung: From 0.
        epochs: Of that rung.
        share: Of the box.
        worst: By objective, the worst of any network tried, at any rung: 1 - an accuracy or a gap, or a cost. The
            reference lies 5 % of the range beyond.
    """

    rung: int
    epochs: int
    share: float
    worst: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where proposals came from, and what came of them.

    Attributes:
        origin: `named`, `initial`, `random`, or the sampler in words.
        networks: Begun.
        rung: The highest that one of them has reached; None before the first result.
        there: How many have reached it.
        best: Accuracy there.
        epochs: Of that rung.
    """

    origin: str
    networks: int
    rung: int | None
    there: int
    best: float | None
    epochs: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Learned:
    """All that is known; parts that the record has nothing for are empty or None.

    Attributes:
        ranks: Do rungs agree?
        volume: Of the front so far.
        origins: Of proposals.
        expected: What the model expected of each step.
        calibration: How that fared.
        still: What it expected of its last step, as a share of the hypervolume.
    """

    ranks: tuple[Agreement, ...]
    volume: Volume | None
    origins: tuple[Origin, ...]
    expected: tuple[Expected, ...]
    calibration: Calibration | None
    still: float | None


def learned_of(
    evaluations: Sequence[Mapping[str, Any]],
    trials: Sequence[Mapping[str, Any]],
    jobs: Sequence[Mapping[str, Any]],
    num_rungs: int,
    objectives: Sequence[str] = USUAL,
    floors: Sequence[Floor] = (),
) -> Learned:
    """What the rows of a search say.

    Args:
        evaluations: Of `Store.evaluations`.
        trials: Of `Store.trials`.
        jobs: Of `Store.jobs`.
        num_rungs: Of the search.
        objectives: Of the search.
        floors: Its constraints on what is measured.
    """
    expected = expectations(jobs, evaluations, num_rungs)
    return Learned(
        ranks=agreements(evaluations, num_rungs),
        volume=volume(evaluations, objectives, floors),
        origins=origins(trials, evaluations),
        expected=expected,
        calibration=calibration(expected),
        still=expected[-1].gain if expected else None,
    )


def volume(
    evaluations: Sequence[Mapping[str, Any]], objectives: Sequence[str] = USUAL, floors: Sequence[Floor] = ()
) -> Volume | None:
    """The hypervolume so far; None of fewer than two networks, between which no range lies."""
    evaluations = averaged(evaluations)
    if len({row["digest"] for row in evaluations}) < 2:
        return None
    values = [minimised(row, objectives) for row in evaluations]
    box, rung = VolumeBox.of(values), max(row["rung"] for row in evaluations)
    there = [(value, row) for value, row in zip(values, evaluations, strict=True) if row["rung"] == rung]
    kept = [value for value, row in there if meets(row, floors)]
    worst = {
        name: value if OBJECTIVES[name].measured else round(10**value)
        for name, value in zip(objectives, box.high, strict=True)
    }
    return Volume(rung=rung, epochs=there[0][1]["epochs"], share=box.share(kept), worst=worst)


def objectives_text(names: Sequence[str]) -> str:
    """Objectives as they are scaled, in words: `error and log MACs`."""
    return _listed(
        [_error_of(name) if OBJECTIVES[name].measured else f"log {OBJECTIVES[name].title}" for name in names]
    )


def worst_text(worst: Mapping[str, float]) -> str:
    """A corner in words: `error 0.812 and 41.2M MACs`."""
    return _listed(
        [
            f"{_error_of(name)} {value:.3f}"
            if OBJECTIVES[name].measured
            else f"{short_number(value)} {OBJECTIVES[name].title}"
            for name, value in worst.items()
        ]
    )


def _error_of(name: str) -> str:
    return ERROR if name == ERROR else f"1 - {OBJECTIVES[name].title}"


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]


def origins(trials: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]) -> tuple[Origin, ...]:
    """Each origin of proposals: those that ask no model first, then by name."""
    by_trial: dict[int, list[Mapping[str, Any]]] = {}
    for row in evaluations:
        by_trial.setdefault(row["trial_id"], []).append(row)
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for trial in trials:
        groups.setdefault(trial["origin"], []).append(trial)
    found = []
    for origin in sorted(groups, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)):
        results = [row for trial in groups[origin] for row in by_trial.get(trial["id"], ())]
        rung = max((row["rung"] for row in results), default=None)
        there = [row for row in results if row["rung"] == rung]
        found.append(
            Origin(
                origin=origin,
                networks=len(groups[origin]),
                rung=rung,
                there=len(there),
                best=max(map(accuracy_of, there), default=None),
                epochs=there[0]["epochs"] if there else None,
            )
        )
    return tuple(found)


def deciding(drivers: Iterable[CommandStart]) -> tuple[float, float] | None:
    """Seconds that drivers of a search spent in decisions, and all of theirs; None where that was not kept.

    Args:
        drivers: Of the study; those of other kinds are left out.
    """
    searches = [(one.session["decide_seconds"], one.seconds) for one in drivers if one.kind == "search"]
    known = [(deciding, seconds) for deciding, seconds in searches if deciding is not None]
    if not known:
        return None
    return sum(deciding for deciding, _ in known), sum(seconds for _, seconds in known)
