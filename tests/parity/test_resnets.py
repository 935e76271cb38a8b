"""Residual networks equal to others': torchvision's of images, and pytorchvideo's, whose outputs were recorded."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import resnet50

from search_spaces.catalogue import build, preset
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


def pytorchvideo(blocks: tuple[int, ...], pair: bool) -> list[tuple[str, str]]:
    """Names of pytorchvideo's networks of one pathway.

    Args:
        blocks: Where the stages stand in its list of blocks; the head is behind the last.
        pair: Whether the 3x3x3 convolution is a pair of convolutions.
    """
    inner = r"stages\.{s}\.(\d+)\.conv{conv}\."
    there = r"blocks.{block}.res_blocks.\1.branch2."
    rules = [(r"stem\.(conv|norm)\.(.*)", r"blocks.0.\1.\2"), (r"head\.fc\.(.*)", rf"blocks.{blocks[-1] + 1}.proj.\1")]
    for s, block in enumerate(blocks):
        for conv, letter in ((1, "a"), (2, "b"), (3, "c")):
            ours, theirs = inner.format(s=s, conv=conv), there.format(block=block)
            if pair and conv == 2:
                rules += [
                    (ours + r"norm\.(.*)", theirs + r"norm_b.\2"),
                    (ours + r"conv\.norm\.(.*)", theirs + r"conv_b.norm.\2"),
                    (ours + r"conv\.temporal\.(.*)", theirs + r"conv_b.conv_t.\2"),
                    (ours + r"conv\.spatial\.(.*)", theirs + r"conv_b.conv_xy.\2"),
                ]
            else:
                rules.append((ours + r"(conv|norm)\.(.*)", theirs + rf"\2_{letter}.\3"))
        ours = rf"stages\.{s}\.(\d+)\.shortcut\.(conv|norm)\.(.*)"
        rules.append((ours, rf"blocks.{block}.res_blocks.\1.branch1_\2.\3"))
    return rules


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
    ("name", "blocks"),
    [
        ("slow_r50_8x8", (1, 2, 3, 4)),
        # Behind the first stage is the pool over frames.
        ("c2d_r50", (1, 3, 4, 5)),
        ("i3d_r50", (1, 3, 4, 5)),
        ("csn_r101", (1, 2, 3, 4)),
        ("r2plus1d_r50", (1, 2, 3, 4)),
    ],
)
def test_outputs_equal_pytorchvideo(name, blocks):
    golden = read(name)
    logits = torch.tensor(golden["logits"])
    with torch.device("meta"):
        network = build(preset(name if name != "csn_r101" else f"{name}_pytorchvideo"), num_classes=logits.shape[1])
    network = network.to_empty(device="cpu").eval()
    rules = pytorchvideo(blocks, pair=name == "r2plus1d_r50")
    names = {key: renamed(key, rules) for key in network.state_dict()}
    assert checksum(names.values()) == golden["names"]
    fill_as(network, names)
    with torch.no_grad():
        found = network(clip(golden["clip"]))
    assert logits.abs().max() > 1
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5)
