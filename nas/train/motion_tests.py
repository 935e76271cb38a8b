"""Motion tests as measured properties of a network: what is measured, what it differs by, and what is stored."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import TYPE_CHECKING

from nas.errors import NasError, NotFoundError, unknown
from nas.store import tables as m
from nas.store import write as s
from nas.store.database import Store
from nas.store.records import StudyRow, subset
from nas.study.study import Study
from nas.train.jobs import SOURCES
from trainer.outcomes import TESTS, MotionOutcome

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from nas.train.source import Trained

SPLITS = ("val", "test")
MARGIN = 0.02  # a difference of top-1 that nobody would act on


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """What a motion test costs: top-1 on the clips as they are minus top-1 in the test, paired by clip.

    Attributes:
        test: The test.
        difference: In shares of 1; above 0 where the test is worse.
        low: Of the interval over clips.
        high: Of the interval over clips.
        lost: Clips that are right as they are and wrong in the test.
        won: Clips that are wrong as they are and right in the test.
        num_clips: Clips that both were evaluated on.
        word: What the test is: `worse` or `better` where the interval is without 0, `equivalent` where it lies within
            the margin, else `undecided`.
    """

    test: str
    difference: float
    low: float
    high: float
    lost: int
    won: int
    num_clips: int
    word: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MotionTests:
    """The motion tests of one training of a network.

    Attributes:
        training: Whose weights; its epochs are those of the checkpoint.
        description: The network in one line.
        split: That was evaluated.
        order_seed: Of the shuffles.
        outcomes: One a test, in the order of `TESTS`.
        fresh: False where they were found in the database.
    """

    training: Trained
    description: str
    split: str
    order_seed: int
    outcomes: tuple[MotionOutcome, ...]
    fresh: bool


def measure_motion(
    store: Store,
    study: Study,
    row: StudyRow,
    digest: str,
    *,
    root: Path,
    split: str = "val",
    seed: int = 0,
    sources: Sequence[str] = SOURCES,
    listener: Callable[[str], None] = lambda text: None,
) -> list[MotionTests]:
    """The motion tests of what is trained of a network: those that are stored, or new ones, which are not stored here.

    Args:
        store: The database; it is only read.
        study: The study as recorded, with the present place of its data.
        row: Its row.
        digest: The network's, or the beginning of it.
        root: Folder of the study.
        split: `val`, or `test`, which should be looked at once.
        seed: Of the shuffles.
        sources: Where trained weights are looked for: the first of them that has any counts.
        listener: Hears what was measured.

    Returns:
        One a training; several seeds of a promotion are several trainings.

    Raises:
        NotFoundError: The digest, the split or the source is not known; nothing is trained; or weights or videos are
            not where they were.
        StoreError: The videos are not those that the network was trained on.
        ConfigError: A clip has fewer than two frames, or the checkpoint is damaged.
    """
    from nas.train.source import find_trained, load_trained
    from trainer.device import usual_device
    from trainer.order_tests import motion_tests, outcomes

    if split not in SPLITS:
        raise NotFoundError(unknown("split", split, SPLITS))
    found = store.find(digest)
    done = []
    for training in find_trained(store, study, row, found["digest"], root=root, sources=sources):
        known = _stored(store, training, split, seed)
        fresh = not known
        if fresh:
            device = usual_device()
            at = load_trained(training, study, row, found["spec"], device)
            training = dataclasses.replace(training, epochs=at.epochs)
            results = motion_tests(at.model, at.data, at.data_config, at.recipe, split, device, seed=seed)
            known = outcomes(results)
            listener(
                f"measured {training.digest[:10]} ({training.source}, seed {training.seed}, {training.epochs} epochs) "
                f"on {split}"
            )
        done.append(
            MotionTests(
                training=training,
                description=found["description"],
                split=split,
                order_seed=seed,
                outcomes=known,
                fresh=fresh,
            )
        )
    return done


def store_motion(store: Store, row: StudyRow, measured: Sequence[MotionTests]) -> None:
    """Stores what is fresh of motion tests; the caller holds the lock of the database.

    Raises:
        StoreError: The database cannot be written.
    """
    with store.write() as connection:
        for one in measured:
            if one.fresh:
                training = one.training
                put_motion(
                    connection,
                    study_id=row["id"],
                    digest=training.digest,
                    source=training.source,
                    source_id=training.source_id,
                    seed=training.seed,
                    epochs=training.epochs,
                    split=one.split,
                    order_seed=one.order_seed,
                    tests=one.outcomes,
                )


def put_motion(
    connection: Connection,
    *,
    study_id: int,
    digest: str,
    source: str,
    source_id: int,
    seed: int,
    epochs: int,
    split: str,
    order_seed: int,
    tests: Sequence[MotionOutcome],
) -> None:
    """Stores the motion tests of one training on one split, in the place of earlier ones.

    Args:
        connection: Of a transaction.
        study_id: The study's row.
        digest: The network.
        source: `promotion`, `run` or `trial`.
        source_id: The row of it.
        seed: Of the training.
        epochs: Trained.
        split: Evaluated.
        order_seed: Of the shuffles.
        tests: What came of them.
    """
    key = {"source": source, "source_id": source_id, "epochs": epochs, "split": split}
    table = m.motion
    connection.execute(table.delete().where(*(table.c[name] == value for name, value in key.items())))
    for outcome in tests:
        values = {"study_id": study_id, "digest": digest, "seed": seed, "order_seed": order_seed}
        s.insert(connection, table, **key, **values, **asdict(outcome))


def differences(
    tests: Sequence[MotionOutcome], *, confidence: float = 0.95, margin: float = MARGIN
) -> tuple[Difference, ...]:
    """What each test costs, clip by clip: `forward` minus the test.

    The interval is that of Agresti and Min, "Simple improved confidence intervals for comparing matched proportions"
    (Statistics in Medicine 24, 2005): Wald's for paired proportions, the root of whose variance is the standard error
    behind McNemar's test, after half a pair was added to each of the four kinds of pairs. It is of clips alone: what
    another seed of the training would give is not in it.

    Args:
        tests: Outcomes on the same split, `forward` among them.
        confidence: Of each interval by itself.
        margin: Largest difference that counts as none.

    Raises:
        NasError: `forward` is not among the tests.
    """
    base = next((outcome for outcome in tests if outcome.test == "forward"), None)
    if base is None:
        raise NasError(f"a motion test is compared with forward, but only {[t.test for t in tests]} are there")
    return tuple(_difference(base, outcome, confidence, margin) for outcome in tests if outcome.test != base.test)


def _difference(base: MotionOutcome, other: MotionOutcome, confidence: float, margin: float) -> Difference:
    pairs = [(a, b) for a, b in zip(base.correct, other.correct, strict=True) if "-" not in (a, b)]
    lost, won, total = pairs.count(("1", "0")), pairs.count(("0", "1")), len(pairs)
    low, high = paired_interval(lost=lost, won=won, num_clips=total, confidence=confidence)
    if low > 0 or high < 0:
        word = "worse" if low > 0 else "better"
    else:
        word = "equivalent" if -margin <= low and high <= margin else "undecided"
    return Difference(
        test=other.test,
        difference=(lost - won) / total,
        low=low,
        high=high,
        lost=lost,
        won=won,
        num_clips=total,
        word=word,
    )


def paired_interval(*, lost: int, won: int, num_clips: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of Agresti and Min for a difference of two shares of the same clips.

    Args:
        lost: Clips that only the first was right on.
        won: Clips that only the second was right on.
        num_clips: Clips, at least 1.
        confidence: In 0..1.

    Returns:
        Bounds of first share minus second, in -1..1.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    b, c, n = lost + 0.5, won + 0.5, num_clips + 2
    centre = (b - c) / n
    half = z * math.sqrt(b + c - (b - c) ** 2 / n) / n
    return max(-1.0, centre - half), min(1.0, centre + half)


def _stored(store: Store, training: Trained, split: str, seed: int) -> tuple[MotionOutcome, ...]:
    """What is stored, if it is complete and of this seed of the shuffles."""
    rows = store.motion_outcomes(training.source, training.source_id, epochs=training.epochs, split=split)
    kept = {old["test"]: old for old in rows if old["order_seed"] == seed}
    if set(kept) != set(TESTS):
        return ()
    names = ("test", "top1", "loss", "num_clips", "correct")
    return tuple(MotionOutcome(**subset(kept[test], names)) for test in TESTS)
