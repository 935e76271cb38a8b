"""The gap against epochs as an SVG: medians over seeds as lines, quartiles of the best ones as bands."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from benchmarks.search.report import Figures
from benchmarks.search.tables import Table
from nas.read.report.axes import Scale, linear, logarithmic

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 460, 56, 330, 40, 46
COLOURS = ("#0b6e4f", "#b5472f", "#2f5fb3", "#8a6d00", "#7b3fa0", "#00798c", "#555555", "#c2447a")
DASHES = ("", "7 3", "2 3")
BANDS = 2  # methods with a band: more of them hide each other
PLACES = 60  # of a line


def svg(table: Table, all_figures: Sequence[Figures]) -> str:
    """A chart of all methods on a table, the best at the end first in the legend."""
    grid = np.unique(np.linspace(table.budget * 0.08, table.budget, PLACES).round().astype(int))
    lines = [(f, np.array([f.quartiles(int(epochs)) for epochs in grid])) for f in all_figures]
    lines.sort(key=lambda item: float(item[1][-1, 1]))
    shown = [float(v) for _, of in lines for v in of[:, 1] if v > 0]
    x = linear([0.0, float(table.budget)], text=lambda v: f"{v:g}")
    y = logarithmic([min(max(v, 0.05), 100.0) for v in shown] or [1.0, 100.0], text=lambda v: f"{v:g} %")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-size="12" '
        'font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{escape(table.title)}: gap to the true front</text>',
    ]
    for tick in y.ticks:
        place = _y(tick.at)
        parts.append(f'<path d="M{LEFT} {place}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{place + 4}" text-anchor="end">{escape(tick.text)}</text>')
    for tick in x.ticks:
        place = HEIGHT - BOTTOM + 18
        parts.append(f'<text x="{_x(tick.at)}" y="{place}" text-anchor="middle">{escape(tick.text)}</text>')
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{table.unit}s spent</text>')
    for place, (f, of) in enumerate(lines):
        colour, dash = COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)]
        if place < BANDS:
            band = [*zip(grid, of[:, 0], strict=True), *reversed(list(zip(grid, of[:, 2], strict=True)))]
            parts.append(f'<path d="{_path(band, x, y)}Z" fill="{colour}" opacity="0.12"/>')
        parts.append(
            f'<path d="{_path(list(zip(grid, of[:, 1], strict=True)), x, y)}" fill="none" stroke="{colour}" '
            f'stroke-width="2" stroke-dasharray="{dash}"/>'
        )
        top = TOP + 8 + 20 * place
        left = WIDTH - RIGHT + 14
        parts.append(f'<path d="M{left} {top}h24" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>')
        parts.append(f'<text x="{left + 30}" y="{top + 4}">{escape(f.entry.title.replace("`", ""))}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _x(percent: float) -> float:
    return round(LEFT + percent / 100 * (WIDTH - LEFT - RIGHT), 1)


def _y(percent: float) -> float:
    return round(HEIGHT - BOTTOM - percent / 100 * (HEIGHT - TOP - BOTTOM), 1)


def _path(points: Sequence[tuple[float, float]], x: Scale, y: Scale) -> str:
    steps = [f"{_x(x.at(float(a)))} {_y(y.at(max(float(b), 1e-9)))}" for a, b in points]
    return "M" + "L".join(steps)
