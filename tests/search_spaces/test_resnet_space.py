"""Published residual networks as points of search spaces."""

from __future__ import annotations

import pytest

from search_spaces.catalogue import PRESETS, preset
from search_spaces.codec import digest
from search_spaces.errors import SpecError
from search_spaces.families.resnet.spec import ResNetSpec
from search_spaces.space import parse_space


def test_a_cut_is_asked_for_beside_a_placement_that_needs_it():
    space = parse_space(
        {
            "domains": {
                "placement": ["all", "top_heavy", "bottom_heavy"],
                "cut": [0, 3, 12],
                "depth": [10, 18, 34],
                "kind": ["2d", "3d"],
            }
        }
    )
    assert space.point({"depth": 18, "kind": "3d", "placement": "all"}).digest == digest(preset("r3d_18"))
    cut = space.point({"depth": 18, "kind": "3d", "placement": "top_heavy", "cut[0;3]": 3})
    kinds = [block.temporal.kind for _, _, _, block in cut.spec.walk()]
    assert kinds == ["2d"] * 3 + ["3d"] * 5
    assert cut.spec.stem.temporal_kernel == 1
    assert space.choices_of(cut)["cut[0;3]"] == (0, 3)
    other = space.point({"depth": 34, "kind": "3d", "placement": "bottom_heavy", "cut": 12})
    assert [block.temporal.kind for _, _, _, block in other.spec.walk()] == ["3d"] * 12 + ["2d"] * 4
    assert other.spec.stem.temporal_kernel == 3
    flat = space.point({"depth": 18, "kind": "2d", "placement[all;top_heavy]": "top_heavy"})
    assert [name for name, _ in flat.params] == ["depth", "kind", "placement[all;top_heavy]"]
    with pytest.raises(SpecError, match="must be one of its choices, but is 12"):
        space.point({"depth": 18, "kind": "3d", "placement": "top_heavy", "cut[0;3]": 12})


class Told:
    """A trial that answers with what it was told, whatever else is offered."""

    def __init__(self, wanted: dict[str, object]) -> None:
        self.wanted = wanted

    def suggest_categorical(self, name, choices):
        return self.wanted[name.split("[")[0]]


def settings_of(spec: ResNetSpec) -> tuple[dict[str, object], dict[str, object]]:
    """A space that holds a network, by the values of its own parts, and what to choose there."""
    stem, blocks = spec.stem, [(s, b, block) for s, b, _, block in spec.walk()]
    counts = "-".join(str(len(stage.blocks)) for stage in spec.stages)
    label = f"{stem.temporal_kernel}x{stem.spatial_kernel}x{stem.spatial_kernel}/{stem.spatial_stride}"
    label += "" if stem.temporal_padding else "-unpadded"
    label += "" if stem.pool == "none" else f"+max{'' if stem.pool_frames == 1 else stem.pool_frames}"
    placed = [i for i, (_, _, block) in enumerate(blocks) if block.temporal.kind != "2d"]
    stem_places = ["stem"] if stem.temporal_kernel > 1 else []
    network = {
        "depth": counts if blocks[0][2].kind == "basic" else f"b{counts}",
        "widths": "-".join(str(stage.blocks[0].width) for stage in spec.stages),
        "stem_width": stem.width,
        "first_stride": blocks[0][2].spatial_stride,
        "stem": "r2plus1d" if stem.kind == "2plus1d" else label,
        "placement": ",".join(map(str, [*stem_places, *placed])) or "none",
        "temporal_stride": "-".join(str(stage.blocks[0].temporal_stride) for stage in spec.stages),
        "time_pool": "-".join(str(stage.time_pool) for stage in spec.stages),
        "head": spec.head,
        "shortcut": next((b.shortcut for _, _, b in blocks if b.shortcut != "conv"), "conv"),
        "relu_first": spec.relu_first,
        "norm_eps": spec.norm_eps,
        "norm_momentum": spec.norm_momentum,
        "zero_init": spec.zero_init,
    }
    each: dict[str, dict[str, object]] = {}
    for s, b, block in blocks:
        op = block.temporal
        of_block = {"attention": block.attention}
        if op.kind != "2d":
            of_block["kind"] = "1plus2d" if op.time_first else op.kind
            of_block |= {"kernel": op.kernel, "midplanes": op.midplanes}
            of_block["dilation"] = op.dilation[0] if len(op.dilation) == 1 else "|".join(map(str, op.dilation))
        if b == 0:
            of_block["stride_on"] = block.stride_on
        for name, value in of_block.items():
            each.setdefault(name, {})[f"{name}.stage{s}.block{b}"] = value
    domains = {name: [value] for name, value in network.items()}
    domains |= {name: {"values": [*dict.fromkeys(at.values())], "per": "block"} for name, at in each.items()}
    return {"domains": domains}, {key: value for at in each.values() for key, value in at.items()}


@pytest.mark.parametrize("name", [name for name, entry in PRESETS.items() if entry.family == "resnet"])
def test_every_published_network_is_a_point_of_a_space(name):
    space, wanted = settings_of(preset(name).canonical())
    assert parse_space(space).sample(Told(wanted)).digest == digest(preset(name))


def test_mixed_blocks_in_a_part_of_a_network_are_those_of_the_paper():
    space = parse_space(
        {
            "domains": {
                "depth": [50, 101, 152],
                "stem": ["1x7x7/2+max2"],
                "placement": ["bottom_heavy"],
                "cut": [13, 30, 47],
                "kind": ["p3d_a", "p3d_b", "p3d_c", "p3d_mixed"],
                "temporal_stride": ["none"],
                "stride_on": ["1x1"],
                "time_pool": [[2, 2, 2, 1]],
            }
        }
    )
    for depth, cut in ((50, 13), (101, 30), (152, 47)):
        for kind, name in (("p3d_mixed", f"p3d_{depth}"), ("p3d_b", f"p3d_{depth}_b")):
            point = space.sample(Told({"depth": depth, "kind": kind, "cut": cut}))
            assert point.digest == digest(preset(name))


def test_the_published_family_lies_in_one_space():
    space = parse_space(
        {
            "domains": {
                "kind": ["3d", "2plus1d"],
                "placement": ["all", "none", *(f"{r}mc{x}" for r in ("", "r") for x in (2, 3, 4, 5))],
                "stem": ["3x7x7", "r2plus1d"],
                "midplanes": ["per_conv", "shared"],
                "depth": [18, 34],
                "norm_eps": [1e-5, 1e-3],
            }
        }
    )
    found = {p.digest for p in space.points()}
    for name in (
        "f_r2d_18",
        "mc2_18",
        "mc5_34",
        "rmc2_34",
        "rmc5_18",
        "r3d_34",
        "r2plus1d_34",
        "r2plus1d_18_torchvision",
    ):
        assert digest(preset(name)) in found, name


def test_small_data_spaces_have_free_stages_and_stems():
    space = parse_space(
        {
            "domains": {
                "depth": [[1, 1, 1]],
                "widths": [[32, 64, 128]],
                "stem": ["1x5x5/2"],
                "stem_width": [16],
                "kind": ["2d", "3d"],
            }
        }
    )
    spec = space.point({"kind": "3d"}).spec
    assert [stage.blocks[0].width for stage in spec.stages] == [32, 64, 128]
    assert (spec.stem.width, spec.stem.temporal_kernel, spec.stem.spatial_kernel) == (16, 1, 5)
    assert [stage.blocks[0].temporal_stride for stage in spec.stages] == [1, 2, 2]
