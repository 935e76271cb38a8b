"""The schema, version by version: plain steps, each applied and recorded in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from sqlalchemy import Connection, Table, inspect, select, text

from nas.errors import StoreError
from nas.store import tables as m
from search_spaces.errors import SpecError

# The front at the highest fidelity that the search has reached: accuracy against MACs, one row per network.
_PARETO_FRONT = """
CREATE VIEW pareto_front AS
WITH point AS (
    SELECT s.name AS study, e.digest, a.description, {accuracy} AS accuracy, {clips}, c.macs, c.params, e.epochs{count}
    FROM nas_evaluation e
    JOIN nas_study s ON s.id = e.study_id
    JOIN nas_architecture a ON a.digest = e.digest
    JOIN nas_cost c ON c.digest = e.digest AND c.clip = s.clip AND c.num_classes = s.num_classes
    WHERE e.purpose = 'search' AND e.split = 'val' AND e.rung = (
        SELECT MAX(top.rung) FROM nas_evaluation top
        WHERE top.study_id = e.study_id AND top.purpose = 'search' AND top.split = 'val'){group}
)
SELECT p.study, p.digest, p.description, p.accuracy, p.num_clips, p.macs, p.params, p.epochs{seeds}
FROM point p
WHERE {measured}NOT EXISTS (
    SELECT 1 FROM point q
    WHERE q.study = p.study AND q.accuracy >= p.accuracy AND q.macs <= p.macs
      AND (q.accuracy > p.accuracy OR q.macs < p.macs))
ORDER BY p.study, p.macs, p.digest
"""
# As `nas.study.metric.accuracy_of`, since version 4; `e` is a row of nas_evaluation, `s` its study.
CHOSEN = (
    "CASE s.accuracy WHEN 'balanced' THEN e.balanced WHEN 'map' THEN e.map_sample WHEN 'top1' THEN e.top1 "
    "WHEN 'top5' THEN e.top5 "
    "ELSE COALESCE(e.map_sample, e.top1) END"
)
_ONE_SEED = {"clips": "e.num_clips", "count": "", "group": "", "seeds": ""}
# Up to version 3, then versions 4 and 5, then with the mean of a network's seeds.
_OLD_FRONT = _PARETO_FRONT.format(accuracy="COALESCE(e.map_sample, e.top1)", measured="", **_ONE_SEED)
_FRONT = _PARETO_FRONT.format(accuracy=CHOSEN, measured="p.accuracy IS NOT NULL AND ", **_ONE_SEED)
_FRONT_OF_MEANS = _PARETO_FRONT.format(
    accuracy=f"AVG({CHOSEN})",
    measured="p.accuracy IS NOT NULL AND ",
    clips="MIN(e.num_clips) AS num_clips",
    count=", COUNT(*) AS seeds",
    group="\n    GROUP BY e.study_id, e.digest",
    seeds=", p.seeds",
)


def _first_schema(connection: Connection) -> None:
    m.metadata.create_all(connection, tables=m.FIRST)
    connection.execute(text(_OLD_FRONT))


# What `nas ablate` and `nas versus` show.
_ABLATION_EFFECTS = """
CREATE VIEW ablation_effects AS
SELECT s.name AS study, b.name AS ablation, e.factor, e.level, e.reference, e.pairs, e.difference, e.low, e.high,
       e.effect_size, e.se_seeds, e.se_clips, e.p, e.p_holm, e.p_wilcoxon, e.p_equivalent, e.visible,
       e.macs_ratio, e.word{more}
FROM nas_effect e
JOIN nas_ablation b ON b.id = e.ablation_id
JOIN nas_study s ON s.id = b.study_id
ORDER BY s.name, b.id, e.id
"""

_OLD_EFFECTS = _ABLATION_EFFECTS.format(more="")  # up to version 3
_EFFECTS = _ABLATION_EFFECTS.format(more=", e.confidence")

# What `nas importance` shows.
_IMPORTANCE = """
CREATE VIEW importance AS
SELECT s.name AS study, i.rung, i.epochs, i.method, i.objective, i.factor, i.other, i.importance, i.networks
FROM nas_importance i
JOIN nas_study s ON s.id = i.study_id
ORDER BY s.name, i.rung, i.method, i.objective, i.importance DESC, i.factor, i.other
"""

# A network's motion tests, one row per network and seed.
_MOTION_TESTS = """
CREATE VIEW motion_tests AS
SELECT s.name AS study, t.digest, a.description, t.source, t.seed, t.epochs, t.split, t.num_clips,
       MAX(CASE WHEN t.test = 'forward' THEN t.top1 END) AS forward,
       MAX(CASE WHEN t.test = 'reversed' THEN t.top1 END) AS reversed,
       MAX(CASE WHEN t.test = 'shuffled' THEN t.top1 END) AS shuffled,
       MAX(CASE WHEN t.test = 'frozen' THEN t.top1 END) AS frozen,
       MAX(CASE WHEN t.test = 'single' THEN t.top1 END) AS single
FROM nas_motion t
JOIN nas_study s ON s.id = t.study_id
JOIN nas_architecture a ON a.digest = t.digest
GROUP BY s.name, t.digest, a.description, t.source, t.source_id, t.seed, t.epochs, t.split, t.num_clips
"""


def _ablations(connection: Connection) -> None:
    m.metadata.create_all(connection, tables=m.SECOND)
    for view in (_OLD_EFFECTS, _IMPORTANCE, _MOTION_TESTS):
        connection.execute(text(view))


def _several_labels(connection: Connection) -> None:
    _add_columns(connection, m.THIRD)
    _replace_front(connection, _OLD_FRONT)


def _balanced_accuracy(connection: Connection) -> None:
    _add_columns(connection, m.FOURTH)
    _replace_front(connection, _FRONT)
    connection.execute(text("DROP VIEW ablation_effects"))
    connection.execute(text(_EFFECTS))
    _describe_again(connection)


def _describe_again(connection: Connection) -> None:
    """Networks in today's words: some names of parts meant others when these were stored."""
    from search_spaces import codec  # every family, of which a database of today needs none

    table = m.architecture
    for row in connection.execute(select(table)).mappings().all():
        try:
            words = codec.decode(row["spec"]).describe()
        except SpecError:
            continue  # of a family that is not there any more
        if words != row["description"]:
            connection.execute(table.update().where(table.c.digest == row["digest"]).values(description=words))


def _add_columns(connection: Connection, columns: Iterable[tuple[Table, str]]) -> None:
    """Columns that tables of earlier versions lack; tables that step 1 or 2 has made just now have them."""
    columns = tuple(columns)
    for table in dict.fromkeys(table for table, _ in columns):
        there = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for name in (name for own, name in columns if own is table and name not in there):
            kind = table.c[name].type.compile(connection.dialect)
            connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {name} {kind}"))


def _replace_front(connection: Connection, view: str) -> None:
    connection.execute(text("DROP VIEW pareto_front"))
    connection.execute(text(view))


def _expectations(connection: Connection) -> None:
    _add_columns(connection, m.FIFTH)
    m.metadata.create_all(connection, tables=m.SCORES)
    _replace_front(connection, _FRONT)


def _seeds(connection: Connection) -> None:
    _replace_front(connection, _FRONT_OF_MEANS)


VIEWS = {
    "pareto_front": _FRONT_OF_MEANS,
    "ablation_effects": _EFFECTS,
    "importance": _IMPORTANCE,
    "motion_tests": _MOTION_TESTS,
}
"""The statements that made the views of the latest version."""

STEPS: tuple[tuple[str, Callable[[Connection], None]], ...] = (
    ("first schema", _first_schema),
    ("ablations, motion tests, importances, verdicts", _ablations),
    ("several labels per video, views and intervals of tests", _several_labels),
    ("balanced accuracy, what networks are chosen by, heartbeat of the driver", _balanced_accuracy),
    ("what a model expected of a training, scores of networks", _expectations),
    ("the front by means over seeds", _seeds),
)
LATEST = len(STEPS)


def version_of(connection: Connection, location: str) -> int:
    """The schema version of the database at `location`; 0 for an empty one.

    Raises:
        StoreError: The database holds tables but none of ours, or was written by a newer version.
    """
    tables = set(inspect(connection).get_table_names())
    if "nas_migrations" not in tables:
        if tables:
            raise StoreError(
                f"the database must be empty or written by nas, but {location} holds other "
                f"tables ({', '.join(sorted(tables)[:3])}, …); name another file with --db"
            )
        return 0
    version = connection.execute(select(m.migrations.c.version).order_by(m.migrations.c.version.desc())).scalar()
    if version is not None and (type(version) is not int or version < 1):
        raise StoreError(f"{location} is damaged: its schema version cannot be {str(version)[:40]!r}")
    if version is not None and version > LATEST:
        raise StoreError(
            f"the database {location} has schema version {version}, and this nas knows versions "
            f"up to {LATEST}; upgrade video-nas, or name another file with --db"
        )
    return int(version or 0)


def migrate(connection: Connection, location: str) -> None:
    """Brings the schema to the latest version within one transaction; a step that fails leaves all as it was."""
    version = version_of(connection, location)
    for number, (name, step) in enumerate(STEPS[version:], start=version + 1):
        step(connection)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        connection.execute(m.migrations.insert().values(version=number, name=name, applied_at=now))
