"""C3D: eight convolutions of one kind, five pools, three linear layers. The smallest family, in one file.

Tran et al. 2015, "Learning Spatiotemporal Features with 3D Convolutional Networks", section 3.2
(https://arxiv.org/abs/1412.0767). The original has biases and no norms; with norms it can be trained from scratch.
Its first linear layer sees a grid of 1x4x4 cells, which is what a clip of 16x112x112 leaves; maps of other sizes are
averaged to that grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import groupby
from math import prod
from typing import Literal

from search_spaces.domains import At, Choice, Declared, Pick
from search_spaces.errors import SpecError, at_least, one_of
from search_spaces.families.labels import read_factor
from search_spaces.family import Family, Preset
from search_spaces.graph import (
    Activation,
    AdaptiveAvgPool,
    Convolution,
    Dropout,
    Flatten,
    GraphBuilder,
    Layer,
    Linear,
    Link,
    Unit,
    join,
)
from search_spaces.operators import FLAT, KERNELS, PORT_KINDS, TemporalOp, canonical_op
from search_spaces.parts import Conv, Pool
from search_spaces.spec import ArchSpec, scale

KINDS = ("2d", "3d", "p3d_a", "p3d_b", "p3d_c", *PORT_KINDS)
_GROUPS = (1, 1, 2, 2, 2)  # convolutions before each pool
_WIDTHS = (64, 128, 256, 512, 512)
_GRID = (1, 4, 4)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvLayer:
    """One convolution and its ReLU.

    Attributes:
        width: Planes out.
        temporal: Its operator; those of P3D need norms.
    """

    width: int
    temporal: TemporalOp

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        at_least("width", self.width, 1)
        one_of("temporal.kind", self.temporal.kind, KINDS)


@dataclass(frozen=True, kw_only=True, slots=True)
class C3DSpec(ArchSpec):
    """A C3D.

    Attributes:
        family: `c3d`.
        layers: The eight convolutions; pools follow the first, second, fourth, sixth and last.
        fc_width: Features of the two linear layers before the classifier.
        norm: Batch norm after each convolution.
    """

    family: Literal["c3d"] = "c3d"
    layers: tuple[ConvLayer, ...]
    fc_width: int = 4096
    norm: bool = False

    def __post_init__(self) -> None:
        """Raises SpecError where a value is out of range."""
        at_least("fc_width", self.fc_width, 1)
        if len(self.layers) != sum(_GROUPS):
            raise SpecError(f"layers must hold {sum(_GROUPS)} convolutions, but hold {len(self.layers)}")
        for i, layer in enumerate(self.layers):
            if not self.norm and (layer.temporal.kind not in ("2d", "3d") or len(layer.temporal.dilation) > 1):
                raise SpecError(f"layers.{i}.temporal needs norm, unless it is 2d or 3d of one dilation")

    def canonical(self) -> C3DSpec:
        """Returns the spec with canonical operators."""
        return replace(self, layers=tuple(replace(x, temporal=canonical_op(x.temporal)) for x in self.layers))

    def links(self, *, num_classes: int, dropout: float = 0.0, planes: int = 3) -> tuple[Link, ...]:
        """Returns convolutions, pools and the linear layers."""
        links: list[Link] = []
        layers = iter(self.layers)
        for group, count in enumerate(_GROUPS):
            for i in range(count):
                layer = next(layers)
                links.append(Link(f"conv{group + 1}.{i}", _unit(planes, layer, self.norm)))
                planes = layer.width
            size = (1 if group == 0 else 2, 2, 2)
            padding = (0, 1, 1) if group == len(_GROUPS) - 1 else (0, 0, 0)
            links.append(Link(f"pool{group + 1}", Pool(kernel=size, stride=size, padding=padding)))
        return (*links, Link("head", C3DHead(planes, self.fc_width, num_classes, dropout)))

    def describe(self) -> str:
        """Returns the layers as width and operator."""
        texts = [f"{x.width} {_op_text(x.temporal)}" for x in self.layers]
        runs = [(text, len(list(group))) for text, group in groupby(texts)]
        layers = ", ".join(f"{text} x{n}" if n > 1 else text for text, n in runs)
        return f"c3d {layers} | fc {self.fc_width}{' | norm' if self.norm else ''}"

    def rows(self) -> list[dict[str, object]]:
        """Returns one row for each convolution."""
        widths = (3, *(x.width for x in self.layers))
        return [
            {
                "site": f"layers.{i}",
                "block": "conv",
                "in": widths[i],
                "out": x.width,
                "operator": x.temporal.kind,
                "kernel": f"{1 if x.temporal.kind == '2d' else x.temporal.kernel}x3x3",
                "dilation": "|".join(map(str, x.temporal.dilation)),
                "stride": "1x1x1",
            }
            for i, x in enumerate(self.layers)
        ]

    def scaled(self, multiplier: float, *, multiple: int = 8) -> C3DSpec:
        """Returns the network with all widths times a multiplier."""
        layers = tuple(replace(x, width=scale(x.width, multiplier, multiple)) for x in self.layers)
        return replace(self, layers=layers, fc_width=scale(self.fc_width, multiplier, multiple))


@dataclass(frozen=True, kw_only=True, slots=True)
class BiasedConv(Unit):
    """A convolution with bias and ReLU, without norm."""

    in_planes: int
    out_planes: int
    kernel: int
    dilation: int

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws its layers."""
        k = self.kernel
        conv = Convolution(
            self.in_planes, self.out_planes, (k, 3, 3), padding=(k // 2, 1, 1), dilations=(self.dilation,), bias=True
        )
        return (builder.add(Activation(), builder.add(conv, *inputs, name=join(name, "0")), name=join(name, "1")),)


@dataclass(frozen=True, slots=True)
class C3DHead(Unit):
    """Averaging to the grid, two linear layers with ReLU and dropout, and the classifier."""

    in_planes: int
    width: int
    num_classes: int
    dropout: float = 0.0

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws its layers, under the names that they have in a row of them all."""
        features = prod(_GRID) * self.in_planes
        layers: tuple[Layer, ...] = (
            AdaptiveAvgPool(_GRID),
            Flatten(),
            Linear(features, self.width),
            Activation(),
            Dropout(self.dropout),
            Linear(self.width, self.width),
            Activation(),
            Dropout(self.dropout),
            Linear(self.width, self.num_classes),
        )
        (x,) = inputs
        for i, layer in enumerate(layers):
            x = builder.add(layer, x, name=join(name, str(i)) if i > 1 else "", scope=name)
        return (x,)


@lru_cache(maxsize=4096)
def _unit(in_planes: int, layer: ConvLayer, norm: bool) -> Conv | BiasedConv:
    op = layer.temporal
    if norm:
        return Conv(in_planes=in_planes, out_planes=layer.width, op=op)
    kernel = 1 if op.kind == "2d" else op.kernel
    return BiasedConv(in_planes=in_planes, out_planes=layer.width, kernel=kernel, dilation=op.dilation[0])


def _op_text(op: TemporalOp) -> str:
    text = op.kind if op == FLAT else f"{op.kind}.{op.kernel}"
    return text if op.dilation == (1,) else f"{text} d{'|'.join(map(str, op.dilation))}"


def make_c3d(*, op: TemporalOp, width: float = 1.0, cut: int = 0, norm: bool = False) -> C3DSpec:
    """Returns a C3D whose convolutions from index `cut` on have the operator, those before being 2D."""
    widths = [w for w, count in zip(_WIDTHS, _GROUPS, strict=True) for _ in range(count)]
    layers = tuple(ConvLayer(width=scale(w, width), temporal=op if i >= cut else FLAT) for i, w in enumerate(widths))
    return C3DSpec(layers=layers, fc_width=scale(4096, width), norm=norm).canonical()


def _make(pick: Pick) -> C3DSpec:
    op = TemporalOp(kind=pick("kind"), kernel=pick("kernel"))  # type: ignore[arg-type]
    return make_c3d(op=op, width=float(pick("width")), cut=int(pick("cut")), norm=pick("norm") == "batch")


def _temporal(at: At) -> bool:
    return at("kind") != "2d" and at("cut") != sum(_GROUPS)


DOMAINS = Declared(
    (
        Choice(name="width", default=1.0, read=partial(read_factor, "width")),
        Choice(name="norm", default="none", valid=("none", "batch")),
        Choice(
            name="kind",
            default="3d",
            valid=KINDS,
            fits=lambda kind, at: kind in ("2d", "3d") or at("norm") == "batch",
            needs=("norm",),
        ),
        Choice(
            name="cut",
            default=0,
            valid=tuple(range(sum(_GROUPS) + 1)),
            when=lambda at: at("kind") != "2d",
            needs=("kind",),
        ),
        Choice(name="kernel", default=3, valid=KERNELS, when=_temporal, needs=("kind", "cut")),
    ),
    counts=lambda at: (1,),
    make=_make,
)


FAMILY = Family(
    name="c3d",
    spec=C3DSpec,
    domains=DOMAINS,
    presets=(
        Preset(
            name="c3d",
            family="c3d",
            paper="Tran et al. 2015, Learning Spatiotemporal Features with 3D Convolutional Networks",
            year=2015,
            clip=(16, 112, 112),
            make=lambda frames: make_c3d(op=TemporalOp(kind="3d")),
        ),
    ),
    least_clip=(16, 32, 32),
    sample=lambda: {
        "domains": {
            "width": [0.0625, 0.125],
            "norm": ["none", "batch"],
            "kind": list(KINDS),
            "cut": [0, 2, 5, 8],
            "kernel": [1, 3, 5],
        }
    },
)
