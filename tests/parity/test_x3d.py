"""Outputs equal to pytorchvideo's x3d_s, whose own were recorded (make_pytorchvideo_golden.py)."""

from __future__ import annotations

import torch

from search_spaces.catalogue import build, preset
from search_spaces.pretrained import LAYOUTS
from tests.parity.formula import checksum, clip, fill_as, read


def test_outputs_equal_pytorchvideo():
    golden = read("x3d_s")
    logits = torch.tensor(golden["logits"])
    network = build(preset("x3d_s_pytorchvideo"), num_classes=logits.shape[1]).eval()
    names = {name: LAYOUTS["pytorchvideo: X3D"].their_name(name) for name in network.state_dict()}
    assert checksum(names.values()) == golden["names"]
    fill_as(network, names)
    with torch.no_grad():
        found = network(clip(golden["clip"]))
    assert logits.abs().max() > 1
    torch.testing.assert_close(found, logits, rtol=1e-5, atol=1e-5)
