"""The test of a promotion: looked at once, kept beside the network, and summed up over seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from nas.jobs import TrainJob
from nas.objective import opened
from nas.using.accuracy import OverSeeds, judged, over_seeds, save_tests
from nas.using.scores import Scores, read_scores, save_scores, scores_file
from nas.using.scoring import score
from nas.using.views import Views
from trainer.data.clips import VideoData
from trainer.evaluate import Evaluation, evaluate
from trainer.metrics import Metrics


def tested_once(
    model: nn.Module, job: TrainJob, folder: Path, splits: Sequence[str], views: Views, record: dict[str, Any]
) -> dict[str, Metrics]:
    """Looks at each video as `views` says, and keeps what comes of it.

    Args:
        model: The trained network, on the job's device.
        job: Data and recipe of the training.
        folder: Of the promotion; gets `evaluation.json` and `scores-<split>.npz`.
        splits: To look at.
        views: Of each video.
        record: Gets `views`, `accuracy`, `predictions` and `confusion`.

    Returns:
        Metrics of each split: top-1 is video@1, top-5 video@5.

    Raises:
        ConfigError, DataError: As `scoring.score`.
    """
    scored = [
        score(
            model,
            opened(views.data(job.data)),
            job.data,
            views,
            name,
            batch_size=job.recipe.batch_size,
            channels_last=job.recipe.channels_last,
            device=job.device,
        )
        for name in splits
    ]
    results = [judged(scores) for scores in scored]
    metrics = {
        result.split: Metrics(
            top1=result.video1.value, top5=result.video5.value, loss=result.loss, num_clips=result.num_videos
        )
        for result in results
    }
    record["views"] = asdict(views)
    record["accuracy"] = {name: metric.plain() for name, metric in metrics.items()}
    record["predictions"] = {
        one.split: dict(zip(one.paths, (one.classes[k] for k in one.predictions), strict=True)) for one in scored
    }
    record["confusion"] = {result.split: [list(line) for line in result.confusion] for result in results}
    folder.mkdir(parents=True, exist_ok=True)
    for scores in scored:
        save_scores(scores_file(folder, scores.split), scores)
    save_tests(folder / "evaluation.json", results)
    return metrics


def evaluated_once(
    model: nn.Module, job: TrainJob, data: VideoData, splits: Sequence[str], record: dict[str, Any]
) -> dict[str, Metrics]:
    """The evaluation of training, for videos of several labels, whose views are not averaged here.

    Args:
        model: The trained network, on the job's device.
        job: Data and recipe of the training.
        data: The opened data.
        splits: To look at.
        record: Gets `accuracy`, `predictions` and `confusion`.
    """
    recipe = dataclasses.replace(job.recipe, precision="fp32")
    results = {name: evaluate(model, data, job.data, recipe, name, job.device) for name in splits}
    record["accuracy"] = {name: result.metrics.plain() for name, result in results.items()}
    record["predictions"] = {name: _predictions(result, data, name) for name, result in results.items()}
    record["confusion"] = {name: result.confusion.tolist() for name, result in results.items()}
    return {name: result.metrics for name, result in results.items()}


def kept_scores(folder: Path, split: str) -> Scores | None:
    """The scores of a promotion, unless an earlier version made it.

    Raises:
        NotFoundError: The file is damaged.
    """
    path = scores_file(folder, split)
    return read_scores(path) if path.is_file() else None


def kept_over_seeds(folders: Sequence[Path], split: str) -> OverSeeds | None:
    """What the promotions of one network come to together; None unless all kept scores of the same videos."""
    scores = [kept_scores(folder, split) for folder in folders]
    known = [one for one in scores if one is not None]
    if len(known) < len(scores) or len({one.paths for one in known}) != 1:
        return None
    return over_seeds(known)


def _predictions(result: Evaluation, data: VideoData, split: str) -> dict[str, str]:
    """Predicted class of each video, by its path below the data's root."""
    entries = data.split(split).entries
    return {
        entries[video].path: data.classes[predicted]
        for video, predicted in zip(result.videos.tolist(), result.predictions.tolist(), strict=True)
    }
