"""Which number of a measurement networks are chosen by, and what it is called: the one place that knows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from nas.errors import NotFoundError, SearchError, StudyError
from nas.evidence.interval import level, wilson

TOP1 = "top-1"
TOP5 = "top-5"
MAP = "mAP"
BALANCED = "balanced accuracy"  # mean over classes of top-1
VIDEO1 = "video@1"  # top-1 of a test, from several views of each video
MANY, MANY_OF_A_CLASS = 100, 30  # videos of val; of fewer there is a warning

# `search.accuracy`: what networks are chosen by; with `auto`, mAP where videos have several labels, else top-1.
AUTO = "auto"
CHOICES = (AUTO, "top1", "top5", "balanced", "map")
_COLUMNS = {
    "top1": ("top1", TOP1),
    "top5": ("top5", TOP5),
    "balanced": ("balanced", BALANCED),
    "map": ("map_sample", MAP),
}


class MetricsLike(Protocol):
    """What `trainer.metrics.Metrics` tells, without an import of torch."""

    def plain(self) -> dict[str, Any]:
        """The numbers by name, without those that the data has no sense for."""
        ...


def accuracy_of(row: Mapping[str, Any]) -> float:
    """What networks are chosen by, as a share of 1: as the study says, else `map_sample` where there is one, or `top1`.

    Args:
        row: Of a table that holds a measurement: an evaluation, an epoch, a run; `chosen_by` is what the study says.

    Raises:
        NotFoundError: What the study says was not measured.
    """
    found = row.get(_column(row))
    if found is None:
        raise NotFoundError(f"search.accuracy is {row.get('chosen_by')}, but a result of the study lacks it")
    return float(found)


def field_of(chosen_by: str | None) -> str:
    """The field of `trainer.metrics.Metrics` that a study chooses by; empty where the data decides."""
    return _COLUMNS[chosen_by][0] if chosen_by in _COLUMNS else ""


def _column(row: Mapping[str, Any]) -> str:
    stated = _COLUMNS.get(row.get("chosen_by") or AUTO)
    return stated[0] if stated is not None else "top1" if row.get("map_sample") is None else "map_sample"


def metric_of(rows: Iterable[Mapping[str, Any]]) -> str:
    """What that number is called: as the study says, else `mAP` where any of the rows has it, or `top-1`."""
    columns = {_column(row) for row in rows}
    found = [title for column, title in _COLUMNS.values() if column in columns]
    return found[-1] if found else TOP1


class Measurements(Protocol):
    """What a study's database gives of its measurements; see `nas.store.database.Store`."""

    def studies(self) -> Sequence[Mapping[str, Any]]:
        """Rows of all studies."""
        ...

    def evaluations(self, study_id: int, *, purpose: Any = ..., split: str = "val") -> Sequence[Mapping[str, Any]]:
        """Rows of what was measured."""
        ...

    def runs(self, study_id: int) -> Sequence[Mapping[str, Any]]:
        """Rows of the trainings of ablations."""
        ...


def metric_in(store: Measurements, study_id: int) -> str:
    """What the accuracy of a study is called: as the study says, else as all that its database holds has it."""
    stated = next((row["accuracy"] for row in store.studies() if row["id"] == study_id), None)
    if stated in CHOICES and stated != AUTO:
        return metric_of([{"chosen_by": stated}])
    tested = (row for split in ("test", "val") for row in store.evaluations(study_id, purpose="promotion", split=split))
    return metric_of((*store.evaluations(study_id), *store.runs(study_id), *tested))


def said(row: Mapping[str, Any]) -> str:
    """One measurement in words: `top-1 0.412`, or `mAP 0.412`."""
    return f"{metric_of([row])} {accuracy_of(row):.3f}"


def told(metrics: MetricsLike, chosen_by: str | None = None) -> str:
    """The same of what training reports; `chosen_by` is what the study says."""
    return said({**metrics.plain(), "chosen_by": chosen_by})


def check_choice(chosen_by: str, *, multi_label: bool) -> None:
    """Refuses an accuracy that makes no sense for the data.

    Raises:
        SearchError: With the choices that it has.
    """
    if chosen_by == "map" and not multi_label:
        raise SearchError(
            "search.accuracy is map, which is of data with several labels per video, but these videos have one "
            "(choices: auto, top1, top5, balanced)"
        )
    if chosen_by == "balanced" and multi_label:
        raise SearchError(
            "search.accuracy is balanced, which is of data with one label per video, but these videos have several "
            "(choices: auto, top1, top5, map)"
        )


def in_points(difference: float) -> str:
    """A difference of two shares of 1, in points with its sign: `+2.3`, `-0.4`; `0.0` where it rounds to that."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def intervals(confidence: float | None) -> str:
    """Of which level the intervals of a table are: `intervals of 98.2 %`."""
    return "intervals" if confidence is None else f"intervals of {level(confidence)}"


def interval_of(share: float, num_clips: int, metric: str) -> tuple[float, float] | None:
    """The 95 % interval of an accuracy over videos; None for what is no share of videos.

    A video is right or wrong, so top-1 is binomial. An average precision is something between, and a mean over classes
    weighs videos unequally: how much those vary from video to video is in the scores alone.

    Args:
        share: The accuracy, a share of 1.
        num_clips: Videos that it was measured on.
        metric: What it is called.
    """
    return wilson(share, num_clips) if metric in (TOP1, VIDEO1) else None


def interval_text(low: float | None, high: float | None) -> str:
    """An interval as `0.512 to 0.688`; empty where there is none."""
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def few_videos(num_videos: int, per_class: Sequence[int]) -> str | None:
    """A warning where val has too few videos to tell networks apart; None where there are enough.

    Args:
        num_videos: Of val.
        per_class: Videos of each class; empty where that is not known.
    """
    least = min(per_class, default=MANY_OF_A_CLASS)
    if num_videos >= MANY and least >= MANY_OF_A_CLASS:
        return None
    low, high = wilson(0.5, num_videos)
    rarest = f", {least:,} of its rarest class" if least < MANY_OF_A_CLASS else ""
    return (
        f"warning: val has {num_videos:,} video{'' if num_videos == 1 else 's'}{rarest}; with under {MANY} in all or "
        f"under {MANY_OF_A_CLASS} of a class few differences between networks can be told from chance: the 95 % "
        f"interval of an accuracy of 0.500 is {low:.3f} to {high:.3f} here"
    )


def largest_share(num_videos: int, per_class: Sequence[int]) -> float | None:
    """The accuracy of always naming the most frequent class; None where the videos of each class are not known."""
    return max(per_class) / num_videos if num_videos and per_class else None


def recorded_counts(data: Mapping[str, Any], split: str = "val") -> tuple[int, tuple[int, ...]]:
    """Videos of a split, and of each of its classes, as a study's record has them; earlier versions have no classes.

    Args:
        data: Column `data` of a study.
        split: Name of the split.
    """
    return int(data.get("clips", {}).get(split, 0)), tuple(data.get("by_class", {}).get(split, ()))


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


def parse_number(text: str) -> int:
    """A whole number with an optional k, M, G or T, such as `2.5G`.

    Raises:
        StudyError: The text is not such a number, or it is not above 0.
    """
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([kKMGT]?)", text.strip()) if len(text) <= 40 else None
    if match is None or not 0 < float(match[1]) < 1e15:
        raise StudyError(f"a number above 0 such as 300M or 2.5G is needed, but got {text!r} (units: k, M, G, T)")
    unit: int = 1000 ** " kMGT".index(match[2].replace("K", "k") or " ")
    return round(float(match[1]) * unit)


def short_number(value: float, *, digits: int = 0) -> str:
    """`value` with a unit and up to three significant digits, 40.7G, or with as many as asked for, 40.70G."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            short = f"{value / size:#.{digits}g}".rstrip(".") if digits else f"{value / size:.3g}"
            return f"{short if value / size < 1000 else round(value / size)}{unit}"
    return f"{value:.3g}"
