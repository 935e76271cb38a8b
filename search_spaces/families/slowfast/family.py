"""SlowFast as a family: its domains, and the published networks.

Networks are named after frames and temporal stride of the slow pathway. Accuracies are those of the models that the
authors released (https://github.com/facebookresearch/pytorchvideo, model zoo), on Kinetics-400, 3 crops of each of 10
clips; those of 11x8 are of "Efficient" in the Multi-Moments in Time challenge of 2019, whose networks had 101 layers.

`slowfast_8x8_r101` is the paper's: of the third stage, the first six blocks alone have time, as many as with 50 layers.
In pytorchvideo, all 23 have it: `slowfast_8x8_r101_pytorchvideo`. Those of 152 and 200 layers are such as the latter,
since no document says where they have time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache, partial
from typing import cast

from search_spaces.domains import ANY_SCOPE, At, Choice, Declared, Pick, Scalar
from search_spaces.errors import SpecError
from search_spaces.families.labels import (
    dilations,
    placement_fits,
    read_count,
    read_dilation,
    read_factor,
    read_placement,
)
from search_spaces.families.resnet.make import Placement, ints, place
from search_spaces.families.slowfast.spec import (
    FUSIONS,
    Fusion,
    FusionKind,
    SlowFastBlock,
    SlowFastSpec,
    SlowFastStage,
    SlowFastStem,
)
from search_spaces.family import Family, Preset, Published
from search_spaces.operators import ATTENTIONS, FLAT, KERNELS, KINDS, Attention, Kind, TemporalOp
from search_spaces.spec import scale

PAPER = "Feichtenhofer et al. 2019, SlowFast Networks for Video Recognition"
REPORT = "Team Efficient, Multi-Moments in Time challenge 2019: temporal interlacing network"

DEPTHS: dict[int, tuple[int, ...]] = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
_WIDTH = 64
_INTS = re.compile(r"\d+(-\d+)+")
_STANDARD = TemporalOp(kind="t1x1_first")


@lru_cache(maxsize=1024)
def depths(depth: Scalar) -> tuple[int, ...]:
    """Returns blocks of each stage.

    Args:
        depth: 50, 101, 152, 200, or the blocks themselves, as 1-2-1.

    Raises:
        SpecError: Neither of these.
    """
    if type(depth) is int and depth in DEPTHS:
        return DEPTHS[depth]
    if isinstance(depth, str) and _INTS.fullmatch(depth) and 0 not in (counts := ints(depth)):
        return counts
    raise SpecError(f"depth must be one of {', '.join(map(str, DEPTHS))} or blocks per stage as 1-2-1, but is {depth}")


def make_slowfast(
    *,
    depth: int | str = 50,
    width: float = 1.0,
    alpha: int = 4,
    beta: int = 8,
    fusion: Fusion,
    stem_kernels: tuple[int, int] = (1, 5),
    pool: bool = True,
    block: Callable[[int, int, int], SlowFastBlock],
    zero_init: bool = False,
) -> SlowFastSpec:
    """Returns a canonical spec.

    Args:
        depth: 50, 101, 152, 200, or blocks of each stage; see `depths`.
        width: Multiplier of the slow pathway's widths.
        alpha: Frames of the fast pathway for each of the slow one.
        beta: Planes of the slow pathway for each of the fast one.
        fusion: How fast features reach the slow pathway.
        stem_kernels: Temporal kernels of the slow and the fast pathway's stem.
        pool: Max pool behind the stem.
        block: From stage index, block index and global block index to the operators.
        zero_init: Whether residual branches add nothing at first, as published.
    """
    stages, index = [], 0
    for s, count in enumerate(depths(depth)):
        blocks = tuple(block(s, b, index + b) for b in range(count))
        stages.append(SlowFastStage(width=scale(_WIDTH * 2**s, width), blocks=blocks))
        index += count
    slow, fast = stem_kernels
    stem = SlowFastStem(width=scale(_WIDTH, width), slow_kernel=slow, fast_kernel=fast, pool="max" if pool else "none")
    spec = SlowFastSpec(alpha=alpha, beta=beta, fusion=fusion, stem=stem, stages=tuple(stages), zero_init=zero_init)
    return spec.canonical()


def _published(*, depth: int, alpha: int, kernel: int, short_res4: bool = False) -> SlowFastSpec:
    """Returns the network as published: the slow pathway has time in the last two stages, the fast one throughout.

    Args:
        depth: Layers.
        alpha: Frames of the fast pathway for each of the slow one.
        kernel: Temporal kernel of the fusion.
        short_res4: In the third stage, only the first six blocks have time, in both pathways.
    """

    def block(s: int, b: int, index: int) -> SlowFastBlock:
        late = short_res4 and s == 2 and b >= 6
        return SlowFastBlock(slow=_STANDARD if s >= 2 and not late else FLAT, fast=FLAT if late else _STANDARD)

    return make_slowfast(depth=depth, alpha=alpha, fusion=Fusion(kernel=kernel), block=block, zero_init=True)


def _place(label: Scalar, counts: tuple[int, ...]) -> Placement:
    """Returns where time is; `late` is in the last two stages, else as `resnet.make.place`."""
    return place(f"top_heavy:{sum(counts[:-2])}" if label == "late" else str(label), counts)


def _placed(path: str, at: At) -> bool:
    label, depth = at(f"{path}_placement"), at("depth")
    if label is None or depth is None:
        return True
    counts = depths(depth)
    return sum(counts[: at.stage]) + at.block in _place(label, counts).blocks


def _temporal(path: str, at: At) -> bool:
    return _placed(path, at) and at(f"{path}_kind") != "2d"


def _dilated(path: str, at: At) -> bool:
    return _temporal(path, at) and at(f"{path}_kernel") != 1


def _has_temporal_stem(at: At) -> bool:
    labels, depth = (at("slow_placement"), at("fast_placement")), at("depth")
    return depth is None or any(label is None or _place(label, depths(depth)).stem for label in labels)


def _fits(label: Scalar, at: At) -> bool:
    return label == "late" or placement_fits(str(label), depths(cast(Scalar, at("depth"))))


def _path_choices(path: str, placement: str) -> tuple[Choice, ...]:
    """Returns the domains of one pathway: where time is, and the operators there."""
    where, kind, kernel, dilation = (f"{path}_{name}" for name in ("placement", "kind", "kernel", "dilation"))
    return (
        Choice(name=where, default=placement, read=partial(_read_placement, where), fits=_fits, needs=("depth",)),
        Choice(
            name=kind, default="t1x1_first", valid=KINDS, per=ANY_SCOPE, when=partial(_placed, path), needs=(where,)
        ),
        Choice(
            name=kernel,
            default=3,
            valid=KERNELS,
            per=ANY_SCOPE,
            when=partial(_temporal, path),
            needs=(where, kind),
        ),
        Choice(
            name=dilation,
            default=1,
            read=partial(read_dilation, dilation),
            per=ANY_SCOPE,
            when=partial(_dilated, path),
            needs=(where, kind, kernel),
        ),
    )


def _make(pick: Pick) -> SlowFastSpec:
    counts = depths(pick("depth"))
    where = {path: _place(pick(f"{path}_placement"), counts) for path in ("slow", "fast")}

    def op(path: str, s: int, b: int, index: int) -> TemporalOp:
        if index not in where[path].blocks:
            return FLAT
        return TemporalOp(
            kind=cast(Kind, pick(f"{path}_kind", s, b)),
            kernel=cast(int, pick(f"{path}_kernel", s, b)),
            dilation=dilations(pick(f"{path}_dilation", s, b)),
        )

    def block(s: int, b: int, index: int) -> SlowFastBlock:
        return SlowFastBlock(
            slow=op("slow", s, b, index),
            fast=op("fast", s, b, index),
            attention=cast(Attention, pick("attention", s, b)),
        )

    stem_kernel = cast(int, pick("stem_kernel"))
    return make_slowfast(
        depth=cast(int | str, pick("depth")),
        width=cast(float, pick("width")),
        alpha=cast(int, pick("alpha")),
        beta=cast(int, pick("beta")),
        fusion=Fusion(
            kind=cast(FusionKind, pick("fusion")),
            kernel=cast(int, pick("fusion_kernel")),
            ratio=cast(int, pick("fusion_ratio")),
        ),
        stem_kernels=(stem_kernel if where["slow"].stem else 1, stem_kernel if where["fast"].stem else 1),
        pool=pick("stem_pool") == "max",
        block=block,
        zero_init=bool(pick("zero_init")),
    )


def _convolves(at: At) -> bool:
    return at("fusion") in (None, "conv")


def _read_placement(name: str, value: Scalar) -> Scalar:
    return value if value == "late" else read_placement(name, value)


def _read_depth(value: Scalar) -> Scalar:
    depths(value)
    return value


# Left alone, they are slowfast_8x8_r50, but for its initial values.
DOMAINS = Declared(
    (
        Choice(name="depth", default=50, read=_read_depth),
        Choice(name="width", default=1.0, read=partial(read_factor, "width")),
        Choice(name="alpha", default=4, read=partial(read_count, "alpha")),
        Choice(name="beta", default=8, read=partial(read_count, "beta")),
        Choice(name="fusion", default="conv", valid=FUSIONS),
        Choice(name="fusion_kernel", default=7, valid=KERNELS, when=_convolves, needs=("fusion",)),
        Choice(
            name="fusion_ratio", default=2, read=partial(read_count, "fusion_ratio"), when=_convolves, needs=("fusion",)
        ),
        *_path_choices("slow", "late"),
        *_path_choices("fast", "all"),
        Choice(
            name="stem_kernel",
            default=5,
            valid=KERNELS,
            when=_has_temporal_stem,
            needs=("slow_placement", "fast_placement"),
        ),
        Choice(name="stem_pool", default="max", valid=("none", "max")),
        Choice(name="attention", default="none", valid=ATTENTIONS, per=ANY_SCOPE),
        Choice(name="zero_init", default=False, valid=(False, True)),
    ),
    counts=lambda at: depths(cast(Scalar, at("depth"))),
    make=_make,
    blocks_by="depth",
)


def _sample() -> dict[str, object]:
    operators = {
        f"{path}_{name}": {"values": values, "per": per}
        for path in ("slow", "fast")
        for name, values, per in (
            ("kind", list(KINDS), "block"),
            ("kernel", list(KERNELS), "stage"),
            ("dilation", [1, 2, [1, 2]], "block"),
        )
    }
    domains: dict[str, object] = {
        "depth": ["1-1", "2-1", "1-1-1"],
        "width": [0.125, 0.25],
        "alpha": [1, 2, 3, 8],
        "beta": [1, 4, 8],
        "fusion": list(FUSIONS),
        "fusion_kernel": list(KERNELS),
        "fusion_ratio": [1, 2],
        "slow_placement": ["late", "all", "none", "top_heavy:1"],
        "fast_placement": ["all", "none", "mc3", "0,1"],
        "stem_kernel": list(KERNELS),
        "stem_pool": ["none", "max"],
        "attention": {"values": list(ATTENTIONS), "per": "stage"},
        "zero_init": [False, True],
        **operators,
    }
    return {"domains": domains}


def _kinetics(top1: float, frames: int) -> tuple[Published, ...]:
    return (
        Published(
            metric="video top-1",
            value=top1,
            frames=frames,
            size=256,
            views="10 clips x 3 crops",
            data="Kinetics-400 val",
            source="models released by the authors, github.com/facebookresearch/pytorchvideo",
        ),
    )


def _moments(clip: float, video: float, frames: int) -> tuple[Published, ...]:
    cite = partial(Published, frames=frames, data="Multi-Moments in Time val", source=REPORT)
    return (
        cite(metric="clip mAP", value=clip, size=112, views="1 clip"),
        cite(metric="video mAP", value=video, size=128, views="10 clips x 3 crops"),
    )


def _preset(
    name: str,
    frames: int,
    make: Callable[[], SlowFastSpec],
    published: tuple[Published, ...] = (),
    paper: str = PAPER,
) -> Preset:
    return Preset(
        name=f"slowfast_{name}",
        family="slowfast",
        paper=paper,
        year=2019,
        clip=(frames, 224, 224),
        make=lambda _: make(),
        published=published,
    )


PRESETS = (
    _preset("4x16_r50", 32, partial(_published, depth=50, alpha=8, kernel=5), _kinetics(75.34, 32)),
    _preset("8x8_r50", 32, partial(_published, depth=50, alpha=4, kernel=7), _kinetics(76.94, 32)),
    _preset(
        "8x8_r101",
        32,
        partial(_published, depth=101, alpha=4, kernel=5, short_res4=True),
        _moments(59.89, 61.52, 32),
    ),
    _preset("8x8_r101_pytorchvideo", 32, partial(_published, depth=101, alpha=4, kernel=5), _kinetics(77.90, 32)),
    _preset("8x8_r152", 32, partial(_published, depth=152, alpha=4, kernel=5), paper=REPORT),
    _preset("8x8_r200", 32, partial(_published, depth=200, alpha=4, kernel=5), paper=REPORT),
    _preset(
        "16x8_r101",
        64,
        partial(_published, depth=101, alpha=4, kernel=5, short_res4=True),
        _kinetics(78.70, 64),
    ),
    _preset("11x8_r50", 44, partial(_published, depth=50, alpha=4, kernel=7), paper=REPORT),
    _preset(
        "11x8_r101", 44, partial(_published, depth=101, alpha=4, kernel=5), _moments(60.41, 61.60, 44), paper=REPORT
    ),
)

FAMILY = Family(
    name="slowfast",
    spec=SlowFastSpec,
    domains=DOMAINS,
    presets=PRESETS,
    sample=_sample,
    usual={"depth": tuple(DEPTHS)},
)
