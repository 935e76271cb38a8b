from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from search_spaces.catalogue import build, preset
from search_spaces.codec import decode, encode
from search_spaces.edit import diff, leaves, put
from search_spaces.errors import ClipError, SpecError
from search_spaces.families.slowfast.family import PRESETS, make_slowfast
from search_spaces.families.slowfast.spec import FUSIONS, Fusion, FusionUnit, SlowFastBlock, SlowFastSpec, StemsUnit
from search_spaces.modules import build as build_unit
from search_spaces.modules import slow_frames
from search_spaces.operators import FLAT, TemporalOp
from search_spaces.space import parse_space

TIMED = TemporalOp(kind="t1x1_first")


def small(**changes: object) -> SlowFastSpec:
    """Two stages of one block, slow 8 and 16 wide, fast 4 and 8, alpha 4."""
    settings = {
        "depth": "1-1",
        "width": 0.125,
        "beta": 2,
        "fusion": Fusion(),
        "block": lambda s, b, i: SlowFastBlock(slow=TIMED if s else FLAT, fast=TIMED),
    }
    return make_slowfast(**{**settings, **changes})


def shapes(spec: SlowFastSpec) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = build(spec, num_classes=5)
    return {name: tuple(p.shape) for name, p in network.named_parameters() if p.dim() > 1}


@pytest.mark.parametrize(("frames", "alpha"), [(32, 8), (32, 4), (44, 4), (64, 4), (16, 2), (8, 8), (5, 1)])
def test_the_slow_pathway_takes_the_frames_of_the_authors(frames, alpha):
    assert slow_frames(frames, alpha) == torch.linspace(0, frames - 1, frames // alpha).long().tolist()


def test_frames_that_are_no_multiple_are_rounded_up():
    assert slow_frames(10, 4) == [0, 4, 9]
    assert slow_frames(9, 8) == [0, 8]


def test_the_slow_pathway_sees_its_frames_and_the_fast_one_all():
    spec = small()
    stems = build_unit(StemsUnit(*spec.stems(), spec.alpha)).eval()
    clips = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        before = stems(clips)
        for frame in range(8):
            clips[:, :, frame] += 1
            after = stems(clips)
            assert torch.equal(after[0], before[0]) == (frame not in (0, 7))
            assert not torch.equal(after[1], before[1])
            before = after


@pytest.mark.parametrize("kind", FUSIONS)
@pytest.mark.parametrize("frames", [4, 10, 13])
def test_any_clip_of_alpha_frames_or_more_is_taken(kind, frames):
    network = build(small(fusion=Fusion(kind=kind)), num_classes=5).eval()
    with torch.no_grad():
        assert network(torch.randn(2, 3, frames, 32, 32)).shape == (2, 5)


def test_fewer_frames_than_alpha_are_refused():
    with pytest.raises(ClipError, match=r"^the slow pathway needs a clip of at least alpha = 4 frames, but got 3$"):
        build(small(), num_classes=5)(torch.randn(1, 3, 3, 32, 32))


def test_fusions_without_weights_join_what_they_say():
    slow, fast = torch.zeros(2, 3, 3, 1, 1), torch.arange(2 * 2 * 10.0).reshape(2, 2, 10, 1, 1)
    sampled, _ = build_unit(FusionUnit(Fusion(kind="sample"), 2, 4))((slow, fast))
    assert torch.equal(sampled[:, 3:, :, 0, 0], fast[:, :, [0, 4, 8], 0, 0])
    joined, passed = build_unit(FusionUnit(Fusion(kind="time_to_channel"), 2, 4))((slow, fast))
    assert passed is fast
    stacked = joined[:, 3:, :, 0, 0]
    assert stacked.shape == (2, 8, 3)
    for step in range(4):
        for t in range(3):
            frame = 4 * t + step
            expected = fast[:, :, frame, 0, 0] if frame < 10 else torch.zeros(2, 2)
            assert torch.equal(stacked[:, 2 * step : 2 * step + 2, t], expected)


def test_time_is_where_the_paper_has_it():
    (entry,) = (entry for entry in PRESETS if entry.name == "slowfast_8x8_r50")
    found = shapes(entry.make(32))
    timed = {name for name, shape in found.items() if len(shape) == 5 and shape[2] > 1}
    slow = {f"stages.{s}.{b}.slow.conv1.conv.weight" for s, n in ((2, 6), (3, 3)) for b in range(n)}
    fast = {f"stages.{s}.{b}.fast.conv1.conv.weight" for s, n in enumerate((3, 4, 6, 3)) for b in range(n)}
    fusions = {f"fusion.{i}.lateral.conv.weight" for i in range(4)}
    assert timed == slow | fast | fusions | {"stem.fast.conv.weight"}
    assert found["stem.fast.conv.weight"] == (8, 3, 5, 7, 7)
    assert found["fusion.1.lateral.conv.weight"] == (64, 32, 7, 1, 1)
    assert found["stages.1.0.slow.conv1.conv.weight"] == (128, 256 + 64, 1, 1, 1)
    assert found["head.fc.weight"] == (5, 2048 + 256)


def test_only_six_blocks_of_the_16x8_networks_third_stage_have_time():
    (entry,) = (entry for entry in PRESETS if entry.name == "slowfast_16x8_r101")
    blocks = entry.make(64).stages[2].blocks
    assert len(blocks) == 23
    assert [(b.slow == FLAT, b.fast == FLAT) for b in blocks] == [(False, False)] * 6 + [(True, True)] * 17


@pytest.mark.parametrize(
    ("path", "value", "changed"),
    [
        ("alpha", 2, set()),  # the fusion's stride, not its weights
        ("fusion.kernel", 7, {"fusion"}),
        ("fusion.ratio", 1, {"fusion", "stages.0.0.slow", "stages.1.0.slow"}),
        ("stages.0.blocks.0.slow.kind", "t1x1_first", {"stages.0.0.slow.conv1"}),
        ("stages.1.blocks.0.fast.kernel", 5, {"stages.1.0.fast.conv1"}),
        ("stages.1.blocks.0.attention", "gate", {"stages.1.0.slow.gate"}),
        ("stem.slow_kernel", 3, {"stem.slow"}),
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


@pytest.mark.parametrize(
    ("path", "value"),
    [("fusion.kernel", 7), ("fusion.ratio", 4), ("stages.0.blocks.0.slow.dilation", (2,))],
)
def test_what_has_no_effect_is_not_another_network(path, value):
    old = small(fusion=Fusion(kind="sample"))
    new = put(old, path, value)
    assert new.canonical() == old != new
    assert shapes(new) == shapes(old)


def test_beta_is_the_least_of_its_network():
    def widths(spec: SlowFastSpec, beta: int) -> list[int]:
        return [block.fast.width for _, _, block in replace(spec, beta=beta).walk()]

    for beta in range(1, 40):
        spec = small(beta=beta)
        assert widths(spec, beta) == widths(spec, spec.beta)
        assert spec.beta == 1 or widths(spec, spec.beta - 1) != widths(spec, beta)
    assert {small(beta=beta).beta for beta in (6, 7, 100)} == {6}


def test_alpha_of_one_stacks_nothing():
    assert small(alpha=1, fusion=Fusion(kind="time_to_channel")).fusion == Fusion(kind="sample")
    assert small(alpha=2, fusion=Fusion(kind="time_to_channel")).fusion == Fusion(kind="time_to_channel")


def test_the_default_of_every_domain_makes_the_8x8_network():
    space = parse_space({"family": "slowfast", "domains": {"alpha": [4]}})
    assert [replace(point.spec, zero_init=True) for point in space.points()] == [preset("slowfast_8x8_r50")]


@pytest.mark.parametrize(
    ("domains", "networks"),
    [
        # A kernel matters only where the fusion convolves, ratio and kernel multiply.
        ({"fusion": ["conv", "none", "sample"], "fusion_kernel": [3, 5], "fusion_ratio": [1, 2]}, 4 + 2),
        ({"slow_placement": ["none", "all"], "slow_kind": ["3d", "2plus1d"], "slow_kernel": [3, 5]}, 1 + 4),
        # Block by block: one of kinds, each with its kernels, but 2d.
        ({"fast_kind": {"values": ["2d", "3d"], "per": "block"}, "fast_kernel": {"values": [3, 5], "per": "block"}}, 9),
        ({"slow_placement": ["1"], "slow_kind": {"values": ["3d", "csn"], "per": "block"}}, 2),
        ({"slow_placement": ["none", "mc3"], "fast_placement": ["none"], "stem_kernel": [3, 5]}, 1 + 2),
        ({"fast_dilation": [1, [1, 2]], "fast_kernel": [1, 3], "fast_kind": ["csn"]}, 3),
        ({"attention": {"values": ["none", "se"], "per": "stage"}, "stem_pool": ["none", "max"]}, 8),
    ],
)
def test_settings_are_offered_only_where_they_do_something(domains, networks):
    space = parse_space({"family": "slowfast", "domains": {"depth": ["1-1"], "width": [0.125], **domains}})
    size = space.size()
    assert (size.networks, size.exact) == (networks, True)
    points = list(space.points())
    assert len({point.spec.describe() for point in points}) == networks
    rng = random.Random(0)
    # Nothing is asked for in vain: every assignment that is offered is another network.
    drawn = {space.random(rng).params for _ in range(300)}
    assert len(drawn) == networks


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ({"depth": [34]}, "depth must be one of 50, 101, 152, 200 or blocks per stage as 1-2-1, but is 34"),
        ({"depth": ["1-0"]}, "depth must be one of 50, 101, 152, 200 or blocks per stage as 1-2-1, but is 1-0"),
        ({"alpha": [0]}, "alpha must be a whole number of at least 1, but is 0"),
        ({"beta": [2.5]}, "beta must be a whole number of at least 1, but is 2.5"),
        ({"width": ["wide"]}, "width must be a number above 0, but is wide"),
        ({"width": [0]}, "width must be a number above 0, but is 0"),
        ({"slow_placement": ["top"]}, "slow_placement must have a form such as all, none"),
        ({"fast_dilation": [0]}, "fast_dilation must be whole numbers of at least 1, alone or as 1|2|4, but is 0"),
        ({"fusion": ["cov"]}, "did you mean conv?"),
        ({"depth": ["1-1"], "slow_placement": ["top_heavy:3"]}, "no combination of values fits together"),
    ],
)
def test_bad_values_are_refused_in_one_line(domains, message):
    with pytest.raises(SpecError) as caught:
        parse_space({"family": "slowfast", "domains": domains})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("alpha", 0),
        ("beta", 0),
        ("fusion.kind", "sum"),
        ("fusion.kernel", 4),
        ("stem.fast_kernel", 2),
        ("stages", []),
        ("stages.0.width", 0),
        ("stages.0.blocks", []),
    ],
)
def test_bad_specs_are_refused(path, value):
    with pytest.raises(SpecError, match=path.rsplit(".", 1)[-1]):
        put(small(), path, value)


def test_rows_stand_for_every_block_and_fusion():
    spec = small()
    rows = spec.rows()
    sites = [row["site"] for row in rows]
    blocks = [f"stages.{s}.blocks.0.{path}" for s in range(2) for path in ("slow", "fast")]
    assert sites == ["stem", "stem", "fusion", *blocks[:2], "fusion", *blocks[2:]]
    assert set(blocks) <= {path.rsplit(".", 1)[0] for path in leaves(spec)}
    assert (rows[3]["in"], rows[3]["out"]) == (8 + 2 * 4, 32)
    assert (rows[4]["in"], rows[4]["out"]) == (4, 16)
    assert rows[6]["in"] == 32 + 2 * 16
