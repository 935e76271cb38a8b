"""Outputs equal to pytorchvideo's slowfast_r50, whose own were recorded (make_pytorchvideo_golden.py)."""

from __future__ import annotations

import torch

from search_spaces.catalogue import build, preset
from search_spaces.pretrained import LAYOUTS
from tests.parity.formula import checksum, clip, fill_as, read


def test_outputs_equal_pytorchvideo():
    golden = read("slowfast_8x8_r50")
    logits = torch.tensor(golden["logits"])
    network = build(preset("slowfast_8x8_r50"), num_classes=logits.shape[1]).eval()
    names = {name: LAYOUTS["pytorchvideo: SlowFast"].their_name(name) for name in network.state_dict()}
    assert checksum(names.values()) == golden["names"]
    fill_as(network, names)
    with torch.no_grad():
        found = network(clip(golden["clip"]))
    assert logits.abs().max() > 1
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5)
