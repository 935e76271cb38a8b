"""Activation checkpointing: blocks of a network keep their inputs alone, and compute the rest again for gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from trainer.batchnorm import norms_of, without_update


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The parts of a network that are computed again, none within another.

    A block is what stands in a row: each member of an `nn.Sequential` or `nn.ModuleList` that has members itself (a
    residual block, an inception unit). A Sequential of plain layers is one block.
    """
    return list(_blocks(model))


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in [module] if isinstance(module, nn.Sequential) else module.children():
        if isinstance(child, nn.Sequential):
            if any(True for member in child for _ in member.children()):
                for member in child:
                    yield from _members(member)
            elif any(True for _ in child.parameters()):
                yield child
        elif isinstance(child, nn.ModuleList):
            for member in child:
                yield from _members(member)
        else:
            yield from _blocks(child)


def _members(member: nn.Module) -> Iterator[nn.Module]:
    if isinstance(member, nn.Sequential | nn.ModuleList):
        yield from _blocks(nn.ModuleList([member]))
    elif any(True for _ in member.children()) and any(True for _ in member.parameters()):
        yield member


@contextmanager
def recomputed(
    blocks: Sequence[nn.Module], *, again: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Iterator[None]:
    """Within it, forward and backward passes compute the blocks' activations again instead of keeping them.

    Dropout draws the same numbers again; batch normalisation counts a batch once.

    Args:
        blocks: Of the network.
        again: Makes the context of what is computed again; what surrounds the backward pass does not reach there.
    """
    for block in blocks:
        norms = list(norms_of(block))
        block.forward = partial(_forward, block.forward, partial(_contexts, norms, again))
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the one of its class shows again


def _forward(forward: Callable[..., Any], contexts: Callable[[], Any], *args: Any, **kwargs: Any) -> Any:
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _contexts(
    norms: Sequence[_BatchNorm], again: Callable[[], AbstractContextManager[object]]
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _both(norms, again)


@contextmanager
def _both(norms: Sequence[_BatchNorm], again: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    with without_update(norms), again():
        yield
