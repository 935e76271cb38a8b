"""Inception-v1 networks for clips as values, and as text: I3D, S3D, S3D-G and all between them.

Carreira and Zisserman 2017, "Quo Vadis, Action Recognition?" (https://arxiv.org/abs/1705.07750), figure 3, for the
layout; Xie et al. 2018, "Rethinking Spatiotemporal Feature Learning" (https://arxiv.org/abs/1712.04851), for separable
convolutions, gates, and networks that are temporal in part.

Layers are numbered as in Inception-v1: conv1 (7x7), conv2b (1x1), conv2c (3x3), mixed blocks 3b, 3c; 4b to 4f; 5b, 5c,
with a max pool behind conv1 and conv2c and before 4b and 5b.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Literal

from search_spaces.errors import SpecError, at_least, one_of, within
from search_spaces.families.inception.units import (
    PADDINGS,
    SEPARABLE,
    FramePool,
    LocalHead,
    Padding,
    Separable,
    conv,
    op_text,
    row,
    runs,
    with_attention,
)
from search_spaces.families.inception.v1_blocks import (
    WIDTHS,
    First,
    Mixed,
    MixedUnit,
    Second,
    Stage,
    canonical_first,
    canonical_second,
    canonical_stage,
    pool_unit,
    scaled_block,
)
from search_spaces.graph import Link
from search_spaces.operators import ADDED, FLAT
from search_spaces.parts import Attend
from search_spaces.spec import ArchSpec, Twin, number_text, scale

if TYPE_CHECKING:
    from torch import nn


_FIRST = (64, 64, 192)

# Multiples of the published widths that have a short name.
_TIMES = tuple(i / 16 for i in range(1, 33))


def describe(spec: InceptionV1Spec) -> str:
    """Returns one line that differs wherever specs differ.

    For example `inception_v1 x1 | conv1 t/2 3d.7, 2c-5c 3d.3 | pools 1/1 1/1 3/2 2/2`: widths as a multiple of the
    published ones (all of them where they are none), operators of runs of layers, frames and strides of pools.
    """
    text = f"{spec.family} {_width_text(spec)} | conv1"
    if spec.conv1.temporal_stride > 1:
        text += f" t/{spec.conv1.temporal_stride}"
    named = [("2c", with_attention(op_text(spec.conv2c.temporal), spec.conv2c.attention))]
    named += [(name(s, b), _block_text(block)) for s, b, _, block in spec.walk()]
    pools = " ".join(f"{p.kernel}/{p.stride}" for p in (spec.pool1, *(stage.pool for stage in spec.stages)))
    text += f" {op_text(spec.conv1.temporal)}, {runs(named)} | pools {pools}"
    if spec.separable != "norm_both":
        text += f" | {spec.separable}"
    if spec.padding != "symmetric":
        text += f" | {spec.padding} padding"
    return text if spec.norm_momentum == 0.1 else f"{text} | momentum {number_text(spec.norm_momentum)}"


def rows(spec: InceptionV1Spec) -> list[dict[str, object]]:
    """Returns one row for each convolution before the blocks, each pool and each block."""
    first, second = spec.conv1, spec.conv2c
    op = second.temporal
    out = [
        row("conv1", "7x7", 3, first.width, first.temporal, "7x7", f"{first.temporal_stride}x2x2"),
        _pool_row("pool1", first.width, spec.pool1),
        row("conv2b", "1x1", first.width, spec.conv2b, FLAT, "1x1"),
        row("conv2c", "3x3", spec.conv2b, second.width, op, "3x3", attention=second.attention),
    ]
    for s, b, in_planes, block in spec.walk():
        if b == 0:
            out.append(_pool_row(f"stages.{s}.pool", in_planes, spec.stages[s].pool, last=s == 2))
        site, op = f"stages.{s}.blocks.{b}", block.temporal
        kind = f"mixed {name(s, b)} {'in all branches' if block.all_branches else ''}".strip()
        out.append(row(site, kind, in_planes, block.out_planes, op, "3x3", attention=block.attention))
    return out


def name(s: int, b: int) -> str:
    """Returns a block's name in Inception-v1, such as `4b`."""
    return f"{s + 3}{chr(ord('b') + b)}"


def _width_text(spec: InceptionV1Spec) -> str:
    first = (spec.conv1.width, spec.conv2b, spec.conv2c.width)
    blocks = tuple(tuple(block.widths for block in stage.blocks) for stage in spec.stages)
    for times in _TIMES:
        if (first, blocks) == _published(times):
            return f"x{times:g}"
    texts = ("-".join(map(str, widths)) for widths in (first, *(widths for stage in blocks for widths in stage)))
    return " ".join(texts)


@lru_cache(maxsize=1024)
def _published(times: float) -> tuple[tuple[int, ...], tuple[tuple[tuple[int, ...], ...], ...]]:
    first = tuple(scale(width, times) for width in _FIRST)
    return first, tuple(tuple(tuple(scale(w, times) for w in block) for block in stage) for stage in WIDTHS)


def _block_text(block: Mixed) -> str:
    text = op_text(block.temporal)
    return with_attention(f"{text} all" if block.all_branches else text, block.attention)


def _pool_row(site: str, planes: int, pool: FramePool, *, last: bool = False) -> dict[str, object]:
    kernel = f"{pool.kernel}x{'2x2' if last else '3x3'}"
    return {**row(site, "pool", planes, planes, FLAT, "", f"{pool.stride}x2x2"), "operator": "max", "kernel": kernel}


# Convolutions of a mixed block by branch and position, and torchvision's names of them.
_TWINS = {
    "0.0": "branch1",
    "1.0": "branch2.0",
    "1.1": "branch2.1",
    "2.0": "branch3.0",
    "2.1": "branch3.1",
    "3.1": "branch4.1",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class InceptionV1Spec(ArchSpec):
    """An Inception-v1 network for clips.

    Attributes:
        family: `inception_v1`.
        conv1: The first layer.
        pool1: What the 3x3 max pool behind it does to frames.
        conv2b: Planes of the 1x1x1 convolution.
        conv2c: The 3x3 convolution behind it.
        stages: Three stages: blocks 3b and on, 4b and on, 5b and on.
        separable: What `p3d_a` operators are: `norm_both` has norm and ReLU behind both convolutions (torchvision);
            `norm_spatial` behind the spatial one alone, with bias and ReLU behind the temporal one, which begins as the
            identity (TF slim).
        norm_momentum: Share of a batch in the running statistics of norms. TF slim and torchvision have 0.001: the
            statistics then follow the weights only after thousands of steps.
        padding: Of layers with a stride: `symmetric`, as torchvision has it, or TensorFlow's `same`, with which I3D and
            slim's S3D were released. On an even size the latter's windows lie one pixel or frame further on.
    """

    family: Literal["inception_v1"] = "inception_v1"
    conv1: First
    pool1: FramePool
    conv2b: int
    conv2c: Second
    stages: tuple[Stage, ...]
    separable: Separable = "norm_both"
    norm_momentum: float = 0.1
    padding: Padding = field(default="symmetric", metadata=ADDED)

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        at_least("conv2b", self.conv2b, 1)
        one_of("separable", self.separable, SEPARABLE)
        one_of("padding", self.padding, PADDINGS)
        if len(self.stages) != 3:
            raise SpecError(f"stages must hold 3 stages, but hold {len(self.stages)}")
        within("norm_momentum", self.norm_momentum)

    def walk(self) -> Iterator[tuple[int, int, int, Mixed]]:
        """Yields (stage index, block index, planes into the block, block) in order."""
        planes = self.conv2c.width
        for s, stage in enumerate(self.stages):
            for b, block in enumerate(stage.blocks):
                yield s, b, planes, block
                planes = block.out_planes

    def canonical(self) -> InceptionV1Spec:
        """Returns the one spec that stands for all specs of the same network.

        Operators take their canonical form; a 2D block has no time in any branch; `separable` is `norm_both` where
        there is no `p3d_a` operator.
        """
        ops = (self.conv1.temporal, self.conv2c.temporal, *(block.temporal for *_, block in self.walk()))
        form = self.separable if any(op.kind == "p3d_a" for op in ops) else "norm_both"
        return replace(
            self,
            conv1=canonical_first(self.conv1, form),
            conv2c=canonical_second(self.conv2c, form),
            stages=tuple(canonical_stage(stage, form) for stage in self.stages),
            separable=form,
        )

    def links(self, *, num_classes: int, dropout: float = 0.0, planes: int = 3) -> tuple[Link, ...]:
        """Returns convolutions, pools, mixed blocks and the head."""
        form, momentum = self.separable, self.norm_momentum
        first, second = self.conv1, self.conv2c
        op, stride = first.temporal, first.temporal_stride
        make = partial(conv, momentum=momentum, separable=form)
        same = self.padding == "same"
        conv1 = make(planes, first.width, op, kernel=(7, 7), stride=2, temporal_stride=stride, same=same)
        links = [
            Link("conv1", conv1),
            Link("pool1", pool_unit(self.pool1, same=same)),
            Link("conv2b", make(first.width, self.conv2b)),
            Link("conv2c", make(self.conv2b, second.width, second.temporal, kernel=(3, 3))),
        ]
        if second.attention != "none":
            links.append(Link("attention2c", Attend(second.attention, second.width)))
        planes = second.width
        for s, b, in_planes, block in self.walk():
            if b == 0:
                pool = pool_unit(self.stages[s].pool, last=s == len(self.stages) - 1, same=same)
                links.append(Link(f"stages.{s}.pool", pool))
            links.append(Link(f"stages.{s}.{b}", MixedUnit(block, in_planes, form, momentum)))
            planes = block.out_planes
        return (*links, Link("head", LocalHead(planes, num_classes, dropout)))

    def describe(self) -> str:
        """Returns one line that differs wherever specs differ."""
        return describe(self)

    def rows(self) -> list[dict[str, object]]:
        """Returns one row for each convolution before the blocks, each pool and each block."""
        return rows(self)

    def scaled(self, multiplier: float, *, multiple: int = 8) -> InceptionV1Spec:
        """Returns the network with all widths times a multiplier, as multiples of `multiple`."""
        stages = tuple(
            replace(stage, blocks=tuple(scaled_block(block, multiplier, multiple) for block in stage.blocks))
            for stage in self.stages
        )
        return replace(
            self,
            conv1=replace(self.conv1, width=scale(self.conv1.width, multiplier, multiple)),
            conv2b=scale(self.conv2b, multiplier, multiple),
            conv2c=replace(self.conv2c, width=scale(self.conv2c.width, multiplier, multiple)),
            stages=stages,
        ).canonical()

    def initialise(self, network: nn.Module) -> None:
        """Draws initial values, Kaiming by fan-in; slim's temporal convolutions begin as the identity."""
        from search_spaces.modules import initialise_by_fan_in

        initialise_by_fan_in(network)

    def twin(self) -> tuple[Twin, ...]:
        """Returns the layers of torchvision's GoogLeNet, by their names there.

        It has 3x3 convolutions in both branches, as here. Its 3x3 max pools are not padded but round up, so their
        windows lie one row and column further on: the weights fit, the outputs are not the same.
        """
        # In slim's form, the parent's layer is the spatial one; the temporal one is the identity to begin with.
        slim = self.separable == "norm_spatial"
        first, second = (op.kind == "p3d_a" and slim for op in (self.conv1.temporal, self.conv2c.temporal))
        theirs = {"conv1.spatial" if first else "conv1": "conv1", "conv2b": "conv2"}
        theirs["conv2c.spatial" if second else "conv2c"] = "conv3"
        for s, b, _, block in self.walk():
            # Attention behind the block makes it the first of two parts.
            ours = f"stages.{s}.{b}" if block.attention in ("none", "gate") else f"stages.{s}.{b}.0"
            inner = ".spatial" if slim and block.temporal.kind == "p3d_a" else ""
            for at, its in _TWINS.items():
                has_time = at in ("1.1", "2.1") or (block.all_branches and at in ("0.0", "3.1"))
                theirs[f"{ours}.branch{at}{inner if has_time else ''}"] = f"inception{s + 3}{chr(ord('a') + b)}.{its}"
        pairs = [Twin(path, f"{its}.conv", f"{its}.bn") for path, its in theirs.items()]
        # Its auxiliary classifiers have no place here.
        return (*pairs, Twin("head.fc", "fc"), Twin("", "aux1"), Twin("", "aux2"))
