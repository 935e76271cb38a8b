"""Outputs equal to torchvision's networks after their weights were copied."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import video

from search_spaces.catalogue import build, preset
from search_spaces.pretrained import LAYOUTS, load_by_name


@pytest.mark.parametrize(
    ("name", "make", "layout"),
    [
        ("r3d_18", video.r3d_18, "torchvision, VMZ"),
        ("mc3_18", video.mc3_18, "torchvision, VMZ"),
        ("r2plus1d_18_torchvision", video.r2plus1d_18, "torchvision, VMZ: (2+1)D"),
    ],
)
def test_outputs_equal_torchvision(name, make, layout):
    torch.manual_seed(0)
    theirs = make(num_classes=17)
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm3d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
    nn.init.normal_(theirs.fc.bias)
    ours = build(preset(name), num_classes=17)
    loaded = load_by_name(ours, theirs.state_dict())
    assert (loaded.layout, loaded.share, loaded.left, loaded.unused) == (layout, 1, (), 0)

    clips = torch.randn(2, 3, 8, 40, 48)
    for mode in (False, True):
        ours.train(mode)
        theirs.train(mode)
        with torch.no_grad():
            expected, found = theirs(clips), ours(clips)
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_fresh_weights_have_torchvisions_distributions():
    """Deviation of each convolution and of the classifier; the draws themselves differ in order."""
    torch.manual_seed(0)
    theirs, ours = video.r3d_18(num_classes=100), build(preset("r3d_18"), num_classes=100)
    names = {LAYOUTS["torchvision, VMZ"].their_name(key): key for key in ours.state_dict()}
    for key, value in theirs.state_dict().items():
        mine = ours.state_dict()[names[key]]
        if value.dim() > 1:
            assert float(mine.std()) == pytest.approx(float(value.std()), rel=0.1)
        else:
            assert torch.equal(mine, value)
