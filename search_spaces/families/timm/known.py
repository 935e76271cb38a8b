"""What is known of timm's networks without timm, as values: enough to read a study of them without importing torch."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from search_spaces.errors import SpecError
from search_spaces.operators import KINDS, POINTWISE_KINDS, SEPARATED_KINDS, Kind

NUM_STAGES = 5

_ALL = (0, 1, 2, 3, 4)

# Depthwise convolutions would take the place of others, whose 2D weights they could not have.
TIMM_KINDS: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind not in SEPARATED_KINDS)

SHIFTED = "ResNet, SE-ResNet, SENet, ResNeXt, RegNet, MobileNet, EfficientNet and ConvNeXt"


class Ways(NamedTuple):
    """How networks of one kind can be made into networks for clips. Per frame, all of them can.

    Attributes:
        name: What they are called.
        spatial: Stages with convolutions larger than 1x1, which the kinds 3d, 2plus1d and p3d are for.
        pointwise: Stages with 1x1 convolutions, which the kinds t1x1 are for.
        shift: Whether their residual branches take TSM and TIN.
        chain: Whether they are a chain of parts, which pools and attention can stand between.
    """

    name: str
    spatial: tuple[int, ...] = _ALL
    pointwise: tuple[int, ...] = ()
    shift: bool = False
    chain: bool = True


_KNOWN: tuple[tuple[str, Ways], ...] = (
    (r"(se|ecase)?resnet(18|34)", Ways("ResNet of basic blocks", shift=True)),
    (r"legacy_seresnet(18|34)", Ways("SE-ResNet of basic blocks", shift=True)),
    (r"(wide_)?resnet(26|50|101|152)(_2)?", Ways("ResNet", pointwise=_ALL[1:], shift=True)),
    (r"(legacy_)?seresnet(50|101|152)", Ways("SE-ResNet", pointwise=_ALL[1:], shift=True)),
    (r"legacy_senet154", Ways("SENet-154", pointwise=_ALL[1:], shift=True)),
    (r"regnet[xy]_\d{3}", Ways("RegNet", pointwise=_ALL[1:], shift=True)),
    (r"mobilenetv2_\d{3}", Ways("MobileNetV2", pointwise=_ALL, shift=True)),
    (r"mobilenetv3_large_\d{3}", Ways("MobileNetV3", pointwise=_ALL, shift=True)),
    (r"mobilenetv3_small_\d{3}", Ways("MobileNetV3", pointwise=_ALL[1:], shift=True)),
    (r"efficientnet_b[0-4]", Ways("EfficientNet", pointwise=_ALL, shift=True)),
    (r"densenet\d{3}", Ways("DenseNet", pointwise=_ALL[1:])),
    (r"inception_v3", Ways("Inception-v3", pointwise=_ALL[1:])),
    (r"inception_resnet_v2", Ways("Inception-ResNet-v2", pointwise=_ALL[1:])),
    (r"convnext_(atto|femto|pico|nano)", Ways("ConvNeXt", spatial=_ALL[1:], pointwise=_ALL[1:], shift=True)),
    (r"convnext_(tiny|small|base|large)", Ways("ConvNeXt", spatial=_ALL[1:], shift=True)),
    (r"(vit|deit)_(tiny|small|base|large)_patch\d+_\d+", Ways("ViT", spatial=(), chain=False)),
)

# Those that can do more than see frames one by one, for messages.
KNOWN = tuple(dict.fromkeys(k.name for _, k in _KNOWN if k.chain and not k.name.endswith("blocks")))


@lru_cache(maxsize=1024)
def ways(model: str) -> Ways | None:
    """Returns what is known of a network; None if nothing is, so that timm has to be asked."""
    return next((found for pattern, found in _KNOWN if re.fullmatch(pattern, model)), None)


class Piece(NamedTuple):
    """A part of a network that is a chain of parts; see `timm.walk.Part`.

    Attributes:
        name: Path of its first module in timm's network.
        stage: From 0 to 4.
        in_planes: Planes in.
        out_planes: Planes out.
        stride: Over rows and columns.
        kin: Name of the first part that is made like it.
        shifts: Whether its residual branch takes TSM and TIN.
        spatial: Whether it has convolutions larger than 1x1 for an operator, or why they cannot take one.
        pointwise: The same of 1x1 convolutions in its branches.
        shortcuts: The same of all 1x1 convolutions, those of shortcuts among them.
    """

    name: str
    stage: int
    in_planes: int
    out_planes: int
    stride: int
    kin: str
    shifts: bool
    spatial: bool | str
    pointwise: bool | str
    shortcuts: bool | str

    def takes(self, kind: Kind) -> bool:
        """Returns whether it has convolutions for a kind; raises SpecError if they cannot take it."""
        if kind == "2d":
            return False
        found = self.shortcuts if kind == "t1x1_all" else self.pointwise
        found = found if kind in POINTWISE_KINDS else self.spatial
        if isinstance(found, str):
            raise SpecError(found)
        return found


class Anatomy(NamedTuple):
    """What is known of a network.

    Attributes:
        model: timm's name.
        features: Features that the classifier sees.
        pieces: What computes maps of features, in order; none if the network is no chain.
    """

    model: str
    features: int
    pieces: tuple[Piece, ...]
