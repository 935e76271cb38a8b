"""Published networks by name, as specs.

R(2+1)D family: Tran et al. 2018, https://arxiv.org/abs/1711.11248; accuracies are those of the models that
its authors released (https://github.com/facebookresearch/VMZ), on Kinetics-400 with 10 clips of a video. The
`_torchvision` networks are those of torchvision.models.video, which differ in the midplanes of (2+1)D.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from search_spaces.resnet_specs import DEPTHS, make_resnet, make_stem, place, temporal_strides
from search_spaces.spec import ArchSpec, Midplanes, SpecError, Stem, TemporalOp, nearest

PAPER = "Tran et al. 2018, A Closer Look at Spatiotemporal Convolutions for Action Recognition"
FAMILY = ("r2d", "f_r2d", "mc2", "mc3", "mc4", "mc5", "rmc2", "rmc3", "rmc4", "rmc5", "r3d", "r2plus1d")


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """An accuracy that others measured.

    Attributes:
        clip_top1: Top-1 of single clips, in percent.
        video_top1: Top-1 of videos, in percent.
        frames: Frames of a clip.
        size: Rows and columns of a clip, in pixels.
        views: Clips of a video whose scores are averaged.
        data: Data set.
        source: Who says so.
    """

    clip_top1: float
    video_top1: float
    frames: int
    size: int
    views: int
    data: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """A published network.

    Attributes:
        name: How it is asked for.
        family: Family in the catalogue.
        paper: Where it was published.
        year: When.
        published: Accuracies to cite; empty where its authors gave none that is comparable.
        make: From frames of a clip to the spec. Only R2D's depends on them.
    """

    name: str
    family: str
    paper: str
    year: int
    published: tuple[Published, ...]
    make: Callable[[int], ArchSpec]


def preset(name: str, *, frames: int = 16) -> ArchSpec:
    """Returns a published network's spec.

    Args:
        name: Its name in `PRESETS`.
        frames: Frames of the clips that it will see.

    Raises:
        SpecError: There is no such network (the message names the nearest), or frames is below 1.
    """
    if name not in PRESETS:
        raise SpecError(f"there is no network {name}{nearest(name, PRESETS)}")
    if frames < 1:
        raise SpecError(f"frames must be at least 1, but is {frames}")
    return PRESETS[name].make(frames)


def _tran(frames: int, *, name: str, depth: int, midplanes: Midplanes = "per_conv") -> ArchSpec:
    kind, counts = DEPTHS[depth]
    label = {"r2d": "none", "f_r2d": "none", "r3d": "all", "r2plus1d": "all"}.get(name, name)
    placement = place(label, counts)
    op = TemporalOp(kind="2plus1d" if name == "r2plus1d" else "3d", midplanes=midplanes)
    flat = TemporalOp(kind="2d")
    if name == "r2d":
        # All frames become planes of one: the kernel spans the clip, without padding.
        stem = Stem(width=64, temporal_kernel=frames, spatial_kernel=7, spatial_stride=2, temporal_padding=False)
    else:
        stem = make_stem("r2plus1d" if name == "r2plus1d" else "3x7x7", temporal=placement.stem)
    return make_resnet(
        kind=kind,
        counts=counts,
        widths=(64, 128, 256, 512),
        stem=stem,
        op_at=lambda _s, _b, index: op if index in placement.blocks else flat,
        strides=partial(temporal_strides, "as_paper"),
    )


# Clip top-1 and video top-1, of 8 and of 16 frames.
_VMZ_18: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "r2d": ((47.0, 60.0), (47.5, 59.4)),
    "f_r2d": ((48.5, 60.0), (50.7, 60.9)),
    "mc2": ((50.6, 63.0), (53.6, 64.8)),
    "mc3": ((51.1, 63.3), (54.1, 65.2)),
    "mc4": ((50.9, 63.0), (54.3, 65.6)),
    "mc5": ((50.7, 62.9), (54.1, 65.6)),
    "rmc2": ((50.2, 62.7), (53.5, 65.4)),
    "rmc3": ((50.2, 62.8), (53.6, 65.5)),
    "rmc4": ((50.3, 62.8), (53.9, 65.6)),
    "rmc5": ((49.7, 61.6), (52.5, 63.5)),
    "r3d": ((49.8, 62.3), (52.9, 64.7)),
    "r2plus1d": ((53.2, 65.3), (57.3, 68.5)),
}


def _citations(name: str, depth: int) -> tuple[Published, ...]:
    if depth != 18:
        return ()
    return tuple(
        Published(
            clip_top1=clip,
            video_top1=video,
            frames=frames,
            size=112,
            views=10,
            data="Kinetics-400 val",
            source="models released by the authors, github.com/facebookresearch/VMZ",
        )
        for frames, (clip, video) in zip((8, 16), _VMZ_18[name], strict=True)
    )


def _preset(name: str, depth: int, midplanes: Midplanes = "per_conv") -> Preset:
    return Preset(
        name=f"{name}_{depth}" + ("_torchvision" if midplanes == "shared" else ""),
        family="resnet",
        paper=PAPER,
        year=2018,
        published=_citations(name, depth) if midplanes == "per_conv" else (),
        make=partial(_tran, name=name, depth=depth, midplanes=midplanes),
    )


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        p.name: p
        for depth in (18, 34)
        for p in (*(_preset(name, depth) for name in FAMILY), _preset("r2plus1d", depth, "shared"))
    }
)
