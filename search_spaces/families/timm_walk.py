"""Which parts a 2D network of timm is a chain of, found by watching it run.

A network runs once on the meta device, where shapes are computed and numbers are not, with a hook on every module. A
module is a chain where each of its children takes what the one before returned, as the very same tensor, and nothing
else: then running the children one after the other computes what the module does, whatever its code looks like.
Functions between the children, second inputs and changes in place would break the identity, and such a module is kept
whole.

A network that is no chain at all can still be run for each frame, as one part.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.families.timm_known import NUM_STAGES
from search_spaces.families.timm_tokens import count_attention
from search_spaces.spec import SpecError, nearest


@dataclass(eq=False)
class Call:
    """One call of a module.

    Attributes:
        path: The module's path in the network.
        module: The module.
        x: The tensor that it was given; None if there were several or none.
        x_version: How often that tensor had been changed in place by then.
        y: The tensor that it returned; None if that was something else.
        y_version: The same of the result.
        inner: Calls that it made, in order.
    """

    path: str
    module: nn.Module
    x: Tensor | None
    x_version: int
    y: Tensor | None = None
    y_version: int = 0
    inner: list[Call] = field(default_factory=list)

    def walk(self) -> Iterator[Call]:
        """Yields this call and all within it, in order."""
        yield self
        for call in self.inner:
            yield from call.walk()

    def feeds(self, other: Call) -> bool:
        """Returns whether the other call took what this one returned, unchanged."""
        return self.y is not None and self.y is other.x and self.y_version == other.x_version

    def is_chain(self) -> bool:
        """Returns whether running the calls within one after the other is all that this call does."""
        inner = self.inner
        if not inner or self.x is None or inner[0].x is not self.x or inner[0].x_version != self.x_version:
            return False
        links = all(a.feeds(b) for a, b in pairwise(inner))
        return links and inner[-1].y is self.y and inner[-1].y_version == self.y_version

    def is_block(self) -> bool:
        """Returns whether convolutions run within, so that it is more than a layer."""
        return any(isinstance(call.module, nn.Conv2d) for inner in self.inner for call in inner.walk())


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


class Plan(NamedTuple):
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


def check_model(model: str) -> None:
    """Raises SpecError unless timm has a network of this name; the message has the nearest names."""
    names = _names()
    if model not in names:
        raise SpecError(f"model must be a network of timm, but is {model}{nearest(model, names)}")


def create(model: str, *, num_classes: int | None = None) -> nn.Module:
    """Returns timm's own network with fresh values on the default device; raises SpecError if there is none."""
    import timm

    check_model(model)
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    network: nn.Module = timm.create_model(model, **options)
    count_attention(network)
    return network


@lru_cache(maxsize=64)
def template(model: str) -> nn.Module:
    """Returns the network on the meta device, in evaluation mode; never to be changed."""
    with torch.device("meta"):
        return create(model).eval()


def input_size(model: str) -> tuple[int, int]:
    """Returns rows and columns that the network was made for."""
    config: Any = template(model).pretrained_cfg
    _, height, width = config["input_size"]
    return height, width


@lru_cache(maxsize=64)
def plan(model: str) -> Plan:
    """Returns the network as a chain.

    Raises:
        SpecError: timm has none of this name, or it cannot be used: it is no classifier of images, or it multiplies
            matrices where no count of operations would find it.
    """
    root = trace(model)[""]
    found = _classifier(list(_flatten(root, into=True))) if root.is_chain() else None
    if found is None:
        return Plan((), (), *_whole(model))
    body, tail, last = found
    size = _size(root.x)
    assert size is not None
    features = last.module.in_features
    assert isinstance(features, int)
    return Plan(tuple(_parts(body, size)), tuple(call.path for call in tail), last.path, features)


@lru_cache(maxsize=64)
def trace(model: str) -> dict[str, Call]:
    """Returns the calls of the network on an image of its own size, by path; the whole network's is the empty one.

    Raises:
        SpecError: As `plan`.
    """
    network = template(model)
    height, width = input_size(model)
    names = {module: name for name, module in network.named_modules()}
    stack: list[Call] = []
    calls: dict[str, Call] = {}
    macs = 0

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor | list | tuple)]
        x = tensors[0] if len(tensors) == 1 and isinstance(tensors[0], Tensor) else None
        call = Call(names[module], module, x, -1 if x is None else x._version)
        if stack:
            stack[-1].inner.append(call)
        calls.setdefault(call.path, call)
        stack.append(call)

    def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        nonlocal macs
        call = stack.pop()
        if isinstance(out, Tensor):
            call.y, call.y_version = out, out._version
            if isinstance(module, _ConvNd | nn.Linear):
                macs += out.numel() * module.weight[0].numel()
            elif hasattr(module, "macs"):
                count: Any = module.macs
                macs += count(*args, out=out)

    handles = [
        handle
        for module in names
        for handle in (
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after, with_kwargs=True),
        )
    ]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(torch.empty((2, 3, height, width), device="meta"))
    except Exception as error:  # whatever a network of timm may raise on the meta device
        raise SpecError(f"model {model} cannot be used: {' '.join(str(error).split())}") from None
    finally:
        for handle in handles:
            handle.remove()
    if counter.get_total_flops() != 2 * macs:
        raise SpecError(
            f"model {model} cannot be used: it multiplies outside of its convolutions and linear layers, so that its"
            " cost would not be known"
        )
    return calls


def without_classifier(network: Any) -> nn.Module:
    """Takes the classifier off a network, which then gives features."""
    network.reset_classifier(0)
    return cast(nn.Module, network)


def fixed_size(model: str) -> tuple[int, int] | None:
    """Returns rows and columns if the network takes images of one size only."""
    config: Any = template(model).pretrained_cfg
    return input_size(model) if config.get("fixed_input_size") else None


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


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    import timm

    return frozenset(timm.list_models())


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
    if not isinstance(last.module, nn.Linear) and last.is_chain():
        # A head that holds the pool and the classifier.
        chain += _flatten(last, into=True)
        last = chain.pop()
    while chain and last.y is last.x:
        last = chain.pop()
    paths = [call.path for call in (*chain, last)]
    split = next((i for i, call in enumerate(chain) if _size(call.y) in (None, 1)), 0)
    linear = isinstance(last.module, nn.Linear) and last.x is not None and last.x.dim() == 2
    return (chain[:split], chain[split:], last) if split and linear and len(set(paths)) == len(paths) else None


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
