"""Published and computed costs of networks made from timm's, to the last parameter and the last MAC."""

from __future__ import annotations

import pytest

from nas.cost.cost import cost
from search_spaces.catalogue import preset
from search_spaces.families.timm.family import PRESETS, make_timm

# Name, frames, rows and columns, parameters (400 classes), MACs at the clip
GOLDEN = [
    ("tsn_r18", 8, 224, 11_381_712, 14_510_129_152),
    ("tsn_r50", 8, 224, 24_327_632, 32_703_643_648),
    ("tsn_r101", 8, 224, 43_319_760, 62_401_413_120),
    ("tsn_senet154", 8, 224, 113_859_584, 165_497_077_760),
    ("tsn_inception_resnet_v2", 8, 224, 54_921_264, 51_744_316_160),
    ("tsn_inception_v3", 8, 299, 22_605_168, 45_695_898_368),
    ("tsn_mobilenetv2", 8, 224, 2_736_272, 2_400_050_176),
    ("tsn_mobilenetv3", 8, 224, 4_714_432, 1_726_574_080),
    ("tsn_efficientnet_b0", 8, 224, 4_519_948, 3_080_374_016),
    ("tsn_regnety_016", 8, 224, 10_669_030, 12_892_346_880),
    ("tsn_densenet121", 8, 224, 7_363_856, 22_668_378_112),
    ("tsn_convnext_tiny", 8, 224, 28_127_728, 35_640_563_712),
    ("trn_r50", 8, 224, 27_047_728, 32_709_062_656),
    ("trn_single_r50", 8, 224, 25_286_864, 32_702_537_728),
    ("tsm_r50_block", 8, 224, 24_327_632, 32_703_643_648),
    ("tsm_r50", 8, 224, 24_327_632, 32_703_643_648),
    ("tsm_r101", 8, 224, 43_319_760, 62_401_413_120),
    ("tsm_mobilenetv2", 8, 224, 2_736_272, 2_400_050_176),
    ("tin_r50", 8, 224, 24_358_640, 32_703_881_088),
    ("tin_r101", 8, 224, 43_391_517, 62_401_965_264),
    ("inflated_r50", 8, 224, 46_980_944, 64_186_875_904),
    ("inflated_seresnet50", 8, 224, 49_511_936, 64_206_995_456),
    ("inflated_regnety_016", 8, 224, 14_258_086, 20_226_974_208),
    ("inflated_mobilenetv2", 8, 224, 2_866_448, 2_904_921_088),
    ("inflated_mobilenetv3", 8, 224, 4_898_512, 2_107_560_448),
    ("inflated_efficientnet_b0", 8, 224, 4_885_708, 3_806_295_296),
    ("inflated_densenet121", 8, 224, 11_658_896, 44_440_748_032),
    ("inflated_convnext_tiny", 8, 224, 31_882_672, 40_328_005_632),
]


@pytest.mark.parametrize(("name", "frames", "size", "params", "macs"), GOLDEN)
def test_named_network_has_its_cost(name, frames, size, params, macs):
    found = cost(preset(name, frames=frames), frames=frames, height=size, width=size, num_classes=400)
    assert found.params == params
    assert found.macs == found.train_macs == macs


def test_every_preset_has_a_row():
    assert {row[0] for row in GOLDEN} == {entry.name for entry in PRESETS}
    assert all(
        (entry.clip[0], entry.clip[1]) == (row[1], row[2])
        for entry in PRESETS
        for row in GOLDEN
        if row[0] == entry.name
    )


@pytest.mark.parametrize(
    ("model", "params", "features"),
    [
        ("resnet18", 11_176_512, 512),
        ("resnet50", 23_508_032, 2048),
        ("resnet101", 42_500_160, 2048),
        ("mobilenetv2_100", 2_223_872, 1280),
        ("mobilenetv3_large_100", 4_202_032, 1280),
        ("efficientnet_b0", 4_007_548, 1280),
        ("regnety_016", 10_313_430, 888),
        ("densenet121", 6_953_856, 1024),
        ("inception_v3", 21_785_568, 2048),
        ("convnext_tiny", 27_820_128, 768),
    ],
)
def test_networks_have_timms_parameters_without_the_classifier(model, params, features):
    for num_classes in (1, 10):
        found = cost(make_timm(model), frames=1, height=96, width=96, num_classes=num_classes)
        assert found.params == params + (features + 1) * num_classes


@pytest.mark.parametrize(
    ("model", "macs", "printed"), [("resnet50", 4_087_136_256, 4.087), ("resnet101", 7_799_357_440, 7.799)]
)
def test_a_frame_of_a_resnet_costs_what_was_published(model, macs, printed):
    found = cost(make_timm(model), frames=1, height=224, width=224, num_classes=400)
    assert found.macs - 2048 * 400 == macs
    assert round(macs / 1e9, 3) == printed


def test_trn_has_the_published_parameters():
    assert cost(preset("trn_r50", frames=8), frames=8, height=64, width=64, num_classes=174).params == 26_641_154


@pytest.mark.parametrize(("backbone", "more"), [("r50", 31_008), ("r101", 71_757)])
def test_tsm_adds_nothing_and_tin_what_was_published(backbone, more):
    params = {
        kind: cost(preset(f"{kind}_{backbone}", frames=8), frames=8, height=64, width=64, num_classes=400).params
        for kind in ("tsn", "tsm", "tin")
    }
    assert params["tsm"] == params["tsn"]
    assert params["tin"] - params["tsn"] == more


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("tsn_r101", {(58.92, 5)}),
        ("tsn_inception_resnet_v2", {(57.45, 5)}),
        ("tsn_senet154", {(53.19, 5)}),
        ("tsm_r50", {(59.85, 8), (61.12, 16)}),
        ("tsm_r101", {(61.06, 8)}),
        ("tin_r50", {(62.23, 8)}),
        ("tin_r101", {(62.22, 8), (62.49, 16)}),
    ],
)
def test_citations_are_those_of_the_report(name, figures):
    (entry,) = (entry for entry in PRESETS if entry.name == name)
    assert {(cited.value, cited.frames) for cited in entry.published} == figures
    assert {(cited.metric, cited.size) for cited in entry.published} == {("mAP", 224)}
    assert all("Multi-Moments" in cited.data and "table 1" in cited.source for cited in entry.published)
