"""The domains of a residual search space: their names, scopes, defaults, and the values that each can have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any

from search_spaces.domains import ANY_SCOPE, Scalar
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

# What a domain is where a space leaves it out: together, R3D-18. A cut says something only beside a placement that asks
# for one, and those need the domain.
DEFAULTS: Mapping[str, Scalar] = {
    "depth": 18,
    "widths": "",
    "stem_width": 0,
    "width": 1.0,
    "first_stride": 1,
    "placement": "all",
    "cut": 0,
    "stem": "3x7x7",
    "kind": "3d",
    "kernel": 3,
    "dilation": "1",
    "midplanes": "per_conv",
    "temporal_stride": "as_paper",
    "stride_on": "3x3",
    "time_pool": "none",
    "attention": "none",
    "shortcut": "conv",
    "relu_first": False,
    "head": "avg",
    "norm_eps": NORM_EPS,
    "norm_momentum": NORM_MOMENTUM,
    "zero_init": False,
}
SCOPES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(DEFAULTS, ("network",)),
    **dict.fromkeys(("kind", "kernel", "dilation", "midplanes", "stride_on", "attention"), ANY_SCOPE),
    **dict.fromkeys(("temporal_stride", "time_pool"), ("network", "stage")),
}
# Labels beside the kinds of operators: A, B and C in turn by the block's index (the paper's "P3D ResNet"), and (2+1)D
# with its temporal convolution first.
P3D_MIXED = "p3d_mixed"
TIME_FIRST = "1plus2d"
KIND_LABELS: tuple[str, ...] = (*KINDS, P3D_MIXED, TIME_FIRST)

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
    if (isinstance(value, bool) and domain not in ("zero_init", "relu_first")) or not isinstance(
        value, str | int | float
    ):
        raise SpecError(f"a value of {domain} must be text or a number, but is {value}")
    if scope == "stage" and domain == "temporal_stride" and value not in ("none", "as_paper", 1, 2):
        raise SpecError(f"temporal_stride of a stage must be none, as_paper, 1 or 2, but is {value}")
    if scope == "stage" and domain == "time_pool":
        return _count("time_pool of a stage", 1, value)
    return _READ[domain](value)


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
    """Returns a stride a stage from one label, or from one value a stage."""
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


def _choice(name: str, choices: tuple[Scalar, ...], value: Scalar) -> Scalar:
    if not any(type(value) is type(c) and value == c for c in choices):
        raise SpecError(f"{name} must be one of its choices, but is {value}{nearest(value, choices)}")
    return value


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


_READ: Mapping[str, Callable[[Scalar], Scalar]] = {
    "depth": _depth,
    "widths": _widths,
    "stem_width": partial(_count, "stem_width", 1),
    "width": partial(read_factor, "width"),
    "first_stride": partial(_choice, "first_stride", (1, 2)),
    "placement": _placement,
    "cut": partial(_count, "cut", 0),
    "stem": _stem,
    "kind": partial(_choice, "kind", KIND_LABELS),
    "kernel": partial(_choice, "kernel", KERNELS),
    "dilation": partial(read_dilation, "dilation"),
    "midplanes": partial(_choice, "midplanes", MIDPLANES),
    "temporal_stride": _stride,
    "stride_on": partial(_choice, "stride_on", ("3x3", "1x1")),
    "time_pool": _time_pool,
    "attention": partial(_choice, "attention", ATTENTIONS),
    "shortcut": partial(_choice, "shortcut", SHORTCUTS),
    "relu_first": partial(_choice, "relu_first", (False, True)),
    "head": partial(_choice, "head", HEAD_POOLS),
    "norm_eps": partial(read_share, "norm_eps"),
    "norm_momentum": partial(read_share, "norm_momentum"),
    "zero_init": partial(_choice, "zero_init", (False, True)),
}
