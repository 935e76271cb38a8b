"""Networks for clips of two planes (optical flow): every family builds, counts and inflates them."""

from __future__ import annotations

import random

import pytest
import torch

from nas.cost.cost import _count, cost
from nas.cost.meta import measured
from search_spaces.catalogue import FAMILIES, build, links, preset
from search_spaces.errors import ClipError, SpecError
from search_spaces.inflate import averaged, inflate, parent_shapes
from search_spaces.space import parse_space
from search_spaces.spec import ArchSpec
from tests.counters import count_flops, count_thop

NUM_CLASSES = 7
PUBLISHED = (
    "r2plus1d_18",
    "p3d_50_a",
    "s3d_g",
    "inception_v3_2d",
    "slowfast_4x16_r50",
    "x3d_s",
    "tsn_r50",
    "tsn_inception_v3",
    "c3d",
)


def drawn(family: str, num: int) -> list[ArchSpec]:
    space = parse_space({"families": {family: FAMILIES[family].sample()}})
    rng = random.Random(5)
    return [space.random(rng).spec for _ in range(num)]


def clip_of(spec: ArchSpec) -> tuple[int, int, int]:
    frames, height, width = FAMILIES[spec.family].least_clip
    for clip in ((frames, height, width), (frames, 80, 80), (49, height, width), (49, 80, 80)):
        try:
            price(spec, clip, 2)
        except ClipError:
            continue
        return clip
    raise AssertionError(f"no small clip fits {spec.describe()}")


def price(spec: ArchSpec, clip: tuple[int, int, int], planes: int):
    frames, height, width = clip
    return cost(spec, frames=frames, height=height, width=width, num_classes=NUM_CLASSES, planes=planes)


def assert_counts_agree(spec: ArchSpec) -> None:
    clip = clip_of(spec)
    found = price(spec, clip, 2)
    with torch.device("meta"):
        network = build(spec, num_classes=NUM_CLASSES, planes=2)
    assert sum(p.numel() for p in network.parameters()) == found.params
    for training, macs in ((True, found.train_macs), (False, found.macs)):
        network.train(training)
        assert count_flops(network, (2, 2, *clip)) == 2 * macs
        assert count_thop(network, (2, 2, *clip)) == 2 * macs
    rgb = price(spec, clip, 3)
    assert found.params < rgb.params
    assert found.macs < rgb.macs


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_of_every_family_cost_on_two_planes_what_two_whole_counts_say(family: str) -> None:
    for spec in drawn(family, 2):
        assert_counts_agree(spec)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_many_samples_of_every_family_cost_on_two_planes_what_two_whole_counts_say(family: str) -> None:
    for spec in drawn(family, 40):
        assert_counts_agree(spec)


@pytest.mark.parametrize("name", PUBLISHED)
def test_named_networks_cost_on_two_planes_what_two_whole_counts_say(name: str) -> None:
    assert_counts_agree(preset(name, frames=FAMILIES[preset(name).family].least_clip[0]))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_unit_says_that_it_is_made_of_costs_on_two_planes_what_running_it_does(family: str) -> None:
    for spec in drawn(family, 2):
        shape = (2, *clip_of(spec))
        for name, unit in links(spec, num_classes=NUM_CLASSES, planes=2):
            found = _count(unit, shape)
            assert found == measured(unit, shape)[0], f"{spec.describe()}: {name}"
            shape = found.shape


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_for_two_planes_takes_them_and_no_others(family: str) -> None:
    spec = drawn(family, 1)[0]
    torch.manual_seed(0)
    network = build(spec, num_classes=NUM_CLASSES, planes=2).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 2, *clip_of(spec))).shape == (1, NUM_CLASSES)
        with pytest.raises(RuntimeError):
            network(torch.randn(1, 3, *clip_of(spec)))


def test_a_network_that_has_no_planes_is_refused() -> None:
    with pytest.raises(SpecError, match="planes must be at least 1, but is 0"):
        build(preset("r3d_18"), num_classes=2, planes=0)


def test_a_network_for_rgb_is_drawn_as_ever() -> None:
    torch.manual_seed(3)
    first = build(preset("mc3_18"), num_classes=4).state_dict()
    torch.manual_seed(3)
    again = build(preset("mc3_18"), num_classes=4, planes=3).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


class TestWeightsForRgb:
    """The cross-modality initialisation of TSN: a first kernel for flow is the mean over RGB, for each plane."""

    @pytest.mark.parametrize("name", ["r3d_18", "tsn_r50", "inception_v3_2d"])
    @pytest.mark.parametrize("mode", ["replicate", "centre"])
    def test_a_grey_picture_and_equal_planes_give_the_same_logits(self, name: str, mode: str) -> None:
        # A picture whose planes are all g: RGB sees 3 g w, flow 2 g mean(w); of 2/3 the brightness, it sees the same.
        spec = preset(name)
        shapes = parent_shapes(spec, num_classes=NUM_CLASSES) if spec.family != "timm" else timm_shapes(spec)
        generator = torch.Generator().manual_seed(1)
        state = {
            key: torch.rand(shape, generator=generator) * 0.1 + (0.9 if "var" in key else 0.0)
            for key, shape in shapes.items()
        }
        rgb, flow = build(spec, num_classes=NUM_CLASSES), build(spec, num_classes=NUM_CLASSES, planes=2)
        torch.manual_seed(2)
        inflate(rgb, spec, state, mode)
        torch.manual_seed(2)
        inflate(flow, spec, state, mode)
        kernels = {n: p for n, p in rgb.named_parameters() if p.dim() >= 4 and p.shape[1] == 3}
        ours = dict(flow.named_parameters())
        changed = {n: p for n, p in kernels.items() if ours[n].shape[1] == 2}
        assert changed
        for key, value in changed.items():
            assert torch.equal(ours[key][:, 0], ours[key][:, 1])
            torch.testing.assert_close(ours[key][:, 0], value.mean(1))
        others = [n for n, p in rgb.named_parameters() if ours[n].shape == p.shape and "head" not in n]
        for key in others:
            torch.testing.assert_close(ours[key], rgb.get_parameter(key))

    def test_other_tensors_stay_as_they_are(self) -> None:
        for shape in ((4, 3), (4, 5, 3, 3), (4,)):
            weight = torch.randn(shape)
            assert averaged(weight, 2) is weight
        weight = torch.randn(4, 3, 1, 1)
        assert averaged(weight, 3) is weight
        assert averaged(weight, 2).shape == (4, 2, 1, 1)


def timm_shapes(spec: ArchSpec) -> dict[str, tuple[int, ...]]:
    from search_spaces.families.timm.weights import parent_shapes as shapes_of

    return shapes_of(spec.model, num_classes=NUM_CLASSES)
