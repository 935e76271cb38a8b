"""The plan of an ablation: which trainings it needs, what the record has of them already, and what is left to pay."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.ablation.config import AblationConfig
from nas.ablation.designs import Arm, Arms, check_left
from nas.ablation.matched import matched
from nas.ablation.variants import LevelError, Variant
from nas.cost import Cost, cost_of
from nas.jobs import TrainJob, job_key
from nas.store import Row
from search_spaces import codec
from search_spaces.spec import ClipError
from trainer.outcomes import TESTS

CONTROL_SEEDS = 1_000_000  # added to the seeds of a control's runs


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """One training that a plan needs.

    Attributes:
        arm: Position of its arm.
        pair: From 0; trainings of equal pair are compared with each other.
        seed: Of the training.
        key: Names what is trained, see `job_key`.
        job: What an executor gets, without folder.
    """

    arm: int
    pair: int
    seed: int
    key: str
    job: TrainJob


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """An ablation before it begins.

    Attributes:
        config: As the study states it.
        arms: What is compared, and what was dropped.
        costs: Of each arm's network at its own clip.
        trainings: Pair by pair, so that an early look has whole pairs.
        searched: Digests of its networks that a search of the database trained; `config.first_seed` is because of them.
    """

    config: AblationConfig
    arms: Arms
    costs: tuple[Cost, ...]
    trainings: tuple[Training, ...]
    searched: tuple[str, ...] = ()

    @property
    def seeds(self) -> tuple[int, int]:
        """The first and the last seed of its pairs."""
        own = [training.seed for training in self.trainings if training.arm == 0]
        return own[0], own[-1]


def plan_of(
    config: AblationConfig,
    arms: Arms,
    *,
    num_classes: int,
    seed: int,
    checksum: str,
    num_pairs: int | None = None,
    searched: Mapping[str, int] | None = None,
) -> Plan:
    """Makes the plan.

    A result that selected a network is no evidence for it: it is the best of many, so it is too good by what luck gave
    it ("winner's curse"). Where a search trained one of the networks, all pairs have later seeds than it had.

    Args:
        config: Design, seeds and epochs.
        arms: Of the design.
        num_classes: Classes of the data.
        seed: The study's; pair i has seed + i, or with networks of a search the first seed after its own + i.
        checksum: Of the data; trainings on other data are others.
        num_pairs: Pairs, where they are not those of `config`.
        searched: From the digest of each network that a search of the database trained to the highest seed that it had.

    Raises:
        LevelError: A network does not fit the clip of its arm.
    """
    costs = tuple(_cost(arm, num_classes) for arm in arms.arms)
    base = codec.dumps(arms.arms[0].variant.spec)
    digests = dict.fromkeys(codec.digest(arm.variant.spec) for arm in arms.arms)
    found = {digest: (searched or {})[digest] for digest in digests if digest in (searched or {})}
    if found:
        config = dataclasses.replace(config, first_seed=max(0, max(found.values()) + 1 - seed))
    seed += config.first_seed
    trainings = []
    for pair in range(config.seeds if num_pairs is None else num_pairs):
        for arm in arms.arms:
            job = _job(arm.variant, base, config, num_classes=num_classes, seed=seed + pair)
            key = job_key(job, checksum)
            trainings.append(Training(arm=arm.position, pair=pair, seed=job.seed, key=key, job=job))
    return Plan(config=config, arms=arms, costs=costs, trainings=tuple(trainings), searched=tuple(found))


def _job(variant: Variant, base: str, config: AblationConfig, *, num_classes: int, seed: int) -> TrainJob:
    spec = codec.dumps(variant.spec)
    return TrainJob(
        spec=spec,
        num_classes=num_classes,
        data=variant.data,
        recipe=variant.recipe,
        seed=seed + CONTROL_SEEDS if variant.other_seeds else seed,
        folder="",
        until_epoch=config.epochs,
        paired_with="" if spec == base else base,
        by_clip=True,
        motion=TESTS[1:] if config.motion else (),
    )


def _cost(arm: Arm, num_classes: int) -> Cost:
    clip = arm.variant.data.clip
    try:
        return cost_of(arm.variant.spec, clip, num_classes=num_classes, planes=arm.variant.data.planes)
    except ClipError as error:
        raise LevelError(f"{arm.factor}={arm.level}: {error}") from error


def match_costs(config: AblationConfig, arms: Arms, *, num_classes: int) -> Arms:
    """Rescales every arm's width so that its MACs are the base's, where the study asks for it; see `matched`."""
    if config.match == "none":
        return arms
    rescaled = matched(arms, num_classes=num_classes)
    check_left(rescaled, config.design)
    return rescaled


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a plan costs.

    Attributes:
        trainings: In all, different ones.
        done: Of them, those that the record has.
        epochs: That are left to train.
        hours: Of one worker; None where no training of the study tells how long an epoch takes.
    """

    trainings: int
    done: int
    epochs: int
    hours: float | None


def estimate(plan: Plan, done: Sequence[tuple[str, int]], history: Sequence[Row]) -> Estimate:
    """Says what a plan costs.

    Args:
        plan: The plan.
        done: Keys and epochs of recorded trainings.
        history: Epochs of the study with `seconds` and the network's `train_macs`.
    """
    wanted = {(t.key, plan.config.epochs): t for t in plan.trainings}
    left = [t for name, t in wanted.items() if name not in set(done)]
    epochs = len(left) * plan.config.epochs
    seconds = [_seconds(plan.costs[t.arm].train_macs, history) for t in left]
    known = [value for value in seconds if value is not None]
    hours = plan.config.epochs * sum(known) / 3600 if len(known) == len(left) else None
    return Estimate(trainings=len(wanted), done=len(wanted) - len(left), epochs=epochs, hours=hours)


def _seconds(train_macs: int, history: Sequence[Row]) -> float | None:
    """Seconds of one epoch: those of the recorded networks that are nearest in MACs, in proportion but never less."""
    if not history:
        return None
    nearest = sorted(history, key=lambda row: abs(row["train_macs"] - train_macs))[:9]
    return statistics.median(
        [float(row["seconds"]) * max(1.0, train_macs / float(row["train_macs"])) for row in nearest]
    )
