"""Published and computed costs of the Inception networks, to the last parameter and the last MAC."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nas.cost.cost import cost
from search_spaces.families.inception import v1 as inception_v1
from search_spaces.families.inception import v3 as inception_v3
from search_spaces.families.inception.v3_spec import Aux

PRESETS = {preset.name: preset for family in (inception_v1, inception_v3) for preset in family.FAMILY.presets}
# name, parameters (400 classes), MACs at 64x224x224, and, where others printed them, GMACs as printed
GOLDEN = [
    ("i3d", 12_697_264, 111_153_143_808, "111.15"),
    ("i3d_piergiaj", 12_697_264, 111_153_143_808, "111.15"),
    ("i3d_symmetric", 12_697_264, 111_153_143_808, "111.15"),
    ("i2d", 6_009_904, 36_891_058_176, "36.89"),
    ("s3d_v1", 8_320_048, 71_916_314_624, "71.92"),
    ("s3d_g", 9_539_376, 71_917_533_952, ""),
    ("s3d_slim", 8_306_800, 64_183_590_912, ""),
    ("s3d_g_slim", 9_526_128, 64_184_810_240, ""),
    ("s3d_slim_symmetric", 8_306_800, 64_183_590_912, ""),
    ("s3d_g_slim_symmetric", 9_526_128, 64_184_810_240, ""),
    ("s3d_paper", 9_708_048, 75_916_746_752, ""),
    ("i3d_top_heavy_2c", 12_640_816, 88_494_465_024, "88.49"),
    ("i3d_top_heavy_3b", 12_419_632, 66_298_208_256, "66.30"),
    ("i3d_top_heavy_3c", 12_189_232, 60_517_933_056, ""),
    ("i3d_top_heavy_4b", 11_691_568, 48_032_538_624, "48.03"),
    ("i3d_top_heavy_4c", 11_318_320, 46_862_032_896, ""),
    ("i3d_top_heavy_4d", 10_839_088, 45_359_161_344, ""),
    ("i3d_top_heavy_4e", 10_221_616, 43_422_769_152, ""),
    ("i3d_top_heavy_4f", 9_438_256, 40_966_152_192, ""),
    ("i3d_top_heavy_5b", 8_442_928, 37_844_803_584, "37.84"),
    ("i3d_top_heavy_5c", 7_447_600, 37_454_635_008, ""),
    ("i3d_bottom_heavy_conv1", 6_066_352, 59_549_736_960, ""),
    ("i3d_bottom_heavy_2c", 6_287_536, 81_745_993_728, "81.75"),
    ("i3d_bottom_heavy_3b", 6_517_936, 87_526_268_928, ""),
    ("i3d_bottom_heavy_3c", 7_015_600, 100_011_663_360, "100.01"),
    ("i3d_bottom_heavy_4b", 7_388_848, 101_182_169_088, ""),
    ("i3d_bottom_heavy_4c", 7_868_080, 102_685_040_640, ""),
    ("i3d_bottom_heavy_4d", 8_485_552, 104_621_432_832, ""),
    ("i3d_bottom_heavy_4e", 9_268_912, 107_078_049_792, ""),
    ("i3d_bottom_heavy_4f", 10_264_240, 110_199_398_400, "110.20"),
    ("i3d_bottom_heavy_5b", 11_259_568, 110_589_566_976, ""),
    ("s3d_top_heavy_2c", 8_291_248, 56_630_697_984, "56.63"),
    ("s3d_top_heavy_3b", 8_180_272, 45_532_569_600, "45.53"),
    ("s3d_top_heavy_3c", 8_127_728, 44_222_373_888, ""),
    ("s3d_top_heavy_4b", 7_988_912, 40_754_208_768, "40.75"),
    ("s3d_top_heavy_4c", 7_851_696, 40_325_505_024, ""),
    ("s3d_top_heavy_4d", 7_688_304, 39_814_914_048, ""),
    ("s3d_top_heavy_4e", 7_478_768, 39_159_816_192, ""),
    ("s3d_top_heavy_4f", 7_216_944, 38_340_943_872, ""),
    ("s3d_top_heavy_5b", 6_859_696, 37_223_424_000, "37.22"),
    ("s3d_top_heavy_5c", 6_502_448, 37_083_734_016, ""),
    ("s3d_bottom_heavy_conv1", 6_038_704, 52_176_674_816, ""),
    ("s3d_bottom_heavy_2c", 6_149_680, 63_274_803_200, ""),
    ("s3d_bottom_heavy_3b", 6_202_224, 64_584_998_912, ""),
    ("s3d_bottom_heavy_3c", 6_341_040, 68_053_164_032, ""),
    ("s3d_bottom_heavy_4b", 6_478_256, 68_481_867_776, ""),
    ("s3d_bottom_heavy_4c", 6_641_648, 68_992_458_752, ""),
    ("s3d_bottom_heavy_4d", 6_851_184, 69_647_556_608, ""),
    ("s3d_bottom_heavy_4e", 7_113_008, 70_466_428_928, ""),
    ("s3d_bottom_heavy_4f", 7_470_256, 71_583_948_800, ""),
    ("s3d_bottom_heavy_5b", 7_827_504, 71_723_638_784, ""),
    ("s3d_v3", 34_236_288, 46_887_439_360, ""),
    ("s3d_v3_inflated", 62_143_744, 61_038_920_704, ""),
    ("s3d_v3_top_heavy_5c", 34_030_336, 33_117_539_328, ""),
    ("s3d_v3_top_heavy_6a", 33_877_760, 32_167_005_184, ""),
    ("i3d_v3", 75_828_416, 94_831_178_752, ""),
]


@pytest.mark.parametrize(("name", "params", "macs", "printed"), GOLDEN)
def test_named_network_costs_what_was_published(name, params, macs, printed):
    found = cost(PRESETS[name].make(64), frames=64, height=224, width=224, num_classes=400)
    assert (found.params, found.macs) == (params, macs)
    if printed:
        assert f"{found.macs / 1e9:.2f}" == printed
    # The auxiliary classifier runs in training only.
    assert (found.train_macs > found.macs) == (PRESETS[name].family == "inception_v3")


def test_every_preset_has_a_row():
    assert {row[0] for row in GOLDEN} | {"inception_v3_2d"} == set(PRESETS)


def test_s3d_costs_what_torchvision_says_at_16_frames():
    found = cost(PRESETS["s3d_v1"].make(16), frames=16, height=224, width=224, num_classes=400)
    assert f"{found.macs / 1e9:.3f}" == "17.979"


@pytest.mark.parametrize(("aux", "params"), [(None, 23_834_568), (Aux(), 27_161_264)])
def test_inception_v3_costs_what_torchvision_says(aux, params):
    spec = replace(PRESETS["inception_v3_2d"].make(1), aux=aux)
    found = cost(spec, frames=1, height=299, width=299, num_classes=1000)
    assert found.params == params
    assert f"{found.macs / 1e9:.3f}" == "5.713"


def test_citations_say_clip_views_and_source():
    (cited,) = (c for c in PRESETS["s3d_v1"].published if "torchvision" in c.source)
    assert (cited.value, cited.metric, cited.frames, cited.size, cited.views) == (
        68.368,
        "clip top-1",
        128,
        224,
        "1 clip",
    )
