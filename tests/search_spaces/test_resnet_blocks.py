"""What the parts of residual networks compute, against torch's functions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import get_model, resnet18, resnet50

from nas.cost.cost import cost
from search_spaces.catalogue import PRESETS, build, preset
from search_spaces.errors import SpecError
from search_spaces.families.resnet.blocks import Block, block_midplanes, canonical_block
from search_spaces.families.resnet.make import Extras, make_resnet, make_stem
from search_spaces.families.resnet.units import BlockUnit, StemUnit
from search_spaces.modules import build as build_unit
from search_spaces.operators import FLAT, TemporalOp
from search_spaces.parts import Attend, Head
from search_spaces.settings import network_of
from tests.search_spaces.graphs import outputs, unit_of

Triple = tuple[int, int, int]


def randomised(module: nn.Module) -> nn.Module:
    """The module in evaluation, its norms far from the identity."""
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm3d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    return module.eval()


def norm(layer: nn.BatchNorm3d, x: Tensor) -> Tensor:
    return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias, eps=layer.eps)


def convolved(unit: nn.Module, x: Tensor, *, kernel: Triple, stride: Triple = (1, 1, 1), dilation: int = 1) -> Tensor:
    """The unit's convolution and norm, with a kernel of the given size and padding that keeps sizes."""
    weight = unit.conv.weight
    assert weight.shape[2:] == kernel
    padding = (dilation * (kernel[0] // 2), kernel[1] // 2, kernel[2] // 2)
    groups = x.shape[1] // weight.shape[1]
    out = F.conv3d(x, weight, stride=stride, padding=padding, dilation=(dilation, 1, 1), groups=groups)
    return norm(unit.norm, out)


def bottleneck(x: Tensor, module: nn.Module, times: Triple, first: Triple, middle: Triple, dilation: int) -> Tensor:
    """A bottleneck whose 1x1x1 convolutions (first, last, shortcut's) have kernels over so many frames."""
    both = tuple(a * b for a, b in zip(first, middle, strict=True))
    kernels = [(k, 1, 1) for k in times]
    y = F.relu(convolved(module.conv1, x, kernel=kernels[0], stride=first, dilation=dilation if times[0] > 1 else 1))
    y = F.relu(convolved(module.conv2, y, kernel=(1, 3, 3), stride=middle))
    y = convolved(module.conv3, y, kernel=kernels[1], dilation=dilation if times[1] > 1 else 1)
    shortcut = convolved(module.shortcut, x, kernel=kernels[2], stride=both, dilation=dilation if times[2] > 1 else 1)
    return F.relu(y + shortcut)


@pytest.mark.parametrize("stride_on", ["3x3", "1x1"])
@pytest.mark.parametrize(
    ("op", "times"),
    [
        (TemporalOp(kind="2d"), (1, 1, 1)),
        (TemporalOp(kind="t1x1_first"), (3, 1, 1)),
        (TemporalOp(kind="t1x1_both", kernel=5), (5, 5, 1)),
        (TemporalOp(kind="t1x1_all", dilation=(2,)), (3, 3, 3)),
    ],
)
def test_a_bottleneck_has_its_strides_and_its_time_where_it_says(op, times, stride_on):
    block = Block(kind="bottleneck", width=6, spatial_stride=2, temporal_stride=2, temporal=op, stride_on=stride_on)
    module = randomised(build_unit(BlockUnit(block, 8)))
    x = torch.randn(2, 8, 7, 9, 9)
    first, middle = ((2, 2, 2), (1, 1, 1)) if stride_on == "1x1" else ((1, 1, 1), (2, 2, 2))
    expected = bottleneck(x, module, times, first, middle, op.dilation[0])
    assert expected.shape == (2, 24, 4, 5, 5)
    torch.testing.assert_close(module(x), expected)


def test_a_channel_separated_block_mixes_planes_in_its_1x1_convolutions_alone():
    op = TemporalOp(kind="csn", kernel=5)
    unit = randomised(unit_of(op, 4, 4, act=False))
    x = torch.randn(2, 4, 7, 6, 6)
    torch.testing.assert_close(unit(x), convolved(unit, x, kernel=(5, 3, 3)))
    weight = unit.conv.weight
    assert weight.shape == (4, 1, 5, 3, 3)
    moved = x.clone()
    moved[:, 1] += 1
    changed = (unit(moved) - unit(x)).abs().amax((0, 2, 3, 4)) > 1e-6
    assert changed.tolist() == [False, True, False, False]
    with pytest.raises(SpecError, match="csn must keep the number of planes, but is asked for 4 to 6"):
        unit_of(op, 4, 6)


def test_an_interaction_preserving_unit_mixes_planes_without_a_relu_before_the_separated_convolution():
    """1x1x1, norm, depthwise kx3x3, norm, ReLU, as in VMZ."""
    unit = randomised(unit_of(TemporalOp(kind="csn_ip", kernel=5), 4, 4, spatial_stride=2))
    x, inner = torch.randn(2, 4, 7, 6, 6), unit.conv
    mixed = inner.norm(torch.einsum("oc,ncthw->nothw", inner.mix.weight[:, :, 0, 0, 0], x))
    assert mixed.min() < 0
    found = F.conv3d(mixed, inner.conv.weight, stride=(1, 2, 2), padding=(2, 1, 1), groups=4)
    torch.testing.assert_close(unit(x), unit.norm(found).relu())
    with pytest.raises(SpecError, match="csn_ip must keep the number of planes, but is asked for 4 to 6"):
        unit_of(TemporalOp(kind="csn_ip"), 4, 6)


@pytest.mark.parametrize("frames", [1, 2])
def test_a_shortcut_without_a_convolution_takes_every_second_place_and_pads_planes_with_zeros(frames):
    """Type A of He et al. 2016, as Hara et al. 2018 have it in their networks of 18 and 34 layers."""
    op = TemporalOp(kind="3d")
    block = Block(kind="basic", width=8, spatial_stride=2, temporal_stride=frames, temporal=op, shortcut="pad")
    module = randomised(build_unit(BlockUnit(block, 4)))
    assert not hasattr(module, "shortcut")
    x = torch.randn(2, 4, 5, 7, 7)
    branch = outputs(module, x)["conv2.norm"]
    expected = torch.zeros_like(branch)
    expected[:, :4] = x[:, :, ::frames, ::2, ::2]
    torch.testing.assert_close(module(x), (branch + expected).relu())


def test_a_shortcut_is_padded_only_where_there_was_a_convolution():
    op = TemporalOp(kind="t1x1_all")
    block = Block(kind="bottleneck", width=8, spatial_stride=1, temporal_stride=1, temporal=op, shortcut="pad")
    assert canonical_block(block, 32).shortcut == "conv"
    assert canonical_block(block, 16).shortcut == "pad"
    assert canonical_block(block, 16).temporal.kind == "t1x1_both"
    spec = network_of("resnet", {"depth": 18, "shortcut": "pad"})
    assert [block.shortcut for _, _, _, block in spec.walk()] == ["conv", "conv", *["pad", "conv"] * 3]
    taken = sum(planes * 2 * planes + 2 * 2 * planes for planes in (64, 128, 256))
    of_both = [
        cost(one, frames=8, height=32, width=32, num_classes=5).params for one in (network_of("resnet", {}), spec)
    ]
    assert of_both[0] - of_both[1] == taken
    assert not any("downsample" in twin.conv for twin in spec.twin())


@pytest.mark.parametrize("time_first", [False, True])
def test_the_convolutions_of_2plus1d_stand_in_their_order(time_first):
    unit = randomised(unit_of(TemporalOp(kind="2plus1d", time_first=time_first), 4, 6, midplanes=5, temporal_stride=2))
    x = torch.randn(2, 4, 7, 6, 6)
    spatial, temporal = unit.conv.spatial.weight, unit.conv.temporal.weight
    if time_first:
        assert (spatial.shape, temporal.shape) == ((6, 5, 1, 3, 3), (5, 4, 3, 1, 1))
        between = F.relu(norm(unit.conv.norm, F.conv3d(x, temporal, stride=(2, 1, 1), padding=(1, 0, 0))))
        out = F.conv3d(between, spatial, padding=(0, 1, 1))
    else:
        assert (spatial.shape, temporal.shape) == ((5, 4, 1, 3, 3), (6, 5, 3, 1, 1))
        between = F.relu(norm(unit.conv.norm, F.conv3d(x, spatial, padding=(0, 1, 1))))
        out = F.conv3d(between, temporal, stride=(2, 1, 1), padding=(1, 0, 0))
    torch.testing.assert_close(unit(x), F.relu(norm(unit.norm, out)))


@pytest.mark.parametrize(
    ("kind", "midplanes", "time_first", "expected"),
    [
        # 64 planes in, width 128, 27 weights: 27 * 64 * 128 / (9 * 64 + 3 * 128) = 230.4, and from 128 planes 288.
        ("basic", "per_conv", False, (230, 288)),
        ("basic", "shared", False, (230, 230)),
        ("basic", "equal", False, (128, 128)),
        # 27 * 64 * 128 / (3 * 64 + 9 * 128) = 164.6
        ("basic", "per_conv", True, (164, 288)),
        ("bottleneck", "per_conv", False, (288,)),
        ("bottleneck", "shared", False, (230,)),
        ("bottleneck", "shared", True, (164,)),
        ("bottleneck", "equal", True, (128,)),
    ],
)
def test_midplanes_by_convention(kind, midplanes, time_first, expected):
    op = TemporalOp(kind="2plus1d", midplanes=midplanes, time_first=time_first)
    block = Block(kind=kind, width=128, spatial_stride=1, temporal_stride=1, temporal=op)
    assert block_midplanes(block, 64) == expected


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_squeeze_and_gate_act_before_the_sum_and_a_non_local_block_behind(kind):
    x = torch.randn(2, 8, 4, 6, 6)
    for attention in ("se", "gate", "nonlocal"):
        block = Block(kind=kind, width=8, spatial_stride=1, temporal_stride=1, temporal=FLAT, attention=attention)
        module = randomised(build_unit(BlockUnit(block, 8)))
        with torch.no_grad():
            found = outputs(module, x)
            branch = found["conv2.norm" if kind == "basic" else "conv3.norm"]
            shortcut = found["shortcut.norm"] if kind == "bottleneck" else x
            alone = build_unit(Attend(attention, planes := branch.shape[1])).eval()
            alone.load_state_dict((module.last if attention == "nonlocal" else module.gate).state_dict())
            assert planes == (8 if kind == "basic" else 32)
            if attention == "nonlocal":
                before = F.relu(branch + shortcut)
                expected = alone(before)
                assert not torch.allclose(expected, before)
            else:
                assert not torch.allclose(alone(branch), branch)
                expected = F.relu(alone(branch) + shortcut)
            torch.testing.assert_close(found[""], expected)


@pytest.mark.parametrize("frames", [1, 2])
def test_a_stem_pools_space_and_as_many_frames_as_it_says(frames):
    stem = make_stem(f"3x5x5/2+max{'' if frames == 1 else frames}", width=6)
    module = randomised(build_unit(StemUnit(stem)))
    x = torch.randn(2, 3, 8, 18, 18)
    conv = F.relu(norm(module.norm, F.conv3d(x, module.conv.weight, stride=(1, 2, 2), padding=(1, 2, 2))))
    pooled = F.max_pool3d(conv, (frames, 3, 3), stride=(frames, 2, 2), padding=(0, 1, 1))
    assert pooled.shape == (2, 6, 8 // frames, 5, 5)
    torch.testing.assert_close(module(x), pooled)


def small(pools: tuple[int, ...] = (1, 1), head: str = "avg") -> nn.Module:
    spec = make_resnet(
        counts=(1, 1),
        widths=(8, 16),
        stem=make_stem("1x3x3/1", width=8),
        op_at=lambda s, b, i: FLAT,
        extras=Extras(pools=pools, head=head),
    )
    torch.manual_seed(0)
    return randomised(build(spec, num_classes=5))


@pytest.mark.parametrize(("frames", "left"), [(8, (4, 2)), (7, (4, 2)), (2, (1, 1)), (1, (1, 1))])
def test_frames_are_pooled_behind_a_stage_and_none_is_dropped(frames, left):
    network, plain = small(pools=(2, 2)), small()
    x = torch.randn(2, 3, frames, 8, 8)
    first, second = (plain.get_submodule(f"stages.{s}.0") for s in (0, 1))

    def pool(y: Tensor) -> Tensor:
        return torch.stack([part.amax(2) for part in y.split(2, dim=2)], dim=2)

    after = pool(first(plain.stem(x)))
    last = pool(second(after))
    assert (after.shape[2], last.shape[2]) == left
    torch.testing.assert_close(network(x), plain.head(last))


def test_the_head_of_besnet_averages_space_and_takes_the_maximum_over_time():
    head = build_unit(Head(in_planes=6, num_classes=5, pool="avg_max"))
    x = torch.randn(2, 6, 4, 3, 3)
    features = torch.stack([x[:, :, t].mean((2, 3)) for t in range(4)]).max(dim=0).values
    torch.testing.assert_close(head(x), head.fc(features))
    assert not torch.allclose(head(x), head.fc(x.mean((2, 3, 4))))
    ones = torch.ones(1, 16, 3, 2, 2)
    torch.testing.assert_close(small(head="avg_max").head(ones), small().head(ones))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("resnet18", resnet18),
        ("r3d_18", resnet18),
        ("p3d_50", resnet50),
        ("slow_r50_8x8", resnet50),
        ("csn_r50", resnet50),
    ],
)
def test_a_network_names_every_layer_of_its_2d_twin(ours, theirs):
    with torch.device("meta"):
        state = theirs().state_dict()
        network = build(preset(ours), num_classes=1000)
    named = set()
    for twin in preset(ours).twin():
        assert network.get_submodule(twin.path) is not None
        for prefix in filter(None, (twin.conv, twin.norm)):
            inside = {key for key in state if key.startswith(f"{prefix}.")}
            assert inside and not inside & named
            named |= inside
    assert named == set(state)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_the_twin_of_a_network_of_images_has_its_shapes(depth):
    with torch.device("meta"):
        state = get_model(f"resnet{depth}").state_dict()
        network = build(preset(f"resnet{depth}"), num_classes=1000)
    for twin in preset(f"resnet{depth}").twin():
        mine = network.get_submodule(twin.path)
        weight = mine.weight if isinstance(mine, nn.Linear) else mine.conv.weight.squeeze(2)
        assert weight.shape == state[f"{twin.conv}.weight"].shape
        if twin.norm:
            assert mine.norm.weight.shape == state[f"{twin.norm}.weight"].shape


def test_a_stride_over_frames_alone_has_no_twin():
    spec = make_resnet(
        counts=(1, 1),
        widths=(64, 128),
        stem=make_stem("1x7x7/2+max"),
        op_at=lambda s, b, i: FLAT,
        strides=lambda groups: (2, 1),
    )
    paths = {twin.path for twin in spec.twin()}
    assert "stages.0.0.shortcut" not in paths and "stages.1.0.shortcut" in paths


def test_every_preset_of_images_sees_each_frame_by_itself():
    clips = torch.randn(2, 3, 3, 32, 32)
    spec = PRESETS["resnet50"].make(3).scaled(1 / 8)
    network = randomised(build(spec, num_classes=5))
    with torch.no_grad():
        each = torch.stack([network(clips[:, :, t : t + 1]) for t in range(3)])
        torch.testing.assert_close(network(clips), each.mean(0))
