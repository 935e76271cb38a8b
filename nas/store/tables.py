"""The tables of the record, in the order in which the schema's versions brought them."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()


def _several() -> tuple[Column[float], Column[float]]:
    """Means of average precision over videos and over classes, shares of 1; none where a video has one label."""
    return Column("map_sample", Float), Column("map_class", Float)


def _balanced() -> Column[float]:
    """Mean over classes of top-1, a share of 1; none where it was not measured."""
    return Column("balanced", Float)


migrations = Table(
    "nas_migrations",
    metadata,
    Column("version", Integer, primary_key=True),
    Column("name", String(100), nullable=False),
    Column("applied_at", String(40), nullable=False),
)
study = Table(
    "nas_study",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("seed", Integer, nullable=False),
    Column("clip", String(40), nullable=False),
    Column("num_classes", Integer, nullable=False),
    Column("config", JSON, nullable=False),  # the study as it was run: file, variant and overrides merged
    Column("data", JSON, nullable=False),  # classes, clips, checksum, broken videos
    Column("created_at", String(40), nullable=False),
    Column("accuracy", String(20)),  # what networks are chosen by; none: map_sample where there is one, else top1
)
session = Table(  # one start of the driver
    "nas_session",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("nas_study.id"), nullable=False),
    Column("started_at", String(40), nullable=False),
    Column("ended_at", String(40)),
    Column("workers", Integer, nullable=False),
    Column("environment", JSON, nullable=False),
    Column("wall_seconds", Float),
    Column("busy_seconds", Float),  # seconds in which at least one job was under way
    Column("seen_at", String(40)),  # when the driver last said that it lives
    Column("decide_seconds", Float),  # seconds in which a search decided what is trained next
)
architecture = Table(
    "nas_architecture",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("description", Text, nullable=False),
    Column("spec", JSON, nullable=False),
)
cost = Table(
    "nas_cost",
    metadata,
    Column("digest", ForeignKey("nas_architecture.digest"), primary_key=True),
    Column("clip", String(40), primary_key=True),
    Column("num_classes", Integer, primary_key=True),
    Column("params", BigInteger, nullable=False),
    Column("macs", BigInteger, nullable=False),
    Column("train_macs", BigInteger, nullable=False),
    Column("activation_bytes", BigInteger, nullable=False),
)
trial = Table(
    "nas_trial",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("nas_study.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("digest", ForeignKey("nas_architecture.digest"), nullable=False),
    Column("seed", Integer, nullable=False),
    Column("stratum", Integer, nullable=False),
    Column("params", JSON, nullable=False),  # the settings that gave the network, as Optuna sees them
    Column("origin", String(40), nullable=False),  # named, initial, repeat, random, or the sampler
    Column("state", String(20), nullable=False),  # running, preempted, paused, stopped, finished, failed
    Column("reason", String(40)),
    Column("detail", Text),
    UniqueConstraint("study_id", "number"),
    UniqueConstraint("study_id", "digest", "seed"),
)
job = Table(
    "nas_job",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("trial_id", ForeignKey("nas_trial.id"), nullable=False),
    Column("rung", Integer, nullable=False),
    Column("epochs", Integer, nullable=False),
    Column("state", String(20), nullable=False),  # running, done, failed, preempted
    Column("reason", String(40)),
    Column("detail", Text),
    Column("started_at", String(40), nullable=False),
    Column("ended_at", String(40)),
    Column("seconds", Float),
    Column("expected_error", Float),  # what a model expected at the last rung when the job was begun
    Column("expected_spread", Float),  # standard deviation of the logarithm of that error
    Column("expected_gain", Float),  # of the hypervolume, as a share of what it was
)
epoch = Table(
    "nas_epoch",
    metadata,
    Column("trial_id", ForeignKey("nas_trial.id"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("train_loss", Float, nullable=False),
    Column("lr", Float, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("top1", Float),
    Column("top5", Float),
    Column("loss", Float),
    Column("num_clips", Integer),
    *_several(),
    _balanced(),
)
promotion = Table(  # full training of one network under a recipe of its own
    "nas_promotion",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("nas_study.id"), nullable=False),
    Column("digest", ForeignKey("nas_architecture.digest"), nullable=False),
    Column("seed", Integer, nullable=False),
    Column("recipe_digest", String(64), nullable=False),
    Column("recipe", JSON, nullable=False),
    Column("epochs", Integer, nullable=False),
    Column("folder", Text, nullable=False),
    Column("state", String(20), nullable=False),  # running, preempted, done, failed
    Column("reason", String(40)),
    Column("detail", Text),
    Column("started_at", String(40), nullable=False),
    Column("ended_at", String(40)),
    Column("broken", JSON),  # clips that training could not read: their number, and the reason by video
    UniqueConstraint("study_id", "digest", "seed", "recipe_digest", "epochs"),
)
evaluation = Table(
    "nas_evaluation",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("nas_study.id"), nullable=False),
    Column("digest", ForeignKey("nas_architecture.digest"), nullable=False),
    Column("seed", Integer, nullable=False),
    Column("purpose", String(20), nullable=False),  # search, promotion
    Column("trial_id", ForeignKey("nas_trial.id")),
    Column("promotion_id", ForeignKey("nas_promotion.id")),
    Column("rung", Integer),
    Column("epochs", Integer, nullable=False),
    Column("split", String(20), nullable=False),
    Column("top1", Float, nullable=False),  # shares of 1
    Column("top5", Float, nullable=False),
    Column("loss", Float, nullable=False),
    Column("num_clips", Integer, nullable=False),
    *_several(),
    _balanced(),
    Column("clip1", Float),  # share of single views that are right
    Column("low", Float),  # 95 % bootstrap interval over videos, of map_sample where there is one, else of top1
    Column("high", Float),
    Column("views", String(100)),  # how often each video was looked at, such as 10x3@128,160
    Column("shuffled", Float),  # top1 on clips whose frames were shuffled; where the search is about the motion gap
    UniqueConstraint("trial_id", "epochs", "split"),
    UniqueConstraint("promotion_id", "epochs", "split"),
)
event = Table(  # every decision and outcome in order, so that a search can be replayed
    "nas_event",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("study_id", ForeignKey("nas_study.id"), nullable=False),
    Column("kind", String(20), nullable=False),  # start, promote, resume, result, fail, preempt
    Column("trial", Integer, nullable=False),
    Column("rung", Integer, nullable=False),
    Column("at", String(40), nullable=False),
)

FIRST = (migrations, study, session, architecture, cost, trial, job, epoch, promotion, evaluation, event)

ablation = Table(  # one question about decisions: which arms are compared, and how
    "nas_ablation",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("nas_study.id"), nullable=False),
    Column("name", String(100), nullable=False),
    Column("kind", String(20), nullable=False),  # ablate, versus
    Column("design", JSON, nullable=False),  # factors, seeds, epochs, margin, confidence, looks
    Column("state", String(20), nullable=False),  # running, decided, precise, done
    Column("sentence", Text),  # the answer in words
    Column("created_at", String(40), nullable=False),
    UniqueConstraint("study_id", "name"),
)
arm = Table(  # one level of one factor: a network, a recipe and data
    "nas_arm",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("ablation_id", ForeignKey("nas_ablation.id"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("reference", Integer),  # position of the arm that it is compared with; none for the base
    Column("factor", String(200), nullable=False),
    Column("level", String(200), nullable=False),
    Column("digest", ForeignKey("nas_architecture.digest"), nullable=False),
    Column("clip", String(40), nullable=False),
    Column("changes", JSON, nullable=False),  # what differs from the base, by path
    Column("levels", JSON, nullable=False),  # of every factor, for factorial designs
    UniqueConstraint("ablation_id", "position"),
)
run = Table(  # one training with one seed; several ablations may use it
    "nas_run",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("nas_study.id"), nullable=False),
    Column("key", String(64), nullable=False),  # names network, recipe, data, seed and initial values
    Column("digest", ForeignKey("nas_architecture.digest"), nullable=False),
    Column("seed", Integer, nullable=False),
    Column("epochs", Integer, nullable=False),
    Column("folder", Text, nullable=False),
    Column("state", String(20), nullable=False),  # running, preempted, done, failed
    Column("reason", String(40)),
    Column("detail", Text),
    Column("tries", Integer, nullable=False),
    Column("started_at", String(40), nullable=False),
    Column("ended_at", String(40)),
    Column("seconds", Float),  # of training, all jobs together
    Column("top1", Float),
    Column("top5", Float),
    Column("loss", Float),
    Column("num_clips", Integer),
    Column("correct", Text),  # a 0 or 1 for each video of val in its order, - for one that was left out
    *_several(),
    _balanced(),
    UniqueConstraint("study_id", "key", "epochs"),
)
arm_run = Table(
    "nas_arm_run",
    metadata,
    Column("arm_id", ForeignKey("nas_arm.id"), primary_key=True),
    Column("run_id", ForeignKey("nas_run.id"), primary_key=True),
    Column("pair", Integer, nullable=False),  # runs of equal pair have equal seeds, a control's aside
)
effect = Table(  # what a level earns against its reference: differences of top-1, in shares of 1
    "nas_effect",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("ablation_id", ForeignKey("nas_ablation.id"), nullable=False),
    Column("arm_id", ForeignKey("nas_arm.id")),  # none for an interaction
    Column("factor", String(200), nullable=False),
    Column("level", String(200), nullable=False),
    Column("reference", String(200), nullable=False),
    Column("pairs", Integer, nullable=False),
    Column("difference", Float, nullable=False),
    Column("low", Float),  # of the interval that the word rests on
    Column("high", Float),
    Column("effect_size", Float),  # Hedges' g of the paired differences
    Column("se_seeds", Float),
    Column("se_clips", Float),
    Column("p", Float),
    Column("p_holm", Float),
    Column("p_wilcoxon", Float),
    Column("p_equivalent", Float),
    Column("visible", Float),  # difference that these pairs would show with probability 0.8
    Column("macs_ratio", Float),
    Column("word", String(20), nullable=False),  # better, worse, equivalent, undecided
    Column("confidence", Float),  # of low and high; with several looks it is that of the look
)
motion = Table(  # accuracy on clips whose order was taken away
    "nas_motion",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("nas_study.id"), nullable=False),
    Column("digest", ForeignKey("nas_architecture.digest"), nullable=False),
    Column("source", String(20), nullable=False),  # promotion, run, trial
    Column("source_id", Integer, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("epochs", Integer, nullable=False),
    Column("split", String(20), nullable=False),
    Column("test", String(20), nullable=False),  # forward, reversed, shuffled, frozen, single
    Column("order_seed", Integer, nullable=False),  # of the shuffles
    Column("top1", Float, nullable=False),
    Column("loss", Float, nullable=False),
    Column("num_clips", Integer, nullable=False),
    Column("correct", Text, nullable=False),  # a 0 or 1 for each video of the split in its order, as in nas_run
    UniqueConstraint("source", "source_id", "epochs", "split", "test"),
)
importance = Table(
    "nas_importance",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("nas_study.id"), nullable=False),
    Column("rung", Integer, nullable=False),
    Column("epochs", Integer, nullable=False),
    Column("method", String(20), nullable=False),  # pedanova, fanova
    Column("objective", String(40), nullable=False),
    Column("factor", String(200), nullable=False),
    Column("other", String(200), nullable=False),  # the second factor of a pair, else empty
    Column("importance", Float, nullable=False),
    Column("networks", Integer, nullable=False),
    UniqueConstraint("study_id", "rung", "method", "objective", "factor", "other"),
)
verdict = Table(  # a document's claim beside what was measured
    "nas_verdict",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("nas_study.id"), nullable=False),
    Column("ablation_id", ForeignKey("nas_ablation.id"), nullable=False),
    Column("claim", Text, nullable=False),
    Column("document", Text, nullable=False),
    Column("stated", Float),  # the document's difference, in shares of 1
    Column("difference", Float),
    Column("low", Float),
    Column("high", Float),
    Column("pairs", Integer, nullable=False),
    Column("word", String(20), nullable=False),  # reproduced, contradicted, undecided
    UniqueConstraint("study_id", "claim"),
)

SECOND = (ablation, arm, run, arm_run, effect, motion, importance, verdict)

score = Table(  # what is computed of networks to tell how good they are, before they are trained
    "nas_score",
    metadata,
    Column("study_id", ForeignKey("nas_study.id"), primary_key=True),
    Column("digest", String(64), primary_key=True),  # most are never trained, so they are no rows of nas_architecture
    Column("name", String(40), primary_key=True),
    Column("value", Float, nullable=False),
    Column("basis", Text, nullable=False),  # what it was made from; of another basis, it is another score
)
SCORES = (score,)

# Columns that came later than their table.
THIRD = (
    *((table, name) for table in (epoch, evaluation, run) for name in ("map_sample", "map_class")),
    *((evaluation, name) for name in ("clip1", "low", "high", "views")),
    (promotion, "broken"),
)
FOURTH = (
    *((table, "balanced") for table in (epoch, evaluation, run)),
    (study, "accuracy"),
    (effect, "confidence"),
    (session, "seen_at"),
)
FIFTH = (
    *((job, name) for name in ("expected_error", "expected_spread", "expected_gain")),
    (session, "decide_seconds"),
    (evaluation, "shuffled"),
)

# The views as they are read: their statements stand in `nas/store/migrations.py`.
views = MetaData()
pareto_front = Table(
    "pareto_front",
    views,
    *(Column(name, String) for name in ("study", "digest", "description")),
    Column("accuracy", Float),
    *(Column(name, Integer) for name in ("num_clips", "macs", "params", "epochs", "seeds")),
)
ablation_effects = Table(
    "ablation_effects",
    views,
    *(Column(name, String) for name in ("study", "ablation", "factor", "level", "reference")),
    Column("pairs", Integer),
    *(Column(name, Float) for name in ("difference", "low", "high", "effect_size", "se_seeds", "se_clips")),
    *(Column(name, Float) for name in ("p", "p_holm", "p_wilcoxon", "p_equivalent", "visible", "macs_ratio")),
    Column("word", String),
    Column("confidence", Float),
)
importance_view = Table(
    "importance",
    views,
    Column("study", String),
    *(Column(name, Integer) for name in ("rung", "epochs")),
    *(Column(name, String) for name in ("method", "objective", "factor", "other")),
    Column("importance", Float),
    Column("networks", Integer),
)
motion_tests = Table(
    "motion_tests",
    views,
    *(Column(name, String) for name in ("study", "digest", "description", "source")),
    *(Column(name, Integer) for name in ("seed", "epochs")),
    Column("split", String),
    Column("num_clips", Integer),
    *(Column(name, Float) for name in ("forward", "reversed", "shuffled", "frozen", "single")),
)
