"""What commands print: tables for people, JSON for programs, one line at a time into logs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from nas.search.session import News


def console() -> Console:
    """A console on standard output; wide where nobody's window limits it."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=200, force_terminal=False)


def print_json(value: Any) -> None:
    """Prints a value as JSON."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], title: str = "") -> None:
    """Prints rows as a table.

    Args:
        rows: What to print.
        columns: Key of a row to the column's title; numbers go to the right.
        title: Above the table.
    """
    from rich import box
    from rich.table import Table

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for key, name in columns.items():
        number = all(isinstance(row.get(key), int | float) or row.get(key) is None for row in rows)
        table.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(key)) for key in columns))
    console().print(table, highlight=False, markup=False)


def _cell(value: Any) -> str:
    from rich.markup import escape

    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return escape(str(value))


class Progress:
    """Shows what a long command does: a bar with rate and ETA on a terminal, plain lines elsewhere.

    Args:
        unit: What is counted: `epochs`, `videos`.
        every: Seconds between plain lines.
    """

    def __init__(self, unit: str, *, every: float = 10.0) -> None:
        """Shows nothing before the first news."""
        self._unit, self._every = unit, every
        self._began = self._last = time.monotonic()
        self._first: int | None = None
        self._ended = False
        self._bar: Any = None
        self._task: Any = None
        self._terminal = sys.stderr.isatty()

    def line(self, text: str) -> None:
        """Prints one line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def update(self, done: int, total: int, label: str = "") -> None:
        """Moves to `done` of `total`."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._began = done, now
        if self._terminal:
            self._draw(done, total, label)
        elif now - self._last >= self._every or (done == total and not self._ended and now - self._began > 2):
            self._last, self._ended = now, done == total
            print(f"{label or self._unit}: {self._figures(done, total, now)}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self, done: int, total: int, label: str) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task(label or self._unit, total=total, rate="")
            self._bar.start()
        self._bar.update(
            self._task, completed=done, total=total, description=label or self._unit, rate=self._rate(done)
        )

    def _rate(self, done: int) -> str:
        seconds = time.monotonic() - self._began
        return f"{(done - (self._first or 0)) / seconds:.2f}/s" if seconds > 0.5 else ""

    def _figures(self, done: int, total: int, now: float) -> str:
        seconds, gained = now - self._began, done - (self._first or 0)
        if gained <= 0 or seconds <= 0:
            return f"{done}/{total} {self._unit}"
        left = (total - done) * seconds / gained
        return f"{done}/{total} {self._unit}, {gained / seconds:.2f}/s, ETA {duration(left)}"


def duration(seconds: float) -> str:
    """Seconds as 1h02m, 3m20s or 12s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"


class SearchProgress:
    """The listener of a search: decoding, costs, then epochs, and a line for every event."""

    def __init__(self) -> None:
        """Nothing is shown yet."""
        self._shown: dict[str, Progress] = {}

    def __call__(self, news: News) -> None:
        """Shows one piece of news."""
        stage = {"pack": "videos decoded", "cost": "networks costed"}.get(news.kind, "epochs")
        if stage not in self._shown:
            self.close()
            self._shown[stage] = Progress(stage)
        progress = self._shown[stage]
        if news.text:
            progress.line(news.text)
        if news.total:
            progress.update(news.done, news.total)

    def close(self) -> None:
        """Takes the bars away."""
        for progress in self._shown.values():
            progress.close()
