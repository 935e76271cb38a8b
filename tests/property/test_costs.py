"""The law of costs: what the graph of a unit costs is what building and running it costs, to the last byte."""

from __future__ import annotations

import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.cost.cost import _count
from nas.cost.meta import measured
from search_spaces.catalogue import FAMILIES, PRESETS, links, preset
from search_spaces.errors import ClipError
from search_spaces.graph import Unit
from search_spaces.space import SearchSpace, parse_space
from search_spaces.spec import ArchSpec
from tests.search_spaces.strategies import specs as residual

# Of timm's modules, only timm knows what they are made of.
OURS = tuple(family for family in FAMILIES if family != "timm")
Clip = tuple[int, int, int]

clips = st.tuples(st.integers(1, 20), st.integers(16, 90), st.integers(16, 90))
dropouts = st.sampled_from((0.0, 0.5))


@cache
def space_of(family: str) -> SearchSpace:
    return parse_space({"families": {family: FAMILIES[family].sample()}})


def check(spec: ArchSpec, clip: Clip, dropout: float) -> None:
    """Holds unit by unit, as far as the clip is long and large enough."""
    shape = (3, *clip)
    for name, unit in links(spec, num_classes=7, dropout=dropout):
        assert isinstance(unit, Unit), name
        try:
            expected = measured(unit, shape)[0]
        except (RuntimeError, ClipError) as error:
            with pytest.raises(type(error)) as caught:
                _count(unit, shape)
            assert not isinstance(error, ClipError) or str(caught.value) == str(error)
            return
        assert _count(unit, shape) == expected, f"{spec.describe()}: {name} at {shape}"
        shape = expected.shape


@pytest.mark.parametrize("family", OURS)
def test_units_of_every_family_cost_what_running_them_does(family: str) -> None:
    @settings(max_examples=12, deadline=None, derandomize=True, database=None)
    @given(seed=st.integers(0, 10**6), clip=clips, dropout=dropouts)
    def holds(seed: int, clip: Clip, dropout: float) -> None:
        check(space_of(family).random(random.Random(seed)).spec, clip, dropout)

    holds()


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(spec=residual, clip=clips)
def test_units_of_any_residual_network_cost_what_running_them_does(spec: ArchSpec, clip: Clip) -> None:
    check(spec, clip, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, entry in PRESETS.items() if entry.family != "timm"])
def test_units_of_published_networks_cost_what_running_them_does(name: str) -> None:
    clip = PRESETS[name].clip
    check(preset(name, frames=clip[0]), clip, 0.3)
