"""Published and computed costs of the named networks, to the last parameter and the last MAC."""

from __future__ import annotations

import pytest

from nas.cost import cost
from search_spaces.presets import PRESETS, preset
from search_spaces.resnet_specs import make_resnet, make_stem
from search_spaces.spec import TemporalOp

# name, frames, parameters (400 classes), MACs at frames x 112 x 112, GMACs as printed
GOLDEN = [
    ("r2d_18", 8, 11_447_568, 1_931_780_096, "1.932"),
    ("r2d_18", 16, 11_522_832, 2_167_808_000, "2.168"),
    ("f_r2d_18", 8, 11_381_712, 13_800_611_840, "13.801"),
    ("f_r2d_18", 16, 11_381_712, 27_601_018_880, "27.601"),
    ("mc2_18", 8, 11_400_528, 14_272_667_648, "14.273"),
    ("mc2_18", 16, 11_400_528, 28_545_130_496, "28.545"),
    ("mc3_18", 8, 11_695_440, 21_671_419_904, "21.671"),
    ("mc3_18", 16, 11_695_440, 43_342_635_008, "43.343"),
    ("mc4_18", 8, 12_727_632, 19_975_872_512, "19.976"),
    ("mc4_18", 16, 12_727_632, 39_951_540_224, "39.952"),
    ("mc5_18", 8, 16_856_400, 19_950_182_400, "19.950"),
    ("mc5_18", 16, 16_856_400, 39_900_160_000, "39.900"),
    ("rmc2_18", 8, 33_352_656, 19_876_323_328, "19.876"),
    ("rmc2_18", 16, 33_352_656, 39_752_441_856, "39.752"),
    ("rmc3_18", 8, 33_057_744, 12_477_571_072, "12.478"),
    ("rmc3_18", 16, 33_057_744, 24_954_937_344, "24.955"),
    ("rmc4_18", 8, 32_025_552, 14_545_625_088, "14.546"),
    ("rmc4_18", 16, 32_025_552, 29_091_045_376, "29.091"),
    ("rmc5_18", 8, 27_896_784, 15_393_398_784, "15.393"),
    ("rmc5_18", 16, 27_896_784, 30_786_592_768, "30.787"),
    ("r3d_18", 8, 33_371_472, 20_348_379_136, "20.348"),
    ("r3d_18", 16, 33_371_472, 40_696_553_472, "40.697"),
    ("r2plus1d_18", 8, 33_370_839, 20_748_256_768, "20.748"),
    ("r2plus1d_18", 16, 33_370_839, 41_496_308_736, "41.496"),
    ("r2plus1d_18_torchvision", 8, 31_505_325, 20_259_642_880, "20.260"),
    ("r2plus1d_18_torchvision", 16, 31_505_325, 40_519_080_960, "40.519"),
    ("r2d_34", 32, 21_781_520, 4_489_551_872, "4.49"),
    ("f_r2d_34", 32, 21_489_872, 114_391_851_008, "114.39"),
    ("mc2_34", 32, 21_508_688, 116_280_074_240, "116.28"),
    ("mc3_34", 32, 21_951_056, 160_672_587_776, "160.67"),
    ("mc4_34", 32, 24_162_896, 142_792_269_824, "142.79"),
    ("mc5_34", 32, 37_728_848, 148_238_573_568, "148.24"),
    ("rmc2_34", 32, 63_662_288, 148_867_981_312, "148.87"),
    ("rmc3_34", 32, 63_219_920, 104_475_467_776, "104.48"),
    ("rmc4_34", 32, 61_008_080, 130_319_720_448, "130.32"),
    ("rmc5_34", 32, 47_442_128, 124_462_374_912, "124.46"),
    ("r3d_34", 32, 63_681_104, 150_756_204_544, "150.76"),
    ("r2plus1d_34", 32, 63_697_175, 152_355_715_072, "152.36"),
    ("r2plus1d_34_torchvision", 32, 61_831_661, 150_401_259_520, "150.40"),
]


@pytest.mark.parametrize(("name", "frames", "params", "macs", "printed"), GOLDEN)
def test_named_network_costs_what_was_published(name, frames, params, macs, printed):
    found = cost(preset(name, frames=frames), frames=frames, height=112, width=112, num_classes=400)
    assert found.params == params
    assert found.macs == found.train_macs == macs
    assert f"{found.macs / 1e9:.{len(printed.split('.')[1])}f}" == printed


def test_every_preset_has_a_row():
    assert {row[0] for row in GOLDEN} == set(PRESETS)


@pytest.mark.parametrize(
    ("counts", "params_101", "params_400"),
    [
        ((3, 4, 6, 3), 25_132_581, 25_745_232),
        ((3, 4, 23, 3), 47_475_749, 48_088_400),
        ((3, 8, 36, 3), 65_879_589, 66_492_240),
    ],
)
@pytest.mark.parametrize("mix", ["a", "b", "c", "abc"])
def test_p3d_networks_have_the_published_parameters(counts, params_101, params_400, mix):
    """Blocks of P3D-50, 101 and 152, whose last stage is 2D; their pools and strides have no parameters."""
    spec = make_resnet(
        kind="bottleneck",
        counts=counts,
        widths=(64, 128, 256, 512),
        stem=make_stem("1x7x7"),
        op_at=lambda s, _, i: TemporalOp(kind="2d" if s == 3 else f"p3d_{mix[i % len(mix)]}"),
        strides=lambda groups: (1,) * len(groups),
    )
    for classes, params in ((101, params_101), (400, params_400)):
        assert cost(spec, frames=16, height=32, width=32, num_classes=classes).params == params


@pytest.mark.parametrize(
    ("name", "frames", "clip", "video"), [("r3d_18", 16, 52.9, 64.7), ("r2plus1d_18", 8, 53.2, 65.3)]
)
def test_citations_say_clip_views_and_source(name, frames, clip, video):
    (cited,) = (c for c in PRESETS[name].published if c.frames == frames)
    assert (cited.clip_top1, cited.video_top1, cited.views, cited.size) == (clip, video, 10, 112)
    assert "VMZ" in cited.source
