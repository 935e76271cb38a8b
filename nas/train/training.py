"""One training job: spec -> network -> epochs of training -> results, every failure a recorded outcome."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from nas.train.jobs import JobResult, TrainJob, derived_seed
from nas.train.weights import begin, weights_of
from search_spaces import codec
from search_spaces.catalogue import build
from trainer.checkpoint import load_weights
from trainer.config import DataConfig
from trainer.data import clips
from trainer.data.clips import VideoData, open_data
from trainer.data.layouts import DataError
from trainer.evaluate import Batches
from trainer.failures import DataAway, DiskFull, TrainingFailed, environment_failure
from trainer.files import make_folder
from trainer.fit import fit
from trainer.metrics import EpochResult
from trainer.order_tests import motion_tests, outcomes
from trainer.outcomes import TESTS, MotionOutcome
from trainer.recipe import Init, ZeroInit

T = TypeVar("T")


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
        make_folder(folder)
        data = _data_of(job)
        data.met.reset()
        model, batches = first_network(job), SignsOfLife(folder)
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
            batches=batches,
            network=codec.digest(codec.loads(job.spec)),
        )
        measured = _measured(job, model, data, batches) if job.by_clip or job.motion else ()
        return JobResult(
            epochs=result.epochs,
            seconds=time.perf_counter() - start,
            detail="; ".join((*result.damaged, *filter(None, [data.met.summary()]))) or None,
            correct=measured[0].correct if job.by_clip else "",
            motion=measured if job.motion else (),
        )
    except Exception as error:
        failure = environment_failure(error) or error
        if isinstance(failure, TrainingFailed):
            return _failed(start, failure.reason, failure)
        with suppress(OSError):
            (folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        return _failed(start, "error", error)


class SignsOfLife:
    """Clips of `trainer.data.clips`; with each batch the time of a folder is set, once a second at most.

    That is how a driver hears that whoever trains there does not hang, on this machine or on another.

    Args:
        folder: Of the job.
    """

    def __init__(self, folder: Path) -> None:
        """The first sign is given with the first batch."""
        self.folder = folder
        self._given = float("-inf")

    def num_batches(self, data: Any, config: DataConfig, *, split: str, batch_size: int, parts: int = 1) -> int:
        """As `trainer.data.clips.num_batches`."""
        return clips.num_batches(data, config, split=split, batch_size=batch_size, parts=parts)

    def train_batches(self, data: Any, config: DataConfig, **how: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """As `trainer.data.clips.train_batches`."""
        return self._heard(clips.train_batches(data, config, **how))

    def eval_batches(self, data: Any, config: DataConfig, **how: Any) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """As `trainer.data.clips.eval_batches`."""
        return self._heard(clips.eval_batches(data, config, **how))

    def _heard(self, batches: Iterator[T]) -> Iterator[T]:
        for batch in batches:
            if time.monotonic() - self._given >= 1.0:
                self._given = time.monotonic()
                with suppress(OSError):  # a disk that is full or away is found by whoever writes or reads
                    os.utime(self.folder)
            yield batch


def network(
    spec: str,
    *,
    num_classes: int,
    dropout: float,
    seed: int,
    init: Init = Init(),  # noqa: B008
    planes: int = 3,
    zero_init: ZeroInit = "as_published",
) -> torch.nn.Module:
    """Builds the network of a spec with initial values that depend on `seed` and the weights of `init` alone.

    Args:
        spec: The architecture as canonical JSON.
        num_classes: Outputs.
        dropout: Share of features dropped before the classifier.
        seed: Of the values that are drawn.
        init: Weights to begin with.
        planes: Planes of a clip.
        zero_init: Whether residual branches add nothing at first.

    Raises:
        SearchError: The weights cannot be read, or are not those that they were.
        SpecError: They are of another network.
    """
    if init.weights:
        weights_of(init)  # before the seed: a hub may draw numbers
    torch.manual_seed(derived_seed(seed, "weights"))
    arch = codec.loads(spec)
    at_zero = zero_init if isinstance(zero_init, bool) else None
    model = build(arch, num_classes=num_classes, dropout=dropout, planes=planes, zero_init=at_zero)
    if init.weights:
        begin(model, arch, init)
    return model


def first_network(job: TrainJob) -> torch.nn.Module:
    """The network of a job as its training begins."""
    recipe, seed = job.recipe, job.seed
    make = partial(
        network,
        num_classes=job.num_classes,
        dropout=recipe.dropout,
        seed=seed,
        init=recipe.init,
        planes=job.data.planes,
        zero_init=recipe.zero_init,
    )
    model = make(job.spec)
    if job.paired_with and job.paired_with != job.spec:
        take_values(model, make(job.paired_with))
    return model


def take_values(model: torch.nn.Module, other: torch.nn.Module) -> int:
    """Gives a network the values of another where names and shapes agree, so that both begin alike.

    Returns:
        How many tensors were taken.
    """
    theirs = other.state_dict()
    taken = 0
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name in theirs and theirs[name].shape == value.shape:
                value.copy_(theirs[name])
                taken += 1
    return taken


def _measured(job: TrainJob, model: torch.nn.Module, data: VideoData, batches: Batches) -> tuple[MotionOutcome, ...]:
    """Which videos of val the network classifies correctly, with the weights that its metrics are of.

    As they are (`forward`) first, then in other orders, if the job asks for it and its clips have an order.
    """
    load_weights(Path(job.folder) / "last.pt", model)
    tests = (TESTS[0], *job.motion) if job.data.clip.frames > 1 else TESTS[:1]
    return outcomes(motion_tests(model, data, job.data, job.recipe, "val", job.device, tests=tests, batches=batches))


def _data_of(job: TrainJob) -> VideoData:
    """The data of a job, which the driver has opened before: what is wrong with it now is not the network's fault.

    Raises:
        DataAway, DiskFull: It cannot be opened, or is not what it was.
    """
    try:
        data = opened(job.opened or job.data)
    except (DataError, OSError) as error:
        failure = environment_failure(error)
        raise failure if isinstance(failure, DiskFull) else DataAway(" ".join(str(error).split())) from error
    if job.checksum and data.checksum != job.checksum:
        close_data()  # or the next try would not look again
        raise DataAway(f"the videos under {job.data.root} are not those that the study began with")
    return clips.without(data, "val", job.left_out)


def opened(config: DataConfig) -> VideoData:
    """The packed data, opened once a process and working folder, from which relative paths start."""
    return _opened(config, Path.cwd())


def close_data() -> None:
    """Forgets the data that is open, so that it is looked for again."""
    _opened.cache_clear()


@lru_cache(maxsize=2)
def _opened(config: DataConfig, folder: Path) -> VideoData:
    return open_data(config)


def _failed(start: float, reason: str, error: BaseException) -> JobResult:
    line = " ".join(str(error).split()) or type(error).__name__
    if reason == "error":
        line = f"{type(error).__name__}: {line}"
    return JobResult(epochs=(), seconds=time.perf_counter() - start, reason=reason, detail=line[:500])
