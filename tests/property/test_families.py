"""The laws of specs over all families: samples of each family's widest space, and edits of them."""

from __future__ import annotations

import contextlib
import json
import random

import pytest
import torch

from search_spaces.catalogue import FAMILIES, build, links
from search_spaces.codec import decode, digest, dumps, encode, loads
from search_spaces.edit import at, diff, put
from search_spaces.errors import SpecError
from search_spaces.space import parse_space
from search_spaces.spec import ArchSpec

NUM_CLASSES = 5


def drawn(family: str, num: int, seed: int) -> list[ArchSpec]:
    space, rng = parse_space({"families": {family: FAMILIES[family].sample()}}), random.Random(seed)
    return [space.random(rng).spec for _ in range(num)]


def check_laws(specs: list[ArchSpec]) -> None:
    structures: dict[object, str] = {}
    for spec in specs:
        assert spec.canonical() == spec
        assert decode(json.loads(json.dumps(encode(spec)))) == loads(dumps(spec)) == spec
        # Unequal digests are unequal chains of units or initial values, and equal ones equal chains.
        chain = (links(spec, num_classes=NUM_CLASSES), spec.begins_at_zero())
        assert structures.setdefault(chain, digest(spec)) == digest(spec)
    assert len(structures) == len({digest(spec) for spec in specs}) == len({spec.describe() for spec in specs})


@pytest.mark.parametrize("family", FAMILIES)
def test_laws_hold_for_samples(family):
    check_laws(drawn(family, 60, seed=1))


@pytest.mark.slow
def test_laws_hold_for_five_thousand_samples():
    specs = [spec for family in FAMILIES for spec in drawn(family, -(-5000 // len(FAMILIES)), seed=2)]
    assert len(specs) >= 5000
    check_laws(specs)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_edit_without_effect_computes_the_same(family):
    """A field takes another network's value; where the canonical form takes that back, outputs are equal."""
    rng = random.Random(3)
    specs = drawn(family, 40, seed=4)
    compared = 0
    for _ in range(1500):
        one, other = rng.sample(specs, 2)
        path = rng.choice(sorted(diff(one, other)) or [""])
        with contextlib.suppress(SpecError):
            edited = put(one, path, at(other, path))
            if edited != one and edited.canonical() == one:
                assert digest(edited) == digest(one)
                assert torch.equal(output(edited), output(one))
                compared += 1
        if compared == 2:
            break
    assert compared == 2


def output(spec: ArchSpec) -> torch.Tensor:
    torch.manual_seed(0)
    network = build(spec, num_classes=NUM_CLASSES).eval()
    clip = torch.randn(1, 3, *FAMILIES[spec.family].least_clip, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network(clip)
