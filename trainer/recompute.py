"""Activation checkpointing: blocks of a network keep their inputs alone, and compute the rest again for gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from trainer.batchnorm import norms_of, without_update


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The parts of a network that are computed again, none within another.

    A block is what stands in a row and has members (a residual block, an inception unit), a row of plain layers, or a
    part that holds no row (a stem). Rows are `nn.Sequential`, `nn.ModuleList`, and modules that have no class but that.
    """
    return list(_blocks([model]))


def _blocks(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    for module in modules:
        if _is_row(module):
            members = list(module.children())
            if any(True for member in members for _ in member.children()):
                yield from _blocks(member for member in members if _is_row(member))
                yield from (member for member in members if not _is_row(member) and _is_block(member))
            elif isinstance(module, nn.Sequential) and _is_block(module):
                yield module
        elif any(_is_row(inner) for inner in module.modules()):
            yield from _blocks(module.children())
        elif _is_block(module):
            yield module


def _is_row(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential | nn.ModuleList) or type(module) is nn.Module


def _is_block(module: nn.Module) -> bool:
    return any(True for _ in module.children()) and any(True for _ in module.parameters())


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
