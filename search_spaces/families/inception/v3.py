"""Inception-v3 as a family: its domains, and the published networks for clips.

Layers that can be temporal are the blocks of a space: conv1a, 2a, 2b and 4a are stage 0, the mixed blocks 1 to 3.
A cut counts them from 0: 1a, 2a, 2b, 4a, 5b, 5c, 5d, 6a to 6e, 7a to 7c.

- `inception_v3_2d`: torchvision's network frame by frame, the mean over frames before its classifier.
- `s3d_v3`: the report's, with separable convolutions (the pair 1x7, 7x1 becomes 1x1x7, 1x7x1, 7x1x1), the temporal
  strides of its table 1 and an auxiliary classifier. 5x5 becomes 1x5x5, 5x1x1, and 1x3, 3x1 become 1x1x3, 3x1x1 and
  1x3x1, 3x1x1, which the report does not spell out: as it does with 3 and 7, a kernel of n pixels gets n frames.
- `s3d_v3_inflated`: with the pairs inflated to 7x1x7, 7x7x1, the report's future work.
- `s3d_v3_top_heavy_5c`, `s3d_v3_top_heavy_6a`: the report's second network, which is 2D below "layer 9" and keeps the
  temporal strides and pools there. Counting from conv1a with the pools, layer 9 is block 5c; without them, it is the
  first reduction, 6a. (Neither has "almost half" of the parameters of `s3d_v3`, nor has that "almost twice as many" as
  `s3d_v1`: with five classes it has 4.2 times as many, those of the auxiliary classifier included.)
- `i3d_v3`: every kernel of n pixels inflated to n frames.

The first pools of `s3d_v3` and its reductions see three frames, as in table 1; the pools inside blocks see as the
block does, three where it has time and one where it is 2D, so that a network without both sees each frame alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Literal, cast

from search_spaces.domains import ANY_SCOPE, At, Choice, Declared, Pick
from search_spaces.families.inception.domains import Layers, choices, frames, picked_op, read_frames
from search_spaces.families.inception.units import FramePool, canonical
from search_spaces.families.inception.v3_blocks import (
    KINDS,
    PADDINGS,
    PAIRED,
    PAIRS,
    REACHES,
    REDUCTIONS,
    Layer,
    Mixed,
    MixedKind,
    Padding,
    Pair,
    Reach,
    Stage,
)
from search_spaces.families.inception.v3_spec import BLOCKS, STEM_NAMES, Aux, InceptionV3Spec, Stem, name
from search_spaces.family import Family, Preset, Published
from search_spaces.operators import FLAT, Attention, Kind, TemporalOp
from search_spaces.spec import scale

InnerPool = Literal["as_block", "2d", "3d"]
INNER_POOLS: tuple[InnerPool, ...] = ("as_block", "2d", "3d")
# Of conv1a, the stem's pools and the two reductions; and temporal kernels of the stem's pools.
STRIDES = (2, 2, 2, 2, 2)
POOLS = (3, 3)
# Layers that can be temporal, as cuts count them.
UNITS = (*STEM_NAMES, *(name(s, b) for s, stage in enumerate(BLOCKS) for b in range(len(stage))))
INCEPTION = "Szegedy et al. 2016, Rethinking the Inception Architecture for Computer Vision"
REPORT = "Gupta, Dharmaraj and Hayes, Reproducing Action Recognition Experiments with Modern Classification Networks"


def make_inception_v3(
    op_at: Callable[[int], TemporalOp],
    *,
    pair_at: Callable[[int], Pair] = lambda unit: "appended",
    attention_at: Callable[[int], Attention] = lambda unit: "none",
    reach: Reach = "spatial",
    width: float = 1.0,
    strides: Sequence[int] = STRIDES,
    pools: Sequence[int] = POOLS,
    inner_pool: InnerPool = "as_block",
    stem_padding: Padding = "same",
    reduction_padding: Padding = "valid",
    aux: bool = True,
) -> InceptionV3Spec:
    """Returns a canonical spec.

    Args:
        op_at: From the index of a layer in `UNITS` to its operator.
        pair_at: The same for how pairs of 1x7 and 7x1 get time.
        attention_at: The same for attention, behind conv4a and blocks.
        reach: Temporal kernel of convolutions of 5 and 7 pixels.
        width: Multiplier of all widths.
        strides: Over frames, of conv1a, the stem's pools and the reductions.
        pools: Temporal kernels of the stem's pools.
        inner_pool: Frames of pools inside blocks: three where the block has time, one, or three.
        stem_padding: Of the stem.
        reduction_padding: Of the reductions.
        aux: Whether there is an auxiliary classifier.
    """
    unit, stages = len(STEM_NAMES), []
    for s, stage in enumerate(BLOCKS):
        blocks = []
        for kind, widths in stage:
            stride = strides[s + 2] if kind in REDUCTIONS else 1
            settings = (op_at(unit), pair_at(unit), reach, inner_pool, stride, reduction_padding, attention_at(unit))
            blocks.append(_block(kind, widths, width, *settings))
            unit += 1
        stages.append(Stage(blocks=tuple(blocks)))
    layer = partial(_layer, width=width)
    return InceptionV3Spec(
        stem=Stem(
            conv1a=layer(32, op_at(0), strides[0]),
            conv2a=layer(32, op_at(1), 1),
            conv2b=layer(64, op_at(2), 1),
            pool1=_frames(pools[0], strides[1]),
            conv3b=scale(80, width),
            conv4a=layer(192, op_at(3), 1),
            pool2=_frames(pools[1], strides[2]),
            padding=stem_padding,
            attention=attention_at(3),
        ),
        stages=tuple(stages),
        aux=Aux(width=scale(128, width), features=scale(768, width)) if aux else None,
    ).canonical()


@lru_cache(maxsize=4096)
def _layer(planes: int, op: TemporalOp, stride: int, *, width: float) -> Layer:
    return Layer(width=scale(planes, width), temporal=op, temporal_stride=stride)


@lru_cache(maxsize=1024)
def _frames(kernel: int, stride: int) -> FramePool:
    return FramePool(kernel=kernel, stride=stride)


@lru_cache(maxsize=65536)
def _block(
    kind: MixedKind,
    widths: tuple[int, ...],
    width: float,
    op: TemporalOp,
    pair: Pair,
    reach: Reach,
    inner_pool: InnerPool,
    stride: int,
    padding: Padding,
    attention: Attention,
) -> Mixed:
    has_time = canonical(op) != FLAT and not (kind == "type2" and pair == "none")
    return Mixed(
        kind=kind,
        widths=tuple(scale(w, width) for w in widths),
        temporal=op,
        pair=pair,
        reach=reach,
        pool_kernel=3 if inner_pool == "3d" or (inner_pool == "as_block" and has_time) else 1,
        temporal_stride=stride,
        padding=padding,
        attention=attention,
    )


def _frame_by_frame(frames: int) -> InceptionV3Spec:
    return make_inception_v3(lambda unit: FLAT, strides=(1,) * 5, pools=(1, 1), stem_padding="valid", aux=False)


def _report(frames: int, *, kind: Kind = "p3d_a", pair: Pair = "appended", first: str = "1a") -> InceptionV3Spec:
    cut, op = UNITS.index(first), TemporalOp(kind=kind)
    return make_inception_v3(lambda unit: op if unit >= cut else FLAT, pair_at=lambda unit: pair)


def _preset(
    named: str,
    paper: str,
    year: int,
    clip: tuple[int, int, int],
    make: Callable[[int], InceptionV3Spec],
    *cited: Published,
) -> Preset:
    return Preset(name=named, family="inception_v3", paper=paper, year=year, clip=clip, make=make, published=cited)


_IMAGENET = Published(
    metric="top-1",
    value=77.294,
    frames=1,
    size=299,
    views="1 crop",
    data="ImageNet-1K val (images)",
    source="torchvision, Inception_V3_Weights.IMAGENET1K_V1",
)
_CLIP = (64, 224, 224)

PRESETS: tuple[Preset, ...] = (
    _preset("inception_v3_2d", INCEPTION, 2016, (1, 299, 299), _frame_by_frame, _IMAGENET),
    _preset("s3d_v3", REPORT, 2018, _CLIP, _report),
    _preset("s3d_v3_inflated", REPORT, 2018, _CLIP, partial(_report, pair="inflated")),
    _preset("s3d_v3_top_heavy_5c", REPORT, 2018, _CLIP, partial(_report, first="5c")),
    _preset("s3d_v3_top_heavy_6a", REPORT, 2018, _CLIP, partial(_report, first="6a")),
    _preset("i3d_v3", REPORT, 2018, _CLIP, partial(_report, kind="3d", pair="inflated")),
)


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
