"""Lists and tables of a data set: lines of text files, and how names are compared."""

from __future__ import annotations

import csv
import difflib
import io
import re
import stat
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from trainer.data.layouts.values import DataError, listed

LONGEST_LINE = 10_000
"""Characters of a line of a list: a path has 4,096 bytes at most, and a video some hundred labels."""

_LARGEST = 2**30  # bytes of a list: that of a million videos has some 100 MB


def normal(name: str) -> str:
    """A class name as names are compared: `Massaging_person's (head)` and `massaging persons head` are the same.

    torchvision writes spaces as underscores and drops apostrophes and brackets, mmaction2 keeps those, CVDF's tables
    put some names in quotes.
    """
    text = unicodedata.normalize("NFC", name).casefold().replace("_", " ")
    return " ".join(re.sub(r"['\"()]", "", text).split())


def unquoted(text: str) -> str:
    """A name without the double quotes around it, if it has any."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def forms(first: str, second: str) -> str:
    """What tells two names apart that look the same, as words behind them; empty if they differ in more than that."""
    if first == second or unicodedata.normalize("NFC", first) != unicodedata.normalize("NFC", second):
        return ""
    one, two = (
        next((form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, name)), "neither NFC nor NFD")
        for name in (first, second)
    )
    return f" (they look the same, but the first is written in Unicode's form {one}, the second in {two})"


def lookup(names: Sequence[str], *, where: str) -> dict[str, int]:
    """Index of each class by its normal name.

    Raises:
        DataError: Two names are the same once they are normal.
    """
    found: dict[str, int] = {}
    for index, name in enumerate(names):
        other = found.setdefault(normal(name), index)
        if other != index:
            raise DataError(
                f"class names must differ in more than case, quotes, brackets and underscores, but {names[other]!r} "
                f"and {name!r} of {where} do not{forms(names[other], name)}; rename one"
            )
    return found


def unknown(name: str, names: Sequence[str], *, where: str) -> DataError:
    """The error for a class that is not there, with the nearest one that is."""
    near = difflib.get_close_matches(normal(name), [normal(one) for one in names], n=1, cutoff=0.5)
    hint = next((f"; did you mean {one!r}?" for one in names if near and normal(one) == near[0]), "")
    return DataError(f"class {name!r} of {where} is not in the data{hint} ({len(names)} classes: {listed(names)})")


def read_text(path: Path) -> str:
    """The text of a list, with or without a byte order mark.

    Raises:
        DataError: It cannot be read, is no regular file, is larger than a list can be, or is not UTF-8.
    """
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):  # a pipe, or a device such as /dev/zero, may never end
            raise DataError(f"a list must be a regular file, but {path} is none")
        if state.st_size > _LARGEST:
            raise DataError(f"a list must have at most {_LARGEST:,} bytes, but {path} has {state.st_size:,}")
        text = path.read_bytes().decode("utf-8-sig")
        if "\0" in text:
            line = text[: text.index("\0")].count("\n") + 1
            raise DataError(f"a list must be text, but line {line} of {path} holds a byte 0x00")
        return text
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(
            f"a list must be UTF-8, but line {line} of {path} holds the byte 0x{error.object[error.start]:02x}; "
            "convert it, for example with `iconv -f latin1 -t utf-8`"
        ) from error
    except OSError as error:
        raise DataError(f"a list must be readable, but reading {path} failed: {error.strerror}") from error


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1.

    Raises:
        DataError: As `read_text`, or a line is longer than a path and its labels can be.
    """
    # Not splitlines: a name may hold what Unicode counts as a line break.
    lines = list(enumerate(read_text(path).replace("\r\n", "\n").split("\n"), 1))
    for number, line in lines:
        if len(line) > LONGEST_LINE:
            raise DataError(
                f"a line of a list must have at most {LONGEST_LINE:,} characters, but line {number} of {path} has "
                f"{len(line):,} and begins {line[:40]!r}"
            )
    return [(number, line.strip()) for number, line in lines if line.strip()]


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Rows of a comma-separated table by its header, with the numbers of their lines.

    Args:
        path: The file.
        columns: Those that it has to have; others are passed on.

    Raises:
        DataError: A column is missing, or a row has more or fewer cells than the header.
    """
    reader = csv.reader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    rows: list[tuple[int, dict[str, str]]] = []
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip().lower() for cell in cells]
                _check_header(path, header, columns)
                continue
            if len(cells) != len(header):
                quote = "; a name with a comma must stand in double quotes" if len(cells) > len(header) else ""
                raise DataError(
                    f"line {reader.line_num} of {path} must have {len(header)} cells ({', '.join(header)}), but has "
                    f"{len(cells)}{quote}"
                )
            rows.append((reader.line_num, {key: cell.strip() for key, cell in zip(header, cells, strict=True)}))
    except csv.Error as error:
        raise DataError(f"line {reader.line_num} of {path} must be comma-separated, but: {error}") from error
    if header is None:
        raise DataError(f"a table must have a header ({', '.join(columns)}), but {path} is empty")
    return rows


def _check_header(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in header]
    if not missing:
        return
    signs = {";": "semicolons", "\t": "tabs"}
    sign = next((name for sign, name in signs.items() if len(header) == 1 and sign in header[0]), None)
    wrong = f"; it is separated by {sign}, where commas are needed" if sign else ""
    raise DataError(
        f"{path} must have the columns {', '.join(columns)}, but lacks {', '.join(missing)} (it has "
        f"{', '.join(header)}){wrong}"
    )
