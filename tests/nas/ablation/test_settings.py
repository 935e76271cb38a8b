"""Networks by settings: what settings say, the network has; and a network's settings give it back."""

from __future__ import annotations

import random

import pytest

from search_spaces.catalogue import FAMILIES, preset
from search_spaces.errors import SpecError
from search_spaces.settings import network_of, settings_in, settings_of
from search_spaces.space import parse_space

FOUND = (
    "r3d_18",
    "r2plus1d_18",
    "mc3_18",
    "f_r2d_18",
    "p3d_50",
    "besnet_50",
    "i3d",
    "s3d_v1",
    "tsm_r50",
    "c3d",
    "x3d_m",
)


@pytest.mark.parametrize("name", FOUND)
def test_the_settings_of_a_published_network_give_it_back(name: str) -> None:
    spec = preset(name).canonical()
    assert network_of(spec.family, settings_of(spec)) == spec


@pytest.mark.parametrize("family", ["resnet", "inception_v3", "c3d", "slowfast"])
def test_the_settings_of_networks_of_a_space_give_them_back(family: str) -> None:
    stated = FAMILIES[family].sample()
    domains = {
        name: body["values"] if isinstance(body, dict) else body
        for name, body in stated["domains"].items()  # type: ignore[attr-defined]
        if not (isinstance(body, dict) and name in ("time_pool", "temporal_stride"))
    }
    space = parse_space({"family": family, "domains": domains})
    rng = random.Random(1)
    found = 0
    for _ in range(10):
        spec = space.random(rng).spec
        try:
            assert network_of(family, settings_of(spec)) == spec
            found += 1
        except SpecError as error:
            assert "named by their path" in str(error)
    assert found >= 3


def test_a_network_that_no_settings_say_is_refused_with_the_way_out() -> None:
    from search_spaces.edit import put

    spec = put(preset("r3d_18"), "stages.1.blocks.0.temporal.kind", "p3d_c").canonical()
    with pytest.raises(SpecError, match=r"cannot be written as settings .* stages\.\*\.blocks\.\*\.temporal\.kind"):
        settings_of(spec)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_settings_of_stages_and_blocks_give_the_networks_of_a_space_back(family: str) -> None:
    space = parse_space({"families": {family: FAMILIES[family].sample()}})
    rng = random.Random(2)
    for _ in range(12):
        point = space.random(rng)
        settings = settings_in(space, dict(point.params))
        assert network_of(family, settings) == point.spec


def test_a_domain_of_stages_is_changed_as_a_whole() -> None:
    local = {"depth": "1-1-1", "stem_width": 8, "kind": {"stage0": "2d", "stage1": "3d", "stage2": "p3d_a"}}
    assert network_of("resnet", {**local, "kind": "3d"}) == network_of("resnet", {**local, "kind": {"stage0": "3d"}})
    kinds = [block.temporal.kind for stage in network_of("resnet", local).stages for block in stage.blocks]  # type: ignore[attr-defined]
    assert kinds == ["2d", "3d", "p3d_a"]
    deeper = network_of("resnet", {**local, "depth": "1-1-1-1"})
    assert [stage.blocks[0].temporal.kind for stage in deeper.stages] == [*kinds, "p3d_a"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ({}, "must be stated for stages or for blocks"),
        ({"stage0": "2d", "stage1.block0": "3d"}, "must be stated for stages or for blocks"),
        ({"stageX": "2d"}, "must be like stage0 or stage0.block1, but is stageX"),
        ({0: "2d"}, "must be like stage0"),
        ({"stage99999": "2d"}, "must be like stage0"),
        ({"stage0": "4d"}, "4d"),
        ({"stage0": {"stage1": "2d"}}, "stage1"),
        ({"stage0": None}, "None"),
    ],
)
def test_settings_of_places_that_are_none_are_refused_in_one_line(kind: dict[object, object], said: str) -> None:
    with pytest.raises(SpecError) as raised:
        network_of("resnet", {"depth": "1-1", "kind": kind})
    assert said in str(raised.value) and "\n" not in str(raised.value) and len(str(raised.value)) <= 500


def test_an_unknown_domain_names_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean kernel"):
        network_of("resnet", {"kernl": 3})


@pytest.mark.parametrize("place", ["stage4", "stage0.block2", "stage9.block0"])
def test_a_place_that_the_network_lacks_is_refused(place: str) -> None:
    with pytest.raises(
        SpecError, match=f"kind must be stated for places of the network, stage0.* to .*, but is for {place}"
    ):
        network_of("resnet", {"kind": {place: "2d"}})
