"""timm's networks, and what happens when one runs: which module is called with which tensor.

Without it, a count of operations that asks layers would not find those products.

A network runs once on the meta device, where shapes are computed and numbers are not, with a hook on every module.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.errors import SpecError, nearest


class Lookup(nn.Module):
    """Values averaged by the softmax of scaled products of queries and keys."""

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Maps three tensors (N, heads, L, D) to one."""
        return F.scaled_dot_product_attention(queries, keys, values)

    def macs(self, queries: Tensor, keys: Tensor, values: Tensor, *, out: Tensor) -> int:
        """Multiply-accumulates of one call, the whole batch."""
        return (queries.numel() + out.numel()) * keys.shape[2]


class CountedAttention(nn.Module):
    """timm's self-attention without mask, dropout or gate: its layers under its names, computed the same way."""

    def __init__(self, theirs: Any) -> None:
        """Makes it of the layers of timm's."""
        super().__init__()
        self.num_heads: int = theirs.num_heads
        self.lookup = Lookup()
        for name, layer in theirs.named_children():
            self.add_module(name, layer)
        if "norm" not in self._modules:
            self.norm = nn.Identity()

    def forward(self, x: Tensor, attn_mask: None = None, is_causal: bool = False) -> Tensor:
        """Maps tokens (N, L, C) to (N, L, C)."""
        assert attn_mask is None and not is_causal
        layers = self._modules
        qkv = _run(layers["qkv"], x)
        qkv = qkv.reshape(*qkv.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        queries, keys, values = qkv.unbind(0)
        found = self.lookup(_run(layers["q_norm"], queries), _run(layers["k_norm"], keys), values)
        joined = _run(self.norm, found.transpose(1, 2).flatten(2))
        return _run(layers["proj_drop"], _run(layers["proj"], joined))


def count_attention(network: nn.Module) -> None:
    """Makes the attention of a network countable, in place, where it is timm's usual one."""
    for path, module in list(network.named_modules()):
        layer: Any = module
        usual = type(module).__name__ == "Attention" and {"qkv", "q_norm", "k_norm", "proj"} <= set(module._modules)
        if usual and getattr(layer, "gate", None) is None and layer.attn_drop.p == 0 and path:
            owner, _, name = path.rpartition(".")
            network.get_submodule(owner).add_module(name, CountedAttention(layer))


def _run(layer: nn.Module | None, x: Tensor) -> Tensor:
    assert layer is not None
    out: Tensor = layer(x)
    return out


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


def check_model(model: str) -> None:
    """Raises SpecError unless timm has a network of this name; the message has the nearest names."""
    names = _names()
    if model not in names:
        raise SpecError(f"model must be a network of timm, but is {model}{nearest(model, names)}")


def create(model: str, *, num_classes: int | None = None, planes: int = 3) -> nn.Module:
    """Returns timm's own network with fresh values on the default device.

    Args:
        model: timm's name.
        num_classes: Classes; its own by default.
        planes: Planes of its images.

    Raises:
        SpecError: There is none of this name, or it takes images of three planes only.
    """
    import timm

    check_model(model)
    options: dict[str, Any] = {} if num_classes is None else {"num_classes": num_classes}
    if planes != 3:
        options["in_chans"] = planes
    try:
        network: nn.Module = timm.create_model(model, **options)
    except Exception as error:
        if planes == 3:
            raise
        raise SpecError(f"model {model} takes images of 3 planes, not of {planes}: {str(error)[:120]}") from error
    count_attention(network)
    return network


@lru_cache(maxsize=64)
def template(model: str, planes: int = 3) -> nn.Module:
    """Returns the network on the meta device, in evaluation mode; never to be changed."""
    with torch.device("meta"):
        return create(model, planes=planes).eval()


def input_size(model: str) -> tuple[int, int]:
    """Returns rows and columns that the network was made for."""
    config: Any = template(model).pretrained_cfg
    _, height, width = config["input_size"]
    return height, width


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


@lru_cache(maxsize=1)
def _names() -> tuple[str, ...]:
    import timm

    return tuple(sorted(timm.list_models()))
