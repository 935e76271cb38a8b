"""Published and computed costs of the X3D networks, to the last parameter and the last MAC."""

from __future__ import annotations

import pytest

from nas.cost.cost import cost
from search_spaces.families.x3d.family import PRESETS

# Name, clip, parameters (400 classes), MACs at the clip, GMACs as printed
GOLDEN = [
    ("x3d_xs", (4, 160, 160), 3_794_322, 605_256_512, "0.605"),
    ("x3d_s", (13, 160, 160), 3_794_322, 1_962_892_112, "1.963"),
    ("x3d_m", (16, 224, 224), 3_794_322, 4_732_468_736, "4.732"),
    ("x3d_l", (16, 312, 312), 6_153_432, 18_367_710_176, "18.368"),
    # Without a norm behind the first shortcut.
    ("x3d_xs_pytorchvideo", (4, 160, 160), 3_794_274, 605_256_512, "0.605"),
    ("x3d_s_pytorchvideo", (13, 160, 160), 3_794_274, 1_962_892_112, "1.963"),
    ("x3d_m_pytorchvideo", (16, 224, 224), 3_794_274, 4_732_468_736, "4.732"),
    ("x3d_l_pytorchvideo", (16, 312, 312), 6_153_384, 18_367_710_176, "18.368"),
]


@pytest.mark.parametrize(("name", "clip", "params", "macs", "printed"), GOLDEN)
def test_named_network_costs_what_was_published(name, clip, params, macs, printed):
    (entry,) = (entry for entry in PRESETS if entry.name == name)
    assert entry.clip == clip
    frames, height, width = clip
    found = cost(entry.make(frames), frames=frames, height=height, width=width, num_classes=400)
    assert found.params == params
    assert found.macs == found.train_macs == macs
    assert f"{found.macs / 1e9:.3f}" == printed


def test_every_preset_has_a_row():
    assert {row[0] for row in GOLDEN} == {entry.name for entry in PRESETS}
