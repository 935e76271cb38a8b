"""Image networks of timm as a family: its domains, and the published networks.

Accuracies of TSN, TSM and TIN are those of Zhang et al. 2019, "Team Efficient Multi-Moments in Time Challenge 2019
Technical Report", table 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

from search_spaces.domains import At, Choice, Declared, Pick, Scalar
from search_spaces.errors import SpecError
from search_spaces.families.labels import dilations, read_count, read_dilation
from search_spaces.families.timm.anatomy import stages_for
from search_spaces.families.timm.known import NUM_STAGES, TIMM_KINDS, ways
from search_spaces.families.timm.spec import (
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
from search_spaces.family import Family, Preset, Published
from search_spaces.operators import ATTENTIONS, FLAT, KERNELS, POINTWISE_KINDS, Attention, Kind, TemporalOp

TSN = "Wang et al. 2016, Temporal Segment Networks: Towards Good Practices for Deep Action Recognition"
TRN = "Zhou et al. 2018, Temporal Relational Reasoning in Videos"
TSM = "Lin et al. 2019, TSM: Temporal Shift Module for Efficient Video Understanding"
TIN = "Shao et al. 2020, Temporal Interlacing Network"
I3D = "Carreira and Zisserman 2017, Quo Vadis, Action Recognition? (section 2.4: inflation of image networks)"
REPORT = "Zhang et al. 2019, Team Efficient Multi-Moments in Time Challenge 2019 Technical Report"


def make_timm(
    model: str,
    *,
    frames: int = 8,
    shift: ShiftKind = "none",
    every: int = 1,
    place: ShiftPlace = "residual",
    head: HeadKind = "average",
    std: float = 0.0,
    kind: Kind = "2d",
    placed: tuple[int, ...] = (),
    pools: tuple[int, ...] = (),
) -> TimmSpec:
    """Returns a canonical spec.

    Args:
        model: timm's name.
        frames: Frames of a clip, for TIN and TRN.
        shift: What moves features between frames.
        every: Step between the blocks of a stage that shift, such as 2 for every other one.
        place: Where TSM shifts.
        head: From frames to logits.
        std: Of the first values of the head's layer on a frame's features; see `TimmHead`.
        kind: Temporal kind of the placed stages.
        placed: Stages whose convolutions take time.
        pools: Stages with a max pool of two frames before them.
    """
    op = FLAT if kind == "2d" else TemporalOp(kind=kind)
    stages = tuple(
        TimmStage(temporal=op if s in placed else FLAT, pool=2 if s in pools else 1) for s in range(NUM_STAGES)
    )
    return TimmSpec(
        model=model,
        frames=frames,
        stages=stages,
        shift=TimmShift(kind=shift, every=every, place=place),
        head=TimmHead(kind=head, std=std),
    ).canonical()


# What the authors' code of TSN, TRN, TSM and TIN have in common.
_segments = partial(make_timm, std=0.001)


def _tsn(name: str, model: str, published: tuple[Published, ...] = (), *, size: int = 224) -> Preset:
    return _preset(name, TSN, 2016, lambda frames: _segments(model), published, size=size)


def _inflated(name: str, model: str, *, first: int = 0) -> Preset:
    """A network whose convolutions larger than 1x1 all take time, from a first stage on."""
    return _preset(name, I3D, 2017, lambda frames: make_timm(model, kind="3d", placed=tuple(range(first, NUM_STAGES))))


def _preset(
    name: str,
    paper: str,
    year: int,
    make: Callable[[int], TimmSpec],
    published: tuple[Published, ...] = (),
    *,
    size: int = 224,
) -> Preset:
    return Preset(
        name=name, family="timm", paper=paper, year=year, clip=(8, size, size), make=make, published=published
    )


def _mmit(value: float, frames: int) -> Published:
    return Published(
        metric="mAP",
        value=value,
        frames=frames,
        size=224,
        views="1 clip",
        data="Multi-Moments in Time, validation",
        source=f"{REPORT}, table 1",
    )


PRESETS: tuple[Preset, ...] = (
    _tsn("tsn_r18", "resnet18"),
    _tsn("tsn_mobilenetv2", "mobilenetv2_100"),
    _tsn("tsn_mobilenetv3", "mobilenetv3_large_100"),
    _tsn("tsn_r50", "resnet50"),
    _tsn("tsn_r101", "resnet101", (_mmit(58.92, 5),)),
    _tsn("tsn_senet154", "legacy_senet154", (_mmit(53.19, 5),)),
    _tsn("tsn_inception_resnet_v2", "inception_resnet_v2", (_mmit(57.45, 5),)),
    _tsn("tsn_inception_v3", "inception_v3", size=299),
    _tsn("tsn_efficientnet_b0", "efficientnet_b0"),
    _tsn("tsn_regnety_016", "regnety_016"),
    _tsn("tsn_densenet121", "densenet121"),
    _tsn("tsn_convnext_tiny", "convnext_tiny"),
    _preset("trn_r50", TRN, 2018, lambda frames: _segments("resnet50", frames=frames, head="trn")),
    _preset("trn_single_r50", TRN, 2018, lambda frames: _segments("resnet50", frames=frames, head="trn_single")),
    _preset(
        "tsm_r50", TSM, 2019, lambda frames: _segments("resnet50", shift="tsm"), (_mmit(59.85, 8), _mmit(61.12, 16))
    ),
    _preset("tsm_r50_block", TSM, 2019, lambda frames: _segments("resnet50", shift="tsm", place="block")),
    _preset("tsm_r101", TSM, 2019, lambda frames: _segments("resnet101", shift="tsm", every=2), (_mmit(61.06, 8),)),
    _preset("tsm_mobilenetv2", TSM, 2019, lambda frames: _segments("mobilenetv2_100", shift="tsm")),
    _preset("tin_r50", TIN, 2020, lambda frames: _segments("resnet50", frames=frames, shift="tin"), (_mmit(62.23, 8),)),
    _preset(
        "tin_r101",
        TIN,
        2020,
        lambda frames: _segments("resnet101", frames=frames, shift="tin"),
        (_mmit(62.22, 8), _mmit(62.49, 16)),
    ),
    _inflated("inflated_r50", "resnet50"),
    _inflated("inflated_seresnet50", "seresnet50"),
    _inflated("inflated_regnety_016", "regnety_016"),
    _inflated("inflated_densenet121", "densenet121"),
    _inflated("inflated_convnext_tiny", "convnext_tiny", first=1),
    _inflated("inflated_mobilenetv2", "mobilenetv2_100"),
    _inflated("inflated_mobilenetv3", "mobilenetv3_large_100"),
    _inflated("inflated_efficientnet_b0", "efficientnet_b0"),
)


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
    from search_spaces.families.timm.trace import check_model

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
