"""Trained networks on videos that need not be those they were trained on: tests, features, clips backwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nas.errors import NotFoundError, unknown
from nas.study.views import Views, usual_views
from nas.train.network import TrainedNetwork, load_network
from nas.use.accuracy import Judged, judged
from nas.use.features import Features, check_kind, extract
from nas.use.multi_view import Progress, match_classes, score
from nas.use.onnx_network import OnnxNetwork
from nas.use.probabilities import Scores
from search_spaces.catalogue import build
from search_spaces.inflate import inflate
from search_spaces.modules import Network as Chain
from search_spaces.spec import ArchSpec
from search_spaces.weights import read_weights
from trainer.config import ConfigError, DataConfig
from trainer.data.clips import Broken, VideoData
from trainer.data.dataset import open_usable
from trainer.device import usual_device


@dataclass(frozen=True, kw_only=True, slots=True)
class BackwardsRow:
    """One true class, forwards and backwards.

    Attributes:
        name: The class.
        num_videos: Its videos.
        right: Videos that are right forwards.
        right_backwards: Videos that are right backwards.
        becomes: What its videos that are right forwards are most often taken for backwards; empty if none is right.
        becoming: How many of them are.
        exchanges: Whether `becomes` is another class, whose own videos most often become this one.
    """

    name: str
    num_videos: int
    right: int
    right_backwards: int
    becomes: str
    becoming: int
    exchanges: bool


def backwards_table(forward: Scores, backward: Scores) -> tuple[BackwardsRow, ...]:
    """Compares the same videos forwards and backwards, class by class.

    A class whose motion played backwards is that of another class should become it, and the other way round: left and
    right exchange. A class that does not depend on order, or on its direction, stays.

    Args:
        forward: Scores of clips as they are.
        backward: Scores of the same videos backwards, in the same order.
    """
    assert forward.paths == backward.paths, "the same videos, forwards and backwards"
    said, then, labels = forward.predictions, backward.predictions, forward.labels
    becomes: dict[int, tuple[int, int]] = {}
    for k in range(len(forward.classes)):
        later = np.bincount(then[(labels == k) & (said == k)], minlength=len(forward.classes))
        if later.sum():
            becomes[k] = int(later.argmax()), int(later.max())
    rows = []
    for k, name in enumerate(forward.classes):
        mine = labels == k
        if not mine.any():
            continue
        other, count = becomes.get(k, (k, 0))
        rows.append(
            BackwardsRow(
                name=name,
                num_videos=int(mine.sum()),
                right=int((said[mine] == k).sum()),
                right_backwards=int((then[mine] == k).sum()),
                becomes=forward.classes[other] if k in becomes else "",
                becoming=count,
                exchanges=other != k and becomes.get(other, (other, 0))[0] == k,
            )
        )
    return tuple(rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkTest:
    """What `judged_network` found.

    Attributes:
        digest: Of the network; empty where its folder does not say.
        root: Of the data.
        checksum: Of the data, as decoded.
        left_out: Videos of the split that could not be used.
        result: Accuracies.
        scores: Of each video.
        backwards: One row a class, if asked for.
    """

    digest: str
    root: str
    checksum: str
    left_out: tuple[Broken, ...]
    result: Judged
    scores: Scores
    backwards: tuple[BackwardsRow, ...]


def judged_network(
    folder: str | Path,
    data_of: Callable[[DataConfig], DataConfig],
    views_for: Callable[[Views], Views] = lambda usual: usual,
    *,
    split: str = "val",
    backwards: bool = False,
    progress: Progress = lambda done, total: None,
) -> NetworkTest:
    """Tests an exported network on a split of some data.

    Args:
        folder: What `nas.load` opens, or an ONNX file of `nas deploy`.
        data_of: Says where the videos lie, given how clips are taken for this network.
        views_for: Says how each video is looked at, given how the network was tested.
        split: Name of the split.
        backwards: Test the clips in the opposite order, too.
        progress: Hears (videos done, videos in all).

    Raises:
        NotFoundError: The folder holds no network, or the data has no such split.
        ConfigError: The data has classes that the network does not know, or no video that can be used.
        DataError: The data cannot be read.
    """
    network = opened_network(Path(folder))
    config, views = data_of(network.data), views_for(network.views)
    views.sides(config)
    data = _opened(views.data(config), (split,))
    scores = score_network(network, data, config, views, split, progress=progress)
    rows: tuple[BackwardsRow, ...] = ()
    if backwards:
        if network.multi_label:
            raise ConfigError("what becomes of a class backwards is told of networks with one label per video")
        turned = dataclasses.replace(config, reversal="eval" if config.reversal == "none" else "none")
        rows = backwards_table(scores, score_network(network, data, turned, views, split, progress=progress))
    return NetworkTest(
        digest=str(network.record.get("digest", "")),
        root=config.root,
        checksum=data.checksum,
        left_out=(*_left_out(data, split), *scores.left_out),
        result=judged(scores),
        scores=scores,
        backwards=rows,
    )


def _left_out(data: VideoData, split: str) -> tuple[Broken, ...]:
    """The videos of a split that could not be read; a pack does not know where a video lay, and names its folder."""
    if data.layout is None:
        return tuple(one for one in data.broken if one.path.startswith(f"{split}/"))
    paths = {video.path for video in data.layout.splits.get(split, ())}
    return tuple(one for one in data.broken if one.path in paths)


def network_features(
    folder: str | Path,
    data_of: Callable[[DataConfig], DataConfig],
    views_for: Callable[[Views], Views] = lambda usual: usual,
    *,
    splits: Sequence[str],
    kind: str = "clip",
    progress: Progress = lambda done, total: None,
) -> Features:
    """Features of an exported network; the classes of the data may be others than its own.

    Args:
        folder: What `nas.load` opens.
        data_of: As in `judged_network`.
        views_for: As there; usual is one evaluation of training.
        splits: Whose videos.
        kind: `clip`, or `frames` for each frame alone.
        progress: Hears (videos done, videos in all).

    Raises:
        NotFoundError, ConfigError, DataError: As in `judged_network`.
    """
    network = load_network(Path(folder), device=usual_device())
    config, views = data_of(network.data), views_for(usual_views(network.data))
    check_kind(kind, config)  # before videos are decoded
    views.sides(config)
    data = _opened(views.data(config), splits)
    try:
        labels: tuple[int, ...] | None = match_classes(network.class_names, data.classes)
    except ConfigError:
        labels = None  # features are of use beyond the classes that they were learned with
    assert isinstance(network.model, Chain)
    return extract(
        network,
        network.model,
        data,
        config,
        views,
        labels=labels,
        splits=splits,
        kind=kind,
        name=str(network.record.get("digest", folder)),
        batch_size=int(network.record.get("recipe", {}).get("batch_size", 16)),
        device=network.device,
        progress=progress,
    )


def preset_features(
    spec: ArchSpec,
    weights: str,
    config: DataConfig,
    views_for: Callable[[Views], Views] = lambda usual: usual,
    *,
    name: str,
    splits: Sequence[str],
    kind: str = "clip",
    progress: Progress = lambda done, total: None,
) -> Features:
    """Features of a network with the 2D weights of an image network and no training on videos.

    Args:
        spec: The network.
        weights: A file, or a name such as `timm:resnet50`.
        config: The data.
        views_for: As in `network_features`.
        name: What the network is called in the file.
        splits: Whose videos.
        kind: `clip`, or `frames` for each frame alone.
        progress: Hears (videos done, videos in all).

    Raises:
        SpecError: The weights cannot be read, or are of another network.
        NotFoundError, ConfigError, DataError: As in `judged_network`.
    """
    views = views_for(usual_views(config))
    check_kind(kind, config)
    views.sides(config)
    state = read_weights(weights)
    data = _opened(views.data(config), splits)
    torch.manual_seed(0)
    model = build(spec, num_classes=len(data.classes), planes=config.planes)
    inflate(model, spec, state, "centre")
    assert isinstance(model, Chain)
    device = usual_device()
    model.to(device).eval()
    return extract(
        model,
        model,
        data,
        config,
        views,
        labels=None,
        splits=splits,
        kind=kind,
        name=name,
        device=device,
        progress=progress,
    )


def score_network(
    network: TrainedNetwork | OnnxNetwork,
    data: VideoData,
    config: DataConfig,
    views: Views,
    split: str,
    *,
    progress: Progress = lambda done, total: None,
) -> Scores:
    """Scores of an exported network, at the batch size and memory order of its recipe; see `nas.use.multi_view`."""
    recipe = network.record.get("recipe", {})
    return score(
        network,
        data,
        config,
        views,
        split,
        classes=network.class_names,
        batch_size=int(recipe.get("batch_size", 16)),
        channels_last=bool(recipe.get("channels_last", True)),
        device=network.device,
        several=network.multi_label,
        progress=progress,
    )


def opened_network(path: Path) -> TrainedNetwork | OnnxNetwork:
    """Opens a folder of a promoted network, or an ONNX file that was made of one.

    Raises:
        NotFoundError: It is neither.
        NasError: onnxruntime is missing.
    """
    return OnnxNetwork(path) if path.suffix == ".onnx" else load_network(path, device=usual_device())


def _opened(config: DataConfig, splits: Sequence[str]) -> VideoData:
    data = open_usable(config)
    for split in splits:
        if split not in data.splits:
            raise NotFoundError(f"{unknown('split', split, data.splits)} in {config.root}")
    return data
