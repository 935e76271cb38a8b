"""What there is to know of timm's networks before one is built: their parts, and what time can be put into.

Only timm and torch can say, by building a network and running it. What they said is remembered, so that it is known
without them from then on.
"""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import search_spaces
from search_spaces.families.timm_known import KNOWN
from search_spaces.remembered import Remembered
from search_spaces.spec import POINTWISE_KINDS, Kind, SpecError

if TYPE_CHECKING:
    from search_spaces.families.timm_spec import TimmSpec

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
    from search_spaces.families.timm_sites import dissect

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
