"""The losses are what their papers define, written out plainly here; their gradients are those of the definitions."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from trainer.config import ConfigError
from trainer.losses import bce, class_weights, cross_entropy, loss_of, lsep, warp
from trainer.recipe import Recipe


def plain_lsep(logits, targets):
    total = 0.0
    for row, labels in zip(logits, targets, strict=True):
        pairs = [torch.exp(row[a] - row[p]) for p in range(len(row)) for a in range(len(row)) if labels[p] > labels[a]]
        total = total + (torch.log(1 + sum(pairs)) if pairs else 0 * row.sum())
    return total / len(logits)


def plain_warp(logits, targets):
    total = 0.0
    for row, labels in zip(logits, targets, strict=True):
        present = [k for k in range(len(row)) if labels[k]]
        for p in present:
            over = [1 - row[p] + row[a] for a in range(len(row)) if not labels[a]]
            over = [hinge for hinge in over if hinge > 0]
            ranked = sum(1 / (k + 1) for k in range(len(over)))
            total = total + sum(ranked * hinge / len(over) for hinge in over) / len(present)
    return (total + 0 * logits.sum()) / len(logits)


def plain_bce(logits, targets):
    probabilities = torch.sigmoid(logits)
    return -(targets * probabilities.log() + (1 - targets) * (1 - probabilities).log()).mean()


PLAIN = {"lsep": (lsep, plain_lsep), "warp": (warp, plain_warp), "bce": (bce, plain_bce)}


@st.composite
def batches(draw):
    num_clips, num_classes = draw(st.integers(1, 5)), draw(st.integers(2, 7))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    logits = 3 * torch.randn(num_clips, num_classes, generator=generator, dtype=torch.float64)
    share = draw(st.sampled_from([0.0, 0.2, 0.5, 1.0]))
    return logits, (torch.rand(num_clips, num_classes, generator=generator) < share).double()


def with_gradient(function, logits, targets):
    logits = logits.clone().requires_grad_()
    value = function(logits, targets)
    value.backward()
    return value.detach(), logits.grad


@pytest.mark.parametrize("name", PLAIN)
@settings(deadline=None, max_examples=40)
@given(batch=batches())
def test_value_and_gradient_are_those_of_the_definition(name, batch):
    ours, plain = PLAIN[name]
    for got, expected in zip(with_gradient(ours, *batch), with_gradient(plain, *batch), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", PLAIN)
@settings(deadline=None, max_examples=15)
@given(batch=batches())
def test_gradients_are_finite_differences(name, batch):
    logits, targets = batch
    loss = PLAIN[name][0]
    _, gradient = with_gradient(loss, logits, targets)
    towards = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = 1e-6
    slope = (loss(logits + step * towards, targets) - loss(logits - step * towards, targets)) / (2 * step)
    assert slope.item() == pytest.approx((gradient * towards).sum().item(), abs=1e-5, rel=1e-4)


@pytest.mark.parametrize("name", ["lsep", "warp"])
@settings(deadline=None, max_examples=20)
@given(batch=batches(), shift=st.floats(-50, 50))
def test_ranking_losses_see_order_alone(name, batch, shift):
    logits, targets = batch
    loss = PLAIN[name][0]
    torch.testing.assert_close(loss(logits + shift, targets), loss(logits, targets))
    assert loss(100 * targets, targets).item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", PLAIN)
@settings(deadline=None, max_examples=20)
@given(batch=batches(), cut=st.integers(1, 4))
def test_the_loss_of_a_batch_is_the_mean_of_those_of_its_parts(name, batch, cut):
    logits, targets = batch
    loss = PLAIN[name][0]
    parts = [(a, b) for a, b in zip(logits.split(cut), targets.split(cut), strict=True)]
    mean = sum(len(a) * loss(a, b) for a, b in parts) / len(logits)
    torch.testing.assert_close(loss(logits, targets), mean)


@pytest.mark.parametrize("name", PLAIN)
def test_large_scores_give_finite_losses_and_gradients(name):
    logits = torch.tensor([[3e4, -3e4, 0.0], [-3e4, 3e4, 0.0]])
    targets = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    value, gradient = with_gradient(PLAIN[name][0], logits, targets)
    assert math.isfinite(value)
    assert gradient.isfinite().all()


def test_bce_is_scaled_smoothed_and_weighted():
    logits, targets = torch.randn(4, 5), torch.eye(5)[:4]
    torch.testing.assert_close(bce(logits, targets, scale=160.0), 160 * bce(logits, targets))
    torch.testing.assert_close(bce(logits, targets, smoothing=0.2), bce(logits, 0.8 * targets + 0.04))
    weights = torch.tensor([1.0, 0.0, 2.0, 0.0, 0.0])
    columns = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    torch.testing.assert_close(bce(logits, targets, weights=weights), (columns[:, 0] + 2 * columns[:, 2]).sum() / 20)


def test_weighted_cross_entropy_counts_a_clip_alike_in_every_batch():
    logits, labels = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 1])
    weights = torch.tensor([1.0, 3.0, 0.5])
    each = F.cross_entropy(logits, labels, reduction="none") * weights[labels]
    torch.testing.assert_close(cross_entropy(logits, labels, weights=weights), each.mean())
    assert torch.equal(cross_entropy(logits, labels), F.cross_entropy(logits, labels))


def test_the_recipe_names_the_loss():
    logits, labels = torch.randn(4, 5), torch.tensor([0, 3, 1, 1])
    hot = torch.eye(5)[labels]
    for name, expected in {
        "cross_entropy": F.cross_entropy(logits, labels),
        "bce": 160 * F.binary_cross_entropy_with_logits(logits, hot),
        "lsep": lsep(logits, hot),
        "warp": warp(logits, hot),
    }.items():
        for targets in (labels, hot):
            got = loss_of(Recipe(loss=name, bce_scale=160.0), logits, targets, smoothing=0.0)
            torch.testing.assert_close(got, expected)


def test_class_weights_follow_the_number_of_videos():
    counts = torch.tensor([1, 4, 16, 0])  # 5.25 in the mean class
    expected = {
        "balanced": [5.25, 5.25 / 4, 5.25 / 16, 0],
        "sqrt": [5.25**0.5, (5.25 / 4) ** 0.5, (5.25 / 16) ** 0.5, 0],
        "frequency": [1 / 5.25, 4 / 5.25, 16 / 5.25, 0],
        "sqrt_frequency": [(1 / 5.25) ** 0.5, (4 / 5.25) ** 0.5, (16 / 5.25) ** 0.5, 0],
    }
    for kind, weights in expected.items():
        torch.testing.assert_close(class_weights(counts, kind), torch.tensor(weights, dtype=torch.float32))
    assert class_weights(counts, "none") is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "mse"}, "recipe.loss must be one of cross_entropy, bce, lsep, warp, but is mse"),
        ({"loss": "lsep", "mixup": 0.2}, "recipe.mixup must be 0 with the ranking loss lsep"),
        ({"loss": "warp", "class_weights": "sqrt"}, "recipe.class_weights must be none with the ranking loss warp"),
        ({"bce_scale": 0.0}, "recipe.bce_scale must be above 0, but is 0.0"),
        ({"class_weights": "log"}, "recipe.class_weights must be one of none, balanced"),
        ({"momentum": 1.0}, r"recipe.momentum must be in \[0, 1\), but is 1.0"),
        ({"schedule": "steps"}, r"recipe.steps must be given with schedule steps and no other, but is \[\]"),
        *(
            ({name: value}, rf"recipe.{name} must be {rule}, but is {value}")
            for value in (math.nan, math.inf)
            for name, rule in {
                "lr": "finite and above 0",
                "bce_scale": "finite and above 0",
                "warmup_epochs": "finite and at least 0",
                "weight_decay": "finite and at least 0",
                "mixup": "finite and at least 0",
                "cutmix": "finite and at least 0",
                "clip_grad": "finite and at least 0",
            }.items()
        ),
        ({"schedule": "steps", "steps": (3.0, math.nan)}, r"recipe.steps must be .* but is \[3.0, nan\]"),
        ({"schedule": "steps", "steps": (3.0, math.inf)}, r"recipe.steps must be .* finite, but is \[3.0, inf\]"),
        ({"schedule": "steps", "steps": (3.0, 2.0)}, r"recipe.steps must be ascending and above 0"),
        ({"steps": (3.0,)}, "but is .* with schedule anytime"),
        ({"accumulate": 17}, "recipe.accumulate must be at most recipe.batch_size = 16, but is 17"),
        ({"balance": "even", "class_weights": "sqrt"}, "recipe.class_weights must be none with recipe.balance even"),
        ({"compile": True, "checkpointing": True}, "recipe.checkpointing must be false with recipe.compile"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(options, words):
    with pytest.raises(ConfigError, match=words) as caught:
        Recipe(**options)
    assert "\n" not in str(caught.value)
