"""Mixup and cutmix: which clips of a batch are mixed and how, as functions of recipe, seed, epoch and step."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from timm.data.mixup import mixup_target
from torch import Tensor

from trainer.config import Recipe


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
        smoothing: Share of the target that is spread over all classes; only with one label a clip.

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
        smoothing: Share of the target that is spread over all classes; only with one label a clip.

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
