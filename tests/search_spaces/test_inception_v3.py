from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from nas.cost.cost import cost
from search_spaces.edit import at, diff, put
from search_spaces.errors import ClipError, SpecError
from search_spaces.families.inception.units import AuxHead
from search_spaces.families.inception.v3 import DOMAINS, FAMILY, UNITS, make_inception_v3
from search_spaces.families.inception.v3_blocks import KINDS, PAIRS, REACHES, Mixed, canonical_block, scaled_block
from search_spaces.families.inception.v3_spec import BLOCKS, InceptionV3Spec
from search_spaces.families.inception.v3_units import MixedUnit
from search_spaces.graph import Node, SameAvgPool
from search_spaces.modules import Network, build
from search_spaces.operators import FLAT, TemporalOp

PRESETS = {preset.name: preset for preset in FAMILY.presets}
WIDTHS = {kind: widths for stage in BLOCKS for kind, widths in stage}
SEPARABLE = TemporalOp(kind="p3d_a")


def network(spec: InceptionV3Spec, num_classes: int = 5) -> Network:
    spec = spec.canonical()
    built = Network(spec.links(num_classes=num_classes))
    if next(built.parameters()).device.type != "meta":
        spec.initialise(built)
    return built


def mixed(kind: str, **settings: object) -> Mixed:
    block = Mixed(**{"kind": kind, "widths": WIDTHS[kind], "temporal": SEPARABLE, **settings})
    return scaled_block(block, 1 / 64, 8)


def built(block: Mixed, planes: int = 8) -> nn.Module:
    return build(MixedUnit(canonical_block(block), planes))


def kernels(module: nn.Module) -> list[str]:
    """Kernels of more than one pixel or frame, in order."""
    found = ("x".join(map(str, c.kernel_size)) for c in module.modules() if isinstance(c, nn.Conv3d))
    return [kernel for kernel in found if kernel != "1x1x1"]


@pytest.mark.parametrize("name", ["s3d_v3", "s3d_v3_inflated", "s3d_v3_top_heavy_5c", "s3d_v3_top_heavy_6a", "i3d_v3"])
def test_sizes_are_those_of_the_reports_table(name):
    with torch.device("meta"):
        net = network(PRESETS[name].make(64)).eval()
        sizes = {}
        for path, module in net.named_modules():
            if path in net.names:
                module.register_forward_hook(lambda m, i, out, at=path: sizes.__setitem__(at, tuple(out.shape[1:])))
        net(torch.empty(1, 3, 64, 224, 224))
    assert sizes["conv1a"] == sizes["conv2a"] == (32, 32, 112, 112)
    assert sizes["conv2b"] == (64, 32, 112, 112)
    assert (sizes["pool1"], sizes["conv3b"]) == ((64, 16, 56, 56), (80, 16, 56, 56))
    assert (sizes["conv4a"], sizes["pool2"]) == ((192, 16, 56, 56), (192, 8, 28, 28))
    assert sizes["stages.0.2"] == (288, 8, 28, 28)
    assert sizes["stages.1.0"] == sizes["stages.1.4"] == (768, 3, 13, 13)
    assert (sizes["stages.2.0"], sizes["stages.2.2"]) == ((1280, 1, 6, 6), (2048, 1, 6, 6))
    assert "aux" not in sizes


def test_a_pair_gets_time_in_four_ways():
    for pair, row_then_column, column_then_row in (
        ("appended", ["1x1x7", "1x7x1", "7x1x1"], ["1x7x1", "1x1x7", "7x1x1"]),
        ("inflated", ["7x1x7", "7x7x1"], ["7x7x1", "7x1x7"]),
        ("each", ["1x1x7", "7x1x1", "1x7x1", "7x1x1"], ["1x7x1", "7x1x1", "1x1x7", "7x1x1"]),
        ("none", ["1x1x7", "1x7x1"], ["1x7x1", "1x1x7"]),
    ):
        type2, reduction = built(mixed("type2", pair=pair)), built(mixed("reduction2", pair=pair))
        assert kernels(type2.get_submodule("branch1")) == row_then_column
        assert kernels(type2.get_submodule("branch2")) == 2 * column_then_row
        assert kernels(reduction.get_submodule("branch1")) == [*row_then_column, "1x3x3", "3x1x1"]


def test_a_kernel_of_n_pixels_gets_n_frames_or_those_of_the_operator():
    assert kernels(built(mixed("type1")).get_submodule("branch1")) == ["1x5x5", "5x1x1"]
    assert kernels(built(mixed("type1", reach="kernel")).get_submodule("branch1")) == ["1x5x5", "3x1x1"]
    assert kernels(built(mixed("type1")).get_submodule("branch2")) == 2 * ["1x3x3", "3x1x1"]
    whole = mixed("type2", temporal=TemporalOp(kind="3d", kernel=5), pair="inflated", reach="kernel")
    assert kernels(built(whole).get_submodule("branch1")) == ["5x1x7", "5x7x1"]
    single = mixed("type1", temporal=TemporalOp(kind="p3d_a", kernel=1))
    assert kernels(built(single)) == ["1x5x5", "1x3x3", "1x3x3"]
    sides = ["1x1x3", "3x1x1", "1x3x1", "3x1x1"]
    assert kernels(built(mixed("type3"))) == [*sides, "1x3x3", "3x1x1", *sides]


@pytest.mark.parametrize("name", ["s3d_v3_top_heavy_5c", "s3d_v3_top_heavy_6a"])
def test_below_layer_9_kernels_see_one_frame(name):
    with torch.device("meta"):
        net = network(PRESETS[name].make(64))
    cut = UNITS.index(name[-2:])
    paths = ["conv1a", "conv2a", "conv2b", "conv4a"]
    paths += [f"stages.{s}.{b}" for s, stage in enumerate(BLOCKS) for b in range(len(stage))]
    for index, path in enumerate(paths):
        temporal = any(not kernel.startswith("1x") for kernel in kernels(net.get_submodule(path)))
        assert temporal == (index >= cut)
        nodes = net.get_submodule(path).graph.nodes
        average = [node.layer.kernel[0] for node in nodes if isinstance(node.layer, SameAvgPool)]
        assert average in ([], [3] if index >= cut else [1])
    assert net.get_submodule("pool1.pool").kernel_size[0] == net.get_submodule("pool2.pool").kernel_size[0] == 3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("which", ["reduction1", "reduction2"])
def test_all_branches_of_a_reduction_give_as_many_frames(kind, kernel, which):
    op = TemporalOp(kind=kind, kernel=kernel, dilation=(1, 2))
    for padding, stride in (("valid", 2), ("same", 2), ("valid", 1), ("valid", 3)):
        block = mixed(which, temporal=op, padding=padding, temporal_stride=stride, pool_kernel=3)
        unpadded = padding == "valid" and stride > 1
        reach = kernel if unpadded and kind not in ("2d", "p3d_c", "p3d_c_port") else 1
        with torch.device("meta"):
            for frames in (7, 8):
                out = built(block)(torch.empty(1, 8, frames, 9, 9))
                assert out.shape[2:] == ((frames - reach) // stride + 1, *(2 * [5 if padding == "same" else 4]))


def test_without_padding_a_reduction_sees_whole_windows_of_frames_only():
    torch.manual_seed(0)
    op = TemporalOp(kind="3d", dilation=(2,))
    block = built(mixed("reduction1", temporal=op, temporal_stride=2))
    conv = block.get_submodule("branch0.0").conv
    clips = torch.randn(1, 8, 8, 7, 7)
    torch.testing.assert_close(conv(clips), F.conv3d(clips, conv.weight, stride=2))
    torch.testing.assert_close(block.get_submodule("branch2.0.pool")(clips), F.max_pool3d(clips, 3, 2))
    # The convolution before it keeps frames, so it is padded and dilated.
    inner = block.get_submodule("branch1.1").conv
    torch.testing.assert_close(inner.dilation, (2, 1, 1))
    assert inner.padding == (2, 1, 1)


def test_frames_are_independent_without_time_and_strides():
    torch.manual_seed(0)
    net = network(PRESETS["inception_v3_2d"].make(1).scaled(1 / 8)).eval()
    clips = torch.randn(2, 3, 4, 75, 80)
    with torch.no_grad():
        alone = torch.stack([net(clips[:, :, t : t + 1]) for t in range(4)])
        torch.testing.assert_close(net(clips), alone.mean(0), rtol=1e-4, atol=1e-5)
    assert alone.std(0).min() > 0


def test_the_auxiliary_classifier_answers_in_training_only():
    torch.manual_seed(0)
    spec = make_inception_v3(lambda unit: FLAT, width=1 / 8, strides=(1,) * 5)
    net, clips = network(spec), torch.randn(2, 3, 2, 49, 49)
    logits, aux = net.train()(clips)
    assert logits.shape == aux.shape == (2, 5)
    aux.sum().backward()
    seen = {name.split(".")[0] + "." + name.split(".")[1] for name, p in net.named_parameters() if p.grad is not None}
    # It stands behind the last block before the second reduction.
    assert {"stages.1", "aux.fc"} <= seen
    assert not {"stages.2", "head.fc"} & seen
    assert isinstance(net.eval()(clips), torch.Tensor)
    without = network(replace(spec, aux=None))
    assert sum(p.numel() for p in net.parameters()) - sum(p.numel() for p in without.parameters()) == sum(
        p.numel() for p in net.get_submodule("aux").parameters()
    )


@pytest.mark.parametrize("size", [1, 5, 13, 16, 17])
def test_the_auxiliary_classifier_takes_maps_of_any_size(size):
    torch.manual_seed(0)
    head = build(AuxHead(4, 8, 16, 5)).eval()
    clips = torch.randn(2, 4, 3, size, size + 2)
    assert head(clips).shape == (2, 5)
    torch.testing.assert_close(head(clips), torch.stack([head(clips[:, :, t : t + 1]) for t in range(3)]).mean(0))


blocks = st.builds(
    mixed,
    st.sampled_from(sorted(WIDTHS)),
    temporal=st.builds(
        TemporalOp,
        kind=st.sampled_from(KINDS),
        kernel=st.sampled_from([1, 3, 5, 7]),
        dilation=st.sampled_from([(1,), (2,), (2, 1)]),
        midplanes=st.sampled_from(["per_conv", "equal", "shared"]),
    ),
    pair=st.sampled_from(PAIRS),
    reach=st.sampled_from(REACHES),
    pool_kernel=st.sampled_from([1, 3]),
    padding=st.sampled_from(["valid", "same"]),
    attention=st.sampled_from(["none", "gate"]),
)


WHOLE, FIVE = TemporalOp(kind="3d"), TemporalOp(kind="p3d_a", kernel=5)
EQUAL = [
    (mixed("type2", temporal=WHOLE, pair="each"), mixed("type2", temporal=WHOLE, pair="inflated")),
    (mixed("reduction2", temporal=WHOLE, pair="each"), mixed("reduction2", temporal=WHOLE, pair="inflated")),
    (mixed("type2", pair="inflated"), mixed("type2", temporal=WHOLE, pair="inflated")),
    (mixed("type2", pair="none", reach="kernel"), mixed("type2", temporal=FLAT)),
    (mixed("type2", temporal=FIVE), mixed("type2")),
    (mixed("type2", temporal=TemporalOp(kind="p3d_a", kernel=7), reach="kernel"), mixed("type2")),
    (mixed("type1", temporal=FIVE, reach="kernel"), mixed("type1", temporal=FIVE)),
    (mixed("type1", padding="same", pair="each"), mixed("type1")),
    (mixed("type3", reach="kernel"), mixed("type3")),
    (mixed("reduction2", pair="none", reach="kernel"), mixed("reduction2", pair="none")),
    (mixed("reduction1", temporal_stride=2, pool_kernel=1), mixed("reduction1", temporal_stride=2, pool_kernel=3)),
    (mixed("reduction1", temporal=WHOLE, reach="kernel"), mixed("reduction1", temporal=WHOLE)),
    (
        mixed("reduction2", temporal=replace(SEPARABLE, dilation=(2,)), pair="none", temporal_stride=2),
        mixed("reduction2", pair="none", temporal_stride=2),
    ),
]


@pytest.mark.parametrize(("first", "second"), EQUAL)
def test_what_has_no_effect_is_not_in_the_canonical_form(first, second):
    assert canonical_block(first) == canonical_block(second)
    assert layers(first) == layers(second)


@settings(max_examples=40, deadline=None)
@given(first=blocks, second=blocks, stride=st.sampled_from([1, 2]))
def test_blocks_are_equal_where_their_modules_are(first, second, stride):
    """A block changed in one field is canonically the same exactly where the modules are, and its line is."""
    if first.kind.startswith("reduction"):
        first = replace(first, temporal_stride=stride)
    assert canonical_block(canonical_block(first)) == canonical_block(first)
    for path in diff(first, second) - {"kind", "temporal_stride", "widths"}:
        other = put(first, path, at(second, path))
        same = canonical_block(first) == canonical_block(other)
        assert same == (layers(first) == layers(other)), path
        assert same == (line(first) == line(other)), path


def layers(block: Mixed) -> tuple[Node, ...]:
    return MixedUnit(canonical_block(block), 8).graph().nodes


def line(block: Mixed) -> str:
    spec = make_inception_v3(lambda unit: FLAT, width=1 / 64)
    s, b = next((s, b) for s, stage in enumerate(BLOCKS) for b, (kind, _) in enumerate(stage) if kind == block.kind)
    return put(spec, f"stages.{s}.blocks.{b}", block).canonical().describe()


POINTS = {
    "inception_v3_2d": {
        "placement": "none",
        "temporal_stride": "1-1-1-1-1",
        "pool_kernel": "1-1",
        "stem_padding": "valid",
        "aux": False,
    },
    "s3d_v3": {},
    "s3d_v3_inflated": {"pair": "inflated"},
    "s3d_v3_top_heavy_5c": {"placement": "top_heavy", "cut": 5},
    "s3d_v3_top_heavy_6a": {"placement": "top_heavy", "cut": 7},
    "i3d_v3": {"kind": "3d", "pair": "inflated"},
}


@pytest.mark.parametrize("name", POINTS)
def test_published_networks_are_points_of_the_space(name):
    values = POINTS[name]
    sites = DOMAINS.sites(dict.fromkeys(values, "network"), {domain: (value,) for domain, value in values.items()})
    assert sites.build({(domain,): value for domain, value in values.items()}) == PRESETS[name].make(64)
    assert set(POINTS) == set(PRESETS)


@pytest.mark.parametrize(
    ("domain", "value", "message"),
    [
        ("cut", 16, r"cut must be a layer or 15 for the end, but is 16 \(0 1a, 1 2a, .*14 7c\)$"),
        ("kind", "p3d_b", "kind must be one of its choices"),
        ("temporal_stride", "2-2", "temporal_stride must be as_paper, none or 5 numbers"),
        ("pair", "7x7", "pair must be one of its choices"),
    ],
)
def test_a_value_that_a_domain_cannot_have_is_refused_in_one_line(domain, value, message):
    with pytest.raises(SpecError, match=message) as error:
        DOMAINS.normalise(domain, value, "network")
    assert "\n" not in str(error.value)


def test_a_clip_too_short_for_its_strides_or_too_small_is_refused():
    spec = PRESETS["s3d_v3"].make(64)
    assert cost(spec, frames=49, height=49, width=49, num_classes=5).params > 0
    for frames, size in ((48, 49), (49, 48)):
        with pytest.raises(ClipError, match="too short or too small"):
            cost(spec, frames=frames, height=size, width=size, num_classes=5)
    small = make_inception_v3(lambda unit: SEPARABLE, strides=(1,) * 5, reduction_padding="same")
    assert cost(small, frames=1, height=8, width=8, num_classes=5).params > 0


def test_rows_and_diff_name_places_in_the_spec():
    spec = PRESETS["s3d_v3"].make(64)
    rows = {str(row["site"]): row for row in spec.rows()}
    for site in rows:
        at(spec, site)
    assert rows["stages.1.blocks.1"]["kernel"] == "1x1x7, 1x7x1, 7x1x1"
    assert rows["stages.1.blocks.0"]["stride"] == "2x2x2"
    assert rows["stages.2.blocks.2"]["out"] == 2048
    changed = {f"stages.{s}.blocks.{b}.pair" for s, b in ((1, 1), (1, 2), (1, 3), (1, 4), (2, 0))}
    kinds = {f"stages.1.blocks.{b}.temporal.kind" for b in range(1, 5)}
    assert diff(spec, PRESETS["s3d_v3_inflated"].make(64)) == changed | kinds
