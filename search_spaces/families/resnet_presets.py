"""Published residual networks by name: those of images, frame by frame, and those of every paper on video.

He et al. 2016, "Deep Residual Learning for Image Recognition" (https://arxiv.org/abs/1512.03385), in the form that
torchvision has (strides on the 3x3 convolutions). On a clip, each frame is seen by itself, and the mean of their logits
is what a temporal segment network takes (Wang et al. 2016).
"""

from __future__ import annotations

from functools import partial

from search_spaces.families import resnet_presets_p3d, resnet_presets_slow, resnet_presets_tran
from search_spaces.families.resnet_assemble import of_depth
from search_spaces.families.resnet_make import make_stem
from search_spaces.families.resnet_spec import ResNetSpec
from search_spaces.family import Preset, Published
from search_spaces.spec import FLAT

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
