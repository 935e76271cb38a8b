"""The front as a picture: interactive HTML by plotly, or PNG by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nas.errors import NasError, NotFoundError
from nas.read.report.axes import log_places
from nas.store.database import Row
from nas.study.fidelity import recorded_fidelity
from nas.study.metric import TOP1, accuracy_of, interval_of, metric_of
from nas.study.study import short_number
from trainer.files import check_replaceable, make_folder


def draw_front(study: Row, evaluations: Sequence[Row], front: Sequence[Row], path: Path) -> None:
    """Draws accuracy against MACs: every evaluation of the front's fidelity, the lower rungs in grey, and the front.

    Args:
        study: The study's row.
        evaluations: Rows of `Store.evaluations`.
        front: Rows of the view `pareto_front`.
        path: Ends in `.html` or `.png`; appears whole or not at all.

    Raises:
        NasError: Another ending, no front yet, or the PNG extra is missing.
    """
    if path.suffix not in (".html", ".png"):
        raise NasError(f"a plot must end in .html or .png, but is {path}")
    if not front:
        raise NotFoundError(f"the study {study['name']} has no front yet; run `nas search` first")
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        make_folder(path.parent)
        check_replaceable(path)
        (_html if path.suffix == ".html" else _png)(study, evaluations, front, part)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise NasError(f"the plot {path} cannot be written: {error.strerror}") from error


def _title(study: Row, front: Sequence[Row], metric: str) -> str:
    first = front[0]
    place = recorded_fidelity(study).at_epochs(first["epochs"])
    return f"{study['name']}: {metric} on {first['num_clips']} val clips {place}, MACs of one {study['clip']} clip"


def _series(evaluations: Sequence[Row]) -> dict[int, list[Row]]:
    series: dict[int, list[Row]] = {}
    for row in evaluations:
        series.setdefault(row["epochs"], []).append(row)
    return dict(sorted(series.items()))


def _grey(place: int, count: int) -> str:
    shade = round(205 - 90 * place / max(1, count - 1))
    return f"#{shade:02x}{shade:02x}{shade:02x}"


def _html(study: Row, evaluations: Sequence[Row], front: Sequence[Row], path: Path) -> None:
    from plotly import graph_objects as go

    figure, metric = go.Figure(), metric_of(evaluations)
    errors = _errors(front, metric)
    hover = f"%{{text}}<br>{metric} %{{y:.3f}}<extra></extra>"
    series = _series(evaluations)
    for place, (epochs, rows) in enumerate(series.items()):
        figure.add_scatter(
            x=[row["macs"] for row in rows],
            y=[accuracy_of(row) for row in rows],
            mode="markers",
            name=recorded_fidelity(study).label_of(epochs),
            marker={"color": _grey(place, len(series)), "size": 8},
            text=[_hover(row["digest"], row["description"], row["macs"], row["params"]) for row in rows],
            hovertemplate=hover,
        )
    figure.add_scatter(
        x=[row["macs"] for row in front],
        y=[row["accuracy"] for row in front],
        mode="lines+markers",
        name="front",
        line={"shape": "hv", "color": "#0b6e4f"},
        marker={"size": 11},
        error_y=None if errors is None else {"array": errors[1], "arrayminus": errors[0], "thickness": 1},
        text=[_hover(row["digest"], row["description"], row["macs"], row["params"]) for row in front],
        hovertemplate=hover,
    )
    figure.update_layout(title=_title(study, front, metric), template="plotly_white")
    figure.update_xaxes(title="MACs", type="log")
    figure.update_yaxes(title=_axis(metric))
    figure.write_html(path, include_plotlyjs=True)


def _png(study: Row, evaluations: Sequence[Row], front: Sequence[Row], path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NasError("a PNG needs matplotlib: pip install 'video-nas[png]', or write front.html") from error
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes, metric = figure.subplots(), metric_of(evaluations)
    series = _series(evaluations)
    for place, (epochs, rows) in enumerate(series.items()):
        x, y = [row["macs"] for row in rows], [accuracy_of(row) for row in rows]
        axes.scatter(x, y, s=18, color=_grey(place, len(series)), label=recorded_fidelity(study).label_of(epochs))
    axes.errorbar(
        [row["macs"] for row in front],
        [row["accuracy"] for row in front],
        yerr=_errors(front, metric),
        color="#0b6e4f",
        marker="o",
        drawstyle="steps-post",
        capsize=2,
        label="front",
    )
    macs_axis(axes, [row["macs"] for row in (*evaluations, *front)])
    axes.set_ylabel(_axis(metric))
    axes.set_title(_title(study, front, metric), fontsize=9)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path)


def macs_axis(axes: Any, values: Sequence[float]) -> None:
    """A logarithmic axis of MACs, which reads 40M and not 4×10⁷; `axes` are matplotlib's."""
    low, high, places = log_places(values)
    axes.set_xscale("log")
    axes.set_xlabel("MACs")
    axes.set_xlim(low, high)
    axes.minorticks_off()
    axes.set_xticks(places, [short_number(place) for place in places])


def _axis(metric: str) -> str:
    return f"{metric} (bars: 95 % interval over clips)" if metric == TOP1 else metric


def _hover(digest: str, description: str, macs: int, params: int) -> str:
    return f"{digest[:10]}<br>{description}<br>{short_number(macs)} MACs, {short_number(params)} params"


def _errors(front: Sequence[Row], metric: str) -> tuple[list[float], list[float]] | None:
    """How far each bar goes down and up; None where the metric has none."""
    ends = [(row["accuracy"], interval_of(row["accuracy"], row["num_clips"], metric)) for row in front]
    known = [(share - ends[0], ends[1] - share) for share, ends in ends if ends is not None]
    return ([down for down, _ in known], [up for _, up in known]) if known else None
