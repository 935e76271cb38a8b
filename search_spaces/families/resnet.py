"""The family of residual networks, put together."""

from __future__ import annotations

from search_spaces.families.resnet_blocks import SHORTCUTS
from search_spaces.families.resnet_domains import ResNetDomains
from search_spaces.families.resnet_make import DEPTHS, PLACEMENTS
from search_spaces.families.resnet_presets import PRESETS
from search_spaces.families.resnet_spec import ResNetSpec
from search_spaces.families.resnet_values import KIND_LABELS
from search_spaces.family import Family
from search_spaces.parts import HEAD_POOLS
from search_spaces.spec import ATTENTIONS, MIDPLANES


def _sample() -> dict[str, object]:
    return {
        "domains": {
            "depth": [10, [1, 2, 1], "2-1", "b1-2", "b1-1-1"],
            "widths": ["8-16-24-32", "16-16-32", "8-24"],
            "width": [1.0, 2.0],
            "first_stride": [1, 2],
            "stem": ["1x5x5/2", "3x3x3/1", "3x5x5/2+max", "1x3x3/1+max2", "2x3x3-unpadded", "r2plus1d"],
            "stem_width": [8, 16, 32],
            "placement": ["all", "mc2", "rmc3", "top_heavy:1", "bottom_heavy", "top_heavy", "stem,0,2"],
            "cut": [1, 2, 4],
            "kind": {"values": list(KIND_LABELS), "per": "block"},
            "kernel": {"values": [1, 3, 5], "per": "stage"},
            "dilation": {"values": [1, 2, [1, 2, 3]], "per": "stage"},
            "midplanes": list(MIDPLANES),
            "temporal_stride": {"values": ["none", "as_paper", 1, 2], "per": "stage"},
            "stride_on": {"values": ["3x3", "1x1"], "per": "stage"},
            "time_pool": ["none", "1-2", "2-2", "2-1-1", "1-2-1", "2-2-2-1"],
            "attention": {"values": list(ATTENTIONS), "per": "block"},
            "shortcut": list(SHORTCUTS),
            "relu_first": [False, True],
            "head": list(HEAD_POOLS),
            "norm_eps": [1e-5, 1e-3],
            "norm_momentum": [0.1, 0.01],
            "zero_init": [False, True],
        },
        "forbid": [
            {"kind": ["p3d_b", "p3d_mixed"], "kernel": 5},
            {"depth": 10, "width": 2.0},
            {"placement": "top_heavy", "cut": 1},
        ],
    }


FAMILY = Family(
    name="resnet",
    spec=ResNetSpec,
    domains=ResNetDomains(),
    presets=PRESETS,
    least_clip=(8, 32, 32),
    sample=_sample,
    usual={
        "depth": tuple(DEPTHS),
        "placement": PLACEMENTS,
        "stem": ("r2plus1d", "1x7x7", "1x7x7/2+max", "1x7x7/2+max2", "3x7x7/2+max", "5x7x7/2+max"),
    },
)
