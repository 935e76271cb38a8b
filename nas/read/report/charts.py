"""Charts as geometry: places of lines, marks and ticks, in percent of the plot. Pure; `template/charts.html` draws."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nas.read.compare import Band, Group
from nas.read.report.axes import MINUS, Scale, amount, linear, logarithmic, measured, percent, plural
from nas.read.report.values import Ablation, Curve, Effect, Level, Marginal, Point, Step
from nas.search.calibration import CONFIDENCE, Expected
from nas.study.fidelity import EPOCHS, Fidelity
from nas.study.metric import MAP, TOP1
from nas.use.detection import Curves

VERTICES = 80  # of one learning curve; more cannot be told apart, and cost bytes
COLOURS = 6  # of lines in one chart; further ones repeat colours with another dash


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A point of a chart.

    Attributes:
        x: Percent from the left.
        y: Percent from the top.
        kind: Of its look: `front`, `top`, `low`.
        digest: Of the network that it stands for.
        label: What the pointer and a screen reader are told.
        bar: Top and bottom of its error bar in percent, if it has one.
    """

    x: float
    y: float
    kind: str
    digest: str
    label: str
    bar: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A polyline, or the edge of an area: `points` as SVG has them in a box of 1000 by 1000, its look, its meaning."""

    points: str
    kind: str
    digest: str = ""
    label: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """A horizontal line across the plot: percent from the top, and its text."""

    y: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One chart; its title is for screen readers, its legend pairs looks with texts."""

    title: str
    x_title: str
    y_title: str
    x: Scale
    y: Scale
    lines: tuple[Line, ...]
    areas: tuple[Line, ...] = ()
    marks: tuple[Mark, ...] = ()
    rules: tuple[Rule, ...] = ()
    legend: tuple[tuple[str, str], ...] = ()


def front_chart(
    points: Sequence[Point],
    num_classes: int,
    metric: str = TOP1,
    fidelity: Fidelity = EPOCHS,
    largest: float | None = None,
    *,
    names: Mapping[str, str] | None = None,
) -> Chart:
    """Accuracy against MACs: every rung's networks, the higher the stronger, and the front with its intervals.

    Args:
        points: The measurements.
        num_classes: Of the data; 0 where no one accuracy is chance.
        metric: What accuracy is called.
        fidelity: The rungs.
        largest: Accuracy of always naming the most frequent class.
        names: What labels call a network, by digest, where the chart stands alone; else its page knows the digests.
    """
    chance = _chances(num_classes, metric, largest)
    x = logarithmic([p.macs for p in points])
    y = _accuracy([*chance.values(), *(end for p in points for end in _ends(p))])
    top = max((p.rung for p in points), default=0)
    front = sorted((p for p in points if p.front), key=lambda p: p.macs)
    marks = [
        Mark(
            x=x.at(p.macs),
            y=_down(y, p.accuracy),
            kind="front" if p.front else "top" if p.rung == top else "low",
            digest="" if names is not None else p.digest,
            label=f"{names[p.digest]}; {point_label(p, metric, fidelity)}"
            if names
            else point_label(p, metric, fidelity),
            bar=(_down(y, max(_ends(p))), _down(y, min(_ends(p)))) if p.front and p.interval is not None else None,
        )
        for p in sorted(points, key=lambda p: (p.front, p.rung, p.macs))
    ]
    epochs = sorted({(p.rung, p.epochs) for p in points})
    texts = [str(number) if fidelity.continues else fidelity.label(rung) for rung, number in epochs if rung < top]
    lower = ", ".join(texts) + (" epochs" if fidelity.continues else "")
    best, place = (fidelity.label_of(epochs[-1][1]), fidelity.at_epochs(epochs[-1][1])) if epochs else ("", "")
    bars = ", bars of 95 %" if metric == TOP1 else ""
    legend = [("front", f"front {place}{bars}"), ("top", f"beaten, {best}")]
    if texts:
        legend.append(("low", f"lower rungs ({lower})"))
    return Chart(
        title=f"{metric[:1].upper() + metric[1:] if metric != MAP else metric} against MACs of "
        f"{plural(len({p.digest for p in points}), 'network')}; {len(front)} on the front",
        x_title="MACs of one clip (log)",
        y_title=f"{metric} on val",
        x=x,
        y=y,
        lines=(Line(points=_stairs(x, y, [(p.macs, p.accuracy) for p in front]), kind="front"),) if front else (),
        marks=tuple(marks),
        rules=_chance(y, chance),
        legend=tuple(legend),
    )


def bands_chart(groups: Sequence[Group], bands: Sequence[Band]) -> Chart:
    """Best accuracy within each budget of MACs of several searches: medians over seeds, and the band of quartiles.

    Args:
        groups: The searches.
        bands: One for each group.
    """
    members = [one for group in groups for one in group.members]
    metric = members[0].metric
    x = logarithmic([macs for one in members for macs in one.macs])
    y = _accuracy([value for one in members for value in one.accuracy])
    lines, areas, marks, legend = list[Line](), list[Line](), list[Mark](), list[tuple[str, str]]()
    for place, (group, band) in enumerate(zip(groups, bands, strict=True)):
        kind, seeds = _colour(place), len(group.members)
        low, high = (list(zip(band.macs, edge, strict=True)) for edge in (band.low, band.high))
        if seeds > 1:
            back = " ".join(reversed(_stairs(x, y, low).split(" ")))
            areas.append(Line(points=f"{_stairs(x, y, high)} {back}", kind=kind))
        lines.append(Line(points=_stairs(x, y, list(zip(band.macs, band.median, strict=True))), kind=kind))
        legend.append((kind, f"{group.label}, {plural(seeds, 'seed')}"))
        for one in group.members:
            for macs, value in zip(one.macs, one.accuracy, strict=True):
                label = f"{group.label}, seed {one.seed}: {metric} {percent(value)} at {amount(macs)} MACs"
                marks.append(Mark(x=x.at(macs), y=_down(y, value), kind=f"{kind} small", digest="", label=label))
    return Chart(
        title=f"Best {metric} within a budget of MACs of {plural(len(groups), 'search', 'searches')}",
        x_title="MACs of one clip (log)",
        y_title=f"best {metric} within the MACs: median and quartiles over seeds",
        x=x,
        y=y,
        lines=tuple(lines),
        areas=tuple(areas),
        marks=tuple(marks),
        legend=tuple(legend),
    )


def roc_chart(curves: Sequence[Curves]) -> Chart:
    """Recall of each class against its false alarms, over all thresholds; by chance both are equal."""
    x, y = _share_axis(), _share_axis()
    lines = [
        Line(points=_path(x, y, [(0, 0), *_thinned(one.false_alarms, one.recall)]), kind=_colour(place), label=one.name)
        for place, one in enumerate(curves)
    ]
    return Chart(
        title=f"ROC curves of {plural(len(curves), 'class', 'classes')}",
        x_title="false alarms: share of the other videos",
        y_title="recall",
        x=x,
        y=y,
        lines=(Line(points=_path(x, y, [(0, 0), (1, 1)]), kind="low dashed", label="chance"), *lines),
        legend=tuple((_colour(place), one.name) for place, one in enumerate(curves)),
    )


def precision_chart(curves: Sequence[Curves]) -> Chart:
    """Precision of each class against its recall, over all thresholds."""
    x, y = _share_axis(), _share_axis()
    lines = [
        Line(points=_path(x, y, _thinned(one.recall, one.precision)), kind=_colour(place), label=one.name)
        for place, one in enumerate(curves)
    ]
    return Chart(
        title=f"Precision-recall curves of {plural(len(curves), 'class', 'classes')}",
        x_title="recall",
        y_title="precision",
        x=x,
        y=y,
        lines=tuple(lines),
        legend=tuple(
            (_colour(place), f"{one.name}, {percent(one.share)} of the videos") for place, one in enumerate(curves)
        ),
    )


def _share_axis() -> Scale:
    return linear([0.0, 1.0], text=lambda v: percent(v, digits=0), bounds=(0, 1))


def _thinned(xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
    """The points of a curve, without those that a plot cannot show: closer than a quarter of a percent to the last."""
    kept: list[tuple[float, float]] = []
    for place, point in enumerate(zip(xs, ys, strict=True)):
        if not kept or place == len(xs) - 1 or max(abs(a - b) for a, b in zip(point, kept[-1], strict=True)) >= 0.0025:
            kept.append(point)
    return kept


def point_label(point: Point, metric: str, fidelity: Fidelity = EPOCHS) -> str:
    """One measurement in words."""
    seeds = f", mean of {point.seeds} seeds" if point.seeds > 1 else ""
    return (
        f"{metric} {measured(point.accuracy, *(point.interval or (None, None)))} ({point.num_clips:,} clips), "
        f"{fidelity.label_of(point.epochs)}, trial {point.number}{seeds}"
    )


def curves_chart(
    curves: Sequence[Curve],
    num_classes: int,
    metric: str = TOP1,
    fidelity: Fidelity = EPOCHS,
    largest: float | None = None,
) -> Chart:
    """Learning curves; those that were stopped early lie below the others."""
    x = linear([0, *(epoch for c in curves for epoch, _ in c.values)], text=lambda v: f"{v:g}")
    chance = _chances(num_classes, metric, largest)
    y = _accuracy([*chance.values(), *(value for c in curves for _, value in c.values)])
    order = ("stopped", "failed", "running", "top", "front")
    words = {
        "front": "on the front",
        "top": "reached the highest rung",
        "stopped": "stopped early",
        "running": "under way",
        "failed": "failed",
    }
    lines = []
    for curve in sorted(curves, key=lambda c: order.index(c.kind)):
        last = curve.values[-1]
        lines.append(
            Line(
                points=_path(x, y, thin(curve.values)),
                kind=curve.kind,
                digest=curve.digest,
                label=f"trial {curve.number}, {words[curve.kind]}; {metric} {percent(last[1])} "
                f"{fidelity.at_epochs(last[0])}",
            )
        )
    kinds = {c.kind for c in curves}
    return Chart(
        title=f"Learning curves of {plural(len(curves), 'trial')}",
        x_title="epochs",
        y_title=f"{metric} on val",
        x=x,
        y=y,
        lines=tuple(lines),
        rules=_chance(y, chance),
        legend=tuple((kind, words[kind]) for kind in reversed(order) if kind in kinds),
    )


def hypervolume_chart(steps: Sequence[Step], epochs: Mapping[int, int], fidelity: Fidelity = EPOCHS) -> Chart:
    """Hypervolume of each rung's front against epochs spent by the whole search.

    Args:
        steps: In the order of epochs.
        epochs: Of each rung.
        fidelity: The rungs.
    """
    x = linear([0, *(s.epochs for s in steps)], text=lambda v: f"{v:,.0f}")
    y = linear([0, *(s.share for s in steps)], text=lambda v: percent(v, digits=0), bounds=(0, 1))
    rungs = sorted({s.rung for s in steps}, reverse=True)
    lines = []
    for place, rung in enumerate(rungs):
        values = [(s.epochs, s.share) for s in steps if s.rung == rung]
        lines.append(Line(points=_stairs(x, y, values, rest=False), kind=f"c{place % COLOURS}"))
    return Chart(
        title="Hypervolume of the front of each rung against epochs trained in all",
        x_title="epochs trained in all" if fidelity.continues else "epochs' worth of full fidelity, in all",
        y_title="hypervolume",
        x=x,
        y=y,
        lines=tuple(reversed(lines)),
        legend=tuple(
            (f"c{place % COLOURS}", f"front {fidelity.at_epochs(epochs[rung])}") for place, rung in enumerate(rungs)
        ),
    )


def expected_chart(expected: Sequence[Expected], metric: str = TOP1, fidelity: Fidelity = EPOCHS) -> Chart:
    """What a model expected, with its interval, against what was measured; both axes are the same."""
    past = [(one, one.measured) for one in expected if one.measured is not None]
    ends = [end for one, own in past for end in (one.low, one.high, one.accuracy, own)]
    x, y = _accuracy(ends), _accuracy(ends)
    interval = percent(CONFIDENCE, digits=0)
    marks = [
        Mark(
            x=x.at(own),
            y=_down(y, one.accuracy),
            kind="top" if one.inside else "c1",
            digest=one.digest,
            label=f"{metric} {percent(own)} measured, {measured(one.accuracy, one.low, one.high)} expected when trial "
            f"{one.number} {f'went on to {fidelity.label(one.rung)}' if one.rung else 'began'}",
            bar=(_down(y, one.high), _down(y, one.low)),
        )
        for one, own in sorted(past, key=lambda pair: pair[1])
    ]
    return Chart(
        title=f"{metric} at the last rung that the model expected, with its {interval} interval, against what was "
        f"measured; {plural(len(past), 'expectation')}",
        x_title=f"{metric} measured at the last rung",
        y_title=f"{metric} expected",
        x=x,
        y=y,
        lines=(Line(points=_path(x, y, [(x.low, y.low), (x.high, y.high)]), kind="c2 dashed"),),
        marks=tuple(marks),
        legend=(("top", f"within the {interval} interval"), ("c1", "outside of it"), ("c2 dashed", "as expected")),
    )


def marginal_chart(marginal: Marginal, metric: str = TOP1) -> Chart:
    """The front of each value of one setting."""
    values = [point for level in marginal.levels for point in level.front]
    x, y = logarithmic([macs for macs, _ in values]), _accuracy([accuracy for _, accuracy in values])

    def marks(place: int, level: Level) -> Iterable[Mark]:
        for macs, accuracy in level.front:
            label = f"{level.level}: {metric} {percent(accuracy)} at {amount(macs)} MACs"
            yield Mark(x=x.at(macs), y=_down(y, accuracy), kind=f"c{place % COLOURS}", digest="", label=label)

    kinds = [_colour(place) for place in range(len(marginal.levels))]
    return Chart(
        title=f"Fronts of the values of {marginal.factor}",
        x_title="MACs (log)",
        y_title=f"{metric} on val",
        x=x,
        y=y,
        lines=tuple(
            Line(points=_stairs(x, y, level.front), kind=kind, label=level.level)
            for kind, level in zip(kinds, marginal.levels, strict=True)
        ),
        marks=tuple(mark for place, level in enumerate(marginal.levels) for mark in marks(place, level)),
        legend=tuple(
            (kind, f"{level.level} ({level.networks})") for kind, level in zip(kinds, marginal.levels, strict=True)
        ),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ForestRow:
    """One effect of a forest plot: places of its point and interval in percent."""

    effect: Effect
    x: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ForestPlot:
    """A forest plot: its axis in points, where zero and the margin of equivalence stand, and its rows by factor."""

    scale: Scale
    zero: float
    margin: tuple[float, float] | None
    factors: tuple[tuple[str, tuple[ForestRow, ...]], ...]


def forest(ablation: Ablation) -> ForestPlot:
    """The forest plot of an ablation's effects, which all share one axis with 0 in it."""
    ends = [v for e in ablation.effects for v in (e.difference, e.low, e.high) if v is not None and math.isfinite(v)]
    margin = ablation.margin
    extent = [0.0, *ends, *([-margin, margin] if margin else [])]
    scale = linear(extent, text=lambda v: f"{100 * v:+g}".replace("-", MINUS) if abs(v) > 1e-9 else "0", count=4)
    rows: dict[str, list[ForestRow]] = {}
    for effect in ablation.effects:
        known = effect.low is not None and effect.high is not None
        rows.setdefault(effect.factor, []).append(
            ForestRow(
                effect=effect,
                x=scale.at(effect.difference),
                low=scale.at(effect.low) if known and effect.low is not None else None,
                high=scale.at(effect.high) if known and effect.high is not None else None,
            )
        )
    return ForestPlot(
        scale=scale,
        zero=scale.at(0),
        margin=(scale.at(-margin), scale.at(margin)) if margin else None,
        factors=tuple((factor, tuple(members)) for factor, members in rows.items()),
    )


def thin(values: Sequence[tuple[int, float]], most: int = VERTICES) -> list[tuple[int, float]]:
    """At most about `most` of the values, evenly spaced, with the first, the best and the last among them."""
    if len(values) <= most:
        return list(values)
    stride = math.ceil(len(values) / (most - 2))
    best = max(range(len(values)), key=lambda i: values[i][1])
    return [value for i, value in enumerate(values) if i % stride == 0 or i in (best, len(values) - 1)]


def _colour(place: int) -> str:
    return f"c{place % COLOURS}{' dashed' if place >= COLOURS else ''}"


def _chances(num_classes: int, metric: str, largest: float | None) -> dict[str, float]:
    """Accuracies without looking, by name; with several labels they depend on how many of them videos have."""
    if metric == MAP or not num_classes:
        return {}
    chance = {"chance": 1 / num_classes}
    # Where classes are equally frequent, that is chance.
    if metric == TOP1 and largest is not None and largest > chance["chance"] + 0.005:
        chance["largest class"] = largest
    return chance


def _chance(y: Scale, chance: Mapping[str, float]) -> tuple[Rule, ...]:
    return tuple(Rule(y=_down(y, value), text=f"{name} {percent(value)}") for name, value in chance.items())


def _accuracy(values: Sequence[float]) -> Scale:
    return linear(
        values, text=lambda v: percent(v, digits=0 if abs(100 * v - round(100 * v)) < 1e-6 else 1), bounds=(0, 1)
    )


def _ends(point: Point) -> tuple[float, float]:
    """Of the bar of a point; the point itself where its interval is not known."""
    return point.interval or (point.accuracy, point.accuracy)


def _down(y: Scale, value: float) -> float:
    """Percent from the top."""
    return round(100 - y.at(value), 2)


def _path(x: Scale, y: Scale, values: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{10 * x.at(a):.0f},{1000 - 10 * y.at(b):.0f}" for a, b in values)


def _stairs(x: Scale, y: Scale, values: Sequence[tuple[float, float]], *, rest: bool = True) -> str:
    """Steps that keep a value until the next one; with `rest`, the last goes on to the right end."""
    corners: list[tuple[float, float]] = []
    for a, b in values:
        if corners:
            corners.append((a, corners[-1][1]))
        corners.append((a, b))
    if rest and corners:
        corners.append((x.high, corners[-1][1]))
    return _path(x, y, corners)
