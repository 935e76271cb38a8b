"""What is measured of a network, and the record of an epoch as one line of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix

from trainer.config import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """Accuracy of a network on one split.

    Attributes:
        top1: Share of videos whose class is the most probable one, in 0..1; with several labels per video, of videos
            whose most probable class is one of theirs.
        top5: Share of videos whose class is among the five most probable ones (or among all, if fewer); with several
            labels, one of theirs.
        loss: Mean cross-entropy of the videos' mean probabilities, in nats; with several labels the binary one, a mean
            over videos and classes.
        num_clips: Videos that were evaluated.
        map_sample: With several labels per video, the mean over videos of the average precision of their classes'
            order; what is called mAP in Multi-Moments in Time. `None` with one label.
        map_class: With several labels per video, the mean over classes of the average precision of the videos' order;
            what is called mAP elsewhere. `None` with one label.
        balanced: With one label per video, the mean over classes of the share of their videos whose class is the most
            probable one (balanced accuracy; Brodersen et al. 2010); classes without a video do not count. Always naming
            one class earns 1 / K, however frequent it is. `None` with several labels.
    """

    top1: float
    top5: float
    loss: float
    num_clips: int
    map_sample: float | None = None
    map_class: float | None = None
    balanced: float | None = None

    @property
    def accuracy(self) -> float:
        """What networks and epochs are chosen by: top-1, or with several labels per video `map_sample`."""
        return self.top1 if self.map_sample is None else self.map_sample

    def by(self, name: str) -> float:
        """The number that epochs are chosen by: a field such as `balanced`, or for an empty name `accuracy`.

        Raises:
            ConfigError: The data has no sense for it.
        """
        found = getattr(self, name) if name else self.accuracy
        if found is None:
            raise ConfigError(f"epochs cannot be chosen by {name}, which is not measured of this data")
        return float(found)

    def plain(self) -> dict[str, Any]:
        """The numbers by name, without those that the data has no sense for."""
        return {name: value for name, value in asdict(self).items() if value is not None}


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
    fields = asdict(result) | {"val": None if result.val is None else result.val.plain()}
    return json.dumps(fields, allow_nan=False)


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
    return Metrics(
        top1=top1, top5=top5, loss=loss, num_clips=num_videos, balanced=balanced_accuracy(probabilities, labels)
    )


def balanced_accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """Mean over the classes that have a video of the share of their videos that are right.

    What is right is as for top-1: of equal probabilities, the class that torchmetrics takes.

    Args:
        probabilities: (V, K).
        labels: (V,).

    Returns:
        In 0..1.
    """
    num_classes = probabilities.shape[1]
    right: Tensor = multiclass_accuracy(
        probabilities, labels, num_classes=num_classes, top_k=1, average="none", ignore_index=None
    )
    counts = torch.bincount(labels, minlength=num_classes)
    here = counts > 0
    # The shares are of float32; the counts behind them are integers.
    return ((right[here].double() * counts[here]).round() / counts[here]).mean().item()


def measure_several(probabilities: Tensor, targets: Tensor) -> Metrics:
    """Metrics of predicted class probabilities where a video has several labels.

    Args:
        probabilities: (V, K), a row a video, each class for itself.
        targets: (V, K), 0 or 1.

    Raises:
        ConfigError: No video has a label.
    """
    present = targets > 0.5
    if not present.any():
        raise ConfigError("a video of a split to evaluate must have a label, but none has one")
    hits = present.gather(1, probabilities.topk(min(5, probabilities.shape[1]), dim=1).indices)
    tiny = torch.finfo(probabilities.dtype).tiny
    right = torch.where(present, probabilities, 1 - probabilities).clamp_min(tiny)
    return Metrics(
        top1=hits[:, 0].double().mean().item(),
        top5=hits.any(1).double().mean().item(),
        loss=-right.log().double().mean().item(),
        num_clips=len(probabilities),
        map_sample=average_precision(probabilities, present),
        map_class=average_precision(probabilities.T, present.T),
    )


def average_precision(scores: Tensor, present: Tensor) -> float:
    """Mean average precision of rows; see `average_precisions`.

    Returns:
        In 0..1; NaN if no row has anything present.
    """
    return average_precisions(scores, present).mean().item()


def average_precisions(scores: Tensor, present: Tensor) -> Tensor:
    """Average precision of each row: what scikit-learn's `average_precision_score` gives for it.

    Equal scores are one step of the curve, as there. All rows at once: scikit-learn, like torchmetrics, goes through
    them one by one, which takes seconds for the 10,000 rows of a validation split.

    Args:
        scores: (R, M).
        present: (R, M), bool. Rows that have none present have no precision, and are left out.

    Returns:
        (R',) float64 in 0..1, of the rows that have something present.
    """
    filled = present.any(1)
    values, order = scores[filled].sort(dim=1, descending=True)
    hits = present[filled].gather(1, order).double()
    count = torch.arange(1, scores.shape[1] + 1, device=scores.device)
    precision = hits.cumsum(1) / count
    # Where scores are equal, the curve has one point: the last place of the run.
    last = torch.ones_like(values, dtype=torch.bool)
    last[:, :-1] = values[:, :-1] != values[:, 1:]
    places = torch.where(last, count - 1, len(count)).flip(1).cummin(1).values.flip(1)
    return (precision.gather(1, places) * hits).sum(1) / hits.sum(1)


def confusion_of(predictions: Tensor, labels: Tensor, *, num_classes: int) -> Tensor:
    """Confusion matrix (K, K) of int64; rows are the true classes, columns the predicted ones."""
    matrix: Tensor = multiclass_confusion_matrix(predictions, labels, num_classes=num_classes)
    return matrix


def _share_in_top(probabilities: Tensor, labels: Tensor, k: int) -> float:
    num_videos, num_classes = probabilities.shape
    share = multiclass_accuracy(probabilities, labels, num_classes=num_classes, top_k=k, average="micro")
    # It is of float32; the count behind it is an integer, so that 2 of 3 can be 2 / 3.
    return round(share.item() * num_videos) / num_videos
