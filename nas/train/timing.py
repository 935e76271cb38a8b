"""What an epoch of training takes on this machine, measured on a few steps."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from statistics import median

import torch

from search_spaces.catalogue import build
from search_spaces.spec import ArchSpec
from trainer.config import DataConfig
from trainer.device import threads_of
from trainer.learner import Learner
from trainer.recipe import Recipe

_FEWEST = 3  # steps, however long one takes


def epoch_seconds(
    spec: ArchSpec,
    data: DataConfig,
    recipe: Recipe,
    *,
    num_classes: int,
    num_train: int,
    num_val: int,
    device: str,
    threads: int,
    seconds: float = 3.0,
) -> float:
    """Seconds of an epoch with its share of evaluation, of which clips of noise have been trained on for a moment.

    What is decoded once, and what is read from the cache beside a training, is not in it.

    Args:
        spec: The network.
        data: Whose clips it sees.
        recipe: How it is trained.
        num_classes: Outputs.
        num_train: Videos of an epoch.
        num_val: Videos of an evaluation.
        device: `cpu` or `cuda`.
        threads: On a CPU.
        seconds: To measure for.

    Raises:
        torch.OutOfMemoryError: It does not fit into a GPU.
    """
    batch, clip = recipe.batch_size, data.clip
    learner = Learner(
        build(spec, num_classes=num_classes, planes=data.planes), replace(recipe, compile=False), torch.device(device)
    )
    learner.training(1)
    clips = torch.randn(batch, data.planes, clip.frames, clip.height, clip.width, device=device)
    labels = torch.arange(batch, device=device) % num_classes
    if recipe.loss != "cross_entropy":
        labels = torch.nn.functional.one_hot(labels, num_classes).float()

    def step(done: int) -> float:
        began = time.perf_counter()
        float(learner.step(clips, labels, lr=1e-6, share=None, num_classes=num_classes, done=done))
        return time.perf_counter() - began

    def forward() -> float:
        began = time.perf_counter()
        with torch.inference_mode():
            float(learner.evaluated(clips).float().sum())
        return time.perf_counter() - began

    with threads_of(threads):
        step(1)  # what is compiled or allocated once
        end, steps = time.perf_counter() + seconds, list[float]()
        while time.perf_counter() < end or len(steps) < _FEWEST:
            steps.append(step(len(steps) + 2))
        learner.evaluated.eval()
        forward()
        looks = [forward() for _ in range(_FEWEST)]
    looked = median(looks) * math.ceil(num_val * data.eval_clips * data.eval_crops / batch) / recipe.eval_every
    return median(steps) * math.ceil(num_train / batch) + looked
