"""Errors of specs, and the checks of values that raise them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# The largest number that is read, of a spec or a setting: more than any network has of anything.
MOST = 2**31 - 1


class SpecError(ValueError):
    """A value is outside what its place allows; one line with rule, value, place and choices."""


class ClipError(SpecError):
    """A network is sound, but the clip is too short or too small for it."""


def nearest(value: object, choices: Iterable[object]) -> str:
    """The end of an error message: the nearest choice if one is near, all of them if they are few.

    Args:
        value: What was given.
        choices: What is valid.

    Returns:
        Text such as "; did you mean 2plus1d? (valid: 2d, 3d, 2plus1d)".
    """
    names = [str(c) for c in choices]
    close = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else ";"
    return f"{hint} (valid: {', '.join(names)})" if len(names) <= 40 else hint.rstrip(";")


def at_least(field: str, value: int, low: int) -> None:
    """Raises SpecError unless `value >= low`."""
    if value < low:
        raise SpecError(f"{field} must be at least {low}, but is {value}")


def at_most(field: str, value: float) -> None:
    """Raises SpecError unless `value <= MOST`."""
    if value > MOST:
        raise SpecError(f"{field} must be at most {MOST:,}, but is {value}")


def within(field: str, value: float) -> None:
    """Raises SpecError unless `0 < value <= 1`."""
    if not 0 < value <= 1:
        raise SpecError(f"{field} must be above 0 and at most 1, but is {value}")


def one_of(field: str, value: object, choices: tuple[object, ...]) -> None:
    """Raises SpecError, with the nearest choice, unless the value is one of them."""
    if value not in choices:
        raise SpecError(f"{field} must be one of its choices, but is {value}{nearest(value, choices)}")
