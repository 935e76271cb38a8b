"""An ONNX file of `nas deploy` as a network, and how any deployed network is called."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.errors import NasError, NotFoundError
from nas.study.views import Views
from search_spaces.codec import from_plain
from search_spaces.errors import SpecError
from trainer.config import ConfigError, DataConfig
from trainer.data.augment import normalisation
from trainer.files import content_of

KEY = "video-nas"
"""Key of a file's metadata that holds `facts_of` as JSON."""

FORMAT = 1
MOST_BYTES = 2**31 - 2**20  # of an ONNX file, which is one message of protobuf

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """How a network is deployed.

    Attributes:
        batch: Clips at once; 0 leaves it open.
        uint8: It takes frames as bytes (N, T, H, W, C) and normalises them itself; otherwise normalised (N, C, T, H,
            W), float32.
        half: It computes in float16; inputs and logits are float32 all the same.
    """

    batch: int = 0
    uint8: bool = False
    half: bool = False


class Called(nn.Module):
    """Something that maps the input of a form to logits, as a network that takes normalised clips."""

    def __init__(self, run: Run, form: Form, config: DataConfig) -> None:
        super().__init__()
        self._run, self._form = run, form
        self._mean, self._std = (torch.tensor(values).reshape(1, -1, 1, 1, 1) for values in normalisation(config))

    def forward(self, clips: Tensor) -> Tensor:
        """Logits (N, K) of normalised clips (N, C, T, H, W)."""
        if self._form.uint8:
            clips = bytes_of(clips, self._mean, self._std).permute(0, 2, 3, 4, 1).contiguous()
        count, size = len(clips), self._form.batch
        if not size:
            return self._run(clips)
        out = []
        for some in torch.split(clips, size):  # a file for a number of clips takes that number alone
            full = torch.cat([some, some[-1:].expand(size - len(some), *some.shape[1:])])
            out.append(self._run(full)[: len(some)])
        return torch.cat(out)[:count]


def bytes_of(clips: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The bytes that normalised clips were made of."""
    return ((clips * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)


def session_of(content: bytes) -> Run:
    """What runs an ONNX file on the CPU, in onnxruntime."""
    import onnxruntime as ort

    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(clips: Tensor) -> Tensor:
        (logits,) = session.run(None, {"clip": clips.contiguous().numpy()})
        return torch.from_numpy(logits)

    return run


class OnnxNetwork(nn.Module):
    """An ONNX file that `nas deploy` wrote, as a network on normalised clips.

    Attributes:
        class_names: Names of the outputs, in order.
        data: How clips are taken from a video; its places are empty.
        views: How each video was looked at when the network was tested.
        record: What is known of its training.
        multi_label: Whether each class has a probability of its own.
        device: The CPU.
    """

    def __init__(self, file: Path) -> None:
        """Opens a file.

        Raises:
            NotFoundError: It is none that `nas deploy` wrote, or is damaged.
            NasError: onnxruntime is missing.
        """
        super().__init__()
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise NasError(f"an ONNX file needs {error.name}: pip install 'video-nas[deploy]'") from error
        try:
            content = content_of(file, largest=MOST_BYTES)
            meta = ort.InferenceSession(content, providers=["CPUExecutionProvider"]).get_modelmeta()
            facts = json.loads(meta.custom_metadata_map[KEY])
            if facts["format"] is True or facts["format"] != FORMAT:
                raise ValueError(f"it has format {facts['format']}, and this version reads format {FORMAT}")
            self.class_names = tuple(str(name) for name in facts["classes"])
            self.data = from_plain(DataConfig, {**facts["data"], "root": str(file), "cache": "cache"}, "data")
            self.views: Views = from_plain(Views, facts["views"], "views")
            form = from_plain(Form, facts["form"], "form")
            self.record = _record_of(facts["record"])
            if len(set(self.class_names)) != len(self.class_names) or not isinstance(facts["classes"], list):
                raise ValueError("its classes are no list of different names")
            if form.batch < 0:
                raise ValueError(f"it takes {form.batch} clips at once")
        except OSError as error:
            raise NotFoundError(f"there is no file {file} that can be read: {error.strerror}") from error
        except (KeyError, TypeError, ValueError, SpecError) as error:
            raise NotFoundError(f"{file} must be an ONNX file that `nas deploy` wrote, but {line_of(error)}") from error
        except Exception as error:  # of onnxruntime, which has no class of its own for a file that is none
            raise NotFoundError(f"{file} must be an ONNX file that `nas deploy` wrote, but {line_of(error)}") from error
        self.multi_label = bool(self.record.get("multi_label", False))
        self.device = torch.device("cpu")
        self._call = Called(session_of(content), form, self.data)

    def forward(self, clips: Tensor) -> Tensor:
        """Logits (N, K) of normalised clips (N, C, T, H, W).

        Raises:
            ConfigError: The file takes clips of another size.
        """
        try:
            logits: Tensor = self._call(clips)
        except Exception as error:
            size = "x".join(map(str, clips.shape[1:]))
            raise ConfigError(
                f"the file cannot take clips of {size} ({line_of(error)}); give --no-full, and no other --short-sides"
            ) from error
        return logits


def _record_of(stated: Any) -> dict[str, Any]:
    """What a file says of the training of its network, of the types that it must have."""
    kinds = {"digest": str, "multi_label": bool, "seed": int, "epochs": int, "checksum": str}
    for key, kind in kinds.items():
        if type(stated.get(key, kind())) is not kind:
            raise ValueError(f"its {key} is {type(stated[key]).__name__}")
    return {key: stated[key] for key in kinds if key in stated}


def line_of(error: BaseException) -> str:
    """An error of another library in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
