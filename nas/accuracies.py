"""Which number of a measurement networks are chosen by, and what it is called: the one place that knows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from nas.store import Store

TOP1 = "top-1"
MAP = "mAP"
VIDEO1 = "video@1"  # top-1 of a test, from several views of each video

# The same in SQL, for the view `pareto_front`; `e` is a row of nas_evaluation, `s` its study.
ACCURACY_SQL = (
    "CASE s.accuracy WHEN 'balanced' THEN e.balanced WHEN 'map' THEN e.map_sample WHEN 'top1' THEN e.top1 "
    "ELSE COALESCE(e.map_sample, e.top1) END"
)


class Measured(Protocol):
    """What `trainer.metrics.Metrics` tells, without an import of torch."""

    @property
    def accuracy(self) -> float:
        """What networks and epochs are chosen by."""
        ...

    @property
    def map_sample(self) -> float | None:
        """Mean over videos of average precision; None with one label a video."""
        ...


def accuracy_of(row: Mapping[str, Any]) -> float:
    """What networks are chosen by, as a share of 1: `map_sample` where videos have several labels, else `top1`.

    Args:
        row: Of a table that holds a measurement: an evaluation, an epoch, a run.
    """
    found = row.get("map_sample")
    return float(row["top1"] if found is None else found)


def metric_of(rows: Iterable[Mapping[str, Any]]) -> str:
    """What that number is called: `mAP` where any of the rows has it, else `top-1`; a study's rows agree."""
    return MAP if any(row.get("map_sample") is not None for row in rows) else TOP1


def metric_in(store: Store, study_id: int) -> str:
    """The same of all that a study's database holds."""
    tested = (row for split in ("test", "val") for row in store.evaluations(study_id, purpose="promotion", split=split))
    return metric_of((*store.evaluations(study_id), *store.runs(study_id), *tested))


def said(row: Mapping[str, Any]) -> str:
    """One measurement in words: `top-1 0.412`, or `mAP 0.412`."""
    return f"{metric_of([row])} {accuracy_of(row):.3f}"


def told(metrics: Measured) -> str:
    """The same of what training reports."""
    return f"{TOP1 if metrics.map_sample is None else MAP} {metrics.accuracy:.3f}"


def in_points(difference: float) -> str:
    """A difference of two shares of 1, in points with its sign: `+2.3`, `-0.4`; `0.0` where it rounds to that."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def intervals(confidence: float | None) -> str:
    """Of which level the intervals of a table are: `intervals of 98.2 %`."""
    return "intervals" if confidence is None else f"intervals of {level(confidence)}"


def level(confidence: float) -> str:
    """The confidence of an interval in words: `98.2 %`."""
    return f"{100 * confidence:.3g} %"


def standard_error(share: float, num_clips: int, metric: str) -> float | None:
    """Of an accuracy on so many videos; None for mAP.

    A share of videos that are right is binomial. An average precision is not right or wrong, but something between, so
    how much it varies from video to video is in the scores alone.

    Args:
        share: The accuracy, a share of 1.
        num_clips: Videos that it was measured on.
        metric: What it is called.
    """
    if metric == MAP:
        return None
    return math.sqrt(max(0.0, share * (1 - share)) / num_clips) if num_clips else 0.0


def broken_text(broken: Mapping[str, Any] | None) -> str:
    """Clips that a training could not read, in words; empty where there were none.

    Args:
        broken: Column `broken` of a promotion: `num_clips`, and the reason by video.
    """
    if not broken or not broken.get("videos"):
        return ""
    videos = broken["videos"]
    path, reason = next(iter(videos.items()))
    clips = f"{broken['num_clips']:,} clip{'' if broken['num_clips'] == 1 else 's'}"
    of = f"{len(videos):,} video{'' if len(videos) == 1 else 's'}"
    return f"{clips} of {of} could not be read (the first, {path}: {reason})"
