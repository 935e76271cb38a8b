"""What every network must do: each preset and samples of each family's widest space are held to it.

A new preset is picked up by itself; a new family needs one line in SPACES, which a test asks for.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch.nn import functional as F

from nas.cost import cost, count_flops, count_thop
from search_spaces.catalogue import FAMILIES, build, units
from search_spaces.codec import decode, encode
from search_spaces.presets import PRESETS, preset
from search_spaces.spec import ArchSpec, Stage, canonicalise
from tests.search_spaces.strategies import wide_space

SPACES = {"resnet": wide_space}
CLIP = (8, 32, 32)
NUM_CLASSES = 7
NUM_COUNTED = 200
NUM_RUN = 12


def narrow(spec: ArchSpec) -> ArchSpec:
    """The same network an eighth as wide, so that running it takes no time."""
    return replace(
        spec,
        stem=replace(spec.stem, width=spec.stem.width // 8),
        stages=tuple(
            Stage(blocks=tuple(replace(b, width=b.width // 8) for b in stage.blocks)) for stage in spec.stages
        ),
    )


@cache
def sampled(family: str) -> list[ArchSpec]:
    space, rng = SPACES[family](), random.Random(0)
    return [space.random(rng).spec for _ in range(NUM_COUNTED)]


def networks_to_run() -> list[object]:
    named = [pytest.param(lambda n=n: narrow(preset(n, frames=CLIP[0])), id=n) for n in PRESETS]
    drawn = [pytest.param(lambda f=f, i=i: sampled(f)[i], id=f"{f}-{i}") for f in SPACES for i in range(NUM_RUN)]
    return [*named, *drawn]


def clips(num: int, seed: int = 1) -> torch.Tensor:
    return torch.randn((num, 3, *CLIP), generator=torch.Generator().manual_seed(seed))


def made(spec: ArchSpec, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build(spec, num_classes=NUM_CLASSES)


def test_every_family_has_a_space_here():
    assert set(SPACES) == set(FAMILIES)
    assert {PRESETS[name].family for name in PRESETS} <= set(FAMILIES)


@pytest.mark.parametrize("make", networks_to_run())
class TestNetwork:
    def test_every_parameter_gets_a_finite_gradient(self, make):
        network = made(make()).train()
        logits = network(clips(3))
        assert logits.shape == (3, NUM_CLASSES)
        assert torch.isfinite(logits).all()
        F.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 0, name

    def test_a_clip_in_evaluation_does_not_see_its_batch(self, make):
        network = made(make()).eval()
        with torch.no_grad():
            together = network(clips(3))
            alone = torch.cat([network(clip[None]) for clip in clips(3)])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
        assert together.std(dim=0).min() > 0

    def test_weights_survive_a_round_trip(self, make):
        spec = make()
        first, second = made(spec, seed=0).eval(), made(decode(encode(spec)), seed=1).eval()
        with torch.no_grad():
            before = first(clips(1))
            assert not torch.equal(second(clips(1)), before)
            second.load_state_dict(first.state_dict())
            assert torch.equal(second(clips(1)), before)

    def test_the_seed_decides_the_weights(self, make):
        spec = make()
        first, second = made(spec), made(spec)
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))

    def test_the_chain_of_units_is_the_network(self, make):
        spec = make()
        with torch.device("meta"):
            whole = build(spec, num_classes=NUM_CLASSES)
            links = [unit.build() for unit in units(spec, num_classes=NUM_CLASSES)]
        shapes = [p.shape for link in links for p in link.parameters()]
        assert shapes == [p.shape for p in whole.parameters()]


@pytest.mark.parametrize("name", PRESETS)
def test_three_counts_of_a_named_network_agree(name):
    spec = preset(name, frames=CLIP[0])
    assert_counts_agree(spec, training=False)


@pytest.mark.parametrize("family", SPACES)
def test_three_counts_of_sampled_networks_agree(family):
    for spec in sampled(family):
        assert_counts_agree(spec, training=False)


@pytest.mark.parametrize("family", SPACES)
def test_counts_agree_in_training_mode(family):
    random_dilations = [s for s in sampled(family) if any(len(op.dilation) > 1 for op in operators(s))]
    for spec in random_dilations[:12]:
        assert_counts_agree(spec, training=True)
        found = cost_of(spec)
        assert found.train_macs < found.macs


def assert_counts_agree(spec: ArchSpec, *, training: bool) -> None:
    found = cost_of(spec)
    with torch.device("meta"):
        network = build(spec, num_classes=NUM_CLASSES).train(training)
    # Two clips, because batch norm in training refuses one value a plane.
    shape, expected = (2, 3, *CLIP), found.train_macs if training else found.macs
    assert count_flops(network, shape) == 2 * expected
    assert count_thop(network, shape) == 2 * expected
    assert sum(p.numel() for p in network.parameters()) == found.params


@pytest.mark.parametrize("make", networks_to_run())
def test_activation_bytes_are_what_real_tensors_keep(make):
    spec = make()
    network = made(spec).train()
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        network(clips(2))
    state = {t.untyped_storage().data_ptr() for t in (*network.parameters(), *network.buffers())}
    per_clip = sum(t.untyped_storage().nbytes() for p, t in kept.items() if p not in state and t.dim() > 1) // 2
    assert cost_of(spec).activation_bytes == per_clip


def test_samples_are_canonical_and_of_many_kinds():
    specs = sampled("resnet")
    assert all(canonicalise(spec) == spec for spec in specs)
    assert len(set(specs)) > 0.98 * len(specs)
    assert {op.kind for spec in specs for op in operators(spec)} == {"2d", "3d", "2plus1d", "p3d_a", "p3d_b", "p3d_c"}


def operators(spec: ArchSpec):
    return [block.temporal for _, _, _, block in spec.walk()]


def cost_of(spec: ArchSpec):
    return cost(spec, frames=CLIP[0], height=CLIP[1], width=CLIP[2], num_classes=NUM_CLASSES)
