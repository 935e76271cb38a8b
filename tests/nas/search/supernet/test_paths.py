"""Every residual network has a path, which leads back to it."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.search.supernet.paths import SKIP, cover, form_of, log_share, mixture
from search_spaces.catalogue import FAMILIES, links, preset
from search_spaces.codec import digest
from search_spaces.families.resnet.spec import BlockUnit
from search_spaces.space import parse_space
from search_spaces.spec import ArchSpec

SPACE = parse_space({"families": {"resnet": FAMILIES["resnet"].sample()}})


def drawn(num: int, seed: int) -> dict[str, ArchSpec]:
    rng = random.Random(seed)
    return {digest(spec): spec for spec in (SPACE.random(rng).spec for _ in range(num))}


@settings(deadline=None, max_examples=20)
@given(num=st.integers(1, 30), seed=st.integers(0, 1000))
def test_a_path_leads_back_to_its_network(num: int, seed: int) -> None:
    networks = drawn(num, seed)
    found = cover(networks, num_classes=5)
    assert found.paths.keys() == networks.keys()
    for key, path in found.paths.items():
        taken = []
        for place in found.places:
            form = str(path[place.name])
            if form != SKIP:
                number = path[place.label(form)]
                assert isinstance(number, int)
                taken.append((place.name, place.forms[form][number]))
        assert taken == list(links(networks[key], num_classes=5))
    assert len({tuple(sorted(path.items())) for path in found.paths.values()}) == len(networks)


def test_depths_share_the_blocks_that_they_have_in_common() -> None:
    networks = {name: preset(name, frames=16) for name in ("r3d_18", "r3d_34", "r2plus1d_18")}
    found = cover(networks, num_classes=5)
    optional = {place.name for place in found.places if place.optional}
    names = [place.name for place in found.places]
    assert "stages.1.1" not in optional and "stages.1.2" in optional
    assert names.index("stages.0.2") < names.index("stages.1.0") < names.index("stages.1.3") < names.index("head")
    (place,) = (place for place in found.places if place.name == "stages.1.0")
    assert set(place.forms) == {"basic_3d", "basic_2plus1d"}


def test_temporal_operators_have_nothing_in_common() -> None:
    units = {name: dict(links(preset(name, frames=16), num_classes=5))["stages.0.0"] for name in ("r3d_18", "mc3_18")}
    assert form_of(units["r3d_18"]) == form_of(units["mc3_18"]) == "basic_3d"
    assert form_of(dict(links(preset("r2d_18", frames=16), num_classes=5))["stages.0.0"]) == "basic_2d"


def test_a_mixture_names_units_that_take_and_give_the_same() -> None:
    networks = drawn(40, 3)
    found = cover(networks, num_classes=5)
    several = 0
    for path in found.paths.values():
        mixed = mixture(found, path)
        assert path.items() <= mixed.items()
        for place in found.places:
            own = str(path[place.name])
            if own == SKIP:
                assert not any(place.label(form) in mixed for form in place.forms)
                continue
            unit = place.forms[own][int(path[place.label(own)])]
            here = [
                place.forms[form][int(mixed[place.label(form)])] for form in place.forms if place.label(form) in mixed
            ]
            several += len(here) > 1
            if isinstance(unit, BlockUnit):
                ends = {
                    (u.in_planes, u.block.out_planes, u.block.spatial_stride, u.block.temporal_stride) for u in here
                }
                assert len(ends) == 1
            else:
                assert here == [unit]
    assert several > 20


def test_the_share_of_a_network_is_that_of_its_forms() -> None:
    networks = {name: preset(name, frames=16) for name in ("r3d_18", "r3d_34", "r2plus1d_18")}
    found = cover(networks, num_classes=5)
    shares = {place.name: dict.fromkeys(place.forms, 1 / len(place.forms)) for place in found.places}
    logs = {key: log_share(found, path, shares) for key, path in found.paths.items()}
    assert logs["r3d_18"] == pytest.approx(9 * math.log(0.5))  # the stem and eight blocks have two forms
    shares["stages.0.0"] = {"basic_3d": 0.9, "basic_2plus1d": 0.1}
    again = {key: log_share(found, path, shares) for key, path in found.paths.items()}
    assert again["r3d_18"] > logs["r3d_18"] and again["r2plus1d_18"] < logs["r2plus1d_18"]
