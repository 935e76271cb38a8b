"""What a network costs, exactly and before it is trained.

Counting convention: one multiply-accumulate (MAC) is 1, of convolutions, linear layers and products of matrices only;
norms, activations, pooling and biases are 0. The FLOPs of the papers on video networks are these MACs. All figures are
for one clip.

`cost` adds up the units of a network, each counted once for an input shape, on the meta device, where shapes are computed
and numbers are not. `nas.counters` counts a whole network in two ways that share no code with it or with each other;
tests hold all three to the same integer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from nas.shapes import RememberedShapes
from search_spaces.catalogue import links
from search_spaces.flow import Convolved, Flow, Rectified, Step, Summed
from search_spaces.layers import RandomDilationConv3d
from search_spaces.network import SideHead
from search_spaces.parts import Chain, Concat
from search_spaces.spec import ArchSpec, ClipError, SpecError, Unit

# Batch norm refuses a batch of one value a plane in training, which small clips reach in the last stage.
_BATCH = 2
_FLOAT = 4


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

    params: int
    macs: int
    train_macs: int
    activation_bytes: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            params=self.params + other.params,
            macs=self.macs + other.macs,
            train_macs=self.train_macs + other.train_macs,
            activation_bytes=self.activation_bytes + other.activation_bytes,
        )


def cost(spec: ArchSpec, *, frames: int, height: int, width: int, num_classes: int) -> Cost:
    """Returns the exact cost of one clip.

    Args:
        spec: The network.
        frames: Frames of the clip.
        height: Rows, in pixels.
        width: Columns, in pixels.
        num_classes: Classes.

    Raises:
        SpecError: A size is below 1, or the clip is shorter than the network needs.
    """
    for name, value in (("frames", frames), ("height", height), ("width", width)):
        if value < 1:
            raise SpecError(f"{name} must be at least 1, but is {value}")
    chain = _Chained((3, frames, height, width), (_Activation(_size((3, frames, height, width))),))
    for name, unit in links(spec, num_classes=num_classes):
        try:
            chain.add(unit)
        except (RuntimeError, ClipError) as error:
            reason = str(error).splitlines()[0]
            raise ClipError(
                f"a clip of {frames}x{height}x{width} is too short or too small for the network: at {name}, {reason}"
            ) from error
    return chain.cost()


class _Activation:
    """A tensor between two units: its bytes for one clip, and whether some unit keeps it. One object for one storage."""

    __slots__ = ("kept", "size")

    def __init__(self, size: int, kept: bool = False) -> None:
        self.size, self.kept = size, kept


class _Made(NamedTuple):
    """An output that a unit makes: its bytes for one clip, and whether the unit keeps it, and so counts it."""

    size: int
    kept: bool


class _Counted(NamedTuple):
    """A unit on an input shape.

    Attributes:
        cost: Its cost, with activations that it makes and keeps.
        shape: Of its output, (C, T, H, W) or a tuple of such.
        keeps: Which of its inputs it keeps.
        gives: Its outputs, each one that it makes or the index of the input that it is.
    """

    cost: Cost
    shape: Any
    keeps: tuple[bool, ...]
    gives: tuple[_Made | int, ...]


class _Chained:
    """Units one after the other: what they cost together, an activation between them counted once if any keeps it."""

    def __init__(self, shape: Any, inputs: tuple[_Activation, ...]) -> None:
        self.shape, self.outputs = shape, inputs
        self._params = self._macs = self._train_macs = self._bytes = 0

    def add(self, unit: Step) -> None:
        """Puts a unit behind the others."""
        cost, self.shape, keeps, gives = _count(unit, self.shape)
        self._params += cost.params
        self._macs += cost.macs
        self._train_macs += cost.train_macs
        self._bytes += cost.activation_bytes
        inputs = self.outputs
        for activation, asked in zip(inputs, keeps, strict=True):
            if asked and not activation.kept:
                activation.kept = True
                self._bytes += activation.size
        self.outputs = tuple(inputs[g] if isinstance(g, int) else _Activation(g.size, g.kept) for g in gives)

    def cost(self) -> Cost:
        """Returns the cost of all of them."""
        return Cost(
            params=self._params, macs=self._macs, train_macs=self._train_macs, activation_bytes=self._bytes
        )


_NOTHING = Cost(params=0, macs=0, train_macs=0, activation_bytes=0)


@lru_cache(maxsize=200_000)
def _count(unit: Step | Flow, shape: Any) -> _Counted:
    """Counts one unit on an input (C, T, H, W), or a tuple of such."""
    if isinstance(unit, Convolved):
        return _count_convolved(unit, shape)
    if isinstance(unit, Rectified):
        # It keeps its output, which in place is its input.
        if unit.in_place:
            return _Counted(_NOTHING, shape, (True,), (0,))
        size = _size(shape)
        return _Counted(replace(_NOTHING, activation_bytes=size), shape, (False,), (_Made(size, True),))
    if isinstance(unit, Flow):
        return _count_branches((unit.steps,), shape)
    if isinstance(unit, Summed):
        return _count_branches(unit.branches, shape, join="first" if unit.in_place else "sum")
    if isinstance(unit, Chain):
        return _count_branches((unit.parts,), shape)
    if isinstance(unit, Concat):
        return _count_branches(unit.branches, shape, join="planes")
    whole = getattr(unit, "whole", None)
    return _measured(unit, shape) if whole is None else _count(whole(), shape)


def _count_convolved(step: Convolved, shape: Any) -> _Counted:
    """Counts a convolution and its norm, which keep the input and what is between them."""
    planes, *sizes = shape
    if planes != step.in_planes:
        raise RuntimeError(f"a convolution of {step.in_planes} planes cannot take {planes}")
    padded = [size + 2 * padding for size, padding in zip(sizes, step.padding, strict=True)]
    if any(size < kernel for size, kernel in zip(padded, step.kernel, strict=True)):
        raise RuntimeError(f"the kernel {_by(step.kernel)} is larger than its input, {_by(padded)} with its padding")
    out = (
        step.out_planes,
        *((size - kernel) // stride + 1 for size, kernel, stride in zip(padded, step.kernel, step.stride, strict=True)),
    )
    weights = step.in_planes // step.groups * prod(step.kernel)
    macs, size = prod(out) * weights, _size(out)
    cost = Cost(
        params=step.out_planes * (weights + 2), macs=macs * step.passes, train_macs=macs, activation_bytes=size
    )
    return _Counted(cost, out, (True,), (_Made(size, False),))


def _count_branches(
    branches: Iterable[tuple[Step, ...]],
    shape: Any,
    *,
    join: Literal["first", "sum", "planes"] = "first",
) -> _Counted:
    """Counts chains of steps on the same input.

    Args:
        branches: The chains.
        shape: Of the input.
        join: The others are added to the `first`, in its memory; their `sum` is a new tensor; their `planes` are
            joined to one.
    """
    # Of no size, since whoever makes the input counts it, if it is kept.
    inputs = tuple(_Activation(0) for _ in _each(shape))
    chains = [_Chained(shape, inputs) for _ in branches]
    for chain, steps in zip(chains, branches, strict=True):
        for step in steps:
            chain.add(step)
    total = sum((chain.cost() for chain in chains), _NOTHING)
    first = chains[0]
    out = first.shape
    if len(chains) > 1 and len({chain.shape[join == "planes" :] for chain in chains}) > 1:
        raise RuntimeError(f"branches give {' and '.join(_by(chain.shape) for chain in chains)}, which do not fit")
    gives: tuple[_Made | int, ...]
    if join == "first":
        gives = tuple(inputs.index(x) if x in inputs else _Made(x.size, x.kept) for x in first.outputs)
    else:
        if join == "planes":
            out = (sum(chain.shape[0] for chain in chains), *out[1:])
        gives = (_Made(_size(out), False),)
    return _Counted(total, out, tuple(x.kept for x in inputs), gives)


def _measured(unit: Unit, shape: Any) -> _Counted:
    """Counts one unit by running it on the meta device."""
    with torch.device("meta"):
        module = unit.build()
        x = _inputs(shape)
    macs = {True: 0, False: 0}

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        for training in macs:
            macs[training] += _layer_macs(layer, inputs, out, training=training) // _BATCH

    for layer in module.modules():
        if _counted(layer):
            layer.register_forward_hook(count)

    # Storages by their address: views and in-place results share one. The tensors are held so that none is
    # reused.
    kept: dict[int, tuple[Tensor, int]] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = (tensor, tensor.untyped_storage().nbytes())
        return tensor

    # Drawing dilations must not move the generator of whoever asks for a cost.
    with torch.random.fork_rng(devices=[]), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), _shapes:
        out = module(x)
    aside = isinstance(module, SideHead)
    if aside:
        macs[False] = 0
    inputs = [_key(t) for t in _each(x)]
    outside = {*inputs, *(_key(t) for t in (*module.parameters(), *module.buffers()))}
    # What has no batch dimension (batch statistics) does not grow with the clips.
    held = sum(size for key, (t, size) in kept.items() if key not in outside and t.dim() > 1) // _BATCH
    gives = tuple(
        inputs.index(_key(t)) if _key(t) in inputs else _Made(t.untyped_storage().nbytes() // _BATCH, _key(t) in kept)
        for t in _each(out)
    )
    return _Counted(
        Cost(
            params=sum(p.numel() for p in module.parameters()),
            macs=macs[False],
            train_macs=macs[True],
            activation_bytes=held,
        ),
        shape if aside else _shape(out),
        tuple(key in kept for key in inputs),
        tuple(range(len(inputs))) if aside else gives,
    )


_shapes = RememberedShapes()


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _inputs(shape: Any) -> Any:
    if isinstance(shape[0], int):
        return torch.empty((_BATCH, *shape)).requires_grad_()
    return tuple(_inputs(part) for part in shape)


def _size(shape: tuple[int, ...]) -> int:
    """Returns bytes."""
    return _FLOAT * prod(shape)


def _by(sizes: Iterable[int]) -> str:
    return "x".join(map(str, sizes))


def _each(value: Any) -> tuple[Any, ...]:
    """Returns the tensors, or shapes, of one or of several."""
    return (value,) if isinstance(value, Tensor) or isinstance(value[0], int) else tuple(value)


def _shape(value: Any) -> Any:
    return tuple(value.shape[1:]) if isinstance(value, Tensor) else tuple(_shape(part) for part in value)


def _counted(layer: nn.Module) -> bool:
    return isinstance(layer, _ConvNd | nn.Linear) or hasattr(layer, "macs")


def _layer_macs(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor, *, training: bool) -> int:
    """MACs of one call of a leaf, for the whole batch."""
    own = getattr(layer, "macs", None)
    if own is not None:
        return int(own(*inputs, out=out))
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return out.numel() * weight[0].numel() * _passes(layer, training=training)


def _passes(layer: nn.Module, *, training: bool) -> int:
    return layer.passes(training=training) if isinstance(layer, RandomDilationConv3d) else 1
