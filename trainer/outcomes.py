"""What came of motion tests, as plain values; free of torch, so that what is stored can be read without it."""

from __future__ import annotations

from dataclasses import dataclass

TESTS = ("forward", "reversed", "shuffled", "frozen", "single")


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionOutcome:
    """What came of one motion test, as plain values that may go from process to process.

    Attributes:
        test: One of `TESTS`.
        top1: Share of videos whose class is the most probable one.
        loss: Mean cross-entropy of the videos' mean probabilities, in nats.
        num_clips: Videos that were evaluated.
        correct: A 0 or 1 for each video of the split in its order, - for one that was not evaluated.
    """

    test: str
    top1: float
    loss: float
    num_clips: int
    correct: str
