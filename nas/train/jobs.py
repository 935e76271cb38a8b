"""Training jobs as plain values that can be sent anywhere, and the names of what they train; free of torch."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from nas.errors import SearchError
from trainer.config import DataConfig
from trainer.outcomes import MotionOutcome
from trainer.recipe import Recipe

if TYPE_CHECKING:
    from trainer.metrics import EpochResult

SOURCES = ("promotion", "run", "trial")  # in the order in which trained weights are looked for
PAUSE_SECONDS = 0.5  # before a job that its environment failed is tried again; each time twice as long
LONGEST_PAUSE = 10.0
MAX_TRIES = 10  # that a training is cut short after the same epoch for one reason, before it counts as failed


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
        motion: Tests of `trainer.outcomes.TESTS` in which the network is measured too, beside `forward`.
        opened: The data as it is opened, where that is not `data`: a search at a lower fidelity takes smaller clips of
            the videos that are long enough for the full one.
        checksum: Of the data that the driver has opened; empty where that is not checked.
        left_out: Paths of the videos of val that are left out for all networks of the study.
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
    motion: tuple[str, ...] = ()
    opened: DataConfig | None = None
    checksum: str = ""
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class JobResult:
    """What came of a job.

    Attributes:
        epochs: Every epoch of the network so far, those of earlier jobs included.
        seconds: Wall time of this job.
        reason: None, or why it failed: `non_finite_loss`, `out_of_memory` or `error`; or a reason of
            `ENVIRONMENT`, which is not the network's.
        detail: The failure in one line; of a job that went well, what it could not read of the data, or None.
        correct: A 0 or 1 for each video of val in its order, `-` for one that was left out; empty unless asked for.
        motion: The motion tests, `forward` first; empty unless asked for.
    """

    epochs: tuple[EpochResult, ...]
    seconds: float
    reason: str | None = None
    detail: str | None = None
    correct: str = ""
    motion: tuple[MotionOutcome, ...] = ()


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


# What failed around a training, and what to do; such a job is pre-empted, and does not count against its network, but
# where it has ended every process that tried it (`step_after_cut`).
ENVIRONMENT = {
    "worker_died": ("a process died", "see what ends it"),
    "worker_silent": ("a process hung", "see what holds it up"),
    "folder_busy": ("a folder is in use", "end the process that trains there"),
    "data_away": ("the data is away", "bring it back"),
    "disk_full": ("the disk is full", "free some room"),
    "disk_failed": ("a file cannot be read or written", "put that right"),
    "broken_clip": ("videos cannot be read", "bring them back (`nas data check` names them), or raise data.max_broken"),
}
_BY_ITSELF = ("worker_died", "worker_silent", "folder_busy", "data_away")  # may be over in a moment
_BY_NETWORK = ("worker_died", "worker_silent")  # what the network, in the end, may be the reason of


def step_after_cut(reason: str, tries: int) -> Literal["again", "fail", "stop"]:
    """What becomes of a training that its environment has cut short.

    Args:
        reason: A key of `ENVIRONMENT`.
        tries: How often that was so after the same epoch.

    Returns:
        `again`, from the last checkpoint; or `fail`: it has ended every process that tried; or `stop`: nothing can be
        trained before that is put right.
    """
    if reason not in _BY_ITSELF:
        return "stop"
    if tries < MAX_TRIES:
        return "again"
    return "fail" if reason in _BY_NETWORK else "stop"


def pause(reason: str, tries: int) -> None:
    """Waits before a training is tried again, longer each time, where waiting may help."""
    if reason not in _BY_NETWORK:
        time.sleep(min(PAUSE_SECONDS * 2 ** (tries - 1), LONGEST_PAUSE))


def stopped(result: JobResult) -> SearchError:
    """The one line that is said where a command cannot go on."""
    what, remedy = ENVIRONMENT[str(result.reason)]
    return SearchError(f"{what}: {result.detail}; {remedy} and give the same command again to go on")


def after_cut(result: JobResult, tries: int, place: str, say: Callable[[str], None]) -> JobResult | None:
    """Decides on a training that its environment has cut short, and waits where that may help.

    Args:
        result: With a reason of `ENVIRONMENT`.
        tries: How often that was so at this place.
        place: Such as `after epoch 3`.
        say: Hears that it goes on.

    Returns:
        None where it is to be tried again now; else the failure that it counts as.

    Raises:
        SearchError: Nothing can be trained before that is put right.
    """
    reason = str(result.reason)
    step = step_after_cut(reason, tries)
    if step == "stop":
        raise stopped(result)
    if step == "fail":
        return replace(result, detail=f"cut short {tries} times {place}: {result.detail}")
    say(told_again(result))
    pause(reason, tries)
    return None


def told_again(result: JobResult) -> str:
    """What is said of a training that was cut short and goes on."""
    return f"{ENVIRONMENT[str(result.reason)][0]} ({result.detail}); it goes on from its last checkpoint"
