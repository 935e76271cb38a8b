"""Scores of how an untrained network takes a few clips: naswot and zico; and the clips that they look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from nas.search.scores.structure import weight_of, weighted
from trainer.config import DataConfig

if TYPE_CHECKING:
    from trainer.data.clips import VideoData

Batches = Sequence[tuple[Tensor, Tensor]]
"""Clips (N, C, T, H, W) and labels: (N,), or (N, classes) of 0 and 1 where a video has several."""

BATCHES = 4
CLIPS = 8  # of a batch

_aten = torch.ops.aten
_RECTIFIERS = {
    op
    for name in ("relu", "silu", "hardswish", "gelu", "leaky_relu", "elu", "hardtanh", "mish", "_prelu_kernel")
    for op in (getattr(_aten, name), getattr(_aten, f"{name}_", None))
    if op is not None
}


def training_batches(data: VideoData, config: DataConfig, seed: int) -> Batches:
    """The first batches of training clips by a seed; fewer where the data has fewer.

    Scores look at the study's own clips where these are at hand: what a network can tell apart is a question of what
    there is to tell apart, and noise has no motion in it.
    """
    from trainer.data.clips import train_batches

    size = min(CLIPS, len(data.split("train")))
    return list(islice(train_batches(data, config, batch_size=size, seed=seed, epoch=0), BATCHES))


def noise(clip: tuple[int, ...], num_classes: int, seed: int) -> Batches:
    """Standard normal clips (C, T, H, W) with random labels, for where there is no data."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(CLIPS, *clip, generator=generator),
            torch.randint(num_classes, (CLIPS,), generator=generator),
        )
        for _ in range(BATCHES)
    ]


@torch.no_grad()
def naswot(network: nn.Module, batches: Batches) -> float:
    """The logarithm of |det K|, K_ij being the number of rectifiers that clips i and j switch alike.

    Mellor et al. 2021, "Neural Architecture Search without Training" (arXiv 2006.04647). Any activation that is about
    0 below 0 counts as a rectifier, at each of its places over (C, T, H, W). Batch norms are in training mode, as
    there: they centre what would otherwise be switched alike by all clips.

    Args:
        network: With initial weights; it is changed.
        batches: The first two are looked at, as one.
    """
    clips = torch.cat([clips for clips, _ in batches[:2]])
    codes = _Codes(len(clips))
    with codes:
        network.train()(clips)
    sign, value = torch.linalg.slogdet(codes.alike)
    return float(value) if sign > 0 else math.nan


class _Codes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts how many rectifiers each two clips of a batch switch alike."""

    def __init__(self, num_clips: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alike = torch.zeros(num_clips, num_clips, dtype=torch.float64)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in _RECTIFIERS:
            on = (out > 0).reshape(len(self.alike), -1).float()
            off = 1.0 - on
            self.alike += (on @ on.T + off @ off.T).double()
        return out


def zico(network: nn.Module, batches: Batches) -> float:
    """Sum over layers of ln of the sum over weights of mean / standard deviation of |gradient| over batches.

    Li et al. 2023, "ZiCo: Zero-shot NAS via Inverse Coefficient of Variation on Gradients" (arXiv 2301.11300), whose
    images are clips here. A weight whose gradient does not vary is left out, and a layer that has no others.

    Args:
        network: With initial weights; it is changed.
        batches: Two or more.
    """
    network.train()
    layers = [weight_of(layer) for layer in weighted(network)]
    means = [torch.zeros_like(weight) for weight in layers]
    squares = [torch.zeros_like(weight) for weight in layers]  # sums of squared deviations, by Welford's update
    for count, (clips, labels) in enumerate(batches, start=1):
        for i, grad in enumerate(_gradients(network, layers, clips, labels)):
            size = grad.abs()
            apart = size - means[i]
            means[i] += apart / count
            squares[i] += apart * (size - means[i])
    logs = []
    for mean, square in zip(means, squares, strict=True):
        deviation = (square / len(batches)).sqrt()
        ratio = float((mean / deviation)[deviation > 0].double().sum())
        logs += [math.log(ratio)] if ratio > 0 else []
    return sum(logs) if logs else math.nan


@torch.enable_grad()
def _gradients(network: nn.Module, layers: Sequence[Tensor], clips: Tensor, labels: Tensor) -> list[Tensor]:
    out = network(clips)
    logits = out[0] if isinstance(out, tuple) else out  # side heads come behind
    several = labels.dim() > 1
    loss = F.binary_cross_entropy_with_logits(logits, labels) if several else F.cross_entropy(logits, labels)
    return list(torch.autograd.grad(loss, layers, allow_unused=True, materialize_grads=True))
