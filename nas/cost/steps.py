"""What the steps of `search_spaces.flow` cost, from their values: the arithmetic of the layers that they stand for."""

from __future__ import annotations

from functools import singledispatch
from math import prod
from typing import Any

from nas.cost.units import Cost, Counted, Made, by, size_of
from search_spaces.flow import Convolved, Linear, Mapped, NonLocal, Pooled, Rectified

# Of where a maximum was found.
_INDEX = 8


@singledispatch
def step_cost(step: object, shape: Any) -> Counted | None:
    """Counts a step on an input of a shape; None if it is no step whose cost follows from its value.

    Raises:
        RuntimeError: The input is too small, or has other planes.
    """
    return None


@step_cost.register
def _(step: Convolved, shape: Any) -> Counted:
    # Kept are the input and what is between convolution and norm.
    if shape[0] != step.in_planes:
        raise RuntimeError(f"a convolution of {step.in_planes} planes cannot take {shape[0]}")
    padded = [size + 2 * padding for size, padding in zip(shape[1:], step.padding, strict=True)]
    if any(size < kernel for size, kernel in zip(padded, step.kernel, strict=True)):
        raise RuntimeError(f"the kernel {by(step.kernel)} is larger than its input, {by(padded)} with its padding")
    sizes = ((p - k) // s + 1 for p, k, s in zip(padded, step.kernel, step.stride, strict=True))
    out = (step.out_planes, *sizes)
    weights = step.in_planes // step.groups * prod(step.kernel)
    macs, size = prod(out) * weights, size_of(out)
    cost = Cost(
        params=step.out_planes * (weights + 2 * step.norm + step.bias),
        macs=macs * step.passes,
        train_macs=macs,
        activation_bytes=size if step.norm else 0,
    )
    return Counted(cost, out, (True,), (Made(size, False),))


@step_cost.register
def _(step: Rectified, shape: Any) -> Counted:
    # It keeps its output, which in place is its input.
    if step.in_place:
        return Counted(Cost(), shape, (True,), (0,))
    size = size_of(shape)
    return Counted(Cost(activation_bytes=size), shape, (False,), (Made(size, True),))


@step_cost.register
def _(step: Pooled, shape: Any) -> Counted:
    out = [shape[0]]
    for size, kernel, stride, padding in zip(shape[1:], step.kernel, step.stride, step.padding, strict=True):
        left = size + 2 * padding - kernel
        pooled = (-(-left // stride) if step.ceil else left // stride) + 1
        # Rounded up, the last window still has to begin in the input or in the padding before it.
        out.append(pooled - (step.ceil and (pooled - 1) * stride >= size + padding))
    # An average wants a whole window, however its input is padded.
    partial = step.kind == "avg" and any(size < k for size, k in zip(shape[1:], step.kernel, strict=True))
    if min(out) < 1 or partial:
        raise RuntimeError(f"the pool {by(step.kernel)} is larger than its input, {by(shape[1:])}")
    # A maximum keeps where it was found.
    indices = _INDEX * prod(out) if step.kind == "max" else 0
    return Counted(Cost(activation_bytes=indices), tuple(out), (True,), (Made(size_of(tuple(out)), False),))


@step_cost.register
def _(step: Mapped, shape: Any) -> Counted:
    out = shape if step.shape is None else step.shape
    inputs = len(shape) if isinstance(shape[0], tuple) else 1
    size = size_of(out)
    cost = Cost(activation_bytes=step.keeps_bytes + (size if step.keeps_output else 0))
    return Counted(cost, out, (step.keeps_input,) * inputs, (Made(size, step.keeps_output),))


@step_cost.register
def _(step: Linear, shape: Any) -> Counted:
    if shape[0] != step.in_planes:
        raise RuntimeError(f"a linear layer of {step.in_planes} planes cannot take {shape[0]}")
    out = (step.out_planes, *shape[1:])
    macs = step.in_planes * prod(out)
    cost = Cost(params=step.out_planes * (step.in_planes + step.bias), macs=macs, train_macs=macs)
    return Counted(cost, out, (True,), (Made(size_of(out), False),))


@step_cost.register
def _(step: NonLocal, shape: Any) -> Counted:
    planes, frames, height, width = shape
    if planes != step.planes:
        raise RuntimeError(f"a non-local block of {step.planes} planes cannot take {planes}")
    inside, places = max(1, planes // 2), frames * height * width
    pooled = min(height, width) >= 4
    seen = frames * (height // 2) * (width // 2) if pooled else places
    # Queries, keys and values, two products of matrices, and the convolution behind them.
    macs = inside * (2 * planes * places + 2 * planes * seen + 2 * places * seen)
    # Queries scaled, keys, values, shares, what was found, and what is between convolution and norm.
    kept = size_of((inside, places + 2 * seen)) + size_of((places, seen + inside + planes))
    if pooled:
        kept += (size_of((1,)) + _INDEX) * planes * seen
    params = 4 * planes * inside + 2 * planes + inside * step.bias
    cost = Cost(params=params, macs=macs, train_macs=macs, activation_bytes=kept)
    return Counted(cost, shape, (True,), (Made(size_of(shape), False),))
