"""What a search may minimise or maximise, by name, and what an evaluation says of it: the one place that knows.

The first objective is an accuracy. Others may be measured with it, or be exact costs, which are known beforehand.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.errors import NotFoundError, SearchError, StudyError, unknown
from nas.study.metric import AUTO, BALANCED, MAP, TOP1, TOP5, accuracy_of

ERROR = "error"
MOTION_GAP = "motion_gap"
ACCURACY = "accuracy"  # in constraints: that which networks are chosen by
MOST = 3  # at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Floor:
    """A constraint on what is measured: `quantity >= bound`.

    Attributes:
        quantity: `error` for the accuracy that networks are chosen by, or another measured objective.
        bound: Share of 1.
    """

    quantity: str
    bound: float

    def __str__(self) -> str:
        return f"{ACCURACY if self.quantity == ERROR else self.quantity} >= {self.bound:g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """One that a search may have.

    Attributes:
        name: In `search.objectives`.
        title: In tables and charts.
        measured: Whether a training says it; otherwise it is an exact cost.
        width: From the best value that there could be to the worst, of one that is measured.
    """

    name: str
    title: str
    measured: bool = True
    width: float = 1.0


OBJECTIVES = {
    one.name: one
    for one in (
        Objective(name=ERROR, title="accuracy"),
        Objective(name="top1", title=TOP1),
        Objective(name="top5", title=TOP5),
        Objective(name="balanced", title=BALANCED),
        Objective(name="map", title=MAP),
        Objective(name=MOTION_GAP, title="motion gap", width=2.0),
        Objective(name="macs", title="MACs", measured=False),
        Objective(name="params", title="params", measured=False),
        Objective(name="activation_bytes", title="activation bytes", measured=False),
    )
}
USUAL = (ERROR, "macs")
COSTS = tuple(name for name, one in OBJECTIVES.items() if not one.measured)
_ACCURACIES = ("top1", "top5", "balanced", "map")
_COLUMNS = {"map": "map_sample"}
_ROUNDING = 1e-9
_AVERAGED = ("top1", "top5", "balanced", "map_sample", "map_class", "loss", "shuffled")


def objectives_of(names: Sequence[str], accuracy: str) -> tuple[tuple[str, ...], str]:
    """The objectives of a study, `error` first, and what networks are chosen by.

    Args:
        names: As stated: one to `MOST`, the first an accuracy by name, or `error` for that of `search.accuracy`.
        accuracy: `search.accuracy`.

    Raises:
        StudyError: A name is unknown, stands twice, or does not go with the others.
    """
    key = "search.objectives"
    for name in names:
        if name not in OBJECTIVES:
            raise StudyError(unknown(key, name, tuple(OBJECTIVES)))
    if not 1 <= len(names) <= MOST or len(set(names)) != len(names):
        raise StudyError(f"{key} must be 1 to {MOST} names, each once, but is {list(names)}")
    first = names[0]
    if first not in (ERROR, *_ACCURACIES):
        raise StudyError(
            f"{key} must begin with an accuracy ({', '.join((ERROR, *_ACCURACIES))}), but is {list(names)}"
        )
    if first != ERROR and accuracy not in (AUTO, first):
        raise StudyError(f"{key} begins with {first}, but search.accuracy is {accuracy}; leave one of the two out")
    chosen = accuracy if first == ERROR else first
    # With `auto` the first is top-1, or mAP where videos have several labels, of which the other makes no sense.
    same = (TOP1, MAP, "top1", "map") if chosen == AUTO else (chosen,)
    if ERROR in names[1:] or any(name in same for name in names[1:]):
        raise StudyError(f"{key} must hold each accuracy once, but {list(names)} has that of its first place twice")
    return (ERROR, *names[1:]), chosen


def is_floor(text: str) -> bool:
    """Whether a constraint is on what is measured."""
    return ">=" in text


def floors_of(texts: Sequence[str], objectives: Sequence[str], accuracy: str) -> tuple[Floor, ...]:
    """Constraints on what is measured, such as `accuracy >= 0.8` or `motion_gap >= 0.1`.

    Args:
        texts: As stated.
        objectives: Of the search, `error` first.
        accuracy: What networks are chosen by.

    Raises:
        StudyError: A text is not of that form, or of what no training of the search measures.
    """
    first = (ACCURACY,) if accuracy == AUTO else (ACCURACY, accuracy)
    choices = (*first, *measured(objectives)[1:])
    found = []
    for text in texts:
        match = re.fullmatch(r"\s*(\w+)\s*>=\s*([0-9]*\.?[0-9]+)\s*", text)
        if match is None or not 0.0 < float(match[2]) < 1.0:
            raise StudyError(f"a constraint must read like 'accuracy >= 0.8', a share between 0 and 1, but is {text!r}")
        if match[1] not in choices:
            raise StudyError(unknown("constraint on a measured objective", match[1], choices))
        found.append(Floor(quantity=ERROR if match[1] in first else match[1], bound=float(match[2])))
    return tuple(found)


def measured(names: Sequence[str]) -> tuple[str, ...]:
    """Those that a training says, in their order."""
    return tuple(name for name in names if OBJECTIVES[name].measured)


def exact(names: Sequence[str]) -> tuple[str, ...]:
    """Those that are known beforehand, in their order."""
    return tuple(name for name in names if not OBJECTIVES[name].measured)


def value_of(row: Mapping[str, Any], name: str) -> float:
    """An objective as it is shown: an accuracy or a gap as a share of 1, a cost in its unit.

    Args:
        row: Of `Store.evaluations`.
        name: Of the objective.

    Raises:
        NotFoundError: The evaluation lacks it.
    """
    if name == ERROR:
        return accuracy_of(row)
    if name == MOTION_GAP:
        top1, shuffled = row.get("top1"), row.get("shuffled")
        found = None if top1 is None or shuffled is None else float(top1) - float(shuffled)
    else:
        found = row.get(_COLUMNS.get(name, name))
    if found is None:
        raise NotFoundError(f"search.objectives has {name}, but a result of the study lacks it")
    return float(found)


def minimised(row: Mapping[str, Any], names: Sequence[str]) -> tuple[float, ...]:
    """What is minimised: 1 - an accuracy or a gap, and log10 of costs, since what counts there is the ratio."""
    values = ((value_of(row, name), OBJECTIVES[name].measured) for name in names)
    return tuple(1.0 - value if is_measured else math.log10(value) for value, is_measured in values)


def front_rows(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], floors: Sequence[Floor] = ()
) -> list[dict[str, Any]]:
    """The front of evaluations of one rung, ascending in MACs: each with its accuracy, and its objectives by name.

    A network that was trained with several seeds counts by their means.

    Args:
        rows: Of `Store.evaluations`.
        names: Of the objectives.
        floors: What a network must have at least.
    """
    from nas.study.front import front  # numpy, which a command that only prints has no use for

    kept = [row for row in averaged(rows) if all(_has(row, name) for name in names)]
    kept = [row for row in kept if meets(row, floors)]
    found = [kept[i] for i in front([minimised(row, names) for row in kept])]
    return [
        {**row, "accuracy": accuracy_of(row), **{name: value_of(row, name) for name in names if name != ERROR}}
        for row in sorted(found, key=lambda row: (row["macs"], row["digest"]))
    ]


def meets(row: Mapping[str, Any], floors: Sequence[Floor]) -> bool:
    """Whether a row of `averaged` has at least what is asked for; a difference or a mean may be off by its rounding."""
    return all(value_of(row, floor.quantity) >= floor.bound - _ROUNDING for floor in floors)


def no_front(study: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Why a study has no front, in words.

    Args:
        study: Its row.
        evaluations: Of `Store.evaluations`.
    """
    if not evaluations:
        return f"no network of {study['name']} has reached a rung yet; `nas search` goes on with it"
    floors = " and ".join(str(floor) for floor in recorded_floors(study))
    return f"no network of {study['name']} at the highest rung meets {floors or 'what its objectives need'}"


def averaged(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each network and rung, in the order of the first ones: means over seeds, and how many `seeds`.

    Args:
        rows: Of `Store.evaluations`.
    """
    groups: dict[tuple[str, int | None], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["digest"], row.get("rung")), []).append(row)
    found = []
    for own in groups.values():
        known = [name for name in _AVERAGED if all(row.get(name) is not None for row in own)] if len(own) > 1 else []
        means = {name: math.fsum(row[name] for row in own) / len(own) for name in known}
        found.append({**own[0], **means, "seeds": len(own)})
    return found


def _has(row: Mapping[str, Any], name: str) -> bool:
    try:
        value_of(row, name)
    except NotFoundError:
        return False
    return True


def recorded_objectives(study: Mapping[str, Any]) -> tuple[str, ...]:
    """The objectives of a study as it was recorded, `error` first.

    Args:
        study: Row of the study.
    """
    search = study["config"].get("search", {})
    return objectives_of(search.get("objectives", USUAL), search.get("accuracy", AUTO))[0]


def recorded_floors(study: Mapping[str, Any]) -> tuple[Floor, ...]:
    """Constraints on what is measured, of a study as it was recorded.

    Args:
        study: Row of the study.
    """
    texts = [text for text in study["config"].get("constraints", ()) if is_floor(text)]
    search = study["config"].get("search", {})
    return floors_of(texts, *objectives_of(search.get("objectives", USUAL), search.get("accuracy", AUTO)))


def check_objectives(names: Sequence[str], *, multi_label: bool, frames: int) -> None:
    """Refuses objectives that make no sense for the data.

    Args:
        names: Of the search.
        multi_label: Whether videos have several labels.
        frames: Of a clip.

    Raises:
        SearchError: In one line.
    """
    key = "search.objectives"
    for name in names:
        if name == "map" and not multi_label:
            raise SearchError(f"{key} may have map only for videos of several labels, but these have one; leave it out")
        if name in ("balanced", MOTION_GAP) and multi_label:
            raise SearchError(
                f"{key} may have {name} only for videos of one label, but these have several; leave it out"
            )
        if name == MOTION_GAP and frames < 2:
            raise SearchError(
                f"{key} may have {MOTION_GAP} only for clips of 2 frames or more, but these have {frames}"
            )
