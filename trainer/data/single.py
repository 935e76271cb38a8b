"""The clips of one video file, as an evaluation would see them: for networks that are in use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainer.config import DataConfig
from trainer.data.augment import cut, eval_box
from trainer.data.decode import DecodeError, decode_video
from trainer.data.inputs import shown
from trainer.data.layouts import DataError
from trainer.data.sample import eval_indices, frames_at, needed_frames, spread


def clips_of_video(path: Path, config: DataConfig) -> Tensor:
    """Decodes a video and takes its evaluation clips.

    Args:
        path: The file.
        config: How clips are taken.

    Returns:
        Normalised clips (config.eval_clips * config.eval_crops, C, T, H, W), float32, the crops of a clip one after
        the other.

    Raises:
        DataError: The file cannot be decoded, is shorter than a clip and `config.short` is `skip`, or flow is wanted.
    """
    if config.input == "flow":
        raise DataError(f"data.input must be rgb or difference for clips of {path}, but is flow, which no file holds")
    try:
        decoded = decode_video(path, short_side=config.short_side, max_frames=config.max_frames)
    except DecodeError as error:
        raise DataError(f"{path} must be a video, but {error}") from error
    video, clip = decoded.frames, config.clip
    num_seen = frames_at(len(video), round(decoded.fps, 3), config.fps)
    needed = needed_frames(clip, config.sampling)
    if num_seen < needed and config.short == "skip":
        raise DataError(f"{path} must have at least {needed} frames for a clip, but has {num_seen}")
    num_views = config.eval_clips * config.eval_crops
    pixels = np.empty((num_views, clip.frames, clip.height, clip.width, 3), dtype=np.uint8)
    for view, out in enumerate(pixels):
        number, crop = divmod(view, config.eval_crops)
        numbers = eval_indices(num_seen, clip, config.sampling, number=number, num_clips=config.eval_clips)
        numbers = spread(numbers, len(video), num_seen)
        box = eval_box(video.shape[1], video.shape[2], config.box, number=crop, num_crops=config.eval_crops)
        backwards = config.reversal != "none"
        cut(video, numbers[::-1] if backwards else numbers, box, out, mirror=False)
    return shown(torch.from_numpy(pixels), config)
