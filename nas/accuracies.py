"""Which number of a measurement networks are chosen by, and what it is called: the one place that knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

TOP1 = "top-1"
MAP = "mAP"

# The same in SQL, for the view `pareto_front`; `e` is a row of nas_evaluation.
ACCURACY_SQL = "COALESCE(e.map_sample, e.top1)"


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


def said(row: Mapping[str, Any]) -> str:
    """One measurement in words: `top-1 0.412`, or `mAP 0.412`."""
    return f"{metric_of([row])} {accuracy_of(row):.3f}"


def told(metrics: Measured) -> str:
    """The same of what training reports."""
    return f"{TOP1 if metrics.map_sample is None else MAP} {metrics.accuracy:.3f}"
