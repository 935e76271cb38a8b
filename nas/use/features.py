"""Features of videos before the classifier of a network, as a value and as an .npz file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.errors import NotFoundError
from nas.study.plain import frozen
from nas.study.views import Views
from nas.use.multi_view import batches
from nas.use.probabilities import FORMAT, check_array, names, read_arrays, read_as, text, write_arrays
from search_spaces.errors import SpecError
from search_spaces.graph import Linear
from search_spaces.modules import Block, Network
from trainer.config import ConfigError, DataConfig
from trainer.data.clips import VideoData
from trainer.failures import named


@dataclass(frozen=True, kw_only=True, slots=True)
class Last:
    """A last linear layer of a network.

    Attributes:
        name: Of the module in the network.
        added: Whether its outputs for the parts of a clip are added up (TRN's subsets of frames); elsewhere those for
            frames or places are averaged.
    """

    name: str
    added: bool


@dataclass(kw_only=True, slots=True)
class Tap:
    """The features of the last call of a network.

    Attributes:
        layers: Whose input they are.
        parts: What each layer saw, (N, C), in this order.
    """

    layers: tuple[Last, ...]
    parts: list[Tensor | None] = field(default_factory=list)

    def features(self) -> Tensor:
        """The features (N, C) of the last call, those of several layers side by side."""
        found = [part for part in self.parts if part is not None]
        assert len(found) == len(self.layers), "a forward pass comes first"
        return torch.cat(found, 1)


def last_layers(network: Network) -> tuple[Last, ...]:
    """The linear layers whose outputs are the logits: one, or one a scale in a TRN.

    They are found by what heads call them: `fc` in a head, which may be inside a `head`; the last layer of a chain; the
    last layer of each of `scales`.

    Raises:
        SpecError: The network's last part has none.
    """
    name = network.names[-1]
    found = tuple(_below(network.get_submodule(name), name, added=False))
    if not found:
        kind = type(network.get_submodule(name)).__name__
        raise SpecError(f"features are the input of a network's last linear layer, but {name} ({kind}) has none")
    return found


@contextmanager
def tapped(network: Network) -> Iterator[Tap]:
    """Within the block, each call of the network leaves its features in the tap.

    A feature is what a last linear layer saw: for a clip of several frames or places it is their mean, in a TRN their
    sum, as that is what becomes of its outputs. So logits are the layers' weights times the features, plus a constant.

    Args:
        network: In eval mode, so that dropout lets everything through.
    """
    layers = last_layers(network)
    tap = Tap(layers=layers, parts=[None] * len(layers))
    hooks = [
        network.get_submodule(layer.name).register_forward_pre_hook(_keeper(tap, number, layer.added))
        for number, layer in enumerate(layers)
    ]
    try:
        yield tap
    finally:
        for hook in hooks:
            hook.remove()


def _below(module: nn.Module, name: str, *, added: bool) -> Iterator[Last]:
    if isinstance(module, nn.Linear):
        yield Last(name=name, added=added)
    elif isinstance(module, Block):
        paths = [node.name for node in module.graph.nodes if isinstance(node.layer, Linear)]
        yield from (Last(name=f"{name}.{path}", added=added) for path in paths[-1:])
    elif isinstance(module, nn.Sequential):
        yield from _below(module[-1], f"{name}.{len(module) - 1}", added=added)
    else:
        children = dict(module.named_children())
        for inner in ("head", "fc"):
            if inner in children:
                yield from _below(children[inner], f"{name}.{inner}", added=added)
                return
        for number, scale in enumerate(children.get("scales", nn.Module()).children()):
            yield from _below(scale, f"{name}.scales.{number}", added=True)


def _keeper(tap: Tap, number: int, added: bool) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen = inputs[0].detach().float()
        flat = seen.reshape(len(seen), -1, seen.shape[-1])  # (N, frames or places, C)
        tap.parts[number] = flat.sum(1) if added else flat.mean(1)

    return keep


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
        from nas.errors import unknown

        mine = np.array([one == split for one in self.splits])
        if not mine.any():
            raise NotFoundError(f"{unknown('split', split, dict.fromkeys(self.splits))} among the features")
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
        raise ConfigError(f"features are kept with one label per video, but the videos of {config.root} have several")
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
            views=frozen(Views, about["views"]),
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
