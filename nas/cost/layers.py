"""What a layer of a graph costs, from its values: the arithmetic of what torch computes for it, and keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

from search_spaces import graph as layers
from search_spaces.graph import Layer, Shape, Triple
from search_spaces.operators import same_padding

_FLOAT = 4
_INDEX = 8  # bytes of where a maximum was found


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Cost of one clip.

    Attributes:
        params: Parameters.
        macs: Multiply-accumulates in evaluation mode, every dilation of a random set included.
        train_macs: Multiply-accumulates of one forward pass in training mode, with one dilation of each set.
        activation_bytes: Bytes that a forward pass in training keeps for the backward pass, in float32: what
            grows with each clip of a batch. Parameters, running statistics and a batch's statistics are not
            in it.
    """

    params: int = 0
    macs: int = 0
    train_macs: int = 0
    activation_bytes: int = 0


class NewOutput(NamedTuple):
    """An output that a unit makes: its bytes for one clip, and whether the unit keeps it, and so counts it."""

    size: int
    kept: bool


class Counted(NamedTuple):
    """A unit, or a layer, on inputs of a shape.

    Attributes:
        cost: Its cost, with activations that it makes and keeps.
        shape: Of its output, (C, T, H, W) or a tuple of such.
        keeps: Which of its inputs it keeps.
        gives: Its outputs, each one that it makes or the index of the input that it is.
    """

    cost: Cost
    shape: Any
    keeps: tuple[bool, ...]
    gives: tuple[NewOutput | int, ...]


def size_of(shape: Shape) -> int:
    """Returns the bytes of numbers of this shape."""
    return _FLOAT * prod(shape)


def by(sizes: Iterable[int]) -> str:
    """Returns sizes as text, such as 16x112x112."""
    return "x".join(map(str, sizes))


_FREE = Cost()


def _new(shape: Shape, *keeps: bool, cost: Cost = _FREE) -> Counted:
    return Counted(cost, shape, keeps, (NewOutput(size_of(shape), False),))


def _seen(shape: Shape, *, kept: bool = False) -> Counted:
    """The input itself, or another view of its memory."""
    return Counted(_FREE, shape, (kept,), (0,))


def _convolution(layer: layers.Convolution, shape: Shape) -> Counted:
    if shape[0] != layer.in_planes:
        raise RuntimeError(f"a convolution of {layer.in_planes} planes cannot take {shape[0]}")
    padded = _padded(layer, shape)
    if any(size < kernel for size, kernel in zip(padded.sizes, layer.kernel, strict=True)):
        raise RuntimeError(
            f"the kernel {by(layer.kernel)} is larger than its input, {by(padded.sizes)} with its padding"
        )
    sizes = ((p - k) // s + 1 for p, k, s in zip(padded.sizes, layer.kernel, layer.stride, strict=True))
    out = (layer.out_planes, *sizes)
    weights = layer.in_planes // layer.groups * prod(layer.kernel)
    macs = prod(out) * weights
    cost = Cost(
        params=layer.out_planes * (weights + layer.bias),
        macs=macs * len(layer.dilations),
        train_macs=macs,
        activation_bytes=padded.copied,
    )
    return _new(out, not padded.copied, cost=cost)


def _batch_norm(layer: layers.BatchNorm, shape: Shape) -> Counted:
    return _new(shape, True, cost=Cost(params=2 * layer.planes))


def _activation(layer: layers.Activation, shape: Shape) -> Counted:
    if layer.kind == "silu":  # its derivative is of what goes in
        return _new(shape, True)
    if layer.kind == "relu" and layer.in_place:  # it keeps its output, which is its input
        return _seen(shape, kept=True)
    size = size_of(shape)
    return Counted(Cost(activation_bytes=size), shape, (False,), (NewOutput(size, True),))


def _pooling(layer: layers.Pooling, shape: Shape) -> Counted:
    if min(shape[2:]) < layer.least:
        return _seen(shape)
    padded, out = _padded(layer, shape), [shape[0]]
    for size, whole, kernel, stride in zip(shape[1:], padded.sizes, layer.kernel, layer.stride, strict=True):
        left = whole - kernel
        pooled = (-(-left // stride) if layer.ceil else left // stride) + 1
        # Rounded up, the last window still has to begin in the input or in the padding before it.
        out.append(pooled - (layer.ceil and (pooled - 1) * stride >= (size + whole) // 2))
    # An average wants a whole window, however its input is padded.
    partial = layer.kind == "avg" and any(size < k for size, k in zip(shape[1:], layer.kernel, strict=True))
    if min(out) < 1 or partial:
        raise RuntimeError(f"the pool {by(layer.kernel)} is larger than its input, {by(shape[1:])}")
    # A maximum keeps where it was found.
    indices = _INDEX * prod(out) if layer.kind == "max" else 0
    return _new(tuple(out), not padded.copied, cost=Cost(activation_bytes=indices + padded.copied))


class _Padded(NamedTuple):
    sizes: tuple[int, ...]  # with padding
    copied: int  # bytes of a copy of the input that has the padding which the layer cannot put there itself


def _padded(layer: layers.Convolution | layers.Pooling, shape: Shape) -> _Padded:
    if not layer.same:
        return _Padded(tuple([size + 2 * pad for size, pad in zip(shape[1:], layer.padding, strict=True)]), 0)
    pads, ends = zip(*map(same_padding, shape[1:], layer.kernel, layer.stride), strict=True)
    copy = [size + end for size, end in zip(shape[1:], ends, strict=True)]
    whole = tuple([size + 2 * pad for size, pad in zip(copy, pads, strict=True)])
    return _Padded(whole, size_of((shape[0], *copy)) if any(ends) else 0)


def _same_avg_pool(layer: layers.SameAvgPool, shape: Shape) -> Counted:
    kept, edges = 0, [size // 2 for size in layer.kernel]
    if any(size < window for size, window in zip(shape[1:], layer.kernel, strict=True)):
        kept = size_of((shape[0], *(size + 2 * edge for size, edge in zip(shape[1:], edges, strict=True))))
    # A factor for each frame, of which there is one for a batch; where it is measured, that is of two clips.
    factors = 2 * shape[1] if edges[0] else 0
    return _new(shape, not kept, cost=Cost(activation_bytes=kept + factors))


def _valid_avg_pool(layer: layers.ValidAvgPool, shape: Shape) -> Counted:
    places = (max(1, size - most + 1) for most, size in zip(layer.kernel, shape[1:], strict=True))
    return _new((shape[0], *places), True)


def _adaptive_avg_pool(layer: layers.AdaptiveAvgPool, shape: Shape) -> Counted:
    return _new((shape[0], *layer.grid), True)


def _aux_pool(layer: layers.AuxPool, shape: Shape) -> Counted:
    if min(shape[2:]) < layer.cells:
        return _new((*shape[:2], layer.grid, layer.grid), True)
    return _pooling(layers.Pooling("avg", (1, 5, 5), (1, 3, 3)), shape)


def _mean(layer: layers.Mean, shape: Shape) -> Counted:
    return _new(tuple([size for axis, size in enumerate(shape) if axis not in layer.axes]), False)


def _global_mean(layer: layers.GlobalMean, shape: Shape) -> Counted:
    return _new((shape[0], 1, 1, 1) if layer.keep else shape[:1], False)


def _maximum(layer: layers.Maximum, shape: Shape) -> Counted:
    # It is found by being equal to what is there.
    out = (*shape[: layer.axis], *shape[layer.axis + 1 :])
    size = size_of(out)
    return Counted(Cost(activation_bytes=size), out, (True,), (NewOutput(size, True),))


def _linear(layer: layers.Linear, shape: Shape) -> Counted:
    if shape[-1] != layer.in_features:
        raise RuntimeError(f"a linear layer of {layer.in_features} planes cannot take {shape[-1]}")
    out = (*shape[:-1], layer.out_features)
    macs = layer.in_features * prod(out)
    params = layer.out_features * (layer.in_features + layer.bias)
    return _new(out, True, cost=Cost(params=params, macs=macs, train_macs=macs))


def _dropout(layer: layers.Dropout, shape: Shape) -> Counted:
    return _new(shape, False, cost=Cost(activation_bytes=size_of(shape))) if layer.share > 0 else _seen(shape)


def _flatten(layer: layers.Flatten, shape: Shape) -> Counted:
    return _seen((prod(shape),))


def _planes_last(layer: layers.PlanesLast, shape: Shape) -> Counted:
    return _seen((*shape[1:], shape[0]))


def _subsample(layer: layers.Subsample, shape: Shape) -> Counted:
    out = (layer.planes or shape[0], *_strided(shape, layer.stride))
    return _new(out, False) if out[0] > shape[0] else _seen(out)


def _slow_frames(layer: layers.SlowFrames, shape: Shape) -> Counted:
    layer.check(shape[1])
    return _new((shape[0], *_strided(shape, (layer.alpha, 1, 1))), False)


def _stacked_frames(layer: layers.StackedFrames, shape: Shape) -> Counted:
    return _new((layer.alpha * shape[0], *_strided(shape, (layer.alpha, 1, 1))), False)


def _require_frames(layer: layers.RequireFrames, shape: Shape) -> Counted:
    layer.check(shape[1])
    return _seen(shape)


def _lookup(layer: layers.Lookup, queries: Shape, keys: Shape, values: Shape) -> Counted:
    places, others = prod(queries[1:]), prod(keys[1:])
    macs = 2 * queries[0] * places * others
    # Scaled queries, and shares.
    kept = size_of(queries) + size_of((places, others))
    cost = Cost(macs=macs, train_macs=macs, activation_bytes=kept)
    return _new((values[0], *queries[1:]), False, True, True, cost=cost)


def _sum(layer: layers.Sum, one: Shape, two: Shape) -> Counted:
    _fit((one, two), one == two)
    return _new(one, False, False) if not layer.in_place else Counted(_FREE, one, (False, False), (0,))


def _concat(layer: layers.Concat, *shapes: Shape) -> Counted:
    _fit(shapes, len({shape[1:] for shape in shapes}) == 1)
    return _new((sum(shape[0] for shape in shapes), *shapes[0][1:]), *(False,) * len(shapes))


def _scale(layer: layers.ScaleChannels, shape: Shape, factors: Shape) -> Counted:
    if factors != shape[:1]:
        raise RuntimeError(f"{factors[0]} factors cannot weigh {shape[0]} planes")
    return _new(shape, True, True)


def _strided(shape: Shape, stride: Triple) -> Iterable[int]:
    return (-(-size // step) for size, step in zip(shape[1:], stride, strict=True))


def _fit(shapes: Sequence[Shape], fits: bool) -> None:
    if not fits:
        raise RuntimeError(f"branches give {' and '.join(map(by, shapes))}, which do not fit")


_RULES: Mapping[type[Layer], Callable[..., Counted]] = {
    layers.Convolution: _convolution,
    layers.BatchNorm: _batch_norm,
    layers.Activation: _activation,
    layers.Pooling: _pooling,
    layers.SameAvgPool: _same_avg_pool,
    layers.ValidAvgPool: _valid_avg_pool,
    layers.AdaptiveAvgPool: _adaptive_avg_pool,
    layers.AuxPool: _aux_pool,
    layers.Mean: _mean,
    layers.GlobalMean: _global_mean,
    layers.Maximum: _maximum,
    layers.Linear: _linear,
    layers.Dropout: _dropout,
    layers.Flatten: _flatten,
    layers.PlanesLast: _planes_last,
    layers.Subsample: _subsample,
    layers.SlowFrames: _slow_frames,
    layers.StackedFrames: _stacked_frames,
    layers.RequireFrames: _require_frames,
    layers.Lookup: _lookup,
    layers.Sum: _sum,
    layers.Concat: _concat,
    layers.ScaleChannels: _scale,
}


def layer_cost(layer: Layer, *shapes: Shape) -> Counted:
    """Counts a layer on inputs of these shapes.

    Raises:
        RuntimeError: An input is too small, or has other planes.
        ClipError: The clip is too short.
    """
    return _RULES[type(layer)](layer, *shapes)
