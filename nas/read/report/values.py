"""What a report shows, as frozen values between the database and the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.read.learned import Learned
from nas.search.levels import MIN_NETWORKS
from nas.study.fidelity import Fidelity, recorded_fidelity
from nas.study.metric import largest_share, recorded_counts
from nas.use.detection import Curves, Detection

Block = Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkCard:
    """A network that the page can show.

    Attributes:
        digest: Full digest.
        description: In one line.
        macs: Of one clip; none where its cost at the study's clip is not recorded.
        params: Parameters.
        activation_bytes: Kept for backward at one clip, float32.
        blocks: Its rows, block by block.
        note: Why there are no blocks, or what they leave out; may be empty.
    """

    digest: str
    description: str
    macs: int | None
    params: int | None
    activation_bytes: int | None
    blocks: tuple[Block, ...]
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One measurement of a search: a network at a rung.

    Attributes:
        digest: Of the network.
        number: Of the trial.
        rung: From 0.
        epochs: Trained.
        accuracy: Share of 1 on the validation clips: top-1, or mAP where videos have several labels.
        interval: The 95 % interval over clips (Wilson's); None for mAP, of which their number does not tell it.
        balanced: Mean over classes of top-1; None where it was not measured.
        num_clips: On which it was measured.
        macs: Of one clip.
        settings: What the search space was asked for.
        front: Whether it is on the front of the highest rung.
        values: The objectives of the search, to be minimised.
        seeds: Trainings whose mean it is.
    """

    digest: str
    number: int
    rung: int
    epochs: int
    accuracy: float
    interval: tuple[float, float] | None
    num_clips: int
    macs: int
    settings: Mapping[str, Any]
    front: bool
    values: tuple[float, ...]
    balanced: float | None = None
    seeds: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """Accuracy of one trial, epoch by epoch.

    Attributes:
        number: Of the trial.
        digest: Of its network.
        kind: `front`, `top` (reached the last rung), `stopped` (early), `running` or `failed`.
        values: Pairs of epoch and accuracy.
    """

    number: int
    digest: str
    kind: str
    values: tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """Who reached one rung: networks, best and median accuracy, and validation clips."""

    rung: int
    epochs: int
    networks: int
    best: float | None
    median: float | None
    num_clips: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Hypervolume of a rung's front against epochs of training in all; 1 is the whole rectangle.

    An epoch at a lower fidelity counts by its share of the work.
    """

    rung: int
    epochs: float
    share: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """The front if one setting had one value only: networks, best accuracy, share of the whole front's hypervolume."""

    level: str
    networks: int
    best: float
    share: float
    front: tuple[tuple[int, float], ...]  # pairs of MACs and accuracy


@dataclass(frozen=True, kw_only=True, slots=True)
class Marginal:
    """The fronts of one setting's values, at one rung."""

    factor: str
    epochs: int
    levels: tuple[Level, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Importance:
    """Which settings decide an objective, by one method at one rung: pairs of name and share, the highest first."""

    method: str
    objective: str
    epochs: int
    networks: int
    factors: tuple[tuple[str, float], ...]
    pairs: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """What a level earns against its reference; differences of top-1 are shares of 1."""

    factor: str
    level: str
    reference: str
    digest: str | None
    pairs: int
    difference: float
    low: float | None
    high: float | None
    p_holm: float | None
    macs_ratio: float | None
    word: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Ablation:
    """One ablation or comparison, its answer in words, and its effects."""

    name: str
    kind: str
    state: str
    sentence: str
    design: Mapping[str, Any]
    margin: float | None
    confidence: float | None  # of the intervals of its effects; None where it is not known
    runs: int
    done: int
    effects: tuple[Effect, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """A document's claim beside what was measured; differences are shares of 1."""

    claim: str
    document: str
    stated: float | None
    difference: float | None
    low: float | None
    high: float | None
    pairs: int
    word: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Motion:
    """A network's accuracy on clips whose order was taken away, by the name of the test."""

    digest: str
    description: str
    source: str
    seed: int
    epochs: int
    split: str
    num_clips: int
    top1: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Accuracy:
    """A test of one training on one split; shares of 1.

    Attributes:
        split: Name of the split.
        accuracy: video@1, or mAP where videos have several labels.
        low: Of its 95 % interval over videos; None where an earlier version did not keep it.
        high: Of it.
        clip1: Share of single views that are right; None as above.
        top1: video@1.
        top5: video@5.
        map_class: mAP over classes, where videos have several labels.
        num_clips: Videos.
        views: How often each video was looked at, such as `10x3@128`; empty as above.
    """

    split: str
    accuracy: float
    low: float | None
    high: float | None
    clip1: float | None
    top1: float
    top5: float
    map_class: float | None
    num_clips: int
    views: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Confusion:
    """Counts of videos: rows are true classes, columns predicted ones."""

    split: str
    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Detected:
    """Classes as questions of yes or no, on the split that a promotion reports.

    Attributes:
        split: Its name.
        rows: One per class that some videos have and others have not.
        curves: Of the same classes.
        calibration: Expected calibration error; None where a probability is not finite.
    """

    split: str
    rows: tuple[Detection, ...]
    curves: tuple[Curves, ...]
    calibration: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Promotion:
    """Full training of one network with one seed."""

    digest: str
    description: str
    seed: int
    recipe: str  # its digest
    epochs: int
    state: str
    folder: str
    accuracies: tuple[Accuracy, ...]
    confusion: Confusion | None
    missing: str  # why there is no confusion matrix
    broken: str  # clips that training could not read, in words; may be empty
    detection: Detected | None = None  # where classes are questions of yes or no


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """One start of the driver; `state` is `under way` or `killed`, and empty where it ended."""

    started: str
    ended: str | None
    state: str
    workers: int
    wall_seconds: float
    busy_seconds: float | None
    decide_seconds: float | None  # in decisions of a search; None where that was not kept
    environment: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Something that did not end well: a trial, a promotion or a run of an ablation."""

    what: str
    digest: str
    reason: str
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """All of the page.

    Attributes:
        study: Row of the study.
        database: As the commands of the page name it.
        made: Time of the report, ISO.
        metric: What accuracies are called: `top-1`, or `mAP` where videos have several labels.
        networks: By digest, in the order of first mention.
        points: Of every rung, in the order in which they were measured.
        no_front: Why there is none; empty where there is.
        failures: With what was pre-empted left out; `preempted` counts that.
        learned: Ranks, hypervolume, proposals, and what a model expected.
        begun: Epochs that were trained beyond the points.
        verdicts_confidence: Of the intervals of verdicts; None where that is not known.
        recipes: Of promotions, by digest with what sets each apart; empty where each network had one.
    """

    study: Mapping[str, Any]
    database: str
    made: str
    metric: str
    networks: Mapping[str, NetworkCard]
    states: Mapping[str, int]
    trials: int
    points: tuple[Point, ...]
    curves: tuple[Curve, ...]
    rungs: tuple[Rung, ...]
    steps: tuple[Step, ...]
    no_front: str
    marginals: tuple[Marginal, ...]
    importances: tuple[Importance, ...]
    ablations: tuple[Ablation, ...]
    verdicts: tuple[Verdict, ...]
    motions: tuple[Motion, ...]
    promotions: tuple[Promotion, ...]
    recipes: Mapping[str, str]
    sessions: tuple[Session, ...]
    failures: tuple[Failure, ...]
    preempted: int
    run_seconds: float
    learned: Learned
    begun: int = 0
    verdicts_confidence: float | None = None

    @property
    def largest_class(self) -> float | None:
        """The share of val that always naming the most frequent class gets right; None where it is not recorded."""
        return largest_share(*recorded_counts(self.study["data"]))

    @property
    def too_few(self) -> int | None:
        """The most networks that one rung has, where results are too few for importances; None where they are not."""
        most = max(Counter(point.rung for point in self.points if point.settings).values(), default=0)
        return most if 0 < most < MIN_NETWORKS else None

    @property
    def fidelity(self) -> Fidelity:
        """The rungs of the search."""
        return recorded_fidelity(self.study)

    @property
    def front(self) -> tuple[Point, ...]:
        """The front of the highest rung, from the cheapest network on."""
        return tuple(sorted((p for p in self.points if p.front), key=lambda p: (p.macs, p.digest)))
