"""Image networks of timm on clips: specs, the chain they are cut into, what works with which, and their domains."""

from __future__ import annotations

import copy
import pickle
import random
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from nas.cost.cost import cost
from search_spaces.catalogue import build, links
from search_spaces.codec import decode, encode
from search_spaces.errors import ClipError, SpecError
from search_spaces.families.timm.anatomy import anatomy, stages_for, stages_with
from search_spaces.families.timm.family import PRESETS, make_timm
from search_spaces.families.timm.known import NUM_STAGES, TIMM_KINDS, ways
from search_spaces.families.timm.layers import StridedConv2d
from search_spaces.families.timm.sites import kin, sites
from search_spaces.families.timm.spec import TimmHead, TimmShift, TimmSpec, TimmStage
from search_spaces.families.timm.trace import check_model
from search_spaces.families.timm.walk import plan
from search_spaces.modules import build as build_unit
from search_spaces.operators import TemporalOp
from search_spaces.space import parse_space

# One network of each kind that is known, and whether branches of it can be shifted.
KNOWN = {
    "resnet18": True,
    "resnet50": True,
    "legacy_seresnet18": True,
    "seresnet50": True,
    "legacy_senet154": True,
    "regnety_016": True,
    "regnetx_002": True,
    "mobilenetv2_100": True,
    "mobilenetv3_large_100": True,
    "mobilenetv3_small_050": True,
    "efficientnet_b0": True,
    "densenet121": False,
    "inception_v3": False,
    "inception_resnet_v2": False,
    "convnext_atto": True,
    "convnext_tiny": True,
}


def made(spec: TimmSpec, num_classes: int = 5) -> nn.Module:
    torch.manual_seed(0)
    return build(spec, num_classes=num_classes)


def op_at(stage: int, **op: object) -> tuple[TimmStage, ...]:
    return tuple(TimmStage(temporal=TemporalOp(**op)) if i == stage else TimmStage() for i in range(NUM_STAGES))


@pytest.mark.parametrize(("model", "shifted"), KNOWN.items())
def test_what_is_known_of_a_network_is_what_timm_has(model, shifted):
    known = ways(model)
    assert known is not None
    assert known.chain
    found = anatomy(model)
    assert known.shift == shifted == any(piece.shifts for piece in found.pieces)
    assert known.spatial == stages_with(model, "3d") == stages_for(model, "p3d_a")
    assert known.pointwise == stages_with(model, "t1x1_first") == stages_with(model, "t1x1_both")
    assert set(stages_for(model, "t1x1_all")) >= set(known.pointwise)


def test_stages_are_counted_by_resolution():
    stages = {
        model: [part.stage for part in plan(model).parts] for model in ("resnet18", "inception_v3", "convnext_atto")
    }
    assert stages["resnet18"] == [0, 1, 1, 1, 2, 2, 3, 3, 4, 4]
    assert stages["inception_v3"] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3, 4, 4, 4]
    assert set(stages["convnext_atto"]) == {1, 2, 3, 4}
    (first, pool, block, *_) = plan("resnet18").parts
    assert first.paths == ("conv1", "bn1", "act1")
    assert (first.in_planes, first.out_planes, first.stride) == (3, 64, 2)
    assert (pool.name, block.name) == ("maxpool", "layer1.0")
    assert plan("mobilenetv3_small_050").tail == ("global_pool", "conv_head", "act2", "flatten")
    assert [kin("resnet50", f"layer1.{i}") for i in range(3)] == ["layer1.0", "layer1.1", "layer1.1"]


def test_a_convolution_takes_the_norm_and_activation_that_follow_it():
    spatial = TemporalOp(kind="p3d_a")
    (site,) = sites("resnet50", "layer2.1", spatial)
    assert site == ("layer2.1.conv2", "layer2.1.bn2", "layer2.1.act2", False)
    (site,) = sites("legacy_senet154", "layer1.1", spatial)
    assert site == ("layer1.1.conv2", "layer1.1.bn2", "layer1.1.relu", True)
    (site,) = sites("mobilenetv2_100", "blocks.1.1", spatial)
    assert site == ("blocks.1.1.conv_dw", "blocks.1.1.bn2", "", False)
    (site,) = sites("resnet50", "conv1", spatial)
    assert site == ("conv1", "bn1", "act1", False)
    bare = sites("densenet121", "features.denseblock1", spatial)
    assert [site[1:] for site in bare] == [("", "", False)] * 6
    shortcut = "layer2.0.downsample.0"
    assert [site.conv for site in sites("resnet50", "layer2.0", TemporalOp(kind="t1x1_first"))] == ["layer2.0.conv1"]
    assert shortcut not in [site.conv for site in sites("resnet50", "layer2.0", TemporalOp(kind="t1x1_both"))]
    assert shortcut in [site.conv for site in sites("resnet50", "layer2.0", TemporalOp(kind="t1x1_all"))]
    # Squeeze-excitation stays with each frame.
    found = [site.conv for site in sites("regnety_016", "s1.b1", TemporalOp(kind="t1x1_all"))]
    assert found == ["s1.b1.conv1.conv", "s1.b1.conv3.conv", "s1.b1.downsample.conv"]


def test_a_stage_alone_is_inflated():
    network = made(TimmSpec(model="resnet18", stages=op_at(3, kind="3d", kernel=5)))
    found = {name: tuple(p.shape) for name, p in network.named_parameters() if p.dim() == 5}
    assert found == {
        f"backbone.layer3.{i}.block.conv{j}.conv.weight": (256, 128 if (i, j) == (0, 1) else 256, 5, 3, 3)
        for i in (0, 1)
        for j in (1, 2)
    }
    pair = made(TimmSpec(model="regnetx_002", stages=op_at(4, kind="2plus1d")))
    weights = {name: tuple(p.shape) for name, p in pair.named_parameters() if "s4.b2" in name and "conv2" in name}
    # As many planes between as out where a convolution is grouped, and as many groups.
    assert weights["backbone.s4.b2.block.conv2.conv.spatial.weight"] == (368, 8, 3, 3)
    assert weights["backbone.s4.b2.block.conv2.conv.temporal.conv.weight"] == (368, 8, 3, 1, 1)
    whole = made(TimmSpec(model="resnet18", stages=op_at(1, kind="2plus1d")))
    assert whole.get_parameter("backbone.layer1.0.block.conv1.spatial.weight").shape == (144, 64, 3, 3)


def test_a_network_sees_time_only_where_it_was_put():
    """Frames in another order: the same logits per frame, others once a stage is inflated."""
    clip = torch.randn(1, 3, 4, 32, 32)
    for changes, sees in (({}, False), ({"kind": "3d", "placed": (2,)}, True), ({"shift": "tsm"}, True)):
        network = made(make_timm("resnet18", **changes)).eval()
        with torch.no_grad():
            same = torch.allclose(network(clip), network(clip.flip(2)), rtol=1e-4, atol=1e-5)
        assert same != sees


def test_pools_halve_the_frames_and_keep_the_last():
    network = made(make_timm("resnet18", pools=(2, 4)))
    seen: list[int] = []
    for name in ("backbone.layer1.1", "backbone.layer2.0", "backbone.layer4.1"):
        network.get_submodule(name).register_forward_hook(lambda _, __, out: seen.append(out.shape[2]))
    with torch.no_grad():
        for frames in (8, 5, 1):
            network.eval()(torch.randn(1, 3, frames, 32, 32))
    assert seen == [8, 4, 2, 5, 3, 2, 1, 1, 1]


@pytest.mark.parametrize("changes", [{"shift": "tin", "head": "lstm"}, {"kind": "p3d_b", "placed": (1, 3)}])
def test_networks_can_be_copied_and_pickled(changes):
    network = made(make_timm("mobilenetv3_small_050", frames=3, **changes)).eval()
    clip = torch.randn(1, 3, 3, 32, 32)
    with torch.no_grad():
        expected = network(clip)
        assert torch.equal(copy.deepcopy(network)(clip), expected)
        assert torch.equal(pickle.loads(pickle.dumps(network))(clip), expected)


def test_links_build_one_network_after_another():
    """Each takes timm's modules from a network of its own, and a unit alone has values too."""
    chain = links(make_timm("resnet18"), num_classes=5)
    torch.manual_seed(0)
    first = [build_unit(unit) for _, unit in chain]
    torch.manual_seed(0)
    second = [build_unit(unit) for _, unit in chain]
    for a, b in zip(first, second, strict=True):
        for p, q in zip(a.parameters(), b.parameters(), strict=True):
            assert torch.equal(p, q)
            assert p.data_ptr() != q.data_ptr()
    alone = build_unit(chain[2].unit)
    assert all(p.abs().max() > 0 for p in alone.parameters() if p.dim() > 1)


@pytest.mark.parametrize("groups", [1, 4, 16])
def test_strided_convolutions_are_right_in_bfloat16_on_maps_narrower_than_their_stride(groups):
    torch.manual_seed(0)
    weight, x = torch.randn(16, 16 // groups, 3, 3), torch.randn(6, 16, 1, 1)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        conv = StridedConv2d(16, 16, 3, stride=2, padding=1, groups=groups, bias=False).to(dtype)
        conv.weight.data = weight.to(dtype)
        out = conv(x.to(dtype))
        out.backward(torch.ones_like(out))
        found += [out.detach().float(), conv.weight.grad.float()]
    torch.testing.assert_close(found[2], found[0], rtol=0.05, atol=0.05)
    torch.testing.assert_close(found[3], found[1], rtol=0.05, atol=0.05)
    kinds = {type(m) for m in made(make_timm("resnet18")).modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)}
    assert kinds == {StridedConv2d, nn.Conv2d}


def test_a_spec_says_what_differs_and_nothing_that_does_not():
    base = TimmSpec(model="resnet50")
    same = [
        replace(base, frames=16),
        replace(base, shift=TimmShift(share=4, every=2)),
        replace(base, shift=TimmShift(place="block")),
        replace(base, head=TimmHead(width=64)),
        replace(base, stages=op_at(2, kind="3d", kernel=1)),
        replace(base, stages=op_at(2, kind="2d", kernel=5)),
    ]
    assert {spec.canonical() for spec in same} == {base}
    others = [
        base,
        replace(base, model="resnet18"),
        replace(base, shift=TimmShift(kind="tsm")),
        replace(base, shift=TimmShift(kind="tsm", every=2)),
        replace(base, shift=TimmShift(kind="tsm", share=4)),
        replace(base, shift=TimmShift(kind="tsm", place="block")),
        replace(base, shift=TimmShift(kind="tin")),
        replace(base, shift=TimmShift(kind="tin"), frames=4),
        replace(base, head=TimmHead(kind="trn")),
        replace(base, head=TimmHead(kind="trn", width=64)),
        replace(base, head=TimmHead(kind="trn", std=0.001)),
        replace(base, head=TimmHead(kind="trn_single")),
        replace(base, head=TimmHead(std=0.001)),
        replace(base, stages=op_at(2, kind="3d")),
        replace(base, stages=op_at(3, kind="3d")),
        replace(base, stages=op_at(2, kind="3d", kernel=5)),
        replace(base, stages=op_at(2, kind="3d", dilation=(1, 2))),
        replace(base, stages=(*(TimmStage(),) * 4, TimmStage(pool=2))),
        replace(base, stages=(*(TimmStage(),) * 4, TimmStage(attention="se"))),
    ]
    assert all(spec.canonical() == spec == decode(encode(spec)) for spec in others)
    assert len({spec.describe() for spec in others}) == len(others)
    lstm = replace(base, head=TimmHead(kind="lstm"))
    assert replace(lstm, head=TimmHead(kind="lstm", std=0.001)).canonical() == lstm
    assert replace(others[6], shift=TimmShift(kind="tin", place="block")).canonical() == others[6]


def test_what_specs_did_not_have_at_first_is_not_in_their_digest():
    plain = encode(make_timm("resnet18", shift="tsm"))
    assert set(plain["shift"]) == {"kind", "every", "share"}
    assert set(plain["head"]) == {"kind", "width"}
    published = encode(next(entry for entry in PRESETS if entry.name == "tsm_r50_block").make(8))
    assert (published["shift"]["place"], published["head"]["std"]) == ("block", 0.001)


@pytest.mark.parametrize("name", ["tsn_r18", "tsn_mobilenetv2", "tsm_r50", "tin_r50", "trn_r50", "trn_single_r50"])
def test_published_networks_begin_with_small_logits_of_frames(name):
    """As in the authors' code: the layer behind timm's features has values of 0.001 and no bias at first."""
    network = made(next(entry for entry in PRESETS if entry.name == name).make(8), num_classes=50)
    head = network.get_submodule("head.head")
    layer = head.reduce if name.startswith("trn") else head.fc
    assert layer.weight.std().item() == pytest.approx(0.001, rel=0.03)
    assert abs(layer.weight.mean().item()) < 2e-5
    assert not layer.bias.any()
    plain = made(make_timm("resnet18"), num_classes=50).get_submodule("head.head.fc")
    assert plain.weight.std().item() > 0.01


def test_rows_say_where_time_is():
    rows = TimmSpec(model="resnet50", stages=op_at(2, kind="3d", kernel=5)).rows()
    assert [row["block"] for row in rows[:3]] == ["conv1", "maxpool", "layer1.0"]
    assert {row["block"]: row["operator"] for row in rows if row["site"] == "stages.2"} == {
        f"layer2.{i}": "3d" for i in range(4)
    }
    (row,) = (row for row in rows if row["block"] == "layer2.0")
    assert (row["in"], row["out"], row["kernel"], row["stride"]) == (256, 512, 5, "1x2x2")
    assert (rows[-1]["block"], rows[-1]["in"]) == ("average", 2048)


FLAT = (TimmStage(),) * NUM_STAGES


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "ResNet 50"}, "model must be a name of timm without a tag, such as resnet50, but is ResNet 50"),
        ({"model": "resnet50.a1_in1k"}, "model must be a name of timm without a tag"),
        ({"frames": 0}, "frames must be at least 1, but is 0"),
        ({"stages": FLAT[1:]}, "stages must hold 5 stages, but hold 4"),
        (
            {"stages": (TimmStage(pool=2), *FLAT[1:])},
            "stages.0.pool must be 1, as there is nothing before it",
        ),
    ],
)
def test_bad_values_are_refused(values, message):
    with pytest.raises(SpecError, match=message.replace(".", r"\.")):
        TimmSpec(**{"model": "resnet18", **values})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TimmStage(temporal=TemporalOp(kind="csn")), "temporal.kind must be one of its choices, but is csn"),
        (
            lambda: TimmStage(temporal=TemporalOp(kind="2plus1d", midplanes="shared")),
            "midplanes must be per_conv",
        ),
        (lambda: TimmStage(pool=0), "pool must be at least 1, but is 0"),
        (lambda: TimmStage(attention="cbam"), "attention must be one of its choices, but is cbam"),
        (lambda: TimmShift(kind="tms"), "kind must be one of its choices, but is tms; did you mean tsm"),
        (lambda: TimmShift(every=0), "every must be at least 1, but is 0"),
        (lambda: TimmShift(share=1), "share must be at least 2, but is 1"),
        (lambda: TimmHead(kind="mean"), "kind must be one of its choices, but is mean"),
        (lambda: TimmHead(width=0), "width must be at least 1, but is 0"),
        (
            lambda: TimmSpec(model="resnet18").scaled(0.5),
            "the widths of timm's resnet18 cannot be scaled",
        ),
    ],
)
def test_bad_parts_are_refused(make, message):
    with pytest.raises(SpecError, match=message.replace(".", r"\.")):
        make()
    assert TimmSpec(model="resnet18").scaled(1) == TimmSpec(model="resnet18")


WORKING = "ResNet, SE-ResNet, SENet-154, RegNet, MobileNetV2, MobileNetV3, EfficientNet, DenseNet"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (make_timm("resnet53"), "model must be a network of timm, but is resnet53; did you mean resnet5"),
        (
            make_timm("densenet121", shift="tsm"),
            "tsm needs residual branches, such as those of ResNet, .*",
        ),
        (make_timm("inception_v3", shift="tin"), "tin needs residual branches, .* but inception_v3 has none"),
        (make_timm("convnext_tiny", kind="t1x1_all", placed=(1,)), r"stages\.1\.temporal must be 2d, .* that are 1x1"),
        (make_timm("convnext_atto", kind="3d", placed=(0,)), r"stages\.0\.temporal must be 2d, .* larger than 1x1"),
        (
            make_timm("convnext_atto", pools=(1,)),
            r"stages\.1\.pool must be 1, as there is nothing before",
        ),
        (
            make_timm("vit_tiny_patch16_224", kind="3d", placed=(1,)),
            f"is no chain of parts, .* work {WORKING}",
        ),
        (make_timm("vit_tiny_patch16_224", shift="tsm"), "works per frame only, without shifts, pools"),
        (
            make_timm("resnetv2_50x1_bit", kind="3d", placed=(2,)),
            r"inflated: its convolution stem\.conv is a StdConv2d",
        ),
        (make_timm("swin_tiny_patch4_window7_224"), "cannot be used: it multiplies outside of its convolutions"),
        (make_timm("deit_tiny_distilled_patch16_224"), "cannot be used: it has not one classifier but several"),
    ],
)
def test_what_a_network_cannot_do_is_refused_in_one_line(spec, message):
    with pytest.raises(SpecError, match=message) as error:
        links(spec, num_classes=5)
    assert "\n" not in str(error.value)


def test_a_stage_that_is_not_there_has_no_attention():
    spec = TimmSpec(model="convnext_atto", stages=(TimmStage(attention="gate"), *FLAT[1:]))
    with pytest.raises(SpecError, match=r"stages\.0\.attention must be none, as convnext_atto has no such stage"):
        links(spec, num_classes=5)


def test_names_are_checked_before_anything_is_built():
    check_model("resnet50")
    with pytest.raises(
        SpecError, match="must be a network of timm, but is efficentnet_b0; did you mean efficientnet_b0"
    ):
        check_model("efficentnet_b0")


def test_a_transformer_takes_its_own_size_only():
    found = cost(make_timm("vit_tiny_patch16_224"), frames=2, height=224, width=224, num_classes=5)
    # Two products of 197 tokens of width 64 in each of 3 heads of 12 blocks; the rest is in linear layers.
    products = 2 * 12 * 3 * 2 * 197 * 197 * 64
    linear = 2 * (196 * 768 * 192 + 197 * 12 * 12 * 192**2 + 192 * 5)
    assert found.macs == products + linear
    with pytest.raises(ClipError, match="the network takes 224x224 only, but the clip has 64x64"):
        cost(make_timm("vit_tiny_patch16_224"), frames=2, height=64, width=64, num_classes=5)


def test_least_clips():
    """Thirty-two pixels do for most; Inception takes off rows and columns, too."""
    for model, size in (("resnet18", 1), ("densenet121", 29), ("convnext_atto", 32), ("inception_v3", 75)):
        assert cost(make_timm(model), frames=1, height=size, width=size, num_classes=5).macs > 0
        if size > 1:
            with pytest.raises(ClipError):
                cost(make_timm(model), frames=1, height=size - 1, width=size - 1, num_classes=5)


def test_domains_offer_what_a_network_can_do():
    space = parse_space(
        {
            "families": {
                "timm": {
                    "domains": {
                        "model": ["densenet121", "convnext_tiny", "resnet18", "vit_tiny_patch16_224"],
                        "shift": ["none", "tsm", "tin"],
                        "head": ["average", "trn"],
                        "frames": [4, 8],
                        "kind": {"values": list(TIMM_KINDS), "per": "stage"},
                        "cut": [0, 3, 5],
                        "kernel": {"values": [3, 5], "per": "stage"},
                        "time_pool": {"values": [1, 2], "per": "stage"},
                        "attention": {"values": ["none", "se"], "per": "stage"},
                    }
                }
            }
        }
    )
    rng = random.Random(0)
    specs = [space.random(rng).spec for _ in range(150)]
    for spec in specs:
        assert spec.canonical() == spec
        links(spec, num_classes=5)
    by_model = {model: [s for s in specs if s.model == model] for model in {s.model for s in specs}}
    assert len(by_model) == 4
    assert {s.shift.kind for s in by_model["densenet121"]} == {"none"}
    assert {s.shift.kind for s in by_model["resnet18"]} == {"none", "tsm", "tin"}
    assert all(s.stages == FLAT and s.shift == TimmShift() for s in by_model["vit_tiny_patch16_224"])
    assert all(s.stages[0] == TimmStage() for s in by_model["convnext_tiny"])
    kinds = {stage.temporal.kind for s in by_model["convnext_tiny"] for stage in s.stages}
    assert kinds == {"2d", "3d", "2plus1d", "p3d_a", "p3d_b", "p3d_c", "p3d_b_port", "p3d_c_port"}
    assert {s.frames for s in specs if s.head.kind == "average" and s.shift.kind != "tin"} == {8}


def test_bottom_heavy_is_the_reverse_of_top_heavy():
    placed = {}
    for placement in ("top_heavy", "bottom_heavy"):
        domains = {"model": ["resnet18"], "kind": ["3d"], "placement": [placement], "cut": [2]}
        spec = parse_space({"families": {"timm": {"domains": domains}}}).random(random.Random(0)).spec
        placed[placement] = [stage.temporal.kind for stage in spec.stages]
    assert placed == {"top_heavy": ["2d", "2d", "3d", "3d", "3d"], "bottom_heavy": ["3d", "3d", "2d", "2d", "2d"]}


def test_a_study_is_read_without_torch():
    code = (
        "import sys; from search_spaces.families.timm import family as f; from search_spaces.space import parse_space;"
        "space = parse_space({'families': {'timm': f.FAMILY.sample()}});"
        "import random; specs = [space.random(random.Random(i)).spec for i in range(5)];"
        "[p.make(8).describe() for p in f.PRESETS];"
        "print([m for m in ('torch', 'timm', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_presets_are_canonical_and_say_their_clip():
    assert len({entry.make(8) for entry in PRESETS}) == len(PRESETS)
    for entry in PRESETS:
        assert entry.make(entry.clip[0]).canonical() == entry.make(entry.clip[0])
        assert entry.make(entry.clip[0]).model.replace("_", "").isalnum()
    for name in ("trn_r50", "trn_single_r50", "tin_r50"):
        (preset,) = (entry for entry in PRESETS if entry.name == name)
        assert preset.make(16).frames == 16
