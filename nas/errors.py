"""Errors that are the user's to mend: one line with the rule, the value, where it stands and the valid choices."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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


def one_of(what: str, value: object, choices: Iterable[object]) -> str:
    """Says that `value` is not a valid `what`, names the nearest valid one, and lists all of them."""
    names = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{what} {value!r} is not known{hint} (choices: {', '.join(names) or 'none'})"
