"""Videos with several labels: average precision is scikit-learn's, and training, evaluation and choice follow it."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from trainer.config import ConfigError
from trainer.evaluate import evaluate
from trainer.losses import class_weights, loss_of
from trainer.metrics import Metrics, average_precision, from_line, measure_several


@st.composite
def scored(draw):
    """Scores, some of them equal, and labels; every video and every class has one."""
    videos, classes = draw(st.integers(2, 12)), draw(st.integers(2, 9))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    scores = rng.random((videos, classes)).astype(np.float32)
    if draw(st.booleans()):
        scores = np.round(scores * 4) / 4
    labels = rng.random((videos, classes)) < draw(st.sampled_from([0.1, 0.3, 0.7]))
    labels[np.arange(videos), rng.integers(classes, size=videos)] = True
    labels[rng.integers(videos, size=classes), np.arange(classes)] = True
    return scores, labels


@settings(deadline=None, max_examples=60)
@given(data=scored())
def test_both_means_are_those_of_scikit_learn(data):
    scores, labels = data
    metrics = measure_several(torch.from_numpy(scores), torch.from_numpy(labels).float())
    assert metrics.map_sample == pytest.approx(average_precision_score(labels, scores, average="samples"), abs=1e-12)
    assert metrics.map_class == pytest.approx(average_precision_score(labels, scores, average="macro"), abs=1e-12)
    assert metrics.accuracy == metrics.map_sample


def test_rows_without_a_label_are_left_out():
    scores = torch.rand(4, 6)
    present = torch.zeros(4, 6, dtype=torch.bool)
    present[0, 3] = present[2, :2] = True
    assert average_precision(scores, present) == pytest.approx(average_precision(scores[[0, 2]], present[[0, 2]]))
    with pytest.raises(ConfigError, match="must have a label, but none has one"):
        measure_several(scores, torch.zeros(4, 6))


def test_hits_and_loss_of_several_labels():
    probabilities = torch.tensor([[0.9, 0.8, 0.1, 0.2, 0.3, 0.4, 0.0], [0.1, 0.2, 0.9, 0.3, 0.4, 0.5, 0.6]])
    targets = torch.tensor([[1.0, 1, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]])
    metrics = measure_several(probabilities, targets)
    assert (metrics.top1, metrics.top5) == (0.5, 0.5)
    assert metrics.loss == pytest.approx(torch.nn.functional.binary_cross_entropy(probabilities, targets).item())
    assert metrics.map_sample == pytest.approx((1.0 + 1 / 7) / 2)


def several(toy):
    """The toy where two quarters of the picture are bright; and its data."""

    class Batches(toy.ToyBatches):
        def train_batches(self, data, config, **options):
            for clips, labels in super().train_batches(data, config, **options):
                yield self.both(clips, labels, data)

        def eval_batches(self, data, config, **options):
            for clips, labels, videos in super().eval_batches(data, config, **options):
                yield *self.both(clips, labels, data), videos

        @staticmethod
        def both(clips, labels, data):
            others = (labels + 1) % len(data.classes)
            rows, columns = torch.arange(8)[:, None] // 4, torch.arange(8)[None, :] // 4
            bright = (2 * rows + columns == others[:, None, None]).float()[:, None, None]
            hot = torch.eye(len(data.classes))
            return clips + 2.0 * bright, hot[labels] + hot[others]

    @dataclasses.dataclass(frozen=True)
    class Data(toy.Toy):
        multi_label: bool = True

        def split(self, name):
            assert name == "train"
            pairs = [(k, (k + 1) % 4) for k in (0, 0, 0, 1, 2, 3)]
            return SimpleNamespace(entries=[SimpleNamespace(label=a, labels=tuple(sorted((a, b)))) for a, b in pairs])

    return Batches(), Data()


@pytest.mark.parametrize("options", [{"loss": "bce", "bce_scale": 10.0}, {"loss": "lsep"}, {"loss": "warp"}])
def test_several_labels_are_learnt(toy, tmp_path, options):
    batches, data = several(toy)
    result = toy.train(tmp_path, 6, batches=batches, data=data, keep_best=True, **options)
    last = result.epochs[-1].val
    assert last.map_sample > 0.97
    assert last.map_class > 0.97
    assert result.epochs[0].val.map_sample < last.map_sample
    best = max(result.epochs, key=lambda e: (e.val.map_sample, -e.val.loss))
    assert result.best_epoch == best.epoch
    line = (tmp_path / "progress.jsonl").read_text().splitlines()[-1]
    assert set(json.loads(line)["val"]) == {"top1", "top5", "loss", "num_clips", "map_sample", "map_class"}
    assert from_line(line) == result.epochs[-1]


def test_mixed_clips_and_weighted_classes_are_learnt_too(toy, tmp_path):
    batches, data = several(toy)
    options = {"loss": "bce", "mixup": 0.2, "cutmix": 0.5, "class_weights": "sqrt", "label_smoothing": 0.1}
    result = toy.train(tmp_path, 6, batches=batches, data=data, bce_scale=10.0, **options)
    assert result.epochs[-1].val.map_sample > 0.9


def test_class_weights_reach_the_loss(toy, tmp_path):
    batches, data = several(toy)
    losses = [
        toy.train(tmp_path / kind, 1, batches=batches, data=data, loss="bce", class_weights=kind).epochs[0].train_loss
        for kind in ("none", "balanced", "sqrt", "frequency", "sqrt_frequency")
    ]
    assert len(set(losses)) == 5


def test_classes_are_weighed_by_the_videos_that_have_them_among_their_labels(toy, tmp_path):
    """Two of the classes are never the first label of a video, or hardly ever."""
    batches, data = several(toy)
    options = {"loss": "bce", "class_weights": "balanced", "batch_size": 24}
    result = toy.train(tmp_path, 1, model=toy.network(dropout=0.0), batches=batches, data=data, **options)
    clips, labels = next(batches.train_batches(data, toy.CONFIG, batch_size=24, seed=0, epoch=1, device="cpu"))
    weights = class_weights(torch.tensor([4, 4, 2, 2]), "balanced")
    logits = toy.network(dropout=0.0).train()(clips)
    loss = loss_of(toy.recipe(**options), logits, labels, smoothing=0.0, weights=weights)
    assert result.epochs[0].train_loss == pytest.approx(loss.item(), rel=1e-5)


def test_the_best_checkpoint_is_that_of_the_epoch_with_the_best_map(toy, tmp_path):
    """In a run in which another epoch is the best by top-1, where equal, and loss."""
    batches, kind = several(toy)
    options = {"optimizer": "sgd", "lr": 0.1, "ema_decay": 0.0, "loss": "bce", "bce_scale": 10.0, "seed": 3}
    data = dataclasses.replace(kind, noise=20.0)
    result = toy.train(tmp_path, 4, batches=batches, data=data, keep_best=True, **options)
    by_map, by_top1 = (
        max(result.epochs, key=lambda epoch, name=name: (getattr(epoch.val, name), -epoch.val.loss)).epoch
        for name in ("map_sample", "top1")
    )
    assert result.best_epoch == by_map != by_top1


def test_an_evaluation_holds_probabilities_and_all_labels(toy):
    batches, data = several(toy)
    got = evaluate(toy.network(), data, toy.CONFIG, toy.recipe(), "val", batches=batches)
    assert got.targets.shape == got.probabilities.shape == (12, 4)
    assert got.targets.sum(1).tolist() == [2.0] * 12
    right = got.targets.gather(1, got.predictions[:, None]).squeeze(1).bool()
    assert torch.equal(right, got.labels == got.predictions)
    assert got.metrics.top1 == pytest.approx(right.double().mean().item())
    one = evaluate(toy.network(), toy.Toy(), toy.CONFIG, toy.recipe(), "val", batches=toy.ToyBatches())
    assert one.targets is None
    torch.testing.assert_close(one.probabilities.sum(1), torch.ones(12))


def test_cross_entropy_on_several_labels_is_refused(toy, tmp_path):
    batches, data = several(toy)
    with pytest.raises(ConfigError, match=r"recipe.loss must be bce, lsep or warp for data with several labels"):
        toy.train(tmp_path, 1, batches=batches, data=data)


def test_a_balance_of_classes_with_several_labels_is_refused(toy, tmp_path):
    batches, data = several(toy)
    with pytest.raises(
        ConfigError, match=r"recipe.balance must be none for data with several labels per video, but is even"
    ):
        toy.train(tmp_path, 1, batches=batches, data=data, loss="bce", balance="even")


def test_metrics_of_one_label_are_recorded_as_before():
    metrics = Metrics(top1=0.5, top5=1.0, loss=1.0, num_clips=4)
    assert metrics.plain() == {"top1": 0.5, "top5": 1.0, "loss": 1.0, "num_clips": 4}
    assert metrics.accuracy == 0.5
