"""Units that families share, each drawn as a graph of layers: convolutions with time (P3D, ...), attention, heads.

Every temporal operator stands where a convolution and its norm stand in a 2D network, keeps T up to its stride, and
brings its norms along. Convolutions have no bias, because a norm follows each of them.

Papers: Tran et al. 2018, "A Closer Look at Spatiotemporal Convolutions for Action Recognition" (2d, 3d, 2plus1d); Qiu
et al. 2017, "Learning Spatio-Temporal Representation with Pseudo-3D Residual Networks" (p3d_a, p3d_b, p3d_c); the
BesNet report of the 2017 ActivityNet challenge (random dilation); Tran et al. 2019, "Video Classification with
Channel-Separated Convolutional Networks" (csn, csn_ip); Hu et al. 2018, "Squeeze-and-Excitation Networks"; Xie et al.
2018, "Rethinking Spatiotemporal Feature Learning" (the gate of S3D-G); Wang et al. 2018, "Non-local Neural Networks".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from search_spaces.errors import SpecError, nearest
from search_spaces.graph import (
    Activation,
    BatchNorm,
    Concat,
    Convolution,
    Dropout,
    GlobalMean,
    GraphBuilder,
    Linear,
    Lookup,
    Maximum,
    Mean,
    Pooling,
    ScaleChannels,
    Sum,
    Triple,
    Unit,
    join,
)
from search_spaces.operators import (
    ATTENTIONS,
    FLAT,
    NONLOCALS,
    NORM_EPS,
    NORM_MOMENTUM,
    POINTWISE_KINDS,
    PORT_KINDS,
    SEPARATED_KINDS,
    Attention,
    TemporalOp,
    squeezed_planes,
)

HeadPool = Literal["avg", "avg_max"]

HEAD_POOLS: tuple[HeadPool, ...] = ("avg", "avg_max")


class NormConfig(NamedTuple):
    """Settings of batch norms.

    Attributes:
        eps: Added to the variance.
        momentum: Share of a batch in the running statistics.
        relu_first: Where a unit has both, its ReLU comes before its norm.
    """

    eps: float = NORM_EPS
    momentum: float = NORM_MOMENTUM
    relu_first: bool = False

    def layer(self, planes: int, *, last: bool = False) -> BatchNorm:
        """Returns a norm with these settings."""
        return BatchNorm(planes, self.eps, self.momentum, last)


NORMS = NormConfig()


def conv_norm(
    builder: GraphBuilder,
    x: int,
    name: str,
    conv: Convolution,
    *,
    act: bool,
    norms: NormConfig = NORMS,
    last: bool = False,
) -> int:
    """Draws a convolution, its norm and, with `act`, a ReLU: `conv` and `norm` under the name."""
    return normed(
        builder, builder.add(conv, x, name=join(name, "conv")), name, conv.out_planes, act=act, norms=norms, last=last
    )


def normed(
    builder: GraphBuilder,
    x: int,
    name: str,
    planes: int,
    *,
    act: bool = False,
    norms: NormConfig = NORMS,
    last: bool = False,
) -> int:
    """Draws the norm behind a convolution and, with `act`, a ReLU."""
    norm = norms.layer(planes, last=last)
    if act and norms.relu_first:
        x = relu(builder, x, name)
    x = builder.add(norm, x, name=join(name, "norm"))
    return relu(builder, x, name) if act and not norms.relu_first else x


def relu(builder: GraphBuilder, x: int, name: str = "") -> int:
    """Draws a ReLU, `act` under the name; in place, as convolutions and norms keep their inputs and no outputs."""
    return builder.add(Activation(), x, name=join(name, "act"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Conv(Unit):
    """A spatial convolution with its temporal form, norm and ReLU.

    The three P3D blocks are A: relu(T(S(x))); B: relu(S(x) + T(x)); C: relu(S(x) + T(S(x))). S is 1x3x3, norm, ReLU and
    T is kx1x1 and norm: so it stands in all blocks of the authors' prototxt, and T can take away from S. In the blocks
    of the port, T has a ReLU of its own and the sum has none: relu(S) + relu(T). With `act=False` the unit closes the
    residual branch of a basic block, a place that the paper does not have (its blocks are bottlenecks, with a 1x1x1
    behind). There no ReLU stands before or behind the sum: the branch could only ever add to the shortcut, never take
    away from it, and the ReLU after the shortcut's addition would do nothing. T still sees a rectified S in A and C.
    Where ReLUs come before norms, S and T each have theirs, and none follows the sum. The temporal stride is on T in A;
    B needs both strides on both paths; C adds S to T(S), so S has both.

    Attributes:
        in_planes: Planes in.
        out_planes: Planes out.
        kernel: Rows and columns of the spatial kernel.
        op: How it gets time. A pointwise kind leaves this convolution as it is.
        spatial_stride: Stride over rows and columns.
        temporal_stride: Stride over frames.
        padding: Rows and columns of zeros on each side; None keeps the size.
        midplanes: Planes between the two convolutions of `2plus1d`.
        act: ReLU behind.
        norms: Settings of the norms.
        pad_frames: Pad over frames, so that T is kept up to the stride; else it becomes (T - k) // stride + 1.
        same: TensorFlow's SAME padding; see `operators.same_padding`. Without stride it is what the unit has anyway,
            for an odd kernel. With one, it depends on the size of the input: windows of an even size lie one place
            further on than symmetric padding has them.
        last: It ends a residual branch.
    """

    in_planes: int
    out_planes: int
    kernel: tuple[int, int] = (3, 3)
    op: TemporalOp = FLAT
    spatial_stride: int = 1
    temporal_stride: int = 1
    padding: tuple[int, int] | None = None
    midplanes: int = 0
    act: bool = True
    norms: NormConfig = NORMS
    pad_frames: bool = True
    same: bool = False
    last: bool = False

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws its layers.

        Raises:
            SpecError: A channel-separated convolution would change the number of planes, or the spatial convolution of
                P3D-B is not padded to keep the size, so that S and T would differ in theirs.
        """
        (x,), kind = inputs, self.op.kind
        if kind == "2d" or kind in POINTWISE_KINDS:
            return (self._ended(builder, x, name, self.spatial(self._strides)),)
        builder.mark(name, self.op, self.midplanes)
        if kind == "3d":
            whole = replace(self.spatial(self._strides, frames=self.op.kernel), dilations=self.op.dilation)
            return (self._ended(builder, x, name, whole),)
        if kind in SEPARATED_KINDS:
            return (self._separated(builder, x, name),)
        if kind == "2plus1d":
            return (self._factorised(builder, x, name),)
        if self.op.form == "a":
            return (self._sequential(builder, x, name),)
        assert self.op.form in ("b", "c"), f"nobody draws {kind}"
        return (self._summed(builder, x, name),)

    @property
    def _strides(self) -> Triple:
        return self.temporal_stride, self.spatial_stride, self.spatial_stride

    def _ended(self, builder: GraphBuilder, x: int, name: str, conv: Convolution) -> int:
        """Draws a convolution with the norm and the ReLU that end the unit."""
        return conv_norm(builder, x, name, conv, act=self.act, norms=self.norms, last=self.last)

    def _separated(self, builder: GraphBuilder, x: int, name: str) -> int:
        """Draws a convolution of each plane alone; in `csn_ip` behind a 1x1x1 convolution, so that planes meet."""
        planes, op = self.in_planes, self.op
        if planes != self.out_planes:
            raise SpecError(f"{op.kind} must keep the number of planes, but is asked for {planes} to {self.out_planes}")
        depthwise = replace(self.spatial(self._strides, frames=op.kernel), dilations=op.dilation, groups=planes)
        if op.kind == "csn":
            return self._ended(builder, x, name, depthwise)
        inner = join(name, "conv")
        x = builder.add(Convolution(planes, planes), x, name=join(inner, "mix"))
        x = builder.add(self.norms.layer(planes), x, name=join(inner, "norm"))
        x = builder.add(depthwise, x, name=join(inner, "conv"))
        return normed(builder, x, name, planes, act=self.act, norms=self.norms, last=self.last)

    def _factorised(self, builder: GraphBuilder, x: int, name: str) -> int:
        """Draws (2+1)D: spatial convolution, norm, ReLU, temporal convolution; or the temporal one first."""
        before, mid, after, time_first = self.in_planes, self.midplanes, self.out_planes, self.op.time_first
        (t, h, w), early, late = self._strides, (before, mid), (mid, after)
        temporal = self.temporal(*(early if time_first else late), (t, 1, 1))
        spatial = self.spatial((1, h, w), planes=late if time_first else early)
        out = factorised(builder, x, join(name, "conv"), spatial, temporal, norms=self.norms, time_first=time_first)
        return normed(builder, out, name, after, act=self.act, norms=self.norms, last=self.last)

    def _sequential(self, builder: GraphBuilder, x: int, name: str) -> int:
        """Draws P3D-A, T behind S, which has a ReLU also where the unit has none."""
        t, h, w = self._strides
        x = conv_norm(builder, x, join(name, "spatial"), self.spatial((1, h, w)), act=True, norms=self.norms)
        temporal = self.temporal(self.out_planes, self.out_planes, (t, 1, 1))
        return self._ended(builder, x, join(name, "temporal"), temporal)

    def _summed(self, builder: GraphBuilder, x: int, name: str) -> int:
        """Draws P3D-B and C: S, and T beside or behind it, added up."""
        op, act, parallel = self.op, self.act, self.op.form == "b"
        if parallel and self.padding not in (None, (self.kernel[0] // 2, self.kernel[1] // 2)):
            raise SpecError(f"{op.kind} needs a spatial convolution that keeps the size, so padding, but it has none")
        s = self._ended(builder, x, join(name, "spatial"), self.spatial(self._strides))
        if parallel:
            seen, temporal = x, self.temporal(self.in_planes, self.out_planes, self._strides)
        else:
            # Not in place: without act, the sum needs S as it was.
            seen = s if act else builder.add(Activation(in_place=False), s, scope=name)
            temporal = self.temporal(self.out_planes, self.out_planes)
        relu_on_t = act and (op.kind in PORT_KINDS or self.norms.relu_first)
        t = conv_norm(builder, seen, join(name, "temporal"), temporal, act=relu_on_t, norms=self.norms, last=self.last)
        out = builder.add(Sum(), s, t, scope=name)
        return relu(builder, out, name) if act and not relu_on_t else out

    def spatial(self, stride: Triple, *, planes: tuple[int, int] | None = None, frames: int = 1) -> Convolution:
        """Returns a convolution over rows, columns and `frames`, by default from its planes in to its planes out."""
        before, after = planes or (self.in_planes, self.out_planes)
        rows, columns = (self.kernel[0] // 2, self.kernel[1] // 2) if self.padding is None else self.padding
        padding = (frames // 2 if self.pad_frames else 0, rows, columns)
        return Convolution(before, after, (frames, *self.kernel), stride, padding, same=self.same)

    def temporal(self, before: int, after: int, stride: Triple = (1, 1, 1)) -> Convolution:
        """Returns the convolution over frames alone."""
        k = self.op.kernel
        padding = (k // 2 if self.pad_frames else 0, 0, 0)
        return Convolution(before, after, (k, 1, 1), stride, padding, dilations=self.op.dilation, same=self.same)


def factorised(
    builder: GraphBuilder,
    x: int,
    name: str,
    spatial: Convolution,
    temporal: Convolution,
    *,
    norms: NormConfig = NORMS,
    time_first: bool = False,
) -> int:
    """Draws two convolutions with a norm and a ReLU between them, in the place of one: (2+1)D.

    Parameters of the spatial one are registered first, also where the temporal one runs first.
    """
    s = builder.add(spatial, x, name=join(name, "spatial"))
    mid = normed(builder, s, name, temporal.out_planes if time_first else spatial.out_planes, act=True, norms=norms)
    t = builder.add(temporal, mid, name=join(name, "temporal"))
    if not time_first:
        return t
    first = s + 1  # of norm and ReLU, that which comes first
    builder.rewire(t, x)
    builder.rewire(first, t)
    builder.rewire(s, mid)
    return s


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool(Unit):
    """A max or average pool over (T, H, W).

    Attributes:
        kind: `max` or `avg`.
        kernel: Kernel over (T, H, W).
        stride: Stride over (T, H, W).
        padding: Padding on each side of (T, H, W).
        ceil: Round sizes up instead of down.
        same: TensorFlow's SAME padding, of a max pool.
    """

    kind: Literal["max", "avg"] = "max"
    kernel: Triple
    stride: Triple
    padding: Triple = (0, 0, 0)
    ceil: bool = False
    same: bool = False

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws the pool."""
        layer = Pooling(self.kind, self.kernel, self.stride, self.padding, self.ceil, self.same)
        return (builder.add(layer, *inputs, name=join(name, "pool")),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain(Unit):
    """Units one after the other, under the names 0, 1, ..."""

    parts: tuple[Unit, ...]

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws them."""
        for i, part in enumerate(self.parts):
            inputs = part.draw(builder, *inputs, name=join(name, str(i)))
        return inputs


@dataclass(frozen=True, kw_only=True, slots=True)
class Branches(Unit):
    """Branches side by side, each a chain of units under the names `branch0.0`, ...; their planes are joined."""

    branches: tuple[tuple[Unit, ...], ...]

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws them."""
        ends = (
            Chain(parts=parts).draw(builder, *inputs, name=join(name, f"branch{i}"))
            for i, parts in enumerate(self.branches)
        )
        return (builder.add(Concat(), *(end for (end,) in ends), scope=name),)


@dataclass(frozen=True, slots=True)
class Attend(Unit):
    """Attention on planes: (C, T, H, W) to the same shape, put behind what it reweighs.

    Squeeze-excitation: x * sigmoid(W2 relu(W1 mean(x))), the mean over space and time. The gate of S3D-G: x * sigmoid(W
    mean(x)), W a matrix without bias. A non-local block: x + BN(W y), y at each position a mean over all positions,
    weighted by similarity: the embedded Gaussian of section 3.2 with the bottleneck and the subsampling of section 3.3,
    as in the authors' released code: half the planes inside, products scaled by the root of their length, keys and
    values taken from x after a max pool of 2x2 pixels. Differences: a map below 4x4 is not subsampled, since hardly a
    key would be left, and of the convolutions' biases only that of the queries is there: softmax and norm cancel all
    others.

    Attributes:
        kind: Its kind.
        planes: Planes in and out.
        hidden: Planes between the two layers of squeeze-excitation; 0 is `squeezed_planes`.
    """

    kind: Attention
    planes: int
    hidden: int = 0

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws the unit; `none` is its input.

        Raises:
            SpecError: There is no such kind.
        """
        (x,), kind, planes = inputs, self.kind, self.planes
        if kind == "none":
            return inputs
        if kind in NONLOCALS:
            return (self._non_local(builder, x, name),)
        if kind not in ("se", "gate"):
            raise SpecError(f"attention must be one of its choices, but is {kind}{nearest(kind, ATTENTIONS)}")
        at = builder.add(Mean((1, 2, 3)), x, scope=name)
        if kind == "se":
            hidden = self.hidden or squeezed_planes(planes)
            at = builder.add(Linear(planes, hidden), at, name=join(name, "fc1"))
            at = builder.add(Linear(hidden, planes), relu(builder, at, name), name=join(name, "fc2"))
        else:
            at = builder.add(Linear(planes, planes, bias=False), at, name=join(name, "fc"))
        return (builder.add(ScaleChannels(), x, builder.add(Activation("sigmoid"), at, scope=name), scope=name),)

    def _non_local(self, builder: GraphBuilder, x: int, name: str) -> int:
        planes, inside = self.planes, max(1, self.planes // 2)
        seen = builder.add(Pooling("max", (1, 2, 2), (1, 2, 2), least=4), x, scope=name)
        query = builder.add(Convolution(planes, inside, bias=self.kind == "nonlocal"), x, name=join(name, "query"))
        key = builder.add(Convolution(planes, inside), seen, name=join(name, "key"))
        value = builder.add(Convolution(planes, inside), seen, name=join(name, "value"))
        found = builder.add(Lookup(), query, key, value, name=join(name, "lookup"))
        out = builder.add(Convolution(inside, planes), found, name=join(name, "out"))
        norm = BatchNorm(planes, last=True, faint=True)
        return builder.add(Sum(), x, builder.add(norm, out, name=join(name, "norm")), scope=name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Head(Unit):
    """Pooling over space and time, dropout, linear classifier.

    Attributes:
        in_planes: Planes in.
        num_classes: Classes.
        dropout: Share of features dropped in training.
        pool: `avg` over space and time, or `avg_max`: average over space, then maximum over time.
    """

    in_planes: int
    num_classes: int
    dropout: float = 0.0
    pool: HeadPool = "avg"

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws the head."""
        if self.pool == "avg":
            features = builder.add(GlobalMean(), *inputs, scope=name)
        else:
            features = builder.add(Maximum(1), builder.add(Mean((2, 3)), *inputs, scope=name), scope=name)
        return (classifier(builder, features, self.in_planes, self.num_classes, dropout=self.dropout, name=name),)


def classifier(
    builder: GraphBuilder, x: int, features: int, num_classes: int, *, dropout: float, name: str = ""
) -> int:
    """Draws a dropout and the linear layer `fc`."""
    x = builder.add(Dropout(dropout), x, name=join(name, "dropout"))
    return builder.add(Linear(features, num_classes), x, name=join(name, "fc"))
