from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from search_spaces.catalogue import build, preset
from search_spaces.codec import decode, encode
from search_spaces.edit import diff, leaves, put
from search_spaces.errors import SpecError
from search_spaces.families.x3d.family import PRESETS, make_x3d
from search_spaces.families.x3d.spec import X3DBlock, X3DSpec, round_width
from search_spaces.modules import build as build_unit
from search_spaces.operators import FLAT, TemporalOp
from search_spaces.space import parse_space
from tests.search_spaces.graphs import outputs

CSN = TemporalOp(kind="csn")


def small(**changes: object) -> X3DSpec:
    """Two stages of two blocks, 8 and 16 wide, 18 and 36 inside."""
    return make_x3d(**{"depth": "2-2", "width": 0.25, "features": 24, **changes})


def shapes(spec: X3DSpec) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = build(spec, num_classes=5)
    return {name: tuple(p.shape) for name, p in network.named_parameters() if p.dim() > 1}


@pytest.mark.parametrize(("planes", "hidden"), [(18, 8), (54, 8), (108, 8), (216, 16), (432, 32), (378, 24), (180, 16)])
def test_squeeze_excitation_is_rounded_as_the_authors_do(planes, hidden):
    assert round_width(planes, 1 / 16) == hidden


def test_the_middle_sees_one_plane_each_and_every_second_block_squeezes():
    found = shapes(preset("x3d_s"))
    for s, (count, width, inside) in enumerate(((3, 24, 54), (5, 48, 108), (11, 96, 216), (7, 192, 432))):
        for b in range(count):
            block = f"stages.{s}.{b}"
            assert found[f"{block}.conv2.conv.weight"] == (inside, 1, 3, 3, 3)
            assert found[f"{block}.conv3.conv.weight"] == (width, inside, 1, 1, 1)
            assert (f"{block}.gate.fc1.weight" in found) == (b % 2 == 0)
        assert f"stages.{s}.{count}.conv1.conv.weight" not in found
    assert found["stem.temporal.weight"] == (24, 1, 5, 1, 1)
    assert found["head.expand.weight"] == (2048, 432, 1, 1, 1)


def test_deeper_networks_are_rounded_up():
    (entry,) = (entry for entry in PRESETS if entry.name == "x3d_l")
    assert [len(stage.blocks) for stage in entry.make(16).stages] == [5, 10, 25, 15]


@pytest.mark.parametrize(
    ("op", "parts"),
    [
        (FLAT, {"": (1, 3, 3)}),
        (TemporalOp(kind="csn", kernel=5), {"": (5, 3, 3)}),
        (TemporalOp(kind="csn", dilation=(2,)), {"": (3, 3, 3)}),
        (TemporalOp(kind="2plus1d", dilation=(2,)), {"spatial": (1, 3, 3), "temporal": (3, 1, 1)}),
        (TemporalOp(kind="2plus1d", time_first=True), {"temporal": (3, 1, 1), "spatial": (1, 3, 3)}),
    ],
)
def test_operators_compute_what_they_say(op, parts):
    """Each equals a convolution of every plane by itself, a pair with norm and ReLU in between."""
    spec = small(block=lambda s, b: X3DBlock(temporal=op), strides=lambda s: 2)
    block = build_unit(spec.links(num_classes=5)[1].unit).eval()
    conv, found = block.conv2.conv, outputs(block, torch.randn(1, block.conv1.conv.in_channels, 5, 8, 8))
    clips = found["conv1.act"]
    expected = clips
    for name, kernel in parts.items():
        if expected is not clips:
            expected = conv.act(conv.norm(expected))
        weight = conv.get_submodule(name).weight
        assert weight.shape == (18, 1, *kernel)
        k, side = kernel[0], kernel[1] // 2
        dilation = op.dilation[0] if k > 1 else 1
        # The stride over frames is on the convolution over frames, if there is one.
        stride = (2 if k > 1 or len(parts) == 1 else 1, *((2, 2) if side else (1, 1)))
        padding = (dilation * (k // 2), side, side)
        planes = [
            F.conv3d(expected[:, i : i + 1], w[None], None, stride, padding, (dilation, 1, 1))
            for i, w in enumerate(weight)
        ]
        expected = torch.cat(planes, dim=1)
    torch.testing.assert_close(found[f"conv2.conv.{name}".rstrip(".")], expected)


@pytest.mark.parametrize("kind", ["csn", "2plus1d"])
def test_temporal_strides_are_in_the_first_block(kind):
    spec = small(strides=lambda s: s + 1, block=lambda s, b: X3DBlock(temporal=TemporalOp(kind=kind)))
    network = build(spec, num_classes=5).eval()
    seen = []
    for stage in network.stages.children():
        for block in stage.children():
            block.register_forward_hook(lambda module, x, out: seen.append(tuple(out.shape[2:])))
    with torch.no_grad():
        network(torch.randn(1, 3, 8, 32, 32))
    assert seen == [(8, 8, 8), (8, 8, 8), (4, 4, 4), (4, 4, 4)]


def test_a_stem_of_one_frame_has_no_temporal_convolution():
    assert "stem.temporal.weight" in shapes(small())
    assert "stem.temporal.weight" not in shapes(small(stem_kernel=1))


@pytest.mark.parametrize(
    ("path", "value", "changed"),
    [
        ("stages.0.blocks.1.temporal.kernel", 5, {"stages.0.1.conv2"}),
        ("stages.0.blocks.1.temporal.kind", "2plus1d", {"stages.0.1.conv2"}),
        ("stages.0.blocks.1.attention", "se", {"stages.0.1.gate"}),
        ("stages.0.blocks.0.attention", "gate", {"stages.0.0.gate"}),
        ("stages.1.blocks.1.attention", "nonlocal", {"stages.1.1.last"}),
        ("stages.1.temporal_stride", 2, set()),
        ("stem.temporal_kernel", 1, {"stem.temporal"}),
        ("head.width", 32, {"head.expand", "head.fc"}),
        (
            "stages.0.midplanes",
            16,
            {f"stages.0.{b}.conv{i}" for b in range(2) for i in (1, 2, 3)} | {"stages.0.0.gate"},
        ),
    ],
)
def test_one_leaf_is_one_decision(path, value, changed):
    old = small()
    new = put(old, path, value)
    assert diff(old, new) == {path}
    assert decode(encode(new)) == new == new.canonical()
    assert new.describe() != old.describe()
    before, after = shapes(old), shapes(new)
    names = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    assert all(any(name.startswith(part) for part in changed) for name in names)
    assert all(any(name.startswith(part) for name in names) for part in changed)


def test_one_frame_of_a_channelwise_kernel_is_2d():
    flat = small(block=lambda s, b: X3DBlock(temporal=TemporalOp(kind="csn", kernel=1, dilation=(2,))))
    assert flat == small(block=lambda s, b: X3DBlock(temporal=FLAT))
    pair = X3DBlock(temporal=TemporalOp(kind="2plus1d", kernel=1, dilation=(2,), midplanes="shared"))
    assert small(block=lambda s, b: pair).stages[0].blocks[0].temporal == TemporalOp(kind="2plus1d", kernel=1)


def test_the_default_of_every_domain_makes_x3d_s_but_for_its_initial_values():
    space = parse_space({"family": "x3d", "domains": {"depth": [2.2]}})
    assert [replace(point.spec, zero_init=True) for point in space.points()] == [preset("x3d_s_pytorchvideo")]
    assert replace(preset("x3d_s_pytorchvideo"), shortcut_norm=True) == preset("x3d_s")


def test_a_norm_behind_every_shortcut_is_that_of_the_first_alone_and_nothing_where_there_is_none():
    with_norm, without = (
        dict(build(small(shortcut_norm=norm), num_classes=5).named_parameters()) for norm in (True, False)
    )
    assert {name for name in with_norm if "shortcut" in name} - set(without) == {
        "stages.0.0.shortcut.conv.weight", "stages.0.0.shortcut.norm.weight", "stages.0.0.shortcut.norm.bias"
    }  # fmt: skip
    spec = small(shortcut_norm=True)
    flat = replace(spec, stages=(replace(spec.stages[0], spatial_stride=1), *spec.stages[1:]))
    assert flat.shortcut_norm and not flat.canonical().shortcut_norm


@pytest.mark.parametrize(
    ("domains", "networks"),
    [
        ({"kind": ["2d", "csn"], "kernel": [3, 5]}, 3),
        ({"placement": ["none", "all"], "stem_kernel": [1, 3, 5]}, 4),
        ({"placement": ["none", [1, 2], "stem,1"], "kernel": [3, 5], "stem_kernel": [3]}, 5),
        ({"attention": {"values": ["none", "se"], "per": "block"}}, 16),
        ({"attention": ["alternate", "se", "none", "gate", "nonlocal"]}, 5),
        ({"temporal_stride": {"values": [1, 2], "per": "stage"}, "bottleneck": [1, 2.25]}, 8),
        ({"kind": ["2plus1d"], "dilation": [1, [2, 1]], "kernel": [1, 3]}, 3),
    ],
)
def test_settings_are_offered_only_where_they_do_something(domains, networks):
    space = parse_space({"family": "x3d", "domains": {"depth": ["2-2"], "width": [0.25], **domains}})
    size = space.size()
    assert (size.networks, size.exact) == (networks, True)
    assert len({point.spec.describe() for point in space.points()}) == networks
    # Nothing is asked for in vain: every assignment that is offered is another network.
    rng = random.Random(0)
    assert len({space.random(rng).params for _ in range(300)}) == networks


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ({"depth": [0]}, "depth must be a factor above 0, such as 2.2, or blocks per stage as 3-5-11-7, but is 0"),
        ({"depth": ["3-0"]}, "or blocks per stage as 3-5-11-7, but is 3-0"),
        ({"bottleneck": ["2x"]}, "bottleneck must be a number above 0, but is 2x"),
        ({"features": [1.5]}, "features must be a whole number of at least 1, but is 1.5"),
        ({"kind": ["3d"]}, "kind must be one of its choices, but is 3d"),
        ({"placement": ["mc9"]}, "placement must have a form such as all"),
        ({"depth": ["1-1"], "placement": ["mc5"]}, "no combination of values fits together"),
    ],
)
def test_bad_values_are_refused_in_one_line(domains, message):
    with pytest.raises(SpecError) as caught:
        parse_space({"family": "x3d", "domains": domains})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("stages.0.blocks.0.temporal.kind", "3d"),
        ("stages.0.midplanes", 0),
        ("stages.0.spatial_stride", 0),
        ("stages.0.blocks", []),
        ("stages", []),
        ("stem.temporal_kernel", 4),
        ("head.width", 0),
    ],
)
def test_bad_specs_are_refused(path, value):
    with pytest.raises(SpecError, match=path.rsplit(".", 1)[-1]):
        put(small(), path, value)


def test_rows_stand_for_stem_blocks_and_head():
    spec = small()
    rows = spec.rows()
    blocks = [f"stages.{s}.blocks.{b}" for s in range(2) for b in range(2)]
    assert [row["site"] for row in rows] == ["stem", *blocks, "head"]
    assert set(blocks) <= {".".join(path.split(".")[:4]) for path in leaves(spec)}
    assert (rows[3]["in"], rows[3]["out"], rows[3]["stride"]) == (8, 16, "1x2x2")
    assert rows[1]["operator"] == "csn + se"
