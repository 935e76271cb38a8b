"""The clips of one video file, as an evaluation would see them: for networks that are in use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainer.config import DataConfig
from trainer.data.augment import centre_box, cut, normalise
from trainer.data.decode import DecodeError, decode_video
from trainer.data.layouts import DataError
from trainer.data.sample import eval_indices, needed_frames


def clips_of_video(path: Path, config: DataConfig) -> Tensor:
    """Decodes a video and takes its evaluation clips.

    Args:
        path: The file.
        config: How clips are taken.

    Returns:
        Normalised clips (config.eval_clips, 3, T, H, W), float32.

    Raises:
        DataError: The file cannot be decoded, or is shorter than a clip and `config.short` is `skip`.
    """
    try:
        video = decode_video(path, short_side=config.short_side, max_frames=config.max_frames).frames
    except DecodeError as error:
        raise DataError(f"{path} must be a video, but {error}") from error
    needed = needed_frames(config.clip, config.sampling)
    if len(video) < needed and config.short == "skip":
        raise DataError(f"{path} must have at least {needed} frames for a clip, but has {len(video)}")
    clip = config.clip
    pixels = np.empty((config.eval_clips, clip.frames, clip.height, clip.width, 3), dtype=np.uint8)
    box = centre_box(video.shape[1], video.shape[2], clip)
    for number, out in enumerate(pixels):
        indices = eval_indices(len(video), clip, config.sampling, number=number, num_clips=config.eval_clips)
        cut(video, indices if config.reversal == "none" else indices[::-1], box, out, mirror=False)
    return normalise(torch.from_numpy(pixels), config.mean, config.std)
