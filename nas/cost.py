"""What a network costs, exactly and before it is trained.

Counting convention: one multiply-accumulate (MAC) is 1, of convolutions, linear layers and products of matrices only;
norms, activations, pooling and biases are 0. The FLOPs of the papers on video networks are these MACs. All figures are
for one clip.

`cost` adds up the units of a network, each counted once for an input shape: from their values where a unit says what it
is made of (`search_spaces.flow`), else by running it on the meta device. `nas.counters` counts a whole network in two
ways that share no code with it or with each other; tests hold all three to the same integer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal

from nas.counted import Cost, Counted, Made, by, size_of
from nas.steps import step_cost
from search_spaces.catalogue import links
from search_spaces.flow import Flow, Step, Stretched, Summed
from search_spaces.parts import Chain, Concat
from search_spaces.spec import ArchSpec, ClipError, SpecError

__all__ = ["Cost", "cost"]


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
    clip = (3, frames, height, width)
    chain = _Chained(clip, (_Activation(size_of(clip)),))
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
    """A tensor between two units: its bytes for one clip, and whether some unit keeps it; one object for a storage."""

    __slots__ = ("kept", "size")

    def __init__(self, size: int, kept: bool = False) -> None:
        self.size, self.kept = size, kept


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
        self.outputs = tuple([inputs[g] if isinstance(g, int) else _Activation(g.size, g.kept) for g in gives])

    def cost(self) -> Cost:
        """Returns the cost of all of them."""
        return Cost(params=self._params, macs=self._macs, train_macs=self._train_macs, activation_bytes=self._bytes)


@lru_cache(maxsize=200_000)
def _count(unit: Step | Flow, shape: Any) -> Counted:
    """Counts one unit on an input (C, T, H, W), or a tuple of such."""
    if isinstance(unit, Flow):
        return _count_branches((unit.steps,), shape)
    if isinstance(unit, Chain):
        return _count_branches((unit.parts,), shape)
    if isinstance(unit, Summed):
        return _count_branches(unit.branches, shape, join="first" if unit.in_place else "sum")
    if isinstance(unit, Concat):
        return _count_branches(unit.branches, shape, join="planes")
    if isinstance(unit, Stretched):
        return _count_stretched(unit, shape)
    whole = unit.whole() if hasattr(unit, "whole") else None
    if whole is not None:
        return _count(whole, shape)
    found = step_cost(unit, shape)
    if found is not None:
        return found
    from nas.measured import measured  # imports torch, which most families' units do without

    return measured(unit, shape)[0]


def _count_branches(
    branches: Sequence[tuple[Step, ...]], shape: Any, *, join: Literal["first", "sum", "planes"] = "first"
) -> Counted:
    """Counts chains of steps on the same input.

    Args:
        branches: The chains.
        shape: Of the input.
        join: The others are added to the `first`, in its memory; their `sum` is a new tensor; their `planes` are
            joined to one.
    """
    # Of no size, since whoever makes the input counts it, if it is kept.
    inputs = tuple(_Activation(0) for _ in (shape if isinstance(shape[0], tuple) else (shape,)))
    chains = [_Chained(shape, inputs) for _ in branches]
    for chain, steps in zip(chains, branches, strict=True):
        for step in steps:
            chain.add(step)
    total = sum((chain.cost() for chain in chains), Cost())
    first = chains[0]
    out = first.shape
    if len(chains) > 1 and len({chain.shape[join == "planes" :] for chain in chains}) > 1:
        raise RuntimeError(f"branches give {' and '.join(by(chain.shape) for chain in chains)}, which do not fit")
    gives: tuple[Made | int, ...]
    if join == "first":
        gives = tuple(inputs.index(x) if x in inputs else Made(x.size, x.kept) for x in first.outputs)
    else:
        if join == "planes":
            out = (sum(chain.shape[0] for chain in chains), *out[1:])
        gives = (Made(size_of(out), False),)
    return Counted(total, out, tuple(x.kept for x in inputs), gives)


def _count_stretched(step: Stretched, shape: Any) -> Counted:
    """Counts a unit by one with another temporal kernel, and with sets of two dilations for all its dilations."""
    from nas.measured import measured

    found, params = measured(step.unit, shape)
    # What the second dilation adds in evaluation is what these convolutions cost in one pass.
    one = found.cost.macs - found.cost.train_macs
    new_params, new_one = (value // step.measured * step.kernel for value in (params, one))
    rest = found.cost.train_macs - one
    cost = replace(
        found.cost,
        params=found.cost.params - params + new_params,
        macs=rest + new_one * step.passes,
        train_macs=rest + new_one,
    )
    return found._replace(cost=cost)
