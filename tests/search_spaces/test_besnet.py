"""BesNet: a temporal dilation for each layer and mini-batch, and evaluation by the mean of feature maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.cost.cost import cost
from search_spaces.catalogue import build, preset
from search_spaces.convolutions import RandomDilationConv3d
from search_spaces.families.resnet.blocks import Block
from search_spaces.families.resnet.units import BlockUnit
from search_spaces.graph import Maximum
from search_spaces.modules import build as build_unit
from search_spaces.operators import TemporalOp
from search_spaces.parts import NormConfig
from search_spaces.spec import ArchSpec

CLIP = (16, 32, 32)


def besnet(name: str = "besnet_50") -> ArchSpec:
    return preset(name).scaled(1 / 8)


def made(spec: ArchSpec) -> nn.Module:
    torch.manual_seed(0)
    return build(spec, num_classes=5)


def random_layers(network: nn.Module) -> list[RandomDilationConv3d]:
    return [layer for layer in network.modules() if isinstance(layer, RandomDilationConv3d)]


def drawn(network: nn.Module, clips: Tensor, seed: int) -> list[tuple[int, ...]]:
    """Dilations of every random layer in two training steps."""
    seen: dict[nn.Module, list[int]] = {}

    def note(layer: RandomDilationConv3d, inputs: tuple[Tensor], out: Tensor) -> None:
        for d in layer.dilations:
            each = F.conv3d(inputs[0], layer.weight, None, layer.stride, (d, 0, 0), (d, 1, 1))
            if torch.allclose(each, out, atol=1e-6):
                seen.setdefault(layer, []).append(d)
                return
        raise AssertionError("no single dilation gives this output")

    hooks = [layer.register_forward_hook(note) for layer in random_layers(network)]
    torch.manual_seed(seed)
    with torch.no_grad():
        network.train()(clips)
        network(clips)
    for hook in hooks:
        hook.remove()
    return [tuple(found) for found in seen.values()]


@pytest.mark.parametrize(("reading", "layers"), [("_first", 16), ("", 32), ("_all", 36)])
def test_a_reading_says_which_1x1_convolutions_have_time(reading, layers):
    network = made(besnet(f"besnet_50{reading}"))
    assert len(random_layers(network)) == layers
    assert {layer.dilations for layer in random_layers(network)} == {(1, 2, 3)}
    assert {layer.kernel_size for layer in random_layers(network)} == {(3, 1, 1)}
    assert any(isinstance(node.layer, Maximum) for node in network.head.graph.nodes)
    time = sum(layer.kernel_size[0] > 1 for layer in network.modules() if isinstance(layer, nn.Conv3d))
    assert time == layers


@pytest.mark.parametrize("dilation", [1, 2])
def test_with_one_dilation_training_and_evaluation_are_the_fixed_network(dilation):
    fixed = made(besnet(f"besnet_50_dilation{dilation}"))
    assert not random_layers(fixed)
    time = [layer for layer in fixed.modules() if isinstance(layer, nn.Conv3d) and layer.kernel_size[0] == 3]
    assert {(layer.dilation[0], layer.padding[0]) for layer in time} == {(dilation, dilation)} and len(time) == 32
    # A set of one, made by hand, is the fixed layer.
    single = RandomDilationConv3d(4, 6, (3, 1, 1), stride=(1, 1, 1), padding=(1, 0, 0), dilations=(dilation,))
    x = torch.randn(2, 4, 8, 3, 3)
    expected = F.conv3d(x, single.weight, padding=(dilation, 0, 0), dilation=(dilation, 1, 1))
    for mode in (True, False):
        torch.testing.assert_close(single.train(mode)(x), expected)
    # With norms that take the same statistics in both modes, both modes are one network; with a set, they are not.
    clips = torch.randn(2, 3, *CLIP, generator=torch.Generator().manual_seed(1))
    for network, same in ((fixed, True), (made(besnet()), False)):
        with torch.no_grad():
            evaluation = network.eval()(clips)
            network.train()
            for layer in network.modules():
                if isinstance(layer, nn.BatchNorm3d):
                    layer.eval()
            assert torch.equal(network(clips), evaluation) is same


def test_evaluation_is_the_mean_of_feature_maps_layer_by_layer():
    network = made(besnet("besnet_50_all"))
    clips = torch.randn(2, 3, *CLIP, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        network.train()(clips)  # statistics that are not the identity
        found = network.eval()(clips)
    checked = []

    def mean(layer: RandomDilationConv3d, inputs: tuple[Tensor], out: Tensor) -> Tensor:
        each = [F.conv3d(inputs[0], layer.weight, None, layer.stride, (d, 0, 0), (d, 1, 1)) for d in (1, 2, 3)]
        expected = torch.stack(each).mean(0)
        torch.testing.assert_close(out, expected)
        checked.append(not torch.allclose(each[0], each[1], atol=1e-3))
        return expected

    for layer in random_layers(network):
        layer.register_forward_hook(mean)
    with torch.no_grad():
        torch.testing.assert_close(network(clips), found)
        assert torch.equal(network(clips), network(clips))
    assert all(checked) and len(checked) == 3 * 36


def test_the_draw_differs_between_layers_and_batches_and_follows_the_seed():
    network = made(besnet())
    clips = torch.randn(2, 3, *CLIP, generator=torch.Generator().manual_seed(1))
    first = drawn(network, clips, seed=3)
    assert len(first) == 32
    one, two = zip(*first, strict=True)
    assert set(one) == set(two) == {1, 2, 3}  # layers of one batch differ
    assert one != two  # batches differ
    assert drawn(network, clips, seed=3) == first
    assert drawn(network, clips, seed=4) != first


def test_the_draw_is_uniform():
    layer = RandomDilationConv3d(1, 1, (3, 1, 1), stride=(1, 1, 1), padding=(1, 0, 0), dilations=(1, 2, 3)).train()
    x = torch.zeros(1, 1, 7, 1, 1)
    x[:, :, 3] = 1
    torch.manual_seed(0)
    with torch.no_grad():
        reach = [int(layer(x).flatten().nonzero().flatten()[0]) for _ in range(600)]
    # 600 draws of one in three have a deviation of 11.5.
    assert all(abs(reach.count(3 - d) - 200) < 50 for d in (1, 2, 3))


@pytest.mark.parametrize("reading", ["_first", "", "_all"])
def test_training_costs_one_dilation_and_evaluation_all(reading):
    fixed, drawn_from = (
        cost(besnet(f"besnet_50{reading}{suffix}"), frames=16, height=32, width=32, num_classes=5)
        for suffix in ("_dilation2", "")
    )
    network = made(besnet(f"besnet_50{reading}")).eval()
    macs = 0

    def count(layer: nn.Conv3d, inputs: tuple[Tensor], out: Tensor) -> None:
        nonlocal macs
        macs += out.numel() * layer.weight[0].numel()

    for layer in random_layers(network):
        layer.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 3, *CLIP))
    assert drawn_from.train_macs == fixed.macs == fixed.train_macs
    assert drawn_from.macs == fixed.macs + 2 * macs
    assert drawn_from.params == fixed.params


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_relus_come_before_norms_and_none_follows_the_sum(kind):
    """ "ReLU activation followed by a Batch-Normalization for each layer", as the report has it."""
    op = TemporalOp(kind="3d") if kind == "basic" else TemporalOp(kind="t1x1_both")
    block = Block(kind=kind, width=4, spatial_stride=1, temporal_stride=1, temporal=op)
    module = build_unit(BlockUnit(block, 3, NormConfig(relu_first=True))).eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm3d):
            nn.init.uniform_(layer.running_mean, 0, 0.5)
            nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 4, 6, 6)
    found = x
    for unit in (module.conv1, module.conv2, *([module.conv3] if kind == "bottleneck" else [])):
        found = unit.norm(unit.conv(found).relu())
    expected = found + module.shortcut.norm(module.shortcut.conv(x))
    assert expected.min() < 0
    torch.testing.assert_close(module(x), expected)
    assert preset("besnet_50_relu_first").relu_first
    assert preset("besnet_50_relu_first").twin() == ()
