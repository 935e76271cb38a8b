from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nas.cost.cost import cost
from search_spaces.codec import digest, encode
from search_spaces.convolutions import Conv3d
from search_spaces.edit import at, diff, put
from search_spaces.errors import ClipError, SpecError
from search_spaces.families.inception.units import FramePool, LocalHead, conv
from search_spaces.families.inception.v1 import DOMAINS, FAMILY, UNITS, make_inception_v1
from search_spaces.families.inception.v1_blocks import KINDS, Mixed
from search_spaces.families.inception.v1_spec import InceptionV1Spec, MixedUnit
from search_spaces.inflate import inflate, parent_shapes
from search_spaces.modules import Block, Network, build, same_avg_pool
from search_spaces.operators import FLAT, TemporalOp
from search_spaces.parts import Pool
from tests.search_spaces.graphs import graphs, outputs

PRESETS = {preset.name: preset for preset in FAMILY.presets}
PATHS = ("conv1", "conv2c", *(f"stages.{s}.{b}" for s, n in enumerate((2, 5, 2)) for b in range(n)))
SMALL = {"b0": 8, "b1_reduce": 8, "b1": 16, "b2_reduce": 8, "b2": 8, "b3": 8}


def network(spec: InceptionV1Spec, num_classes: int = 5) -> Network:
    spec = spec.canonical()
    built = Network(spec.links(num_classes=num_classes))
    if next(built.parameters()).device.type != "meta":
        spec.initialise(built)
    return built


def kernels(module: nn.Module) -> list[tuple[int, ...]]:
    """Kernels of more than one pixel or frame, in order."""
    return [c.kernel_size for c in module.modules() if isinstance(c, nn.Conv3d) and c.kernel_size != (1, 1, 1)]


def whole(kind: str, unit: int) -> list[tuple[int, ...]]:
    """Kernels of a layer: conv1 and 2c have one convolution, a mixed block has two."""
    size = 7 if unit == 0 else 3
    one = {"3d": [(size,) * 3], "p3d_a": [(1, size, size), (size, 1, 1)], "2d": [(1, size, size)]}[kind]
    return one * (1 if unit < 2 else 2)


@pytest.mark.parametrize(
    "name", ["i3d_top_heavy_4b", "s3d_top_heavy_5c", "i3d_bottom_heavy_3c", "s3d_bottom_heavy_conv1"]
)
def test_networks_in_part_temporal_are_so_up_to_their_cut_and_keep_their_pools(name):
    network_name, heavy, _, unit = name.split("_")
    kind, cut = {"i3d": "3d", "s3d": "p3d_a"}[network_name], UNITS.index(unit)
    with torch.device("meta"):
        built = network(PRESETS[name].make(64))
    for index, path in enumerate(PATHS):
        temporal = index >= cut if heavy == "top" else index <= cut
        assert kernels(built.get_submodule(path)) == whole(kind if temporal else "2d", index)
    pools = [m for m in built.modules() if isinstance(m, nn.MaxPool3d) and m.stride != (1, 1, 1)]
    assert [(p.kernel_size[0], p.stride[0]) for p in pools] == [(1, 1), (1, 1), (3, 2), (2, 2)]
    inner = [m for m in built.modules() if isinstance(m, nn.MaxPool3d) and m.stride == (1, 1, 1)]
    assert [p.kernel_size for p in inner] == [(3, 3, 3)] * 9


def test_slims_network_has_a_whole_stem_and_begins_as_the_identity_in_time():
    torch.manual_seed(0)
    built = network(PRESETS["s3d_slim"].make(64).scaled(1 / 8))
    assert kernels(built.get_submodule("conv1")) == [(3, 7, 7)]
    blocks = [m for m in built.modules() if isinstance(m, Block)]
    assert not any(site.op.form for block in blocks for site in block.graph.sites)
    assert sum(isinstance(c, Conv3d) and c.identity for c in built.modules()) == 1 + 2 * 9
    unit = built.get_submodule("conv2c").eval()
    assert [type(m).__name__ for m in unit.modules()].count("BatchNorm3d") == 1
    assert unit.temporal.bias is not None
    clips = torch.randn(2, unit.spatial.conv.in_channels, 5, 6, 6)
    found = outputs(unit, clips)
    assert torch.equal(found[""], found["spatial.act"])
    nn.init.ones_(unit.temporal.bias)
    assert torch.equal(unit(clips), found["spatial.act"] + 1)


def test_in_the_papers_reading_all_branches_have_time():
    with torch.device("meta"):
        block = network(PRESETS["s3d_paper"].make(64)).get_submodule("stages.1.2")
    assert kernels(block.get_submodule("branch0")) == kernels(block.get_submodule("branch3")) == [(3, 1, 1)]
    assert kernels(block.get_submodule("branch1")) == [(1, 3, 3), (3, 1, 1)]


def test_a_gate_stands_behind_every_branch():
    torch.manual_seed(0)
    gated = replace(MIXED, attention="gate")
    block = build(MixedUnit(gated, 4, "norm_both", 0.1)).eval()
    plain = build(MixedUnit(MIXED, 4, "norm_both", 0.1)).eval()
    found, expected = block.state_dict(), plain.state_dict()
    plain.load_state_dict({k: v for k, v in found.items() if k in expected})
    clips = torch.randn(2, 4, 3, 6, 6)
    branches = plain(clips).split((8, 16, 8, 8), dim=1)
    weights = [v for k, v in found.items() if k not in expected]
    assert [tuple(w.shape) for w in weights] == [(8, 8), (16, 16), (8, 8), (8, 8)]
    scaled = [
        x * torch.sigmoid(x.mean((2, 3, 4)) @ w.T)[:, :, None, None, None]
        for x, w in zip(branches, weights, strict=True)
    ]
    torch.testing.assert_close(block(clips), torch.cat(scaled, 1))


MIXED = Mixed(**SMALL, temporal=TemporalOp(kind="p3d_a"))


def test_s3d_g_has_a_gate_behind_conv2c_too():
    links = PRESETS["s3d_g"].make(64).links(num_classes=5)
    assert [link.name for link in links][3:6] == ["conv2c", "attention2c", "stages.0.pool"]


def test_the_head_averages_two_frames_of_7x7_or_what_is_left():
    torch.manual_seed(0)
    head = build(LocalHead(3, 5))
    large = torch.randn(2, 3, 4, 8, 9)
    local = [large[:, :, t : t + 2, y : y + 7, x : x + 7] for t in range(3) for y in range(2) for x in range(3)]
    expected = torch.stack([head.fc(part.mean((2, 3, 4))) for part in local]).mean(0)
    torch.testing.assert_close(head(large), expected)
    small = torch.randn(2, 3, 1, 2, 9)
    places = torch.stack([head.fc(small[..., x : x + 7].mean((2, 3, 4))) for x in range(3)])
    torch.testing.assert_close(head(small), places.mean(0))


@pytest.mark.parametrize("kernel", [(1, 3, 3), (3, 3, 3), (5, 3, 3)])
@pytest.mark.parametrize("shape", [(6, 5, 4), (1, 1, 1), (2, 3, 1)])
def test_an_average_counts_zeros_around_pixels_and_not_around_frames(kernel, shape):
    torch.manual_seed(0)
    clips = torch.randn(2, 3, *shape)
    half = kernel[0] // 2
    spatial = torch.stack([nn.functional.avg_pool2d(nn.functional.pad(f, (1,) * 4), 3, 1) for f in clips.unbind(2)], 2)
    expected = [spatial[:, :, max(0, t - half) : t + half + 1].mean(2) for t in range(shape[0])]
    torch.testing.assert_close(same_avg_pool(clips, kernel), torch.stack(expected, 2))


def test_what_has_no_effect_is_not_in_the_canonical_form():
    equal = TemporalOp(kind="2plus1d", kernel=5, midplanes="equal")
    spec = make_inception_v1(lambda unit: equal, all_branches=True)
    assert spec.conv2c.temporal == TemporalOp(kind="p3d_a", kernel=5)
    assert spec == make_inception_v1(lambda unit: TemporalOp(kind="p3d_a", kernel=5), all_branches=True)
    # Where no operator has slim's form, there is nothing to tell apart; where one has, (2+1)D is the other form.
    assert make_inception_v1(lambda unit: equal, all_branches=True, separable="norm_spatial") == spec
    slim = make_inception_v1(lambda unit: equal if unit else TemporalOp(kind="p3d_a"), separable="norm_spatial")
    assert (slim.conv2c.temporal, slim.separable) == (equal, "norm_spatial")
    with torch.device("meta"):
        assert network(slim).get_submodule("conv2c.conv.temporal").in_channels == 192
    flat = make_inception_v1(lambda unit: TemporalOp(kind="3d", kernel=1), all_branches=True, separable="norm_spatial")
    assert flat == make_inception_v1(lambda unit: FLAT)
    assert not any(block.all_branches for *_, block in flat.walk())


operators = st.builds(
    TemporalOp,
    kind=st.sampled_from(KINDS),
    kernel=st.sampled_from([1, 3, 5]),
    dilation=st.sampled_from([(1,), (2,), (2, 1)]),
    midplanes=st.sampled_from(["per_conv", "equal", "shared"]),
)
blocks = st.builds(
    Mixed,
    **{name: st.just(width) for name, width in SMALL.items()},
    temporal=operators,
    all_branches=st.booleans(),
    attention=st.sampled_from(["none", "gate", "se"]),
)


@st.composite
def specs(draw: st.DrawFn) -> InceptionV1Spec:
    spec = make_inception_v1(lambda unit: FLAT, width=1 / 16)
    first, *others = (replace(stage, blocks=stage.blocks[:1]) for stage in spec.stages)
    pool = FramePool(kernel=draw(st.sampled_from([1, 2, 3])), stride=draw(st.sampled_from([1, 2])))
    return replace(
        spec,
        stages=(replace(first, blocks=(draw(blocks),), pool=pool), *others),
        separable=draw(st.sampled_from(["norm_both", "norm_spatial"])),
        padding=draw(st.sampled_from(["symmetric", "same"])),
        conv2c=replace(spec.conv2c, temporal=draw(operators)),
    )


@settings(max_examples=25, deadline=None)
@given(first=specs(), second=specs())
def test_specs_are_equal_where_their_networks_are(first, second):
    """A spec changed in one place is canonically the same exactly where the modules are, and its line is."""
    mine, canonical = graphs(first), first.canonical()
    for path in sorted(diff(first, second)):
        other = put(first, path, at(second, path))
        same = canonical == other.canonical()
        assert same == (mine == graphs(other)), path
        assert same == (canonical.describe() == other.canonical().describe()), path
        assert other.canonical().canonical() == other.canonical()


POINTS = {
    "i3d": {"norm_momentum": 0.001, "padding": "same"},
    "i2d": {"kind": "2d", "norm_momentum": 0.001, "padding": "same"},
    "i3d_piergiaj": {"norm_momentum": 0.01, "padding": "same"},
    "i3d_symmetric": {"norm_momentum": 0.001},
    "s3d_v1": {"kind": "p3d_a", "norm_momentum": 0.001},
    "s3d_g": {"kind": "p3d_a", "attention": "gate", "norm_momentum": 0.001},
    "s3d_g_slim": {
        "kind": "p3d_a",
        "stem_kind": "3d",
        "stem_kernel": 3,
        "separable": "norm_spatial",
        "attention": "gate",
        "norm_momentum": 0.001,
        "padding": "same",
    },
    "s3d_paper": {"kind": "p3d_a", "all_branches": True, "norm_momentum": 0.001},
    "i3d_top_heavy_4b": {"placement": "top_heavy", "cut": 4, "norm_momentum": 0.001, "padding": "same"},
    "s3d_bottom_heavy_4b": {"kind": "p3d_a", "placement": "bottom_heavy", "cut": 5, "norm_momentum": 0.001},
}


@pytest.mark.parametrize("name", POINTS)
def test_published_networks_are_points_of_the_space(name):
    values = POINTS[name]
    scopes = dict.fromkeys(values, "network")
    sites = DOMAINS.sites(scopes, {domain: (value,) for domain, value in values.items()})
    assert sites.build({(domain,): value for domain, value in values.items()}) == PRESETS[name].make(64)


def test_operator_kernel_and_attention_can_be_chosen_for_each_layer():
    places = {("kind", s, b): "p3d_a" for s, n in enumerate((2, 2, 5, 2)) for b in range(n)}
    places |= {
        ("kind", 0, 0): "3d",
        ("kind", 2, 1): "2d",
        ("kernel", 3): 5,
        ("attention", 1): "se",
        ("stem_kernel",): 5,
    }
    places |= {("kernel", s): 3 for s in range(3)} | {("attention", s): "none" for s in (0, 2, 3)}
    scopes = {"kind": "block", "kernel": "stage", "attention": "stage", "stem_kernel": "network"}
    spec = DOMAINS.sites(scopes, {}).build(places)
    assert spec.conv1.temporal == TemporalOp(kind="3d", kernel=5)
    assert [block.temporal.kind for block in spec.stages[1].blocks] == ["p3d_a", "2d", "p3d_a", "p3d_a", "p3d_a"]
    assert [block.temporal.kernel for block in spec.stages[2].blocks] == [5, 5]
    assert [stage.blocks[0].attention for stage in spec.stages] == ["se", "none", "none"]


@pytest.mark.parametrize(
    ("domain", "value", "message"),
    [
        ("cut", 12, r"cut must be a layer or 11 for the end, but is 12 \(0 conv1, 1 2c, 2 3b, .*10 5c\)$"),
        ("cut", True, "cut must be"),
        ("temporal_stride", "2-1", "temporal_stride must be as_paper, none or 5 numbers of 1 to 4 as 2-1-1-2-2"),
        ("pool_kernel", "1-1-3-0", "pool_kernel must be"),
        ("kind", "csn", "kind must be one of its choices"),
    ],
)
def test_a_value_that_a_domain_cannot_have_is_refused_in_one_line(domain, value, message):
    with pytest.raises(SpecError, match=message) as error:
        DOMAINS.normalise(domain, value, "network")
    assert "\n" not in str(error.value)


def test_strides_and_pools_are_read_from_lists_and_names():
    assert DOMAINS.normalise("temporal_stride", [2, 1, 1, 2, 1], "network") == "2-1-1-2-1"
    assert DOMAINS.normalise("temporal_stride", "as_paper", "network") == "2-1-1-2-2"
    assert DOMAINS.normalise("pool_kernel", "none", "network") == "1-1-1-1"


def test_a_clip_too_short_is_refused():
    spec = PRESETS["s3d_v1"].make(64)
    assert cost(spec, frames=8, height=17, width=17, num_classes=5).params > 0
    for frames, size in ((4, 32), (8, 16)):
        with pytest.raises(ClipError, match="too short or too small"):
            cost(spec, frames=frames, height=size, width=size, num_classes=5)


def test_rows_and_diff_name_places_in_the_spec():
    spec = PRESETS["s3d_v1"].make(64)
    rows = spec.rows()
    for row in rows:
        at(spec, str(row["site"]))
    assert [row["out"] for row in rows] == [
        64,
        64,
        64,
        192,
        192,
        256,
        480,
        480,
        512,
        512,
        512,
        528,
        832,
        832,
        832,
        1024,
    ]
    assert rows[0]["kernel"] == "1x7x7, 7x1x1"
    assert diff(spec, PRESETS["s3d_g"].make(64)) == {
        "conv2c.attention",
        *(f"stages.{s}.blocks.{b}.attention" for s, n in enumerate((2, 5, 2)) for b in range(n)),
    }


@pytest.mark.parametrize("name", ["s3d_v1", "s3d_slim", "s3d_paper", "i3d"])
def test_the_2d_parents_weights_fit_every_form(name):
    """On identical frames each form then computes what the 2D network does: a temporal side is the identity."""
    flat, spec = (
        replace(PRESETS[n].make(64).scaled(1 / 8), norm_momentum=0.1, padding="symmetric") for n in ("i2d", name)
    )
    generator = torch.Generator().manual_seed(0)
    shapes = parent_shapes(flat, num_classes=5)
    assert shapes == parent_shapes(spec, num_classes=5)
    state = {key: 0.2 * torch.rand(shape, generator=generator) + 0.05 for key, shape in shapes.items()}
    clip = torch.randn(2, 3, 1, 32, 32, generator=generator).expand(-1, -1, 8, -1, -1)
    outputs = []
    for each in (spec, flat):
        built = network(each).eval()
        left = inflate(built, each, state, "centre").left
        # Slim's temporal convolutions begin as the identity, so they can stay as they are.
        assert all(path.endswith(".temporal") for path in left)
        assert bool(left) == (each is spec and name == "s3d_slim")
        with torch.no_grad():
            outputs.append(built(clip))
    assert outputs[1].abs().max() > 0.1
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)


def test_values_are_free_of_torch():
    code = "import sys; from search_spaces.families.inception import v1, v3; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def tensorflows(x: torch.Tensor, kernel: tuple[int, ...], stride: tuple[int, ...], value: float) -> torch.Tensor:
    """The input with SAME padding as TensorFlow's documentation defines it, one axis after the other."""
    pads: list[int] = []
    for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        total = max(k - s, 0) if size % s == 0 else max(k - size % s, 0)
        pads = [total // 2, total - total // 2, *pads]
    return nn.functional.pad(x, pads, value=value)


@pytest.mark.parametrize("kind", ["2d", "3d", "p3d_a", "p3d_b", "p3d_c", "2plus1d"])
@pytest.mark.parametrize("dilation", [(1,), (2,), (1, 2)])
@pytest.mark.parametrize("size", [(4, 8, 9), (5, 7, 12), (9, 1, 2)])
def test_same_padding_is_tensorflows(kind, dilation, size):
    """Every convolution sees what TensorFlow's would, by the size of its own input."""
    torch.manual_seed(0)
    op = TemporalOp(kind=kind, kernel=5, dilation=dilation)
    module = build(conv(3, 4, op, kernel=(7, 7), stride=2, temporal_stride=2, same=True)).eval()
    seen: list[tuple[Conv3d, torch.Tensor, torch.Tensor]] = []
    for layer in module.modules():
        if isinstance(layer, Conv3d):
            layer.register_forward_hook(lambda layer, inputs, out: seen.append((layer, inputs[0], out)))
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        assert module(x).shape[2:] == tuple(-(-n // 2) for n in size)
        assert len(seen) == (1 if kind in ("2d", "3d") else 2)
        for layer, given, found in seen:
            outputs = []
            for d in getattr(layer, "dilations", layer.dilation[:1]):
                reach = (d * (layer.kernel_size[0] - 1) + 1, *layer.kernel_size[1:])
                padded = tensorflows(given, reach, layer.stride, 0.0)
                outputs.append(nn.functional.conv3d(padded, layer.weight, None, layer.stride, 0, (d, 1, 1)))
            torch.testing.assert_close(found, torch.stack(outputs).mean(0))


@pytest.mark.parametrize("kernel", [(1, 3, 3), (3, 3, 3), (2, 2, 2), (4, 3, 3)])
@pytest.mark.parametrize("stride", [(1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("size", [(4, 8, 9), (5, 7, 12), (1, 1, 2)])
def test_a_max_pool_has_same_padding_too(kernel, stride, size):
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)) - 3
    pool = build(Pool(kernel=kernel, stride=stride, same=True))
    expected = nn.functional.max_pool3d(tensorflows(x, kernel, stride, -torch.inf), kernel, stride)
    assert torch.equal(pool(x), expected)


def test_padding_is_left_out_of_a_digest_where_it_is_symmetric():
    assert "padding" not in encode(PRESETS["i3d_symmetric"].make(64))
    assert digest(PRESETS["i3d_symmetric"].make(64)) == DIGEST_OF_SYMMETRIC_I3D
    assert encode(PRESETS["i3d"].make(64))["padding"] == "same"


# Under which `i3d` was recorded before there was `padding`.
DIGEST_OF_SYMMETRIC_I3D = "66d693c168af66bbbdd5d2741a0194e3df1ef41c15b5f1064b78c743cf29015e"
