"""Training jobs as plain values that can be sent anywhere, and the names of what they train; free of torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.config import DataConfig, Recipe
from trainer.outcomes import Outcome

if TYPE_CHECKING:
    from trainer.metrics import EpochResult


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainJob:
    """What an executor trains: plain values, so that it can be sent to another process or machine.

    Attributes:
        spec: The architecture as canonical JSON.
        num_classes: Outputs of the network.
        data: Videos and clips.
        recipe: How to train.
        seed: Seeds initial values, order and augmentation.
        folder: The job's own folder, with its checkpoint from earlier rungs.
        until_epoch: Epochs in all, those before included.
        device: `cpu`, `cuda` or `cuda:1`.
        paired_with: The architecture, as canonical JSON, whose initial values this network takes where names and shapes
            agree; empty for none.
        by_clip: Whether the result says which videos of val were classified correctly.
        motion: Whether the network is also measured on clips whose order was changed.
        opened: The data as it is opened, where that is not `data`: a search at a lower fidelity takes smaller clips of
            the videos that are long enough for the full one.
    """

    spec: str
    num_classes: int
    data: DataConfig
    recipe: Recipe
    seed: int
    folder: str
    until_epoch: int
    device: str = "cpu"
    paired_with: str = ""
    by_clip: bool = False
    motion: bool = False
    opened: DataConfig | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """What came of a job.

    Attributes:
        epochs: Every epoch of the network so far, those of earlier jobs included.
        seconds: Wall time of this job.
        reason: None, or why it failed: `non_finite_loss`, `out_of_memory`, `broken_clip`, `disk_full`, `error`.
        detail: The failure in one line; of a job that went well, what it could not read of the data, or None.
        correct: A 0 or 1 for each video of val in its order, `-` for one that was left out; empty unless asked for.
        motion: The motion tests, `forward` first; empty unless asked for.
    """

    epochs: tuple[EpochResult, ...]
    seconds: float
    reason: str | None = None
    detail: str | None = None
    correct: str = ""
    motion: tuple[Outcome, ...] = ()


def job_key(job: TrainJob, data_checksum: str) -> str:
    """Twelve letters that name what is trained: network, recipe, initial weights, data and seed.

    They are part of the folder's name, so that a checkpoint is only ever gone on from by the very same training.
    """
    content = [job.spec, job.num_classes, job.data.identity(), job.recipe.identity(), job.seed, data_checksum]
    if job.paired_with:
        content.append(job.paired_with)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of its own for one purpose, in 0..2**31 - 1."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:4], "big") >> 1
