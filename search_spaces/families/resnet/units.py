"""Units of residual networks: the stem and the residual block, as graphs of layers.

The family of Tran et al. 2018, "A Closer Look at Spatiotemporal Convolutions for Action Recognition"
(https://arxiv.org/abs/1711.11248): R2D, f-R2D, MCx, rMCx, R3D and R(2+1)D; with bottlenecks, P3D (Qiu et al. 2017),
the pathways of SlowFast (Feichtenhofer et al. 2019), BesNet and channel-separated networks (Tran et al. 2019); and with
them every network whose blocks each choose their own temporal operator.
"""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces.families.resnet.blocks import Block, Stem, block_midplanes, has_projection
from search_spaces.graph import Convolution, GraphBuilder, Pooling, RequireFrames, Subsample, Sum, Triple, Unit, join
from search_spaces.operators import NONLOCALS, POINTWISE_KINDS, TemporalOp
from search_spaces.parts import NORMS, Attend, Conv, NormConfig, conv_norm, factorised, normed, relu


@dataclass(frozen=True, slots=True)
class StemUnit(Unit):
    """Convolution (or spatial and temporal pair), norm, ReLU and, where the spec says so, a max pool.

    Attributes:
        stem: Its spec.
        in_planes: Planes of the clip.
        norms: Settings of its norms.
    """

    stem: Stem
    in_planes: int = 3
    norms: NormConfig = NORMS

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws its layers; a clip has to have the frames that an unpadded kernel and the pool ask for."""
        stem, norms = self.stem, self.norms
        s, t, k, size = stem.spatial_stride, stem.temporal_stride, stem.temporal_kernel, stem.spatial_kernel
        frames, edge = k // 2 if stem.temporal_padding else 0, size // 2
        x = builder.add(RequireFrames(stem.min_frames), *inputs, scope=name)
        if stem.kind == "2plus1d":
            flat = Convolution(self.in_planes, stem.midplanes, (1, size, size), (1, s, s), (0, edge, edge))
            over = Convolution(stem.midplanes, stem.width, (k, 1, 1), (t, 1, 1), (frames, 0, 0))
            # Of the kind alone: a stem may have kernels that no operator has.
            builder.mark(name, TemporalOp(kind="2plus1d"), stem.midplanes)
            x = factorised(builder, x, join(name, "conv"), flat, over, norms=norms)
            x = normed(builder, x, name, stem.width, act=True, norms=norms)
        else:
            conv = Convolution(self.in_planes, stem.width, (k, size, size), (t, s, s), (frames, edge, edge))
            x = conv_norm(builder, x, name, conv, act=True, norms=norms)
        if stem.pool == "max":
            pool = Pooling("max", (stem.pool_frames, 3, 3), (stem.pool_frames, 2, 2), (0, 1, 1))
            x = builder.add(pool, x, name=join(name, "pool"))
        return (x,)


@dataclass(frozen=True, slots=True)
class BlockUnit(Unit):
    """A basic block (two temporal units) or a bottleneck (one between two 1x1x1), and its shortcut.

    Attributes:
        block: Its spec.
        in_planes: Planes into it.
        norms: Settings of its norms. Where ReLUs come before norms, one also ends the branch, and none follows the sum.
    """

    block: Block
    in_planes: int
    norms: NormConfig = NORMS

    def draw(self, builder: GraphBuilder, *inputs: int, name: str = "") -> tuple[int, ...]:
        """Draws its layers."""
        (x,), block, norms = inputs, self.block, self.norms
        out = block.out_planes
        strides = (block.temporal_stride, block.spatial_stride, block.spatial_stride)
        branch = self._basic(builder, x, name) if block.kind == "basic" else self._bottleneck(builder, x, name, strides)
        shortcut = x
        if has_projection(block, self.in_planes) and block.shortcut == "pad":
            shortcut = builder.add(Subsample(strides, out), x, scope=name)
        elif has_projection(block, self.in_planes):
            conv = _pointwise(block.temporal, 2, self.in_planes, out, strides)
            shortcut = conv_norm(builder, x, join(name, "shortcut"), conv, act=False, norms=norms)
        attention = Attend(block.attention, out)
        if block.attention not in NONLOCALS:
            (branch,) = attention.draw(builder, branch, name=join(name, "gate"))
        found = builder.add(Sum(in_place=True), branch, shortcut, scope=name)
        found = found if norms.relu_first else relu(builder, found, name)
        return attention.draw(builder, found, name=join(name, "last")) if block.attention in NONLOCALS else (found,)

    def _basic(self, builder: GraphBuilder, x: int, name: str) -> int:
        block, width = self.block, self.block.width
        first, second = block_midplanes(block, self.in_planes)
        conv1 = Conv(
            in_planes=self.in_planes,
            out_planes=width,
            op=block.temporal,
            spatial_stride=block.spatial_stride,
            temporal_stride=block.temporal_stride,
            midplanes=first,
            norms=self.norms,
        )
        conv2 = Conv(
            in_planes=width,
            out_planes=width,
            op=block.temporal,
            midplanes=second,
            act=self.norms.relu_first,
            norms=self.norms,
            last=True,
        )
        seen = conv1.draw(builder, x, name=join(name, "conv1"))
        return conv2.draw(builder, *seen, name=join(name, "conv2"))[0]

    def _bottleneck(self, builder: GraphBuilder, x: int, name: str, strides: Triple) -> int:
        block, op, width, norms = self.block, self.block.temporal, self.block.width, self.norms
        early = block.stride_on == "1x1"
        conv1 = _pointwise(op, 0, self.in_planes, width, strides if early else (1, 1, 1))
        x = conv_norm(builder, x, join(name, "conv1"), conv1, act=True, norms=norms)
        (mid,) = block_midplanes(block, self.in_planes)
        conv2 = Conv(
            in_planes=width,
            out_planes=width,
            op=op,
            spatial_stride=1 if early else block.spatial_stride,
            temporal_stride=1 if early else block.temporal_stride,
            midplanes=mid,
            norms=norms,
        )
        (x,) = conv2.draw(builder, x, name=join(name, "conv2"))
        conv3 = _pointwise(op, 1, width, block.out_planes)
        return conv_norm(builder, x, join(name, "conv3"), conv3, act=norms.relu_first, norms=norms, last=True)


def _pointwise(op: TemporalOp, place: int, in_planes: int, out_planes: int, stride: Triple = (1, 1, 1)) -> Convolution:
    """Returns a 1x1x1 convolution of a block, kx1x1 if the operator is of a pointwise kind that reaches it.

    Args:
        op: Operator of the block.
        place: 0 is the first convolution of the branch, 1 its last, 2 the shortcut's.
        in_planes: Planes in.
        out_planes: Planes out.
        stride: Stride over (T, H, W).
    """
    if op.kind in POINTWISE_KINDS and place <= POINTWISE_KINDS.index(op.kind):
        k = op.kernel
        return Convolution(in_planes, out_planes, (k, 1, 1), stride, (k // 2, 0, 0), dilations=op.dilation)
    return Convolution(in_planes, out_planes, stride=stride)
