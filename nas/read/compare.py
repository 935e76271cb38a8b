"""Fronts of several searches side by side: what may be compared, bands over seeds, hypervolume. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import NasError, NotFoundError
from nas.study.fidelity import Fidelity, recorded_fidelity, worth_of
from nas.study.front import CORNER, front, hypervolume
from nas.study.metric import TOP1, accuracy_of, metric_of
from nas.study.objectives import averaged, meets, no_front, recorded_floors
from nas.study.study import changes

Row = Mapping[str, Any]
MAX_NAMED = 3  # settings that a group's label or a message names
TRIALS = "search.trials"


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchFront:
    """One search at one fidelity.

    Attributes:
        path: Its database.
        study: Its name.
        seed: Of the search.
        config: The study as it was run.
        clip: Such as `16x112x112`.
        num_classes: Of the data.
        checksum: Of the data.
        epochs: Of the training behind a result.
        num_clips: Videos that accuracies were measured on.
        macs: (networks,) of one clip.
        accuracy: (networks,) shares of 1.
        metric: What accuracy is called: `top-1` or `mAP`.
        part: What it saw of data or clip, at a rung below the full one; empty at full fidelity.
        trials: Networks that it has begun, at any rung.
        trained: Epochs that all its results took, in those of full fidelity.
    """

    path: str
    study: str
    seed: int
    config: Mapping[str, Any]
    clip: str
    num_classes: int
    checksum: str
    epochs: int
    num_clips: int
    macs: tuple[int, ...]
    accuracy: tuple[float, ...]
    metric: str = TOP1
    part: str = ""
    trials: int = 0
    trained: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Searches that differ in their seed only, of as many trials.

    Attributes:
        label: The study's name, with settings where two groups share it.
        members: By rising seed.
    """

    label: str
    members: tuple[SearchFront, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """The best accuracy within each budget of MACs, over the seeds of a group.

    Attributes:
        macs: Rising budgets at which something changes, from the first within which every search has a network.
        median: Of the best accuracy.
        low: Its lower quartile over the seeds; the median for a single search.
        high: Its upper quartile.
    """

    macs: tuple[int, ...]
    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Volumes:
    """Hypervolumes with one reference.

    Attributes:
        error: Of the reference: the worst error of all networks, and 5 % of the range beyond.
        macs: Of the reference, in the same way on the log axis.
        by_path: Hypervolume of each search, as a share of the box between the best of both axes and the reference.
    """

    error: float
    macs: float
    by_path: Mapping[str, float]


def searched(
    path: str, study: Row, evaluations: Sequence[Row], *, trials: int, fidelity: int | None = None
) -> SearchFront:
    """A search at its highest rung, or at that of `fidelity` epochs with all videos and the full clip.

    Args:
        path: Its database.
        study: The study's row.
        evaluations: Rows of `Store.evaluations`.
        trials: How many it has begun.
        fidelity: Epochs of the rung.

    Raises:
        NotFoundError: It has no results (there).
    """
    if not evaluations:
        raise NotFoundError(f"the study {study['name']} in {path} has no front yet; run `nas search` first")
    top, rungs = max(row["rung"] for row in evaluations), recorded_fidelity(study)
    if fidelity is None:
        rows = [row for row in evaluations if row["rung"] == top]
    else:
        rows = [row for row in evaluations if _full_epochs(rungs, row["rung"], row["epochs"]) == fidelity]
    rows = [row for row in averaged(rows) if meets(row, recorded_floors(study))]
    if not rows and evaluations and fidelity is None:
        raise NotFoundError(f"{path}: {no_front(study, evaluations)}")
    if not rows:
        reached = ", ".join(map(str, full_epochs(study, evaluations))) or "none at full fidelity"
        raise NotFoundError(f"{path} has no rung of {fidelity} epochs (epochs that it has: {reached})")
    rung = rows[0]["rung"]
    return SearchFront(
        path=path,
        study=study["name"],
        seed=study["seed"],
        config=study["config"],
        clip=study["clip"],
        num_classes=study["num_classes"],
        checksum=str(study["data"].get("checksum")),
        epochs=rows[0]["epochs"] - rungs.before(rung),
        part="" if rungs.is_full(rung) else rungs.label(rung),
        num_clips=rows[0]["num_clips"],
        macs=tuple(row["macs"] for row in rows),
        accuracy=tuple(accuracy_of(row) for row in rows),
        metric=metric_of(rows),
        trials=trials,
        trained=worth_of(rungs, evaluations),
    )


def full_epochs(study: Row, evaluations: Sequence[Row]) -> list[int]:
    """The epochs of the trainings with all videos and the full clip, of the rungs that have results."""
    rungs = recorded_fidelity(study)
    found = {_full_epochs(rungs, row["rung"], row["epochs"]) for row in evaluations}
    return sorted(epochs for epochs in found if epochs is not None)


def _full_epochs(rungs: Fidelity, rung: int, epochs: int) -> int | None:
    return epochs - rungs.before(rung) if rungs.is_full(rung) else None


def check_comparable(searches: Sequence[SearchFront], epochs: Mapping[str, Sequence[int]]) -> None:
    """Refuses what does not belong side by side.

    Args:
        searches: Two or more.
        epochs: By path, the epochs of all rungs at full fidelity that have results.

    Raises:
        NasError: They differ in clip, classes, data, accuracy or fidelity, or one stands twice.
    """
    if len(searches) < 2:
        raise NasError(f"a comparison needs two databases or more, but got {len(searches)}")
    paths = [one.path for one in searches]
    for path in paths:
        if paths.count(path) > 1:
            raise NasError(f"each database stands once, but {path} stands {paths.count(path)} times")
    first = searches[0]
    for other in searches[1:]:
        for what, mine, its in (
            ("clip", first.clip, other.clip),
            ("number of classes", first.num_classes, other.num_classes),
            ("data, by checksum,", first.checksum[:10], other.checksum[:10]),
            ("accuracy", first.metric, other.metric),
        ):
            if mine != its:
                raise NasError(
                    f"fronts are compared on one {what} only, but it is {mine} in {first.path} and {its} in "
                    f"{other.path}"
                )
        if (first.epochs, first.part) != (other.epochs, other.part):
            common = set.intersection(*(set(found) for found in epochs.values()))
            listed = ", ".join(str(number) for number in sorted(common))
            way_out = f"give --fidelity {max(common)} (all have: {listed})" if common else "no rung is common to all"
            raise NasError(
                f"fronts are compared at equal training only, but it is {first.epochs} epochs{_of(first)} in "
                f"{first.path} and {other.epochs}{_of(other)} in {other.path}; {way_out}"
            )


def trained(search: SearchFront) -> str:
    """What a search's results were trained on, in words: `after 9 epochs`, `after 3 epochs at 8 frames`."""
    return f"after {search.epochs} epochs{_of(search)}"


def _of(search: SearchFront) -> str:
    return f" at {search.part}" if search.part else ""


def grouped(searches: Sequence[SearchFront]) -> list[Group]:
    """Searches of the same study with different seeds, together; in the order of their first member.

    Raises:
        NasError: Two searches of one group have the same seed.
    """
    groups: list[list[SearchFront]] = []
    for one in searches:
        home = next((group for group in groups if not _differ(group[0], one)), None)
        if home is None:
            groups.append([one])
            continue
        twin = next((other for other in home if other.seed == one.seed), None)
        if twin is not None:
            raise NasError(
                f"a band is over different seeds, but {twin.path} and {one.path} both hold {one.study} with seed "
                f"{one.seed}"
            )
        home.append(one)
    return [
        Group(label=_label(group[0], groups), members=tuple(sorted(group, key=lambda one: one.seed)))
        for group in groups
    ]


def differences(groups: Sequence[Group]) -> dict[str, tuple[str, ...]]:
    """Settings, names aside, in which groups differ from the first, with the value in each group."""
    first = groups[0].members[0]
    keys = {key for group in groups[1:] for key in _changes(first, group.members[0])} - {"name"}
    found = {}
    for key in sorted(keys):
        found[key] = tuple(str(_at(group.members[0], key)) for group in groups)
    return found


def best_within(search: SearchFront, macs: Sequence[float]) -> NDArray[np.float64]:
    """Best accuracy of a search within each budget of MACs; minus infinity where it has no network as cheap."""
    order = np.argsort(search.macs, kind="stable")
    costs = np.asarray(search.macs, dtype=float)[order]
    best = np.maximum.accumulate(np.asarray(search.accuracy, dtype=float)[order])
    place = np.searchsorted(costs, np.asarray(macs, dtype=float), side="right")
    within: NDArray[np.float64] = np.concatenate([[-np.inf], best])[place]
    return within


def band_of(group: Group, macs: Sequence[int] | None = None) -> Band:
    """Median and quartiles over a group's seeds of the best accuracy within each budget.

    This is the attainment of a group of runs (Fonseca et al. 2001) read at fixed cost.

    Args:
        group: The searches.
        macs: Budgets; those at which some search improves unless given. Budgets within which a search of the group has
            no network are left out.
    """
    if macs is None:
        steps = set()
        for one in group.members:
            steps |= {one.macs[i] for i in front(np.column_stack([1 - np.array(one.accuracy), one.macs]))}
        macs = sorted(steps)
    start = max(min(one.macs) for one in group.members)
    kept = [budget for budget in macs if budget >= start]
    best = np.array([best_within(one, kept) for one in group.members]).reshape(len(group.members), len(kept))
    low, median, high = np.quantile(best, (0.25, 0.5, 0.75), axis=0)
    return Band(macs=tuple(kept), median=tuple(median.tolist()), low=tuple(low.tolist()), high=tuple(high.tolist()))


def budgets(groups: Sequence[Group], count: int = 8) -> list[int]:
    """Budgets of MACs for a table: even steps in logs over what every search can pay for."""
    members = [one for group in groups for one in group.members]
    low, high = max(min(one.macs) for one in members), max(max(one.macs) for one in members)
    return sorted({int(np.ceil(budget)) for budget in np.geomspace(low, high, count).tolist()} - {high + 1} | {high})


def volumes(searches: Sequence[SearchFront]) -> Volumes:
    """Hypervolume of every search in (error, log10 of MACs), with one reference for all of them."""
    error = np.concatenate([1 - np.array(one.accuracy) for one in searches])
    macs = np.log10(np.concatenate([np.array(one.macs, dtype=float) for one in searches]))
    low = np.array([error.min(), macs.min()])
    width = np.array([error.max(), macs.max()]) - low
    width = np.where(width > 0, width, 1.0)
    by_path = {}
    for one in searches:
        points = (
            np.column_stack([1 - np.array(one.accuracy), np.log10(np.array(one.macs, dtype=float))]) - low
        ) / width
        by_path[one.path] = hypervolume(points, (CORNER, CORNER)) / CORNER**2
    corner = low + CORNER * width
    return Volumes(error=float(corner[0]), macs=float(10 ** corner[1]), by_path=by_path)


def _changes(a: SearchFront, b: SearchFront) -> set[str]:
    # The same search may go on with more trials, so `changes` lets them differ, and what a study's record says of them
    # is what it began with. A front after more trials is better for that alone, so here those that were begun count.
    own = {"name": a.study != b.study, TRIALS: a.trials != b.trials}
    return set(changes(a.config, b.config)) - {"seed"} | {key for key, differs in own.items() if differs}


def _differ(a: SearchFront, b: SearchFront) -> bool:
    return bool(_changes(a, b))


def _label(own: SearchFront, groups: Sequence[Sequence[SearchFront]]) -> str:
    namesakes = [group[0] for group in groups if group[0].study == own.study]
    keys = sorted({key for other in namesakes for key in _changes(own, other)})
    if not keys:
        return own.study
    settings = ", ".join(f"{key}={_at(own, key)}" for key in keys[:MAX_NAMED])
    return f"{own.study} ({settings}{', …' if len(keys) > MAX_NAMED else ''})"


def _at(search: SearchFront, key: str) -> Any:
    if key == TRIALS:
        return search.trials
    value: Any = search.config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
