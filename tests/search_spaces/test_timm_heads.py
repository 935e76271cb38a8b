"""What relates frames in networks made from timm's: TSM's shift, TIN's interlacing, and the temporal heads."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from nas.cost.cost import cost
from search_spaces.catalogue import build
from search_spaces.errors import ClipError
from search_spaces.families.timm.family import make_timm
from search_spaces.families.timm.heads import AttentionPool, Average, Convolution, Recurrence, Relation, temporal_head
from search_spaces.families.timm.layers import Clock, fold, unfold
from search_spaces.families.timm.shift import Interlace, Shift


def clock(frames: int) -> Clock:
    found = Clock()
    found.frames = frames
    return found


def test_clips_and_images_are_views_of_each_other():
    clips = torch.randn(2, 3, 4, 5, 6).contiguous(memory_format=torch.channels_last_3d)
    images = fold(clips)
    assert images.data_ptr() == clips.data_ptr()
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images[4 + 1], clips[1, :, 1])
    back = unfold(images, 4)
    assert back.data_ptr() == clips.data_ptr()
    assert torch.equal(back, clips)
    # Clips in another order are copied.
    assert torch.equal(fold(clips.contiguous()), images)


def test_tsm_takes_one_part_from_the_frame_after_and_one_from_the_frame_before():
    clips = torch.randn(2, 16, 4, 3, 3)
    out = unfold(Shift(16, 8, clock(4))(fold(clips)), 4)
    expected = clips.clone()
    expected[:, :2] = 0
    expected[:, :2, :3] = clips[:, :2, 1:]
    expected[:, 2:4] = 0
    expected[:, 2:4, 1:] = clips[:, 2:4, :3]
    assert torch.equal(out, expected)
    still = unfold(Shift(16, 8, clock(1))(fold(clips[:, :, :1])), 1)
    assert torch.equal(still[:, 4:], clips[:, 4:, :1])
    assert not still[:, :4].any()


@torch.no_grad()
@pytest.mark.parametrize(("model", "strided"), [("resnet18", "layer3.0"), ("mobilenetv2_050", "blocks.2.1")])
def test_a_shift_can_stand_before_the_whole_block(model, strided):
    """Then the shortcut sees shifted frames, too, where the block's stride changes the shape as elsewhere."""
    torch.manual_seed(0)
    shifted = build(make_timm(model, shift="tsm", place="block"), num_classes=5).eval()
    plain = build(make_timm(model), num_classes=5).eval()
    residual = build(make_timm(model, shift="tsm"), num_classes=5)
    found = [name for name, module in shifted.named_modules() if isinstance(module, Shift)]
    assert len(found) == sum(isinstance(module, Shift) for module in residual.modules())
    values = {name.replace(".block.1.", ".block."): value for name, value in shifted.state_dict().items()}
    plain.load_state_dict(values)
    unit, same = shifted.get_submodule(f"backbone.{strided}"), plain.get_submodule(f"backbone.{strided}")
    planes = next(p.shape[1] for name, p in same.named_parameters() if name.endswith("weight"))
    clips = torch.randn(2, planes, 4, 6, 6)
    moved = Shift(planes, 8, clock(4))(fold(clips))
    torch.testing.assert_close(unit(clips), same(unfold(moved, 4)))
    assert not torch.allclose(unit(clips), same(clips))


@pytest.mark.parametrize(
    ("model", "every", "expected"), [("resnet18", 1, 8), ("resnet18", 2, 4), ("mobilenetv2_050", 1, 10)]
)
def test_shifts_stand_in_residual_branches(model, every, expected):
    torch.manual_seed(0)
    network = build(make_timm(model, shift="tsm", every=every), num_classes=5)
    found = [name for name, module in network.named_modules() if isinstance(module, Shift)]
    assert len(found) == expected
    assert all(name.rsplit(".", 2)[1] in ("conv1", "conv_pw") for name in found)
    if every == 2:
        assert {name.split(".")[2] for name in found} == {"0"}


def test_the_shortcut_of_a_shifted_block_is_not_shifted():
    torch.manual_seed(0)
    network = build(make_timm("resnet18", shift="tsm"), num_classes=5).eval()
    block = network.get_submodule("backbone.layer1.0")
    nn.init.zeros_(block.block.bn2.weight)
    nn.init.zeros_(block.block.bn2.bias)
    clips = torch.rand(1, 64, 3, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(block(clips), clips)


@pytest.mark.parametrize("planes", [16, 64, 40])
def test_tin_interpolates_between_frames_in_four_groups(planes):
    torch.manual_seed(0)
    frames, moved = 5, planes // 4
    layer = Interlace(planes, frames, clock(frames))
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    clips = torch.randn(3, planes, frames, 4, 4)
    with torch.no_grad():
        out = unfold(layer(fold(clips)), frames)
        means = clips[:, :moved].mean((3, 4))
        hidden = torch.relu(layer.offset_fc1(layer.offset_conv(means)[:, 0]))
        pair = 4 * (torch.sigmoid(layer.offset_fc2(hidden)) - 0.5)
        weights = 2 * torch.sigmoid(layer.weight_conv(means))
    assert torch.equal(out[:, moved:], clips[:, moved:])
    edges = [moved * i // 4 for i in range(5)]
    for n, group, t in itertools.product(range(3), range(4), range(frames)):
        offset = float(pair[n, group % 2]) * (1 if group < 2 else -1)
        planes_here = slice(edges[group], edges[group + 1])
        lower = math.floor(t + offset)
        share = t + offset - lower

        def frame(at: int, n: int = n, planes_here: slice = planes_here) -> Tensor:
            inside = 0 <= at < frames
            return clips[n, planes_here, at] if inside else torch.zeros_like(clips[n, planes_here, 0])

        expected = ((1 - share) * frame(lower) + share * frame(lower + 1)) * weights[n, group % 2, t]
        torch.testing.assert_close(out[n, planes_here, t], expected, rtol=1e-4, atol=1e-5)


def test_tin_starts_at_half_a_frame_and_is_made_for_its_frames():
    layer = Interlace(64, 8, clock(8))
    bias = layer.offset_fc2.bias.detach()
    assert float(4 * (torch.sigmoid(bias) - 0.5)[0]) == pytest.approx(0.5, abs=1e-4)
    assert layer.weight_conv.bias is not None
    assert not layer.weight_conv.bias.any()
    layer.clock.frames = 4
    with pytest.raises(ClipError, match="tin was made for 8 frames here, but the clip has 4"):
        layer(torch.randn(4, 64, 3, 3))
    with pytest.raises(ClipError, match=r"too short or too small for the network: at .*, tin was made for 8 frames"):
        cost(make_timm("resnet18", shift="tin", frames=8), frames=6, height=32, width=32, num_classes=5)
    # Behind a pool, a stage has half of them.
    assert cost(make_timm("resnet18", shift="tin", frames=8, pools=(3,)), frames=8, height=32, width=32, num_classes=5)


@pytest.mark.parametrize("frames", [2, 3, 8, 16, 32])
def test_trn_always_looks_at_the_same_subsets_in_evaluation(frames):
    head = Relation(4, 3, 0.0, width=2, frames=frames).eval()
    for size in range(2, frames + 1):
        subsets = head.subsets(size)
        assert len(subsets) == min(3, math.comb(frames, size))
        assert len({tuple(subset) for subset in subsets}) == len(subsets)
        for subset in subsets:
            assert subset == sorted(set(subset))
            assert len(subset) == size
            assert min(subset) >= 0
            assert max(subset) < frames
        assert head.subsets(size) == subsets
    if frames == 8:
        every = list(itertools.combinations(range(8), 4))
        assert head.subsets(4) == [list(every[i]) for i in (11, 35, 58)]


def test_trn_draws_different_subsets_in_training_by_the_seed():
    head = Relation(4, 3, 0.0, width=2, frames=8).train()
    torch.manual_seed(0)
    first = [head.subsets(4) for _ in range(20)]
    torch.manual_seed(0)
    assert [head.subsets(4) for _ in range(20)] == first
    assert len({str(subsets) for subsets in first}) > 15
    for subsets in first:
        assert len({tuple(subset) for subset in subsets}) == 3
        assert all(subset == sorted(set(subset)) for subset in subsets)
    assert head.subsets(8) == [list(range(8))]


def test_trn_sums_what_relations_say():
    torch.manual_seed(0)
    head = Relation(6, 5, 0.0, width=4, frames=3).eval()
    x = torch.randn(2, 3, 6)
    with torch.no_grad():
        small = head.reduce(x)
        expected = head.scales[0](small.flatten(1))
        for subset in ([0, 1], [0, 2], [1, 2]):
            expected = expected + head.scales[1](small[:, subset].flatten(1))
        torch.testing.assert_close(head(x), expected)
    with pytest.raises(ClipError, match="head trn was made for 3 frames, but has 4"):
        head(torch.randn(2, 4, 6))
    found = cost(make_timm("resnet18", head="trn"), frames=8, height=32, width=32, num_classes=5)
    assert found.macs == found.train_macs


def test_single_scale_trn_sees_all_frames_once():
    torch.manual_seed(0)
    head = temporal_head("trn_single", 6, 5, dropout=0.0, width=4, frames=3).eval()
    assert [tuple(p.shape) for p in head.parameters()] == [(4, 6), (4,), (8, 12), (8,), (5, 8), (5,)]
    x = torch.randn(2, 3, 6)
    (scale,) = head.scales
    torch.testing.assert_close(head(x), scale(head.reduce(x).flatten(1)))
    with pytest.raises(ClipError, match="head trn_single was made for 3 frames, but has 4"):
        head(torch.randn(2, 4, 6))


@pytest.mark.parametrize("kind", ["trn", "trn_single"])
def test_trn_of_one_frame_classifies_it(kind):
    head = temporal_head(kind, 6, 5, dropout=0.0, width=4, frames=1)
    assert head(torch.randn(2, 1, 6)).shape == (2, 5)


def test_lstm_is_torchs():
    torch.manual_seed(0)
    head, theirs = Recurrence(6, 5, 0.0, width=4).eval(), nn.LSTM(6, 4, batch_first=True)
    # Torch orders the gates as enter, keep, new, show, and has two biases.
    order = torch.arange(16).reshape(4, 4)[[0, 1, 3, 2]].flatten()
    theirs.weight_ih_l0.data = head.inputs.weight.data[order]
    theirs.weight_hh_l0.data = head.states.weight.data[order]
    theirs.bias_ih_l0.data = head.inputs.bias.data[order]
    theirs.bias_hh_l0.data.zero_()
    x = torch.randn(3, 7, 6)
    with torch.no_grad():
        torch.testing.assert_close(head(x), head.fc(theirs(x)[0].mean(1)))


def test_average_attention_and_convolution():
    torch.manual_seed(0)
    x = torch.randn(3, 7, 6)
    with torch.no_grad():
        average = Average(nn.Linear(6, 5), 0.0)
        torch.testing.assert_close(average(x), torch.stack([average.fc(x[:, t]) for t in range(7)]).mean(0))
        pool = AttentionPool(6, 5, 0.0, width=4)
        nn.init.zeros_(pool.score.weight)
        torch.testing.assert_close(pool(x), pool.fc(x.mean(1)))
        nn.init.constant_(pool.score.weight, 1e4)
        nn.init.zeros_(pool.hidden.bias)
        nn.init.ones_(pool.hidden.weight)
        strongest = x.sum(2).argmax(1)
        torch.testing.assert_close(pool(x), pool.fc(x[torch.arange(3), strongest]))
        conv = Convolution(6, 5, 0.0, width=4)
        nn.init.zeros_(conv.conv.weight)
        nn.init.ones_(conv.conv.bias)
        torch.testing.assert_close(conv(x), conv.fc(torch.ones(3, 4)))


@pytest.mark.parametrize("kind", ["average", "trn", "trn_single", "conv", "lstm", "attention"])
def test_dropout_is_in_every_head(kind):
    head = temporal_head(kind, 6, 5, dropout=0.5, width=4, frames=3)
    assert [m.p for m in head.modules() if isinstance(m, nn.Dropout)] == [0.5]
    x = torch.randn(2, 3, 6)
    torch.manual_seed(0)
    # Torch's generator draws for TRN, too.
    first = head.train()(x)
    torch.manual_seed(1)
    assert not torch.allclose(first, head(x))
    assert torch.equal(head.eval()(x), head(x))
