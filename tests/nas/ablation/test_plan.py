"""Plans: paired trainings, what is recorded already, and arms of equal cost."""

from __future__ import annotations

import random
import statistics

import pytest

from nas.ablation.designs import TOLERANCE, arms_of, matched
from nas.ablation.plan import CONTROL_SEEDS, Estimate, Plan, estimate, plan_of
from nas.cli.ablate import _plan_lines, print_effects
from search_spaces import codec
from tests.nas.ablation.plans import LOOKUP, SMALL, arms, base, config


def planned(**over: object):  # type: ignore[no-untyped-def]
    """The plan of `config(**over)`."""
    return plan_of(config(**over), arms(**over), num_classes=8, seed=5, checksum="abc")


def test_a_pair_has_one_seed_and_begins_from_the_base_s_values() -> None:
    plan = planned(seeds=3, min_seeds=2)
    assert len(plan.trainings) == 3 * len(plan.arms.arms)
    for pair in range(3):
        mine = [t for t in plan.trainings if t.pair == pair]
        assert {t.seed for t in mine} == {5 + pair, 5 + pair + CONTROL_SEEDS}
        first = mine[0].job
        assert first.paired_with == ""
        assert {t.job.paired_with for t in mine[1:-1]} == {first.spec}
    pairs = [t.pair for t in plan.trainings]
    assert pairs == sorted(pairs)  # an early look has whole pairs


def test_a_training_is_named_by_all_that_decides_it() -> None:
    plan = planned(factors={"kind": ["2d"], "recipe.lr": [0.01], "data.clip.frames": [4]})
    assert len({t.key for t in plan.trainings}) == len(plan.trainings)
    assert plan.trainings[0].key == planned().trainings[0].key


def test_what_is_recorded_is_not_paid_again() -> None:
    plan = planned()
    done = [(t.key, plan.config.epochs) for t in plan.trainings[:4]]
    history = [{"seconds": 2.0, "train_macs": plan.costs[0].train_macs}]
    left = estimate(plan, done, history)
    assert (left.trainings, left.done) == (len(plan.trainings), 4)
    assert left.epochs == (left.trainings - 4) * plan.config.epochs
    assert left.hours is not None and left.hours >= left.epochs * 2.0 / 3600 * 0.99
    assert estimate(plan, done, []).hours is None


@pytest.mark.parametrize("kind", ["2d", "3d", "p3d_a"])
def test_matched_arms_have_the_base_s_macs_within_two_percent(kind: str) -> None:
    plan = planned(factors={"kind": [kind]})
    found = matched(plan.arms, num_classes=8)
    equal = plan_of(config(), found, num_classes=8, seed=0, checksum="")
    assert len(found.arms) == len(plan.arms.arms)
    ratios = [cost.macs / equal.costs[0].macs for cost in equal.costs]
    assert all(abs(ratio - 1) <= TOLERANCE for ratio in ratios)
    assert plan.costs[1].macs != equal.costs[1].macs


def test_an_arm_that_no_width_can_match_is_dropped_with_a_word() -> None:
    image = {"family": "timm", "model": "test_resnet", "frames": 8}
    found = matched(arms(factors={"network": {"timm": image}}), num_classes=8)
    assert [arm.factor for arm in found.arms] == ["base", "A/A"]
    assert "no width gives" in found.dropped[-1].reason


@pytest.mark.parametrize(
    ("seconds", "workers", "text"),
    [(8, 1, "about 8s with 1 worker(s)"), (400, 2, "about 3m20s with 2 worker(s)"), (7200, 0, "about 2h00m with 1 ")],
)
def test_how_long_it_takes_is_said_in_a_fitting_unit(seconds: float, workers: int, text: str) -> None:
    (line,) = _plan_lines(planned(), Estimate(trainings=4, done=0, epochs=36, hours=seconds / 3600), workers)
    assert f"36 epochs are left: {text}" in line


def test_the_table_has_no_negative_zero(capsys: pytest.CaptureFixture[str]) -> None:
    print_effects([{"factor": "kind", "difference": -0.0001, "low": -0.021, "high": 0.0301}], "effects")
    out = capsys.readouterr().out
    assert " 0.0 " in out and "-2.1" in out and "+3.0" in out and "-0.0" not in out


def _table(digest: str, seed: int) -> float:
    """Accuracy of a network that is trained with a seed: all networks are equally good, seeds differ by 3 points."""
    return 0.7 + 0.03 * random.Random(f"{digest} {seed}").gauss(0, 1)


@pytest.mark.parametrize("fresh", [True, False])
def test_what_won_a_search_by_luck_wins_no_comparison(fresh: bool) -> None:
    """On a table, 80 searches of eight equal networks: their winners differ from a network that none of them tried."""
    kinds = ("2d", "3d", "p3d_a", "p3d_b")
    settings = [{**SMALL, "kind": kind, "stem_width": width} for kind in kinds for width in (8, 16)]
    other = {**SMALL, "kind": "2plus1d"}
    plans = {}
    for stated in settings:
        read = config(base=stated, factors={"network": {"other": other}}, control=False, seeds=3)
        plans[codec.digest(base(stated).spec)] = (read, arms_of(read, base(stated), LOOKUP))
    found = []
    for study in range(80):
        seed = 1000 * study
        searched = dict.fromkeys(plans, seed)  # a search trains all with the seed of its study
        winner = max(searched, key=lambda digest: _table(digest, seed))
        stated, compared = plans[winner]
        plan = plan_of(stated, compared, num_classes=8, seed=seed, checksum="abc", searched=searched if fresh else {})
        seeds = {training.seed for training in plan.trainings if training.arm == 0}
        assert (seed in seeds) != fresh and len(seeds) == 3
        assert plan.searched == ((winner,) if fresh else ())
        one, two = (
            statistics.mean(
                _table(codec.digest(compared.arms[arm].variant.spec), training.seed)
                for training in plan.trainings
                if training.arm == arm
            )
            for arm in (0, 1)
        )
        found.append(one - two)
    error = statistics.stdev(found) / 80**0.5
    biased = statistics.mean(found) / error
    assert abs(biased) < 3 if fresh else biased > 4  # its own training counted, the winner would seem a point better


def test_pairs_begin_after_every_seed_that_a_search_had_and_the_name_says_so() -> None:
    read = config(factors={"kind": ["2d"]}, control=False, seeds=2, min_seeds=2)
    compared = arms_of(read, base(), LOOKUP)
    digest = codec.digest(compared.arms[0].variant.spec)

    def plan(searched: dict[str, int]) -> Plan:
        return plan_of(read, compared, num_classes=8, seed=5, checksum="abc", searched=searched)

    assert plan({}).seeds == plan({"other": 5}).seeds == (5, 6)
    assert [plan({digest: seed}).seeds for seed in (2, 5, 9)] == [(5, 6), (6, 7), (10, 11)]
    names = [plan(searched).config.name() for searched in ({}, {"other": 5}, {digest: 2}, {digest: 5}, {digest: 9})]
    assert names[0] == names[1] == names[2] == read.name() and len(set(names)) == 3
    assert "first_seed" not in plan({}).config.record()  # ablations that were recorded before keep their names
