"""Errors that are the user's to mend: one line with the rule, the value, where it stands and the valid choices."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 500
"""Characters of a message, at most."""


class NasError(Exception):
    """Something the user can mend; the command line prints the message and exits with 2."""


class StudyError(NasError):
    """A study file or an override breaks a rule."""


class StoreError(NasError):
    """A database cannot be used as asked."""


class NotFoundError(NasError):
    """A name, digest or file that does not exist, or is not unique."""


class SearchError(NasError):
    """A search cannot start or go on."""


def unknown(what: str, value: object, choices: Iterable[object]) -> str:
    """Says that `value` is not a valid `what`, names the nearest valid one, and lists all of them."""
    names = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{what} {value!r} is not known{hint} (choices: {', '.join(names) or 'none'})"


def one_line(text: str, longest: int = LONGEST) -> str:
    """A message as one line; of one that is too long, the middle is left out.

    The rule stands at the beginning of a message, and the place and the valid choices at its end.
    """
    line = " ".join(text.split())
    if len(line) <= longest:
        return line
    head = (longest - 5) * 2 // 3
    return f"{line[:head]} [\u2026] {line[head + 5 - longest :]}"
