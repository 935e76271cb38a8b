"""Charts as files of their own: the SVG of the report, alone or in a page, or the same geometry as a PNG."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from markupsafe import Markup

from nas.errors import NasError, NotFoundError
from nas.read.compare import Band, Group, trained
from nas.read.report.charts import Chart, bands_chart, front_chart, precision_chart, roc_chart
from nas.read.report.gather import points_of
from nas.read.report.page import TEMPLATE, environment
from nas.store.records import ResultRow, Row, StudyRow
from nas.study.fidelity import recorded_fidelity
from nas.study.metric import TOP1, largest_share, metric_of, recorded_counts, short_number
from nas.study.objectives import averaged, recorded_objectives
from nas.use.detection import Curves
from trainer.files import check_replaceable, make_folder

ENDINGS = (".html", ".svg", ".png")


def check_plots(paths: Sequence[Path]) -> None:
    """Refuses what cannot be drawn, before anything is computed for it.

    Raises:
        NasError: Another ending, a file that cannot be written or is there twice, or the PNG extra is missing.
    """
    for place, path in enumerate(paths):
        if path.suffix not in ENDINGS:
            raise NasError(f"a plot must end in .html, .svg or .png, but is {path}")
        if path.suffix == ".png" and find_spec("matplotlib") is None:
            raise NasError("a PNG needs matplotlib: pip install 'video-nas[png]', or write an .svg")
        if path.resolve() in [other.resolve() for other in paths[:place]]:
            raise NasError(f"two plots would be {path}; name another file")
        try:
            make_folder(path.parent)
            check_replaceable(path)
        except OSError as error:
            raise NasError(f"the plot {path} cannot be written: {error.strerror}") from error


def draw_front(study: StudyRow, evaluations: Sequence[ResultRow], front: Sequence[Row], path: Path) -> None:
    """Draws accuracy against MACs: the networks of every rung, the higher the stronger, and the front.

    Args:
        study: The study's row.
        evaluations: Rows of `Store.evaluations`.
        front: Rows of the view `pareto_front`.
        path: Ends in `.html`, `.svg` or `.png`; appears whole or not at all.

    Raises:
        NasError: Another ending, no front yet, or the PNG extra is missing.
    """
    if path.suffix in ENDINGS and not front:
        raise NotFoundError(f"the study {study['name']} has no front yet; run `nas search` first")
    _write(path, lambda: _front(study, evaluations, front))


def draw_bands(groups: Sequence[Group], bands: Sequence[Band], path: Path) -> None:
    """Draws each group's networks, its median front over the seeds, and the band between the quartiles.

    Args:
        groups: The searches.
        bands: One for each group.
        path: Ends in `.html`, `.svg` or `.png`; appears whole or not at all.

    Raises:
        NasError: Another ending, or the PNG extra is missing.
    """
    _write(path, lambda: _bands(groups, bands))


def draw_curves(title: str, curves: Sequence[Curves], kind: Literal["roc", "precision"], path: Path) -> None:
    """Draws ROC or precision-recall curves of classes.

    Args:
        title: What they are of.
        curves: One per class.
        kind: Which.
        path: Ends in `.html`, `.svg` or `.png`; appears whole or not at all.

    Raises:
        NasError: Another ending, no curve, or the PNG extra is missing.
    """
    if path.suffix in ENDINGS and not curves:
        raise NotFoundError("a curve needs a class that some of the videos have and others have not")
    _write(path, lambda: (title, roc_chart(curves) if kind == "roc" else precision_chart(curves)))


def _front(study: StudyRow, evaluations: Sequence[ResultRow], front: Sequence[Row]) -> tuple[str, Chart]:
    first, metric, fidelity = front[0], metric_of(evaluations), recorded_fidelity(study)
    points = points_of(averaged(evaluations), {row["digest"] for row in front}, recorded_objectives(study))
    costs = {
        row["digest"]: f"{short_number(row['macs'])} MACs, {short_number(row['params'])} params" for row in evaluations
    }
    chart = front_chart(
        points,
        0 if study["data"].get("multi_label") else study["num_classes"],
        metric,
        fidelity,
        largest_share(*recorded_counts(study["data"])) if metric == TOP1 else None,
        names={
            row["digest"]: f"{row['description']} ({row['digest'][:10]}, {costs[row['digest']]})" for row in evaluations
        },
    )
    place = fidelity.at_epochs(first["epochs"])
    return (
        f"{study['name']}: {metric} on {first['num_clips']:,} val clips {place}, MACs of one {study['clip']} clip",
        chart,
    )


def _bands(groups: Sequence[Group], bands: Sequence[Band]) -> tuple[str, Chart]:
    first = groups[0].members[0]
    title = f"{first.metric} on {first.num_clips:,} val clips {trained(first)}, MACs of one {first.clip} clip"
    return title, bands_chart(groups, bands)


def _write(path: Path, make: Callable[[], tuple[str, Chart]]) -> None:
    check_plots([path])
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        title, chart = make()
        if path.suffix == ".png":
            _png(title, chart, part)
        else:
            svg = _svg(title, chart)
            part.write_text(svg if path.suffix == ".svg" else _page(title, svg), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise NasError(f"the plot {path} cannot be written: {error.strerror}") from error


def _svg(title: str, chart: Chart) -> str:
    page = environment().get_template("plot.svg")
    return page.render(chart=chart, title=title, style=Markup(_style()), place=lambda digest: None)


def _page(title: str, svg: str) -> str:
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        "<style>body { margin: 0 auto; max-width: 1100px; }</style>\n</head>\n<body>\n"
        f"{svg}\n</body>\n</html>\n"
    )


def _style() -> str:
    """The rules of the report for what stands in a plot, with the colours of its light theme in the place of names."""
    sheet = (TEMPLATE / "style.css").read_text(encoding="utf-8")
    rules = sheet[sheet.index(".lines {") : sheet.index(".forest .cell")]
    rules += ".ground { fill: var(--surface); } svg { font-family: system-ui, 'Liberation Sans', Arial, sans-serif; }\n"
    rules += "svg .title { font-size: 15px; fill: var(--text); }\n"
    colours = _colours()
    return re.sub(r"var\(--([\w-]+)\)", lambda found: colours[found[1]], rules)


def _colours() -> Mapping[str, str]:
    sheet = (TEMPLATE / "style.css").read_text(encoding="utf-8")
    light = sheet[sheet.index(":root {") : sheet.index("}")]
    return dict(re.findall(r"--([\w-]+): ([^;]+);", light))


def _png(title: str, chart: Chart, path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NasError("a PNG needs matplotlib: pip install 'video-nas[png]', or write front.svg") from error
    colours = {"front": _colours()["c0"], **_colours()}
    figure = Figure(figsize=(9, 5.6), dpi=150, layout="constrained")
    axes = figure.subplots()

    def look(kind: str) -> tuple[str, str]:
        return colours.get(kind.split()[0], colours["top"]), "--" if "dashed" in kind else "-"

    def places(points: str) -> tuple[list[float], list[float]]:
        pairs = [pair.split(",") for pair in points.split()]
        return [float(x) / 10 for x, _ in pairs], [100 - float(y) / 10 for _, y in pairs]

    for area in chart.areas:
        axes.fill(*places(area.points), color=look(area.kind)[0], alpha=0.16, linewidth=0)
    for line in chart.lines:
        axes.plot(*places(line.points), color=look(line.kind)[0], linestyle=look(line.kind)[1], linewidth=1.6)
    for mark in chart.marks:
        faint = mark.kind == "low" or "small" in mark.kind
        if mark.bar:
            axes.plot([mark.x] * 2, [100 - end for end in mark.bar], color=look(mark.kind)[0], linewidth=1)
        axes.plot(mark.x, 100 - mark.y, "o", color=look(mark.kind)[0], ms=3 if faint else 5, alpha=0.5 if faint else 1)
    for rule in chart.rules:
        axes.axhline(100 - rule.y, color=colours["muted"], linestyle=":", linewidth=1)
        axes.text(100, 100 - rule.y, rule.text, ha="right", va="bottom", fontsize=8, color=colours["muted"])
    for kind, text in chart.legend:
        axes.plot([], [], marker="o", color=look(kind)[0], linestyle=look(kind)[1], label=text, ms=4)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.set_xticks([tick.at for tick in chart.x.ticks], [tick.text for tick in chart.x.ticks])
    axes.set_yticks([tick.at for tick in chart.y.ticks], [tick.text for tick in chart.y.ticks])
    axes.set_xlabel(chart.x_title)
    axes.set_ylabel(chart.y_title)
    axes.set_title(title, fontsize=9)
    axes.legend(frameon=False, fontsize=8)
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(path)
