"""What commands print: tables for people, JSON for programs, one line at a time into logs.

This is the one file of the command line that writes to standard output and standard error. Names come from databases,
folders and files, so that control characters are shown as escapes, and nothing is read as markup.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import time
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from nas.train.left import Left
    from nas.train.session import News

PIPE_WIDTH = 200  # columns where nobody's window limits them
NARROWEST = 20
GAP = "  "  # between two columns
READABLE = 20  # characters of a text that is broken between words
LONG = ("description", "network")  # columns that get a line of their own before any other is made narrower
HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))  # controls, bidi and format characters, lone bytes, line separators


def visible(text: str) -> str:
    r"""`text` with what a terminal would obey, or not show, as escapes: \n, \x1b, \u202e."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(char) if unicodedata.category(char) in HIDDEN else char for char in text)


def _escape(char: str) -> str:
    return ascii(char)[1:-1]


def _write(stream: TextIO, text: str, *, end: str = "\n", flush: bool = False) -> None:
    """Writes text that is visible already; characters that the stream's encoding lacks become escapes."""
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + end)
    if flush:
        stream.flush()


def print_line(text: str = "", *, flush: bool = False) -> None:
    """Prints one line to standard output."""
    _write(sys.stdout, visible(text), flush=flush)


def print_words(text: str) -> None:
    """Prints a sentence to standard output, broken between words where the window is narrower."""
    if _has_window():
        for line in _wrapped(visible(text), width()):
            print_line(line)
    else:
        print_line(text)


def words_lines(text: str, wide: int) -> list[str]:
    """A sentence as lines of at most `wide` characters, broken between words."""
    return _wrapped(visible(text), wide)


def print_error(text: str) -> None:
    """Prints one line to standard error."""
    _write(sys.stderr, visible(text), flush=True)


def print_text(text: str) -> None:
    """Prints text of several lines, such as CSV, to standard output."""
    _write(sys.stdout, "\n".join(map(visible, text.split("\n"))), end="")


def print_usage(error: Any) -> None:
    """Prints an error of the command line's parser, with its usage, to standard error."""
    shown = io.StringIO()
    error.show(file=shown)
    for line in shown.getvalue().rstrip("\n").split("\n"):
        print_error(line)


def print_json(value: Any) -> None:
    r"""Prints a value as JSON; control characters are `\u` escapes there, which every reader takes back."""
    _write(sys.stdout, _as_json(value, indent=2))


def print_json_line(value: Any) -> None:
    """Prints a value as JSON in one line, at once."""
    _write(sys.stdout, _as_json(value, indent=None), flush=True)


def _as_json(value: Any, *, indent: int | None) -> str:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    hidden = (char != "\n" and unicodedata.category(char) in HIDDEN for char in text)
    if not text.isascii() or "\x7f" in text:
        text = "".join(json.dumps(char)[1:-1] if hide else char for char, hide in zip(text, hidden, strict=True))
    # json.dumps leaves only DEL of the ASCII controls, and writes it as it is with ensure_ascii, too.
    return text.replace("\x7f", "\\u007f")


def width() -> int:
    """Columns of the window, or those that COLUMNS states; wide where nobody's window limits them."""
    if _has_window():
        return max(NARROWEST, shutil.get_terminal_size().columns)
    return PIPE_WIDTH


def _has_window() -> bool:
    return sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()


def console() -> Console:
    """A console on standard output for what moves there, such as the frames of `nas watch`."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False)


def shown(lines: Sequence[str]) -> RenderableType:
    """Lines of text as a console shows them, none of it markup."""
    from rich.text import Text

    return Text("\n".join(map(visible, lines)), overflow="fold")


def print_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], title: str = "") -> None:
    """Prints rows as a table, as wide as the window.

    Args:
        rows: What to print.
        columns: Key of a row to the column's title; numbers go to the right.
        title: Above the table.
    """
    for line in table_lines(rows, columns, title, columns_wide=width()):
        print_line(line)
    print_line()


def table_lines(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], title: str = "", *, columns_wide: int
) -> list[str]:
    """A table as lines, in which no number and no word is broken.

    Where it does not fit, titles of columns are broken between words, then the network goes to a line of its own below
    its row, then texts are broken between words or go to lines of their own, and at last the table is parted: further
    columns stand below, beside the first one again. Only a single word that is wider than the window is cut in two.

    Args:
        rows: What to print.
        columns: Key of a row to the column's title.
        title: Above the table.
        columns_wide: Characters that a line may have.
    """
    lines = _wrapped(visible(title), columns_wide) if title else []
    cells = [_Column(key, visible(name), rows) for key, name in columns.items()]
    inline, below = _fitted(cells, columns_wide)
    for part, group in enumerate(inline):
        lines += [""] if part else []
        lines += _grid(group, [] if part else below, len(rows), columns_wide)
    return lines


class _Column:
    """One column of a table: its title, its cells as text, and the width that it is given."""

    def __init__(self, key: str, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self.key, self.title = key, title
        values = [row.get(key) for row in rows]
        self.number = all(value is None or isinstance(value, int | float) or _is_signed(value) for value in values)
        self.cells = [visible(_cell(key, value)) for value in values]
        self.widest_cell = max(map(_wide, self.cells), default=0)
        self.title_word = max(map(_wide, title.split()), default=0)
        self.most = max(self.widest_cell, _wide(title))
        self.word = max((_wide(word) for cell in self.cells for word in cell.split()), default=0)
        self.width = self.most

    @property
    def least(self) -> int:
        """The narrowest that breaks no word; a number is one word, and a text is at least readable."""
        cells = self.widest_cell if self.number else max(self.word, min(self.widest_cell, READABLE))
        return max(self.title_word, cells)


def _fitted(columns: Sequence[_Column], wide: int) -> tuple[list[list[_Column]], list[_Column]]:
    """Groups of columns that stand side by side, and columns with lines of their own below each row."""
    inline, below = list(columns), list[_Column]()
    if _over(inline, wide) > 0:
        below = [column for column in columns[1:] if column.key in LONG]
        inline = [column for column in columns if column not in below]
    for column in inline:
        if _over(inline, wide) > 0:
            column.width = max(column.widest_cell, column.title_word)
    while (over := _over(inline, wide)) > 0:
        texts = [column for column in inline if not column.number]
        if narrower := [column for column in texts if column.width > column.least]:
            max(narrower, key=lambda column: column.width).width -= 1
        elif longer := [column for column in texts if column is not inline[0] and column.width >= min(over, READABLE)]:
            below.append(max(longer, key=lambda column: column.width))
            inline.remove(below[-1])
        else:
            break
    if _over(inline, wide) > 0:
        for column in inline:
            column.width = min(column.width, (wide - len(GAP)) // 2)
    groups = [inline[:1]]
    for column in inline[1:]:
        if _over([*groups[-1], column], wide) > 0:
            groups.append(inline[:1])
        groups[-1] = [*groups[-1], column]
    return groups, below


def _over(columns: Sequence[_Column], wide: int) -> int:
    """By how many characters columns side by side are wider than a line."""
    return sum(column.width for column in columns) + len(GAP) * (len(columns) - 1) - wide


def _grid(columns: Sequence[_Column], below: Sequence[_Column], num_rows: int, wide: int) -> list[str]:
    lines = _beside([(column.title, column) for column in columns])
    if len(below) == 1:
        lines += [f"{GAP}{line}" for line in _wrapped(below[0].title, wide - len(GAP))]
    lines.append("─" * max(map(_wide, lines)))
    for row in range(num_rows):
        lines += _beside([(column.cells[row], column) for column in columns])
        for column in below:
            label = f"{column.title}: " if len(below) > 1 and column.cells[row] else ""
            lines += [f"{GAP}{line}" for line in _wrapped(label + column.cells[row], wide - len(GAP)) if line]
    return lines


def _beside(cells: Sequence[tuple[str, _Column]]) -> list[str]:
    """The lines of one row, in which each cell has as many as it needs."""
    parts = [(_wrapped(text, column.width), column) for text, column in cells]
    lines = []
    for line in range(max(len(texts) for texts, _ in parts)):
        shown = []
        for texts, column in parts:
            text = texts[line] if line < len(texts) else ""
            space = " " * (column.width - _wide(text))
            shown.append(space + text if column.number else text + space)
        lines.append(GAP.join(shown).rstrip())
    return lines


def _wrapped(text: str, wide: int) -> list[str]:
    """A text as lines, broken between words; only a word that is wider than a line is cut."""
    if _wide(text) <= wide:
        return [text]
    from rich.cells import chop_cells

    lines = [""]
    for word in text.split():
        both = f"{lines[-1]} {word}" if lines[-1] else word
        if _wide(both) <= wide:
            lines[-1] = both
        else:
            lines += chop_cells(word, max(wide, 2)) if _wide(word) > wide else [word]
    return lines if lines[0] else lines[1:]


def _is_signed(value: Any) -> bool:
    """Whether a text is a difference, such as +3.1."""
    return isinstance(value, str) and re.fullmatch(r"[+-]\d+(\.\d+)?", value) is not None


def _wide(text: str) -> int:
    """Columns that a text takes on a terminal: a Chinese character has two."""
    from rich.cells import cell_len

    return cell_len(text)


def _cell(key: str, value: Any) -> str:
    from nas.study.metric import short_number

    if value is None:
        return ""
    if key == "digest":
        return str(value)[:10]
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return short_number(value, digits=4) if key == "macs" else f"{value:,}"
    return str(value)


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
            self._bar.console.print(shown([text]), soft_wrap=True)
        else:
            print_error(text)

    def update(self, done: int, total: int, label: str = "", left: Left | None = None) -> None:
        """Moves to `done` of `total`; the time that is left is by the rate unless it is given."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._began = done, now
        if self._terminal:
            self._draw(done, total, label, left)
        elif now - self._last >= self._every or (done == total and not self._ended and now - self._began > 2):
            self._last, self._ended = now, done == total
            print_error(f"{label or self._unit}: {self._figures(done, total, now, left)}")

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self, done: int, total: int, label: str, left: Left | None) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}", markup=False),
                TextColumn("{task.fields[left]}", markup=False),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("", total=total, rate="", left="")
            self._bar.start()
        what, now = visible(label or self._unit), time.monotonic()
        rate, eta = self._rate(done, now), self._eta(done, total, now, left)
        self._bar.update(self._task, completed=done, total=total, description=what, rate=rate, left=eta)

    def _rate(self, done: int, now: float) -> str:
        seconds, gained = now - self._began, done - (self._first or 0)
        return f"{gained / seconds:.2f}/s" if gained > 0 and seconds > 0.5 else ""

    def _eta(self, done: int, total: int, now: float, left: Left | None) -> str:
        seconds, gained = now - self._began, done - (self._first or 0)
        if left is not None or gained <= 0 or seconds <= 0:
            return str(left or "")
        return f"ETA {duration((total - done) * seconds / gained)}"

    def _figures(self, done: int, total: int, now: float, left: Left | None) -> str:
        figures = (f"{done}/{total} {self._unit}", self._rate(done, now), self._eta(done, total, now, left))
        return ", ".join(filter(None, figures))


def duration(seconds: float) -> str:
    """Seconds as 1h02m, 3m20s or 12s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"


class SearchPrinter:
    """The listener of a search: decoding, costs, then epochs, and a line for every event."""

    def __init__(self) -> None:
        """Nothing is shown yet."""
        self._shown: dict[str, Progress] = {}

    def __call__(self, news: News) -> None:
        """Shows one piece of news."""
        stage = {"pack": "videos decoded", "cost": "networks costed", "score": "networks scored"}.get(
            news.kind, "epochs"
        )
        if stage not in self._shown:
            self.close()
            self._shown[stage] = Progress(stage)
        progress = self._shown[stage]
        if news.text:
            progress.line(news.text)
        if news.total:
            progress.update(news.done, news.total, left=news.left)

    def close(self) -> None:
        """Takes the bars away."""
        for progress in self._shown.values():
            progress.close()
