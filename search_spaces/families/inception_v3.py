"""What a search may choose in Inception-v3 networks, and the family.

Layers that can be temporal are the blocks of a space: conv1a, 2a, 2b and 4a are stage 0, the mixed blocks 1 to 3.
A cut counts them from 0: 1a, 2a, 2b, 4a, 5b, 5c, 5d, 6a to 6e, 7a to 7c.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from search_spaces.domains import ANY_SCOPE, At, Choice, Declared, Pick
from search_spaces.families.inception_domains import Layers, choices, frames, picked_op, read_frames
from search_spaces.families.inception_v3_blocks import (
    KINDS,
    PADDINGS,
    PAIRED,
    PAIRS,
    REACHES,
    Padding,
    Pair,
    Reach,
)
from search_spaces.families.inception_v3_presets import (
    INNER_POOLS,
    POOLS,
    PRESETS,
    STRIDES,
    UNITS,
    InnerPool,
    make_inception_v3,
)
from search_spaces.families.inception_v3_show import BLOCKS, STEM_NAMES
from search_spaces.families.inception_v3_spec import InceptionV3Spec
from search_spaces.family import Family
from search_spaces.spec import Attention

LAYERS = Layers(names=UNITS, counts=(len(STEM_NAMES), *(len(stage) for stage in BLOCKS)))


def _block_kind(at: At) -> str:
    return BLOCKS[at.stage - 1][at.block][0] if at.stage > 0 else "stem"


def _temporal(at: At) -> bool:
    return LAYERS.placed(at) and at("kind") != "2d"


def _paired(at: At) -> bool:
    return _temporal(at) and _block_kind(at) in PAIRED


def _wide(at: At) -> bool:
    return _temporal(at) and (
        _block_kind(at) == "type1"
        or (_block_kind(at) in PAIRED and at("pair") in (None, "appended", "inflated", "each"))
    )


def _own_kernel(at: At) -> bool:
    # The size of a pair is its temporal kernel, unless the kernel is 1, which makes a block 2D.
    return _temporal(at) and not (_block_kind(at) == "type2" and at("pair") == "none")


def _make(pick: Pick) -> InceptionV3Spec:
    return make_inception_v3(
        lambda unit: picked_op(pick, LAYERS, unit),
        pair_at=lambda unit: cast(Pair, pick("pair", *LAYERS.place(unit))),
        attention_at=lambda unit: cast(Attention, pick("attention", *LAYERS.place(unit))),
        reach=cast(Reach, pick("reach")),
        width=float(pick("width")),
        strides=frames(pick("temporal_stride")),
        pools=frames(pick("pool_kernel")),
        inner_pool=cast(InnerPool, pick("inner_pool")),
        stem_padding=cast(Padding, pick("stem_padding")),
        reduction_padding=cast(Padding, pick("reduction_padding")),
        aux=bool(pick("aux")),
    )


_WIDTH, _PLACEMENT, _CUT, _KIND, _KERNEL, *_REST = choices(
    LAYERS,
    KINDS,
    kind="p3d_a",
    # Behind the stem's last layer, and in blocks.
    attends=lambda at: at.stage > 0 or at.block == LAYERS.counts[0] - 1,
)
_WHAT = ("placement", "cut", "kind")

DOMAINS = Declared(
    (
        _WIDTH,
        _PLACEMENT,
        _CUT,
        _KIND,
        Choice(name="pair", default="appended", valid=PAIRS, per=ANY_SCOPE, when=_paired, needs=_WHAT),
        Choice(name="reach", default="spatial", valid=REACHES, when=_wide, needs=(*_WHAT, "pair")),
        replace(_KERNEL, when=_own_kernel, needs=(*_WHAT, "pair")),
        *_REST,
        Choice(
            name="temporal_stride",
            default="-".join(map(str, STRIDES)),
            read=read_frames("temporal_stride", STRIDES, 4),
        ),
        Choice(name="pool_kernel", default="-".join(map(str, POOLS)), read=read_frames("pool_kernel", POOLS, 7)),
        Choice(name="inner_pool", default="as_block", valid=INNER_POOLS),
        Choice(name="stem_padding", default="same", valid=PADDINGS),
        Choice(name="reduction_padding", default="valid", valid=PADDINGS),
        Choice(name="aux", default=True, valid=(True, False)),
    ),
    counts=lambda at: LAYERS.counts,
    make=_make,
)


def _sample() -> dict[str, object]:
    domains: dict[str, object] = {
        "width": [0.0625, 0.125],
        "placement": ["all", "none", "top_heavy", "bottom_heavy"],
        "cut": [0, 2, 5, 7, 12, 15],
        "kind": {"values": list(KINDS), "per": "stage"},
        "pair": {"values": list(PAIRS), "per": "block"},
        "reach": list(REACHES),
        "kernel": {"values": [1, 3, 5], "per": "stage"},
        "dilation": {"values": [1, 2, [1, 2]], "per": "stage"},
        "midplanes": ["per_conv", "equal"],
        "attention": {"values": ["none", "gate", "se", "nonlocal"], "per": "stage"},
        "temporal_stride": ["none", "1-2-1-1-1", "2-1-2-1-1", "1-1-1-2-1"],
        "pool_kernel": ["none", "3-3", "1-3"],
        "inner_pool": list(INNER_POOLS),
        "stem_padding": ["same"],
        "reduction_padding": ["same", "valid"],
        "aux": [True, False],
    }
    return {"domains": domains}


# Reductions as published take clips of at least 49x49, 75x75 without padding in the stem; the temporal strides as
# published need 49 frames.
FAMILY = Family(
    name="inception_v3",
    spec=InceptionV3Spec,
    domains=DOMAINS,
    presets=PRESETS,
    least_clip=(8, 49, 49),
    sample=_sample,
    usual={"cut": tuple(range(16))},
)
