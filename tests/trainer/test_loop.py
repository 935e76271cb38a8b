from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from trainer.checkpoint import load_weights
from trainer.config import ConfigError
from trainer.evaluate import evaluate
from trainer.failures import Stopped
from trainer.fit import fit
from trainer.metrics import from_line


def test_learns_a_separable_problem(toy, tmp_path):
    result = toy.train(tmp_path, 10)
    assert result.epochs[-1].train_loss < 0.4 * result.epochs[0].train_loss
    assert result.epochs[-1].val.top1 == 1.0
    assert result.epochs[-1].val.num_clips == 12
    assert result.resumed_from == 0
    assert result.damaged == ()


def test_the_same_run_twice_gives_the_same_bits(toy, tmp_path):
    for name in ("a", "b"):
        toy.train(tmp_path / name, 2, mixup=0.4, label_smoothing=0.1, clip_grad=1.0)
    toy.same_run(tmp_path / "a", tmp_path / "b")


def test_another_seed_gives_another_run(toy, tmp_path):
    toy.train(tmp_path / "a", 1)
    toy.train(tmp_path / "b", 1, seed=1)
    assert toy.lines(tmp_path / "a") != toy.lines(tmp_path / "b")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"precision": "bf16"},
        {"optimizer": "sgd", "schedule": "cosine", "epochs": 4, "ema_decay": 0.0},
        {"optimizer": "lamb", "mixup": 0.3, "clip_grad": 0.5, "channels_last": False, "warmup_epochs": 2.5},
    ],
    ids=["adamw", "bf16", "sgd", "lamb"],
)
def test_going_on_equals_never_stopping(toy, tmp_path, options):
    toy.train(tmp_path / "whole", 4, **options)
    toy.train(tmp_path / "parts", 2, **options)
    result = toy.train(tmp_path / "parts", 4, **options)
    assert result.resumed_from == 2
    assert [e.epoch for e in result.epochs] == [1, 2, 3, 4]
    toy.same_run(tmp_path / "parts", tmp_path / "whole")


@pytest.mark.parametrize("checkpoint_every", [1, 3])
def test_an_exception_in_mid_epoch_loses_that_epoch_alone(toy, tmp_path, checkpoint_every):
    def hook(epoch, step):
        if (epoch, step) == (3, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.train(tmp_path / "a", 4, batches=toy.ToyBatches(hook), checkpoint_every=checkpoint_every)
    assert len(toy.lines(tmp_path / "a")) == 2
    result = toy.train(tmp_path / "a", 4)
    assert result.resumed_from == (2 if checkpoint_every == 1 else 0)
    toy.train(tmp_path / "whole", 4)
    toy.same_run(tmp_path / "a", tmp_path / "whole")


def test_epochs_that_are_there_are_not_trained_again(toy, tmp_path):
    first = toy.train(tmp_path, 3)
    batches = toy.ToyBatches()
    called = []
    assert toy.train(tmp_path, 3, batches=batches, on_epoch=called.append).epochs == first.epochs
    assert toy.train(tmp_path, 2, batches=batches, on_epoch=called.append).epochs == first.epochs[:2]
    assert batches.seen == []
    assert called == []
    assert len(toy.lines(tmp_path)) == 3


def test_the_model_holds_the_last_weights(toy, tmp_path):
    models = [toy.network(), toy.network()]
    toy.train(tmp_path, 2, model=models[0])
    toy.train(tmp_path, 2, model=models[1])
    kept = toy.tensors(tmp_path)
    for model in models:
        assert torch.equal(model[0].weight, kept["/model/0.weight"])


def test_load_weights_gives_the_network_that_was_evaluated(toy, tmp_path):
    result = toy.train(tmp_path, 3)
    model = toy.network()
    assert load_weights(tmp_path / "last.pt", model) == 3
    again = evaluate(model, toy.Toy(), toy.CONFIG, toy.recipe(), "val", batches=toy.ToyBatches())
    assert again.metrics == result.epochs[-1].val


def test_lines_hold_the_results_to_the_last_bit(toy, tmp_path):
    seen = []
    result = toy.train(tmp_path, 3, on_epoch=seen.append, eval_every=2)
    lines = (tmp_path / "progress.jsonl").read_text().splitlines()
    assert tuple(from_line(line) for line in lines) == result.epochs == tuple(seen)
    assert [e.val is None for e in result.epochs] == [True, False, False]
    assert [e.steps for e in result.epochs] == [3, 3, 3]
    assert all(e.clips_per_s * e.seconds >= 24 for e in result.epochs)


def test_on_epoch_finds_its_line_and_checkpoint_on_the_disk(toy, tmp_path):
    def look(result):
        assert len(toy.lines(tmp_path)) == result.epoch
        assert torch.load(tmp_path / "last.pt", weights_only=True)["epoch"] == result.epoch

    toy.train(tmp_path, 2, on_epoch=look)


def test_checkpoints_come_every_so_many_epochs_and_at_the_end(toy, tmp_path):
    epochs = []

    def look(result):
        last = tmp_path / "last.pt"
        epochs.append(torch.load(last, weights_only=True)["epoch"] if last.exists() else 0)

    toy.train(tmp_path, 5, on_epoch=look, checkpoint_every=2)
    assert epochs == [0, 2, 2, 4, 5]


def test_stopping_leaves_the_last_checkpoint(toy, tmp_path):
    batches = toy.ToyBatches()
    with pytest.raises(Stopped) as caught:
        toy.train(tmp_path / "a", 4, batches=batches, should_stop=lambda: len(batches.seen) == 8)
    assert caught.value.epoch == 2
    assert torch.load(tmp_path / "a" / "last.pt", weights_only=True)["epoch"] == 2
    toy.train(tmp_path / "a", 4)
    toy.train(tmp_path / "whole", 4)
    toy.same_run(tmp_path / "a", tmp_path / "whole")


def test_the_callers_generator_is_left_alone(toy, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    toy.train(tmp_path, 1)
    assert torch.equal(torch.rand(4), expected)


def test_evaluation_takes_no_part_in_training(toy, tmp_path):
    toy.train(tmp_path / "often", 4, eval_every=1)
    toy.train(tmp_path / "once", 4, eval_every=4)
    often, once = toy.tensors(tmp_path / "often"), toy.tensors(tmp_path / "once")
    assert all(torch.equal(often[name], once[name]) for name in often)


def test_precision_is_what_the_recipe_says(toy, tmp_path, monkeypatch):
    kinds = []

    class Spy(nn.Linear):
        def forward(self, features):
            out = super().forward(features)
            kinds.append((self.training, out.dtype))
            return out

    def kinds_of(precision):
        kinds.clear()
        model = toy.network()
        model[-1] = Spy(32, 4)
        toy.train(tmp_path / f"{len(list(tmp_path.iterdir()))}", 1, model=model, precision=precision)
        assert {training for training, _ in kinds} == {True, False}
        return {kind for _, kind in kinds}

    assert kinds_of("fp32") == {torch.float32}
    assert kinds_of("bf16") == {torch.bfloat16}
    for able, kind in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr("trainer.device.computes_bf16", lambda device, able=able: able)
        assert kinds_of("auto") == {kind}


def test_bf16_follows_fp32(toy, tmp_path):
    full = toy.train(tmp_path / "fp32", 4, precision="fp32")
    half = toy.train(tmp_path / "bf16", 4, precision="bf16")
    for a, b in zip(full.epochs, half.epochs, strict=True):
        assert math.isclose(a.train_loss, b.train_loss, rel_tol=0.02)
    assert full.epochs != half.epochs


def test_channels_last_reaches_weights_and_clips(toy, tmp_path):
    orders = []

    class Spy(nn.Module):
        def forward(self, clips):
            orders.append(clips.is_contiguous(memory_format=torch.channels_last_3d))
            return clips

    for wanted in (True, False):
        orders.clear()
        model = nn.Sequential(Spy(), *toy.network())
        toy.train(tmp_path / str(wanted), 1, model=model, channels_last=wanted)
        assert set(orders) == {wanted}
        assert model[1].weight.is_contiguous(memory_format=torch.channels_last_3d) == wanted


def test_random_layers_differ_from_epoch_to_epoch_and_step_to_step(toy, tmp_path):
    draws = []

    class Draw(nn.Module):
        def forward(self, clips):
            if self.training:
                draws.append(torch.rand(()).item())
            return clips

    toy.train(tmp_path, 3, model=nn.Sequential(Draw(), *toy.network()))
    assert len(set(draws)) == 9


def test_train_loss_weighs_clips_alike(toy, tmp_path):
    class Uneven(toy.ToyBatches):
        def num_batches(self, data, config, *, split, batch_size, parts=1):
            return 2

        def train_batches(self, *args, **options):
            (clips, labels), (more, others), _ = super().train_batches(*args, **options)
            yield clips, labels
            yield more[:2], others[:2]

    losses = []

    def spy(logits, targets, **options):
        loss = function(logits, targets, **options)
        losses.append((loss.item(), len(targets)))
        return loss

    function = nn.functional.cross_entropy
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.losses.F.cross_entropy", spy)
        result = toy.train(tmp_path, 1, batches=Uneven())
    assert [n for _, n in losses] == [8, 2]
    assert result.epochs[0].train_loss == pytest.approx(sum(v * n for v, n in losses) / 10, rel=1e-12)
    assert result.epochs[0].steps == 2


def test_lr_of_the_line_is_that_of_the_last_step(toy, tmp_path):
    result = toy.train(tmp_path, 3, warmup_epochs=2.0, lr=0.06)
    assert [e.lr for e in result.epochs] == pytest.approx([0.03, 0.06, 0.06])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schedule": "cosine", "epochs": 3}, "until_epoch must be at most recipe.epochs = 3"),
        ({"schedule": "onecycle", "epochs": 3}, "until_epoch must be at most recipe.epochs = 3"),
        ({"checkpoint_every": 0}, "checkpoint_every must be at least 1, but is 0"),
        ({"optimizer": "adamv"}, "but is adamv; did you mean adam"),
        ({"optimizer": "adahessian"}, "but is adahessian"),
        ({"batch_size": 25}, "the training split must fill one batch"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(toy, tmp_path, options, words):
    with pytest.raises(ConfigError) as caught:
        toy.train(tmp_path, 4, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "last.pt").exists()


def test_until_epoch_below_one_is_refused(toy, tmp_path):
    with pytest.raises(ConfigError, match="until_epoch must be at least 1, but is 0"):
        toy.train(tmp_path, 0)


def test_a_network_with_other_classes_than_the_data_is_refused(toy, tmp_path):
    with pytest.raises(ConfigError, match=r"logits \(N, 4\) for the data's 4 classes, but gives \(8, 7\)"):
        toy.train(tmp_path, 1, model=toy.network(7))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "seed is 1 and was 0"),
        ({"lr": 0.02}, "recipe.lr is 0.02 and was 0.01"),
        ({"checksum": "new"}, "data checksum is new and was toy"),
        ({"width": 4}, r"0.weight is \(8, 3, 3, 3, 3\), and \(4, 3, 3, 3, 3\) in the network"),
    ],
)
def test_a_folder_goes_on_only_with_its_own_run(toy, tmp_path, changes, words):
    toy.train(tmp_path, 1)
    before = (tmp_path / "last.pt").read_bytes()
    changes = dict(changes)
    data = toy.Toy(checksum=changes.pop("checksum", "toy"))
    model = toy.network(width=changes.pop("width", 8))
    with pytest.raises(ConfigError, match=words):
        toy.train(tmp_path, 2, data=data, model=model, **changes)
    assert (tmp_path / "last.pt").read_bytes() == before
    assert len(toy.lines(tmp_path)) == 1


def test_moved_data_and_other_evaluation_go_on(toy, tmp_path):
    toy.train(tmp_path, 1)
    moved = dataclasses.replace(toy.CONFIG, root="elsewhere", cache="elsewhere", num_workers=2)
    assert toy.train(tmp_path, 2, config=moved, eval_every=2).resumed_from == 1


@pytest.mark.parametrize("options", [{"schedule": "anytime"}, {"schedule": "steps", "steps": (1.0,)}])
def test_a_horizon_that_the_schedule_does_not_use_may_change(toy, tmp_path, options):
    toy.train(tmp_path / "parts", 1, epochs=1, **options)
    assert toy.train(tmp_path / "parts", 2, epochs=2, **options).resumed_from == 1
    toy.train(tmp_path / "whole", 2, **options)
    toy.same_run(tmp_path / "parts", tmp_path / "whole")


def test_a_horizon_that_the_schedule_uses_may_not_change(toy, tmp_path):
    toy.train(tmp_path, 1, schedule="cosine", epochs=2)
    with pytest.raises(ConfigError, match=r"recipe\.epochs is 3 and was 2"):
        toy.train(tmp_path, 2, schedule="cosine", epochs=3)


def test_a_setting_put_back_to_its_default_is_another_run(toy, tmp_path):
    """Settings that came later are written down only where they are not as before."""
    toy.train(tmp_path, 1, aux_weight=0.3)
    with pytest.raises(ConfigError, match=r"recipe\.aux_weight is None and was 0\.3"):
        toy.train(tmp_path, 2)


def test_fit_defaults_to_the_data_layer():
    import inspect

    from trainer.data import clips

    assert inspect.signature(fit).parameters["batches"].default is clips
    assert inspect.signature(evaluate).parameters["batches"].default is clips
