"""Domains that Inception networks share: where time is, and with which operator, by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import cast

from search_spaces.domains import ANY_SCOPE, At, Choice, Pick, Scalar, always
from search_spaces.errors import SpecError
from search_spaces.families.labels import dilations, read_dilation, read_factor
from search_spaces.operators import ATTENTIONS, FLAT, KERNELS, Kind, Midplanes, TemporalOp

PLACEMENTS = ("all", "none", "top_heavy", "bottom_heavy")
# There is no block in whose convolutions planes could be shared, as in torchvision's (2+1)D.
MIDPLANES: tuple[Midplanes, ...] = ("per_conv", "equal")
_HEAVY = PLACEMENTS[2:]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """The layers of a family that can be temporal.

    Attributes:
        names: Their names in order; a cut is an index into them.
        counts: How many there are in each stage.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]

    def index(self, stage: int, block: int) -> int:
        """Returns a layer's index, given its stage and its index there."""
        return _starts(self.counts)[stage] + block

    def place(self, index: int) -> tuple[int, int]:
        """Returns a layer's stage and its index there."""
        starts = _starts(self.counts)
        stage = max(s for s, start in enumerate(starts) if start <= index)
        return stage, index - starts[stage]

    def placed(self, at: At) -> bool:
        """Returns whether a layer may be temporal, as far as placement and cut are settled."""
        return is_placed(at("placement"), at("cut"), self.index(at.stage, at.block))

    def read_cut(self, value: Scalar) -> Scalar:
        """Returns a cut; raises SpecError unless it is 0 to the number of layers."""
        last = len(self.names)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= last:
            listed = ", ".join(f"{i} {name}" for i, name in enumerate(self.names))
            raise SpecError(f"cut must be a layer or {last} for the end, but is {value} ({listed})")
        return value


@lru_cache(maxsize=64)
def _starts(counts: tuple[int, ...]) -> tuple[int, ...]:
    return (0, *accumulate(counts[:-1]))


def is_placed(placement: Scalar | None, cut: Scalar | None, index: int) -> bool:
    """Returns whether a layer may be temporal.

    Args:
        placement: `all`, `none`, `top_heavy` (from the cut on) or `bottom_heavy` (before the cut); None while open.
        cut: Index of a layer; None while open.
        index: The layer's.
    """
    if placement in _HEAVY and cut is not None:
        return (index >= int(cut)) == (placement == "top_heavy")
    return placement != "none"


def choices(
    layers: Layers,
    kinds: tuple[Kind, ...],
    *,
    kind: str,
    own_kind: Callable[[At], bool] = always,
    own_kernel: Callable[[At], bool] = always,
    attends: Callable[[At], bool] = always,
) -> tuple[Choice, ...]:
    """Returns the domains width, placement, cut, kind, kernel, dilation, midplanes and attention.

    Args:
        layers: The family's layers.
        kinds: Its operators.
        kind: The default of them.
        own_kind: Whether `kind` says what a layer's operator is.
        own_kernel: Whether `kernel` says what a temporal layer's kernel is.
        attends: Whether a layer can have attention.
    """

    def temporal(at: At) -> bool:
        return layers.placed(at) and at("kind") != "2d"

    where = ("placement", "cut")
    what = (*where, "kind")
    return (
        Choice(name="width", default=1.0, read=lambda value: read_factor("width", value)),
        Choice(name="placement", default="all", valid=PLACEMENTS),
        Choice(
            name="cut",
            default=0,
            read=layers.read_cut,
            when=lambda at: at("placement") in (None, *_HEAVY),
            needs=("placement",),
        ),
        Choice(
            name="kind",
            default=kind,
            valid=kinds,
            per=ANY_SCOPE,
            when=lambda at: layers.placed(at) and own_kind(at),
            needs=where,
        ),
        Choice(
            name="kernel",
            default=3,
            valid=KERNELS,
            per=ANY_SCOPE,
            when=lambda at: temporal(at) and own_kernel(at),
            needs=what,
        ),
        Choice(
            name="dilation",
            default=1,
            read=lambda value: read_dilation("dilation", value),
            per=ANY_SCOPE,
            when=temporal,
            needs=what,
        ),
        Choice(
            name="midplanes",
            default="per_conv",
            valid=MIDPLANES,
            per=ANY_SCOPE,
            when=lambda at: layers.placed(at) and at("kind") in (None, "2plus1d"),
            needs=what,
        ),
        Choice(name="attention", default="none", valid=ATTENTIONS, per=ANY_SCOPE, when=attends),
    )


def picked_op(
    pick: Pick, layers: Layers, index: int, *, kind: Scalar | None = None, kernel: str = "kernel"
) -> TemporalOp:
    """Returns a layer's operator.

    Args:
        pick: The values of a network.
        layers: The family's layers.
        index: The layer's.
        kind: Its kind, where that is not the value of the domain `kind`.
        kernel: The domain of its kernel.
    """
    if not is_placed(pick("placement"), pick("cut"), index):
        return FLAT
    s, b = layers.place(index)
    return _operator(
        pick("kind", s, b) if kind is None else kind,
        pick(kernel, s, b),
        pick("dilation", s, b),
        pick("midplanes", s, b),
    )


@lru_cache(maxsize=4096)
def _operator(kind: Scalar, kernel: Scalar, dilation: Scalar, mid: Scalar) -> TemporalOp:
    return TemporalOp(
        kind=cast(Kind, kind), kernel=int(kernel), dilation=dilations(dilation), midplanes=cast(Midplanes, mid)
    )


def read_frames(name: str, published: tuple[int, ...], most: int) -> Callable[[Scalar], Scalar]:
    """Returns a reader of a label with a number of frames for each of some layers, such as `2-1-1-2-2`.

    It takes `as_paper` for the published numbers and `none` for 1 everywhere, too.

    Args:
        name: The domain, for messages.
        published: The numbers as published.
        most: The largest number.
    """

    def read(value: Scalar) -> Scalar:
        if value in ("as_paper", "none"):
            return "-".join(map(str, published if value == "as_paper" else (1,) * len(published)))
        parts = str(value).split("-")
        if len(parts) != len(published) or not all(part.isdecimal() and 1 <= int(part) <= most for part in parts):
            example = "-".join(map(str, published))
            raise SpecError(
                f"{name} must be as_paper, none or {len(published)} numbers of 1 to {most} as {example}, but is {value}"
            )
        return "-".join(str(int(part)) for part in parts)

    return read


def frames(label: Scalar) -> tuple[int, ...]:
    """Returns the numbers of a label that was read."""
    return tuple(int(part) for part in str(label).split("-"))
