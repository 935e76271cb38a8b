"""Published and computed costs of the named residual networks, to the last parameter and the last MAC.

A row is a network at a clip; what is printed in a paper or a model zoo stands behind it as text, and is what the MACs
come to at so many digits. A network of random dilations costs that in training, and more in evaluation.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from torchvision.models import get_model_weights

from nas.cost.cost import cost
from search_spaces.catalogue import PRESETS, preset


class Row(NamedTuple):
    name: str
    clip: tuple[int, int, int]
    classes: int
    params: int
    train_macs: int
    printed: str = ""  # GMACs
    macs: int = 0  # in evaluation, where they differ


# Tran et al. 2018, Kinetics-400.
R2PLUS1D = [
    Row("r2d_18", (8, 112, 112), 400, 11_447_568, 1_931_780_096, "1.932"),
    Row("r2d_18", (16, 112, 112), 400, 11_522_832, 2_167_808_000, "2.168"),
    Row("f_r2d_18", (8, 112, 112), 400, 11_381_712, 13_800_611_840, "13.801"),
    Row("f_r2d_18", (16, 112, 112), 400, 11_381_712, 27_601_018_880, "27.601"),
    Row("mc2_18", (8, 112, 112), 400, 11_400_528, 14_272_667_648, "14.273"),
    Row("mc2_18", (16, 112, 112), 400, 11_400_528, 28_545_130_496, "28.545"),
    Row("mc3_18", (8, 112, 112), 400, 11_695_440, 21_671_419_904, "21.671"),
    Row("mc3_18", (16, 112, 112), 400, 11_695_440, 43_342_635_008, "43.343"),
    Row("mc4_18", (8, 112, 112), 400, 12_727_632, 19_975_872_512, "19.976"),
    Row("mc4_18", (16, 112, 112), 400, 12_727_632, 39_951_540_224, "39.952"),
    Row("mc5_18", (8, 112, 112), 400, 16_856_400, 19_950_182_400, "19.950"),
    Row("mc5_18", (16, 112, 112), 400, 16_856_400, 39_900_160_000, "39.900"),
    Row("rmc2_18", (8, 112, 112), 400, 33_352_656, 19_876_323_328, "19.876"),
    Row("rmc2_18", (16, 112, 112), 400, 33_352_656, 39_752_441_856, "39.752"),
    Row("rmc3_18", (8, 112, 112), 400, 33_057_744, 12_477_571_072, "12.478"),
    Row("rmc3_18", (16, 112, 112), 400, 33_057_744, 24_954_937_344, "24.955"),
    Row("rmc4_18", (8, 112, 112), 400, 32_025_552, 14_545_625_088, "14.546"),
    Row("rmc4_18", (16, 112, 112), 400, 32_025_552, 29_091_045_376, "29.091"),
    Row("rmc5_18", (8, 112, 112), 400, 27_896_784, 15_393_398_784, "15.393"),
    Row("rmc5_18", (16, 112, 112), 400, 27_896_784, 30_786_592_768, "30.787"),
    Row("r3d_18", (8, 112, 112), 400, 33_371_472, 20_348_379_136, "20.348"),
    Row("r3d_18", (16, 112, 112), 400, 33_371_472, 40_696_553_472, "40.697"),
    Row("r3d_18_vmz", (16, 112, 112), 400, 33_371_472, 40_696_553_472, "40.697"),
    Row("mc3_18_vmz", (16, 112, 112), 400, 11_695_440, 43_342_635_008, "43.343"),
    Row("r2plus1d_18", (8, 112, 112), 400, 33_370_839, 20_748_256_768, "20.748"),
    Row("r2plus1d_18", (16, 112, 112), 400, 33_370_839, 41_496_308_736, "41.496"),
    Row("r2plus1d_18_torchvision", (8, 112, 112), 400, 31_505_325, 20_259_642_880, "20.260"),
    Row("r2plus1d_18_torchvision", (16, 112, 112), 400, 31_505_325, 40_519_080_960, "40.519"),
    Row("r2d_34", (32, 112, 112), 400, 21_781_520, 4_489_551_872, "4.49"),
    Row("f_r2d_34", (32, 112, 112), 400, 21_489_872, 114_391_851_008, "114.39"),
    Row("mc2_34", (32, 112, 112), 400, 21_508_688, 116_280_074_240, "116.28"),
    Row("mc3_34", (32, 112, 112), 400, 21_951_056, 160_672_587_776, "160.67"),
    Row("mc4_34", (32, 112, 112), 400, 24_162_896, 142_792_269_824, "142.79"),
    Row("mc5_34", (32, 112, 112), 400, 37_728_848, 148_238_573_568, "148.24"),
    Row("rmc2_34", (32, 112, 112), 400, 63_662_288, 148_867_981_312, "148.87"),
    Row("rmc3_34", (32, 112, 112), 400, 63_219_920, 104_475_467_776, "104.48"),
    Row("rmc4_34", (32, 112, 112), 400, 61_008_080, 130_319_720_448, "130.32"),
    Row("rmc5_34", (32, 112, 112), 400, 47_442_128, 124_462_374_912, "124.46"),
    Row("r3d_34", (32, 112, 112), 400, 63_681_104, 150_756_204_544, "150.76"),
    Row("r2plus1d_34", (32, 112, 112), 400, 63_697_175, 152_355_715_072, "152.36"),
    Row("r2plus1d_34_torchvision", (32, 112, 112), 400, 61_831_661, 150_401_259_520, "150.40"),
    Row("r2plus1d_r50", (16, 224, 224), 400, 28_107_600, 57_533_825_024),
]
# Qiu et al. 2017: all forms cost the same.
P3D = [
    Row(f"p3d_{depth}{form}", (16, 160, 160), *costs)
    for depth, both in {
        50: ((101, 25_132_581, 8_441_243_648, "8.44"), (400, 25_745_232, 8_441_856_000, "8.44")),
        101: ((101, 47_475_749, 12_897_691_648, "12.90"), (400, 48_088_400, 12_898_304_000, "12.90")),
        152: ((101, 65_879_589, 18_402_715_648, "18.40"), (400, 66_492_240, 18_403_328_000, "18.40")),
    }.items()
    for form in ("", "_a", "_b", "_c")
    for costs in both
]
# The three readings of BesNet; those with a random dilation first.
BESNET = [
    Row(f"besnet_50{reading}{dilation}", (16, 224, 224), 400, params, macs, printed, 0 if dilation else evaluation)
    for reading, params, macs, printed, evaluation in (
        ("_first", 32_986_576, 95_401_050_112, "95.4", 185_419_202_560),
        ("", 43_046_352, 121_707_724_800, "121.7", 290_645_901_312),
        ("_all", 48_584_144, 133_216_894_976, "133.2", 336_682_582_016),
        ("_relu_first", 43_046_352, 121_707_724_800, "121.7", 290_645_901_312),
    )
    for dilation in ("", "_dilation1", "_dilation2")
]
# Feichtenhofer et al. 2019, Wang et al. 2018, Tran et al. 2019.
DEEP = [
    Row("slow_r50_4x16", (4, 224, 224), 400, 32_454_096, 20_870_823_936, "20.87"),
    Row("slow_r50_4x16", (4, 256, 256), 400, 32_454_096, 27_259_600_896, "27.26"),
    Row("slow_r50_8x8", (8, 224, 224), 400, 32_454_096, 41_740_828_672, "41.74"),
    Row("slow_r50_8x8", (8, 256, 256), 400, 32_454_096, 54_518_382_592, "54.52"),
    Row("slow_r101_8x8", (8, 224, 224), 400, 60_359_120, 85_414_019_072, "85.41"),
    Row("slow_r101_8x4", (8, 224, 224), 400, 60_359_120, 85_414_019_072, "85.41"),
    Row("fast_r50_32f", (32, 224, 224), 400, 616_952, 5_282_631_680, "5.28"),
    Row("fast_r50_32f_wide", (32, 112, 112), 400, 33_024_208, 53_710_848_000),
    Row("fast_r101_32f_wide", (32, 112, 112), 400, 60_929_232, 97_384_038_400),
    Row("c2d_r50", (8, 224, 224), 400, 24_327_632, 19_493_191_680),
    Row("i3d_r50", (8, 224, 224), 400, 28_043_472, 28_407_660_544),
    Row("i3d_nln_r50", (8, 224, 224), 400, 35_393_744, 36_535_369_728),
    Row("csn_r50", (32, 224, 224), 400, 13_131_152, 42_308_519_936),
    Row("csn_r101", (32, 224, 224), 400, 22_213_776, 56_468_187_136),
    Row("csn_r101_pytorchvideo", (32, 224, 224), 400, 22_213_776, 56_468_187_136),
    Row("ip_csn_r50", (32, 224, 224), 400, 14_396_176, 47_652_063_232),
    Row("ip_csn_r101", (32, 224, 224), 400, 24_601_616, 63_558_658_048),
    # The authors' table prints these GFLOPs beside 32x224x224.
    Row("ip_csn_r152", (32, 256, 256), 400, 33_016_592, 108_792_807_424, "108.8"),
    Row("csn_r152", (32, 256, 256), 400, 29_703_568, 96_713_211_904, "96.7"),
]
# He et al. 2016, ImageNet, and without the classifier, as a backbone.
IMAGES = [
    Row("resnet18", (1, 224, 224), 1000, 11_689_512, 1_814_073_344, "1.814"),
    Row("resnet34", (1, 224, 224), 1000, 21_797_672, 3_663_761_408, "3.664"),
    Row("resnet50", (1, 224, 224), 1000, 23_508_032 + 2_049_000, 4_089_184_256, "4.089"),
    Row("resnet101", (1, 224, 224), 1000, 42_500_160 + 2_049_000, 7_801_405_440, "7.801"),
    Row("resnet152", (1, 224, 224), 1000, 60_192_808, 11_513_626_624, "11.514"),
    Row("resnet50", (8, 224, 224), 400, 24_327_632, 8 * 4_087_136_256 + 819_200),
    Row("resnet101", (8, 224, 224), 400, 43_319_760, 8 * 7_799_357_440 + 819_200),
]
ROWS = [*R2PLUS1D, *P3D, *BESNET, *DEEP, *IMAGES]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.name}-{'x'.join(map(str, row.clip))}-{row.classes}")
def test_named_network_costs_what_was_published(row):
    frames, height, width = row.clip
    found = cost(preset(row.name, frames=frames), frames=frames, height=height, width=width, num_classes=row.classes)
    assert found.params == row.params
    assert found.train_macs == row.train_macs
    assert found.macs == (row.macs or row.train_macs)
    if row.printed:
        assert f"{found.train_macs / 1e9:.{len(row.printed.split('.')[1])}f}" == row.printed


def test_every_preset_has_a_row():
    assert {row.name for row in ROWS} == {name for name in PRESETS if PRESETS[name].family == "resnet"}
    assert sum(PRESETS[name].family == "resnet" for name in PRESETS) >= 55


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_networks_of_images_have_what_torchvision_says_of_its_own(depth):
    (row,) = (row for row in IMAGES if row.name == f"resnet{depth}" and row.clip[0] == 1)
    weights = get_model_weights(row.name).IMAGENET1K_V1
    (cited, *_) = PRESETS[row.name].published
    assert row.params == weights.meta["num_params"]
    assert row.printed == f"{weights.meta['_ops']:.3f}"
    assert cited.value == weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]


@pytest.mark.parametrize(
    ("name", "frames", "clip", "video"), [("r3d_18", 16, 52.9, 64.7), ("r2plus1d_18", 8, 53.2, 65.3)]
)
def test_citations_say_clip_views_and_source(name, frames, clip, video):
    cited = {c.metric: c for c in PRESETS[name].published if c.frames == frames}
    assert {metric: c.value for metric, c in cited.items()} == {"clip top-1": clip, "video top-1": video}
    assert cited["video top-1"].views == "10 clips"
    assert all(c.size == 112 and "VMZ" in c.source for c in cited.values())


@pytest.mark.parametrize(
    ("name", "data", "value"),
    [
        ("resnet50", "UCF101 test", 80.8),
        ("p3d_50_a", "UCF101 test", 83.7),
        ("p3d_50_b", "UCF101 test", 82.8),
        ("p3d_50_c", "UCF101 test", 83.0),
        ("p3d_50", "UCF101 test", 84.2),
        ("besnet_50_dilation1", "Kinetics-400", 70),
        ("besnet_50_dilation2", "Kinetics-400", 68),
        ("besnet_50", "Kinetics-400", 74),
        ("slow_r50_4x16", "Kinetics-400 val", 72.40),
        ("slow_r50_8x8", "Kinetics-400 val", 74.58),
        ("fast_r101_32f_wide", "Multi-Moments in Time val", 63.59),
        ("slow_r101_8x4", "Multi-Moments in Time val", 61.68),
    ],
)
def test_citations_are_those_of_the_documents(name, data, value):
    assert value in [c.value for c in PRESETS[name].published if c.data == data]
