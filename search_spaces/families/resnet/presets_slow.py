"""Published residual networks of one pathway by name: C2D, I3D, non-local I3D, Slow-only and Fast-only.

C2D and I3D on ResNet-50: Wang et al. 2018, "Non-local Neural Networks" (https://arxiv.org/abs/1711.07971), as released
in the SlowFast code and in pytorchvideo. All begin with a weight of 0 in the last norm of every residual branch, as
their configurations say (`ZERO_INIT_FINAL_BN`). The pathways of Feichtenhofer et al. 2019, "SlowFast Networks for Video
Recognition" (https://arxiv.org/abs/1812.03982), each by itself. All have time in the first 1x1x1 of a bottleneck.

`fast_*_wide` is the fast pathway without its reduction of planes: that of team Efficient in the Multi-Moments in Time
challenge of 2019, whose networks had 101 layers and saw clips of 112 pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from search_spaces.families.resnet.make import Extras, make_stem, of_depth
from search_spaces.families.resnet.presets_tran import zoo
from search_spaces.families.resnet.spec import ResNetSpec
from search_spaces.family import Preset, Published
from search_spaces.operators import FLAT, TemporalOp

WANG = "Wang et al. 2018, Non-local Neural Networks"
SLOWFAST = "Feichtenhofer et al. 2019, SlowFast Networks for Video Recognition"
REPORT = "Zhang et al. 2019, Team Efficient Multi-Moments in Time Challenge 2019 Technical Report"

_OP = TemporalOp(kind="t1x1_first")
# The 1x1 convolutions of I3D that have time, every other one; all of the first stage.
_I3D = (lambda b: True, lambda b: b % 2 == 0, lambda b: b % 2 == 0, lambda b: b % 2 == 1)
# Non-local blocks stand behind these blocks of the second and third stage.
_NON_LOCAL = ((), (1, 3), (1, 3, 5), ())


def _c2d(_frames: int) -> ResNetSpec:
    return of_depth(
        50,
        stem=make_stem("1x7x7/2+max"),
        op_at=lambda _s, _b, _index: FLAT,
        extras=Extras(pools=(2, 1, 1, 1), zero_init=True),
    )


def _i3d(_frames: int, *, non_local: bool) -> ResNetSpec:
    return of_depth(
        50,
        stem=make_stem("5x7x7/2+max"),
        op_at=lambda s, b, _index: _OP if _I3D[s](b) else FLAT,
        extras=Extras(
            pools=(2, 1, 1, 1),
            attention=lambda s, b: "nonlocal" if non_local and b in _NON_LOCAL[s] else "none",
            zero_init=True,
        ),
    )


def _slow(_frames: int, *, depth: int) -> ResNetSpec:
    return of_depth(
        depth,
        stem=make_stem("1x7x7/2+max"),
        op_at=lambda s, _b, _index: _OP if s >= 2 else FLAT,
        extras=Extras(zero_init=True),
    )


def _fast(_frames: int, *, depth: int, width: int) -> ResNetSpec:
    return of_depth(
        depth,
        width=width,
        stem=make_stem("5x7x7/2+max", width=width),
        op_at=lambda _s, _b, _index: _OP,
        extras=Extras(zero_init=True),
    )


def _moments(row: str, value: float, frames: int) -> Published:
    """A row of the report's table, whose networks are called by frames and the distance of these."""
    return Published(
        metric="mAP",
        value=value,
        frames=frames,
        size=128,
        views="10 clips x 3 crops",
        data="Multi-Moments in Time val",
        source=f"{REPORT}, table 2, {row}",
    )


def _preset(
    name: str,
    paper: str,
    year: int,
    clip: tuple[int, int, int],
    make: Callable[[int], ResNetSpec],
    *published: Published,
) -> Preset:
    return Preset(name=name, family="resnet", paper=paper, year=year, clip=clip, make=make, published=published)


PRESETS = (
    _preset("c2d_r50", WANG, 2018, (8, 224, 224), _c2d, zoo(71.46, 8)),
    _preset("i3d_r50", WANG, 2018, (8, 224, 224), partial(_i3d, non_local=False), zoo(73.27, 8)),
    _preset(
        "i3d_nln_r50",
        WANG,
        2018,
        (8, 224, 224),
        partial(_i3d, non_local=True),
        zoo(74.0, 8, source="model zoo of the SlowFast code"),
    ),
    _preset("slow_r50_4x16", SLOWFAST, 2019, (4, 224, 224), partial(_slow, depth=50), zoo(72.40, 4)),
    _preset("slow_r50_8x8", SLOWFAST, 2019, (8, 224, 224), partial(_slow, depth=50), zoo(74.58, 8)),
    _preset("slow_r101_8x8", SLOWFAST, 2019, (8, 224, 224), partial(_slow, depth=101)),
    # Frames at half the distance; the network is the same.
    _preset("slow_r101_8x4", REPORT, 2019, (8, 224, 224), partial(_slow, depth=101), _moments("Slow, 8x4", 61.68, 8)),
    _preset("fast_r50_32f", SLOWFAST, 2019, (32, 224, 224), partial(_fast, depth=50, width=8)),
    _preset("fast_r50_32f_wide", REPORT, 2019, (32, 112, 112), partial(_fast, depth=50, width=64)),
    _preset(
        "fast_r101_32f_wide",
        REPORT,
        2019,
        (32, 112, 112),
        partial(_fast, depth=101, width=64),
        _moments("Fast, 16x2", 61.55, 16),
        _moments("Fast, 32x2", 63.59, 32),
    ),
)
