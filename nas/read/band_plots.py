"""Fronts of several searches as a picture: interactive HTML by plotly, or PNG by matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nas.errors import NasError
from nas.read.compare import Band, Group, trained
from nas.read.plots import macs_axis
from trainer.files import check_replaceable, make_folder

COLOURS = ("#0b6e4f", "#c2410c", "#1d4ed8", "#7e22ce", "#a16207", "#be185d", "#0e7490", "#4b5563")


def draw_bands(groups: Sequence[Group], bands: Sequence[Band], path: Path) -> None:
    """Draws each group's networks, its median front over the seeds, and the band between the quartiles.

    Args:
        groups: The searches.
        bands: One for each group.
        path: Ends in `.html` or `.png`; appears whole or not at all.

    Raises:
        NasError: Another ending, or the PNG extra is missing.
    """
    if path.suffix not in (".html", ".png"):
        raise NasError(f"a plot must end in .html or .png, but is {path}")
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        make_folder(path.parent)
        check_replaceable(path)
        (_html if path.suffix == ".html" else _png)(groups, bands, part)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise NasError(f"the plot {path} cannot be written: {error.strerror}") from error


def _title(groups: Sequence[Group]) -> str:
    first = groups[0].members[0]
    return f"{first.metric} on {first.num_clips} val clips {trained(first)}, MACs of one {first.clip} clip"


def _name(group: Group) -> str:
    seeds = len(group.members)
    return f"{group.label}, {seeds} seeds" if seeds > 1 else group.label


def _html(groups: Sequence[Group], bands: Sequence[Band], path: Path) -> None:
    from html import escape

    from plotly import graph_objects as go

    figure, metric = go.Figure(), groups[0].members[0].metric
    for i, (group, band) in enumerate(zip(groups, bands, strict=True)):
        colour, name = COLOURS[i % len(COLOURS)], escape(_name(group))
        step = {"shape": "hv", "color": colour}
        if len(group.members) > 1:
            edge = {"shape": "hv", "color": colour, "width": 0}
            common = {"x": band.macs, "mode": "lines", "line": edge, "legendgroup": name, "showlegend": False}
            figure.add_scatter(y=band.low, hoverinfo="skip", **common)
            figure.add_scatter(y=band.high, fill="tonexty", fillcolor=f"{colour}33", hoverinfo="skip", **common)
        figure.add_scatter(
            x=band.macs,
            y=band.median,
            mode="lines+markers",
            name=name,
            legendgroup=name,
            line=step,
            hovertemplate=f"within %{{x:.3s}} MACs: {metric} %{{y:.3f}}<extra></extra>",
        )
        figure.add_scatter(
            x=[macs for one in group.members for macs in one.macs],
            y=[value for one in group.members for value in one.accuracy],
            mode="markers",
            legendgroup=name,
            showlegend=False,
            marker={"color": colour, "size": 5, "opacity": 0.35},
            hovertemplate=f"%{{x:.3s}} MACs: {metric} %{{y:.3f}}<extra></extra>",
        )
    figure.update_layout(title=_title(groups), template="plotly_white")
    figure.update_xaxes(title="MACs", type="log")
    figure.update_yaxes(title=f"best {metric} within the MACs (median and quartiles over seeds)")
    figure.write_html(path, include_plotlyjs=True)


def _png(groups: Sequence[Group], bands: Sequence[Band], path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise NasError("a PNG needs matplotlib: pip install 'video-nas[png]', or write front.html") from error
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.subplots()
    for i, (group, band) in enumerate(zip(groups, bands, strict=True)):
        colour = COLOURS[i % len(COLOURS)]
        for one in group.members:
            axes.scatter(one.macs, one.accuracy, s=10, color=colour, alpha=0.35, linewidths=0)
        if len(group.members) > 1:
            axes.fill_between(band.macs, band.low, band.high, step="post", color=colour, alpha=0.2, linewidth=0)
        axes.plot(band.macs, band.median, color=colour, drawstyle="steps-post", marker="o", ms=4, label=_name(group))
    macs_axis(axes, [macs for group in groups for one in group.members for macs in one.macs])
    axes.set_ylabel(f"best {groups[0].members[0].metric} within the MACs")
    axes.set_title(_title(groups), fontsize=9)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    figure.savefig(path)
