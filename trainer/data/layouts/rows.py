"""Rows of the lists that name one video each: path and label, and the number of images or further labels."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from trainer.data.layouts.text import LONGEST_LINE, read_lines, unquoted
from trainer.data.layouts.values import DataError

SEVERAL = ("multi-label", "multi-label-videos")
"""Kinds of lists in which a video may have several labels."""

_ROW = {
    # The path may hold the separator; what follows it may not. No number has more than nine digits.
    "slowfast": r"(?P<path>\S.*?)(?P<sep>[ \t,])(?P<labels>\d{1,9})",
    "frames": r"(?P<path>\S.*?)(?P<sep>[ \t,])(?P<frames>\d{1,9})(?P=sep)(?P<labels>\d{1,9})",
    "multi-label": r"(?P<path>\S.*?)(?P<sep>[ \t])(?P<frames>\d{1,9})(?P=sep)(?P<labels>\d{1,9}(?:,\d{1,9})*)",
    "multi-label-videos": r"(?P<path>\S.*?)(?P<sep>[ \t])(?P<labels>\d{1,9}(?:,\d{1,9})*)",
}
FORMS = {
    "slowfast": "`path label`",
    "frames": "`folder frames label`",
    "multi-label": "`path frames label,label,...`",
    "multi-label-videos": "`path label label ...`",
}
"""How a row of each kind of list reads; the labels of `multi-label` may be separated by blanks as well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row of a list.

    Attributes:
        where: File and line, for messages.
        path: As it stands there.
        frames: Number of images; 0 where the list has no such column.
        labels: At least one, ascending.
    """

    where: str
    path: str
    frames: int
    labels: tuple[int, ...]


def kind_of(path: Path) -> str | None:
    """Which kind of list a file is, by all of its rows; None if its first row is of none."""
    lines = _lines(path)
    if not lines:
        return None
    if any(re.fullmatch(_ROW["multi-label"], line) and "," in line.rpartition(" ")[2] for line in lines):
        return "multi-label"
    return next((kind for kind in ("frames", "slowfast") if re.fullmatch(_ROW[kind], lines[0])), None)


def header_of(path: Path) -> str | None:
    """The first row of a list where it is a header, which lists do not have: words before a row that can be read."""
    lines = _lines(path)
    return _header(*lines[:2]) if len(lines) > 1 else None


def _header(first: str, second: str) -> str | None:
    words = re.fullmatch(r"[^\W\d][\w -]*(?:[ \t,]+[^\W\d][\w -]*)+", first) is not None
    known = any(re.fullmatch(form, second) and not re.fullmatch(form, first) for form in _ROW.values())
    return first if words and known else None


def _lines(path: Path) -> list[str]:
    try:
        # A file that is no list at all may be in any encoding; one that is gets its error when it is read.
        text = path.read_text("utf-8-sig", errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.split("\n") if line.strip() and len(line) <= LONGEST_LINE]


def read_rows(path: Path, kind: str) -> list[Row]:
    """Reads a list.

    Args:
        path: The list.
        kind: A key of `FORMS`.

    Raises:
        DataError: A row is not of that kind, or there is none; the message names the line.
    """
    rows: list[Row] = []
    separator = ""
    lines = read_lines(path)
    for number, line in lines:
        where = f"line {number} of {path}"
        match = re.fullmatch(_ROW[kind], line)
        if match is None:
            if len(lines) > 1 and line is lines[0][1] and _header(line, lines[1][1]):
                raise DataError(f"a list must have no header, but {where} is {line[:100]!r}; remove that line")
            raise DataError(
                f"a row must read {FORMS[kind]} with blanks, tabs{'' if kind in SEVERAL else ' or commas'} "
                f"between and numbers from 0 (of nine digits at most) at its end, but {where} is {line[:100]!r}"
            )
        if separator and match["sep"] != separator:
            raise DataError(
                f"a list must have one separator, but {where} has {match['sep']!r} after {separator!r} before"
            )
        separator = match["sep"]
        labels = tuple(sorted({int(label) for label in match["labels"].split(",")}))
        frames = int(match["frames"]) if "frames" in match.groupdict() else 0
        name = unquoted(match["path"].strip())
        rows.append(Row(where=where, path=name, frames=frames, labels=labels))
    if not rows:
        raise DataError(f"a list must have at least one row {FORMS[kind]}, but {path} is empty")
    return rows


def shorter(row: Row, kind: str) -> Row | None:
    """The same row with the number at the end of its path taken for the first behind it; None if there is none.

    A path may end in a number, and labels may be separated by blanks, as mmaction2's `build_file_list.py` writes those
    of Multi-Moments in Time: only the files that are there tell which it is.
    """
    match = re.fullmatch(r"(\S.*?)[ \t,]+(\d{1,9})", row.path)
    if match is None:
        return None
    counted = kind in ("frames", "multi-label")
    labels = {*row.labels, row.frames if counted else int(match[2])}
    return dataclasses.replace(
        row, path=unquoted(match[1]), frames=int(match[2]) if counted else 0, labels=tuple(sorted(labels))
    )
