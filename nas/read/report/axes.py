"""Axes of charts, and numbers, dates and states as the page writes them. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from nas.study.metric import in_points, short_number

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


ROOM = 0.16  # share of an axis that the text of a tick needs: 46 of the 286 pixels that a plot has in a window of 400


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """A place on an axis, in percent of its length, and its text."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """An axis from `low` to `high`, linear or logarithmic.

    Attributes:
        low: Value at 0 percent.
        high: Value at 100 percent; above `low`.
        log: Whether equal ratios have equal lengths.
        ticks: Inside the axis, ascending.
    """

    low: float
    high: float
    log: bool
    ticks: tuple[Tick, ...]

    def at(self, value: float) -> float:
        """Percent of the axis, to a hundredth; values outside stand at its ends."""
        return _at(value, self.low, self.high, log=self.log)


def linear(
    values: Sequence[float], *, text: Callable[[float], str], count: int = 5, bounds: tuple[float, float] | None = None
) -> Scale:
    """An axis with round ends around values.

    Args:
        values: To be shown; may be empty.
        text: What a tick says.
        count: Ticks, about.
        bounds: Beyond which the axis never goes.
    """
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high <= low:
        low, high = low - 0.5 * abs(low or 1.0), high + 0.5 * abs(high or 1.0)
    step = _round_step((high - low) / count)
    # What is within a billionth of a step is on it, but no value may fall off the axis for that.
    low, high = min(math.floor(low / step + 1e-9) * step, low), max(math.ceil(high / step - 1e-9) * step, high)
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    ticks = tuple(Tick(at=_at(i * step, low, high, log=False), text=text(i * step)) for i in range(first, last + 1))
    return Scale(low=low, high=high, log=False, ticks=ticks)


def logarithmic(values: Sequence[float], *, text: Callable[[float], str] = amount) -> Scale:
    """An axis of powers of ten around positive values, with ticks at 1, 2 and 5 where it is short.

    Ticks are as close as `ROOM` at most, so that their texts have room in a window of 400 pixels.
    """
    low, high = (min(values), max(values)) if values else (1e6, 1e9)
    margin = max(0.03, 0.04 * math.log10(high / low))
    low, high = low / 10**margin, high * 10**margin
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    span = math.log10(high / low)
    for steps in ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        places = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if all(math.log10(b / a) >= ROOM * span for a, b in pairwise(places)):
            break
    else:
        places = places[:: math.ceil(ROOM * span)]
    if len(places) < 2 or span < 0.15:
        places = [10 ** (math.log10(low) + span * part) for part in (0.15, 0.5, 0.85)]
    ticks = tuple(Tick(at=_at(place, low, high, log=True), text=text(place)) for place in places)
    return Scale(low=low, high=high, log=True, ticks=ticks)


def _at(value: float, low: float, high: float, *, log: bool) -> float:
    if log:
        value, low, high = (math.log10(max(number, 1e-300)) for number in (value, low, high))
    return round(100 * min(1.0, max(0.0, (value - low) / (high - low))), 2)


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * 0.999)
