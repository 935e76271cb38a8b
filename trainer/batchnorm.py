"""Batch normalisation in training: statistics that are kept, left alone, or shared by the processes of a team."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn
from torch.overrides import TorchFunctionMode

from trainer.device import autocast
from trainer.recipe import Recipe


def freeze_statistics(model: nn.Module) -> None:
    """Puts batch normalisations into eval mode; their weights and biases still learn."""
    for module in norms_of(model):
        module.eval()


def norms_of(model: nn.Module) -> Iterator[_BatchNorm]:
    """The batch normalisations of a network, timm's among them."""
    return (module for module in model.modules() if isinstance(module, _BatchNorm))


def estimate_statistics(
    model: nn.Module, batches: Sequence[Tensor], recipe: Recipe, device: str | torch.device, *, seed: int
) -> None:
    """Sets running statistics to the mean over batches, for weights that were trained in other company.

    Networks that share weights disturb each other's statistics, and an average of weights has none of its own
    (Izmailov et al. 2018, section 3.3).

    Args:
        model: The network, on the device; its mode is afterwards as it was.
        batches: Clips (N, C, T, H, W), on the device.
        recipe: Its precision and memory order are used.
        device: Where to compute.
        seed: Of what the network draws in training mode; torch's generators are as before when this returns.
    """
    device = torch.device(device)
    order = torch.channels_last_3d if recipe.channels_last else torch.contiguous_format
    with torch.random.fork_rng([device] if device.type == "cuda" else []), autocast(recipe.precision, device):
        torch.manual_seed(seed)
        update_bn((clips.to(memory_format=order) for clips in batches), model)


@contextmanager
def without_update(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """Computes as in training, but leaves running statistics and counts as they are.

    A forward pass that is done a second time, for its activations, must not count twice. It updates copies: without
    statistics at all, torch would keep other tensors for the gradient than in the first pass, and say so.
    """
    kept = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        for name, value in buffers.items():
            setattr(norm, name, value.clone())
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            for name, value in buffers.items():
                setattr(norm, name, value)


class SyncedStatistics(TorchFunctionMode):
    """Within it, batch normalisation in training uses the mean and variance over the clips of all processes.

    Torch's SyncBatchNorm has kernels for CUDA alone, and Fabric brings none. This one stands where every batch
    normalisation ends, `F.batch_norm`, so that no module is replaced and subclasses keep what they add.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Passes all functions on but one."""
        if func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor,  # noqa: A002 - torch's name
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm` of (N, C, ...) over the clips of all processes; N may differ between them.

    The variance takes a second pass, so that it is as exact as torch's own.
    """
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    axes = [axis for axis in range(input.ndim) if axis != 1]
    shape = [-1 if axis == 1 else 1 for axis in range(input.ndim)]
    wide = input.float()
    count = torch.tensor(float(input.numel() // input.shape[1]), device=input.device)
    sums = _summed(torch.cat((wide.sum(axes), count[None])))
    total = sums[-1].detach()
    mean = sums[:-1] / total
    centred = wide - mean.view(shape)
    var = _summed(centred.square().sum(axes)) / total
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * total / (total - 1)).to(running_var.dtype), momentum)
    scale = (var + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    result = centred * scale.view(shape)
    if bias is not None:
        result = result + bias.view(shape)
    return result.to(input.dtype)


def _summed(values: Tensor) -> Tensor:
    summed: Tensor = _AllReduce.apply(values)
    return summed


class _AllReduce(torch.autograd.Function):
    """A sum over processes. What a process adds reaches all sums, so that its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: FunctionCtx, values: Tensor) -> Tensor:
        result = values.clone()
        dist.all_reduce(result)
        return result

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> Tensor:
        result = grads[0].clone()
        dist.all_reduce(result)
        return result
