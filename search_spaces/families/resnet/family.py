"""The family of residual networks: its published networks, and all of it put together.

He et al. 2016, "Deep Residual Learning for Image Recognition" (https://arxiv.org/abs/1512.03385), in the form that
torchvision has (strides on the 3x3 convolutions). On a clip, each frame is seen by itself, and the mean of their logits
is what a temporal segment network takes (Wang et al. 2016).
"""

from __future__ import annotations

from functools import partial

from search_spaces.families.resnet import presets_p3d as resnet_presets_p3d
from search_spaces.families.resnet import presets_slow as resnet_presets_slow
from search_spaces.families.resnet import presets_tran as resnet_presets_tran
from search_spaces.families.resnet.blocks import SHORTCUTS
from search_spaces.families.resnet.domains import ResNetDomains
from search_spaces.families.resnet.make import DEPTHS, PLACEMENTS, make_stem, of_depth
from search_spaces.families.resnet.spec import ResNetSpec
from search_spaces.families.resnet.values import KIND_LABELS
from search_spaces.family import Family, Preset, Published
from search_spaces.operators import ATTENTIONS, FLAT, MIDPLANES
from search_spaces.parts import HEAD_POOLS

_IMAGENET = {18: 69.758, 34: 73.314, 50: 76.130, 101: 77.374, 152: 78.312}


def _images(_frames: int, *, depth: int) -> ResNetSpec:
    return of_depth(depth, stem=make_stem("1x7x7/2+max"), op_at=lambda _s, _b, _index: FLAT)


def _published(depth: int) -> tuple[Published, ...]:
    top1 = Published(
        metric="top-1",
        value=_IMAGENET[depth],
        frames=1,
        size=224,
        views="1 crop",
        data="ImageNet-1k val",
        source="torchvision, weights IMAGENET1K_V1",
    )
    if depth != 50:
        return (top1,)
    ucf101 = Published(
        metric="top-1",
        value=80.8,
        frames=1,
        size=160,
        views="split 1",
        data="UCF101 test",
        source="Qiu et al. 2017, table 1",
    )
    return top1, ucf101


PRESETS = (
    *(
        Preset(
            name=f"resnet{depth}",
            family="resnet",
            paper="He et al. 2016, Deep Residual Learning for Image Recognition",
            year=2016,
            clip=(1, 224, 224),
            published=_published(depth),
            make=partial(_images, depth=depth),
        )
        for depth in _IMAGENET
    ),
    *resnet_presets_p3d.PRESETS,
    *resnet_presets_tran.PRESETS,
    *resnet_presets_slow.PRESETS,
)


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
