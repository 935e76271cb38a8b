"""A trained network as a folder: `network.json`, `weights.pt`, and the way back to an eval-mode module."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.errors import NotFoundError
from nas.using.cutting import clips_of, read_video
from nas.using.views import Views, usual_views, views_of
from search_spaces import codec
from search_spaces.catalogue import build
from search_spaces.spec import ArchSpec, SpecError
from trainer.config import Clip, ConfigError, DataConfig
from trainer.data.inputs import normalisation, shown
from trainer.inputs import FlowSettings

FORMAT = 1


class Network(nn.Module):
    """A trained network with what is needed to use it.

    Attributes:
        spec: The architecture.
        class_names: Names of the outputs, in order.
        data: How clips are taken from a video: clip, sampling, resizing, normalisation.
        record: Digest, recipe, seed, epochs and measured accuracies.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        spec: ArchSpec,
        class_names: tuple[str, ...],
        data: DataConfig,
        record: Mapping[str, Any],
    ) -> None:
        """Takes a built network with its weights."""
        super().__init__()
        self.model = model
        self.spec, self.class_names, self.data, self.record = spec, class_names, data, record

    @property
    def clip(self) -> Clip:
        """What the network sees."""
        return self.data.clip

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel, of values in 0..1; see `trainer.data.inputs`."""
        return normalisation(self.data)

    @property
    def multi_label(self) -> bool:
        """Whether a video may have several classes, so that each has a probability of its own."""
        return bool(self.record.get("multi_label", False))

    @property
    def views(self) -> Views:
        """How each video was looked at when the network was tested."""
        recorded = self.record.get("views")
        return usual_views(self.data) if recorded is None else views_of(recorded)

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
            rate: Frames a second; 0 if unknown.
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
        from trainer.data.flow import flow_of_video

        return flow_of_video(frames, FlowSettings(**self.record.get("flow", {"method": "images"})))

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
    """Writes a trained network; each file appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    part = folder / "weights.pt.part"
    torch.save(weights, part)
    part.replace(folder / "weights.pt")
    content = {
        "format": FORMAT,
        "spec": codec.encode(spec),
        "classes": list(class_names),
        "data": asdict(data),
        "record": dict(record),
    }
    part = folder / "network.json.part"
    part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(folder / "network.json")


def load_network(folder: Path, *, device: str = "cpu") -> Network:
    """Opens a folder that `save_network` wrote.

    Raises:
        NotFoundError: The folder does not hold a network, or one of a newer format.
    """
    try:
        content = json.loads((folder / "network.json").read_text(encoding="utf-8"))
        weights = torch.load(folder / "weights.pt", map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError) as error:
        raise NotFoundError(f"{folder} must be a folder that `nas promote` wrote, but {_reason(error)}") from error
    if content.get("format") != FORMAT:
        raise NotFoundError(f"{folder} has format {content.get('format')}, and this nas reads format {FORMAT}")
    try:
        spec = codec.decode(content["spec"])
        config = _data(content["data"])
        model = build(spec, num_classes=len(content["classes"]), planes=config.planes)
        model.load_state_dict(weights)
    except SpecError as error:
        raise NotFoundError(f"{folder}/network.json does not hold a network: {error}") from error
    except (KeyError, TypeError, ConfigError, RuntimeError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
        raise NotFoundError(f"{folder} holds no network that this version can open: {reason}") from error
    network = Network(
        model,
        spec=spec,
        class_names=tuple(content["classes"]),
        data=config,
        record=content["record"],
    )
    return network.to(device).eval()


def _data(recorded: Mapping[str, Any]) -> DataConfig:
    """How clips are taken, from plain values."""
    values = dict(recorded)
    values["clip"] = Clip(**values["clip"])
    for key in ("mean", "std", "crop_scale", "crop_ratio", "randaugment", "crop"):
        values[key] = tuple(values[key]) if values.get(key) is not None else None
    return DataConfig(**values)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())[:200] or type(error).__name__
