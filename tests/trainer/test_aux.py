"""Auxiliary classifiers: a network that returns their logits in training is trained on all, and judged by its own."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainer.config import ConfigError
from trainer.evaluate import evaluate
from trainer.learner import Learner
from trainer.losses import loss_of, mixup
from trainer.recipe import Recipe


class Sided(nn.Module):
    """One shared layer, a classifier, and side classifiers that are there in training alone."""

    def __init__(self, num_sides=2, side_classes=4, always=False):
        super().__init__()
        self.always = always
        self.shared = nn.Linear(6, 5)
        self.main = nn.Linear(5, 4)
        self.sides = nn.ModuleList(nn.Linear(5, side_classes) for _ in range(num_sides))

    def forward(self, clips):
        features = self.shared(clips[:, :, :2, 0, 0].flatten(1))
        logits = self.main(features)
        if not (self.training or self.always):
            return logits
        return (logits, *(side(features) for side in self.sides))


def sided(**options):
    torch.manual_seed(0)
    return Sided(**options)


def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, 4, 8, 8, generator=generator), torch.randint(4, (8,), generator=generator)


def stepped(model, recipe, share=None, weights=None):
    """The loss of one step of plain gradient descent of rate 1."""
    learner = Learner(model, recipe, torch.device("cpu"), weights=weights)
    clips, labels = batch()
    return learner.step(clips, labels, lr=1.0, share=share, num_classes=4, done=1)


def plain(**changes):
    return Recipe(**{"precision": "fp32", "optimizer": "sgd", "weight_decay": 0.0, "ema_decay": 0.0, **changes})


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("share", [None, 0.3])
def test_the_loss_is_that_of_the_network_and_the_weighted_ones_of_its_sides(smoothing, share):
    clips, targets = batch()
    rest = smoothing
    if share is not None:
        clips, targets = mixup(clips, targets, share=share, num_classes=4, smoothing=smoothing)
        rest = 0.0
    main, *sides = sided().train()(clips)
    losses = [F.cross_entropy(logits, targets, label_smoothing=rest) for logits in (main, *sides)]
    loss = stepped(sided(), plain(aux_weight=0.25, label_smoothing=smoothing), share)
    torch.testing.assert_close(loss, losses[0] + 0.25 * (losses[1] + losses[2]))


def test_weights_of_classes_are_those_of_the_sides_too():
    weights = torch.tensor([0.1, 1.0, 2.0, 3.0])
    clips, labels = batch()
    main, side = sided(num_sides=1).train()(clips)
    recipe = plain(aux_weight=0.5)
    losses = [loss_of(recipe, logits, labels, smoothing=0.0, weights=weights) for logits in (main, side)]
    unweighted = loss_of(recipe, side, labels, smoothing=0.0, weights=None)
    assert not torch.isclose(losses[1], unweighted)
    torch.testing.assert_close(stepped(sided(num_sides=1), recipe, weights=weights), losses[0] + 0.5 * losses[1])


def test_the_weight_is_the_authors_unless_stated():
    clips, labels = batch()
    main, side = sided(num_sides=1).train()(clips)
    expected = F.cross_entropy(main, labels) + 0.4 * F.cross_entropy(side, labels)
    torch.testing.assert_close(stepped(sided(num_sides=1), plain()), expected)


def test_sides_learn_and_teach_what_is_before_them():
    first, without, with_sides = sided(), sided(), sided()
    stepped(without, plain(aux_weight=0.0))
    stepped(with_sides, plain(aux_weight=0.4))
    assert torch.equal(without.sides[0].weight, first.sides[0].weight)
    assert not torch.equal(with_sides.sides[0].weight, first.sides[0].weight)
    assert not torch.equal(with_sides.shared.weight, without.shared.weight)
    assert torch.equal(with_sides.main.weight, without.main.weight)


def test_a_side_with_other_classes_is_refused():
    with pytest.raises(ConfigError, match=r"must give logits \(N, 4\).*but gives \(8, 3\)"):
        stepped(sided(side_classes=3), plain())


def test_a_network_that_gives_its_sides_in_evaluation_is_refused(toy):
    with pytest.raises(ConfigError, match=r"must give logits .* but gives tuple"):
        evaluate(sided(always=True), toy.Toy(), toy.CONFIG, plain(), "val", batches=toy.ToyBatches())


def test_training_reports_the_whole_loss_and_judges_by_the_network_alone(toy, tmp_path):
    torch.manual_seed(0)

    class SidedToy(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.side = toy.network(dropout=0.0), toy.network(dropout=0.0)

        def forward(self, clips):
            return (self.main(clips), self.side(clips)) if self.training else self.main(clips)

    plainly = toy.train(tmp_path / "plain", 2, model=toy.network(dropout=0.0), ema_decay=0.0).epochs
    sided = toy.train(tmp_path / "sided", 2, model=SidedToy(), ema_decay=0.0).epochs
    assert [e.val for e in sided] == [e.val for e in plainly]
    for a, b in zip(sided, plainly, strict=True):  # the side learns as the network does
        assert a.train_loss == pytest.approx(1.4 * b.train_loss, rel=1e-5)


def test_a_run_that_began_without_the_setting_goes_on(toy, tmp_path):
    toy.train(tmp_path, 1)
    assert "recipe.aux_weight" not in torch.load(tmp_path / "last.pt", weights_only=True)["run"]
    toy.train(tmp_path, 2, aux_weight=0.4)
    with pytest.raises(ConfigError, match=r"recipe.aux_weight is 0.3 and was None"):
        toy.train(tmp_path, 3, aux_weight=0.3)


def test_a_weight_below_0_is_refused():
    with pytest.raises(ConfigError, match=r"recipe.aux_weight must be at least 0, but is -0.1"):
        Recipe(aux_weight=-0.1)
