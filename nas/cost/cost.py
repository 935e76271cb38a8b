"""What a network costs, exactly and before it is trained.

Counting convention: one multiply-accumulate (MAC) is 1, of convolutions, linear layers and products of matrices only;
norms, activations, pooling and biases are 0. The FLOPs of the papers on video networks are these MACs. All figures are
for one clip.

`cost` adds up the units of a network, each counted once for an input shape: layer by layer from its graph, or, where
another library makes its module, by running that on the meta device, which needs torch; what that gave is remembered.
Tests count whole networks in two ways that share no code with it or with each other, and hold all three to the same
integer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import search_spaces
from nas.cost.layers import Cost, Counted, NewOutput, layer_cost, size_of
from search_spaces.catalogue import links
from search_spaces.errors import ClipError, SpecError
from search_spaces.graph import Foreign, Graph, Shape, Stretched, Unit
from search_spaces.remembered import Remembered
from search_spaces.spec import ArchSpec
from trainer.config import Clip

__all__ = ["Cost", "cost", "cost_of"]

_COUNTERS = ("layers.py", "meta.py")  # the sources that what is remembered follows from
_FIELDS = tuple(field.name for field in fields(Cost))
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
    total = _Total()
    shape: Any = clip
    passed: tuple[_Activation, ...] = (_Activation(size_of(clip)),)
    for name, unit in links(spec, num_classes=num_classes, planes=planes):
        try:
            counted = _count(unit, shape)
        except (RuntimeError, ClipError) as error:
            reason = str(error).splitlines()[0]
            raise ClipError(
                f"a clip of {frames}x{height}x{width} is too short or too small for the network: at {name}, {reason}"
            ) from error
        passed, shape = total.add(counted, passed), counted.shape
    found = total.cost()
    for name in _FIELDS:
        value = getattr(found, name)
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


class _Total:
    """What units or layers cost together: an activation between them is counted once, if any of them keeps it."""

    def __init__(self) -> None:
        self._params = self._macs = self._train_macs = self._bytes = 0

    def add(self, counted: Counted, inputs: Sequence[_Activation]) -> tuple[_Activation, ...]:
        """Adds one that takes these inputs; returns what it gives."""
        cost = counted.cost
        self._params += cost.params
        self._macs += cost.macs
        self._train_macs += cost.train_macs
        self._bytes += cost.activation_bytes
        for activation, kept in zip(inputs, counted.keeps, strict=True):
            if kept and not activation.kept:
                activation.kept = True
                self._bytes += activation.size
        gives = counted.gives
        if len(gives) == 1:  # as nearly all are, and this is called a million times
            given = gives[0]
            return (inputs[given] if isinstance(given, int) else _Activation(*given),)
        return tuple([inputs[given] if isinstance(given, int) else _Activation(*given) for given in gives])

    def cost(self) -> Cost:
        """Returns the cost of all of them."""
        return Cost(params=self._params, macs=self._macs, train_macs=self._train_macs, activation_bytes=self._bytes)


@lru_cache(maxsize=200_000)
def _count(unit: Unit | Foreign, shape: Any) -> Counted:
    """Counts one unit on an input (C, T, H, W), or a tuple of such."""
    if isinstance(unit, Foreign):
        stretched = unit.stretched()
        return known(unit, shape)[0] if stretched is None else _count_stretched(stretched, shape)
    counted = count_graph(unit.graph(), (shape,) if unit.inputs == 1 else shape)
    if not unit.aside:
        return counted
    # In evaluation it rests, and it is beside the chain.
    return Counted(replace(counted.cost, macs=0), shape, counted.keeps, tuple(range(unit.inputs)))


def count_graph(graph: Graph, shapes: Sequence[Shape]) -> Counted:
    """Counts a graph on inputs of these shapes, each (C, T, H, W)."""
    total = _Total()
    # Inputs are of no size, since whoever makes one counts it, if it is kept.
    inputs = [_Activation(0) for _ in shapes]
    found: dict[int, tuple[_Activation, Shape]] = {~i: pair for i, pair in enumerate(zip(inputs, shapes, strict=True))}
    for i in graph.order():
        node = graph.nodes[i]
        counted = layer_cost(node.layer, *[found[source][1] for source in node.inputs])
        (made,) = total.add(counted, [found[source][0] for source in node.inputs])
        found[i] = (made, counted.shape)
    outputs = [found[i] for i in graph.outputs]
    gives = tuple([inputs.index(x) if x in inputs else NewOutput(x.size, x.kept) for x, _ in outputs])
    shape = outputs[0][1] if len(outputs) == 1 else tuple([shape for _, shape in outputs])
    return Counted(total.cost(), shape, tuple([x.kept for x in inputs]), gives)


def _count_stretched(step: Stretched, shape: Any) -> Counted:
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
def known(unit: Foreign, shape: Any) -> tuple[Counted, int]:
    """Returns what `nas.cost.meta.measured` does.

    A unit says by `lasting` what it is for good: its cost follows from that, from the versions of timm and torch, and
    from our own sources, so it is measured once on this machine. A clip that is too short is found out anew each time.
    """
    table, key = _table(), f"{unit.lasting} {shape}"
    found = table.get(key)
    if found is not None:
        return _read(found)
    from nas.cost.meta import measured

    counted, weights = measured(unit, shape)
    table.put(key, _plain(counted, weights))
    return counted, weights


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
    made = tuple(given if isinstance(given, int) else NewOutput(*given) for given in gives)
    return Counted(cost, tuple(shape), tuple(keeps), made), weights
