"""Scores of untrained networks: what they depend on, what they grow with, and values that are known otherwise."""

from __future__ import annotations

import math
import random

import pytest
import torch
from torch import nn

from nas.errors import SearchError
from nas.search.scores.data import naswot, noise, zico
from nas.search.scores.score import ScoreError, score
from nas.search.scores.structure import entropy, synflow, temporal
from nas.study.features import BY_DATA, SCORES
from search_spaces import edit
from search_spaces.catalogue import FAMILIES, preset
from search_spaces.space import parse_space
from search_spaces.spec import ArchSpec
from trainer.config import Clip

CLIP = Clip(frames=8, height=16, width=16, stride=1)
SHAPE = (3, 8, 16, 16)


def network(**domains: object) -> ArchSpec:
    """The first network of a small residual space."""
    own = {"depth": ["1-1"], "stem_width": [8], "stem": ["1x3x3/2"], "width": [1.0], "temporal_stride": ["none"]}
    return next(iter(parse_space({"domains": own | domains}).points())).spec


SMALL = network(kind=["3d"])


def scored(name: str, spec: ArchSpec = SMALL, **over: object) -> float:
    return score(name, spec, CLIP, num_classes=4, **over)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_a_function_of_its_arguments_and_moves_no_generator(name: str) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = scored(name)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    with torch.no_grad():  # whoever asks may be evaluating
        assert scored(name) == first
    if name not in ("params", "temporal"):
        assert scored(name, seed=1) != first


@pytest.mark.parametrize("name", SCORES)
def test_only_scores_by_data_look_at_clips(name: str) -> None:
    others = noise(SHAPE, 4, seed=9)
    assert (scored(name, batches=others) != scored(name)) == (name in BY_DATA)


@pytest.mark.parametrize("family", FAMILIES)
def test_networks_of_every_family_have_every_score(family: str) -> None:
    space, rng = parse_space({"families": {family: FAMILIES[family].sample()}}), random.Random(6)
    frames, height, width = FAMILIES[family].least_clip
    clip = Clip(frames=frames, height=height, width=width, stride=1)
    for spec in (space.random(rng).spec for _ in range(3)):
        for name in SCORES:
            assert math.isfinite(score(name, spec, clip, num_classes=4))


def test_a_clip_that_is_too_small_gets_one_line() -> None:
    spec = preset("c3d")
    for name in ("params", "synflow"):
        with pytest.raises(ScoreError, match=f"has no score {name}") as caught:
            score(name, spec, Clip(frames=8, height=8, width=8, stride=1), num_classes=4)
        assert "\n" not in str(caught.value)


def test_an_unknown_score_is_refused_with_the_nearest() -> None:
    with pytest.raises(SearchError, match="score 'synflo' is not known; did you mean synflow"):
        scored("synflo")


def test_a_single_frame_has_no_temporal_score() -> None:
    with pytest.raises(ScoreError, match="temporal needs clips of 2 frames or more, but they have 1"):
        score("temporal", SMALL, Clip(frames=1, height=16, width=16, stride=1), num_classes=4)


def test_synflow_of_a_chain_is_its_output_once_for_each_layer() -> None:
    """Every path takes one weight of each layer, so each layer's share of the sum is the whole of the output."""
    torch.manual_seed(0)
    chain = nn.Sequential(nn.Conv3d(3, 5, 3, bias=False), nn.ReLU(), nn.Conv3d(5, 4, (1, 3, 3), bias=False))
    ones = torch.ones(1, *SHAPE, dtype=torch.float64)
    weights = [layer.weight.detach().double().abs() for layer in (chain[0], chain[2])]  # type: ignore[union-attr]
    out = nn.functional.conv3d(nn.functional.conv3d(ones, weights[0]), weights[1]).sum()
    assert synflow(chain, SHAPE) == pytest.approx(math.log10(2 * float(out)))


@pytest.mark.parametrize("name", ["synflow", "entropy", "params"])
def test_wider_and_deeper_networks_score_higher(name: str) -> None:
    base, wide, deep = (network(kind=["3d"], **own) for own in ({}, {"width": [2.0]}, {"depth": ["2-2"]}))
    assert scored(name, base) < scored(name, wide)
    assert scored(name, base) < scored(name, deep)


def test_entropy_of_a_layer_is_half_the_logarithm_of_its_fan_in() -> None:
    """A kernel over all of its input fits it wholly."""
    torch.manual_seed(0)
    width = 2**15
    chain = nn.Sequential(nn.Conv3d(3, width, (2, 4, 4), bias=False), nn.Flatten(), nn.Linear(width, 2))
    fit = -math.log(1e-3)
    expected = 0.5 * math.log(3 * 32 * fit) + math.log(width)
    assert entropy(chain, (3, 2, 4, 4), num_classes=5) == pytest.approx(expected, abs=0.2)


def test_temporal_counts_the_frames_that_a_feature_sees() -> None:
    """Of three frames, a kernel of 3 sees two at either end and three in the middle; the classifier is no part."""
    chain = nn.Sequential(
        nn.Conv3d(3, 5, (3, 1, 1), padding=(1, 0, 0)), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(5, 2)
    )
    expected = (2 * math.log(2) + math.log(3)) / 3 / math.log(3)
    assert temporal(chain, (3, 3, 4, 4), num_classes=5) == pytest.approx(expected, rel=1e-5)


def test_temporal_is_zero_without_time_and_grows_with_how_early_and_how_far_it_is_seen() -> None:
    def of(**domains: object) -> float:
        return scored("temporal", network(depth=["2-2-2"], **domains))

    flat, late, early, whole = (of(kind=["3d"], placement=[place]) for place in ("none", "rmc3", "mc3", "all"))
    assert flat == 0.0
    assert 0 < late < early < whole < 1
    assert of(kind=["2plus1d"], kernel=[3]) < of(kind=["2plus1d"], kernel=[5])


def test_a_shift_of_frames_is_time_that_is_seen() -> None:
    flat, shifted = (
        next(iter(parse_space({"families": {"timm": {"domains": own}}}).points())).spec
        for own in (
            {"model": ["test_resnet"], "shift": [shift], "kind": ["2d"], "frames": [8], "head": ["average"]}
            for shift in ("none", "tsm")
        )
    )
    clip = Clip(frames=8, height=32, width=32, stride=1)
    values = [score("temporal", spec, clip, num_classes=4) for spec in (flat, shifted)]
    assert values[0] == 0.0 < values[1] < 0.5


def test_naswot_counts_the_rectifiers_that_two_clips_switch_alike() -> None:
    clips = torch.tensor([[1.0, 1.0, -1.0], [1.0, -1.0, -1.0]])
    batches = [(clip[None], torch.zeros(1, dtype=torch.int64)) for clip in clips]
    assert naswot(nn.Sequential(nn.ReLU()), batches) == pytest.approx(math.log(3 * 3 - 2 * 2))
    assert naswot(nn.Sequential(nn.ReLU(inplace=True), nn.SiLU()), batches) == pytest.approx(
        math.log(36 - 16 - 4 - 0), abs=2
    )


def test_clips_that_a_network_cannot_tell_apart_have_no_naswot() -> None:
    clips, labels = noise(SHAPE, 4, seed=0)[0]
    same = [(clips[:1].expand(4, -1, -1, -1, -1).contiguous(), labels[:4])] * 2
    with pytest.raises(ScoreError, match="has no score naswot: it is not finite"):
        scored("naswot", batches=same)


def test_zico_is_the_inverse_variation_of_gradients() -> None:
    """A linear layer on one input: the gradient of weight w_k is p_k - [label = k] times the input."""
    layer = nn.Linear(1, 2, bias=False)
    nn.init.zeros_(layer.weight)
    batches = [(torch.tensor([[x]]), torch.tensor([0])) for x in (1.0, 3.0)]
    # |gradients| are x / 2 in both weights: mean 1, deviation 1/2.
    assert zico(nn.Sequential(layer), batches) == pytest.approx(math.log(2 * 1.0 / 0.5))


def test_gradients_that_do_not_vary_have_no_zico() -> None:
    batch = noise(SHAPE, 4, seed=0)[0]
    with pytest.raises(ScoreError, match="has no score zico: it is not finite"):
        scored("zico", batches=[batch] * 3)


def test_videos_of_several_labels_have_scores() -> None:
    batches = [(clips, nn.functional.one_hot(labels, 4).float()) for clips, labels in noise(SHAPE, 4, seed=0)]
    assert math.isfinite(scored("zico", batches=batches)) and math.isfinite(scored("naswot", batches=batches))


def test_a_branch_that_begins_at_zero_is_seen() -> None:
    """Norms that begin with a weight of 0 would hide what stands before them."""
    spec = edit.put(SMALL, "zero_init", True)
    for name in SCORES:
        assert scored(name, spec) == scored(name, SMALL)


@pytest.mark.parametrize("name", ["trn_r50", "tsn_r18"])
def test_structure_does_not_depend_on_the_number_of_classes(name: str) -> None:
    """A multi-scale TRN has a classifier for each number of frames."""
    clip, spec = Clip(frames=4, height=32, width=32), preset(name, frames=4)
    for of in ("entropy", "temporal"):
        few, many = (score(of, spec, clip, num_classes=classes) for classes in (10, 3000))
        assert many == pytest.approx(few, abs=0.8 if of == "entropy" else 1e-6)


def test_the_temporal_score_does_not_depend_on_the_amplitude_of_activations() -> None:
    """Behind two convolutions over time frames count unequally, which an activation that is no line would change."""

    def over_time(planes: int) -> nn.Module:
        return nn.Conv3d(planes, 4, (3, 1, 1), padding=(1, 0, 0))

    rows = [
        temporal(
            nn.Sequential(over_time(3), over_time(4), *middle, nn.Conv3d(4, 4, 1), nn.Conv3d(4, 4, 1), nn.Flatten(2)),
            (3, 8, 4, 4),
            num_classes=5,
        )
        for middle in ([], [nn.SiLU()])
    ]
    assert rows[0] == pytest.approx(rows[1])
