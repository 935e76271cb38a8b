from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.catalogue import PRESETS, build, preset
from search_spaces.codec import decode, digest, dumps, encode, loads
from search_spaces.edit import at, diff, leaves, put
from search_spaces.errors import SpecError
from search_spaces.families.resnet.blocks import Block, Stage, Stem, canonical_block
from search_spaces.families.resnet.spec import ResNetSpec
from search_spaces.modules import Network
from search_spaces.operators import MIDPLANES, TemporalOp
from search_spaces.spec import number_text
from tests.search_spaces.strategies import specs

# Another valid value for a leaf, by the last part of its path.
OTHER = {
    "midplanes": lambda old: (set(MIDPLANES) - {old}).pop() if isinstance(old, str) else old + 1,
    "width": lambda old: old + 8,
    "spatial_stride": lambda old: 3 - old,
    "temporal_stride": lambda old: 3 - old,
    "kernel": lambda old: 5 if old != 5 else 3,
    "dilation": lambda old: (*old, 7),
    "spatial_kernel": lambda old: old + 2,
    "temporal_kernel": lambda old: old + 2,
    "pool": lambda old: "max" if old == "none" else "none",
    "pool_frames": lambda old: 3 - old,
    "time_pool": lambda old: 3 - old,
    "time_first": lambda old: not old,
    "stride_on": lambda old: "1x1" if old == "3x3" else "3x3",
    "shortcut": lambda old: "pad" if old == "conv" else "conv",
    "attention": lambda old: "se" if old != "se" else "gate",
    "head": lambda old: "avg" if old == "avg_max" else "avg_max",
    "norm_eps": lambda old: 1e-3 if old == 1e-5 else 1e-5,
    "norm_momentum": lambda old: 0.01 if old == 0.1 else 0.1,
    "zero_init": lambda old: not old,
    "relu_first": lambda old: not old,
}


@given(specs)
def test_decoding_gives_back_what_was_encoded(spec):
    assert decode(json.loads(json.dumps(encode(spec)))) == spec
    assert loads(dumps(spec)) == spec


@given(specs)
def test_canonical_json_is_sorted_and_dense(spec):
    assert dumps(spec) == json.dumps(encode(spec), sort_keys=True, separators=(",", ":"))


@given(specs, st.data())
def test_an_edit_changes_the_leaf_that_it_names_and_no_other(spec, data):
    path = data.draw(st.sampled_from(sorted(p for p in leaves(spec) if p.split(".")[-1] in OTHER)))
    new = OTHER[path.split(".")[-1]](at(spec, path))
    edited = put(spec, path, new)
    assert diff(spec, edited) == {path}
    assert at(edited, path) == new
    assert put(edited, path, at(spec, path)) == spec


@given(specs)
def test_the_canonical_form_is_its_own_and_keeps_the_digest(spec):
    canonical = spec.canonical()
    assert canonical.canonical() == canonical
    assert digest(canonical) == digest(spec)
    assert len(digest(spec)) == 64


# Digests of version 1, when its `p3d_b` and `p3d_c` were the blocks of the port.
FIRST = {
    "p3d_50_a": "b2fcd4b06e7d9845778233cbe67a52108c175854cf00b7743d0bedfb0501c6ba",
    "p3d_50_b": "684212c89aea22707e2f885398a523aca7dfd3c9c1881c66d718e99581d2249e",
    "p3d_50_c": "9d7ddc30b83bb807e2aa615a650e302b5d13e8b88c1e9d4ffb50c96ababd6278",
    "p3d_50": "dae1cc46ac0d0c5d19ed2b629f618b76d23390b36dd98ce3991216d08d77c230",
}


@pytest.mark.parametrize("name", FIRST)
def test_what_version_1_called_p3d_is_the_ports_block_under_its_old_digest(name):
    """A record of before stays what it was, and the authors' network of the same name has another digest."""
    now = preset(name)
    former = {**encode(now), "version": 1}
    then = decode(former)
    assert digest(then) == FIRST[name]
    assert encode(then) == former
    kinds = {block.temporal.kind for _, _, _, block in then.walk()}
    changed = name != "p3d_50_a"
    assert kinds.isdisjoint({"p3d_b", "p3d_c"})
    assert any(kind.endswith("_port") for kind in kinds) == changed == ("_port" in then.describe())
    assert (digest(now) != FIRST[name]) == changed
    assert encode(now)["version"] == (2 if changed else 1)


@given(specs)
def test_a_network_is_written_in_the_lowest_version_that_can_express_it(spec):
    names = {name for _, _, _, block in spec.walk() for name in (block.temporal.kind, block.attention)}
    version = 1 if names.isdisjoint({"p3d_b", "p3d_c", "nonlocal"}) else 2
    assert encode(spec)["version"] == version
    former = {"p3d_b_port", "p3d_c_port", "nonlocal_unbiased"} & names
    assert all((name in dumps(spec)) == (version == 2) for name in former)


def test_what_version_1_called_nonlocal_has_no_bias_and_keeps_its_digest():
    now = preset("i3d_nln_r50")
    former = {**encode(replace(now, zero_init=False)), "version": 1}
    then = decode(former)
    assert digest(then) == "6ee52e544e52fe5f77aa886f4af18b0aae8401d8b4e997935ff9b2c00df2366a"
    assert encode(then) == former
    assert {block.attention for _, _, _, block in then.walk()} == {"none", "nonlocal_unbiased"}
    with torch.device("meta"):
        biases = [
            {name for name, _ in build(spec, num_classes=2).named_parameters() if name.endswith("query.bias")}
            for spec in (then, now)
        ]
    assert [len(names) for names in biases] == [0, 5]


@given(specs, specs)
def test_one_line_and_digest_differ_where_networks_differ(a, b):
    a, b = a.canonical(), b.canonical()
    assert (a.describe() == b.describe()) == (a == b) == (digest(a) == digest(b))
    assert "\n" not in a.describe()


@given(specs, st.data())
def test_one_line_differs_after_any_single_edit_that_matters(spec, data):
    path = data.draw(st.sampled_from(sorted(p for p in leaves(spec) if p.split(".")[-1] in OTHER)))
    edited = put(spec, path, OTHER[path.split(".")[-1]](at(spec, path))).canonical()
    assert (edited.describe() == spec.canonical().describe()) == (edited == spec.canonical())


@given(specs)
def test_table_has_a_row_for_the_stem_each_block_and_each_pool_of_frames(spec):
    rows = spec.rows()
    assert len(rows) == 1 + sum(len(stage.blocks) + (stage.time_pool > 1) for stage in spec.stages)
    assert all(rows[0].keys() == row.keys() for row in rows)
    found = [at(spec, str(row["site"])) for row in rows]
    pools = [2] if spec.stages[-1].time_pool > 1 else []
    assert found[-1 - len(pools) :] == [spec.stages[-1].blocks[-1], *pools]


@settings(max_examples=40, deadline=None)
@given(specs)
def test_equal_digests_build_equal_networks(spec):
    outputs = []
    for form in (spec, spec.canonical()):
        torch.manual_seed(0)
        network = build(form, num_classes=3)
        clips = torch.randn((2, 3, 8, 16, 16))
        with torch.no_grad():
            outputs.append([p.detach() for p in network.parameters()])
            outputs[-1] += [network.eval()(clips)]
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))


def as_written(spec: ResNetSpec) -> torch.nn.Module:
    """The network of the spec itself, where `build` takes its canonical form."""
    torch.manual_seed(0)
    network = Network(spec.links(num_classes=3))
    spec.initialise(network)
    return network.eval()


@pytest.mark.parametrize(
    "block",
    [
        Block(kind="basic", width=8, spatial_stride=2, temporal_stride=1, temporal=op)
        for op in (
            TemporalOp(kind="2d", kernel=5, dilation=(2, 4), midplanes="shared"),
            TemporalOp(kind="3d", kernel=1, dilation=(1, 2)),
            TemporalOp(kind="2plus1d", kernel=3, dilation=(2, 2), midplanes="shared"),
            TemporalOp(kind="p3d_c", time_first=True),
        )
    ]
    + [
        Block(kind="bottleneck", width=2, spatial_stride=1, temporal_stride=1, temporal=op, stride_on="1x1")
        for op in (
            TemporalOp(kind="t1x1_all", dilation=(3, 1)),
            TemporalOp(kind="t1x1_both", kernel=1),
            TemporalOp(kind="csn", kernel=1, dilation=(2,)),
        )
    ],
)
def test_what_is_canonical_computes_the_same_before_and_after(block):
    """Each of the replacements of `canonical`, built as it was written and as it becomes."""
    stem = Stem(
        width=8,
        midplanes=5,
        temporal_kernel=1,
        spatial_kernel=3,
        spatial_stride=1,
        temporal_padding=False,
        pool_frames=2,
    )
    spec = ResNetSpec(stem=stem, stages=(Stage(blocks=(block,)),))
    clips = torch.randn((2, 3, 4, 8, 8), generator=torch.Generator().manual_seed(1))
    canonical = spec.canonical()
    assert canonical.stages != spec.stages and canonical.stem != spec.stem
    torch.testing.assert_close(as_written(spec)(clips), as_written(canonical)(clips))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("r2d_18", "20c48128e10c644254261411cb9219f6290fe0bf833483b728af6919270b988e"),
        ("r3d_18", "53cc92f0c6bb9f41255da3d76d3fa2b14b445608a46287113a268e2018fa078e"),
        ("r2plus1d_34", "9c44321267bdc3265ee65a003239be1df70cdb19894fcbdfe6de0a2764e251be"),
        ("r2plus1d_18_torchvision", "2ea9e50cfe3da822d510676e46d4e01fac3df9757b74bec8db9c723fd554f4ad"),
    ],
)
def test_digests_stay_although_fields_were_added(name, expected):
    """Those of before there were settings of norms, so of torch's defaults."""
    assert digest(replace(preset(name, frames=16), norm_eps=1e-5)) == expected


FLAT = TemporalOp(kind="2d")


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        (TemporalOp(kind="2d", kernel=7, dilation=(3,), midplanes="shared"), FLAT),
        (TemporalOp(kind="3d", kernel=1, dilation=(1, 2)), FLAT),
        (TemporalOp(kind="3d", dilation=(4, 1, 4, 2)), TemporalOp(kind="3d", dilation=(1, 2, 4))),
        (TemporalOp(kind="3d", midplanes="shared"), TemporalOp(kind="3d")),
        (TemporalOp(kind="p3d_a", kernel=1, dilation=(2,)), TemporalOp(kind="p3d_a", kernel=1)),
        (TemporalOp(kind="2plus1d", kernel=1, dilation=(2, 3)), TemporalOp(kind="2plus1d", kernel=1)),
        # The first block sees as many planes as it gives, so both conventions agree there; the next one differs.
        (TemporalOp(kind="2plus1d", midplanes="shared"), TemporalOp(kind="2plus1d")),
        (TemporalOp(kind="p3d_b", time_first=True), TemporalOp(kind="p3d_b")),
        (TemporalOp(kind="2plus1d", time_first=True), TemporalOp(kind="2plus1d", time_first=True)),
    ],
)
def test_what_has_no_effect_takes_its_default(written, canonical):
    stem = Stem(width=16, temporal_kernel=1, spatial_kernel=3, spatial_stride=1)
    blocks = tuple(
        Block(kind="basic", width=width, spatial_stride=1, temporal_stride=1, temporal=written) for width in (16, 32)
    )
    first, second = ResNetSpec(stem=stem, stages=(Stage(blocks=blocks),)).canonical().stages[0].blocks
    assert first.temporal == canonical
    shared = written.kind == "2plus1d" and written.midplanes == "shared"
    assert second.temporal == (written if shared else canonical)


@pytest.mark.parametrize(
    ("settings", "in_planes", "canonical"),
    [
        # Without strides, and in a basic block, there is no choice of where they are.
        ({"stride_on": "1x1"}, 64, {"stride_on": "3x3"}),
        ({"stride_on": "1x1", "spatial_stride": 2}, 64, {}),
        ({"stride_on": "1x1", "temporal_stride": 2}, 64, {}),
        ({"stride_on": "1x1", "spatial_stride": 2, "kind": "basic"}, 64, {"stride_on": "3x3"}),
        # Without a projection, there is none to hold time.
        ({"temporal": TemporalOp(kind="t1x1_all")}, 64, {"temporal": TemporalOp(kind="t1x1_both")}),
        ({"temporal": TemporalOp(kind="t1x1_all")}, 32, {}),
        ({"temporal": TemporalOp(kind="t1x1_all"), "spatial_stride": 2}, 64, {}),
        ({"temporal": TemporalOp(kind="t1x1_all", kernel=1)}, 32, {"temporal": FLAT}),
        (
            {"temporal": TemporalOp(kind="csn", kernel=1, dilation=(2,))},
            64,
            {"temporal": TemporalOp(kind="csn", kernel=1)},
        ),
        # M of planes as wide as the convolution's output is 3 * 9 * 16 * 16 / (9 * 16 + 3 * 16) = 36, not 16.
        ({"temporal": TemporalOp(kind="2plus1d", midplanes="equal")}, 64, {}),
        ({"attention": "gate"}, 64, {}),
    ],
)
def test_settings_of_a_block_without_effect_take_their_default(settings, in_planes, canonical):
    usual = {"kind": "bottleneck", "width": 16, "spatial_stride": 1, "temporal_stride": 1, "temporal": FLAT}
    block = Block(**{**usual, **settings})
    assert canonical_block(block, in_planes) == replace(block, **canonical)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("stages.0.time_pool", 0, "time_pool must be at least 1"),
        ("stages.0.blocks.0.attention", "sE", "did you mean se?"),
        ("stages.0.blocks.0.stride_on", "1x3", "must be one of its choices"),
        ("stages.0.blocks.0.temporal.kind", "csn", "csn needs the 1x1x1 convolutions of a bottleneck"),
        ("stem.pool_frames", 0, "pool_frames must be at least 1"),
        ("head", "max", "did you mean avg_max?"),
        ("stages.9.blocks.0.width", 8, "index must be 0 to"),
        ("stages.0.blocks.0.temporal.kernal", 3, "did you mean kernel?"),
        ("stages.0.blocks.0.temporal.kind", "2plus1", "did you mean 2plus1d?"),
        ("stages.0.blocks.0.width", "8", "must be int"),
        ("stages.0.blocks.0.width", True, "must be int"),
        ("stages.0.blocks.0.width", 0, "must be at least 1"),
        ("stem.temporal_kernel", 4, "must be odd"),
        ("stages", [], "at least 1 stage"),
        ("stages.0.blocks.0.temporal.dilation", [], "dilation"),
    ],
)
def test_a_bad_edit_is_refused_in_one_line(path, value, message, small_spec):
    with pytest.raises(SpecError) as caught:
        put(small_spec, path, value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda o: o.update(version=3), "version must be 1 to 2, but is 3"),
        (lambda o: o.pop("version"), "version must be 1 to 2, but is None"),
        (lambda o: o.pop("stem"), "key stem is missing"),
        (lambda o: o["stem"].update(widht=3), "stem: unknown key widht; did you mean width?"),
        (lambda o: o["stages"][0]["blocks"][0].update(width=1.5), "stages.0.blocks.0.width: must be int"),
        (lambda o: o["stages"][0]["blocks"][0]["temporal"].update(kind="2plus1"), "did you mean 2plus1d?"),
        (lambda o: o["stages"][0].update(blocks=[]), "stages.0: blocks must hold at least 1"),
        (lambda o: o.update(stages="x"), "stages: must be a list"),
        (lambda o: o["stem"].update(temporal_padding=1), "stem.temporal_padding: must be bool"),
        (lambda o: o["stages"][0].update(blocks=[3]), "stages.0.blocks.0: must be a mapping"),
        (lambda o: o.update(family=["resnet"]), "family must be one of the catalogue, but is ['resnet']"),
        (lambda o: o.update(family={"resnet": 1}), "family must be one of the catalogue, but is {'resnet': 1}"),
        (lambda o: o.update(norm_eps=10**400), "norm_eps must be at most 2,147,483,647, but is 1000"),
        (lambda o: o["stem"].update(width=10**30), "stem.width must be at most 2,147,483,647, but is 1000"),
        (lambda o: o["stem"].update(temporal_stride=-(10**400)), "stem.temporal_stride must be at most"),
        (lambda o: o["stages"][0]["blocks"][0]["temporal"].update(dilation=[2**31]), "dilation.0 must be at most"),
    ],
)
def test_bad_data_is_refused_with_its_path(change, message, small_spec):
    obj = encode(small_spec)
    change(obj)
    with pytest.raises(SpecError) as caught:
        decode(obj)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_text_that_is_no_spec_is_refused(text):
    with pytest.raises(SpecError):
        loads(text)


@pytest.fixture
def small_spec():
    return preset("r3d_18")


def test_one_line_tells_numbers_apart_to_their_last_digit():
    told = set()
    for name, published in PRESETS.items():
        spec = preset(name).canonical()
        for path, value in leaves(spec).items():
            if isinstance(value, float) and value:
                edited = put(spec, path, value * (1 - 1e-9))
                assert edited.describe() != spec.describe(), f"{name}: {path}"
                told.add((published.family, path))
    assert {("resnet", "norm_eps"), ("resnet", "norm_momentum"), ("inception_v1", "norm_momentum")} <= told
    assert {("timm", "head.std")} <= told
    assert [number_text(value) for value in (1e-3, 1e-5, 0.1, 0.1234567, 0.12345671)] == [
        "0.001",
        "1e-05",
        "0.1",
        "0.1234567",
        "0.12345671",
    ]
