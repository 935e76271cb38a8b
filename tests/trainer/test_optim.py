from __future__ import annotations

import math
import warnings
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.scheduler import CosineLRScheduler
from torch import nn

from trainer.learner import Learner
from trainer.losses import mixup, mixup_shares
from trainer.optim import average_of, lr_at, make_optimizer, set_lr
from trainer.recipe import Recipe


def rates(recipe, epochs, num_steps):
    return [
        lr_at(recipe, epoch=epoch, step=step, num_steps=num_steps)
        for epoch in range(1, epochs + 1)
        for step in range(num_steps)
    ]


def test_anytime_warms_up_and_stays():
    assert rates(Recipe(lr=0.8, warmup_epochs=1.0), 3, 4) == pytest.approx([0.2, 0.4, 0.6] + 9 * [0.8])
    assert rates(Recipe(lr=0.8, warmup_epochs=1.5), 2, 2) == pytest.approx([0.8 / 3, 1.6 / 3, 0.8, 0.8])
    assert rates(Recipe(lr=0.8, warmup_epochs=0.0), 1, 3) == [0.8] * 3


@given(epochs=st.integers(0, 50), warmup=st.floats(0, 5), num_steps=st.integers(1, 20))
def test_anytime_knows_no_horizon(epochs, warmup, num_steps):
    made = [Recipe(epochs=n, warmup_epochs=warmup) for n in (0, epochs)]
    assert rates(made[0], 6, num_steps) == rates(made[1], 6, num_steps)


def test_cosine_is_that_of_timm():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = CosineLRScheduler(optimizer, t_initial=40, lr_min=0.0)
    expected = [theirs._get_lr(t)[0] for t in range(40)]
    ours = Recipe(schedule="cosine", epochs=10, lr=0.5, warmup_epochs=0.0)
    assert rates(ours, 10, 4) == pytest.approx(expected, abs=1e-12)


def test_cosine_after_its_warm_up():
    got = rates(Recipe(schedule="cosine", epochs=5, lr=1.0, warmup_epochs=1.0), 5, 4)
    assert got[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert got[4:] == pytest.approx([(1 + math.cos(math.pi * t / 16)) / 2 for t in range(16)])


def test_onecycle_is_that_of_torch():
    # Torch's last step has the lowest rate, ours comes one step before it: hence 41 steps there, 40 here.
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=0.5,
        total_steps=41,
        pct_start=13 / 41,
        div_factor=25,
        final_div_factor=1e12,
        cycle_momentum=False,
    )
    expected = []
    for _ in range(40):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    recipe = Recipe(schedule="onecycle", epochs=10, lr=0.5)
    assert rates(recipe, 10, 4) == pytest.approx(expected, abs=1e-9)


@given(
    schedule=st.sampled_from(["anytime", "cosine", "onecycle"]),
    warmup=st.floats(0, 30),
    epochs=st.integers(1, 20),
    num_steps=st.integers(1, 9),
)
def test_rates_stay_between_zero_and_the_peak(schedule, warmup, epochs, num_steps):
    recipe = Recipe(schedule=schedule, epochs=epochs, warmup_epochs=warmup, lr=0.3)
    assert all(0 < lr <= 0.3 for lr in rates(recipe, epochs, num_steps))


def test_norms_and_biases_do_not_decay():
    model = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.Linear(4, 2))
    groups = make_optimizer(model, Recipe(weight_decay=0.1)).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert {name: decay[id(p)] for name, p in model.named_parameters()} == {
        "0.weight": 0.1, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0, "2.weight": 0.1, "2.bias": 0.0,
    }  # fmt: skip


def test_set_lr_reaches_every_group():
    optimizer = make_optimizer(nn.Linear(3, 2), Recipe(weight_decay=0.1))
    assert len(optimizer.param_groups) == 2
    set_lr(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb", "lion", "nadamw", "adan", "rmsprop", "muon", "adopt"])
def test_optimisers_of_timm_step_without_warnings(name):
    model = nn.Sequential(nn.Conv3d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = make_optimizer(model, Recipe(optimizer=name, weight_decay=0.1, lr=0.01))
        before = model[0].weight.detach().clone()
        for _ in range(2):
            model(torch.randn(2, 3, 3, 3, 3)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert not torch.equal(before, model[0].weight)


def test_the_fused_step_is_the_plain_step():
    results = []
    for fused in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(6, 5)
        optimizer = make_optimizer(model, Recipe(weight_decay=0.1, lr=0.01))
        assert all(group["fused"] for group in optimizer.param_groups)
        for group in optimizer.param_groups:
            group["fused"] = fused
        for _ in range(3):
            model(torch.ones(2, 6)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        results.append(model.weight.detach().clone())
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-7)


def test_the_average_leaves_the_initial_weights_at_once():
    model = nn.BatchNorm1d(1)
    average = average_of(model, Recipe(ema_decay=0.99))
    values = []
    for step in range(1, 9):
        for value in (model.weight.data, model.running_mean):
            value.fill_(float(step))
        average.update(model, step=step)
        values.append(average.module.weight.item())
        assert average.module.running_mean.item() == average.module.weight.item()
    assert values[0] == 1.0  # a copy; nothing of the initial 1 or 0 is left
    expected = 1.0
    for step, value in enumerate(values[1:], start=2):
        decay = 1 - step ** (-2 / 3)
        expected = decay * expected + (1 - decay) * step
        assert value == pytest.approx(expected, rel=1e-5)


def test_the_average_reaches_the_recipes_decay():
    average = average_of(nn.Linear(1, 1), Recipe(ema_decay=0.9))
    assert average.get_decay(10_000) == 0.9
    assert average_of(nn.Linear(1, 1), Recipe(ema_decay=0.0)) is None


@given(share=st.floats(0, 1), smoothing=st.floats(0, 0.5))
def test_mixup_mixes_clips_and_targets_by_the_same_share(share, smoothing):
    clips = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 3, 2, 2, 2).contiguous()
    labels = torch.tensor([0, 1, 2, 2])
    before = clips.clone()
    mixed, targets = mixup(clips, labels, share=share, num_classes=3, smoothing=smoothing)
    assert torch.equal(clips, before)
    expected = share * before + (1 - share) * before.flip(0)
    torch.testing.assert_close(mixed, expected)
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    spread = smoothing / 3
    sharp = (targets - spread) / (1 - smoothing)
    wanted = torch.eye(3)[labels] * share + torch.eye(3)[labels.flip(0)] * (1 - share)
    torch.testing.assert_close(sharp, wanted, atol=1e-5, rtol=1e-5)


def test_soft_targets_with_a_share_of_one_are_label_smoothing():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 2, 1])
    clips = torch.randn(5, 3, 1, 1, 1)
    mixed, targets = mixup(clips, labels, share=1.0, num_classes=3, smoothing=0.2)
    assert torch.equal(mixed, clips)
    torch.testing.assert_close(
        nn.functional.cross_entropy(logits, targets),
        nn.functional.cross_entropy(logits, labels, label_smoothing=0.2),
    )


def test_mixup_shares_are_of_seed_and_epoch():
    def first(seed, epoch, alpha=0.4):
        return list(islice(mixup_shares(Recipe(mixup=alpha), seed=seed, epoch=epoch), 200))

    assert first(0, 1) == first(0, 1)
    assert first(0, 1) != first(0, 2)
    assert first(0, 1) != first(1, 1)
    assert 0.4 < sum(first(0, 1)) / 200 < 0.6
    assert all(0 <= share <= 1 for share in first(0, 1))
    assert first(0, 1, alpha=0.0) == [None] * 200


def test_mixup_reaches_the_loss(toy, tmp_path):
    plain = toy.train(tmp_path / "plain", 2)
    mixed = toy.train(tmp_path / "mixed", 2, mixup=0.4)
    smooth = toy.train(tmp_path / "smooth", 2, label_smoothing=0.2)
    losses = {result.epochs[0].train_loss for result in (plain, mixed, smooth)}
    assert len(losses) == 3


def test_clip_grad_bounds_the_step(toy, tmp_path):
    def weights():
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    class Watch(toy.ToyBatches):
        def train_batches(self, *args, **options):
            for batch in super().train_batches(*args, **options):
                before = weights()
                yield batch
                norms.append((weights() - before).norm().item())

    for clip_grad, bounded in ((0.01, True), (0.0, False)):
        norms, model = [], toy.network()
        sgd = {"optimizer": "momentum", "lr": 1.0, "weight_decay": 0.0}
        toy.train(tmp_path / str(clip_grad), 1, model=model, batches=Watch(), clip_grad=clip_grad, **sgd)
        # With momentum 0.9 the n-th step is at most 1 + 0.9 + 0.81 + ... times the clipped gradient.
        assert len(norms) == 3
        assert (max(norms) <= 0.0272) == bounded


def test_ema_is_what_is_evaluated(toy, tmp_path):
    kept = toy.train(tmp_path / "ema", 3, ema_decay=0.99)
    plain = toy.train(tmp_path / "plain", 3, ema_decay=0.0)
    assert [e.train_loss for e in kept.epochs] == [e.train_loss for e in plain.epochs]
    assert kept.epochs[-1].val != plain.epochs[-1].val
    assert "/ema/0.weight" in toy.tensors(tmp_path / "ema")
    assert "/ema/0.weight" not in toy.tensors(tmp_path / "plain")


def test_mixed_targets_are_smoothed_once(toy):
    clips, labels = torch.randn(4, 3, 4, 8, 8), torch.tensor([0, 1, 2, 3])
    recipe = toy.recipe(mixup=0.4, label_smoothing=0.3)

    def loss(share):
        learner = Learner(toy.network(dropout=0.0).train(), recipe, torch.device("cpu"))
        return learner.step(clips, labels, lr=0.1, share=share, num_classes=4, done=1)

    torch.testing.assert_close(loss(1.0), loss(None))


def test_the_average_warms_up_once_in_a_run_and_not_in_each_epoch(toy, tmp_path):
    recipe = toy.recipe(ema_decay=0.99)
    learner = Learner(toy.network(dropout=0.0), recipe, torch.device("cpu"))
    learner.training(1)
    done = 0
    for epoch in (1, 2):
        batches = toy.ToyBatches().train_batches(
            toy.Toy(), toy.CONFIG, batch_size=recipe.batch_size, seed=0, epoch=epoch, device="cpu"
        )
        for clips, labels in batches:
            done += 1
            learner.step(clips, labels, lr=recipe.lr, share=None, num_classes=4, done=done)
    toy.train(tmp_path, 2, model=toy.network(dropout=0.0), ema_decay=0.99)
    kept = toy.tensors(tmp_path)
    for name, value in learner.evaluated.state_dict().items():
        torch.testing.assert_close(kept[f"/ema/{name}"], value, msg=name)
