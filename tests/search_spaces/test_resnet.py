from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from nas.cost.cost import cost
from search_spaces.catalogue import build, preset
from search_spaces.convolutions import RandomDilationConv3d
from search_spaces.errors import SpecError
from search_spaces.families.resnet.blocks import Block, Stage, Stem
from search_spaces.families.resnet.make import (
    depth_blocks,
    make_resnet,
    make_stem,
    place,
    temporal_strides,
    time_pools,
)
from search_spaces.families.resnet.spec import ResNetSpec
from search_spaces.families.resnet.units import StemUnit
from search_spaces.modules import Block as Module
from search_spaces.modules import build as build_unit
from search_spaces.operators import KINDS, TemporalOp, midplanes
from search_spaces.spec import scale
from tests.search_spaces.graphs import outputs, unit_of

COUNTS = (2, 2, 2, 2)


@pytest.mark.parametrize(
    ("label", "blocks", "stem"),
    [
        ("all", range(8), True),
        ("none", (), False),
        ("mc2", (), True),
        ("mc3", (0, 1), True),
        ("mc5", range(6), True),
        ("rmc2", range(8), False),
        ("rmc5", (6, 7), False),
        ("top_heavy:6", (6, 7), False),
        ("bottom_heavy:3", (0, 1, 2), True),
        ("0,4", (0, 4), False),
        ("stem,0,4", (0, 4), True),
        ("stem", (), True),
    ],
)
def test_placement_says_which_blocks_and_whether_the_stem(label, blocks, stem):
    found = place(label, COUNTS)
    assert found.blocks == frozenset(blocks)
    assert found.stem is stem


@pytest.mark.parametrize("label", ["mc6", "top_heavy:9", "8", "top_heavy", "", "0,,1", "first"])
def test_a_placement_that_does_not_fit_is_refused(label):
    with pytest.raises(SpecError, match="placement"):
        place(label, COUNTS)


def test_temporal_strides_follow_the_groups_that_have_time():
    assert temporal_strides("as_paper", [True, True, False, True]) == (1, 2, 1, 2)
    assert temporal_strides("none", [True] * 3) == (1, 1, 1)
    assert temporal_strides("1-1-2-2", [False] * 4) == (1, 1, 2, 2)
    with pytest.raises(SpecError, match="must have 3 strides"):
        temporal_strides("1-1-2-2", [True] * 3)


def test_an_operator_that_is_2d_after_all_has_no_stride_of_the_papers():
    for op, strides in (
        (TemporalOp(kind="3d", kernel=1), [1, 1]),
        (TemporalOp(kind="3d"), [1, 2]),
        (TemporalOp(kind="p3d_a", kernel=1), [1, 2]),
    ):
        spec = make_resnet(
            counts=(1, 1),
            widths=(8, 16),
            stem=make_stem("3x3x3/1", width=8),
            op_at=lambda s, b, i, op=op: op,
            strides=partial(temporal_strides, "as_paper"),
        )
        assert [stage.blocks[0].temporal_stride for stage in spec.stages] == strides


def test_pools_of_frames_follow_their_label():
    assert time_pools("none", 3) == (1, 1, 1)
    assert time_pools("2-2-1", 3) == (2, 2, 1)
    for label in ("2-2", "2-0-1", "2"):
        with pytest.raises(SpecError, match="must be none or have 3 pools"):
            time_pools(label, 3)


def test_depths_say_which_blocks():
    assert depth_blocks(152) == ("bottleneck", (3, 8, 36, 3))
    assert depth_blocks("1-2") == ("basic", (1, 2))
    assert depth_blocks("b1-2-1") == ("bottleneck", (1, 2, 1))
    for depth in ("b3", "c1-2", "1-0", 51, 18.0, True):
        with pytest.raises(SpecError, match="depth must be one of 10, 18"):
            depth_blocks(depth)


@pytest.mark.parametrize(
    ("width", "multiplier", "scaled"),
    [(64, 0.25, 16), (64, 0.1, 8), (48, 0.75, 40), (64, 0.3, 16), (20, 1.0, 20), (64, 1.5, 96)],
)
def test_multiplied_widths_are_multiples_of_eight(width, multiplier, scaled):
    assert scale(width, multiplier) == scaled


def test_stems_by_name():
    assert make_stem("1x5x5/2", width=16) == Stem(width=16, temporal_kernel=1, spatial_kernel=5, spatial_stride=2)
    assert make_stem("3x7x7") == make_stem("3x7x7/2")
    assert make_stem("3x7x7", temporal=False) == make_stem("1x7x7")
    assert make_stem("r2plus1d", temporal=False) == make_stem("1x7x7")
    assert make_stem("r2plus1d").midplanes == 45
    assert make_stem("3x3x3/1+max") == Stem(width=64, temporal_kernel=3, spatial_kernel=3, spatial_stride=1, pool="max")
    whole = make_stem("16x7x7-unpadded")
    assert (whole.temporal_kernel, whole.temporal_padding) == (16, False)
    assert make_stem("16x7x7-unpadded", temporal=False) == make_stem("1x7x7")
    assert make_stem("1x7x7/2+max2") == Stem(
        width=64, temporal_kernel=1, spatial_kernel=7, spatial_stride=2, pool="max", pool_frames=2
    )


def test_midplanes_keep_the_weights_of_a_3d_convolution():
    assert midplanes(3, 64, 64) == 144
    assert midplanes(3, 64, 128) == 230
    for k in (1, 3, 5, 7):
        m = midplanes(k, 96, 160)
        assert m * (9 * 96 + k * 160) <= 9 * k * 96 * 160 < (m + 1) * (9 * 96 + k * 160)


def test_a_random_dilation_draws_one_in_training_and_averages_in_evaluation():
    conv = RandomDilationConv3d(2, 3, (3, 1, 1), stride=(1, 1, 1), padding=(1, 0, 0), dilations=(1, 2, 4))
    x = torch.randn(2, 2, 9, 3, 3)
    each = [F.conv3d(x, conv.weight, padding=(d, 0, 0), dilation=(d, 1, 1)) for d in (1, 2, 4)]
    torch.testing.assert_close(conv.eval()(x), torch.stack(each).mean(0))
    conv.train()
    torch.manual_seed(0)
    drawn = [next(i for i, e in enumerate(each) if torch.equal(out, e)) for out in (conv(x) for _ in range(30))]
    assert set(drawn) == {0, 1, 2}
    torch.manual_seed(0)
    again = [next(i for i, e in enumerate(each) if torch.equal(out, e)) for out in (conv(x) for _ in range(30))]
    assert again == drawn


def test_a_fixed_dilation_reaches_that_far():
    unit = unit_of(TemporalOp(kind="3d", dilation=(3,)), 1, 1, act=False).eval()
    x = torch.zeros(1, 1, 9, 3, 3)
    x[:, :, 4] = 1
    moved = (unit(x) != 0).flatten(3).any(-1).flatten().nonzero().flatten().tolist()
    assert moved == [1, 4, 7]


def p3d(kind: str, *, act: bool) -> torch.nn.Module:
    unit = unit_of(TemporalOp(kind=kind), 4, 6, act=act).eval()
    for layer in unit.modules():
        if isinstance(layer, torch.nn.BatchNorm3d):
            torch.nn.init.normal_(layer.bias)
    return unit


@pytest.mark.parametrize("act", [True, False])
def test_p3d_units_compute_what_the_paper_says(act):
    """A: relu(T(S(x))). B: relu(S(x) + T(x)). C: relu(S(x) + T(S(x))). T has no ReLU before the sum; the port's has.

    At the end of a branch, the ReLUs before and behind the sum are not there.
    """
    x = torch.randn(2, 4, 5, 6, 6)
    relu = F.relu if act else (lambda t: t)
    for kind in ("p3d_a", "p3d_b", "p3d_c", "p3d_b_port", "p3d_c_port"):
        unit = p3d(kind, act=act)
        s = unit.spatial.norm(unit.spatial.conv(x))
        seen = x if kind.startswith("p3d_b") else F.relu(s)
        t = unit.temporal.norm(unit.temporal.conv(seen))
        paper = relu(t) if kind == "p3d_a" else relu(relu(s) + t)
        expected = relu(s) + relu(t) if kind.endswith("_port") else paper
        torch.testing.assert_close(unit(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("turns", ["b", "c", "abc"])
def test_published_p3d_networks_have_the_authors_blocks(turns):
    """Layer by layer in the authors' prototxt, in all of its blocks of kind B or C, T can take away from S."""
    spec = preset("p3d_50" if turns == "abc" else f"p3d_50_{turns}")
    network = build(spec, num_classes=4).eval()
    checked = taken = 0
    for block in (block for block in network.modules() if isinstance(block, Module)):
        for site in (site for site in block.graph.sites if site.op.form in ("b", "c")):
            found = outputs(block, torch.randn(1, block.conv1.conv.in_channels, 4, 6, 6))
            unit, seen = block.get_submodule(site.path), found["conv1.act"]
            s = F.relu(unit.spatial.norm(unit.spatial.conv(seen)))
            t = unit.temporal.norm(unit.temporal.conv(seen if site.op.form == "b" else s))
            assert (found[f"{site.path}.act"] - (s + t).relu()).abs().max() == 0
            taken += bool((found[f"{site.path}.act"] < s).any())
            checked += 1
    assert checked == taken == (13 if turns != "abc" else 8)


def test_a_unit_at_the_end_of_a_branch_can_be_negative_and_one_inside_cannot():
    x = torch.randn(2, 4, 5, 6, 6)
    for kind in KINDS:
        for act in (True, False):
            unit = unit_of(TemporalOp(kind=kind), 4, 4 if kind.startswith("csn") else 6, midplanes=5, act=act)
            assert (unit(x).min() >= 0) == act


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dilation", [(1,), (3,), (1, 2)])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_every_operator_keeps_time_up_to_its_stride(kind, dilation, kernel):
    for stride, time_first in ((1, False), (2, False), (2, True)):
        op = TemporalOp(kind=kind, kernel=kernel, dilation=dilation, time_first=time_first)
        unit = unit_of(op, 4, 4, midplanes=2, spatial_stride=2, temporal_stride=stride)
        assert unit(torch.randn(2, 4, 7, 9, 9)).shape == (2, 4, (7 + stride - 1) // stride, 5, 5)


def test_frames_do_not_meet_in_a_2d_network_and_do_in_a_3d_one():
    clips = torch.randn(1, 3, 8, 32, 32)
    for name, meets in (("f_r2d_18", False), ("r3d_18", True)):
        network = build(preset(name), num_classes=5).eval()
        with torch.no_grad():
            same = torch.allclose(network(clips), network(clips.flip(2)), atol=1e-4)
        assert same is not meets


@pytest.mark.parametrize(
    ("stem", "least"),
    [
        (Stem(width=8, temporal_kernel=3, spatial_kernel=3, spatial_stride=1, pool="max", pool_frames=2), 2),
        (Stem(width=8, temporal_kernel=1, spatial_kernel=3, spatial_stride=1, pool="max", temporal_stride=2), 1),
        (
            Stem(
                width=8,
                temporal_kernel=4,
                spatial_kernel=3,
                spatial_stride=1,
                temporal_stride=2,
                temporal_padding=False,
                pool="max",
                pool_frames=3,
            ),
            8,
        ),
    ],
)
def test_a_stem_says_how_many_frames_it_needs(stem, least):
    module = build_unit(StemUnit(stem))
    assert module(torch.zeros(1, 3, least, 8, 8)).shape[2] == 1
    with pytest.raises(SpecError, match=f"at least {least} frames, but got {least - 1}"):
        module(torch.zeros(1, 3, least - 1, 8, 8))


def test_an_unpadded_stem_refuses_a_shorter_clip():
    spec = preset("r2d_18", frames=8)
    network = build(spec, num_classes=3)
    with pytest.raises(SpecError, match="at least 8 frames, but got 7"):
        network(torch.zeros(1, 3, 7, 32, 32))
    with pytest.raises(SpecError, match="at least 8 frames, but got 7"):
        cost(spec, frames=7, height=32, width=32, num_classes=3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: preset("r3d18"), "there is no network r3d18; did you mean r3d_18?"),
        (lambda: preset("r2d_18", frames=0), "frames must be at least 1, but is 0"),
        (lambda: build(preset("r3d_18"), num_classes=0), "num_classes must be at least 1, but is 0"),
        (lambda: build(preset("r3d_18"), num_classes=2, dropout=1.0), "dropout must be in [0, 1), but is 1.0"),
        (lambda: cost(preset("r3d_18"), frames=8, height=0, width=8, num_classes=2), "height must be at least 1"),
    ],
)  # fmt: skip
def test_bad_requests_are_refused_in_one_line(call, message):
    with pytest.raises(SpecError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_asking_for_a_cost_does_not_move_the_generator():
    spec = ResNetSpec(
        stem=make_stem("3x3x3/1", width=8),
        stages=(Stage(blocks=(_random_block(),)),),
    )
    torch.manual_seed(0)
    before = torch.get_rng_state()
    cost(spec, frames=8, height=16, width=16, num_classes=2)
    assert torch.equal(torch.get_rng_state(), before)


def _random_block():
    op = TemporalOp(kind="3d", dilation=(1, 2, 3))
    return Block(kind="basic", width=8, spatial_stride=1, temporal_stride=1, temporal=op)


def test_dropout_drops_in_training_only():
    network = build(preset("f_r2d_18"), num_classes=5, dropout=0.5)
    assert network.head.dropout.p == 0.5
