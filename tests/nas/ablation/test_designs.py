"""Designs: which arms a question comes to, what each differs in, and what is dropped with a word."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.ablation.config import CONTROL, _largest_fraction
from nas.ablation.designs import fraction_of
from nas.ablation.variants import LevelError, Variant, changed
from nas.errors import StudyError
from search_spaces.edit import diff
from tests.nas.ablation.plans import LOOKUP, arms, base, config


def test_one_factor_at_a_time_changes_nothing_else() -> None:
    plan = arms(factors={"kind": ["2d", "3d", "p3d_a"], "kernel": [3, 5], "recipe.lr": [0.001, 0.01]}, control=False)
    names = [(arm.factor, arm.level) for arm in plan.arms]
    assert names[1:] == [("kind", "2d"), ("kind", "3d"), ("kind", "p3d_a"), ("kernel", "5"), ("recipe.lr", "0.01")]
    assert all(arm.reference == 0 for arm in plan.arms[1:])
    kernel = plan.arms[4].variant
    assert {path.rsplit(".", 1)[1] for path in diff(kernel.spec, plan.arms[0].variant.spec)} == {"kernel"}
    lr = plan.arms[5].variant
    assert lr.spec == plan.arms[0].variant.spec and lr.recipe.lr == 0.01


def test_the_base_s_own_level_and_twins_are_dropped_by_name() -> None:
    plan = arms(factors={"kind": ["2plus1d", "2d"], "dilation": [1, 2]})
    reasons = {(d.factor, d.level): d.reason for d in plan.dropped}
    assert reasons["kind", "2plus1d"] == "it is the base's own level"
    assert reasons["dilation", "1"] == "it is the base's own level"
    plan = arms(factors={"kind": {"flat": "2d", "also flat": "2d"}})
    assert plan.dropped[0].reason == "it is the same network as level flat"


def test_a_level_that_makes_no_network_is_dropped_with_its_rule() -> None:
    plan = arms(factors={"kind": ["3d", "t1x1_first"]})
    assert [(d.factor, d.level) for d in plan.dropped] == [("kind", "t1x1_first")]
    assert "t1x1_first" in plan.dropped[0].reason


def test_a_control_is_the_base_with_other_seeds() -> None:
    plan = arms()
    last = plan.arms[-1]
    assert last.factor == CONTROL and last.variant.other_seeds and last.reference == 0
    assert last.variant.spec == plan.arms[0].variant.spec


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("kernl", "did you mean kernel"),
        ("recipe.learning_rate", "choices: .*recipe.lr"),
        ("stages.*.blocks.*.temporal.knd", "did you mean stages.\\*.blocks.\\*.temporal.kind"),
        ("data.clp.frames", "did you mean data.clip.frames"),
    ],
)
def test_a_factor_that_the_base_does_not_have_names_the_nearest(path: str, match: str) -> None:
    with pytest.raises(LevelError, match=match):
        arms(factors={path: [1, 2]})


def test_other_data_cannot_be_a_level() -> None:
    plan = arms(factors={"data.root": ["a", "b"], "kind": ["2d"]})
    assert {d.factor for d in plan.dropped} == {"data.root"}
    assert "not one comparison" in plan.dropped[0].reason


def test_a_factorial_has_every_combination_once_and_the_base_first() -> None:
    factors = {"kind": ["2d", "3d"], "kernel": [3, 5], "recipe.lr": [0.001, 0.01]}
    plan = arms(design="factorial", factors=factors, control=False)
    # a 2d network has no temporal kernel, so those combinations are equal in pairs
    assert len(plan.arms) == 6 and len(plan.dropped) == 2
    plan = arms(design="factorial", factors={"kind": ["2plus1d", "3d"], "kernel": [3, 5]}, control=False)
    assert len(plan.arms) == 4
    assert plan.arms[0].levels == {"kind": "2plus1d", "kernel": "3"}
    assert {tuple(arm.levels.values()) for arm in plan.arms} == set(itertools.product(["2plus1d", "3d"], ["3", "5"]))


@settings(max_examples=30, deadline=None)
@given(k=st.integers(3, 7), p=st.integers(1, 3))
def test_a_fraction_is_balanced_and_orthogonal_in_its_main_effects(k: int, p: int) -> None:
    if 2**p > _largest_fraction(k):
        return
    rows, aliases = fraction_of([f"f{i}" for i in range(k)], 2**p)
    assert len(rows) == 2 ** (k - p) == len(set(rows)) and len(aliases) == p
    signs = [[1 if bit else -1 for bit in row] for row in rows]
    for i in range(k):
        assert sum(row[i] for row in signs) == 0
        for j in range(i):
            assert sum(row[i] * row[j] for row in signs) == 0


def test_half_a_factorial_of_four_is_of_resolution_four() -> None:
    _, aliases = fraction_of(["a", "b", "c", "d"], 2)
    assert aliases == ["d = a x b x c"]
    plan = arms(
        design="fractional",
        factors={"kind": ["2plus1d", "3d"], "kernel": [3, 5], "dilation": [1, 2], "recipe.lr": [0.001, 0.01]},
        control=False,
    )
    assert len(plan.arms) == 8 and plan.aliases == ("recipe.lr = kind x kernel x dilation",)


def test_a_path_changes_one_setting_at_a_time_and_ends_where_it_should() -> None:
    goal = {"family": "resnet", "depth": "1-1-1", "stem_width": 8, "stem": "3x3x3/2", "kind": "3d", "kernel": 3}
    plan = arms(design="path", to=goal, orders=2, control=False, factors={})
    end = [arm for arm in plan.arms if arm.variant.spec == base(goal).spec]
    assert len(end) == 2  # one for each order
    for arm in plan.arms[1:]:
        assert arm.reference is not None
        before = plan.arms[arm.reference].changes
        assert set(before) < set(arm.changes) and len(arm.changes) == len(before) + 1
    assert {arm.factor for arm in plan.arms[1:]} == {"kind", "stem", "stem after kind", "kind after stem"}


def test_a_path_between_networks_without_settings_goes_block_by_block() -> None:
    from search_spaces.edit import put

    start = base().spec
    goal = put(start, "stages.1.blocks.0.temporal.kind", "3d").canonical()
    variant = changed(base(), "stages.1.blocks.0.temporal.kind", "3d", LOOKUP)
    assert variant.spec == goal and variant.settings is None


def test_a_control_study_is_the_base_against_itself_alone() -> None:
    plan = arms(design="control", factors={}, control=False)
    assert [arm.factor for arm in plan.arms] == ["base", CONTROL]


def test_leaving_out_takes_one_level_a_component() -> None:
    plan = arms(design="leave_out", factors={"kind": ["2d"], "recipe.ema_decay": [0]}, control=False)
    assert [(arm.factor, arm.level) for arm in plan.arms[1:]] == [("kind", "2d"), ("recipe.ema_decay", "0")]
    assert isinstance(plan.arms[2].variant, Variant) and plan.arms[2].variant.recipe.ema_decay == 0.0
    with pytest.raises(StudyError, match="has one level"):
        config(design="leave_out", factors={"kind": ["2d", "3d"]})


@pytest.mark.parametrize(
    ("over", "match"),
    [
        ({"seeds": 1}, "ablation.seeds must be at least 2, but is 1"),
        ({"design": "one"}, "choices: ofat, leave_out, factorial, fractional, path, control"),
        ({"design": "path"}, "ablation.to must name"),
        ({"design": "control"}, "has no factors, but has kind"),
        ({"factors": {}, "design": "leave_out"}, "at least 1 factor"),
        ({"design": "fractional", "factors": {"kind": ["2d", "3d", "p3d_a"], "kernel": [3, 5]}}, "needs 2 levels"),
        ({"margin": 1.5}, r"margin must be in \(0, 1\)"),
        ({"min_seeds": 9}, "at most ablation.seeds"),
        ({"claims": [{"claim": "x"}]}, "claims.0.document is missing"),
        ({"claims": [{"clam": "x"}]}, "did you mean claim"),
    ],
)
def test_an_ablation_that_breaks_a_rule_is_refused_in_one_line(over: dict[str, object], match: str) -> None:
    with pytest.raises(StudyError, match=match):
        config(**over)


def test_a_changed_design_has_another_name_and_claims_do_not_count() -> None:
    a, b = config(), config(seeds=6)
    assert a.name() != b.name() and a.name().startswith("ofat-")
    claim = {"claim": "x", "document": "y", "arm": "kind=3d"}
    assert config(claims=[claim]).name() == a.name()


def test_levels_can_be_compared_with_one_of_them_in_the_base_s_place() -> None:
    plan = arms(factors={"kind": ["2d", "3d", "p3d_a"], "kernel": [5]}, against={"kind": "2d"})
    references = {arm.level: arm.reference for arm in plan.arms}
    flat = next(arm for arm in plan.arms if arm.level == "2d")
    assert references["3d"] == references["p3d_a"] == flat.position
    assert references["2d"] == references["5"] == references["base, other seeds"] == 0
    assert plan.arms[0].levels == {"kind": "2plus1d"}


@pytest.mark.parametrize(
    ("over", "match"),
    [
        ({"against": {"kind": "4d"}}, "level of ablation.against.kind '4d'.*2d, 3d"),
        ({"against": {"kernel": "5"}}, "factor of ablation.against 'kernel'.*kind"),
        ({"against": {"kind": "2d"}, "design": "leave_out", "factors": {"kind": ["2d"]}}, "needs design ofat"),
    ],
)
def test_what_levels_are_compared_with_is_one_of_them(over: dict[str, object], match: str) -> None:
    with pytest.raises(StudyError, match=match):
        config(**over)


def test_what_is_dropped_cannot_be_compared_with() -> None:
    with pytest.raises(LevelError, match=r"ablation.against.kind cannot be 2plus1d: it is the base's own level"):
        arms(factors={"kind": ["2plus1d", "2d"]}, against={"kind": "2plus1d"})
