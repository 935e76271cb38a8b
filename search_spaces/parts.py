"""Units that families share, as values: what a network is a chain of, each drawn as a graph of layers.

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
    Draft,
    Dropout,
    GlobalMean,
    Linear,
    Lookup,
    Maximum,
    Mean,
    Pooling,
    Scale,
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


class Norms(NamedTuple):
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


NORMS = Norms()


def conv_norm(
    draft: Draft, x: int, name: str, conv: Convolution, *, act: bool, norms: Norms = NORMS, last: bool = False
) -> int:
    """Draws a convolution, its norm and, with `act`, a ReLU: `conv` and `norm` under the name."""
    return normed(
        draft, draft.add(conv, x, name=join(name, "conv")), name, conv.out_planes, act=act, norms=norms, last=last
    )


def normed(
    draft: Draft, x: int, name: str, planes: int, *, act: bool = False, norms: Norms = NORMS, last: bool = False
) -> int:
    """Draws the norm behind a convolution and, with `act`, a ReLU."""
    norm = norms.layer(planes, last=last)
    if act and norms.relu_first:
        x = relu(draft, x, name)
    x = draft.add(norm, x, name=join(name, "norm"))
    return relu(draft, x, name) if act and not norms.relu_first else x


def relu(draft: Draft, x: int, name: str = "") -> int:
    """Draws a ReLU, `act` under the name; in place, as convolutions and norms keep their inputs and no outputs."""
    return draft.add(Activation(), x, name=join(name, "act"))


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
    norms: Norms = NORMS
    pad_frames: bool = True
    same: bool = False
    last: bool = False

    def draw(self, draft: Draft, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws its layers.

        Raises:
            SpecError: A channel-separated convolution would change the number of planes, or the spatial convolution of
                P3D-B is not padded to keep the size, so that S and T would differ in theirs.
        """
        (x,), op, norms, act, last = inputs, self.op, self.norms, self.act, self.last
        before, after = self.in_planes, self.out_planes
        frames, stride = self.temporal_stride, self.spatial_stride
        both, sides, behind = (frames, stride, stride), (1, stride, stride), (frames, 1, 1)
        if op.kind == "2d" or op.kind in POINTWISE_KINDS:
            return (conv_norm(draft, x, name, self.spatial(both), act=act, norms=norms, last=last),)
        draft.mark(name, op, self.midplanes)
        if op.kind == "3d" or op.kind in SEPARATED_KINDS:
            whole = replace(self.spatial(both, frames=op.kernel), dilations=op.dilation)
            if op.kind in SEPARATED_KINDS:
                if before != after:
                    raise SpecError(f"{op.kind} must keep the number of planes, but is asked for {before} to {after}")
                whole = replace(whole, groups=before)
            if op.kind != "csn_ip":
                return (conv_norm(draft, x, name, whole, act=act, norms=norms, last=last),)
            # A 1x1x1 convolution before that of each plane alone, so that planes meet.
            inner = join(name, "conv")
            x = draft.add(Convolution(before, before), x, name=join(inner, "mix"))
            x = draft.add(norms.layer(before), x, name=join(inner, "norm"))
            x = draft.add(whole, x, name=join(inner, "conv"))
            return (normed(draft, x, name, after, act=act, norms=norms, last=last),)
        if op.kind == "2plus1d":
            return (self._factorised(draft, x, name, sides, behind),)
        if op.form == "a":
            x = conv_norm(draft, x, join(name, "spatial"), self.spatial(sides), act=True, norms=norms)
            over = self.temporal(after, after, behind)
            return (conv_norm(draft, x, join(name, "temporal"), over, act=act, norms=norms, last=last),)
        if op.form == "b" and self.padding not in (None, (self.kernel[0] // 2, self.kernel[1] // 2)):
            raise SpecError(f"{op.kind} needs a spatial convolution that keeps the size, so padding, but it has none")
        s = conv_norm(draft, x, join(name, "spatial"), self.spatial(both), act=act, norms=norms, last=last)
        port = op.kind in PORT_KINDS
        over = self.temporal(before, after, both) if op.form == "b" else self.temporal(after, after)
        # Not in place: without act, the sum needs S as it was.
        seen = x if op.form == "b" else s if act else draft.add(Activation(in_place=False), s, scope=name)
        t_act = act and (port or norms.relu_first)
        t = conv_norm(draft, seen, join(name, "temporal"), over, act=t_act, norms=norms, last=last)
        out = draft.add(Sum(), s, t, scope=name)
        return (relu(draft, out, name) if act and not t_act else out,)

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

    def _factorised(self, draft: Draft, x: int, name: str, sides: Triple, behind: Triple) -> int:
        """Draws (2+1)D: spatial convolution, norm, ReLU, temporal convolution; or the temporal one first."""
        before, mid, after = self.in_planes, self.midplanes, self.out_planes
        over = self.temporal(*((before, mid) if self.op.time_first else (mid, after)), behind)
        flat = self.spatial(sides, planes=(mid, after) if self.op.time_first else (before, mid))
        out = factorised(draft, x, join(name, "conv"), flat, over, norms=self.norms, time_first=self.op.time_first)
        return normed(draft, out, name, after, act=self.act, norms=self.norms, last=self.last)


def factorised(
    draft: Draft,
    x: int,
    name: str,
    spatial: Convolution,
    temporal: Convolution,
    *,
    norms: Norms = NORMS,
    time_first: bool = False,
) -> int:
    """Draws two convolutions with a norm and a ReLU between them, in the place of one: (2+1)D.

    Parameters of the spatial one are registered first, also where the temporal one runs first.
    """
    s = draft.add(spatial, x, name=join(name, "spatial"))
    mid = normed(draft, s, name, temporal.out_planes if time_first else spatial.out_planes, act=True, norms=norms)
    t = draft.add(temporal, mid, name=join(name, "temporal"))
    if not time_first:
        return t
    first = s + 1  # of norm and ReLU, that which comes first
    draft.rewire(t, x)
    draft.rewire(first, t)
    draft.rewire(s, mid)
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

    def draw(self, draft: Draft, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws the pool."""
        layer = Pooling(self.kind, self.kernel, self.stride, self.padding, self.ceil, self.same)
        return (draft.add(layer, *inputs, name=join(name, "pool")),)


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain(Unit):
    """Units one after the other, under the names 0, 1, ..."""

    parts: tuple[Unit, ...]

    def draw(self, draft: Draft, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws them."""
        for i, part in enumerate(self.parts):
            inputs = part.draw(draft, *inputs, name=join(name, str(i)))
        return inputs


@dataclass(frozen=True, kw_only=True, slots=True)
class Branches(Unit):
    """Branches side by side, each a chain of units under the names `branch0.0`, ...; their planes are joined."""

    branches: tuple[tuple[Unit, ...], ...]

    def draw(self, draft: Draft, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws them."""
        ends = (
            Chain(parts=parts).draw(draft, *inputs, name=join(name, f"branch{i}"))
            for i, parts in enumerate(self.branches)
        )
        return (draft.add(Concat(), *(end for (end,) in ends), scope=name),)


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

    def draw(self, draft: Draft, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws the unit; `none` is its input.

        Raises:
            SpecError: There is no such kind.
        """
        (x,), kind, planes = inputs, self.kind, self.planes
        if kind == "none":
            return inputs
        if kind in NONLOCALS:
            return (self._non_local(draft, x, name),)
        if kind not in ("se", "gate"):
            raise SpecError(f"attention must be one of its choices, but is {kind}{nearest(kind, ATTENTIONS)}")
        at = draft.add(Mean((1, 2, 3)), x, scope=name)
        if kind == "se":
            hidden = self.hidden or squeezed_planes(planes)
            at = draft.add(Linear(planes, hidden), at, name=join(name, "fc1"))
            at = draft.add(Linear(hidden, planes), relu(draft, at, name), name=join(name, "fc2"))
        else:
            at = draft.add(Linear(planes, planes, bias=False), at, name=join(name, "fc"))
        return (draft.add(Scale(), x, draft.add(Activation("sigmoid"), at, scope=name), scope=name),)

    def _non_local(self, draft: Draft, x: int, name: str) -> int:
        planes, inside = self.planes, max(1, self.planes // 2)
        seen = draft.add(Pooling("max", (1, 2, 2), (1, 2, 2), least=4), x, scope=name)
        query = draft.add(Convolution(planes, inside, bias=self.kind == "nonlocal"), x, name=join(name, "query"))
        key = draft.add(Convolution(planes, inside), seen, name=join(name, "key"))
        value = draft.add(Convolution(planes, inside), seen, name=join(name, "value"))
        found = draft.add(Lookup(), query, key, value, name=join(name, "lookup"))
        out = draft.add(Convolution(inside, planes), found, name=join(name, "out"))
        norm = BatchNorm(planes, last=True, faint=True)
        return draft.add(Sum(), x, draft.add(norm, out, name=join(name, "norm")), scope=name)


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

    def draw(self, draft: Draft, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws the head."""
        if self.pool == "avg":
            features = draft.add(GlobalMean(), *inputs, scope=name)
        else:
            features = draft.add(Maximum(1), draft.add(Mean((2, 3)), *inputs, scope=name), scope=name)
        return (classifier(draft, features, self.in_planes, self.num_classes, dropout=self.dropout, name=name),)


def classifier(draft: Draft, x: int, features: int, num_classes: int, *, dropout: float, name: str = "") -> int:
    """Draws a dropout and the linear layer `fc`."""
    x = draft.add(Dropout(dropout), x, name=join(name, "dropout"))
    return draft.add(Linear(features, num_classes), x, name=join(name, "fc"))
