"""The domains of a residual search space: their names, scopes, defaults, and the values that each can have."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

from search_spaces.domains import ANY_SCOPE, Choice, Scalar
from search_spaces.errors import SpecError, at_most, nearest
from search_spaces.families.labels import placement_fits, read_dilation, read_factor, read_placement, read_share
from search_spaces.families.resnet.blocks import SHORTCUTS
from search_spaces.families.resnet.make import (
    HEAVY,
    depth_blocks,
    ints,
    make_stem,
    place,
    temporal_strides,
    time_pools,
)
from search_spaces.operators import ATTENTIONS, KERNELS, KINDS, MIDPLANES, NORM_EPS, NORM_MOMENTUM, TemporalOp
from search_spaces.parts import HEAD_POOLS
from search_spaces.spec import scale

# Labels beside the kinds of operators: A, B and C in turn by the block's index (the paper's "P3D ResNet"), and (2+1)D
# with its temporal convolution first.
P3D_MIXED = "p3d_mixed"
TIME_FIRST = "1plus2d"
KIND_LABELS: tuple[str, ...] = (*KINDS, P3D_MIXED, TIME_FIRST)


@lru_cache(maxsize=4096)
def operator(kind: str, kernel: int, dilation: Scalar, midplanes: str, index: int) -> TemporalOp:
    """Returns the operator of a block that is temporal.

    Args:
        kind: One of `KIND_LABELS`.
        kernel: Temporal kernel.
        dilation: One dilation, or several as a label.
        midplanes: Convention of (2+1)D.
        index: Global index of the block; of no matter unless the kind is mixed.
    """
    if kind == P3D_MIXED:
        kind = f"p3d_{'abc'[index % 3]}"
    return TemporalOp(
        kind="2plus1d" if kind == TIME_FIRST else kind,  # type: ignore[arg-type]
        kernel=kernel,
        dilation=tuple(int(part) for part in str(dilation).split("|")),
        midplanes=midplanes,  # type: ignore[arg-type]
        time_first=kind == TIME_FIRST,
    )


def first_temporal_stride(label: Scalar) -> int:
    """Returns the temporal stride of the first stage: of the paper's, which never has one there, 1."""
    return 1 if label in ("none", "as_paper") else ints(str(label))[0]


def stage_strides(label: Scalar | tuple[Scalar, ...], groups_3d: list[bool] | tuple[bool, ...]) -> tuple[int, ...]:
    """Returns a stride a stage from one label, or from one value per stage."""
    if not isinstance(label, tuple):
        return (int(label),) * len(groups_3d) if label in (1, 2) else temporal_strides(str(label), groups_3d)
    named = {name: temporal_strides(name, groups_3d) for name in ("none", "as_paper")}
    return tuple(named[v][s] if isinstance(v, str) else int(v) for s, v in enumerate(label))


@lru_cache(maxsize=4096)
def all_widths(num_stages: int, widths: str, stem_width: int, multiplier: float) -> tuple[int, ...]:
    """Returns the width of the stem and of every stage, multiplied.

    Args:
        num_stages: Stages.
        widths: A width a stage as a label; empty where stages double from the stem's.
        stem_width: Of the stem; 0 is that of the first stage, or 64.
        multiplier: Factor for all.
    """
    base = ints(widths) if widths else tuple((stem_width or 64) * 2**s for s in range(num_stages))
    return tuple(scale(width, multiplier) for width in (stem_width or base[0], *base))


def values_of(values: Mapping[str, tuple[Scalar, ...]], domain: str) -> tuple[Any, ...]:
    """Returns the values of a domain in a space, its default where the space leaves it out."""
    return values.get(domain, (DEFAULTS[domain],))


def check_cuts(values: Mapping[str, tuple[Scalar, ...]]) -> None:
    """Raises SpecError for a cut, or a placement, that suits no depth of a space, and for one that lacks its cut."""
    every = [depth_blocks(depth)[1] for depth in values_of(values, "depth")]
    for label in values.get("placement", ()):
        if label in HEAVY and "cut" not in values:
            raise SpecError(f"placement {label} needs a domain cut, the index of a block; or write {label}:k")
        if label not in HEAVY and not any(placement_fits(str(label), counts) for counts in every):
            place(str(label), max(every, key=sum))
    most = max(map(sum, every))
    beyond = [cut for cut in values_of(values, "cut") if int(cut) > most]
    if beyond:
        raise SpecError(f"cut must be 0 to {most}, the number of blocks, but is {beyond[0]}")


def _count(name: str, low: int, value: Scalar) -> Scalar:
    if not isinstance(value, int) or value < low:
        raise SpecError(f"{name} must be a whole number of at least {low}, but is {value}")
    at_most(name, value)
    return value


def _depth(value: Scalar) -> Scalar:
    depth_blocks(value)
    return value


def _widths(value: Scalar) -> Scalar:
    if 0 in ints(str(value)):
        raise SpecError(f"widths must be at least 1, but are {value}")
    return value


def _stem(value: Scalar) -> Scalar:
    make_stem(str(value))
    return value


def _placement(value: Scalar) -> Scalar:
    return value if value in HEAVY else read_placement("placement", value)


def _stride(value: Scalar) -> Scalar:
    if value not in ("none", "as_paper", 1, 2):
        label = str(value)
        temporal_strides(label, [True] * (label.count("-") + 1))
    return value


def _time_pool(value: Scalar) -> Scalar:
    time_pools(str(value), str(value).count("-") + 1)
    return value


_STAGE = ("network", "stage")
# Left alone, they are R3D-18. A cut says something only beside a placement that asks for one; those need the domain.
CHOICES: Mapping[str, Choice] = {
    choice.name: choice
    for choice in (
        Choice(name="depth", default=18, read=_depth),
        Choice(name="widths", default="", read=_widths),
        Choice(name="stem_width", default=0, read=partial(_count, "stem_width", 1)),
        Choice(name="width", default=1.0, read=partial(read_factor, "width")),
        Choice(name="first_stride", default=1, valid=(1, 2)),
        Choice(name="placement", default="all", read=_placement),
        Choice(name="cut", default=0, read=partial(_count, "cut", 0)),
        Choice(name="stem", default="3x7x7", read=_stem),
        Choice(name="kind", default="3d", valid=KIND_LABELS, per=ANY_SCOPE),
        Choice(name="kernel", default=3, valid=KERNELS, per=ANY_SCOPE),
        Choice(name="dilation", default="1", read=partial(read_dilation, "dilation"), per=ANY_SCOPE),
        Choice(name="midplanes", default="per_conv", valid=MIDPLANES, per=ANY_SCOPE),
        Choice(name="temporal_stride", default="as_paper", read=_stride, per=_STAGE),
        Choice(name="stride_on", default="3x3", valid=("3x3", "1x1"), per=ANY_SCOPE),
        Choice(name="time_pool", default="none", read=_time_pool, per=_STAGE),
        Choice(name="attention", default="none", valid=ATTENTIONS, per=ANY_SCOPE),
        Choice(name="shortcut", default="conv", valid=SHORTCUTS),
        Choice(name="relu_first", default=False, valid=(False, True)),
        Choice(name="head", default="avg", valid=HEAD_POOLS),
        Choice(name="norm_eps", default=NORM_EPS, read=partial(read_share, "norm_eps")),
        Choice(name="norm_momentum", default=NORM_MOMENTUM, read=partial(read_share, "norm_momentum")),
        Choice(name="zero_init", default=False, valid=(False, True)),
    )
}
DEFAULTS: Mapping[str, Scalar] = {name: choice.default for name, choice in CHOICES.items()}
SCOPES: Mapping[str, tuple[str, ...]] = {name: choice.per for name, choice in CHOICES.items()}
_JOINED = {"dilation": "|", "placement": ",", "depth": "-", "widths": "-", "temporal_stride": "-", "time_pool": "-"}


def normalise(domain: str, value: object, scope: str) -> Scalar:
    """Returns a value of a domain as the scalar that stands for it, such as `1|2|4` for a list of dilations.

    Raises:
        SpecError: The value is not one that the domain can have.
    """
    if isinstance(value, list | tuple):
        if domain not in _JOINED or not value:
            raise SpecError(f"a value of {domain} cannot be the list {list(value)}")
        value = _JOINED[domain].join(map(str, value))
    choice = CHOICES[domain]
    if (isinstance(value, bool) and not isinstance(choice.default, bool)) or not isinstance(value, str | int | float):
        raise SpecError(f"a value of {domain} must be text or a number, but is {value}")
    if scope == "stage" and domain == "temporal_stride" and value not in ("none", "as_paper", 1, 2):
        raise SpecError(f"temporal_stride of a stage must be none, as_paper, 1 or 2, but is {value}")
    if scope == "stage" and domain == "time_pool":
        return _count("time_pool of a stage", 1, value)
    if choice.read is not None:
        return choice.read(value)
    if not any(type(value) is type(c) and value == c for c in choice.valid):
        raise SpecError(f"{domain} must be one of its choices, but is {value}{nearest(value, choice.valid)}")
    return value
