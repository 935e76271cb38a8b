"""One training job: spec -> network -> epochs of training -> results, every failure a recorded outcome."""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch

from nas.weights import weights_of
from search_spaces import codec
from search_spaces.catalogue import build
from search_spaces.inflate import inflate
from trainer.config import DataConfig, Init, Recipe
from trainer.data.clips import VideoData, open_data
from trainer.failures import TrainingFailed
from trainer.loop import fit
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
    """

    spec: str
    num_classes: int
    data: DataConfig
    recipe: Recipe
    seed: int
    folder: str
    until_epoch: int
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """What came of a job.

    Attributes:
        epochs: Every epoch of the network so far, those of earlier jobs included.
        seconds: Wall time of this job.
        reason: None, or why it failed: `non_finite_loss`, `out_of_memory`, `broken_clip`, `disk_full`, `error`.
        detail: The failure in one line.
    """

    epochs: tuple[EpochResult, ...]
    seconds: float
    reason: str | None = None
    detail: str | None = None


def run_job(job: TrainJob, on_epoch: Callable[[EpochResult], None] | None = None) -> JobResult:
    """Trains a network to `job.until_epoch`, from its last checkpoint if it has one.

    Args:
        job: What to train.
        on_epoch: Called after each epoch; for executors that run the job in the driver's process.

    Returns:
        The epochs, or the reason of the failure. Only an interrupt by the user is raised.
    """
    start = time.perf_counter()
    folder = Path(job.folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        data = opened(job.data)
        model = first_network(job)
        result = fit(
            model,
            data,
            job.data,
            job.recipe,
            seed=job.seed,
            until_epoch=job.until_epoch,
            folder=folder,
            device=job.device,
            on_epoch=on_epoch,
        )
        return JobResult(epochs=result.epochs, seconds=time.perf_counter() - start)
    except TrainingFailed as error:
        return _failed(start, error.reason, error)
    except Exception as error:
        (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        return _failed(start, "error", error)


def network(spec: str, *, num_classes: int, dropout: float, seed: int, init: Init = Init()) -> torch.nn.Module:  # noqa: B008
    """Builds the network of a spec with initial values that depend on `seed` and the 2D weights of `init` alone.

    Raises:
        SearchError: The weights cannot be read, or are not those that they were.
        SpecError: They are of another network.
    """
    state = weights_of(init) if init.weights else None  # before the seed: a hub may draw numbers
    torch.manual_seed(derived_seed(seed, "weights"))
    arch = codec.loads(spec)
    model = build(arch, num_classes=num_classes, dropout=dropout)
    if state is not None:
        inflate(model, arch, state, init.mode)
    return model


def first_network(job: TrainJob) -> torch.nn.Module:
    """The network of a job as its training begins."""
    recipe = job.recipe
    return network(job.spec, num_classes=job.num_classes, dropout=recipe.dropout, seed=job.seed, init=recipe.init)


def job_key(job: TrainJob, data_checksum: str) -> str:
    """Twelve letters that name what is trained: network, recipe, initial weights, data and seed.

    They are part of the folder's name, so that a checkpoint is only ever gone on from by the very same training.
    """
    moving = {"root", "cache", "num_workers"}  # where the data lies does not matter, what it is does
    data = {name: value for name, value in asdict(job.data).items() if name not in moving}
    content = [job.spec, job.num_classes, data, job.recipe.identity(), job.seed, data_checksum]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def derived_seed(seed: int, purpose: str) -> int:
    """A seed of its own for one purpose, in 0..2**31 - 1."""
    return int.from_bytes(hashlib.sha256(f"{seed} {purpose}".encode()).digest()[:4], "big") >> 1


@lru_cache(maxsize=2)
def opened(config: DataConfig) -> VideoData:
    """The packed data, opened once a process."""
    return open_data(config)


def _failed(start: float, reason: str, error: BaseException) -> JobResult:
    line = " ".join(str(error).split()) or type(error).__name__
    if reason == "error":
        line = f"{type(error).__name__}: {line}"
    return JobResult(epochs=(), seconds=time.perf_counter() - start, reason=reason, detail=line[:500])
