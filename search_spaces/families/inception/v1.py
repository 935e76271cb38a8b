"""Inception-v1 as a family: its domains, and the published networks for clips.

Layers that can be temporal are the blocks of a space: conv1 and conv2c are stage 0, the mixed blocks stages 1 to 3. A
cut counts them from 0: conv1, 2c, 3b, 3c, 4b to 4f, 5b, 5c.

Carreira and Zisserman 2017 (https://arxiv.org/abs/1705.07750); Xie et al. 2018 (https://arxiv.org/abs/1712.04851).

Three different networks are called S3D:

- `s3d_v1`: torchvision's. Every convolution of 3x3 and more, the first too, is 1xkxk, norm, ReLU, kx1x1, norm, ReLU.
- `s3d_slim`: TF slim's `s3dg` without its gates. The first convolution is 3x7x7 and not separable; in the others the
  temporal convolution has a bias in place of the norm, and begins as the identity. `s3d_g_slim` has the gates.
- `s3d_paper`: a reading of the paper's text. It says that filters of k x n x n are replaced by 1xnxn followed by kx1x1,
  and that I3D has time in only two of the four branches of a block, while separable convolutions allow it in all four.
  Read as: as torchvision's, and a 3x1x1 convolution behind the 1x1x1 of branches 0 and 3. The paper's own parameters
  and operations belong to none of the three.

`i3d_top_heavy_4b` is temporal from block 4b on, `i3d_bottom_heavy_4b` up to block 4b; below or above, kernels see one
frame, while the temporal strides and pools stay. The 2D networks of the paper (`i2d`) have those, too.

I3D and slim's S3D were released in TensorFlow, with its SAME padding: `i3d`, all networks made from it, `s3d_slim` and
`s3d_g_slim` have that, and the outputs of the released code. `i3d_piergiaj` is the usual PyTorch version of I3D,
whose norms have a momentum of 0.01. The padding of all others is torchvision's, symmetric. So it was under these names,
too, before specs had `padding`: `i3d_symmetric`, `s3d_slim_symmetric` and `s3d_g_slim_symmetric` are those networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import cast

from search_spaces.domains import At, Choice, Declared, Pick
from search_spaces.families.inception.domains import Layers, choices, frames, picked_op, read_frames
from search_spaces.families.inception.units import PADDINGS, SEPARABLE, FramePool, Padding, Separable
from search_spaces.families.inception.v1_blocks import KINDS, WIDTHS, First, Mixed, Second, Stage
from search_spaces.families.inception.v1_spec import InceptionV1Spec, name
from search_spaces.families.labels import read_factor
from search_spaces.family import Family, Preset, Published
from search_spaces.operators import FLAT, KERNELS, Attention, Kind, TemporalOp
from search_spaces.spec import scale

STRIDES = (2, 1, 1, 2, 2)
POOLS = (1, 1, 3, 2)
# Layers that can be temporal, as cuts count them.
UNITS = ("conv1", "2c", *(name(s, b) for s, stage in enumerate(WIDTHS) for b in range(len(stage))))
CLIP = (64, 224, 224)
QUO_VADIS = "Carreira and Zisserman 2017, Quo Vadis, Action Recognition?"
RETHINKING = "Xie et al. 2018, Rethinking Spatiotemporal Feature Learning"
_REPORT = "Gupta, Dharmaraj and Hayes, Reproducing Action Recognition Experiments, section 4 ('roughly')"


def make_inception_v1(
    op_at: Callable[[int], TemporalOp],
    *,
    attention_at: Callable[[int], Attention] = lambda unit: "none",
    width: float = 1.0,
    strides: Sequence[int] = STRIDES,
    pools: Sequence[int] = POOLS,
    all_branches: bool = False,
    separable: Separable = "norm_both",
    norm_momentum: float = 0.1,
    padding: Padding = "symmetric",
) -> InceptionV1Spec:
    """Returns a canonical spec.

    Args:
        op_at: From the index of a layer in `UNITS` to its operator.
        attention_at: The same for attention; conv1 has none.
        width: Multiplier of all widths.
        strides: Over frames, of conv1 and of the four pools.
        pools: Temporal kernels of the four pools.
        all_branches: Time in branches 0 and 3 of mixed blocks, too.
        separable: Form of `p3d_a` operators.
        norm_momentum: Of the norms.
        padding: Of layers with a stride.
    """
    frames = [_frames(kernel, stride) for kernel, stride in zip(pools, strides[1:], strict=True)]
    unit, stages = 2, []
    for s, widths in enumerate(WIDTHS):
        blocks = []
        for sizes in widths:
            blocks.append(_mixed(sizes, width, op_at(unit), all_branches, attention_at(unit)))
            unit += 1
        stages.append(Stage(pool=frames[s + 1], blocks=tuple(blocks)))
    return InceptionV1Spec(
        conv1=First(width=scale(64, width), temporal=op_at(0), temporal_stride=strides[0]),
        pool1=frames[0],
        conv2b=scale(64, width),
        conv2c=Second(width=scale(192, width), temporal=op_at(1), attention=attention_at(1)),
        stages=tuple(stages),
        separable=separable,
        norm_momentum=norm_momentum,
        padding=padding,
    ).canonical()


@lru_cache(maxsize=1024)
def _frames(kernel: int, stride: int) -> FramePool:
    return FramePool(kernel=kernel, stride=stride)


@lru_cache(maxsize=65536)
def _mixed(sizes: tuple[int, ...], width: float, op: TemporalOp, all_branches: bool, attention: Attention) -> Mixed:
    b0, r1, b1, r2, b2, b3 = (scale(size, width) for size in sizes)
    return Mixed(
        b0=b0,
        b1_reduce=r1,
        b1=b1,
        b2_reduce=r2,
        b2=b2,
        b3=b3,
        temporal=op,
        all_branches=all_branches,
        attention=attention,
    )


def _published(
    frames: int,
    *,
    kind: Kind,
    first: int = 0,
    last: int = len(UNITS) - 1,
    stem: TemporalOp | None = None,
    gate: bool = False,
    all_branches: bool = False,
    separable: Separable = "norm_both",
    norm_momentum: float = 0.001,
    padding: Padding = "symmetric",
) -> InceptionV1Spec:
    """A network whose layers `first` to `last` have an operator of a kind: of 7 frames in conv1, else of 3."""

    def op_at(unit: int) -> TemporalOp:
        if unit == 0 and stem is not None:
            return stem
        return TemporalOp(kind=kind, kernel=3 if unit else 7) if first <= unit <= last else FLAT

    return make_inception_v1(
        op_at,
        attention_at=lambda unit: "gate" if gate else "none",
        all_branches=all_branches,
        separable=separable,
        norm_momentum=norm_momentum,
        padding=padding,
    )


def _preset(named: str, paper: str, make: Callable[[int], InceptionV1Spec], *published: Published) -> Preset:
    year = 2017 if paper == QUO_VADIS else 2018
    return Preset(
        name=named, family="inception_v1", paper=paper, year=year, clip=CLIP, make=make, published=tuple(published)
    )


def _in_part() -> list[Preset]:
    found = []
    networks: dict[str, Callable[..., InceptionV1Spec]] = {"i3d": _I3D, "s3d": partial(_published, kind="p3d_a")}
    for network, whole in networks.items():
        for cut, unit in enumerate(UNITS):
            if cut > 0:
                found.append(_preset(f"{network}_top_heavy_{unit}", RETHINKING, partial(whole, first=cut)))
        for cut, unit in enumerate(UNITS[:-1]):
            found.append(_preset(f"{network}_bottom_heavy_{unit}", RETHINKING, partial(whole, last=cut)))
    return found


def _roughly(value: float) -> Published:
    return Published(
        metric="top-1",
        value=value,
        frames=64,
        size=224,
        views="not stated",
        data="5 classes of Kinetics-400, 25 validation videos each",
        source=_REPORT,
    )


_TORCHVISION = Published(
    metric="clip top-1",
    value=68.368,
    frames=128,
    size=224,
    views="1 clip",
    data="Kinetics-400 val",
    source="torchvision, S3D_Weights.KINETICS400_V1",
)
_I3D: Callable[..., InceptionV1Spec] = partial(_published, kind="3d", padding="same")
_SLIM: Callable[..., InceptionV1Spec] = partial(
    _published, kind="p3d_a", stem=TemporalOp(kind="3d", kernel=3), separable="norm_spatial", padding="same"
)

PRESETS: tuple[Preset, ...] = (
    _preset("i3d", QUO_VADIS, _I3D, _roughly(64.0)),
    _preset("i2d", RETHINKING, partial(_I3D, kind="2d")),
    _preset("i3d_piergiaj", QUO_VADIS, partial(_I3D, norm_momentum=0.01)),
    _preset("i3d_symmetric", QUO_VADIS, partial(_I3D, padding="symmetric")),
    _preset("s3d_v1", RETHINKING, partial(_published, kind="p3d_a"), _TORCHVISION, _roughly(68.0)),
    _preset("s3d_g", RETHINKING, partial(_published, kind="p3d_a", gate=True)),
    _preset("s3d_slim", RETHINKING, _SLIM),
    _preset("s3d_g_slim", RETHINKING, partial(_SLIM, gate=True)),
    _preset("s3d_slim_symmetric", RETHINKING, partial(_SLIM, padding="symmetric")),
    _preset("s3d_g_slim_symmetric", RETHINKING, partial(_SLIM, gate=True, padding="symmetric")),
    _preset("s3d_paper", RETHINKING, partial(_published, kind="p3d_a", all_branches=True)),
    *_in_part(),
)


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
