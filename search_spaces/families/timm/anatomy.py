"""What is known of timm's networks without timm: enough to read a study of them without importing torch."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import search_spaces
from search_spaces.remembered import Remembered
from search_spaces.spec import KINDS, POINTWISE_KINDS, SEPARATED_KINDS, Kind, SpecError

if TYPE_CHECKING:
    from search_spaces.families.timm.spec import TimmSpec


NUM_STAGES = 5
_ALL = (0, 1, 2, 3, 4)


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


@lru_cache(maxsize=4096)
def stages_for(model: str, kind: Kind) -> tuple[int, ...]:
    """Returns the stages of a network that have convolutions for a kind; asks timm about those that are not known."""
    if kind == "2d":
        return ()
    known = ways(model)
    if known is None or kind == "t1x1_all":
        return stages_with(model, kind)
    return known.pointwise if kind in POINTWISE_KINDS else known.spatial


# Depthwise convolutions would take the place of others, whose 2D weights they could not have.
TIMM_KINDS: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind not in SEPARATED_KINDS)


SHIFTED = "ResNet, SE-ResNet, SENet, ResNeXt, RegNet, MobileNet, EfficientNet and ConvNeXt"


class Piece(NamedTuple):
    """A part of a network that is a chain of parts; see `timm_walk.Part`.

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


@lru_cache(maxsize=64)
def anatomy(model: str) -> Anatomy:
    """Returns what is known of a network; timm is asked where nothing is yet.

    Raises:
        SpecError: timm has none of this name, or it cannot be used.
    """
    found = _table().get(model)
    if found is not None:
        _, features, pieces = found
        return Anatomy(model, features, tuple(Piece(*piece) for piece in pieces))
    from search_spaces.families.timm.sites import dissect

    out = dissect(model)
    _table().put(model, out)
    return out


@cache
def _table() -> Remembered:
    sources = Path(search_spaces.__file__).parent.rglob("*.py")
    return Remembered("timm", packages=("timm", "torch"), sources=sources)


@lru_cache(maxsize=1024)
def stages_with(model: str, kind: Kind) -> tuple[int, ...]:
    """Returns the stages that have convolutions for a kind; raises SpecError if the network cannot be inflated."""
    return tuple(sorted({piece.stage for piece in _chain(model) if piece.takes(kind)}))


def check_stages(spec: TimmSpec) -> None:
    """Raises SpecError where a network that is a chain cannot do what a spec asks of it."""
    pieces, model = anatomy(spec.model).pieces, spec.model
    for i, stage in enumerate(spec.stages):
        here = any(piece.stage == i for piece in pieces)
        if stage.temporal.kind != "2d" and i not in stages_with(model, stage.temporal.kind):
            which = "1x1" if stage.temporal.kind in POINTWISE_KINDS else "larger than 1x1"
            raise SpecError(f"stages.{i}.temporal must be 2d, as {model} has no convolutions there that are {which}")
        if stage.pool > 1 and i <= pieces[0].stage:
            raise SpecError(f"stages.{i}.pool must be 1, as there is nothing before it in {model}, but is {stage.pool}")
        if stage.attention != "none" and not here:
            raise SpecError(
                f"stages.{i}.attention must be none, as {model} has no such stage, but is {stage.attention}"
            )
    if spec.shift.kind != "none" and not any(piece.shifts for piece in pieces):
        raise SpecError(f"{spec.shift.kind} needs residual branches, such as those of {SHIFTED}, but {model} has none")


def check_whole(spec: TimmSpec) -> None:
    """Raises SpecError where a spec asks for more than features of every frame."""
    if spec.shift.kind != "none" or any(stage != type(stage)() for stage in spec.stages):
        _chain(spec.model)


def _chain(model: str) -> tuple[Piece, ...]:
    pieces = anatomy(model).pieces
    if not pieces:
        raise SpecError(
            f"{model} is no chain of parts, so that it works per frame only, without shifts, pools, attention and"
            f" temporal kinds; with those work {', '.join(KNOWN)}"
        )
    return pieces
