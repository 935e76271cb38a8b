"""How a front was found: rungs, hypervolume as training goes on, and the front of each setting's values. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from statistics import median

from nas.compare import front
from nas.fidelity import EPOCHS, Fidelity
from nas.importance import marginal_fronts, rungs_of
from nas.learned import Box
from nas.report.values import Level, Marginal, Point, Rung, Step
from nas.store import Row

ENOUGH = 10  # results at a rung from which on the sampler learns from it; the same holds for marginal fronts

TRIED = 3  # networks from which on a value's hypervolume says more about the value than about the sampler


def rungs(points: Sequence[Point], epochs: Sequence[int]) -> tuple[Rung, ...]:
    """Who reached each rung.

    Args:
        points: Of the search.
        epochs: Of each rung that the study planned.
    """
    planned = dict(enumerate(epochs)) | {p.rung: p.epochs for p in points}
    found = []
    for rung, number in sorted(planned.items()):
        here = [p for p in points if p.rung == rung]
        found.append(
            Rung(
                rung=rung,
                epochs=number,
                networks=len(here),
                best=max((p.accuracy for p in here), default=None),
                median=median(p.accuracy for p in here) if here else None,
                num_clips=here[0].num_clips if here else None,
            )
        )
    return tuple(found)


def steps(
    points: Sequence[Point], fidelity: Fidelity = EPOCHS, *, below: Collection[tuple[str, int]] = ()
) -> tuple[Step, ...]:
    """Hypervolume of each rung's front, each time that the rung got a result, against epochs trained until then.

    Each rung has its own sequence, for results of different fidelity do not belong on one front. The rectangle is that
    of all networks measured at any rung, as they are now. Where a rung sees a part of the data or of the clip, its
    epochs count by their share of the work.

    Args:
        points: Of the search, in the order in which they were measured.
        fidelity: Its rungs.
        below: Digest and rung of networks that do not meet the study's constraints.
    """
    if not points:
        return ()
    box = Box.of([point.values for point in points])
    spent = 0.0
    trained: dict[int, int] = {}
    reached: dict[int, list[Point]] = {}
    found: list[Step] = []
    best: dict[int, float] = {}
    for point in points:
        spent += max(0, point.epochs - trained.get(point.number, 0)) * fidelity.worth(point.rung) * point.seeds
        trained[point.number] = max(point.epochs, trained.get(point.number, 0))
        if (point.digest, point.rung) in below:
            continue
        here = reached.setdefault(point.rung, [])
        here.append(point)
        value = box.share([one.values for one in here])
        here[:] = [here[i] for i in front([one.values for one in here])]  # the rest adds nothing later, either
        if value > best.get(point.rung, -1.0):
            best[point.rung] = value
            found.append(Step(rung=point.rung, epochs=spent, share=value))
    found += [Step(rung=rung, epochs=spent, share=value) for rung, value in best.items()]  # each goes on to the end
    return tuple(found)


def marginals(evaluations: Sequence[Row]) -> tuple[Marginal, ...]:
    """The front if a setting had one of its values only, for every setting that had two or more.

    They are of the highest rung with at least ten results, else of the lowest, as the sampler's history is. Settings
    whose values differ most in hypervolume come first, values of fewer than three networks aside, which have little
    because they were tried little; within a setting, the value with the most comes first.

    Args:
        evaluations: Rows of `Store.evaluations`.
    """
    reached = rungs_of(evaluations)
    if not reached:
        return ()
    rung = max((number for number, rows in reached.items() if len(rows) >= ENOUGH), default=min(reached))
    groups: dict[str, list[Level]] = {}
    for level in marginal_fronts(evaluations, rung=rung):
        groups.setdefault(level.factor, []).append(
            Level(
                level=level.level,
                networks=level.networks,
                best=max(level.accuracy),
                share=level.share,
                front=tuple(sorted(set(zip(level.macs, level.accuracy, strict=True)))),
            )
        )
    found = [
        Marginal(factor=factor, epochs=reached[rung][0]["epochs"], levels=tuple(sorted(levels, key=lambda v: -v.share)))
        for factor, levels in groups.items()
    ]
    return tuple(sorted(found, key=_agreement))


def _agreement(marginal: Marginal) -> float:
    shares = [level.share for level in marginal.levels if level.networks >= TRIED]
    return min(shares) - max(shares) if shares else 0.0
