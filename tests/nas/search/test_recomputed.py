"""Activation checkpointing in the families that are searched: all of a network is in blocks, and learns the same."""

from __future__ import annotations

import pytest
import torch

from search_spaces.catalogue import build, preset
from tests.conformance.test_networks import clip_of, narrow_preset
from trainer.learner import Learner, blocks_of
from trainer.recipe import Recipe

NETWORKS = ("r2plus1d_18", "p3d_50", "besnet_50", "s3d_g", "s3d_v3", "slowfast_4x16_r50", "x3d_xs", "tin_r50", "c3d")


@pytest.mark.parametrize("name", NETWORKS)
def test_nearly_all_parameters_are_in_blocks(name):
    with torch.device("meta"):
        model = build(preset(name), num_classes=4)
    inside = sum(parameter.numel() for block in blocks_of(model) for parameter in block.parameters())
    assert inside >= 0.9 * sum(parameter.numel() for parameter in model.parameters())
    assert len(blocks_of(model)) >= 5


@pytest.mark.parametrize("name", ["besnet_50", "s3d_v3"])  # random dilations; an auxiliary classifier
def test_a_network_learns_the_same(name):
    def weights(checkpointing):
        torch.manual_seed(0)
        spec = narrow_preset(name)
        model = build(spec, num_classes=4, dropout=0.5)
        learner = Learner(model, Recipe(precision="fp32", checkpointing=checkpointing), torch.device("cpu"))
        learner.training(1)
        clips = torch.randn(2, 3, *clip_of(spec))
        for done in (1, 2):
            learner.step(clips, torch.tensor([0, 3]), lr=1e-3, share=None, num_classes=4, done=done)
        return model.state_dict()

    plain, again = weights(False), weights(True)
    different = [name for name, value in plain.items() if not torch.equal(value, again[name])]
    assert not different
