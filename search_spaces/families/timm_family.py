"""Image networks of timm as a family: its domains, and the published networks.

Accuracies of TSN, TSM and TIN are those of Zhang et al. 2019, "Team Efficient Multi-Moments in Time Challenge 2019
Technical Report", table 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import cast

from search_spaces.domains import At, Choice, Declared, Pick, Scalar
from search_spaces.families.labels import dilations, read_count, read_dilation
from search_spaces.families.timm_known import NUM_STAGES, TIMM_KINDS, stages_for, ways
from search_spaces.families.timm_presets import PRESETS
from search_spaces.families.timm_spec import (
    FRAME_HEADS,
    HEADS,
    RELATIONS,
    SHIFT_PLACES,
    SHIFTS,
    HeadKind,
    ShiftKind,
    ShiftPlace,
    TimmHead,
    TimmShift,
    TimmSpec,
    TimmStage,
    check_name,
)
from search_spaces.family import Family
from search_spaces.spec import ATTENTIONS, FLAT, KERNELS, POINTWISE_KINDS, Attention, Kind, SpecError, TemporalOp

_STAGE = ("network", "stage")


def _read_model(value: Scalar) -> Scalar:
    if not isinstance(value, str):
        raise SpecError(f"model must be a name of timm, such as resnet50, but is {value}")
    check_name(value)
    return value


def _read_std(value: Scalar) -> Scalar:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise SpecError(f"head_std must be a number of 0 to 1, but is {value}")
    return float(value)


def _is_chain(at: At) -> bool:
    model = at("model")
    known = None if model is None else ways(str(model))
    return known is None or known.chain


def _kind_fits(kind: Scalar, at: At) -> bool:
    model = at("model")
    known = None if model is None else ways(str(model))
    if known is None or kind == "2d":
        return True
    return bool(known.pointwise if kind in POINTWISE_KINDS else known.spatial)


def _shift_fits(shift: Scalar, at: At) -> bool:
    model = at("model")
    known = None if model is None else ways(str(model))
    return shift == "none" or known is None or known.shift


def _has_convolutions(at: At) -> bool:
    """Whether a network that is known has convolutions at a stage, for any kind."""
    model = at("model")
    known = None if model is None else ways(str(model))
    return known is None or at.stage in known.spatial or at.stage in known.pointwise


def _is_placed(at: At) -> bool:
    placement, cut = at("placement"), at("cut")
    if placement is None or cut is None:
        return True
    return (at.stage >= int(cut)) == (placement == "top_heavy")


def _is_temporal(at: At) -> bool:
    return _has_convolutions(at) and _is_placed(at) and at("kind") != "2d"


def _has_time_before(at: At) -> bool:
    return _is_chain(at) and at.stage > 0 and _has_convolutions(at)


def _make(pick: Pick) -> TimmSpec:
    model = str(pick("model"))
    placement, cut = pick("placement"), int(pick("cut"))
    stages = []
    for s in range(NUM_STAGES):
        kind = cast(Kind, pick("kind", s))
        op = FLAT
        if (s >= cut) == (placement == "top_heavy") and s in stages_for(model, kind):
            op = TemporalOp(kind=kind, kernel=cast(int, pick("kernel", s)), dilation=dilations(pick("dilation", s)))
        known = ways(model)
        first = 0 if known is None or not known.spatial else known.spatial[0]
        stages.append(
            TimmStage(
                temporal=op,
                pool=cast(int, pick("time_pool", s)) if s > first else 1,
                attention=cast(Attention, pick("attention", s)) if s >= first else "none",
            )
        )
    return TimmSpec(
        model=model,
        frames=cast(int, pick("frames")),
        stages=tuple(stages),
        shift=TimmShift(
            kind=cast(ShiftKind, pick("shift")),
            every=cast(int, pick("shift_every")),
            share=cast(int, pick("shift_share")),
            place=cast(ShiftPlace, pick("shift_place")),
        ),
        head=TimmHead(
            kind=cast(HeadKind, pick("head")), width=cast(int, pick("head_width")), std=float(pick("head_std"))
        ),
    ).canonical()


DOMAINS = Declared(
    (
        Choice(name="model", default="resnet50", read=_read_model),
        Choice(name="shift", default="none", valid=SHIFTS, fits=_shift_fits, needs=("model",)),
        Choice(
            name="shift_every",
            default=1,
            valid=(1, 2, 3, 4),
            when=lambda at: at("shift") != "none",
            needs=("shift",),
        ),
        Choice(
            name="shift_share",
            default=8,
            valid=(4, 8, 16),
            when=lambda at: at("shift") in ("tsm", None),
            needs=("shift",),
        ),
        Choice(
            name="shift_place",
            default="residual",
            valid=SHIFT_PLACES,
            when=lambda at: at("shift") in ("tsm", None),
            needs=("shift",),
        ),
        Choice(name="head", default="average", valid=HEADS),
        Choice(
            name="head_width",
            default=256,
            read=partial(read_count, "head_width"),
            when=lambda at: at("head") != "average",
            needs=("head",),
        ),
        Choice(
            name="head_std",
            default=0.0,
            read=_read_std,
            when=lambda at: at("head") in (*FRAME_HEADS, None),
            needs=("head",),
        ),
        Choice(
            name="frames",
            default=8,
            read=partial(read_count, "frames"),
            when=lambda at: at("head") in (*RELATIONS, None) or at("shift") in ("tin", None),
            needs=("head", "shift"),
        ),
        Choice(
            name="kind",
            default="2d",
            valid=TIMM_KINDS,
            per=_STAGE,
            when=_has_convolutions,
            fits=_kind_fits,
            needs=("model",),
        ),
        Choice(name="placement", default="top_heavy", valid=("top_heavy", "bottom_heavy")),
        Choice(
            name="cut",
            default=0,
            valid=tuple(range(NUM_STAGES + 1)),
            when=lambda at: at("kind") != "2d",
            needs=("kind",),
        ),
        Choice(
            name="kernel",
            default=3,
            valid=KERNELS,
            per=_STAGE,
            when=_is_temporal,
            needs=("model", "kind", "placement", "cut"),
        ),
        Choice(
            name="dilation",
            default=1,
            read=partial(read_dilation, "dilation"),
            per=_STAGE,
            when=lambda at: _is_temporal(at) and at("kernel") != 1,
            needs=("model", "kind", "placement", "cut", "kernel"),
        ),
        Choice(name="time_pool", default=1, valid=(1, 2), per=_STAGE, when=_has_time_before, needs=("model",)),
        Choice(name="attention", default="none", valid=ATTENTIONS, per=_STAGE, when=_is_chain, needs=("model",)),
    ),
    counts=lambda at: (1,) * NUM_STAGES,
    make=_make,
)


def _check(values: Mapping[str, tuple[Scalar, ...]]) -> None:
    """Raises SpecError, with the nearest names, for a model that timm does not have."""
    from search_spaces.families.timm_trace import check_model

    for model in values.get("model", ()):
        check_model(str(model))


FAMILY = Family(
    name="timm",
    check=_check,
    spec=TimmSpec,
    domains=DOMAINS,
    presets=PRESETS,
    least_clip=(8, 32, 32),
    sample=lambda: {
        "domains": {
            "model": ["resnet18", "mobilenetv3_small_050", "convnext_atto", "regnetx_002"],
            "shift": list(SHIFTS),
            "shift_every": [1, 2],
            "shift_share": [4, 8],
            "shift_place": list(SHIFT_PLACES),
            "head": list(HEADS),
            "head_width": [8, 16],
            "head_std": [0.0, 0.001],
            "frames": [8],
            "kind": {"values": ["2d", "3d", "2plus1d", "p3d_a", "p3d_b", "p3d_c"], "per": "stage"},
            "placement": ["top_heavy", "bottom_heavy"],
            "cut": [0, 2, 4],
            "kernel": [1, 3, 5],
            "dilation": {"values": [1, 2, [1, 2]], "per": "stage"},
            "time_pool": {"values": [1, 2], "per": "stage"},
            "attention": {"values": list(ATTENTIONS), "per": "stage"},
        },
        # With a single frame left, what relates frames has nothing to learn.
        "forbid": [{"time_pool": 2, "head": [*RELATIONS, "lstm", "attention"]}],
    },
)
