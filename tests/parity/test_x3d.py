"""Outputs equal to pytorchvideo's x3d_s, whose own were recorded (make_pytorchvideo_golden.py)."""

from __future__ import annotations

import torch

from search_spaces.catalogue import build, preset
from tests.parity.formula import checksum, clip, fill_as, read, renamed

RULES = [
    # Theirs have the names of the stem's two convolutions the wrong way round.
    (r"stem\.spatial\.(.*)", r"blocks.0.conv.conv_t.\1"),
    (r"stem\.temporal\.(.*)", r"blocks.0.conv.conv_xy.\1"),
    (r"stem\.norm\.(.*)", r"blocks.0.norm.\1"),
    *(
        (rf"stages\.{s}\.(\d+)\.{ours}", rf"blocks.{s + 1}.res_blocks.\1.{theirs}")
        for s in range(4)
        for ours, theirs in (
            (r"conv1\.(conv|norm)\.(.*)", r"branch2.\2_a.\3"),
            (r"conv2\.conv\.(.*)", r"branch2.conv_b.\2"),
            (r"conv2\.norm\.(.*)", r"branch2.norm_b.0.\2"),
            (r"conv3\.(conv|norm)\.(.*)", r"branch2.\2_c.\3"),
            (r"gate\.fc1\.(.*)", r"branch2.norm_b.1.block.0.\2"),
            (r"gate\.fc2\.(.*)", r"branch2.norm_b.1.block.2.\2"),
            # Without a norm where the number of planes stays.
            (r"shortcut\.(weight)", r"branch1_conv.\2"),
            (r"shortcut\.(conv|norm)\.(.*)", r"branch1_\2.\3"),
        )
    ),
    (r"head\.conv\.(conv|norm)\.(.*)", r"blocks.5.pool.pre_\1.\2"),
    (r"head\.expand\.(.*)", r"blocks.5.pool.post_conv.\1"),
    (r"head\.fc\.(.*)", r"blocks.5.proj.\1"),
]


def test_outputs_equal_pytorchvideo():
    golden = read("x3d_s")
    logits = torch.tensor(golden["logits"])
    network = build(preset("x3d_s_pytorchvideo"), num_classes=logits.shape[1]).eval()
    names = {name: renamed(name, RULES) for name in network.state_dict()}
    assert checksum(names.values()) == golden["names"]
    fill_as(network, names)
    with torch.no_grad():
        found = network(clip(golden["clip"]))
    assert logits.abs().max() > 1
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5)
