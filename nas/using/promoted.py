"""The test of a promotion: looked at once, kept beside the network, and summed up over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from nas.jobs import TrainJob
from nas.objective import opened
from nas.promoted_folder import check_file, known_files
from nas.using.accuracy import Judged, OverSeeds, judged, over_seeds, save_tests
from nas.using.scores import Scores, read_scores, save_scores, scores_file
from nas.using.scoring import score
from nas.using.views import Views
from trainer.data.clips import without
from trainer.files import make_folder


def tested_once(
    model: nn.Module, job: TrainJob, folder: Path, splits: Sequence[str], views: Views, record: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Looks at each video as `views` says, and keeps what comes of it.

    Args:
        model: The trained network, on the job's device.
        job: Data and recipe of the training.
        folder: Of the promotion; gets `evaluation.json` and `scores-<split>.npz`.
        splits: To look at.
        views: Of each video.
        record: Gets `views`, `accuracy`, `predictions`, where videos have one label, `confusion`, and where some could
            not be read, `left_out`: of each split the reason by path.

    Returns:
        A row of `nas_evaluation` for each split, without what says of which promotion.

    Raises:
        ConfigError, DataError: As `scoring.score`.
    """
    scored = [
        score(
            model,
            without(opened(views.data(job.data)), "val", job.left_out),
            job.data,
            views,
            name,
            batch_size=job.recipe.batch_size,
            channels_last=job.recipe.channels_last,
            device=job.device,
        )
        for name in splits
    ]
    lost = {one.split: {video.path: video.reason for video in one.left_out} for one in scored if one.left_out}
    if lost:
        record["left_out"] = lost
    results = [judged(scores) for scores in scored]
    rows = {result.split: measured(result) for result in results}
    record["views"] = asdict(views)
    record["accuracy"] = {name: {k: v for k, v in row.items() if v is not None} for name, row in rows.items()}
    record["predictions"] = {
        one.split: dict(zip(one.paths, (one.classes[k] for k in one.predictions), strict=True)) for one in scored
    }
    if not any(scores.targets is not None for scores in scored):
        record["confusion"] = {result.split: [list(line) for line in result.confusion] for result in results}
    make_folder(folder)
    for scores in scored:
        save_scores(scores_file(folder, scores.split), scores)
    save_tests(folder / "evaluation.json", results)
    return rows


def measured(result: Judged) -> dict[str, Any]:
    """A test as columns of `nas_evaluation`: top-1 is video@1, top-5 video@5, the interval that of the accuracy."""
    return {
        "top1": result.video1.value,
        "top5": result.video5.value,
        "loss": result.loss,
        "num_clips": result.num_videos,
        "map_sample": None if result.map_sample is None else result.map_sample.value,
        "map_class": result.map_class,
        "balanced": result.balanced,
        "clip1": result.clip1.value,
        "low": result.accuracy.low,
        "high": result.accuracy.high,
        "views": result.views.short[:100],
    }


def kept_scores(folder: Path, split: str) -> Scores | None:
    """The scores of a promotion, unless an earlier version made it.

    Raises:
        NotFoundError: The file is damaged, or was changed after the promotion.
    """
    path = scores_file(folder, split)
    if not path.is_file():
        return None
    return read_scores(check_file(folder, path.name, known_files(folder)))


def kept_over_seeds(folders: Sequence[Path], split: str) -> OverSeeds | None:
    """What the promotions of one network come to together; None unless all kept scores of the same videos."""
    scores = [kept_scores(folder, split) for folder in folders]
    known = [one for one in scores if one is not None]
    if len(known) < len(scores) or len({one.paths for one in known}) != 1:
        return None
    return over_seeds(known)
