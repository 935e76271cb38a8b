"""Features of videos before the classifier of a network, as a value and as an .npz file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.errors import NotFoundError
from nas.using.scores import FORMAT, check_array, names, read_arrays, read_as, text, write_arrays
from nas.using.scoring import batches
from nas.using.views import Views, views_of
from search_spaces.features import Tap, last_layers, tapped
from search_spaces.network import Network
from trainer.config import ConfigError, DataConfig
from trainer.data.clips import VideoData
from trainer.failures import named

KINDS = ("clip", "frames")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Features:
    """What a network saw in each video before its classifier.

    Attributes:
        kind: `clip`: of whole clips. `frames`: of each frame of a clip alone, averaged over the frames.
        layer: Whose input the features are, by its name in the network.
        classes: Names of the data's classes.
        splits: (V,) split of each video.
        paths: (V,) below the data's root.
        labels: (V,) indices into `classes`.
        values: (V, views, C) float32.
        predictions: (V,) the class that the network itself says, -1 where its classes are not those of the data.
        views: How each video was looked at.
        network: Its digest, or how it was named.
        checksum: Of the data, as decoded.
    """

    kind: str
    layer: str
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    values: NDArray[np.float32]
    predictions: NDArray[np.int64]
    views: Views
    network: str
    checksum: str

    def of(self, split: str) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
        """Means over the views (V', C) of a split's videos, their labels and the network's own predictions (V',).

        Raises:
            NotFoundError: There is no video of that split.
        """
        from nas.errors import one_of

        mine = np.array([one == split for one in self.splits])
        if not mine.any():
            raise NotFoundError(f"{one_of('split', split, dict.fromkeys(self.splits))} among the features")
        return self.values[mine].mean(1, dtype=np.float64), self.labels[mine], self.predictions[mine]


def extract(
    model: nn.Module,
    network: Network,
    data: VideoData,
    config: DataConfig,
    views: Views,
    *,
    labels: Sequence[int] | None,
    splits: Sequence[str],
    kind: str = "clip",
    name: str = "",
    batch_size: int = 16,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Features:
    """Runs a network over videos and keeps what its classifier sees.

    Args:
        model: What takes clips (N, C, T, H, W), in eval mode on the device.
        network: The chain of modules in it; the model itself, or what it wraps.
        data: The opened data.
        config: How clips are taken.
        views: How each video is looked at.
        labels: The network's output for each class of the data; None where it has other classes.
        splits: Which videos.
        kind: One of `KINDS`; `frames` shows each frame alone, repeated over the length of a clip.
        name: Of the network.
        batch_size: Views at once.
        device: Where to compute.
        progress: Hears (videos done, videos in all).

    Raises:
        ConfigError: No video is there, videos have several labels, or a short side is smaller than the crop.
        DataError: There is no such split.
        SpecError: The network has no classifier, or does not take clips of this size.
    """
    if data.multi_label:
        raise ConfigError(f"features are kept with one label a video, but the videos of {config.root} have several")
    total = sum(len(data.split(split)) for split in splits)
    if not total:
        raise ConfigError(f"features need a video, but {', '.join(splits)} of {config.root} hold none")
    back = None if labels is None else {output: label for label, output in enumerate(labels)}
    values: list[NDArray[np.float32]] = []
    predictions: list[int] = []
    done = 0
    with named("features"), torch.inference_mode(), tapped(network) as tap:
        for split in splits:
            count = len(data.split(split))
            rows: list[list[NDArray[np.float32]]] = [[] for _ in range(count)]
            sums: list[Tensor | float] = [0.0] * count
            for batch in batches(data, config, views, split, batch_size=batch_size, device=torch.device(device)):
                found, logits = _seen(model, tap, batch.clips, kind)
                for row, said, video, times in zip(found, logits.softmax(1), batch.videos, batch.times, strict=True):
                    rows[video] += [row] * times
                    sums[video] = sums[video] + said * times
                progress(done + batch.videos[-1] + 1, total)
            done += count
            values += [np.stack(row) for row in rows]
            predictions += [_own(said, back) for said in sums]
    entries = [(split, entry) for split in splits for entry in data.split(split).entries]
    return Features(
        kind=kind,
        layer=", ".join(last.name for last in last_layers(network)),
        classes=tuple(data.classes),
        splits=tuple(split for split, _ in entries),
        paths=tuple(entry.path for _, entry in entries),
        labels=np.concatenate([data.split(split).labels for split in splits]).astype(np.int64),
        values=np.stack(values),
        predictions=np.array(predictions, dtype=np.int64),
        views=views,
        network=name,
        checksum=data.checksum,
    )


def check_kind(kind: str, config: DataConfig) -> None:
    """Raises ConfigError where frames alone are asked for of an input that is nothing but motion."""
    if kind == "frames" and config.input != "rgb":
        raise ConfigError(
            f"features of frames alone need data.input rgb, but this network sees {config.input}, of which a frame that"
            " stands still has none; leave --frames out"
        )


def save_features(path: Path, features: Features) -> None:
    """Writes features as plain arrays: `features`, `labels`, `paths`, `splits`, `classes`, `predictions`, `about`.

    Raises:
        NotFoundError: The file cannot be written.
    """
    about = {
        "format": FORMAT,
        "kind": features.kind,
        "layer": features.layer,
        "views": asdict(features.views),
        "network": features.network,
        "checksum": features.checksum,
    }
    arrays: dict[str, Any] = {
        "features": features.values,
        "labels": features.labels,
        "paths": np.array(features.paths, dtype=np.str_),
        "splits": np.array(features.splits, dtype=np.str_),
        "classes": np.array(features.classes, dtype=np.str_),
        "predictions": features.predictions,
        "about": np.array(json.dumps(about, ensure_ascii=False)),
    }
    write_arrays(path, arrays)


def read_features(path: Path) -> Features:
    """Reads what `save_features` wrote.

    Raises:
        NotFoundError: There is no such file, or it holds something else.
    """
    what = "features that `nas features` wrote"
    arrays, about = read_arrays(path, what)
    with read_as(path, what):
        count = len(np.atleast_1d(arrays["paths"]))
        classes = names(arrays["classes"].tolist(), "classes")
        for name in ("paths", "splits"):
            check_array(arrays, name, "U", (count,))
        check_array(arrays, "labels", "iu", (count,), least=0, most=len(classes) - 1)
        check_array(arrays, "predictions", "iu", (count,), least=-1, most=len(classes) - 1)
        check_array(arrays, "features", "f", (count, -1, -1))
        if not np.isfinite(arrays["features"]).all():
            raise ValueError("its features are not all finite")
        return Features(
            kind=text(about, "kind"),
            layer=text(about, "layer"),
            classes=classes,
            splits=tuple(arrays["splits"].tolist()),
            paths=tuple(arrays["paths"].tolist()),
            labels=arrays["labels"],
            values=arrays["features"],
            predictions=arrays["predictions"],
            views=views_of(about["views"]),
            network=text(about, "network"),
            checksum=text(about, "checksum"),
        )


def _seen(model: nn.Module, tap: Tap, clips: Tensor, kind: str) -> tuple[NDArray[np.float32], Tensor]:
    """Features (N, C) and logits (N, K) of clips."""
    if kind == "clip":
        logits = model(clips).float()
        return tap.features().cpu().numpy(), logits
    parts, said = [], []
    for frame in range(clips.shape[2]):
        still = clips[:, :, frame : frame + 1].expand_as(clips).contiguous(memory_format=torch.channels_last_3d)
        said.append(model(still).float())
        parts.append(tap.features())
    return torch.stack(parts).mean(0).cpu().numpy(), torch.stack(said).mean(0)


def _own(said: Tensor | float, back: dict[int, int] | None) -> int:
    """The data's class that a network says; -1 where that is none of the data's."""
    assert isinstance(said, Tensor), "every video has a view"
    return -1 if back is None else back.get(int(said.argmax()), -1)
