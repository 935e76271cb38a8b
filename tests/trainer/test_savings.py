"""What saves memory or time and learns the same: accumulation, recomputation, compiling; and frozen norms."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from trainer.config import ConfigError
from trainer.learner import Learner, blocks_of, recomputed
from trainer.recipe import Recipe


class Block(nn.Module):
    def __init__(self, width, dropout=0.0):
        super().__init__()
        self.conv = nn.Conv3d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, clips):
        return clips + self.dropout(F.relu(self.norm(self.conv(clips))))


class Blocks(nn.Module):
    """A stem of plain layers, two stages of blocks, a classifier."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU())
        self.stages = nn.Sequential(
            nn.Sequential(Block(8, dropout), Block(8, dropout)), nn.Sequential(Block(8, dropout))
        )
        self.head = nn.Linear(8, 4)

    def forward(self, clips):
        return self.head(self.stages(self.stem(clips)).mean((2, 3, 4)))


def blocks(dropout=0.0):
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        return Blocks(dropout)


def without_norms(toy):
    model = toy.network(dropout=0.0)
    model[1] = nn.Identity()
    return model


@pytest.mark.parametrize("parts", [2, 3, 8])
@pytest.mark.parametrize("loss", ["cross_entropy", "bce", "lsep", "warp"])
def test_accumulated_gradients_are_those_of_the_batch(toy, tmp_path, parts, loss):
    """Batches of 8, in equal parts or not, without batch normalisation."""
    options = {"loss": loss, "optimizer": "sgd", "clip_grad": 1.0, "mixup": 0.4 if loss == "bce" else 0.0}
    whole = toy.train(tmp_path / "whole", 2, model=without_norms(toy), **options)
    split = toy.train(tmp_path / "split", 2, model=without_norms(toy), accumulate=parts, **options)
    for a, b in zip(whole.epochs, split.epochs, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-5)
        assert a.val.loss == pytest.approx(b.val.loss, rel=1e-5)
        assert (a.steps, a.lr) == (b.steps, b.lr)


def test_an_accumulated_batch_passes_in_parts(toy, tmp_path):
    sizes = []
    model = toy.network()
    model.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)) if module.training else None)
    toy.train(tmp_path, 1, model=model, accumulate=3)
    assert sizes == [3, 3, 2] * 3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_is_computed_again_is_the_same_to_the_last_bit(toy, tmp_path, precision):
    """Weights, running statistics and counts; with dropout, which has to draw the same numbers again."""
    for name, checkpointing in (("plain", False), ("again", True)):
        model = blocks(dropout=0.3)
        toy.train(tmp_path / name, 2, model=model, precision=precision, checkpointing=checkpointing)
        assert "forward" not in vars(model.stages[0][0])  # the network is handed back as it was
    toy.same_run(tmp_path / "plain", tmp_path / "again")


def test_blocks_are_what_stands_in_a_row(toy):
    model = blocks()
    assert blocks_of(model) == [model.stem, *model.stages[0], *model.stages[1]]
    plain = toy.network()
    assert blocks_of(plain) == [plain]
    assert blocks_of(nn.Linear(2, 2)) == []


def test_blocks_keep_their_inputs_alone():
    def kept(checkpointing):
        model, clips = blocks().train(), torch.randn(2, 3, 4, 8, 8)
        sizes = []

        def note(tensor):
            sizes.append(tensor.numel())
            return tensor

        noting = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
        with recomputed(blocks_of(model) if checkpointing else []), noting:
            model(clips).sum()
        return sum(sizes)

    assert kept(True) < 0.5 * kept(False)


def test_frozen_norms_keep_their_statistics_and_learn_their_weights(toy, tmp_path):
    model = toy.network()
    model[1].running_mean.fill_(0.25)
    result = toy.train(tmp_path, 3, model=model, frozen_bn=True)
    assert torch.equal(model[1].running_mean, torch.full((8,), 0.25))
    assert torch.equal(model[1].running_var, torch.ones(8))
    assert not torch.equal(model[1].weight, torch.ones(8))
    assert result.epochs[-1].train_loss < result.epochs[0].train_loss


def step_of(recipe, model):
    learner = Learner(model, recipe, torch.device("cpu"))
    learner.training(1)
    generator = torch.Generator().manual_seed(0)
    clips, labels = torch.randn(4, 3, 4, 8, 8, generator=generator), torch.arange(4)
    return [learner.step(clips, labels, lr=0.1, share=None, num_classes=4, done=n).item() for n in (1, 2, 3)]


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(toy, tmp_path):
    """By gradient descent: AdamW makes steps of full size of gradients that are nothing but rounding."""
    options = {"optimizer": "sgd", "compile": True}
    plain = toy.train(tmp_path / "plain", 2, model=blocks(), optimizer="sgd")
    fast = toy.train(tmp_path / "compiled", 2, model=blocks(), **options)
    for a, b in zip(plain.epochs, fast.epochs, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-5)
        assert a.val.loss == pytest.approx(b.val.loss, rel=1e-5)
    assert toy.tensors(tmp_path / "plain").keys() == toy.tensors(tmp_path / "compiled").keys()
    toy.train(tmp_path / "parts", 1, model=blocks(), **options)
    toy.train(tmp_path / "parts", 2, model=blocks(), **options)
    toy.same_run(tmp_path / "parts", tmp_path / "compiled")


def test_compiling_without_a_compiler_is_refused_in_one_line(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"recipe.compile needs a C\+\+ compiler, but there is no no-such-compiler"):
        toy.train(tmp_path, 1, compile=True)


@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({"optimizer": "sgd"}, {"momentum": 0.9, "nesterov": True}),
        ({"optimizer": "sgd", "momentum": 0.5}, {"momentum": 0.5, "nesterov": True}),
        ({"optimizer": "sgd", "momentum": 0.9, "nesterov": False}, {"momentum": 0.9}),
        ({"optimizer": "sgd", "momentum": 0.0}, {"momentum": 0.0}),
    ],
)
def test_momentum_is_that_of_torch(options, theirs):
    model = blocks()
    got = step_of(Recipe(precision="fp32", weight_decay=0.0, ema_decay=0.0, channels_last=False, **options), model)
    plain = blocks().train()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, **theirs)
    generator = torch.Generator().manual_seed(0)
    clips, labels = torch.randn(4, 3, 4, 8, 8, generator=generator), torch.arange(4)
    expected = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.cross_entropy(plain(clips), labels)
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    assert got == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"momentum": 0.8}, "recipe.momentum must be left out with an optimiser that has none, but is 0.8 with adamw"),
        ({"optimizer": "sgd", "momentum": 0.0, "nesterov": True}, "recipe.nesterov must be left out with"),
    ],
)
def test_momentum_that_an_optimiser_lacks_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        step_of(Recipe(**options), blocks())
