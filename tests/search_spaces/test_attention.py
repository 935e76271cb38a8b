"""Attention units compute what their papers say, begin near the identity where theirs do, and are counted."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.errors import SpecError
from search_spaces.modules import DotProductAttention, build, initialise
from search_spaces.operators import ATTENTIONS
from search_spaces.parts import Attend

KINDS = [kind for kind in ATTENTIONS if kind != "none"]


def clip(planes: int = 16, frames: int = 2, rows: int = 4, columns: int = 6) -> torch.Tensor:
    return torch.randn(3, planes, frames, rows, columns, generator=torch.Generator().manual_seed(1))


def made(unit: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    initialise(unit)
    return unit


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(2, 4, 6), (1, 1, 1), (3, 2, 5)])
def test_every_unit_keeps_the_shape(kind, size):
    x = clip(16, *size)
    unit = made(build(Attend(kind, 16)))
    assert unit(x).shape == x.shape


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind):
    unit = made(build(Attend(kind, 16))).train()
    unit(clip()).square().sum().backward()
    for name, parameter in unit.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_none_is_the_identity_and_another_name_is_refused():
    assert list(build(Attend("none", 8)).parameters()) == []
    x = clip(8)
    assert torch.equal(build(Attend("none", 8))(x), x)
    with pytest.raises(
        SpecError, match="attention must be one of its choices, but is non_local; did you mean nonlocal"
    ):
        build(Attend("non_local", 8))


def test_squeeze_excitation_scales_planes_by_two_layers_on_their_means():
    x, unit = clip(160), made(build(Attend("se", 160)))
    hidden = torch.relu(x.flatten(2).mean(2) @ unit.fc1.weight.T + unit.fc1.bias)
    scale = torch.sigmoid(hidden @ unit.fc2.weight.T + unit.fc2.bias)
    torch.testing.assert_close(unit(x), x * scale[:, :, None, None, None])
    assert unit.fc1.weight.shape == (10, 160)
    assert build(Attend("se", 32)).fc1.weight.shape == (8, 32)


def test_the_gate_is_a_matrix_without_bias():
    x, unit = clip(24), made(build(Attend("gate", 24)))
    scale = torch.sigmoid(x.flatten(2).mean(2) @ unit.fc.weight.T)
    torch.testing.assert_close(unit(x), x * scale[:, :, None, None, None])
    assert sum(p.numel() for p in unit.parameters()) == 24 * 24


@pytest.mark.parametrize(("size", "num_keys"), [((2, 4, 6), 2 * 2 * 3), ((2, 5, 7), 2 * 2 * 3), ((2, 3, 8), 2 * 3 * 8)])
def test_a_non_local_block_averages_all_positions_by_similarity(size, num_keys):
    x, unit = clip(16, *size), made(build(Attend("nonlocal", 16))).eval()
    torch.nn.init.normal_(unit.query.bias)
    kept: list[torch.Tensor] = []
    unit.lookup.register_forward_hook(lambda module, inputs, out: kept.append(inputs[1]))
    seen = torch.nn.functional.max_pool3d(x, (1, 2, 2)) if num_keys < x[0, 0].numel() else x
    query, key, value = (
        torch.einsum("oc,ncp->nop", layer.weight[:, :, 0, 0, 0], source.flatten(2))
        for layer, source in ((unit.query, x), (unit.key, seen), (unit.value, seen))
    )
    query = query + unit.query.bias[None, :, None]
    shares = torch.einsum("ncp,nck->npk", query, key).div(8**0.5).softmax(2)
    found = torch.einsum("npk,nck->ncp", shares, value)
    added = torch.einsum("oc,ncp->nop", unit.out.weight[:, :, 0, 0, 0], found).view_as(x)
    torch.testing.assert_close(unit(x), x + 0.1 * added / (1 + unit.norm.eps) ** 0.5)
    assert kept[0].flatten(2).shape == (3, 8, num_keys)


def test_the_bias_of_the_queries_is_the_only_one_that_matters():
    """Softmax takes off what is added to all keys, the norm what is added to all values or outputs."""
    x, unit = clip(), made(build(Attend("nonlocal", 16))).train()
    before = unit(x)
    torch.nn.init.normal_(unit.query.bias)
    assert not torch.allclose(unit(x), before, atol=1e-4)
    unit = made(build(Attend("nonlocal", 16))).train()
    for layer in (unit.key, unit.value, unit.out):
        layer.bias = nn.Parameter(torch.randn(layer.out_channels))
    torch.testing.assert_close(unit(x), before, rtol=1e-4, atol=1e-5)
    assert made(build(Attend("nonlocal_unbiased", 16))).query.bias is None


def test_a_non_local_block_begins_near_the_identity():
    x, unit = clip(), made(build(Attend("nonlocal", 16))).train()
    assert 0.02 < (unit(x) - x).std() < 0.15
    assert unit.norm.weight.unique().tolist() == pytest.approx([0.1])


def test_the_matrix_products_count_themselves_as_torch_does():
    tensors = [
        torch.empty(2, 8, 5, 2, 3, device="meta"),
        *(torch.empty(2, 8, 4, 1, 3, device="meta") for _ in range(2)),
    ]
    unit = DotProductAttention()
    with FlopCounterMode(display=False) as counter:
        out = unit(*tensors)
    assert unit.macs(*tensors, out=out) == counter.get_total_flops() // 2 == 2 * (2 * 30 * 12 * 8)
