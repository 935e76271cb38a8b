"""The interval of a share, and how sure an interval is, in words."""

from __future__ import annotations

import math
from statistics import NormalDist

CONFIDENCE = 0.95  # of the intervals of accuracies


def level(confidence: float) -> str:
    """The confidence of an interval in words: `98.2 %`."""
    return f"{100 * confidence:.3g} %"


def wilson(share: float, number: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22): of some width also at 0 and at 1.

    Args:
        share: Of those that are right, 0..1.
        number: Of independent trials, such as videos; nothing is known of 0.
        confidence: Of the interval.

    Returns:
        Low and high, in 0..1.
    """
    if number <= 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    middle = (share + z * z / (2 * number)) / (1 + z * z / number)
    half = z / (1 + z * z / number) * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    # At 0 and 1 an end is exact; rounding must not put it beyond.
    return (0.0 if share <= 0 else max(0.0, middle - half)), (1.0 if share >= 1 else min(1.0, middle + half))
