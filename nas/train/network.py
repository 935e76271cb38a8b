"""A trained network as a module that is ready to use, and as the folder that it is kept in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.errors import NotFoundError
from nas.study.views import Views
from nas.train.cutting import clips_of, read_video
from nas.train.folder import OLD_WEIGHTS, WEIGHTS, Stored, check_file, read_record, write_record
from search_spaces.catalogue import build
from search_spaces.errors import SpecError
from search_spaces.spec import ArchSpec
from search_spaces.weights import read_tensors
from trainer.config import Clip, DataConfig
from trainer.data.augment import normalisation, shown
from trainer.data.kinds import FlowSettings
from trainer.files import make_folder, write_whole


class TrainedNetwork(nn.Module):
    """A trained network with what is needed to use it.

    Attributes:
        stored: Its folder's record.
        spec: The architecture.
        class_names: Names of the outputs, in order.
        data: How clips are taken from a video: clip, sampling, resizing, normalisation.
        record: Digest, recipe, seed, epochs and measured accuracies.
    """

    def __init__(self, model: nn.Module, *, stored: Stored) -> None:
        """Takes a built network with its weights."""
        super().__init__()
        self.model = model
        self.stored = stored
        self.spec, self.class_names, self.data, self.record = stored.spec, stored.classes, stored.data, stored.record

    @property
    def clip(self) -> Clip:
        """What the network sees."""
        return self.data.clip

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, of values in 0..1; see `trainer.data.augment`."""
        return normalisation(self.data)

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return next(self.parameters()).device

    @property
    def multi_label(self) -> bool:
        """Whether a video may have several classes, so that each has a probability of its own."""
        return bool(self.record.get("multi_label", False))

    @property
    def views(self) -> Views:
        """How each video was looked at when the network was tested."""
        return self.stored.views

    def forward(self, clips: Tensor) -> Tensor:
        """Logits (N, classes) of normalised clips (N, C, T, H, W)."""
        logits: Tensor = self.model(clips)
        return logits

    @torch.inference_mode()
    def probabilities(self, frames: NDArray[np.uint8], views: Views | None = None, *, rate: float = 0.0) -> Tensor:
        """Probability (K,) of each class for decoded frames.

        Args:
            frames: RGB (F, H, W, 3), or flow (F, H, W, 2) as `flowing` gives it.
            views: Over which the mean is taken; those of the network's test by default.
            rate: Frames per second; 0 if unknown.
        """
        views = self.views if views is None else views
        frames = self.flowing(frames)
        device = next(self.parameters()).device
        total = torch.zeros(len(self.class_names), dtype=torch.float64)
        for pixels, times in clips_of(frames, self.data, views, rate=rate):
            clip = shown(torch.from_numpy(pixels)[None].to(device), self.data)
            total += times * self._shares(self(clip).float())[0].double().cpu()
        return total / views.per_video

    def _shares(self, logits: Tensor) -> Tensor:
        return logits.sigmoid() if self.multi_label else logits.softmax(1)

    def flowing(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The frames that clips are cut from: the flow of RGB frames, if the network sees flow, else these themselves.

        Raises:
            DataError: OpenCV is not installed, or the network's flow came as images.
        """
        if self.data.input != "flow" or frames.shape[-1] == self.data.planes:
            return frames
        from trainer.data.optical_flow import flow_of_video

        return flow_of_video(frames, self.stored.flow or FlowSettings(method="images"))

    @torch.inference_mode()
    def predict(self, video: str | Path) -> dict[str, float]:
        """Probability of each class for a video file, the most probable first.

        Decodes, samples, crops and averages over views as the test did that its record is of.

        Raises:
            DataError: The file cannot be read as a video.
        """
        frames, rate = read_video(Path(video), self.data, self.views)
        probabilities = self.probabilities(frames, rate=rate).tolist()
        ranked = sorted(zip(self.class_names, probabilities, strict=True), key=lambda pair: -pair[1])
        return dict(ranked)


def save_network(
    folder: Path,
    model: nn.Module,
    *,
    spec: ArchSpec,
    class_names: tuple[str, ...],
    data: DataConfig,
    record: Mapping[str, Any],
) -> None:
    """Writes a trained network beside what the folder holds already; each file appears whole or not at all."""
    make_folder(folder)
    # As bytes, so that a full disk is met by Python's own write; clones, because safetensors takes no shared storage.
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    write_whole(folder / WEIGHTS, safetensors.torch.save(state))
    write_record(folder, spec=spec, classes=class_names, data=data, record=record)


def load_network(folder: Path, *, device: str = "cpu") -> TrainedNetwork:
    """Opens a folder that `save_network` wrote, of this format or the one before.

    Raises:
        NotFoundError: The folder does not hold a network, was changed or damaged after it was written, or is of a
            newer format.
    """
    stored = read_record(folder)
    weights = tensors_of(stored)
    try:
        model = build(stored.spec, num_classes=len(stored.classes), planes=stored.data.planes)
    except SpecError as error:
        raise NotFoundError(f"{folder} holds no network that this version can open: {error}") from error
    own = model.state_dict()
    for name in {**own, **weights}:
        if _shape(own.get(name)) != _shape(weights.get(name)):
            raise NotFoundError(
                f"{folder} holds no network that this version can open: {name[:100]} of the network is "
                f"{_shape(own.get(name))}, and {_shape(weights.get(name))} of its weights"
            )
    model.load_state_dict(weights)
    network = TrainedNetwork(model, stored=stored)
    return network.to(device).eval()


def tensors_of(stored: Stored) -> dict[str, Tensor]:
    """The tensors of a folder by name, once they are known to be those that were written.

    Raises:
        NotFoundError: They were changed or damaged, or cannot be read.
    """
    old = stored.format == 1
    path = check_file(stored.folder, OLD_WEIGHTS if old else WEIGHTS, stored.files)
    try:
        return read_tensors(path)
    except SpecError as error:
        raise NotFoundError(str(error)) from error


def _shape(value: Tensor | None) -> str:
    return "absent" if value is None else f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
