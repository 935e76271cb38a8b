"""Time that is left, as a range."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """Seconds that a search still needs: the expected number, and its range."""

    low: float
    middle: float
    high: float

    def after(self, seconds: float) -> Left:
        """The estimate as it stands a number of seconds later."""
        low, middle, high = (max(0.0, value - seconds) for value in (self.low, self.middle, self.high))
        return Left(low=low, middle=middle, high=high)

    def __str__(self) -> str:
        if self.middle == inf:
            return ""
        low, high = _rounded(self.low), _rounded(self.high)
        return f"ETA {low}" if low == high else f"ETA {low} to {high}"


def _rounded(seconds: float) -> str:
    """Seconds in words with about two digits: 40s, 7m, 2h10m."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))}s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes}m"
    return f"{minutes // 60}h{10 * (minutes % 60 // 10):02d}m"
