"""Files that name the classes of a data set in the order of their numbers, in the forms that tools write."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from trainer.data.layouts.files import utf8
from trainer.data.layouts.text import read_lines, read_table, read_text, unquoted
from trainer.data.layouts.values import DataError, listed

# What data sets call the file that names their classes, in the order of their indices.
CLASS_FILES = (
    "classes.txt",
    "classes.csv",
    "classes.json",
    "category.txt",
    "classInd.txt",
    "labels.txt",
    "label_map.txt",
    "label_map_k400.txt",
    "kinetics_400_labels.csv",
    "kinetics_classnames.json",
    "classnames.json",
)

# Columns of a table of classes; `label` is the number in some and the name in others.
_NAMES = ("label", "name", "class", "class_name", "label_name")
_NUMBERS = ("id", "index", "class_id", "label_id", "number", "label")
_FORMS = (r"(?P<number>\d{1,9})(?P<sep>[\s,]+)(?P<name>\S.*)", r"(?P<name>\S.*?)(?P<sep>[\s,]+)(?P<number>\d{1,9})")


def class_names(path: Path) -> tuple[str, ...]:
    """Class names of a file, in the order of their numbers.

    One name a line; lines `number name` or `name number`, from 0 (or 1, as in UCF101's classInd.txt), in any order; a
    table with a column of names (DeepMind's labels) and, if there is one, of numbers; a table of annotations with a
    column `label`; or JSON: a list, or name to index (SlowFast).

    Raises:
        DataError: It is none of these, names one class twice, or its numbers leave one out.
    """
    if path.suffix.lower() == ".json":
        names = _json_names(path)
    else:
        lines = [line for _, line in read_lines(path)]
        first = [cell.strip().lower() for cell in lines[0].split(",")] if lines else []
        table = set(first) & {"name", "label", "class"} or len(set(first) & {*_NAMES, *_NUMBERS}) > 1
        names = _of_table(path) if path.suffix.lower() == ".csv" and table else _of_lines(path, lines)
    if not names:
        raise DataError(f"a list of classes must name one at least, but {path} is empty")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"a list of classes must name each once, but {path} names {name[:100]!r} twice")
        if not name.strip() or not utf8(name):
            raise DataError(f"the name of a class must be text, but {path} has {name[:100]!r}")
        seen.add(name)
    return tuple(names)


def _of_table(path: Path) -> list[str]:
    rows = [row for _, row in read_table(path, [])]
    columns = list(rows[0]) if rows else []
    numbered = [name for name in columns if all(re.fullmatch("[0-9]{1,9}", row[name]) for row in rows)]
    titles = [name for name in _NAMES if name in columns]
    title = next((name for name in titles if name != "label" or name not in numbered), titles[0] if titles else None)
    if title is None:
        raise DataError(f"a table of classes must have a column {', '.join(_NAMES)}, but {path} has {listed(columns)}")
    names = [unquoted(row[title]) for row in rows]
    if title == "label" and ("youtube_id" in columns or len(set(names)) < len(names)):
        return sorted(set(names))  # a table of annotations: its classes are those of the whole data
    column = next((name for name in _NUMBERS if name in numbered and name != title), None)
    if column is None:
        return names
    ordered = _ordered([int(row[column]) for row in rows], names)
    if ordered is None:
        raise _gaps(path, [row[column] for row in rows])
    return ordered


def _of_lines(path: Path, lines: Sequence[str]) -> list[str]:
    """The names of lines, without their numbers where these number them."""
    for form in _FORMS:
        matches = [match for line in lines if (match := re.fullmatch(form, line))]
        if len(matches) < len(lines):
            continue
        numbers, names = [int(match["number"]) for match in matches], [unquoted(match["name"]) for match in matches]
        ordered = _ordered(numbers, names)
        if ordered is not None and (form == _FORMS[0] or len(set(names)) == len(names)):
            return ordered
        # A name may begin or end in a number of its own, as `route 66` does; but none stands off by a comma.
        twice = form == _FORMS[0] and numbers[:1] in ([0], [1]) and len(set(numbers)) < len(numbers)
        if twice or path.name == "classInd.txt" or any("," in match["sep"] for match in matches):
            raise _gaps(path, [match["number"] for match in matches])
    return [unquoted(line) for line in lines]


def _ordered(numbers: Sequence[int], names: Sequence[str]) -> list[str] | None:
    """Names in the order of their numbers; None unless these are 0, 1, 2, ... or 1, 2, 3, ... in some order."""
    pairs = sorted(zip(numbers, names, strict=True))
    if [number for number, _ in pairs] not in (list(range(len(pairs))), list(range(1, len(pairs) + 1))):
        return None
    return [name for _, name in pairs]


def _gaps(path: Path, numbers: Sequence[str]) -> DataError:
    return DataError(f"the classes of {path} must be numbered one by one, from 0 or 1, but are {listed(numbers)}")


def _json_names(path: Path) -> list[str]:
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} must be JSON, but: {error}") from error
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return [unquoted(name) for name in value]
    # Not by equality alone: true and 1.0 are equal to 1.
    if isinstance(value, dict) and all(type(number) is int for number in value.values()):
        names = sorted(value, key=lambda name: int(value[name]))
        if [value[name] for name in names] == list(range(len(names))):
            return [unquoted(name) for name in names]
    raise DataError(f"{path} must be a JSON list of class names, or name to whole number from 0 without gaps")
