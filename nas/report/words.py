"""Numbers, dates and states as the page writes them."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from nas.accuracies import in_points
from nas.study import short_number

SPACE = "\u00a0"  # between a number and its unit; no line breaks there
MINUS = "\u2212"


def amount(value: float | None) -> str:
    """A count with three significant digits and its unit: `40.7 M`, `1.2 G`."""
    if value is None:
        return "–"
    text = short_number(value)
    return f"{text[:-1]}{SPACE}{text[-1]}" if text[-1].isalpha() else text


def percent(share: float | None, *, digits: int = 1) -> str:
    """A share of 1 in percent: `84.6 %`."""
    return "–" if share is None else f"{100 * share:.{digits}f}{SPACE}%"


def measured(accuracy: float, low: float | None, high: float | None) -> str:
    """An accuracy with its interval, where that is known: `84.6 % (81.2 to 87.4)`, `84.6 %`."""
    found = percent(accuracy)
    return found if low is None or high is None else f"{found} ({100 * low:.1f} to {100 * high:.1f})"


def points(difference: float | None) -> str:
    """A difference of two shares, in percentage points with its sign: `+2.3`."""
    if difference is None or not math.isfinite(difference):
        return "–"
    return in_points(difference).replace("-", MINUS)


def interval(low: float | None, high: float | None) -> str:
    """An interval of differences in points: `−0.4 to +4.2`; empty where there is none."""
    return "" if low is None or high is None else f"{points(low)} to {points(high)}"


def shares(low: float | None, high: float | None) -> str:
    """An interval of a share of 1, in percent: `81.2 to 87.4 %`; a dash where there is none."""
    return "–" if low is None or high is None else f"{100 * low:.1f} to {percent(high)}"


def duration(seconds: float | None) -> str:
    """Seconds as `1 h 02 min`, `3 min 20 s` or `12 s`."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}{SPACE}h {whole % 3600 // 60:02d}{SPACE}min"
    if whole >= 60:
        return f"{whole // 60}{SPACE}min {whole % 60:02d}{SPACE}s"
    return f"{whole}{SPACE}s"


def moment(text: str | None) -> str:
    """An ISO time of the database as `2026-11-21 13:57 UTC`; anything else as it is."""
    if not text:
        return "–"
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{time.astimezone(UTC) if time.tzinfo else time:%Y-%m-%d %H:%M} UTC"


def number(value: int | None) -> str:
    """A whole number with thousands apart: `80,000`."""
    return "–" if value is None else f"{value:,}"


def plural(count: int, noun: str, many: str | None = None) -> str:
    """`1 network`, `3 networks`, `0 networks`."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def flat(value: object) -> str:
    """A setting as one short text: lists with commas, true and false in lower case."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(flat(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {flat(item)}" for key, item in value.items())
    return "" if value is None else str(value)
