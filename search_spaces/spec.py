"""A network as a value: frozen, validated on construction, free of torch.

A spec says everything that decides what is built except the number of classes. Two specs that build the same
network have the same canonical form (`canonicalise`), so duplicates are found before anything is trained.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

Kind = Literal["2d", "3d", "2plus1d", "p3d_a", "p3d_b", "p3d_c"]
Midplanes = Literal["per_conv", "shared"]
BlockKind = Literal["basic", "bottleneck"]
StemKind = Literal["conv", "2plus1d"]
Pool = Literal["none", "max"]

KINDS: tuple[Kind, ...] = ("2d", "3d", "2plus1d", "p3d_a", "p3d_b", "p3d_c")
KERNELS: tuple[int, ...] = (1, 3, 5, 7)
MIDPLANES: tuple[Midplanes, ...] = ("per_conv", "shared")
EXPANSION = {"basic": 1, "bottleneck": 4}


class SpecError(ValueError):
    """A value is outside what its place allows; one line with rule, value, place and choices."""


def nearest(value: object, choices: Iterable[object]) -> str:
    """The end of an error message: the nearest choice if one is near, all of them if they are few.

    Args:
        value: What was given.
        choices: What is valid.

    Returns:
        Text such as "; did you mean 2plus1d? (valid: 2d, 3d, 2plus1d)".
    """
    names = [str(c) for c in choices]
    close = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else ";"
    return f"{hint} (valid: {', '.join(names)})" if len(names) <= 40 else hint.rstrip(";")


@dataclass(frozen=True, kw_only=True, slots=True)
class TemporalOp:
    """How a 3x3 spatial convolution gets time.

    Attributes:
        kind: `2d` 1x3x3; `3d` kx3x3; `2plus1d` 1x3x3, BN, ReLU, kx1x1 (Tran et al. 2018, section 3.5);
            `p3d_a`, `p3d_b`, `p3d_c` the three blocks of Qiu et al. 2017, section 3.2.
        kernel: Temporal kernel k, in frames.
        dilation: Temporal dilations. One is fixed; from several, each layer draws one per mini-batch in
            training and averages its outputs over all of them in evaluation (BesNet).
        midplanes: Width between the two convolutions of `2plus1d`: `per_conv` computes it for each
            convolution as the paper does, `shared` for each block from its input and width, as torchvision
            does.
    """

    kind: Kind
    kernel: int = 3
    dilation: tuple[int, ...] = (1,)
    midplanes: Midplanes = "per_conv"

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        _one_of("kind", self.kind, KINDS)
        _one_of("kernel", self.kernel, KERNELS)
        _one_of("midplanes", self.midplanes, MIDPLANES)
        if not self.dilation or min(self.dilation) < 1:
            raise SpecError(f"dilation must be one or more integers of at least 1, but is {list(self.dilation)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One residual block.

    Attributes:
        kind: `basic` is two 3x3 units; `bottleneck` one between two 1x1x1, with four times `width` planes
            out.
        width: Planes of the 3x3 units.
        spatial_stride: Stride over rows and columns, on the first 3x3 unit and the shortcut.
        temporal_stride: Stride over frames, at the same places.
        temporal: Operator of the 3x3 units.
    """

    kind: BlockKind
    width: int
    spatial_stride: int
    temporal_stride: int
    temporal: TemporalOp

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        _one_of("kind", self.kind, tuple(EXPANSION))
        _at_least("width", self.width, 1)
        _at_least("spatial_stride", self.spatial_stride, 1)
        _at_least("temporal_stride", self.temporal_stride, 1)

    @property
    def out_planes(self) -> int:
        """Planes that the block gives."""
        return self.width * EXPANSION[self.kind]


@dataclass(frozen=True, kw_only=True, slots=True)
class Stem:
    """The layers before the first residual block.

    Attributes:
        kind: `conv` is one convolution; `2plus1d` a spatial one, BN, ReLU and a temporal one.
        width: Planes out.
        midplanes: Planes between the two convolutions of `2plus1d`; unused by `conv`.
        temporal_kernel: In frames; odd where padded.
        spatial_kernel: In pixels; odd.
        spatial_stride: Stride over rows and columns.
        temporal_stride: Stride over frames.
        temporal_padding: Pad so that frames are kept; without, a kernel of all L frames makes them one (R2D).
        pool: `max` appends a 1x3x3 max pool of stride (1, 2, 2).
    """

    kind: StemKind = "conv"
    width: int
    midplanes: int = 0
    temporal_kernel: int
    spatial_kernel: int
    spatial_stride: int
    temporal_stride: int = 1
    temporal_padding: bool = True
    pool: Pool = "none"

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        _one_of("kind", self.kind, ("conv", "2plus1d"))
        _one_of("pool", self.pool, ("none", "max"))
        for name in ("width", "temporal_kernel", "spatial_kernel", "spatial_stride", "temporal_stride"):
            _at_least(name, getattr(self, name), 1)
        _at_least("midplanes", self.midplanes, 1 if self.kind == "2plus1d" else 0)
        if self.spatial_kernel % 2 == 0:
            raise SpecError(f"spatial_kernel must be odd, but is {self.spatial_kernel}")
        if self.temporal_padding and self.temporal_kernel % 2 == 0:
            raise SpecError(f"temporal_kernel must be odd where it is padded, but is {self.temporal_kernel}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Blocks at one level of the network (conv2, conv3, ... in the papers)."""

    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        """Raises SpecError if there is no block."""
        if not self.blocks:
            raise SpecError("blocks must hold at least 1 block, but is empty")


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchSpec:
    """A network: what `build` needs besides the number of classes.

    Attributes:
        family: Which builder of the catalogue; at present `resnet`.
        stem: Layers before the first block.
        stages: Residual stages in order.
    """

    family: str = "resnet"
    stem: Stem
    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        """Raises SpecError if there is no stage."""
        if not self.stages:
            raise SpecError("stages must hold at least 1 stage, but is empty")

    def walk(self) -> Iterator[tuple[int, int, int, Block]]:
        """Yields (stage index, block index, planes into the block, block) in order."""
        planes = self.stem.width
        for s, stage in enumerate(self.stages):
            for b, block in enumerate(stage.blocks):
                yield s, b, planes, block
                planes = block.out_planes


@lru_cache(maxsize=4096)
def midplanes(kernel: int, in_planes: int, out_planes: int) -> int:
    """Width M that gives kernel-by-3-by-3 and (2+1)D the same number of weights.

    M = floor(9 k Ni No / (9 Ni + k No)), Tran et al. 2018, section 3.5 with d = 3 and t = k.
    """
    return (9 * kernel * in_planes * out_planes) // (9 * in_planes + kernel * out_planes)


def block_midplanes(block: Block, in_planes: int) -> tuple[int, ...]:
    """Midplanes of every 3x3 unit of a block, were it (2+1)D.

    Args:
        block: The block.
        in_planes: Planes into it.

    Returns:
        Two numbers for a basic block, one for a bottleneck. The shared convention takes torchvision's, whose
        bottleneck computes M from the planes into the block although its 3x3 unit sees `width` planes.
    """
    kernel, width = block.temporal.kernel, block.width
    ins = (in_planes, width) if block.kind == "basic" else (width,)
    if block.temporal.midplanes == "shared":
        return (midplanes(kernel, in_planes, width),) * len(ins)
    return tuple(midplanes(kernel, planes, width) for planes in ins)


@lru_cache(maxsize=65536)
def canonical_block(block: Block, in_planes: int) -> Block:
    """The block without what has no effect, given the planes into it."""
    op = block.temporal
    if op.kind == "2d" or (op.kind == "3d" and op.kernel == 1):
        # The default kernel rather than 1, so that an edit of `kind` alone makes such a block temporal.
        return replace(block, temporal=TemporalOp(kind="2d"))
    dilation = tuple(sorted(set(op.dilation))) if op.kernel > 1 else (1,)
    convention: Midplanes = "per_conv"
    if op.kind == "2plus1d" and op.midplanes == "shared":
        paper = replace(block, temporal=replace(op, midplanes="per_conv"))
        if block_midplanes(block, in_planes) != block_midplanes(paper, in_planes):
            convention = "shared"
    return replace(block, temporal=replace(op, dilation=dilation, midplanes=convention))


@lru_cache(maxsize=4096)
def canonical_stem(stem: Stem) -> Stem:
    """The stem without what has no effect."""
    return replace(
        stem,
        midplanes=stem.midplanes if stem.kind == "2plus1d" else 0,
        temporal_padding=stem.temporal_padding or stem.temporal_kernel == 1,
    )


def canonicalise(spec: ArchSpec) -> ArchSpec:
    """Returns the one spec that stands for all specs of the same network.

    What has no effect takes its default: kernel, dilation and midplanes of a 2d operator; a 3d one of kernel
    1 is 2d; dilation of a kernel of 1; dilation is sorted without repeats; shared midplanes are per
    convolution where both conventions give the same planes; midplanes and padding of a stem where unused.
    """
    blocks: list[list[Block]] = [[] for _ in spec.stages]
    for s, _, planes, block in spec.walk():
        blocks[s].append(canonical_block(block, planes))
    return ArchSpec(
        family=spec.family,
        stem=canonical_stem(spec.stem),
        stages=tuple(Stage(blocks=tuple(group)) for group in blocks),
    )


def _at_least(field: str, value: int, low: int) -> None:
    if value < low:
        raise SpecError(f"{field} must be at least {low}, but is {value}")


def _one_of(field: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        raise SpecError(f"{field} must be one of its choices, but is {value}{nearest(value, choices)}")
