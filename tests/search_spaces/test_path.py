from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.cost.cost import cost
from search_spaces.catalogue import FAMILIES, PRESETS, preset
from search_spaces.edit import diff, steps
from search_spaces.errors import SpecError
from search_spaces.space import parse_space
from search_spaces.spec import ArchSpec


def assert_leads(a: ArchSpec, b: ArchSpec) -> None:
    """Every step is canonical and comes nearer, and the last one is there."""
    found = steps(a, b)
    now, goal = a.canonical(), b.canonical()
    for step in found:
        assert step.spec == step.spec.canonical()
        assert len(diff(step.spec, goal)) < len(diff(now, goal))
        now = step.spec
    assert now == goal


@pytest.mark.parametrize("family", FAMILIES)
def test_a_way_leads_between_named_networks_of_a_family(family):
    names = [name for name in PRESETS if PRESETS[name].family == family]
    pairs = list(itertools.permutations(names, 2))
    for a, b in random.Random(0).sample(pairs, min(30, len(pairs))):
        assert_leads(preset(a), preset(b))


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), st.randoms(use_true_random=False))
def test_a_way_leads_between_sampled_networks_of_a_family(family, rng):
    space = parse_space({"families": {family: FAMILIES[family].sample()}})
    assert_leads(space.random(rng).spec, space.random(rng).spec)


def test_the_way_to_r2plus1d_goes_block_by_block_and_ends_at_the_stem():
    found = steps(preset("r3d_18_vmz"), preset("r2plus1d_18"))
    blocks = [f"stages.{s}.blocks.{b}.temporal.kind" for s in range(4) for b in range(2)]
    assert sorted(step.path for step in found) == sorted([*blocks, "stem"])
    for step in found:
        assert cost(step.spec, frames=16, height=112, width=112, num_classes=400).macs > 40e9


def test_depth_changes_a_block_at_a_time():
    found = [step.path for step in steps(preset("r3d_18_vmz"), preset("r3d_34"))]
    assert found == [f"stages.{s}.blocks" for s, more in enumerate((1, 2, 4, 1)) for _ in range(more)]


def test_a_network_is_at_its_own_end():
    assert steps(preset("r3d_18"), preset("r3d_18")) == []


def test_there_is_no_way_between_families():
    with pytest.raises(SpecError, match="one family, but they are of resnet and c3d"):
        steps(preset("r3d_18"), preset("c3d"))
