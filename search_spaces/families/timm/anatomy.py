"""What is found out about timm's networks, and remembered: their stages and parts, and which operators those take.

Only timm and torch can say, by building a network and running it. What they said is remembered, so that it is known
without them from then on.
"""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path

import search_spaces
from search_spaces.errors import SpecError
from search_spaces.families.timm.known import KNOWN, Anatomy, Piece, ways
from search_spaces.operators import POINTWISE_KINDS, Kind
from search_spaces.remembered import Remembered


@lru_cache(maxsize=4096)
def stages_for(model: str, kind: Kind) -> tuple[int, ...]:
    """Returns the stages of a network that have convolutions for a kind; asks timm about those that are not known."""
    if kind == "2d":
        return ()
    known = ways(model)
    if known is None or kind == "t1x1_all":
        return stages_with(model, kind)
    return known.pointwise if kind in POINTWISE_KINDS else known.spatial


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
    return tuple(sorted({piece.stage for piece in chain(model) if piece.takes(kind)}))


def chain(model: str) -> tuple[Piece, ...]:
    """The parts of a network; raises SpecError where it is no chain of parts."""
    pieces = anatomy(model).pieces
    if not pieces:
        raise SpecError(
            f"{model} is no chain of parts, so that it works per frame only, without shifts, pools, attention and"
            f" temporal kinds; with those work {', '.join(KNOWN)}"
        )
    return pieces
