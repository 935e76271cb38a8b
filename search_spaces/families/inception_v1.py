"""What a search may choose in Inception-v1 networks, and the family.

Layers that can be temporal are the blocks of a space: conv1 and conv2c are stage 0, the mixed blocks stages 1 to 3. A
cut counts them from 0: conv1, 2c, 3b, 3c, 4b to 4f, 5b, 5c.
"""

from __future__ import annotations

from typing import cast

from search_spaces.domains import At, Choice, Declared, Pick
from search_spaces.families.inception_domains import Layers, choices, frames, picked_op, read_frames
from search_spaces.families.inception_units import PADDINGS, SEPARABLE, Padding, Separable
from search_spaces.families.inception_v1_blocks import KINDS, WIDTHS
from search_spaces.families.inception_v1_presets import POOLS, PRESETS, STRIDES, UNITS, make_inception_v1
from search_spaces.families.inception_v1_spec import InceptionV1Spec
from search_spaces.families.labels import read_factor
from search_spaces.family import Family
from search_spaces.spec import KERNELS, Attention, TemporalOp

LAYERS = Layers(names=UNITS, counts=(2, *(len(stage) for stage in WIDTHS)))
_SAME = "same"


def _is_first(at: At) -> bool:
    return (at.stage, at.block) == (0, 0)


def _kind(at: At) -> object:
    own = at("stem_kind") if _is_first(at) else _SAME
    return at("kind") if own == _SAME else own


def _temporal(at: At) -> bool:
    return LAYERS.placed(at) and _kind(at) != "2d"


def _make(pick: Pick) -> InceptionV1Spec:
    first = pick("stem_kind")

    def op_at(unit: int) -> TemporalOp:
        if unit == 0:
            return picked_op(pick, LAYERS, 0, kind=None if first == _SAME else first, kernel="stem_kernel")
        return picked_op(pick, LAYERS, unit)

    return make_inception_v1(
        op_at,
        attention_at=lambda unit: cast(Attention, pick("attention", *LAYERS.place(unit))),
        width=float(pick("width")),
        strides=frames(pick("temporal_stride")),
        pools=frames(pick("pool_kernel")),
        all_branches=bool(pick("all_branches")),
        separable=cast(Separable, pick("separable")),
        norm_momentum=float(pick("norm_momentum")),
        padding=cast(Padding, pick("padding")),
    )


_WIDTH, _PLACEMENT, _CUT, *_OPERATOR = choices(
    LAYERS,
    KINDS,
    kind="3d",
    own_kind=lambda at: not _is_first(at) or at("stem_kind") in (None, _SAME),
    own_kernel=lambda at: not _is_first(at),
    attends=lambda at: not _is_first(at),
)
_WHAT = ("placement", "cut", "stem_kind", "kind")

DOMAINS = Declared(
    (
        _WIDTH,
        _PLACEMENT,
        _CUT,
        Choice(
            name="stem_kind",
            default=_SAME,
            valid=(_SAME, *KINDS),
            when=lambda at: _is_first(at) and LAYERS.placed(at),
            needs=("placement", "cut"),
        ),
        *_OPERATOR,
        Choice(
            name="stem_kernel",
            default=7,
            valid=KERNELS,
            when=lambda at: _is_first(at) and _temporal(at),
            needs=_WHAT,
        ),
        Choice(
            name="separable",
            default="norm_both",
            valid=SEPARABLE,
            when=lambda at: LAYERS.placed(at) and _kind(at) in (None, "p3d_a"),
            needs=_WHAT,
        ),
        Choice(
            name="all_branches",
            default=False,
            valid=(False, True),
            when=lambda at: at.stage > 0 and _temporal(at),
            needs=_WHAT,
        ),
        Choice(
            name="temporal_stride",
            default="-".join(map(str, STRIDES)),
            read=read_frames("temporal_stride", STRIDES, 4),
        ),
        Choice(name="pool_kernel", default="-".join(map(str, POOLS)), read=read_frames("pool_kernel", POOLS, 7)),
        Choice(name="norm_momentum", default=0.1, read=lambda value: read_factor("norm_momentum", value)),
        Choice(name="padding", default="symmetric", valid=PADDINGS),
    ),
    counts=lambda at: LAYERS.counts,
    make=_make,
)


def _sample() -> dict[str, object]:
    domains: dict[str, object] = {
        "width": [0.0625, 0.125],
        "placement": ["all", "none", "top_heavy", "bottom_heavy"],
        "cut": [0, 1, 4, 9, 11],
        "stem_kind": ["same", "3d"],
        "kind": {"values": list(KINDS), "per": "block"},
        "kernel": {"values": [1, 3, 5], "per": "stage"},
        "stem_kernel": [3, 7],
        "dilation": {"values": [1, 2, [1, 2]], "per": "stage"},
        "midplanes": ["per_conv", "equal"],
        "attention": {"values": ["none", "gate", "se", "nonlocal"], "per": "stage"},
        "separable": list(SEPARABLE),
        "all_branches": [False, True],
        "temporal_stride": ["as_paper", "none", "2-1-1-2-1"],
        "pool_kernel": ["as_paper", "none", "3-3-3-3"],
        "norm_momentum": [0.1, 0.001],
        "padding": list(PADDINGS),
    }
    return {"domains": domains}


FAMILY = Family(
    name="inception_v1",
    spec=InceptionV1Spec,
    domains=DOMAINS,
    presets=PRESETS,
    # With the temporal strides and pools as published, 8 frames of 32x32 leave one position, too few for attention.
    least_clip=(16, 32, 32),
    sample=_sample,
    usual={"cut": tuple(range(16))},
)
