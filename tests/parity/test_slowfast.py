"""Outputs equal to pytorchvideo's slowfast_r50, whose own were recorded (make_pytorchvideo_golden.py)."""

from __future__ import annotations

import torch

from search_spaces.catalogue import build, preset
from tests.parity.formula import checksum, clip, fill_as, read, renamed

BRANCH = r"stages\.{s}\.(\d+)\.{path}\."
THERE = r"blocks.{block}.multipathway_blocks.{i}.res_blocks.\1."
RULES = [
    *((rf"stem\.{path}\.(.*)", rf"blocks.0.multipathway_blocks.{i}.\1") for i, path in enumerate(("slow", "fast"))),
    *(
        rule
        for s in range(4)
        for i, path in enumerate(("slow", "fast"))
        for conv, letter in ((1, "a"), (2, "b"), (3, "c"))
        for rule in (
            (
                BRANCH.format(s=s, path=path) + rf"conv{conv}\.(conv|norm)\.(.*)",
                THERE.format(block=s + 1, i=i) + rf"branch2.\2_{letter}.\3",
            ),
        )
    ),
    *(
        (
            BRANCH.format(s=s, path=path) + r"shortcut\.(conv|norm)\.(.*)",
            THERE.format(block=s + 1, i=i) + r"branch1_\2.\3",
        )
        for s in range(4)
        for i, path in enumerate(("slow", "fast"))
    ),
    (r"fusion\.(\d)\.lateral\.conv\.(.*)", r"blocks.\1.multipathway_fusion.conv_fast_to_slow.\2"),
    (r"fusion\.(\d)\.lateral\.norm\.(.*)", r"blocks.\1.multipathway_fusion.norm.\2"),
    (r"head\.fc\.(.*)", r"blocks.6.proj.\1"),
]


def test_outputs_equal_pytorchvideo():
    golden = read("slowfast_8x8_r50")
    logits = torch.tensor(golden["logits"])
    network = build(preset("slowfast_8x8_r50"), num_classes=logits.shape[1]).eval()
    names = {name: renamed(name, RULES) for name in network.state_dict()}
    assert checksum(names.values()) == golden["names"]
    fill_as(network, names)
    with torch.no_grad():
        found = network(clip(golden["clip"]))
    assert logits.abs().max() > 1
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5)
