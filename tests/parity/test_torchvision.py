"""Outputs equal to torchvision's networks after their weights were copied."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torchvision.models import video

from search_spaces.catalogue import build, preset

# Names of torchvision, as patterns, and what they are called here.
COMMON = [
    (r"fc\.(.*)", r"head.fc.\1"),
    (r"layer(\d)\.(\d+)\.downsample\.0\.(.*)", r"stages.\1.\2.shortcut.conv.\3"),
    (r"layer(\d)\.(\d+)\.downsample\.1\.(.*)", r"stages.\1.\2.shortcut.norm.\3"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.1\.(.*)", r"stages.\1.\2.conv\3.norm.\4"),
]
WHOLE = [
    (r"stem\.0\.(.*)", r"stem.conv.\1"),
    (r"stem\.1\.(.*)", r"stem.norm.\1"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.0\.(.*)", r"stages.\1.\2.conv\3.conv.\4"),
]
PAIRS = [
    (r"stem\.0\.(.*)", r"stem.conv.spatial.\1"),
    (r"stem\.1\.(.*)", r"stem.conv.norm.\1"),
    (r"stem\.3\.(.*)", r"stem.conv.temporal.\1"),
    (r"stem\.4\.(.*)", r"stem.norm.\1"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.0\.0\.(.*)", r"stages.\1.\2.conv\3.conv.spatial.\4"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.0\.1\.(.*)", r"stages.\1.\2.conv\3.conv.norm.\4"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.0\.3\.(.*)", r"stages.\1.\2.conv\3.conv.temporal.\4"),
]


def renamed(name: str, rules: list[tuple[str, str]]) -> str:
    for pattern, new in rules:
        if re.fullmatch(pattern, name):
            out = re.sub(pattern, new, name)
            # Their layers are numbered from 1, our stages from 0.
            return re.sub(r"^stages\.(\d)", lambda m: f"stages.{int(m[1]) - 1}", out)
    raise AssertionError(f"no name for {name}")


@pytest.mark.parametrize(
    ("name", "make", "rules"),
    [
        ("r3d_18", video.r3d_18, WHOLE),
        ("mc3_18", video.mc3_18, WHOLE),
        ("r2plus1d_18_torchvision", video.r2plus1d_18, PAIRS),
    ],
)
def test_outputs_equal_torchvision(name, make, rules):
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
    state = {renamed(key, COMMON + rules): value for key, value in theirs.state_dict().items()}
    assert list(state) != list(theirs.state_dict())
    ours.load_state_dict(state, strict=True)

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
    for key, value in theirs.state_dict().items():
        mine = ours.state_dict()[renamed(key, COMMON + WHOLE)]
        if value.dim() > 1:
            assert float(mine.std()) == pytest.approx(float(value.std()), rel=0.1)
        else:
            assert torch.equal(mine, value)
