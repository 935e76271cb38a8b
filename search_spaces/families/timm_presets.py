"""The published networks that are image networks on clips."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from search_spaces.families.timm_known import NUM_STAGES
from search_spaces.families.timm_spec import (
    HeadKind,
    ShiftKind,
    ShiftPlace,
    TimmHead,
    TimmShift,
    TimmSpec,
    TimmStage,
)
from search_spaces.family import Preset, Published
from search_spaces.spec import FLAT, Kind, TemporalOp

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
        every: In every so-manieth block of a stage.
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
