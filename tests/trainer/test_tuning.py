"""Fine-tuning: layers that stay as they are for a while, and learning rates by depth."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from search_spaces.catalogue import build
from search_spaces.settings import network_of
from trainer.config import ConfigError
from trainer.learner import Learner
from trainer.optim import make_optimizer, set_lr
from trainer.recipe import Recipe
from trainer.tuning import groups_by_depth, layers_of, num_frozen

SMALL = {"depth": "1-1", "stem_width": 8, "stem": "1x3x3/2", "kind": "3d"}
NAMES = ["stem", "stages.0.0", "stages.0.1", "stages.1.0", "head"]


@pytest.mark.parametrize(
    ("freeze", "count"),
    [
        ("none", 0),
        ("backbone", 4),
        ("until:stages.0.1", 2),
        ("until:stages.1", 3),
        ("until:head", 4),
    ],
)
def test_layers_are_counted_from_the_input(freeze: str, count: int) -> None:
    assert num_frozen(NAMES, freeze) == count


def test_the_first_layer_has_none_before_it() -> None:
    with pytest.raises(ConfigError, match="until:stem is the first"):
        num_frozen(NAMES, "until:stem")


def test_a_layer_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"is until:stages\.2; it has stem, stages\.0, stages\.1, head$"):
        num_frozen(NAMES, "until:stages.2")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"freeze": "stem"},
            "recipe.freeze must be none, backbone or until:LAYER, such as until:stages.2, but is stem",
        ),
        ({"freeze": "until:"}, "recipe.freeze must name a layer after until:"),
        ({"freeze_epochs": 2}, "recipe.freeze_epochs must be 0 with recipe.freeze none, but is 2"),
        ({"layer_decay": 0.0}, r"recipe\.layer_decay must be in \(0, 1\], but is 0\.0"),
        ({"layer_decay": 1.1}, r"recipe\.layer_decay must be in \(0, 1\], but is 1\.1"),
        ({"head_lr": 0.0}, "recipe.head_lr must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe(**settings)  # type: ignore[arg-type]


def test_recipes_without_them_are_those_of_before() -> None:
    assert not {"freeze", "freeze_epochs", "layer_decay", "head_lr"} & set(Recipe().identity())
    assert Recipe(freeze="backbone").identity() != Recipe().identity()


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_frozen_layers_keep_values_and_statistics_until_they_thaw() -> None:
    torch.manual_seed(0)
    model = build(network_of("resnet", SMALL), num_classes=4)
    learner = Learner(model, Recipe(freeze="until:stages.1", freeze_epochs=2, lr=0.1), torch.device("cpu"))
    clips, labels = torch.randn(4, 3, 4, 16, 16), torch.arange(4)
    before = values(model)
    for epoch in (1, 2, 3):
        learner.training(epoch)
        learner.step(clips, labels, lr=0.1, share=None, num_classes=4, done=epoch)
        after = values(model)
        changed = {name for name in after if not torch.equal(after[name], before[name])}
        frozen = {name for name in changed if name.startswith(("stem.", "stages.0."))}
        assert any(name.startswith("stages.1.") for name in changed)
        assert {"head.fc.weight", "head.fc.bias"} <= changed
        assert bool(frozen) == (epoch == 3)
    assert {"stem.conv.weight", "stem.norm.running_mean", "stages.0.0.conv1.conv.weight"} <= frozen


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_training_goes_on_where_it_was_within_and_behind_the_freeze(toy, tmp_path, optimizer: str) -> None:
    settings = {"freeze": "backbone", "freeze_epochs": 2, "optimizer": optimizer}
    whole = toy.train(tmp_path / "whole", 4, **settings)
    for epochs in (1, 2, 3, 4):
        parts = toy.train(tmp_path / "parts", epochs, **settings)
    assert [(one.train_loss, one.val) for one in parts.epochs] == [(one.train_loss, one.val) for one in whole.epochs]


def test_rates_fall_towards_the_input() -> None:
    model = build(network_of("resnet", SMALL), num_classes=4)
    recipe = Recipe(layer_decay=0.5, head_lr=10.0, lr=0.1, weight_decay=0.3)
    optimizer = make_optimizer(model, recipe)
    set_lr(optimizer, 0.1)
    names = [name for name, _ in layers_of(model)]
    assert names[0] == "stem" and names[-1] == "head"
    rate = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert len(rate) == len(list(model.parameters()))
    for name, param in model.named_parameters():
        depth = len(names) - 1 - next(i for i, layer in enumerate(names) if name.startswith(f"{layer}."))
        wanted = 0.1 * (10 if depth == 0 else 0.5**depth)
        assert rate[id(param)] == (pytest.approx(wanted), 0.3 if param.ndim > 1 else 0.0)


def test_every_parameter_is_in_one_group() -> None:
    model = build(network_of("inception_v3", {"width": 0.125, "aux": True}), num_classes=4)
    model.scale = torch.nn.Parameter(torch.ones(()))
    groups = groups_by_depth(model, Recipe(layer_decay=0.9, head_lr=3.0))
    rate = {id(param): group["lr_scale"] for group in groups for param in group["params"]}
    heads = [*model.get_submodule("head").parameters(), *model.get_submodule("aux").parameters()]
    assert {rate[id(param)] for param in heads} == {3.0}
    assert rate[id(model.scale)] == min(rate.values())
    assert "aux" not in [name for name, _ in layers_of(model)]
    params = [id(param) for group in groups for param in group["params"]]
    assert sorted(params) == sorted(id(param) for param in model.parameters())
