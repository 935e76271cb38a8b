"""Published and computed costs of the SlowFast networks, to the last parameter and the last MAC."""

from __future__ import annotations

import pytest

from nas.cost.cost import cost
from search_spaces.families.slowfast.family import PRESETS

# Name, size, parameters (400 classes), MACs at its own frames x size x size, GMACs as printed or as the full count of
# pytorchvideo 0.1.5's network, None where neither is there
GOLDEN = [
    ("slowfast_4x16_r50", 224, 34_480_216, 27_638_665_216, "27.64"),
    ("slowfast_4x16_r50", 256, 34_480_216, 36_099_198_976, "36.099"),
    ("slowfast_8x8_r50", 224, 34_566_488, 50_308_583_424, "50.31"),
    ("slowfast_8x8_r50", 256, 34_566_488, 65_708_888_064, "65.71"),
    # The paper's (106.5 G and 53.8 M in the authors' code), and pytorchvideo's.
    ("slowfast_8x8_r101", 224, 53_774_808, 81_547_759_616, None),
    ("slowfast_8x8_r101", 256, 53_774_808, 106_511_077_376, "106.5"),
    ("slowfast_8x8_r101_pytorchvideo", 224, 62_826_968, 96_396_644_352, "96.40"),
    ("slowfast_8x8_r101_pytorchvideo", 256, 62_826_968, 125_905_539_072, "125.906"),
    ("slowfast_16x8_r101", 224, 53_774_808, 163_094_597_632, "163.095"),
    ("slowfast_11x8_r50", 224, 34_566_488, 69_173_956_608, "69.174"),
    # Made by these definitions alone.
    ("slowfast_11x8_r101", 224, 62_826_968, 132_545_040_384, None),
    ("slowfast_8x8_r152", 224, 85_650_520, 139_511_074_816, None),
    ("slowfast_8x8_r200", 224, 90_237_016, 170_030_927_872, None),
]


@pytest.mark.parametrize(("name", "size", "params", "macs", "printed"), GOLDEN)
def test_named_network_costs_what_was_published(name, size, params, macs, printed):
    (entry,) = (entry for entry in PRESETS if entry.name == name)
    frames, rows, columns = entry.clip
    assert (rows, columns) == (224, 224)
    found = cost(entry.make(frames), frames=frames, height=size, width=size, num_classes=400)
    assert found.params == params
    assert found.macs == found.train_macs == macs
    if printed:
        assert f"{found.macs / 1e9:.{len(printed.split('.')[1])}f}" == printed


def test_every_preset_has_a_row():
    assert {row[0] for row in GOLDEN} == {entry.name for entry in PRESETS}
