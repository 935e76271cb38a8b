"""Multi-view tests: means of class probabilities over the views of each video; and the test of a promotion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.errors import unknown
from nas.study.views import Views
from nas.train.cutting import UnreadableError, clips_in
from nas.train.folder import check_file, known_files
from nas.train.jobs import TrainJob
from nas.train.training import opened
from nas.use.accuracy import Judged, OverSeeds, judged, over_seeds, save_tests
from nas.use.probabilities import Scores, read_scores, save_scores, scores_file
from trainer.config import ConfigError, DataConfig
from trainer.data.augment import shown
from trainer.data.clips import VideoData, without
from trainer.data.entries import Broken
from trainer.data.layouts import DataError
from trainer.evaluate import check_classes
from trainer.failures import named
from trainer.files import make_folder

Progress = Callable[[int, int], None]


class ViewBatch(NamedTuple):
    """Views of one size, ready for a network.

    Attributes:
        clips: (N, C, T, H, W) float32, normalised.
        videos: Number of each view's video in its split.
        times: How many of the views asked for each stands for.
    """

    clips: Tensor
    videos: list[int]
    times: list[int]


def batches(
    data: VideoData,
    config: DataConfig,
    views: Views,
    split: str,
    *,
    batch_size: int,
    device: torch.device,
    lost: dict[int, Broken] | None = None,
) -> Iterator[ViewBatch]:
    """Yields the views of a split, video by video.

    Args:
        data: The opened data.
        config: Clip, sampling, order and normalisation.
        views: What is asked for of each video.
        split: Name of the split.
        batch_size: Views of a batch, at most; views of different sizes never share one.
        device: Where the batches are wanted.
        lost: Gets the videos that cannot be read, by number, which are then left out; without it, one ends all.

    Raises:
        ConfigError: A short side is smaller than the crop.
        DataError: There is no such split, or more videos than `config.max_broken` allows cannot be read.
    """
    videos = data.split(split)
    pixels: list[NDArray[np.uint8]] = []
    owners: list[int] = []
    times: list[int] = []

    def flush() -> ViewBatch:
        clips = shown(torch.from_numpy(np.stack(pixels)).to(device), config)
        batch = ViewBatch(clips, list(owners), list(times))
        for kept in (pixels, owners, times):
            kept.clear()
        return batch

    for number in range(len(videos)):
        try:
            found = clips_in(videos, number, config, views)
            found = found if lost is None else iter(list(found))  # all views of a video, or none
        except UnreadableError as error:
            if lost is None:
                raise
            lost[number] = Broken(path=videos.entries[number].path, reason=error.reason)
            _check_lost(lost, len(videos), config, split)
            continue
        for clip, count in found:
            if pixels and (len(pixels) == batch_size or clip.shape != pixels[0].shape):
                yield flush()
            pixels.append(clip)
            owners.append(number)
            times.append(count)
    if pixels:
        yield flush()


def _check_lost(lost: Mapping[int, Broken], total: int, config: DataConfig, split: str) -> None:
    """Raises DataError where too many videos of a test cannot be read, or all of them."""
    first = next(iter(lost.values()))
    if len(lost) > config.max_broken * total or len(lost) == total:
        raise DataError(
            f"at most data.max_broken = {config.max_broken:g} of the videos of a test may be unreadable, and one must "
            f"not be, but {len(lost)} of {total} are in {split} (the first, {first.path}: {first.reason})"
        )


def score(
    model: nn.Module,
    data: VideoData,
    config: DataConfig,
    views: Views,
    split: str,
    *,
    classes: Sequence[str] | None = None,
    batch_size: int = 16,
    channels_last: bool = True,
    device: str | torch.device = "cpu",
    several: bool | None = None,
    progress: Progress = lambda done, total: None,
) -> Scores:
    """Tests a network in float32; its mode is afterwards as it was.

    Videos that cannot be read are left out, up to the share that `config.max_broken` allows, and told.

    Args:
        model: The network, on the device; takes (N, C, T, H, W), gives logits (N, K).
        data: The opened data.
        config: How clips are taken from a video.
        views: How often and where each video is looked at.
        split: Name of the split.
        classes: Names of the network's outputs where they are not the data's own; the data's are matched by name.
        batch_size: Views at once.
        channels_last: Give clips in channels-last order.
        device: Where to compute.
        several: Whether the network gives each class a probability of its own; as the data by default.
        progress: Hears (videos done, videos in all).

    Raises:
        ConfigError: The split is empty, videos have several labels and the network gives one, the network has other
            classes than the data, or a short side is smaller than the crop.
        BrokenClip: More videos cannot be read than are allowed.
        OutOfMemory, DataAway: As in training.
    """
    several = data.multi_label if several is None else several
    if data.multi_label and not several:
        raise ConfigError(
            f"a network trained on one label per video must be tested on such, but videos of {config.root} have several"
        )
    names = tuple(data.classes if classes is None else classes)
    videos = data.split(split)
    if not len(videos):
        raise ConfigError(f"a split to test must hold a video, but {split} of {config.root} holds none")
    outputs = np.array(match_classes(names, data.classes), dtype=np.int64)
    targets = _targets(data, split, outputs, len(names))
    labels = np.where(targets.any(1), targets.argmax(1), -1)
    sums = np.zeros((len(videos), len(names)))
    right = np.zeros(len(videos))
    lost: dict[int, Broken] = {}
    target, was_training = torch.device(device), model.training
    model.eval()
    try:
        with named(f"test on {split}"), torch.inference_mode():
            for batch in batches(data, config, views, split, batch_size=batch_size, device=target, lost=lost):
                clips = batch.clips
                if channels_last:
                    clips = clips.to(memory_format=torch.channels_last_3d)
                logits = model(clips)
                check_classes(logits, len(names))
                found = logits.float().sigmoid() if several else logits.float().softmax(1)
                probabilities = found.cpu().numpy().astype(np.float64)
                times = np.array(batch.times)
                np.add.at(sums, batch.videos, probabilities * times[:, None])
                np.add.at(right, batch.videos, times * targets[batch.videos, probabilities.argmax(1)])
                progress(batch.videos[-1] + 1, len(videos))
    finally:
        model.train(was_training)
    kept = np.array([number not in lost for number in range(len(videos))])
    return Scores(
        split=split,
        classes=names,
        paths=tuple(entry.path for number, entry in enumerate(videos.entries) if number not in lost),
        labels=labels[kept],
        probabilities=(sums[kept] / views.per_video).astype(np.float32),
        clips_right=right[kept] / views.per_video,
        views=views,
        checksum=data.checksum,
        decoded=f"short side {views.data(config).short_side}, max_frames {config.max_frames}"
        + (", flow" if config.input == "flow" else ""),
        targets=targets[kept] if several else None,
        left_out=tuple(lost.values()),
    )


def _targets(data: VideoData, split: str, outputs: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """(V, K) which of the network's classes each video has."""
    entries = data.split(split).entries
    found = np.zeros((len(entries), count), dtype=np.bool_)
    for row, entry in zip(found, entries, strict=True):
        row[outputs[list(entry.labels) if data.multi_label else [entry.label]]] = True
    return found


def match_classes(network: Sequence[str], data: Sequence[str]) -> tuple[int, ...]:
    """The network's output for each class of the data, by name.

    Names are compared as they are, then without regard to case, spaces, underscores, quotes and brackets, in which the
    layouts of one data set differ. The data may have fewer classes than the network.

    Raises:
        ConfigError: The network does not know a class of the data, or two of them would be one of the network's.
    """
    exact = {name: number for number, name in enumerate(network)}
    plain = {_plain(name): number for number, name in enumerate(network)}
    alike = {key for key, count in Counter(map(_plain, network)).items() if count > 1 or not key}
    found = [exact.get(name, None if _plain(name) in alike else plain.get(_plain(name))) for name in data]
    strange = [name for name, number in zip(data, found, strict=True) if number is None]
    if strange:
        more = f"; nor are {len(strange) - 1} more of the data's {len(data)}" if len(strange) > 1 else ""
        raise ConfigError(
            "a network can be tested on classes that it was trained on, but "
            f"{unknown('class', strange[0], network)}{more}"
        )
    numbers = [number for number in found if number is not None]
    twice = [network[number] for number, count in Counter(numbers).items() if count > 1]
    if twice:
        both = " and ".join(repr(n) for n, number in zip(data, numbers, strict=True) if network[number] == twice[0])
        raise ConfigError(f"each class of the data must be one of the network's, but {both} are all {twice[0]!r} to it")
    return tuple(numbers)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


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
        ConfigError, DataError: As `score`.
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
