"""Published networks of Tran et al. by name: the R(2+1)D family of 2018, channel-separated networks of 2019.

R(2+1)D: https://arxiv.org/abs/1711.11248; accuracies are those of the models that its authors released
(https://github.com/facebookresearch/VMZ), on Kinetics-400 with 10 clips of a video. Their norms add 1e-3 to the
variance. torchvision.models.video has three of them, which add 1e-5: its `r3d_18` and `mc3_18` have their names here,
and those of VMZ are `r3d_18_vmz` and `mc3_18_vmz`; its R(2+1)D, `_torchvision`, differs in the midplanes, too.
`r2plus1d_r50` is that of pytorchvideo, whose temporal convolution comes first.

CSN: https://arxiv.org/abs/1904.02811, "interaction-reduced": the 3x3x3 convolution of each bottleneck is depthwise;
`ip_csn_*` are "interaction-preserved", with a 1x1x1 before it. As released in VMZ, where a norm and no ReLU stands
between those two; `csn_r101_pytorchvideo` is that of pytorchvideo, whose norms add 1e-5.
"""

from __future__ import annotations

from functools import partial

from search_spaces.families.resnet.blocks import Stem
from search_spaces.families.resnet.make import DEPTHS, Extras, make_stem, of_depth, place, temporal_strides
from search_spaces.families.resnet.spec import ResNetSpec
from search_spaces.family import Preset, Published
from search_spaces.operators import FLAT, Kind, Midplanes, TemporalOp

PAPER = "Tran et al. 2018, A Closer Look at Spatiotemporal Convolutions for Action Recognition"
CSN_PAPER = "Tran et al. 2019, Video Classification with Channel-Separated Convolutional Networks"
VMZ = "models released by the authors, github.com/facebookresearch/VMZ"
PYTORCHVIDEO = "model zoo of pytorchvideo"
K400 = "Kinetics-400 val"
_VMZ = Extras(norm_eps=1e-3)
NAMES = ("r2d", "f_r2d", "mc2", "mc3", "mc4", "mc5", "rmc2", "rmc3", "rmc4", "rmc5", "r3d", "r2plus1d")

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


def _tran(frames: int, *, name: str, depth: int, midplanes: Midplanes = "per_conv", vmz: bool = True) -> ResNetSpec:
    label = {"r2d": "none", "f_r2d": "none", "r3d": "all", "r2plus1d": "all"}.get(name, name)
    placement = place(label, DEPTHS[depth][1])
    op = TemporalOp(kind="2plus1d" if name == "r2plus1d" else "3d", midplanes=midplanes)
    if name == "r2d":
        # All frames become planes of one: the kernel spans the clip, without padding.
        stem = Stem(width=64, temporal_kernel=frames, spatial_kernel=7, spatial_stride=2, temporal_padding=False)
    else:
        stem = make_stem("r2plus1d" if name == "r2plus1d" else "3x7x7", temporal=placement.stem)
    return of_depth(
        depth,
        stem=stem,
        op_at=lambda _s, _b, index: op if index in placement.blocks else FLAT,
        strides=partial(temporal_strides, "as_paper"),
        extras=_VMZ if vmz else Extras(),
    )


def _r2plus1d_r50(_frames: int) -> ResNetSpec:
    op = TemporalOp(kind="2plus1d", midplanes="equal", time_first=True)
    return of_depth(
        50,
        stem=make_stem("1x7x7"),
        op_at=lambda _s, _b, _index: op,
        strides=partial(temporal_strides, "1-1-2-2"),
        extras=Extras(first_stride=2, zero_init=True),
    )


def _csn(_frames: int, *, depth: int, kind: Kind = "csn", extras: Extras = _VMZ) -> ResNetSpec:
    op = TemporalOp(kind=kind)
    return of_depth(
        depth,
        stem=make_stem("3x7x7/2+max"),
        op_at=lambda _s, _b, _index: op,
        strides=partial(temporal_strides, "as_paper"),
        extras=extras,
    )


def _released(name: str, depth: int) -> tuple[Published, ...]:
    if depth != 18:
        return ()
    return tuple(
        Published(metric=metric, value=value, frames=frames, size=112, views=views, data=K400, source=VMZ)
        for frames, both in zip((8, 16), _VMZ_18[name], strict=True)
        for metric, views, value in zip(("clip top-1", "video top-1"), ("1 clip", "10 clips"), both, strict=True)
    )


def zoo(value: float, frames: int, *, size: int = 256, source: str = PYTORCHVIDEO) -> Published:
    """Returns a top-1 on Kinetics-400 of 10 clips with 3 crops each."""
    return Published(
        metric="video top-1",
        value=value,
        frames=frames,
        size=size,
        views="10 clips x 3 crops",
        data=K400,
        source=source,
    )


def _preset(name: str, depth: int, midplanes: Midplanes = "per_conv", *, vmz: bool = True) -> Preset:
    """The network of VMZ, or of torchvision, which has some of the names."""
    both = (name, depth) in (("r3d", 18), ("mc3", 18))
    suffix = "_vmz" if both and vmz else "_torchvision" if midplanes == "shared" else ""
    return Preset(
        name=f"{name}_{depth}{suffix}",
        family="resnet",
        paper=PAPER,
        year=2018,
        clip=(16 if depth == 18 else 32, 112, 112),
        published=_released(name, depth) if midplanes == "per_conv" else (),
        make=partial(_tran, name=name, depth=depth, midplanes=midplanes, vmz=vmz),
    )


def _csn_preset(
    depth: int, *published: Published, kind: Kind = "csn", suffix: str = "", extras: Extras = _VMZ
) -> Preset:
    return Preset(
        name=f"{'csn' if kind == 'csn' else 'ip_csn'}_r{depth}{suffix}",
        family="resnet",
        paper=CSN_PAPER,
        year=2019,
        clip=(32, 224, 224),
        published=published,
        make=partial(_csn, depth=depth, kind=kind, extras=extras),
    )


PRESETS = (
    *(
        entry
        for depth in (18, 34)
        for entry in (*(_preset(name, depth) for name in NAMES), _preset("r2plus1d", depth, "shared", vmz=False))
    ),
    _preset("r3d", 18, vmz=False),
    _preset("mc3", 18, vmz=False),
    Preset(
        name="r2plus1d_r50",
        family="resnet",
        paper=PAPER,
        year=2018,
        clip=(16, 224, 224),
        published=(zoo(76.01, 16),),
        make=_r2plus1d_r50,
    ),
    _csn_preset(50),
    _csn_preset(101),
    _csn_preset(101, zoo(77.0, 32), suffix="_pytorchvideo", extras=Extras(zero_init=True)),
    _csn_preset(
        152,
        Published(metric="video top-1", value=76.5, frames=32, size=224, views="not stated", data=K400, source=VMZ),
    ),
    *(_csn_preset(depth, kind="csn_ip") for depth in (50, 101, 152)),
)
