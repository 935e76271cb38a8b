"""Every residual network has a path, which leads back to it."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from nas.supernet.paths import SKIP, cover, form_of
from search_spaces.catalogue import FAMILIES, links
from search_spaces.codec import digest
from search_spaces.presets import preset
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
