"""What is measured of a network, and the record of an epoch as one line of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """Accuracy of a network on one split.

    Attributes:
        top1: Share of videos whose class is the most probable one, in 0..1.
        top5: Share of videos whose class is among the five most probable ones (or among all, if fewer).
        loss: Mean cross-entropy of the videos' mean probabilities, in nats.
        num_clips: Videos that were evaluated.
    """

    top1: float
    top5: float
    loss: float
    num_clips: int


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochResult:
    """One epoch of training.

    Attributes:
        epoch: From 1.
        train_loss: Mean loss of the epoch's clips as they were trained on (mixed, smoothed).
        lr: Learning rate of the last step.
        seconds: Wall time of the epoch, its evaluation included.
        steps: Updates of the weights.
        clips_per_s: Clips trained on a second, without evaluation.
        val: Metrics on the validation split, of the averaged weights if the recipe has them; `None` if the
            epoch was not evaluated.
    """

    epoch: int
    train_loss: float
    lr: float
    seconds: float
    steps: int
    clips_per_s: float
    val: Metrics | None


def to_line(result: EpochResult) -> str:
    """One line of JSON without line feed; `from_line` gives the numbers back to the last bit."""
    return json.dumps(asdict(result), allow_nan=False)


def from_line(line: str) -> EpochResult:
    """Reads what `to_line` wrote.

    Raises:
        ValueError, KeyError, TypeError: The line is something else.
    """
    fields = json.loads(line)
    val = fields.pop("val")
    return EpochResult(**fields, val=None if val is None else Metrics(**val))


def measure(probabilities: Tensor, labels: Tensor) -> Metrics:
    """Metrics of predicted class probabilities.

    Args:
        probabilities: (V, K), a row a video.
        labels: (V,).
    """
    num_videos, num_classes = probabilities.shape
    chosen = probabilities.gather(1, labels[:, None]).squeeze(1)
    # A probability of exactly 0 costs 87 nats, not infinitely many.
    tiny = torch.finfo(probabilities.dtype).tiny
    top1, top5 = (_share_in_top(probabilities, labels, k) for k in (1, min(5, num_classes)))
    loss = -chosen.clamp_min(tiny).log().double().mean().item()
    return Metrics(top1=top1, top5=top5, loss=loss, num_clips=num_videos)


def confusion_of(predictions: Tensor, labels: Tensor, *, num_classes: int) -> Tensor:
    """Confusion matrix (K, K) of int64; rows are the true classes, columns the predicted ones."""
    matrix: Tensor = multiclass_confusion_matrix(predictions, labels, num_classes=num_classes)
    return matrix


def _share_in_top(probabilities: Tensor, labels: Tensor, k: int) -> float:
    num_videos, num_classes = probabilities.shape
    share = multiclass_accuracy(probabilities, labels, num_classes=num_classes, top_k=k, average="micro")
    # It is of float32; the count behind it is an integer, so that 2 of 3 can be 2 / 3.
    return round(share.item() * num_videos) / num_videos
