"""Residual networks equal to others': torchvision's of images, and pytorchvideo's, whose outputs were recorded."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import resnet50

from search_spaces.catalogue import build, preset
from search_spaces.pretrained import LAYOUTS
from tests.parity.formula import checksum, clip, fill_as, read, renamed
from tests.parity.formula import fill as fill_by_formula

IMAGES = [
    (r"stem\.conv\.(.*)", r"conv1.\1"),
    (r"stem\.norm\.(.*)", r"bn1.\1"),
    *((rf"stages\.{s}\.(\d+)\.conv(\d)\.conv\.(.*)", rf"layer{s + 1}.\1.conv\2.\3") for s in range(4)),
    *((rf"stages\.{s}\.(\d+)\.conv(\d)\.norm\.(.*)", rf"layer{s + 1}.\1.bn\2.\3") for s in range(4)),
    *((rf"stages\.{s}\.(\d+)\.shortcut\.conv\.(.*)", rf"layer{s + 1}.\1.downsample.0.\2") for s in range(4)),
    *((rf"stages\.{s}\.(\d+)\.shortcut\.norm\.(.*)", rf"layer{s + 1}.\1.downsample.1.\2") for s in range(4)),
    (r"head\.fc\.(.*)", r"fc.\1"),
]


@pytest.mark.parametrize("frames", [1, 3])
def test_outputs_equal_torchvision_frame_by_frame(frames):
    """A clip's logits are the mean of those of its frames, as in a temporal segment network."""
    theirs = resnet50(num_classes=11).eval()
    fill_by_formula(theirs)
    ours = build(preset("resnet50"), num_classes=11).eval()
    fill_as(ours, {name: renamed(name, IMAGES) for name in ours.state_dict()})
    clips = clip((2, 3, frames, 48, 64))
    with torch.no_grad():
        expected = torch.stack([theirs(clips[:, :, t]) for t in range(frames)])
        found = ours(clips)
    assert expected.abs().max() > 1
    torch.testing.assert_close(found, expected.mean(0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("slow_r50_8x8", "pytorchvideo"),
        ("c2d_r50", "pytorchvideo, a pool behind the first stage"),
        ("i3d_r50", "pytorchvideo, a pool behind the first stage"),
        ("csn_r101", "pytorchvideo"),
        ("r2plus1d_r50", "pytorchvideo"),
    ],
)
def test_outputs_equal_pytorchvideo(name, layout):
    golden = read(name)
    logits = torch.tensor(golden["logits"])
    with torch.device("meta"):
        network = build(preset(name if name != "csn_r101" else f"{name}_pytorchvideo"), num_classes=logits.shape[1])
    network = network.to_empty(device="cpu").eval()
    names = {key: LAYOUTS[layout].their_name(key) for key in network.state_dict()}
    assert checksum(names.values()) == golden["names"]
    fill_as(network, names)
    with torch.no_grad():
        found = network(clip(golden["clip"]))
    assert logits.abs().max() > 1
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5)
