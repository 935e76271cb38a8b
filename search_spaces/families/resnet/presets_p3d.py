"""Published networks that put time beside 2D convolutions of a bottleneck, by name: P3D and BesNet.

P3D: Qiu et al. 2017, "Learning Spatio-Temporal Representation with Pseudo-3D Residual Networks", as in the prototxts
that the authors released (https://github.com/ZhaofanQiu/pseudo-3d-residual-networks): frames are pooled behind the stem
and the first three stages, so that the last stage is 2D, and blocks have their strides on the first 1x1x1. In B and C,
T has no ReLU before the sum, and one follows it.
Differences: Caffe pools behind the stem without padding, here the windows lie one pixel earlier; and in block C the
authors halve the sum of both paths, which the convolution and norm behind it undo.

BesNet: the report of TwentyBN on Kinetics in the ActivityNet challenge of 2017. Its 1x1 convolutions become 3x1x1 with
a temporal dilation that is drawn for each layer and mini-batch; evaluation averages over the set; pooling is an average
over space, then a maximum over time. It leaves open which 1x1 convolutions are meant. "We inflate 1x1 filters" of
modules that are "1x1 + 3x3 + 1x1" is read as both, and `besnet_50` is that; the projection of a shortcut is no part of
the module. `_first` has time in the first alone, `_all` in those of the shortcuts, too. Nor does it say which dilations
were drawn from: here 1, 2 and 3. `_dilation1` and `_dilation2` are its fixed ones. "It uses ReLU activation followed by
a Batch-Normalization for each layer": so has `_relu_first`; the others have the order of ResNets, norm and then ReLU.
"""

from __future__ import annotations

from functools import partial

from search_spaces.families.resnet.make import Extras, make_stem, of_depth
from search_spaces.families.resnet.spec import ResNetSpec
from search_spaces.family import Preset, Published
from search_spaces.operators import FLAT, Kind, TemporalOp

P3D_PAPER = "Qiu et al. 2017, Learning Spatio-Temporal Representation with Pseudo-3D Residual Networks"
BESNET_PAPER = "TwentyBN 2017, Random Dilation Networks for Action Recognition in Videos"

# Of 50 layers on UCF101, by the blocks that take turns.
_UCF101 = {"a": 83.7, "b": 82.8, "c": 83.0, "abc": 84.2}
_READINGS: dict[str, Kind] = {
    "": "t1x1_both",
    "_first": "t1x1_first",
    "_all": "t1x1_all",
    "_relu_first": "t1x1_both",
}
_DILATIONS = {"": (1, 2, 3), "_dilation1": (1,), "_dilation2": (2,)}
_KINETICS = {"": 74.0, "_dilation1": 70.0, "_dilation2": 68.0}


def _p3d(_frames: int, *, depth: int, turns: str) -> ResNetSpec:
    ops = [TemporalOp(kind=f"p3d_{form}") for form in turns]  # type: ignore[arg-type]
    return of_depth(
        depth,
        stem=make_stem("1x7x7/2+max2"),
        op_at=lambda s, _b, index: FLAT if s == 3 else ops[index % len(ops)],
        extras=Extras(stride_on=lambda _s, _b: "1x1", pools=(2, 2, 2, 1)),
    )


def _besnet(_frames: int, *, kind: Kind, dilation: tuple[int, ...], relu_first: bool = False) -> ResNetSpec:
    op = TemporalOp(kind=kind, dilation=dilation)
    extras = Extras(head="avg_max", relu_first=relu_first)
    return of_depth(50, stem=make_stem("1x7x7/2+max"), op_at=lambda _s, _b, _index: op, extras=extras)


def _p3d_published(depth: int, turns: str) -> tuple[Published, ...]:
    if depth != 50:
        return ()
    top1 = Published(
        metric="top-1",
        value=_UCF101[turns],
        frames=16,
        size=160,
        views="split 1",
        data="UCF101 test",
        source="Qiu et al. 2017, table 1",
    )
    return (top1,)


def _besnet_published(reading: str, dilation: str) -> tuple[Published, ...]:
    # The report has one network. Its figures stand at the reading that is taken for it.
    if reading:
        return ()
    top1 = Published(
        metric="top-1",
        value=_KINETICS[dilation],
        frames=0,
        size=0,
        views="not stated",
        data="Kinetics-400",
        source="the authors' report",
    )
    return (top1,)


PRESETS = (
    *(
        Preset(
            name=f"p3d_{depth}" + ("" if turns == "abc" else f"_{turns}"),
            family="resnet",
            paper=P3D_PAPER,
            year=2017,
            clip=(16, 160, 160),
            published=_p3d_published(depth, turns),
            make=partial(_p3d, depth=depth, turns=turns),
        )
        for depth in (50, 101, 152)
        for turns in ("a", "b", "c", "abc")
    ),
    *(
        Preset(
            name=f"besnet_50{reading}{dilation}",
            family="resnet",
            paper=BESNET_PAPER,
            year=2017,
            clip=(16, 224, 224),
            published=_besnet_published(reading, dilation),
            make=partial(_besnet, kind=kind, dilation=dilations, relu_first=reading == "_relu_first"),
        )
        for reading, kind in _READINGS.items()
        for dilation, dilations in _DILATIONS.items()
    ),
)
