"""Cost: units counted from their values or run on the meta device, held to each other and to two whole counts."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from nas.cost.cost import Cost, _count, cost
from nas.cost.layers import Counted
from nas.cost.meta import RememberedShapes, measured
from nas.study.files import load_study
from search_spaces.catalogue import FAMILIES, build, links, preset
from search_spaces.errors import ClipError, SpecError
from search_spaces.family_space import FamilySpace
from search_spaces.graph import Unit
from search_spaces.operators import KERNELS, KINDS, TemporalOp
from search_spaces.parts import Branches, Chain, Conv, Head, Pool
from search_spaces.space import parse_space
from search_spaces.spec import ArchSpec
from tests.counters import count_flops, count_thop

STUDY = Path(__file__).parents[3] / "studies" / "kinetics_small.yaml"
KINETICS = {space.family: space for space in load_study(STUDY).space.families}
NUM_CLASSES = 200
CLIP = (16, 112, 112)


def drawn(space: FamilySpace, num: int, seed: int) -> list[ArchSpec]:
    rng = random.Random(seed)
    return [space.random(rng).spec for _ in range(num)]


def cost_of(spec: ArchSpec, clip: tuple[int, int, int] = CLIP) -> Cost:
    frames, height, width = clip
    return cost(spec, frames=frames, height=height, width=width, num_classes=NUM_CLASSES)


def assert_equals_whole_counts(spec: ArchSpec) -> None:
    found = cost_of(spec)
    with torch.device("meta"):
        network = build(spec, num_classes=NUM_CLASSES)
    assert sum(p.numel() for p in network.parameters()) == found.params
    for training, macs in ((True, found.train_macs), (False, found.macs)):
        network.train(training)
        # Two clips, because batch norm in training refuses one value a plane.
        assert count_flops(network, (2, 3, *CLIP)) == 2 * macs
        assert count_thop(network, (2, 3, *CLIP)) == 2 * macs


@pytest.mark.parametrize("family", KINETICS)
def test_samples_of_a_study_cost_what_two_whole_counts_say(family):
    for spec in drawn(KINETICS[family], 1, seed=1):
        assert_equals_whole_counts(spec)


@pytest.mark.slow
@pytest.mark.parametrize("family", KINETICS)
def test_many_samples_of_a_study_cost_what_two_whole_counts_say(family):
    for spec in drawn(KINETICS[family], 67, seed=2):
        assert_equals_whole_counts(spec)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_unit_says_that_it_is_made_of_costs_what_running_it_does(family):
    widest = parse_space({"families": {family: FAMILIES[family].sample()}}).families[0]
    checked = 0
    samples = [(spec, FAMILIES[family].least_clip) for spec in drawn(widest, 12, seed=3)]
    if family in KINETICS:
        samples += [(spec, CLIP) for spec in drawn(KINETICS[family], 4, seed=3)]
    for spec, clip in samples:
        shape = (3, *clip)
        for name, unit in links(spec, num_classes=NUM_CLASSES):
            found = _count(unit, shape)
            if isinstance(unit, Unit) or unit.stretched() is not None:
                checked += 1
                assert found == measured(unit, shape)[0], f"{spec.describe()}: {name}"
            else:
                # Of timm's modules, only timm knows what they are made of.
                assert family == "timm", f"{spec.describe()}: {name}"
            shape = found.shape
    assert checked


class TestConv:
    @pytest.mark.parametrize("kind", KINDS)
    def test_of_any_values_costs_what_running_it_does(self, kind):
        rng = random.Random(kind)
        for _ in range(15):
            planes = rng.choice((3, 8))
            op = TemporalOp(
                kind=kind,
                kernel=rng.choice(KERNELS),
                dilation=rng.choice(((1,), (2,), (1, 2), (1, 2, 3))),
                time_first=rng.random() < 0.5,
            )
            unit = Conv(
                in_planes=planes,
                out_planes=planes if kind.startswith("csn") else rng.choice((5, 8)),
                kernel=rng.choice(((1, 1), (3, 3), (1, 7), (5, 5))),
                op=op,
                spatial_stride=rng.choice((1, 2)),
                temporal_stride=rng.choice((1, 2)),
                padding=rng.choice((None, None if kind.startswith("p3d_b") else (0, 0))),
                midplanes=7,
                act=rng.random() < 0.5,
            )
            self.check(unit, (planes, rng.randint(1, 9), rng.randint(7, 12), rng.randint(7, 12)))

    def check(self, unit: Unit, shape: tuple[int, ...]) -> None:
        found: Counted = _count(unit, shape)
        assert found == measured(unit, shape)[0], unit


@pytest.mark.parametrize("kind", ["max", "avg"])
def test_pool_of_any_values_costs_what_running_it_does(kind):
    rng = random.Random(0)
    counted = 0
    for _ in range(60):
        kernel = tuple(rng.randint(1, 4) for _ in range(3))
        unit = Pool(
            kind=kind,
            kernel=kernel,
            stride=tuple(rng.randint(1, 4) for _ in range(3)),
            padding=tuple(rng.randint(0, k // 2) for k in kernel),
            ceil=rng.random() < 0.5,
        )
        shape = (2, *(rng.randint(1, 9) for _ in range(3)))
        try:
            expected = measured(unit, shape)[0]
        except RuntimeError:
            with pytest.raises(RuntimeError, match="larger than its input"):
                _count(unit, shape)
        else:
            counted += 1
            assert _count(unit, shape) == expected, (unit, shape)
    assert counted > 20


def test_nested_chains_and_branches_cost_what_running_them_does():
    def conv(before: int, after: int, *, act: bool = True) -> Conv:
        return Conv(in_planes=before, out_planes=after, act=act)

    pool = Pool(kernel=(1, 3, 3), stride=(1, 1, 1), padding=(0, 1, 1))
    inner = Branches(branches=((conv(4, 3),), (), (pool, conv(4, 2, act=False))))
    unit = Chain(parts=(conv(3, 4), inner, conv(9, 2), Head(in_planes=2, num_classes=5)))
    assert _count(unit, (3, 4, 8, 8)) == measured(unit, (3, 4, 8, 8))[0]
    assert _count(inner, (4, 4, 8, 8)) == measured(inner, (4, 4, 8, 8))[0]
    # With a dropout, a mask is kept, too.
    dropped = Head(in_planes=2, num_classes=5, dropout=0.5)
    assert _count(dropped, (2, 4, 8, 8)) == measured(dropped, (2, 4, 8, 8))[0]


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "clip", "message"),
        [
            ("inception_v3_2d", (8, 32, 32), "stages.1.0, the kernel 1x3x3 is larger than its input, 8x1x1"),
            ("c3d", (1, 112, 112), "pool2, the pool 2x2x2 is larger than its input, 1x56x56"),
            ("p3d_152", (1, 16, 16), "stem, the stem needs a clip of at least 2 frames, but got 1"),
            ("trn_r50", (3, 32, 32), "head, head trn was made for 8 frames, but has 3"),
        ],
    )
    def test_a_clip_that_is_too_small_is_told_with_the_link(self, name, clip, message):
        spec = preset(name)
        # Nor can the network be run.
        with pytest.raises((RuntimeError, SpecError)), torch.device("meta"):
            build(spec, num_classes=NUM_CLASSES)(torch.empty(2, 3, *clip))
        with pytest.raises(ClipError, match=f"too short or too small for the network: at {message}"):
            cost_of(spec, clip)

    def test_more_than_a_database_holds_is_told(self):
        wide = preset("r3d_18").scaled(1_000_000)
        with pytest.raises(SpecError, match=r"params must be at most 9,223,372,036,854,775,807, but .* some \de\+19"):
            cost(wide, frames=16, height=112, width=112, num_classes=8)

    def test_a_size_below_one_is_told(self):
        with pytest.raises(SpecError, match="frames must be at least 1, but is 0"):
            cost_of(preset("r3d_18"), (0, 112, 112))

    def test_units_that_do_not_fit_are_told(self):
        conv = Conv(in_planes=3, out_planes=4)
        strided = Conv(in_planes=3, out_planes=4, spatial_stride=2)
        for unit in (conv, Head(in_planes=3, num_classes=2)):
            with pytest.raises(RuntimeError, match="of 3 planes cannot take 5"):
                _count(unit, (5, 4, 8, 8))
        with pytest.raises(RuntimeError, match="4x4x8x8 and 4x4x4x4, which do not fit"):
            _count(Branches(branches=((conv,), (strided,))), (3, 4, 8, 8))


def test_random_numbers_are_left_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    measured(Conv(in_planes=2, out_planes=3, op=TemporalOp(kind="3d", dilation=(1, 2))), (2, 4, 8, 8))
    measured(Head(in_planes=2, num_classes=5, dropout=0.5), (2, 4, 8, 8))
    assert torch.equal(torch.random.get_rng_state(), before)


class TestRememberedShapes:
    def test_a_remembered_result_is_torchs(self):
        shapes = RememberedShapes()
        x = torch.empty(2, 3, 4, 4, device="meta")
        last = torch.empty(2, 3, 4, 4, device="meta").to(memory_format=torch.channels_last)
        for call in (
            lambda: F.relu(x),
            lambda: F.relu(last),
            lambda: x + last[:1],
            lambda: F.max_pool2d(x, 2, return_indices=True)[1],
            lambda: torch.cat((x, last), 1),
            lambda: x.mean((2, 3), keepdim=True),
            lambda: (x > 0) * 2,
            lambda: (x > 0) * 2.0,
        ):
            expected = call()
            with shapes:
                first, again = call(), call()
            for found in (first, again):
                assert (found.shape, found.stride(), found.dtype) == (
                    expected.shape,
                    expected.stride(),
                    expected.dtype,
                )
            assert first.untyped_storage()._cdata != again.untyped_storage()._cdata

    def test_what_is_changed_in_place_or_seen_stays_itself(self):
        x = torch.empty(2, 3, device="meta")
        with RememberedShapes():
            for _ in range(2):
                assert F.relu_(x) is x
                assert x.add_(1).untyped_storage()._cdata == x.untyped_storage()._cdata
                assert x[:1].untyped_storage()._cdata == x.untyped_storage()._cdata

    def test_an_error_is_told_every_time(self):
        x, y = torch.empty(2, 3, device="meta"), torch.empty(2, 4, device="meta")
        with RememberedShapes():
            for _ in range(2):
                with pytest.raises(RuntimeError):
                    x + y

    def test_numbers_are_computed(self):
        with RememberedShapes():
            assert [(torch.tensor([float(i)]) + 1).item() for i in range(3)] == [1.0, 2.0, 3.0]
