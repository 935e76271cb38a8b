"""What every network must do: each preset and samples of each family's widest space are held to it.

A new preset and a new family of the catalogue are picked up by themselves.
"""

from __future__ import annotations

import contextlib
import random
import warnings
from functools import cache, partial

import pytest
import torch
from torch.nn import functional as F

from nas.cost.cost import cost
from search_spaces.catalogue import FAMILIES, PRESETS, build, links, preset
from search_spaces.codec import decode, digest, encode
from search_spaces.errors import ClipError, SpecError
from search_spaces.modules import build as build_unit
from search_spaces.space import SearchSpace, parse_space
from search_spaces.spec import ArchSpec
from tests.counters import count_flops, count_thop

NUM_CLASSES = 7
NUM_COUNTED = 12
NUM_RUN = 4
NUM_PRESETS = 2


def narrow(spec: ArchSpec) -> ArchSpec:
    """The same network an eighth as wide where it can be, so that running it takes no time."""
    try:
        return spec.scaled(1 / 8)
    except SpecError:
        return spec


@cache
def space_of(family: str) -> SearchSpace:
    return parse_space({"families": {family: FAMILIES[family].sample()}})


@cache
def sampled(family: str) -> list[ArchSpec]:
    rng = random.Random(0)
    return [space_of(family).random(rng).spec for _ in range(NUM_COUNTED)]


def networks_to_run(*, every: bool = False) -> list[object]:
    """Samples of every family and the first and last presets of each; with `every`, the others too, as slow tests."""
    found = []
    for family in FAMILIES.values():
        names = [entry.name for entry in family.presets]
        quick = {*names[:NUM_PRESETS], *names[-NUM_PRESETS:]}
        for name in names:
            if every or name in quick:
                marks = () if name in quick else pytest.mark.slow
                found.append(pytest.param(partial(narrow_preset, name), id=name, marks=marks))
        for i in range(NUM_RUN):
            found.append(pytest.param(partial(nth_sample, family.name, i), id=f"{family.name}-{i}"))
    return found


def narrow_preset(name: str) -> ArchSpec:
    return narrow(preset(name, frames=FAMILIES[PRESETS[name].family].least_clip[0]))


@cache
def clip_of(spec: ArchSpec) -> tuple[int, int, int]:
    """The least clip of the family, or what a published network needs in addition."""
    frames, height, width = FAMILIES[spec.family].least_clip
    for clip in ((frames, height, width), (frames, 80, 80), (49, height, width), (49, 80, 80)):
        with contextlib.suppress(ClipError):
            cost(spec, frames=clip[0], height=clip[1], width=clip[2], num_classes=NUM_CLASSES)
            return clip
    raise AssertionError(f"no small clip fits {spec.describe()}")


def nth_sample(family: str, i: int) -> ArchSpec:
    return sampled(family)[i]


def clips(spec: ArchSpec, num: int, seed: int = 1) -> torch.Tensor:
    shape = (num, 3, *clip_of(spec))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(spec: ArchSpec, seed: int = 0, *, zero_init: bool | None = None) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build(spec, num_classes=NUM_CLASSES, zero_init=zero_init)


@pytest.mark.parametrize("make", networks_to_run(every=True))
def test_every_parameter_gets_a_finite_gradient(make):
    spec = make()
    network = made(spec, zero_init=False).train()  # behind a weight of 0, a branch has no gradient in the first step
    outputs = network(clips(spec, 3))
    loss = torch.zeros(())
    for logits in outputs if isinstance(outputs, tuple) else (outputs,):
        assert logits.shape == (3, NUM_CLASSES)
        assert torch.isfinite(logits).all()
        loss = loss + F.cross_entropy(logits, torch.tensor([0, 1, 2]))
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("make", networks_to_run())
class TestNetwork:
    def test_a_clip_in_evaluation_does_not_see_its_batch(self, make):
        spec = make()
        network = made(spec).eval()
        with torch.no_grad():
            together = network(clips(spec, 3))
            alone = torch.cat([network(clip[None]) for clip in clips(spec, 3)])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
        assert together.std(dim=0).min() > 0

    def test_weights_survive_a_round_trip(self, make):
        spec = make()
        first, second = made(spec, seed=0).eval(), made(decode(encode(spec)), seed=1).eval()
        with torch.no_grad():
            before = first(clips(spec, 1))
            assert not torch.equal(second(clips(spec, 1)), before)
            second.load_state_dict(first.state_dict())
            assert torch.equal(second(clips(spec, 1)), before)

    def test_the_seed_decides_the_weights(self, make):
        spec = make()
        first, second = made(spec), made(spec)
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))

    def test_the_chain_of_units_is_the_network(self, make):
        spec = make()
        with torch.device("meta"):
            whole = build(spec, num_classes=NUM_CLASSES)
            parts = [build_unit(link.unit) for link in links(spec, num_classes=NUM_CLASSES)]
        shapes = [p.shape for part in parts for p in part.parameters()]
        assert sorted(shapes) == sorted(p.shape for p in whole.parameters())
        assert len(digest(spec)) == 64

    def test_activation_bytes_are_what_real_tensors_keep(self, make):
        spec = make()
        network = made(spec).train()
        kept: dict[int, torch.Tensor] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            network(clips(spec, 2))
        state = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
        per_clip = sum(t.untyped_storage().nbytes() for p, t in kept.items() if p not in state and t.dim() > 1) // 2
        assert cost_of(spec).activation_bytes == per_clip


def names_to_count() -> list[object]:
    found = []
    for family in FAMILIES.values():
        names = [entry.name for entry in family.presets]
        quick = {*names[:NUM_PRESETS], *names[-NUM_PRESETS:]}
        found += [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]
    return found


@pytest.mark.parametrize("name", names_to_count())
def test_three_counts_of_a_named_network_agree(name):
    spec = preset(name, frames=FAMILIES[PRESETS[name].family].least_clip[0])
    assert spec.family == PRESETS[name].family
    assert_counts_agree(spec, training=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_three_counts_of_sampled_networks_agree(family):
    for spec in sampled(family):
        assert_counts_agree(spec, training=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_counts_agree_in_training_mode(family):
    differing = [s for s in sampled(family) if cost_of(s).train_macs != cost_of(s).macs]
    for spec in [*differing[:4], *sampled(family)[:2]]:
        assert_counts_agree(spec, training=True)


def assert_counts_agree(spec: ArchSpec, *, training: bool) -> None:
    found = cost_of(spec)
    with torch.device("meta"):
        network = build(spec, num_classes=NUM_CLASSES).train(training)
    # Two clips, because batch norm in training refuses one value a plane.
    shape = (2, 3, *clip_of(spec))
    expected = found.train_macs if training else found.macs
    assert count_flops(network, shape) == 2 * expected
    assert count_thop(network, shape) == 2 * expected
    assert sum(p.numel() for p in network.parameters()) == found.params


def names_to_export() -> list[object]:
    """All presets; those beside the first of each family as slow tests."""
    first = {family.presets[0].name for family in FAMILIES.values()}
    return [pytest.param(name, marks=() if name in first else pytest.mark.slow) for name in PRESETS]


@pytest.mark.parametrize("name", names_to_export())
def test_networks_are_exported_for_any_batch(name):
    """A graph without Python, as deployment tools take it, computes what the network computes, for any number of clips.

    Adaptive pools are none of what these tools can write, unless they leave one cell.
    """
    spec = narrow_preset(name)
    network = made(spec).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        graph = torch.export.export(network, (clips(spec, 2),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
        run = graph.module()
        for num in (1, 3):
            torch.testing.assert_close(run(clips(spec, num, seed=3)), network(clips(spec, num, seed=3)))
    for node in graph.graph.nodes:
        if "adaptive" in str(node.target):
            assert set(node.args[1]) == {1}, node


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_are_canonical_and_differ(family):
    specs = sampled(family)
    for spec in specs:
        assert spec.canonical() == spec
        assert decode(encode(spec)) == spec
    by_digest = {digest(spec): spec for spec in specs}
    assert len(by_digest) == len(set(specs)) == len({spec.describe() for spec in specs})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_domain_of_a_family_is_in_its_sample(family):
    assert {d.name for d in space_of(family).families[0].domains} == set(FAMILIES[family].domains.scopes)


def cost_of(spec: ArchSpec):
    frames, height, width = clip_of(spec)
    return cost(spec, frames=frames, height=height, width=width, num_classes=NUM_CLASSES)
