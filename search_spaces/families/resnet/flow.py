"""What stems and residual blocks are made of, for their cost: the modules of `resnet.layers`, as steps."""

from __future__ import annotations

from search_spaces.errors import ClipError
from search_spaces.families.resnet.blocks import Block, Stem, block_midplanes, has_projection
from search_spaces.flow import (
    Flow,
    Mapped,
    Pooled,
    Rectified,
    Shape,
    Step,
    Summed,
    Triple,
    convolved,
    temporal_steps,
    unrectified,
)
from search_spaces.operators import NONLOCALS, POINTWISE_KINDS, TemporalOp
from search_spaces.parts import Attend


def stem_flow(stem: Stem, frames: int, in_planes: int = 3, *, relu_first: bool = False) -> Flow:
    """Returns the steps of a stem.

    Args:
        stem: Its spec.
        frames: Of the clip.
        in_planes: Planes of the clip.
        relu_first: ReLUs come before norms.

    Raises:
        ClipError: The clip is shorter than an unpadded temporal kernel, or has too few frames for the pool.
    """
    if frames < stem.min_frames:
        raise ClipError(f"the stem needs a clip of at least {stem.min_frames} frames, but got {frames}")
    padded = stem.temporal_padding
    conv: tuple[Step, ...]
    s, t, k, size = stem.spatial_stride, stem.temporal_stride, stem.temporal_kernel, stem.spatial_kernel
    if stem.kind == "2plus1d":
        conv = (
            *convolved(in_planes, stem.midplanes, (1, size, size), stride=(1, s, s)),
            *convolved(stem.midplanes, stem.width, (k, 1, 1), stride=(t, 1, 1), pad_frames=padded),
        )
    else:
        conv = convolved(in_planes, stem.width, (k, size, size), stride=(t, s, s), pad_frames=padded)
    conv = unrectified(conv) if relu_first else conv
    if stem.pool == "none":
        return Flow(conv)
    return Flow((*conv, Pooled("max", (stem.pool_frames, 3, 3), (stem.pool_frames, 2, 2), (0, 1, 1))))


def block_flow(block: Block, in_planes: int, shape: Shape, *, relu_first: bool = False) -> Flow:
    """Returns the steps of a block.

    Args:
        block: Its spec.
        in_planes: Planes into it.
        shape: Of its input.
        relu_first: ReLUs come before norms, also at the end of the branch, and none follows the sum.
    """
    op, width, out = block.temporal, block.width, block.out_planes
    s, t = block.spatial_stride, block.temporal_stride
    strides = (t, s, s)
    mids = block_midplanes(block, in_planes)
    branch: tuple[Step, ...]
    if block.kind == "basic":
        branch = (
            *temporal_steps(op, in_planes, width, midplanes=mids[0], stride=s, temporal_stride=t, act=True),
            *temporal_steps(op, width, width, midplanes=mids[1], act=relu_first),
        )
    else:
        early = block.stride_on == "1x1"
        branch = (
            *_pointwise(op, 0, in_planes, width, strides if early else (1, 1, 1), act=True),
            *temporal_steps(
                op,
                width,
                width,
                midplanes=mids[0],
                stride=1 if early else s,
                temporal_stride=1 if early else t,
                act=True,
            ),
            *_pointwise(op, 1, width, out, (1, 1, 1), act=relu_first),
        )
    shortcut: tuple[Step, ...] = ()
    if has_projection(block, in_planes) and block.shortcut == "pad":
        shortcut = (Mapped((out, *(-(-size // stride) for size, stride in zip(shape[1:], strides, strict=True)))),)
    elif has_projection(block, in_planes):
        shortcut = _pointwise(op, 2, in_planes, out, strides, act=False)
    attention: tuple[Step, ...] = () if block.attention == "none" else (Attend(block.attention, out),)
    gate, last = ((), attention) if block.attention in NONLOCALS else (attention, ())
    if relu_first:
        return Flow((Summed(((*unrectified(branch), *gate), shortcut), in_place=True), *last))
    return Flow((Summed(((*branch, *gate), shortcut), in_place=True), Rectified(), *last))


def _pointwise(
    op: TemporalOp, place: int, in_planes: int, out_planes: int, stride: Triple, *, act: bool
) -> tuple[Step, ...]:
    """Returns a 1x1x1 convolution of a block, kx1x1 if the operator is of a pointwise kind that reaches it."""
    if op.kind in POINTWISE_KINDS and place <= POINTWISE_KINDS.index(op.kind):
        return convolved(in_planes, out_planes, (op.kernel, 1, 1), stride=stride, dilations=op.dilation, act=act)
    return convolved(in_planes, out_planes, (1, 1, 1), stride=stride, act=act)
