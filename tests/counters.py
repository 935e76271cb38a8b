"""Two independent counts of the multiply-accumulates of a whole network, which tests hold `nas.cost.cost` to.

They share no code with it or with each other, and are much slower.
"""

from __future__ import annotations

import copy
import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.convolutions import RandomDilationConv3d
from search_spaces.modules import Block


def count_thop(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Counts MACs with thop, in the module's mode.

    Args:
        module: A network; it is copied, because thop leaves buffers behind.
        shape: Shape of the input, batch included.

    Returns:
        MACs of convolutions and linear layers.
    """
    with warnings.catch_warnings():
        # thop 0.1.1 reads torch's version with distutils.
        warnings.simplefilter("ignore", DeprecationWarning)
        from thop import profile

    copied = copy.deepcopy(module).to("meta")
    if module.training:
        # thop always switches to evaluation, where side heads rest and every dilation is computed.
        copied.eval = lambda: copied  # type: ignore[method-assign]
    handlers: dict[type[nn.Module], Any] = {}
    for layer in copied.modules():
        if any(True for _ in layer.children()) or isinstance(layer, Block):
            continue
        if isinstance(layer, _ConvNd):
            # thop looks a layer's exact type up, so a subclass of a convolution would count as nothing.
            handlers[type(layer)] = partial(_thop_conv, training=module.training)
        elif hasattr(layer, "macs"):
            handlers[type(layer)] = _thop_own
        elif not isinstance(layer, nn.Linear):
            handlers[type(layer)] = _thop_nothing
    total, _ = profile(copied, inputs=(torch.empty(shape, device="meta"),), custom_ops=handlers, verbose=False)
    return int(total)


def count_flops(module: nn.Module, shape: tuple[int, ...]) -> int:
    """Counts MACs with torch's FlopCounterMode, which sees the operators that run, in the module's mode.

    Args:
        module: A network; it is copied, because training mode changes running statistics.
        shape: Shape of the input, batch included.

    Returns:
        MACs of convolutions and linear layers, half of what the counter calls floating point operations.
    """
    copied = copy.deepcopy(module).to("meta")
    with torch.no_grad(), torch.random.fork_rng(devices=[]), FlopCounterMode(display=False) as counter:
        copied(torch.empty(shape, device="meta"))
    return int(counter.get_total_flops()) // 2


def _thop_conv(layer: Any, x: tuple[Tensor, ...], y: Tensor, *, training: bool) -> None:
    per_output = (layer.in_channels // layer.groups) * torch.Size(layer.kernel_size).numel()
    passes = layer.passes(training=training) if isinstance(layer, RandomDilationConv3d) else 1
    layer.total_ops += y.numel() * per_output * passes


def _thop_nothing(layer: Any, x: tuple[Tensor, ...], y: Tensor) -> None:
    layer.total_ops += 0


def _thop_own(layer: Any, x: tuple[Tensor, ...], y: Tensor) -> None:
    layer.total_ops += layer.macs(*x, out=y)
