"""Fresh networks begin as their authors' do: last norms of residual branches, squeeze-excitation, norms' settings."""

from __future__ import annotations

import math

import pytest
import torch
from timm.models.resnet import BasicBlock
from torch import nn

from search_spaces.catalogue import PRESETS, build, preset
from search_spaces.errors import SpecError
from search_spaces.settings import network_of

NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)


def fresh(name: str, **how: bool | None) -> nn.Module:
    torch.manual_seed(0)
    return build(preset(name), num_classes=5, **how)


def at_zero(network: nn.Module) -> int:
    return sum(bool((layer.weight == 0).all()) for layer in network.modules() if isinstance(layer, NORMS))


# One for each residual branch: those of both pathways, and the five of non-local blocks.
@pytest.mark.parametrize(
    ("name", "published", "branches"),
    [
        ("slowfast_8x8_r50", 32, 32),
        ("x3d_s", 26, 26),
        ("i3d_nln_r50", 21, 21),
        ("slow_r50_8x8", 16, 16),
        ("c2d_r50", 16, 16),
        ("r2plus1d_r50", 16, 16),
        ("r3d_18", 0, 8),
        ("r2plus1d_18", 0, 8),
        ("csn_r50", 0, 16),
        ("p3d_50", 0, 16),
        ("tsn_r18", 0, 8),
        ("i3d", 0, 0),
    ],
)
def test_residual_branches_begin_at_zero_as_published_or_as_asked(name: str, published: int, branches: int) -> None:
    assert at_zero(fresh(name)) == published
    assert at_zero(fresh(name, zero_init=True)) == branches
    assert at_zero(fresh(name, zero_init=False)) == 0


@pytest.mark.parametrize(("kind", "norms"), [("p3d_a", 8), ("p3d_b", 16), ("p3d_c", 16), ("3d", 8), ("2plus1d", 8)])
def test_a_branch_at_zero_adds_nothing(kind: str, norms: int) -> None:
    """At the end of a basic block, P3D-B and C have two norms whose outputs are added."""
    torch.manual_seed(0)
    network = build(
        network_of("resnet", {"depth": 18, "stem_width": 8, "kind": kind, "zero_init": True}), num_classes=5
    )
    assert at_zero(network) == norms
    block = network.get_submodule("stages.0.0")
    x = torch.randn(2, 8, 4, 6, 6).relu()
    torch.testing.assert_close(block(x), x, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["p3d_a", "p3d_c"])
def test_timms_basic_blocks_begin_at_zero_with_time_in_them_too(kind: str) -> None:
    spec = network_of("timm", {"model": "resnet18", "kind": kind})
    torch.manual_seed(0)
    network = build(spec, num_classes=5, zero_init=True)
    blocks = [module for module in network.modules() if isinstance(module, BasicBlock)]
    assert len(blocks) == 8
    for block in blocks:
        assert (block.get_submodule("conv2.temporal.norm").get_parameter("weight") == 0).all()
        assert (block.get_submodule("conv1.temporal.norm").get_parameter("weight") == 1).all()
    assert at_zero(network) == (8 if kind == "p3d_a" else 16)


def test_squeeze_excitation_of_x3d_is_drawn_as_the_authors_do() -> None:
    """By fan-out (MSRA), as convolutions; not by 0.01, as classifiers. Biases at 0."""
    units = [unit for name, unit in fresh("x3d_l").named_modules() if name.endswith(".gate")]
    assert len(units) > 20
    for unit in units:
        for layer in (unit.fc1, unit.fc2):
            assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 / len(layer.weight)), rel=0.25)
            assert (layer.bias == 0).all()
    classifier = fresh("x3d_s").get_submodule("head.fc").weight
    assert float(classifier.detach().std()) == pytest.approx(0.01, rel=0.05)


VMZ = [
    name
    for name, entry in PRESETS.items()
    if name.startswith(("r2d_", "f_r2d_", "mc", "rmc", "r3d_", "r2plus1d_", "csn_r"))
    and not name.endswith(("_torchvision", "_pytorchvideo"))
    and name not in ("r3d_18", "mc3_18", "r2plus1d_r50")
]


@pytest.mark.parametrize("name", [*VMZ, "r3d_18", "mc3_18", "r2plus1d_18_torchvision", "csn_r101_pytorchvideo"])
def test_norms_have_the_eps_of_the_release(name: str) -> None:
    """1e-3 in all of VMZ; torchvision and pytorchvideo have torch's 1e-5."""
    with torch.device("meta"):
        network = build(preset(name), num_classes=5)
    found = {(layer.eps, layer.momentum) for layer in network.modules() if isinstance(layer, nn.BatchNorm3d)}
    assert found == {(1e-3 if name in VMZ else 1e-5, 0.1)}
    assert len(VMZ) == 27


def test_settings_of_norms_reach_every_norm() -> None:
    settings = {"depth": "1-1", "stem": "r2plus1d", "norm_eps": 1e-2, "norm_momentum": 0.25, "stem_width": 8}
    for kind in ("2d", "3d", "2plus1d", "p3d_a", "p3d_b", "p3d_c"):
        network = build(network_of("resnet", {**settings, "kind": kind}), num_classes=5)
        found = {(layer.eps, layer.momentum) for layer in network.modules() if isinstance(layer, nn.BatchNorm3d)}
        assert found == {(1e-2, 0.25)}
    for name in ("norm_eps", "norm_momentum"):
        with pytest.raises(SpecError, match=f"{name} must be a number above 0 and at most 1, but is 0"):
            network_of("resnet", {name: 0})
