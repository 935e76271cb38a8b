"""Stretches of training on other clips, with a schedule each; and the schedule of milestones."""

from __future__ import annotations

import dataclasses

import pytest

from trainer.config import Clip, ConfigError
from trainer.optim import lr_at
from trainer.phases import data_at
from trainer.recipe import Phase, Recipe


def rates(recipe, epochs, num_steps):
    return [lr_at(recipe, epoch=e, step=s, num_steps=num_steps) for e in range(1, epochs + 1) for s in range(num_steps)]


def test_the_rate_drops_at_each_milestone():
    recipe = Recipe(schedule="steps", steps=(1.0, 2.5), lr=1.0, warmup_epochs=0.0)
    assert rates(recipe, 4, 4) == pytest.approx([1.0] * 4 + [0.1] * 6 + [0.01] * 6)
    halved = dataclasses.replace(recipe, step_factor=0.5, warmup_epochs=0.5)
    assert rates(halved, 3, 4) == pytest.approx([0.5, 1.0, 1.0, 1.0] + [0.5] * 6 + [0.25] * 2)


def test_the_steps_of_p3d():
    """A tenth every 3,000 of 7,500 iterations (Qiu et al. 2017), here of 10 epochs with 750 each."""
    recipe = Recipe(schedule="steps", steps=(4.0, 8.0), lr=1e-3, warmup_epochs=0.0, optimizer="sgd", momentum=0.9)
    got = rates(recipe, 10, 750)
    assert got == pytest.approx([1e-3] * 3000 + [1e-4] * 3000 + [1e-5] * 1500)


def test_each_phase_has_a_schedule_of_its_own():
    recipe = Recipe(
        schedule="cosine",
        epochs=5,
        lr=1.0,
        warmup_epochs=1.0,
        phases=(Phase(epochs=3, frames=8), Phase(epochs=2, frames=32, lr=0.1)),
    )
    first, second = (Recipe(schedule="cosine", epochs=n, lr=lr, warmup_epochs=1.0) for n, lr in ((3, 1.0), (2, 0.1)))
    assert rates(recipe, 5, 4) == rates(first, 3, 4) + rates(second, 2, 4)


def test_the_last_phase_goes_on_where_the_schedule_can():
    recipe = Recipe(lr=1.0, warmup_epochs=0.0, phases=(Phase(epochs=1), Phase(epochs=1, lr=0.5)))
    assert rates(recipe, 4, 1) == [1.0, 0.5, 0.5, 0.5]


def test_a_phase_trains_on_its_clips_and_all_are_judged_by_the_datas(toy, tmp_path):
    seen = []

    class Watched(toy.ToyBatches):
        def train_batches(self, data, config, **options):
            seen.append(config.clip)
            return super().train_batches(data, config, **options)

    judged = []

    class Judged(Watched):
        def eval_batches(self, data, config, **options):
            judged.append(config.clip)
            return super().eval_batches(data, config, **options)

    phases = (Phase(epochs=2, frames=2, size=6), Phase(epochs=1, frames=4, lr=0.001))
    options = {"schedule": "cosine", "epochs": 3, "phases": phases}
    result = toy.train(tmp_path / "whole", 3, batches=Judged(), **options)
    small = Clip(frames=2, height=6, width=6)
    assert seen == [small, small, toy.CLIP]
    assert set(judged) == {toy.CLIP}
    assert result.epochs[2].lr < 0.001
    toy.train(tmp_path / "parts", 2, **options)
    toy.train(tmp_path / "parts", 3, **options)
    toy.same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("change", [{"frames": 5}, {"frames": 3, "stride": 2}])
def test_a_phase_longer_than_the_datas_clip_is_refused(toy, tmp_path, change):
    with pytest.raises(ConfigError, match=r"at most as long as data.clip, which has 4 frames") as caught:
        toy.train(tmp_path, 1, phases=(Phase(epochs=1, **change),))
    assert "\n" not in str(caught.value)


def test_uniform_clips_have_no_span(toy):
    config = dataclasses.replace(toy.CONFIG, sampling="uniform")
    phase = Phase(epochs=1, frames=3, stride=2)
    assert data_at(config, Recipe(phases=(phase,)), 1).clip == Clip(frames=3, height=8, width=8, stride=2)


def test_phases_fill_the_horizon():
    with pytest.raises(
        ConfigError, match=r"must have recipe.epochs = 5 epochs in all with schedule cosine, but have 4"
    ):
        Recipe(schedule="cosine", epochs=5, phases=(Phase(epochs=4),))
    with pytest.raises(ConfigError, match=r"recipe.phases' epochs must be at least 1, but is 0"):
        Phase(epochs=0)


def test_recipes_without_the_new_settings_are_known_as_before():
    assert set(Recipe().identity()) == {
        "batch_size", "optimizer", "lr", "weight_decay", "schedule", "epochs", "warmup_epochs", "ema_decay",
        "label_smoothing", "mixup", "dropout", "clip_grad", "precision", "channels_last", "eval_every",
    }  # fmt: skip
    assert Recipe(phases=(Phase(epochs=1),)).identity()["phases"]
