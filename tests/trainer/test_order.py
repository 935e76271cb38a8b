from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainer.config import Clip, ConfigError, DataConfig
from trainer.data.clips import open_data
from trainer.data.motion_clips import OPPOSITE, make_motion
from trainer.evaluate import Evaluation, evaluate
from trainer.fit import fit
from trainer.metrics import Metrics
from trainer.order_tests import Reordered, correct_of, motion_tests, orders, outcomes, reorder
from trainer.outcomes import TESTS
from trainer.recipe import Recipe

sizes = {"num_frames": st.integers(2, 9), "seed": st.integers(0, 50)}
numbers = st.lists(st.integers(0, 40), min_size=1, max_size=8)


def shuffles(num_frames, videos, seed):
    return next(orders("shuffled", num_frames=num_frames, videos=videos, seed=seed)).tolist()


@given(videos=numbers, **sizes)
def test_a_shuffle_is_another_order_of_all_frames(num_frames, videos, seed):
    for order in shuffles(num_frames, videos, seed):
        assert sorted(order) == list(range(num_frames))
        assert order != list(range(num_frames))


@given(videos=numbers, **sizes)
def test_a_shuffle_depends_on_seed_and_video_alone(num_frames, videos, seed):
    alone = [shuffles(num_frames, [video], seed)[0] for video in videos]
    assert shuffles(num_frames, videos, seed) == alone
    assert shuffles(num_frames, videos[::-1], seed) == alone[::-1]


def test_seeds_and_videos_have_shuffles_of_their_own():
    rows = [tuple(row) for seed in range(20) for row in shuffles(8, range(20), seed)]
    assert len(set(rows)) > 390
    places = torch.tensor(rows).float().mean(0)
    assert (places - 3.5).abs().max() < 0.5  # any frame anywhere


def test_all_orders_but_the_original_one_are_drawn_evenly():
    rows = [tuple(row) for row in shuffles(3, range(5000), 1)]
    assert {row: abs(rows.count(row) - 1000) < 120 for row in set(rows)} == dict.fromkeys(
        [(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)], True
    )


def test_each_test_shows_the_frames_that_it_names():
    clips = torch.randn(3, 3, 4, 2, 5)
    before = clips.clone()
    videos = [7, 0, 7]
    got = {test: list(reorder(clips, test, videos=videos, seed=5)) for test in TESTS}
    assert torch.equal(clips, before)
    assert {test: len(found) for test, found in got.items()} == {**dict.fromkeys(TESTS, 1), "single": 4}
    assert torch.equal(got["forward"][0], clips)
    assert torch.equal(got["reversed"][0], clips.flip(2))
    for clip, changed, order in zip(clips, got["shuffled"][0], shuffles(4, videos, 5), strict=True):
        assert torch.equal(changed, clip[:, order])
    assert torch.equal(got["frozen"][0], clips[:, :, 2:3].expand(-1, -1, 4, -1, -1))
    for frame, found in enumerate(got["single"]):
        assert torch.equal(found, clips[:, :, frame : frame + 1].expand(-1, -1, 4, -1, -1))


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last_3d])
def test_the_order_in_memory_stays(test, order):
    clips = torch.randn(2, 3, 4, 5, 6).contiguous(memory_format=order)
    for changed in reorder(clips, test, videos=[0, 1], seed=0):
        assert changed.stride() == clips.stride()


def test_forward_is_the_evaluation_of_training(toy):
    model = toy.network()
    arguments = (model, toy.Toy(), toy.CONFIG, toy.recipe(), "val")
    expected = evaluate(*arguments, batches=toy.ToyBatches())
    got = motion_tests(*arguments, batches=toy.ToyBatches())
    assert tuple(got) == TESTS
    assert got["forward"].metrics == expected.metrics
    assert torch.equal(got["forward"].predictions, expected.predictions)
    assert all(torch.equal(result.videos, expected.videos) for result in got.values())
    assert all(torch.equal(result.labels, expected.labels) for result in got.values())


def per_frame(num_classes=4):
    """2D convolutions on each frame, then the mean over all frames."""
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv3d(3, 6, (1, 3, 3)), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, num_classes)
    )


def test_without_time_the_order_of_frames_changes_nothing(toy):
    got = motion_tests(per_frame(), toy.Toy(), toy.CONFIG, toy.recipe(), "val", batches=toy.ToyBatches())
    for test in ("reversed", "shuffled"):
        assert torch.equal(got[test].predictions, got["forward"].predictions)
        assert got[test].metrics.loss == pytest.approx(got["forward"].metrics.loss, abs=1e-6)
    assert got["frozen"].metrics.loss != pytest.approx(got["forward"].metrics.loss, abs=1e-6)


def test_what_a_network_with_time_gives_is_computed_by_hand(toy):
    data, config = toy.Toy(noise=3.0), toy.CONFIG
    model = toy.network().eval()
    got = motion_tests(model, data, config, toy.recipe(), "val", batches=toy.ToyBatches(), seed=4)
    source = toy.ToyBatches().eval_batches(data, config, split="val", batch_size=8, device="cpu")
    clips, _, videos = (torch.cat(part) for part in zip(*source, strict=True))
    order = torch.tensor(shuffles(4, videos.tolist(), 4))

    @torch.no_grad()
    def mean_of(*shown):
        rows = torch.stack([model(clip).softmax(1) for clip in shown]).mean(0)
        return torch.stack([rows[videos == video].mean(0) for video in range(12)])

    def still(frame):
        return clips[:, :, frame : frame + 1].repeat(1, 1, 4, 1, 1)

    shuffled = torch.stack([clip[:, row] for clip, row in zip(clips, order, strict=True)])
    expected = {
        "forward": mean_of(clips),
        "reversed": mean_of(clips.flip(2)),
        "shuffled": mean_of(shuffled),
        "frozen": mean_of(still(2)),
        "single": mean_of(*(still(frame) for frame in range(4))),
    }
    for test, rows in expected.items():
        chosen = rows[torch.arange(12), got[test].labels]
        assert got[test].metrics.loss == pytest.approx(-chosen.log().mean().item(), rel=1e-5), test
        assert torch.equal(got[test].predictions, rows.argmax(1)), test
    assert len({result.metrics.loss for result in got.values()}) == 5


@pytest.mark.parametrize("size", [1, 3, 50])
def test_the_batch_size_does_not_matter(toy, size):
    class Kept(toy.ToyBatches):
        """The same clips, however they are parted."""

        def eval_batches(self, data, config, *, split, batch_size, device, part=(0, 1)):
            source = super().eval_batches(data, config, split=split, batch_size=8, device=device)
            clips, labels, videos = (torch.cat(part) for part in zip(*source, strict=True))
            yield from zip(clips.split(batch_size), labels.split(batch_size), videos.split(batch_size), strict=True)

    one, other = (
        motion_tests(toy.network(), toy.Toy(), toy.CONFIG, toy.recipe(batch_size=n), "val", batches=Kept())
        for n in (8, size)
    )
    for test in TESTS:
        assert torch.equal(one[test].predictions, other[test].predictions)
        assert one[test].metrics.loss == pytest.approx(other[test].metrics.loss, rel=1e-5)


def test_the_network_and_the_generators_stay_as_they_were(toy):
    model = toy.network(dropout=0.9).train()
    state, weights = torch.get_rng_state(), [p.clone() for p in model.state_dict().values()]
    motion_tests(model, toy.Toy(), toy.CONFIG, toy.recipe(), "val", batches=toy.ToyBatches())
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(weights, model.state_dict().values(), strict=True))


def test_training_clips_stay_as_they_were(toy):
    plain, changed = toy.ToyBatches(), Reordered(source=toy.ToyBatches(), test="reversed", seed=0)
    arguments = {"batch_size": 8, "seed": 1, "epoch": 2, "device": torch.device("cpu")}
    ours, theirs = (source.train_batches(toy.Toy(), toy.CONFIG, **arguments) for source in (plain, changed))
    for (a, _), (b, _) in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)
    assert changed.num_batches(toy.Toy(), toy.CONFIG, split="train", batch_size=8) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tests": ("forward", "backward")}, "must be one of forward, .* but is backward"),
        ({"seed": -1}, "seed of a motion test must be at least 0, but is -1"),
        ({"frames": 1}, "needs clips of at least 2 frames, but data.clip.frames is 1"),
    ],
)
def test_what_cannot_be_tested_is_refused_before_anything_is_computed(toy, change, message):
    config = dataclasses.replace(toy.CONFIG, clip=Clip(frames=change.pop("frames", 4), height=8, width=8))
    with pytest.raises(ConfigError, match=message):
        motion_tests(nn.Identity(), toy.Toy(), config, toy.recipe(), "val", batches=None, **change)


def config_of(root, cache):
    """Clips of four frames of 16x16 of motion data."""
    return DataConfig(
        name="motion",
        root=str(root),
        cache=str(cache),
        clip=Clip(frames=4, height=16, width=16),
        sampling="uniform",
        short_side=16,
    )


def test_a_clip_played_backwards_is_a_clip_of_the_opposite_class(motion, tmp_path):
    """The data is so by construction: what a network says of the one reversed, it says of the other forward."""
    config = config_of(motion, tmp_path)
    data = open_data(config)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 16 * 16, 8))
    got = motion_tests(model, data, config, Recipe(precision="fp32", batch_size=5), "val")
    entries = data.split("val").entries
    place = {tuple(entry.path.split("/")[-2:]): i for i, entry in enumerate(entries)}
    opposite = [place[OPPOSITE[title], name] for title, name in place]
    assert torch.equal(got["reversed"].predictions, got["forward"].predictions[opposite])
    assert not torch.equal(got["reversed"].predictions, got["forward"].predictions)
    # And all classes have the same frames, so that frame by frame nothing tells them apart.
    assert got["single"].metrics.top1 == 1 / 8


def test_what_learned_motion_needs_the_order_of_frames(tmp_path):
    """A temporal network, trained for seconds on clips of which only the order of frames tells the class."""
    make_motion(tmp_path / "motion", train_per_class=32, val_per_class=16, test_per_class=0, frames=4, size=16)
    config = config_of(tmp_path / "motion", tmp_path)
    data = open_data(config)
    recipe = Recipe(batch_size=32, lr=0.005, warmup_epochs=0.5, ema_decay=0.9, precision="fp32")
    torch.manual_seed(0)
    layers = []
    for before, after, kernel in ((3, 16, 1), (16, 32, 3), (32, 64, 3)):
        convolution = nn.Conv3d(before, after, (kernel, 3, 3), (1, 2, 2), (kernel // 2, 1, 1), bias=False)
        layers += [convolution, nn.BatchNorm3d(after), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool3d((1, 2, 2)), nn.Flatten(), nn.Linear(256, 8))
    fit(model, data, config, recipe, seed=0, until_epoch=18, folder=tmp_path / "run")
    top1 = {test: found.metrics.top1 for test, found in motion_tests(model, data, config, recipe, "val").items()}
    assert top1["forward"] > 0.3
    assert top1["reversed"] < 0.1  # it says the opposite class
    assert top1["forward"] - top1["shuffled"] > 0.15
    assert abs(top1["frozen"] - 0.125) < 0.09
    assert top1["single"] == 0.125  # exactly: all classes have the same frames


def test_outcomes_say_which_video_was_right():
    result = Evaluation(
        metrics=Metrics(top1=2 / 3, top5=1.0, loss=0.25, num_clips=3),
        videos=torch.tensor([0, 2, 3]),
        labels=torch.tensor([1, 0, 2]),
        predictions=torch.tensor([1, 1, 2]),
        confusion=torch.zeros(3, 3, dtype=torch.long),
        probabilities=torch.zeros(3, 3),
    )
    assert correct_of(result) == "1-01"
    (outcome,) = outcomes({"frozen": result})
    assert dataclasses.asdict(outcome) == {
        "test": "frozen",
        "top1": 2 / 3,
        "loss": 0.25,
        "num_clips": 3,
        "correct": "1-01",
    }
