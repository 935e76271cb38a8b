"""What a network costs, exactly and before it is trained.

Counting convention: one multiply-accumulate (MAC) is 1, of convolutions, linear layers and products of matrices only;
norms, activations, pooling and biases are 0. The FLOPs of the papers on video networks are these MACs. All figures are
for one clip.

`cost` adds up the units of a network, each counted once for an input shape: from their values where a unit says what it
is made of (`search_spaces.flow`), else by running it on the meta device, which needs torch; what that gave for parts of
timm's networks is remembered. Tests count whole networks in two ways that share no code with it or
with each other, and hold all three to the same integer.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

import search_spaces
from nas.cost.steps import step_cost
from nas.cost.units import Cost, Counted, Made, by, size_of
from search_spaces.catalogue import links
from search_spaces.errors import ClipError, SpecError
from search_spaces.flow import Aside, Flow, Forked, Fused, Parallel, Shape, Step, Stretched, Summed, Weighed
from search_spaces.parts import Chain, Concat
from search_spaces.remembered import Remembered
from search_spaces.spec import ArchSpec, Unit
from trainer.config import Clip

__all__ = ["Cost", "cost", "cost_of"]

_COUNTERS = ("units.py", "meta.py")  # the sources that what is remembered follows from
_MOST = 2**63 - 1  # the largest number that a database holds


def cost(spec: ArchSpec, *, frames: int, height: int, width: int, num_classes: int, planes: int = 3) -> Cost:
    """Returns the exact cost of one clip.

    Args:
        spec: The network.
        frames: Frames of the clip.
        height: Rows, in pixels.
        width: Columns, in pixels.
        num_classes: Classes.
        planes: Planes of the clip: 3 of RGB, 2 of optical flow.

    Raises:
        SpecError: A size is below 1, the clip is shorter than the network needs, or a cost is more than a database
            holds.
    """
    for name, value in (("frames", frames), ("height", height), ("width", width)):
        if value < 1:
            raise SpecError(f"{name} must be at least 1, but is {value}")
    clip = (planes, frames, height, width)
    chain = _Chained(clip, (_Activation(size_of(clip)),))
    for name, unit in links(spec, num_classes=num_classes, planes=planes):
        try:
            chain.add(unit)
        except (RuntimeError, ClipError) as error:
            reason = str(error).splitlines()[0]
            raise ClipError(
                f"a clip of {frames}x{height}x{width} is too short or too small for the network: at {name}, {reason}"
            ) from error
    found = chain.cost()
    for name, value in asdict(found).items():
        if value > _MOST:
            raise SpecError(f"{name} must be at most {_MOST:,}, but the network would have some {value:.0e}")
    return found


def cost_of(spec: ArchSpec, clip: Clip, *, num_classes: int, planes: int) -> Cost:
    """Returns what `cost` does, for a clip as a study states it."""
    return cost(spec, frames=clip.frames, height=clip.height, width=clip.width, num_classes=num_classes, planes=planes)


class _Activation:
    """A tensor between two units: its bytes for one clip, and whether some unit keeps it; one object for a storage."""

    __slots__ = ("kept", "size")

    def __init__(self, size: int, kept: bool = False) -> None:
        self.size, self.kept = size, kept


class _Chained:
    """Units one after the other: what they cost together, an activation between them counted once if any keeps it."""

    def __init__(self, shape: Shape, inputs: tuple[_Activation, ...], steps: Iterable[Step] = ()) -> None:
        self.shape, self.outputs = shape, inputs
        self._params = self._macs = self._train_macs = self._bytes = 0
        for step in steps:
            self.add(step)

    def add(self, unit: Step) -> None:
        """Puts a unit behind the others."""
        cost, self.shape, keeps, gives = _count(unit, self.shape)
        self._params += cost.params
        self._macs += cost.macs
        self._train_macs += cost.train_macs
        self._bytes += cost.activation_bytes
        inputs = self.outputs
        self.keep(keeps)
        self.outputs = tuple([inputs[g] if isinstance(g, int) else _Activation(g.size, g.kept) for g in gives])

    def keep(self, asked: Sequence[bool]) -> None:
        """Notes which of the outputs someone keeps."""
        for activation, wanted in zip(self.outputs, asked, strict=True):
            if wanted and not activation.kept:
                activation.kept = True
                self._bytes += activation.size

    def cost(self) -> Cost:
        """Returns the cost of all of them."""
        return Cost(params=self._params, macs=self._macs, train_macs=self._train_macs, activation_bytes=self._bytes)


@lru_cache(maxsize=200_000)
def _count(unit: Step | Flow, shape: Shape) -> Counted:
    """Counts one unit on an input (C, T, H, W), or a tuple of such."""
    if isinstance(unit, Stretched):
        return _count_stretched(unit, shape)
    # Of no size, since whoever makes the input counts it, if it is kept.
    inputs = tuple(_Activation(0) for _ in (shape if isinstance(shape[0], tuple) else (shape,)))
    if isinstance(unit, Flow):
        return _count_joined((unit.steps,), shape, inputs)
    if isinstance(unit, Chain):
        return _count_joined((unit.parts,), shape, inputs)
    if isinstance(unit, Summed):
        return _count_joined(unit.branches, shape, inputs, join="first" if unit.in_place else "sum")
    if isinstance(unit, Concat):
        return _count_joined(unit.branches, shape, inputs, join="planes")
    if isinstance(unit, Forked):
        return _given([_Chained(shape, inputs, steps) for steps in unit.branches], inputs)
    if isinstance(unit, Parallel):
        apart = zip(shape, inputs, unit.chains, strict=True)
        return _given([_Chained(part, (given,), steps) for part, given, steps in apart], inputs)
    if isinstance(unit, Weighed):
        return _count_weighed(unit, shape, inputs)
    if isinstance(unit, Fused):
        return _count_fused(unit, shape, inputs)
    if isinstance(unit, Aside):
        chain = _Chained(shape, inputs, unit.steps)
        # In evaluation it rests.
        return Counted(replace(chain.cost(), macs=0), shape, _kept(inputs), tuple(range(len(inputs))))
    whole = unit.whole(shape) if hasattr(unit, "whole") else None
    if whole is not None:
        return _count(whole, shape)
    return step_cost(unit, shape) or known(unit, shape)[0]


def _kept(inputs: tuple[_Activation, ...]) -> tuple[bool, ...]:
    return tuple([x.kept for x in inputs])


def _gives(outputs: tuple[_Activation, ...], inputs: tuple[_Activation, ...]) -> tuple[Made | int, ...]:
    return tuple([inputs.index(x) if x in inputs else Made(x.size, x.kept) for x in outputs])


def _count_joined(
    branches: Sequence[tuple[Step, ...]],
    shape: Shape,
    inputs: tuple[_Activation, ...],
    *,
    join: Literal["first", "sum", "planes"] = "first",
) -> Counted:
    """Counts chains of steps on the same input, whose results become one.

    Args:
        branches: The chains.
        shape: Of the input.
        inputs: What goes in.
        join: The others are added to the `first`, in its memory; their `sum` is a new tensor; their `planes` are
            joined to one.
    """
    chains = [_Chained(shape, inputs, steps) for steps in branches]
    out = chains[0].shape
    if len(chains) > 1 and len({chain.shape[join == "planes" :] for chain in chains}) > 1:
        raise RuntimeError(f"branches give {' and '.join(by(chain.shape) for chain in chains)}, which do not fit")
    gives: tuple[Made | int, ...]
    if join == "first":
        gives = _gives(chains[0].outputs, inputs)
    else:
        if join == "planes":
            out = (sum(chain.shape[0] for chain in chains), *out[1:])
        gives = (Made(size_of(out), False),)
    return Counted(_total(chains), out, _kept(inputs), gives)


def _given(chains: Sequence[_Chained], inputs: tuple[_Activation, ...]) -> Counted:
    """Returns what chains cost whose results are passed on side by side."""
    outputs = tuple(activation for chain in chains for activation in chain.outputs)
    return Counted(_total(chains), tuple(chain.shape for chain in chains), _kept(inputs), _gives(outputs, inputs))


def _count_weighed(step: Weighed, shape: Shape, inputs: tuple[_Activation, ...]) -> Counted:
    """Counts the product of an input and of what a chain makes of it; both factors are kept."""
    chain = _Chained(shape, inputs, step.steps)
    chain.keep((True,))
    if chain.shape[0] != shape[0]:
        raise RuntimeError(f"{chain.shape[0]} factors cannot weigh {shape[0]} planes")
    return Counted(chain.cost(), shape, (True,), (Made(size_of(shape), False),))


def _count_fused(step: Fused, shape: Shape, inputs: tuple[_Activation, ...]) -> Counted:
    """Counts what a chain makes of the second of two tensors, joined to the first."""
    first, second = shape
    chain = _Chained(second, inputs[1:], step.steps)
    if chain.shape[1:] != first[1:]:
        raise RuntimeError(f"the pathways give {by(first)} and {by(chain.shape)}, which do not fit")
    joined = (first[0] + chain.shape[0], *first[1:])
    return Counted(chain.cost(), (joined, second), _kept(inputs), (Made(size_of(joined), False), 1))


def _total(chains: Sequence[_Chained]) -> Cost:
    return sum((chain.cost() for chain in chains), Cost())


def _count_stretched(step: Stretched, shape: Shape) -> Counted:
    """Counts a unit by one with another temporal kernel, and with sets of two dilations for all its dilations."""
    found, params = known(step.unit, shape)
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


@lru_cache(maxsize=50_000)
def known(unit: Unit, shape: Shape) -> tuple[Counted, int]:
    """Returns what `nas.cost.meta.measured` does.

    A unit of timm's says by `lasting` what it is for good: its cost follows from that, from the versions of timm and
    torch, and from our own sources, so it is measured once on this machine. Any other unit is measured by each process,
    since whoever wrote it may change it. A clip that is too short is found out anew each time.
    """
    lasting: Hashable = getattr(unit, "lasting", None)
    if lasting is None:
        return _measured(unit, shape)
    table, key = _table(), f"{lasting} {shape}"
    found = table.get(key)
    if found is None:
        counted, weights = _measured(unit, shape)
        table.put(key, _plain(counted, weights))
        return counted, weights
    return _read(found)


def _measured(unit: Unit, shape: Shape) -> tuple[Counted, int]:
    from nas.cost.meta import measured

    return measured(unit, shape)


@cache
def _table() -> Remembered:
    ours, spaces = Path(__file__).parent, Path(search_spaces.__file__).parent
    sources = [*(ours / name for name in _COUNTERS), *spaces.rglob("*.py")]
    return Remembered("costs", packages=("timm", "torch"), sources=sources)


def _plain(counted: Counted, weights: int) -> list[Any]:
    cost = counted.cost
    return [
        [cost.params, cost.macs, cost.train_macs, cost.activation_bytes],
        counted.shape,
        counted.keeps,
        counted.gives,
        weights,
    ]


def _read(found: list[Any]) -> tuple[Counted, int]:
    (params, macs, train_macs, activation_bytes), shape, keeps, gives, weights = found
    cost = Cost(params=params, macs=macs, train_macs=train_macs, activation_bytes=activation_bytes)
    made = tuple(given if isinstance(given, int) else Made(*given) for given in gives)
    return Counted(cost, tuple(shape), tuple(keeps), made), weights
