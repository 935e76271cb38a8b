"""Losses of classification with one label per video and with several, and mixing of clips (mixup and cutmix).

Each is a mean over clips, so that the loss of a batch is the mean of those of its parts, weighted by their sizes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from timm.data.mixup import mixup_target
from torch import Tensor
from torch.nn import functional as F

from trainer.recipe import ClassWeights, Recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """The box that cutmix takes from another clip, as shares of the frame.

    Attributes:
        area: Share of the frame that the box takes where it lies wholly within.
        top: Middle of the box, from the top.
        left: Middle of the box, from the left.
    """

    area: float
    top: float
    left: float

    def box(self, height: int, width: int) -> tuple[slice, slice]:
        """Rows and columns of the box in pixels, cut off at the frame's border."""
        side = math.sqrt(self.area)
        return _span(self.top, side, height), _span(self.left, side, width)


def mixup(clips: Tensor, labels: Tensor, *, share: float, num_classes: int, smoothing: float) -> tuple[Tensor, Tensor]:
    """Mixes each clip with its mirror image in the batch (Zhang et al., arXiv 1710.09412).

    Args:
        clips: (N, C, T, H, W).
        labels: (N,), or 0/1 of each class (N, num_classes).
        share: Share of the clip itself, in 0..1.
        num_classes: Width of the targets.
        smoothing: Share of the target that is spread over all classes; only with one label per clip.

    Returns:
        Mixed clips (N, C, T, H, W) and soft targets (N, num_classes).
    """
    targets = _targets(labels, share=share, num_classes=num_classes, smoothing=smoothing)
    return torch.lerp(clips.flip(0), clips, share), targets


def cutmix(clips: Tensor, labels: Tensor, *, cut: Cut, num_classes: int, smoothing: float) -> tuple[Tensor, Tensor]:
    """Puts a box of each clip's mirror image in the batch into the clip (Yun et al., arXiv 1905.04899).

    The box is the same in all frames, so that what moves in it moves on (as in VideoMix, arXiv 2012.03458).

    Args:
        clips: (N, C, T, H, W); they stay as they are.
        labels: (N,), or 0/1 of each class (N, num_classes).
        cut: The box.
        num_classes: Width of the targets.
        smoothing: Share of the target that is spread over all classes; only with one label per clip.

    Returns:
        Mixed clips (N, C, T, H, W) and soft targets (N, num_classes); a class counts by its share of the pixels.
    """
    rows, columns = cut.box(*clips.shape[3:])
    mixed = clips.clone()
    mixed[..., rows, columns] = clips.flip(0)[..., rows, columns]
    taken = (rows.stop - rows.start) * (columns.stop - columns.start) / (clips.shape[3] * clips.shape[4])
    return mixed, _targets(labels, share=1 - taken, num_classes=num_classes, smoothing=smoothing)


def mixup_shares(recipe: Recipe, *, seed: int, epoch: int) -> Iterator[float | None]:
    """Endless mixup shares of an epoch's steps, from Beta(alpha, alpha); all `None` where mixup is off."""
    rng = random.Random(f"{seed}/{epoch}/mixup")
    while True:
        yield rng.betavariate(recipe.mixup, recipe.mixup) if recipe.mixup else None


def cuts(recipe: Recipe, *, seed: int, epoch: int) -> Iterator[Cut | None]:
    """Endless boxes of an epoch's steps, their areas from Beta(alpha, alpha); all `None` where cutmix is off.

    With mixup as well, half of them are `None`, and mixup takes those steps.
    """
    rng = random.Random(f"{seed}/{epoch}/cutmix")
    while True:
        if not recipe.cutmix:
            yield None
            continue
        cut = Cut(area=1 - rng.betavariate(recipe.cutmix, recipe.cutmix), top=rng.random(), left=rng.random())
        mixes = bool(recipe.mixup) and rng.random() < 0.5
        yield None if mixes else cut


def _targets(labels: Tensor, *, share: float, num_classes: int, smoothing: float) -> Tensor:
    if labels.ndim == 2:
        return torch.lerp(labels.flip(0), labels, share)
    targets: Tensor = mixup_target(labels, num_classes, share, smoothing)  # type: ignore[no-untyped-call]
    return targets


def _span(middle: float, side: float, length: int) -> slice:
    half = round(side * length) / 2
    low, high = (min(max(round(middle * length + by), 0), length) for by in (-half, half))
    return slice(low, high)


def loss_of(
    recipe: Recipe, logits: Tensor, targets: Tensor, *, smoothing: float, weights: Tensor | None = None
) -> Tensor:
    """The recipe's loss.

    Args:
        recipe: Names the loss.
        logits: (N, K).
        targets: Classes (N,), int64; or shares of classes (N, K), which for several labels are 0 or 1 unless mixed.
        smoothing: Share of the target that is spread over all classes; 0 where it was spread before.
        weights: Of the classes (K,).

    Returns:
        A scalar.
    """
    if recipe.loss == "cross_entropy":
        return cross_entropy(logits, targets, smoothing=smoothing, weights=weights)
    if targets.ndim == 1:
        targets = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
    if recipe.loss == "bce":
        return bce(logits, targets, scale=recipe.bce_scale, smoothing=smoothing, weights=weights)
    return lsep(logits, targets) if recipe.loss == "lsep" else warp(logits, targets)


def cross_entropy(logits: Tensor, targets: Tensor, *, smoothing: float = 0.0, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy, in nats.

    With weights it is the mean over clips of the weighted losses. (Torch's mean divides by the weights of the batch's
    labels instead, so that what a clip counts would depend on which others it is with.)

    Args:
        logits: (N, K).
        targets: Classes (N,), int64, or shares of classes (N, K).
        smoothing: Share of the target that is spread over all classes.
        weights: Of the classes (K,).

    Returns:
        A scalar.
    """
    if weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=smoothing)
    return F.cross_entropy(logits, targets, weights, label_smoothing=smoothing, reduction="none").mean()


def bce(
    logits: Tensor, targets: Tensor, *, scale: float = 1.0, smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy, a mean over clips and classes, times a factor.

    A mean over hundreds of classes of which one or two are there has small gradients. A factor of 160 made the
    difference in Zhang et al., "Team Efficient Multi-Moments in Time Challenge 2019 Technical Report", section 3; the
    same factor on the learning rate did not.

    Args:
        logits: (N, K).
        targets: (N, K), in 0..1.
        scale: The factor.
        smoothing: Share of the target that is spread over all classes.
        weights: Of the classes (K,).

    Returns:
        A scalar.
    """
    targets = targets.to(logits.dtype)
    if smoothing:
        targets = targets * (1 - smoothing) + smoothing / logits.shape[1]
    return scale * F.binary_cross_entropy_with_logits(logits, targets, weights)


def lsep(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-sum-exp pairwise loss: log(1 + sum over present p and absent a of exp(f_a - f_p)), a mean over clips.

    From Li, Song and Luo, "Improving Pairwise Ranking for Multi-label Image Classification", CVPR 2017. The paper
    samples at most 1000 pairs. All of them are as cheap, since the sum of products is a product of sums.

    Args:
        logits: (N, K).
        targets: (N, K), 0 or 1. A clip with all labels or none has no pairs, and a loss of 0.

    Returns:
        A scalar.
    """
    present = targets > 0.5
    ranked = present.any(1) & ~present.all(1)
    rows, inside = logits[ranked], present[ranked]
    worst_absent = rows.masked_fill(inside, -torch.inf).logsumexp(1)
    worst_present = (-rows).masked_fill(~inside, -torch.inf).logsumexp(1)
    return F.softplus(worst_absent + worst_present).sum() / len(logits)


def warp(logits: Tensor, targets: Tensor) -> Tensor:
    """Weighted approximate-rank pairwise loss (Weston, Bengio and Usunier, "WSABIE", IJCAI 2011, section 3).

    For each present label p: L(r) / r times the sum of max(0, 1 - f_p + f_a) over the absent labels a, where r is the
    number of terms above 0 and L(r) = 1 + 1/2 + ... + 1/r. The paper estimates r by drawing labels until one is above
    0, for vocabularies of 100,000; with hundreds of classes it is counted, and nothing is random. A clip's loss is the
    mean over its present labels; a mean over clips.

    Args:
        logits: (N, K).
        targets: (N, K), 0 or 1. A clip with all labels or none has a loss of 0.

    Returns:
        A scalar.
    """
    num_classes = logits.shape[1]
    present = targets > 0.5
    clip, label = present.nonzero(as_tuple=True)
    # (P, K): a row for each present label, so that memory goes with labels and not with classes squared.
    margins = 1 - logits[clip, label][:, None] + logits[clip]
    hinges = margins.clamp_min(0).masked_fill(present[clip], 0)
    ranks = (hinges > 0).sum(1)
    harmonic = torch.arange(1, num_classes + 1, device=logits.device, dtype=logits.dtype).reciprocal().cumsum(0)
    weights = torch.where(ranks > 0, harmonic[(ranks - 1).clamp_min(0)] / ranks.clamp_min(1), 0)
    share = present.sum(1)[clip].to(logits.dtype)
    return (weights * hinges.sum(1) / share).sum() / len(logits)


def class_weights(counts: Tensor, kind: ClassWeights) -> Tensor | None:
    """What the loss of each class is multiplied by.

    Args:
        counts: Training videos of each class (K,).
        kind: `balanced` and `sqrt` give rare classes more weight, N_mean / N and its square root. `frequency` and
            `sqrt_frequency` give them less, N / N_mean and its square root, which is how the report on Multi-Moments in
            Time (see `bce`) prints its two strategies.

    Returns:
        float32 (K,), or `None` for `none`. A class without videos has a weight of 0.
    """
    if kind == "none":
        return None
    shares = counts.double() / counts.double().mean()
    if kind in ("balanced", "sqrt"):
        shares = torch.where(counts > 0, 1 / shares.clamp_min(torch.finfo(torch.float64).tiny), 0)
    return (shares.sqrt() if kind.startswith("sqrt") else shares).float()
