"""What a motion test costs a network: differences paired by clip, their interval and its word, and what is stored."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.errors import NasError
from nas.train.motion_tests import differences, paired_interval, put_motion
from tests.nas.store.test_store import filled
from trainer.outcomes import MotionOutcome


def outcome(test: str, correct: str) -> MotionOutcome:
    marks = [mark for mark in correct if mark != "-"]
    return MotionOutcome(test=test, top1=marks.count("1") / len(marks), loss=1.0, num_clips=len(marks), correct=correct)


def test_differences_are_paired_by_clip() -> None:
    # Of five clips in both, two are lost and one is won.
    found = differences([outcome("forward", "111-001"), outcome("reversed", "0010-11")])
    (reversed_,) = found
    assert (reversed_.lost, reversed_.won, reversed_.num_clips) == (2, 1, 5)
    assert reversed_.difference == pytest.approx(1 / 5)
    assert reversed_.word == "undecided"


def test_the_interval_is_that_of_agresti_and_min() -> None:
    # b = 20, c = 5, n = 100: (20.5 - 5.5) / 102 +- 1.95996 sqrt(26 - 15^2 / 102) / 102
    low, high = paired_interval(lost=20, won=5, num_clips=100)
    assert low == pytest.approx(0.147059 - 1.959964 * 0.047822, abs=1e-5)
    assert high == pytest.approx(0.147059 + 1.959964 * 0.047822, abs=1e-5)


pairs = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 60))


@given(pairs)
def test_the_interval_holds_the_difference_and_turns_with_the_sides(numbers: tuple[int, int, int]) -> None:
    lost, won, both = numbers
    low, high = paired_interval(lost=lost, won=won, num_clips=lost + won + both)
    assert -1 <= low < (lost - won) / (lost + won + both) + 1e-9
    assert (lost - won) / (lost + won + both) - 1e-9 < high <= 1
    turned = paired_interval(lost=won, won=lost, num_clips=lost + won + both)
    assert turned == pytest.approx((-high, -low))
    wider = paired_interval(lost=lost, won=won, num_clips=lost + won + both, confidence=0.99)
    assert wider[0] <= low <= high <= wider[1]


@pytest.mark.parametrize(("lost", "won"), [(0.0, 0.0), (0.05, 0.05), (0.3, 0.1), (0.85, 0.02)])
def test_the_interval_covers_the_truth_as_often_as_it_says(lost: float, won: float) -> None:
    rng = np.random.default_rng(3)
    draws = rng.multinomial(128, [lost, won, 1 - lost - won], size=4000)
    hits = 0
    for b, c, _ in draws.tolist():
        low, high = paired_interval(lost=b, won=c, num_clips=128)
        hits += low <= lost - won <= high
    assert hits / len(draws) > 0.94


@pytest.mark.parametrize(
    ("lost", "won", "total", "word"),
    [
        (30, 5, 100, "worse"),
        (5, 30, 100, "better"),
        (0, 0, 512, "equivalent"),
        (0, 0, 50, "undecided"),
        (12, 8, 100, "undecided"),
    ],
)
def test_the_word_says_what_the_interval_says(lost: int, won: int, total: int, word: str) -> None:
    forward = "1" * lost + "0" * (total - lost)
    other = "0" * lost + "1" * won + "0" * (total - lost - won)
    (found,) = differences([outcome("forward", forward), outcome("frozen", other)])
    assert found.word == word
    assert found.difference == pytest.approx((lost - won) / total)


def test_without_forward_there_is_nothing_to_compare_with() -> None:
    with pytest.raises(NasError, match="compared with forward"):
        differences([outcome("reversed", "01")])


def test_what_is_stored_again_takes_the_place_of_what_was(tmp_path: Path) -> None:
    store = filled(tmp_path / "a.db", [("aa", 0, 0.5, 10), ("bb", 0, 0.6, 20)])
    tests = [outcome("forward", "1101"), outcome("frozen", "0100")]
    key: dict[str, Any] = {"study_id": 1, "source": "run", "seed": 0, "epochs": 3, "split": "val", "order_seed": 0}
    with store.write() as connection:
        put_motion(connection, digest="aa", source_id=1, tests=tests, **key)
        put_motion(connection, digest="bb", source_id=2, tests=tests, **key)
        put_motion(connection, digest="aa", source_id=1, tests=tests[:1], **key)
    rows = store.motion_tests("demo")
    assert [(r["digest"], r["forward"], r["frozen"]) for r in rows] == [("aa", 0.75, None), ("bb", 0.75, 0.25)]


def test_what_is_stored_can_be_compared_without_torch() -> None:
    code = "import sys, nas.train.motion_tests; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
