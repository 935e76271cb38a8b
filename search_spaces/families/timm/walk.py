"""Which parts a 2D network of timm is a chain of, found by watching it run.

A module is a chain where each of its children takes what the one before returned, as the very same tensor, and nothing
else: then running the children one after the other computes what the module does, whatever its code looks like.
Functions between the children, second inputs and changes in place would break the identity, and such a module is kept
whole.

A network that is no chain at all can still be run for each frame, as one part.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from search_spaces.errors import SpecError
from search_spaces.families.timm.known import NUM_STAGES
from search_spaces.families.timm.trace import Call, input_size, template, trace, without_classifier


class Part(NamedTuple):
    """Modules of the network that run one after the other.

    Attributes:
        name: Path of the first.
        paths: Paths of all.
        stage: From 0 to 4: how often rows and columns were halved up to its output, less one.
        in_planes: Planes in.
        out_planes: Planes out.
        stride: Over rows and columns.
    """

    name: str
    paths: tuple[str, ...]
    stage: int
    in_planes: int
    out_planes: int
    stride: int


class Chain(NamedTuple):
    """A network of timm as a chain.

    Attributes:
        parts: What computes maps of features; none if the network is no chain.
        tail: Paths between those and the classifier: the global pool and what follows it.
        classifier: Path of the classifier.
        features: Features that the classifier sees.
    """

    parts: tuple[Part, ...]
    tail: tuple[str, ...]
    classifier: str
    features: int


@lru_cache(maxsize=64)
def plan(model: str) -> Chain:
    """Returns the network as a chain.

    Raises:
        SpecError: timm has none of this name, or it cannot be used: it is no classifier of images, or it multiplies
            matrices where no count of operations would find it.
    """
    root = trace(model)[""]
    found = _classifier(list(_flatten(root, into=True))) if root.is_chain() else None
    if found is None:
        return Chain((), (), *_whole(model))
    body, tail, last = found
    size = _size(root.x)
    assert size is not None
    assert last.x is not None
    return Chain(tuple(_parts(body, size)), tuple(call.path for call in tail), last.path, last.x.shape[1])


def _whole(model: str) -> tuple[str, int]:
    """Returns the classifier's path and how many features it sees, of a network that is no chain."""
    network: Any = template(model)
    height, width = input_size(model)
    try:
        with torch.no_grad():
            features = without_classifier(copy.deepcopy(network))(torch.empty((2, 3, height, width), device="meta"))
    except Exception:  # there is no rule what networks without a classifier raise
        raise SpecError(f"model {model} cannot be used: it has no classifier that could be taken off") from None
    if not isinstance(features, Tensor) or features.dim() != 2:
        raise SpecError(f"model {model} cannot be used: it does not give one row of features for an image")
    last = network.get_classifier()
    path = next((path for path, module in network.named_modules() if module is last), "")
    if not path:
        raise SpecError(f"model {model} cannot be used: it has not one classifier but several")
    return path, features.shape[1]


def _flatten(call: Call, *, into: bool = False) -> Iterator[Call]:
    """Yields the calls that a call is a chain of, down to blocks and to layers that are in none."""
    container = type(call.module) is nn.Sequential or type(call.module).__name__.endswith("Stage")
    if (into or container) and call.is_chain():
        for inner in call.inner:
            yield from _flatten(inner)
    elif not isinstance(call.module, nn.Identity):
        yield call


def _classifier(chain: list[Call]) -> tuple[list[Call], list[Call], Call] | None:
    """Returns the calls that compute maps, those behind them, and the classifier's; None if there is no such order."""
    last = chain.pop()
    if not is_classifier(last) and last.is_chain():
        # A head that holds the pool and the classifier.
        chain += _flatten(last, into=True)
        last = chain.pop()
    while chain and (last.y is last.x or isinstance(last.module, nn.Flatten)):
        last = chain.pop()
    paths = [call.path for call in (*chain, last)]
    split = next((i for i, call in enumerate(chain) if _size(call.y) in (None, 1)), 0)
    once = len(set(paths)) == len(paths)
    return (chain[:split], chain[split:], last) if split and once and is_classifier(last) else None


def is_classifier(call: Call) -> bool:
    """Returns whether a call is of a linear layer on rows of features, or of a convolution that is one."""
    if call.x is None:
        return False
    if isinstance(call.module, nn.Linear):
        return call.x.dim() == 2
    return isinstance(call.module, nn.Conv2d) and call.module.kernel_size == (1, 1) and _size(call.x) == 1


def _parts(body: list[Call], size: int) -> Iterator[Part]:
    """Joins layers that are in no block, such as a convolution, its norm and its activation."""
    group: list[Call] = []

    def close() -> Iterator[Part]:
        if group:
            first, last = group[0].x, group[-1].y
            assert first is not None and last is not None
            stage = min(max(round(math.log2(size / last.shape[2])) - 1, 0), NUM_STAGES - 1)
            stride = round(first.shape[2] / last.shape[2])
            paths = tuple(call.path for call in group)
            yield Part(paths[0], paths, stage, first.shape[1], last.shape[1], stride)
            group.clear()

    for call in body:
        # A pool behind convolutions begins a part, so that all convolutions of a part are in one stage.
        shrinks = _size(call.x) != _size(call.y)
        if call.is_block() or (shrinks and any(isinstance(c.module, nn.Conv2d) for c in group)):
            yield from close()
        group.append(call)
        if call.is_block():
            yield from close()
    yield from close()


def _size(x: Tensor | None) -> int | None:
    return x.shape[2] if x is not None and x.dim() == 4 else None
