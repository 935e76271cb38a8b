from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trainer.batchnorm import estimate_statistics
from trainer.config import ConfigError
from trainer.evaluate import evaluate
from trainer.metrics import EpochResult, Metrics, from_line, measure, to_line
from trainer.recipe import Recipe


class Given(nn.Module):
    """Gives the logits that the clips carry in their first elements."""

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes
        self.mode = nn.Dropout(0.0)

    def forward(self, clips):
        return clips.flatten(1)[:, : self.num_classes]


class Listed:
    """Evaluation batches of one clip each, from (video, label, logits)."""

    def __init__(self, *clips, size=1):
        self.clips, self.size = clips, size

    def eval_batches(self, data, config, *, split, batch_size, device, part=(0, 1)):
        for start in range(0, len(self.clips), self.size):
            videos, labels, logits = zip(*self.clips[start : start + self.size], strict=True)
            clips = torch.zeros(len(videos), 3, 1, 2, 2)
            for clip, values in zip(clips, logits, strict=True):
                clip.view(-1)[: len(values)] = torch.tensor(values)
            yield clips, torch.tensor(labels), torch.tensor(videos)


def run(toy, batches, num_classes=3, **options):
    data = toy.Toy(classes=tuple("abcdefg"[:num_classes]))
    return evaluate(Given(num_classes), data, toy.CONFIG, toy.recipe(**options), "val", batches=batches)


def test_probabilities_of_a_videos_clips_are_averaged(toy):
    # Video 4: softmax([5, 0, 0]) and softmax([0, 0.4, 0]) average to class a.
    batches = Listed((4, 1, [5.0, 0.0, 0.0]), (9, 2, [0.0, 0.0, 3.0]), (4, 1, [0.0, 0.4, 0.0]))
    got = run(toy, batches)
    mean = (torch.tensor([5.0, 0, 0]).softmax(0) + torch.tensor([0, 0.4, 0]).softmax(0)) / 2
    other = torch.tensor([0.0, 0, 3]).softmax(0)
    assert got.metrics.num_clips == 2
    assert got.metrics.top1 == 0.5
    assert got.metrics.loss == pytest.approx(-(mean[1].log() + other[2].log()).item() / 2, rel=1e-5)
    assert got.videos.tolist() == [4, 9]
    assert got.labels.tolist() == [1, 2]
    assert got.predictions.tolist() == [0, 2]
    assert got.confusion.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 1]]


def test_videos_with_more_clips_count_no_more(toy):
    many = [(0, 0, [3.0, 0.0, 0.0])] * 9
    assert run(toy, Listed(*many, (1, 1, [3.0, 0.0, 0.0]))).metrics.top1 == 0.5


@pytest.mark.parametrize("size", [2, 3, 50])
def test_the_batch_size_does_not_matter(toy, size):
    clips = [(v, v % 3, [float((v * 7 + i) % 5) for i in range(3)]) for v in range(7) for _ in range(3)]
    single, batched = run(toy, Listed(*clips)), run(toy, Listed(*clips, size=size))
    assert single.metrics == batched.metrics
    assert torch.equal(single.confusion, batched.confusion)


def test_top5_counts_five_and_top1_one(toy):
    ranks = [(v, v, [float(7 - i) for i in range(7)]) for v in range(7)]  # class v stands at rank v + 1
    metrics = run(toy, Listed(*ranks), num_classes=7).metrics
    assert metrics.top1 == 1 / 7
    assert metrics.top5 == 5 / 7


def test_with_few_classes_top5_is_all(toy):
    assert run(toy, Listed((0, 2, [9.0, 5.0, 1.0]))).metrics.top5 == 1.0


def test_the_mode_of_the_network_is_put_back_and_eval_is_used(toy):
    model = toy.network(dropout=0.9)
    arguments = (toy.Toy(), toy.CONFIG, toy.recipe(), "val")
    for mode in (True, False):
        model.train(mode)
        first = evaluate(model, *arguments, batches=toy.ToyBatches())
        assert evaluate(model, *arguments, batches=toy.ToyBatches()).metrics == first.metrics
        assert model.training is mode
    assert model[1].num_batches_tracked.item() == 0


def test_results_are_ordinary_tensors(toy):
    got = evaluate(toy.network(), toy.Toy(), toy.CONFIG, toy.recipe(), "val", batches=toy.ToyBatches())
    for field in ("videos", "labels", "predictions", "confusion"):
        assert not getattr(got, field).is_inference()
    assert got.confusion.sum().item() == got.metrics.num_clips == 12


def test_more_clips_a_video_are_more_clips(toy):
    seen = []
    model = toy.network()
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    for clips in (1, 3):
        seen.clear()
        config = dataclasses.replace(toy.CONFIG, eval_clips=clips)
        got = evaluate(model, toy.Toy(), config, toy.recipe(), "val", batches=toy.ToyBatches())
        assert sum(seen) == 12 * clips
        assert got.metrics.num_clips == 12


def test_an_empty_split_is_refused(toy):
    with pytest.raises(ConfigError, match="must hold a video, but val of toy holds none"):
        run(toy, Listed())


def test_a_certain_error_costs_a_finite_loss(toy):
    assert 80 < run(toy, Listed((0, 1, [1e4, 0.0, 0.0]))).metrics.loss < 90


@given(
    st.integers(1, 60).flatmap(
        lambda n: st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=n, max_size=n)
    )
)
def test_top1_is_the_exact_share(pairs):
    predictions, labels = (torch.tensor(column) for column in zip(*pairs, strict=True))
    metrics = measure(torch.eye(6)[predictions] * 0.5 + 0.5 / 6, labels)
    assert metrics.top1 == sum(a == b for a, b in pairs) / len(pairs)


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(
    finite,
    finite,
    st.none() | st.builds(Metrics, top1=finite, top5=finite, loss=finite, num_clips=st.integers(0)),
)
def test_a_line_gives_the_numbers_back(loss, lr, val):
    result = EpochResult(epoch=1, train_loss=loss, lr=lr, seconds=0.1, steps=3, clips_per_s=1 / 3, val=val)
    line = to_line(result)
    assert from_line(line) == result
    assert "\n" not in line
    assert math.copysign(1, from_line(line).lr) == math.copysign(1, lr)
    assert list(json.loads(line)) == ["epoch", "train_loss", "lr", "seconds", "steps", "clips_per_s", "val"]


def test_a_line_holds_only_what_json_knows():
    with pytest.raises(ValueError, match="JSON"):
        to_line(EpochResult(epoch=1, train_loss=math.nan, lr=1.0, seconds=1.0, steps=1, clips_per_s=1.0, val=None))


@pytest.mark.parametrize("training", [True, False])
def test_statistics_are_the_mean_over_batches_whatever_they_were(training: bool) -> None:
    """Torch's generators and the network's mode stay as they were."""
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm3d(3)).train(training)
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm3d)
    norm.running_mean, norm.momentum = torch.full((3,), 100.0), 0.3
    batches = [torch.randn(4, 3, 2, 4, 4) + shift for shift in (0.0, 2.0)]
    state = torch.get_rng_state()
    recipe = Recipe(precision="fp32")
    estimate_statistics(model, batches, recipe, "cpu", seed=1)
    first = norm.running_mean.clone()
    assert torch.equal(state, torch.get_rng_state())
    assert (model.training, norm.momentum) == (training, 0.3)
    assert (first - 1.0).abs().max() < 0.6  # dropout keeps the mean
    estimate_statistics(model, batches, recipe, "cpu", seed=1)
    assert torch.equal(norm.running_mean, first)
