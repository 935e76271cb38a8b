"""Rows as the open database gives them: mappings whose keys and types are known, and which nobody changes.

They are mappings, not objects, since an objective or a column of a table is read by its name. The columns stand in
`nas.store.tables`; those that a query adds come last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from typing_extensions import ReadOnly

Row = Mapping[str, Any]
"""Any row, such as one of a front, which has each objective by its name."""


class StudyRow(TypedDict):
    """A study as it was recorded."""

    id: ReadOnly[int]
    name: ReadOnly[str]
    seed: ReadOnly[int]
    clip: ReadOnly[str]
    num_classes: ReadOnly[int]
    config: ReadOnly[Any]
    data: ReadOnly[Any]
    created_at: ReadOnly[str]
    accuracy: ReadOnly[str | None]


class SessionRow(TypedDict):
    """One start of a driver."""

    id: ReadOnly[int]
    study_id: ReadOnly[int]
    started_at: ReadOnly[str]
    ended_at: ReadOnly[str | None]
    workers: ReadOnly[int]
    environment: ReadOnly[Any]
    wall_seconds: ReadOnly[float | None]
    busy_seconds: ReadOnly[float | None]
    seen_at: ReadOnly[str | None]
    decide_seconds: ReadOnly[float | None]


class ArchitectureRow(TypedDict):
    """A network."""

    digest: ReadOnly[str]
    description: ReadOnly[str]
    spec: ReadOnly[Any]


class TrialRow(TypedDict):
    """A network of a search with one seed."""

    id: ReadOnly[int]
    study_id: ReadOnly[int]
    number: ReadOnly[int]
    digest: ReadOnly[str]
    seed: ReadOnly[int]
    stratum: ReadOnly[int]
    params: ReadOnly[Any]
    origin: ReadOnly[str]
    state: ReadOnly[str]
    reason: ReadOnly[str | None]
    detail: ReadOnly[str | None]


class JobRow(TypedDict):
    """A training from rung to rung, with its trial's number and digest, and the MACs of its network."""

    id: ReadOnly[int]
    trial_id: ReadOnly[int]
    rung: ReadOnly[int]
    epochs: ReadOnly[int]
    state: ReadOnly[str]
    reason: ReadOnly[str | None]
    detail: ReadOnly[str | None]
    started_at: ReadOnly[str]
    ended_at: ReadOnly[str | None]
    seconds: ReadOnly[float | None]
    expected_error: ReadOnly[float | None]
    expected_spread: ReadOnly[float | None]
    expected_gain: ReadOnly[float | None]
    number: ReadOnly[int]
    digest: ReadOnly[str]
    macs: ReadOnly[int | None]


class EpochRow(TypedDict):
    """An epoch of a trial."""

    trial_id: ReadOnly[int]
    epoch: ReadOnly[int]
    train_loss: ReadOnly[float]
    lr: ReadOnly[float]
    seconds: ReadOnly[float]
    top1: ReadOnly[float | None]
    top5: ReadOnly[float | None]
    loss: ReadOnly[float | None]
    num_clips: ReadOnly[int | None]
    map_sample: ReadOnly[float | None]
    map_class: ReadOnly[float | None]
    balanced: ReadOnly[float | None]


class PromotionRow(TypedDict):
    """A full training."""

    id: ReadOnly[int]
    study_id: ReadOnly[int]
    digest: ReadOnly[str]
    seed: ReadOnly[int]
    recipe_digest: ReadOnly[str]
    recipe: ReadOnly[Any]
    epochs: ReadOnly[int]
    folder: ReadOnly[str]
    state: ReadOnly[str]
    reason: ReadOnly[str | None]
    detail: ReadOnly[str | None]
    started_at: ReadOnly[str]
    ended_at: ReadOnly[str | None]
    broken: ReadOnly[Any]


class EvaluationRow(TypedDict):
    """What a network was measured to be, with what its network costs."""

    id: ReadOnly[int]
    study_id: ReadOnly[int]
    digest: ReadOnly[str]
    seed: ReadOnly[int]
    purpose: ReadOnly[str]
    trial_id: ReadOnly[int | None]
    promotion_id: ReadOnly[int | None]
    rung: ReadOnly[int | None]
    epochs: ReadOnly[int]
    split: ReadOnly[str]
    top1: ReadOnly[float]
    top5: ReadOnly[float]
    loss: ReadOnly[float]
    num_clips: ReadOnly[int]
    map_sample: ReadOnly[float | None]
    map_class: ReadOnly[float | None]
    balanced: ReadOnly[float | None]
    clip1: ReadOnly[float | None]
    low: ReadOnly[float | None]
    high: ReadOnly[float | None]
    views: ReadOnly[str | None]
    shuffled: ReadOnly[float | None]
    description: ReadOnly[str]
    macs: ReadOnly[int]
    params: ReadOnly[int]
    train_macs: ReadOnly[int]
    activation_bytes: ReadOnly[int]
    number: ReadOnly[int | None]
    settings: ReadOnly[Any]
    chosen_by: ReadOnly[str | None]


class ResultRow(EvaluationRow):
    """The evaluation of a trial at a rung."""

    trial_id: ReadOnly[int]
    rung: ReadOnly[int]
    number: ReadOnly[int]


class TestedRow(EvaluationRow):
    """The evaluation of a promotion on a split."""

    promotion_id: ReadOnly[int]


class EventRow(TypedDict):
    """A decision or an outcome."""

    seq: ReadOnly[int]
    study_id: ReadOnly[int]
    kind: ReadOnly[str]
    trial: ReadOnly[int]
    rung: ReadOnly[int]
    at: ReadOnly[str]


class ScoreRow(TypedDict):
    """A score of a network."""

    study_id: ReadOnly[int]
    digest: ReadOnly[str]
    name: ReadOnly[str]
    value: ReadOnly[float]
    basis: ReadOnly[str]


class AblationRow(TypedDict):
    """An ablation."""

    id: ReadOnly[int]
    study_id: ReadOnly[int]
    name: ReadOnly[str]
    kind: ReadOnly[str]
    design: ReadOnly[Any]
    state: ReadOnly[str]
    sentence: ReadOnly[str | None]
    created_at: ReadOnly[str]


class ArmRow(TypedDict):
    """A level of a factor, with what its network costs."""

    id: ReadOnly[int]
    ablation_id: ReadOnly[int]
    position: ReadOnly[int]
    reference: ReadOnly[int | None]
    factor: ReadOnly[str]
    level: ReadOnly[str]
    digest: ReadOnly[str]
    clip: ReadOnly[str]
    changes: ReadOnly[Any]
    levels: ReadOnly[Any]
    description: ReadOnly[str]
    macs: ReadOnly[int]
    params: ReadOnly[int]
    train_macs: ReadOnly[int]


class RunRow(TypedDict):
    """A training of an ablation."""

    id: ReadOnly[int]
    study_id: ReadOnly[int]
    key: ReadOnly[str]
    digest: ReadOnly[str]
    seed: ReadOnly[int]
    epochs: ReadOnly[int]
    folder: ReadOnly[str]
    state: ReadOnly[str]
    reason: ReadOnly[str | None]
    detail: ReadOnly[str | None]
    tries: ReadOnly[int]
    started_at: ReadOnly[str]
    ended_at: ReadOnly[str | None]
    seconds: ReadOnly[float | None]
    top1: ReadOnly[float | None]
    top5: ReadOnly[float | None]
    loss: ReadOnly[float | None]
    num_clips: ReadOnly[int | None]
    correct: ReadOnly[str | None]
    map_sample: ReadOnly[float | None]
    map_class: ReadOnly[float | None]
    balanced: ReadOnly[float | None]
    chosen_by: ReadOnly[str | None]


class EffectRow(TypedDict):
    """What a level earns."""

    id: ReadOnly[int]
    ablation_id: ReadOnly[int]
    arm_id: ReadOnly[int | None]
    factor: ReadOnly[str]
    level: ReadOnly[str]
    reference: ReadOnly[str]
    pairs: ReadOnly[int]
    difference: ReadOnly[float]
    low: ReadOnly[float | None]
    high: ReadOnly[float | None]
    effect_size: ReadOnly[float | None]
    se_seeds: ReadOnly[float | None]
    se_clips: ReadOnly[float | None]
    p: ReadOnly[float | None]
    p_holm: ReadOnly[float | None]
    p_wilcoxon: ReadOnly[float | None]
    p_equivalent: ReadOnly[float | None]
    visible: ReadOnly[float | None]
    macs_ratio: ReadOnly[float | None]
    word: ReadOnly[str]
    confidence: ReadOnly[float | None]


class MotionRow(TypedDict):
    """Accuracy on clips whose order was taken away."""

    id: ReadOnly[int]
    study_id: ReadOnly[int]
    digest: ReadOnly[str]
    source: ReadOnly[str]
    source_id: ReadOnly[int]
    seed: ReadOnly[int]
    epochs: ReadOnly[int]
    split: ReadOnly[str]
    test: ReadOnly[str]
    order_seed: ReadOnly[int]
    top1: ReadOnly[float]
    loss: ReadOnly[float]
    num_clips: ReadOnly[int]
    correct: ReadOnly[str]


class VerdictRow(TypedDict):
    """A document's claim beside what was measured."""

    id: ReadOnly[int]
    study_id: ReadOnly[int]
    ablation_id: ReadOnly[int]
    claim: ReadOnly[str]
    document: ReadOnly[str]
    stated: ReadOnly[float | None]
    difference: ReadOnly[float | None]
    low: ReadOnly[float | None]
    high: ReadOnly[float | None]
    pairs: ReadOnly[int]
    word: ReadOnly[str]


class CurveRow(EpochRow):
    """An epoch of a trial, with the trial's number and digest."""

    number: ReadOnly[int]
    digest: ReadOnly[str]
    chosen_by: ReadOnly[str | None]


class ArmRunRow(RunRow):
    """A training of an ablation, with the position of its arm and its pair."""

    position: ReadOnly[int]
    pair: ReadOnly[int]


class NetworkRow(ArchitectureRow):
    """A network with its cost at a clip; None where it was not counted there."""

    macs: ReadOnly[int | None]
    params: ReadOnly[int | None]
    activation_bytes: ReadOnly[int | None]


class SecondsRow(TypedDict):
    """Seconds of an epoch of a training, and the MACs of a training step of its network."""

    seconds: ReadOnly[float]
    train_macs: ReadOnly[int]


class RunStateRow(TypedDict):
    """Runs of an ablation in one state."""

    id: ReadOnly[int]
    name: ReadOnly[str]
    kind: ReadOnly[str]
    state: ReadOnly[str]
    run_state: ReadOnly[str | None]
    runs: ReadOnly[int]


class MotionTestRow(TypedDict):
    """A row of the view `motion_tests`."""

    study: ReadOnly[str]
    digest: ReadOnly[str]
    description: ReadOnly[str]
    source: ReadOnly[str]
    seed: ReadOnly[int]
    epochs: ReadOnly[int]
    split: ReadOnly[str]
    num_clips: ReadOnly[int]
    forward: ReadOnly[float | None]
    reversed: ReadOnly[float | None]
    shuffled: ReadOnly[float | None]
    frozen: ReadOnly[float | None]
    single: ReadOnly[float | None]


def subset(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Some columns of a row, by name."""
    return {name: row[name] for name in names}
