"""Where a monotone function crosses zero, without the slow import of scipy.optimize."""

from __future__ import annotations

from collections.abc import Callable


def crossing(function: Callable[[float], float], low: float, high: float) -> float:
    """A zero of a continuous function between two points of opposite sign.

    The Illinois method (Dowell and Jarratt, BIT 11, 1971): false position, in which an end that stays too long loses
    half of its weight. About ten evaluations give ten digits.
    """
    at_low, at_high = function(low), function(high)
    side = 0
    for _ in range(100):
        if at_low == at_high or high - low <= 1e-11 * max(abs(low), abs(high)):
            break
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        at_middle = function(middle)
        if abs(at_middle) < 1e-13:
            return middle
        if (at_middle > 0) == (at_high > 0):
            high, at_high = middle, at_middle
            at_low = at_low / 2 if side == 1 else at_low
            side = 1
        else:
            low, at_low = middle, at_middle
            at_high = at_high / 2 if side == -1 else at_high
            side = -1
    return (low + high) / 2


def upper_bracket(function: Callable[[float], float], start: float) -> tuple[float, float]:
    """Doubles from `start` until a function that begins positive is so no more; the last two points."""
    low, high = 0.0, start
    while function(high) > 0:
        low, high = high, 2 * high
    return low, high
