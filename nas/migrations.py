"""The schema, version by version: plain steps, each applied and recorded in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    inspect,
    select,
    text,
)

from nas.errors import StoreError

metadata = MetaData()

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
    Column("origin", String(40), nullable=False),  # initial design, or the sampler that proposed it
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
    Column("state", String(20), nullable=False),  # running, done, failed
    Column("reason", String(40)),
    Column("detail", Text),
    Column("started_at", String(40), nullable=False),
    Column("ended_at", String(40)),
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
    UniqueConstraint("trial_id", "epochs", "split"),
    UniqueConstraint("promotion_id", "epochs", "split"),
)
event = Table(  # every decision and outcome in order, so that a search can be replayed
    "nas_event",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("study_id", ForeignKey("nas_study.id"), nullable=False),
    Column("kind", String(20), nullable=False),  # start, promote, result, fail, preempt
    Column("trial", Integer, nullable=False),
    Column("rung", Integer, nullable=False),
    Column("at", String(40), nullable=False),
)

# The front at the highest fidelity that the search has reached: error against MACs, one row a network.
_PARETO_FRONT = """
CREATE VIEW pareto_front AS
WITH point AS (
    SELECT s.name AS study, e.digest, a.description, e.top1 AS accuracy, e.num_clips, c.macs, c.params, e.epochs
    FROM nas_evaluation e
    JOIN nas_study s ON s.id = e.study_id
    JOIN nas_architecture a ON a.digest = e.digest
    JOIN nas_cost c ON c.digest = e.digest AND c.clip = s.clip AND c.num_classes = s.num_classes
    WHERE e.purpose = 'search' AND e.split = 'val' AND e.rung = (
        SELECT MAX(top.rung) FROM nas_evaluation top
        WHERE top.study_id = e.study_id AND top.purpose = 'search' AND top.split = 'val')
)
SELECT p.study, p.digest, p.description, p.accuracy, p.num_clips, p.macs, p.params, p.epochs
FROM point p
WHERE NOT EXISTS (
    SELECT 1 FROM point q
    WHERE q.study = p.study AND q.accuracy >= p.accuracy AND q.macs <= p.macs
      AND (q.accuracy > p.accuracy OR q.macs < p.macs))
ORDER BY p.study, p.macs, p.digest
"""


def _first_schema(connection: Connection) -> None:
    metadata.create_all(connection)
    connection.execute(text(_PARETO_FRONT))


STEPS: tuple[tuple[str, Callable[[Connection], None]], ...] = (("first schema", _first_schema),)
LATEST = len(STEPS)


def version_of(connection: Connection) -> int:
    """The schema version of a database; 0 for an empty one.

    Raises:
        StoreError: The database holds tables but none of ours, or was written by a newer version.
    """
    tables = set(inspect(connection).get_table_names())
    if "nas_migrations" not in tables:
        if tables:
            raise StoreError(
                f"the database must be empty or written by nas, but {connection.engine.url.database} holds other "
                f"tables ({', '.join(sorted(tables)[:3])}, …); name another file with --db"
            )
        return 0
    version = connection.execute(select(migrations.c.version).order_by(migrations.c.version.desc())).scalar()
    if version is not None and version > LATEST:
        raise StoreError(
            f"the database {connection.engine.url.database} has schema version {version}, and this nas knows versions "
            f"up to {LATEST}; upgrade video-nas, or name another file with --db"
        )
    return int(version or 0)


def migrate(connection: Connection) -> None:
    """Brings the schema to the latest version within one transaction; a step that fails leaves all as it was."""
    version = version_of(connection)
    for number, (name, step) in enumerate(STEPS[version:], start=version + 1):
        step(connection)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        connection.execute(migrations.insert().values(version=number, name=name, applied_at=now))
