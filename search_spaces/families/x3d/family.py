"""X3D as a family: its expansion factors, its domains, and the published networks.

Accuracies are those of the models that the authors released, on Kinetics-400: of 10 clips of the size of training, and
of 30 views, 3 crops of each clip (https://github.com/facebookresearch/SlowFast, MODEL_ZOO.md and configs/Kinetics).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache, partial
from typing import cast

from search_spaces.domains import ANY_SCOPE, At, Choice, Declared, Pick, Scalar
from search_spaces.errors import SpecError, at_most
from search_spaces.families.labels import (
    dilations,
    placement_fits,
    read_count,
    read_dilation,
    read_factor,
    read_placement,
)
from search_spaces.families.resnet.make import ints, place
from search_spaces.families.x3d.spec import (
    KINDS,
    STEM_KERNELS,
    X3DBlock,
    X3DHead,
    X3DSpec,
    X3DStage,
    X3DStem,
    round_width,
)
from search_spaces.family import Family, Preset, Published
from search_spaces.operators import ATTENTIONS, FLAT, KERNELS, Attention, Kind, TemporalOp

PAPER = "Feichtenhofer 2020, X3D: Expanding Architectures for Efficient Video Recognition"

# The network before its expansion (table 1): planes of the first stage, which every other doubles, and blocks of each
# stage.
_BASE_WIDTH = 12
_BASE_DEPTHS = (1, 2, 5, 3)
_WIDTH_FACTOR = 2.0
_INTS = re.compile(r"\d+(-\d+)*")
# Squeeze-excitation in every second block, from the first on.
STANDARD: tuple[X3DBlock, ...] = (
    X3DBlock(temporal=TemporalOp(kind="csn"), attention="se"),
    X3DBlock(temporal=TemporalOp(kind="csn"), attention="none"),
)


@lru_cache(maxsize=1024)
def depths(depth: float | str) -> tuple[int, ...]:
    """Returns blocks of each stage.

    Args:
        depth: The paper's depth factor, of 1, 2, 5 and 3 blocks, rounded up; or the blocks themselves, as 3-5-11-7.

    Raises:
        SpecError: Neither of these.
    """
    if not isinstance(depth, str) and depth > 0:
        at_most("depth", depth)
        return tuple(math.ceil(depth * count) for count in _BASE_DEPTHS)
    if isinstance(depth, str) and _INTS.fullmatch(depth) and 0 not in (counts := ints(depth)):
        return counts
    raise SpecError(f"depth must be a factor above 0, such as 2.2, or blocks per stage as 3-5-11-7, but is {depth}")


def make_x3d(
    *,
    depth: float | str = 2.2,
    width: float = 1.0,
    bottleneck: float = 2.25,
    stem_kernel: int = 5,
    features: int = 2048,
    strides: Callable[[int], int] = lambda stage: 1,
    block: Callable[[int, int], X3DBlock] = lambda s, b: STANDARD[b % 2],
    shortcut_norm: bool = False,
    zero_init: bool = False,
) -> X3DSpec:
    """Returns a canonical spec from expansion factors, rounded as the authors do.

    Args:
        depth: The paper's gamma_d, or blocks of each stage; see `depths`.
        width: Widths against those of the published networks, whose gamma_w is 2.
        bottleneck: The paper's gamma_b: inner planes against planes out.
        stem_kernel: Temporal kernel of the stem.
        features: Features that are classified.
        strides: From stage index to its temporal stride.
        block: From stage index and block index to the block.
        shortcut_norm: A norm behind the convolution of every shortcut.
        zero_init: Initial values as published.
    """
    factor = _WIDTH_FACTOR * width
    base, widths = _BASE_WIDTH, []
    counts = depths(depth)
    for _ in counts:
        widths.append(round_width(base, factor))
        base = round_width(base, 2)
    stages = tuple(
        X3DStage(
            width=planes,
            midplanes=max(1, int(bottleneck * planes)),
            temporal_stride=strides(s),
            blocks=tuple(block(s, b) for b in range(count)),
        )
        for s, (count, planes) in enumerate(zip(counts, widths, strict=True))
    )
    return X3DSpec(
        stem=X3DStem(width=widths[0], temporal_kernel=stem_kernel),
        stages=stages,
        head=X3DHead(midplanes=stages[-1].midplanes, width=features),
        shortcut_norm=shortcut_norm,
        zero_init=zero_init,
    ).canonical()


def _read_depth(value: Scalar) -> Scalar:
    depths(value)
    return value if isinstance(value, str) else float(value)


def _placed(at: At) -> bool:
    label, depth = at("placement"), at("depth")
    if label is None or depth is None:
        return True
    counts = depths(cast(float | str, depth))
    return sum(counts[: at.stage]) + at.block in place(str(label), counts).blocks


def _temporal(at: At) -> bool:
    return _placed(at) and at("kind") != "2d"


def _stem_placed(at: At) -> bool:
    label, depth = at("placement"), at("depth")
    return label is None or depth is None or place(str(label), depths(cast(float | str, depth))).stem


def _fits(label: Scalar, at: At) -> bool:
    return placement_fits(str(label), depths(cast(float | str, at("depth"))))


def _make(pick: Pick) -> X3DSpec:
    depth = cast(float | str, pick("depth"))
    counts = depths(depth)
    placement = place(str(pick("placement")), counts)

    def block(s: int, b: int) -> X3DBlock:
        attention = str(pick("attention", s, b))
        if attention == "alternate":
            attention = "none" if b % 2 else "se"
        op = FLAT
        if sum(counts[:s]) + b in placement.blocks:
            op = TemporalOp(
                kind=cast(Kind, pick("kind", s, b)),
                kernel=cast(int, pick("kernel", s, b)),
                dilation=dilations(pick("dilation", s, b)),
            )
        return X3DBlock(temporal=op, attention=cast(Attention, attention))

    return make_x3d(
        depth=depth,
        width=cast(float, pick("width")),
        bottleneck=cast(float, pick("bottleneck")),
        stem_kernel=cast(int, pick("stem_kernel")) if placement.stem else 1,
        features=cast(int, pick("features")),
        strides=lambda s: cast(int, pick("temporal_stride", s)),
        block=block,
        shortcut_norm=bool(pick("shortcut_norm")),
        zero_init=bool(pick("zero_init")),
    )


DOMAINS = Declared(
    (
        Choice(name="depth", default=2.2, read=_read_depth),
        Choice(name="width", default=1.0, read=partial(read_factor, "width")),
        Choice(name="bottleneck", default=2.25, read=partial(read_factor, "bottleneck")),
        Choice(name="features", default=2048, read=partial(read_count, "features")),
        Choice(
            name="placement", default="all", read=partial(read_placement, "placement"), fits=_fits, needs=("depth",)
        ),
        Choice(name="stem_kernel", default=5, valid=STEM_KERNELS, when=_stem_placed, needs=("placement",)),
        Choice(name="kind", default="csn", valid=KINDS, per=ANY_SCOPE, when=_placed, needs=("placement",)),
        Choice(name="kernel", default=3, valid=KERNELS, per=ANY_SCOPE, when=_temporal, needs=("placement", "kind")),
        Choice(
            name="dilation",
            default=1,
            read=partial(read_dilation, "dilation"),
            per=ANY_SCOPE,
            when=lambda at: _temporal(at) and at("kernel") != 1,
            needs=("placement", "kind", "kernel"),
        ),
        Choice(name="attention", default="alternate", valid=("alternate", *ATTENTIONS), per=ANY_SCOPE),
        Choice(
            name="temporal_stride",
            default=1,
            valid=(1, 2),
            per=("network", "stage"),
            when=lambda at: at.block == 0,
        ),
        Choice(name="shortcut_norm", default=False, valid=(False, True)),
        Choice(name="zero_init", default=False, valid=(False, True)),
    ),
    counts=lambda at: depths(cast(float | str, at("depth"))),
    make=_make,
    blocks_by="depth",
)


def _sample() -> dict[str, object]:
    domains: dict[str, object] = {
        "depth": ["1-1", "2-1", "1-1-1"],
        "width": [0.25, 0.5],
        "bottleneck": [1.0, 2.25],
        "features": [16, 32],
        "placement": ["all", "none", "rmc3", "top_heavy:2", "stem,0"],
        "stem_kernel": list(STEM_KERNELS),
        "kind": {"values": list(KINDS), "per": "block"},
        "kernel": {"values": list(KERNELS), "per": "stage"},
        "dilation": {"values": [1, 2, [1, 2]], "per": "block"},
        "attention": {"values": ["alternate", *ATTENTIONS], "per": "stage"},
        "temporal_stride": {"values": [1, 2], "per": "stage"},
        "shortcut_norm": [False, True],
        "zero_init": [False, True],
    }
    return {"domains": domains}


def _cite(clip: tuple[int, int, int], ten: float, thirty: float, crop: int) -> tuple[Published, ...]:
    frames, size, _ = clip
    cite = partial(
        Published,
        metric="video top-1",
        frames=frames,
        data="Kinetics-400 val",
        source="models released by the authors, github.com/facebookresearch/SlowFast",
    )
    return (cite(value=ten, size=size, views="10 clips"), cite(value=thirty, size=crop, views="10 clips x 3 crops"))


def _preset(
    name: str,
    clip: tuple[int, int, int],
    depth: float,
    published: tuple[float, float],
    crop: int,
    *,
    pytorchvideo: bool = False,
) -> Preset:
    return Preset(
        name=f"x3d_{name}{'_pytorchvideo' if pytorchvideo else ''}",
        family="x3d",
        paper=PAPER,
        year=2020,
        clip=clip,
        make=lambda frames: make_x3d(depth=depth, shortcut_norm=not pytorchvideo, zero_init=True),
        published=() if pytorchvideo else _cite(clip, *published, crop),
    )


# Name, clip, depth factor, top-1 of 10 and of 30 views, and the size of the crops of the latter.
_PUBLISHED: tuple[tuple[str, tuple[int, int, int], float, tuple[float, float], int], ...] = (
    ("xs", (4, 160, 160), 2.2, (68.7, 69.5), 182),
    ("s", (13, 160, 160), 2.2, (73.1, 73.5), 182),
    ("m", (16, 224, 224), 2.2, (75.1, 76.2), 256),
    ("l", (16, 312, 312), 5.0, (76.9, 77.5), 356),
)
# pytorchvideo has no norm behind the first shortcut, whose convolution keeps the number of planes.
PRESETS = tuple(_preset(*row, pytorchvideo=theirs) for theirs in (False, True) for row in _PUBLISHED)

FAMILY = Family(name="x3d", spec=X3DSpec, domains=DOMAINS, presets=PRESETS, sample=_sample)
