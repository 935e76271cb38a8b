"""A/A studies and coverage, simulated with the noise of real ones; longer in benchmarks/bench_evidence.py."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.simulated import GESTURES, MOTION, Noise, count, count_stops, results, simulate
from nas.evidence.values import EvidenceError
from nas.evidence.words import Looks

NOISES = pytest.mark.parametrize("noise", [GESTURES, MOTION], ids=["gestures", "motion"])


@NOISES
def test_simulated_results_have_the_noise_that_was_measured(noise: Noise) -> None:
    study = simulate(noise, [noise.top1, noise.top1 - 0.1], seeds=10, studies=60, rng=np.random.default_rng(0))
    top1 = study.mean(axis=3)
    assert top1.mean(axis=(0, 2)) == pytest.approx([noise.top1, noise.top1 - 0.1], abs=0.02)
    assert np.sqrt(top1[:, 0].var(axis=1, ddof=1).mean()) == pytest.approx(noise.sd, rel=0.12)


@NOISES
def test_of_200_families_of_equal_arms_at_most_one_in_twenty_has_a_false_word(noise: Noise) -> None:
    got = count(replace(noise, suits=0), [noise.top1] * 5, seeds=5, studies=200, seed=1)
    assert got.families <= 0.05
    assert got.words["undecided"] > 0.9


@NOISES
def test_intervals_hold_the_true_difference_in_93_to_97_of_100(noise: Noise) -> None:
    got = count(noise, [noise.top1, noise.top1 - 0.1], seeds=8, studies=400, seed=2)
    assert 0.93 <= got.covered <= 0.97
    assert got.seeds_covered < 0.9  # why clips are not left out of account


@NOISES
def test_looking_on_the_way_raises_no_more_false_alarms(noise: Noise) -> None:
    plan = Looks(seeds=(3, 5, 8), half_width=0.03)
    got = count_stops(replace(noise, suits=0), [noise.top1] * 3, plan, studies=80, seed=3)
    assert got.families <= 0.05
    assert got.covered >= 0.93


def test_a_large_difference_ends_a_study_early() -> None:
    got = count_stops(MOTION, [0.9, 0.7], Looks(seeds=(3, 5, 8)), studies=40, seed=4)
    assert got.reasons["decided"] > 0.9
    assert got.seeds < 6


def test_the_bootstrap_interval_covers_too() -> None:
    got = count(GESTURES, [0.85, 0.75], seeds=5, studies=120, seed=5, resamples=299)
    assert 0.9 <= got.boot_covered <= 0.99


def test_answers_by_clip_can_be_held_back() -> None:
    arm = simulate(MOTION, [0.9], seeds=2, studies=1, rng=np.random.default_rng(0))[0, 0]
    assert results(arm, clips=False)[0].correct is None
    assert results(arm)[1].top1 == arm[1].mean()
    with pytest.raises(EvidenceError, match="0 < top1 < 1"):
        simulate(MOTION, [1.0], seeds=2, studies=1, rng=np.random.default_rng(0))
    with pytest.raises(EvidenceError, match="0 < flips < top1"):
        simulate(replace(MOTION, flips=0.1), [0.9], seeds=2, studies=1, rng=np.random.default_rng(0))


def test_importing_the_room_is_cheap() -> None:
    code = (
        "import sys; from nas.evidence import paired, words, factorial, spread; "
        "print(sorted({'scipy', 'statsmodels', 'pandas', 'torch', 'sqlalchemy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
