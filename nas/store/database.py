"""The record: one database that holds a study's trials, their epochs, evaluations and every decision.

One driver writes; readers may look at any moment. It is an SQLite file in WAL mode.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, overload

from sqlalchemy import ColumnElement, Connection, String, Table, and_, bindparam, case, func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from nas.errors import NotFoundError, StoreError
from nas.places import OPENED, check_file, path_of
from nas.store import damage, lookup, migrations
from nas.store import records as r
from nas.store import tables as m
from nas.store.connection import engine_of, is_settled
from nas.store.write import insert, now
from nas.study.objectives import USUAL, front_rows, recorded_floors, recorded_objectives


class Store:
    """An open database, best used in a `with` block, which closes it.

    Args:
        location: Path of an SQLite file.
        create: Make the file where there is none; otherwise it has to exist, and of an earlier version is brought up to
            date, too.

    Raises:
        StoreError: The file is missing, is not ours, is from a newer version, or cannot be written.
    """

    def __init__(self, location: str | Path, *, create: bool = False) -> None:
        """Opens the database."""
        path = path_of(location)
        check_file(path)
        self.location = str(location)
        if self.location not in OPENED:
            OPENED.append(self.location)
        self._lacking = damage.alone(path)  # before a connection makes the file anew
        self.engine = engine_of(path, create=create)
        self._finalizer = weakref.finalize(self, self.engine.dispose)  # for one that nobody closes
        try:
            with self.engine.begin() as connection:
                version = migrations.version_of(connection, self.location)
                if not create and not version:
                    raise StoreError(
                        f"the database {self.location} holds no study{self._lacking}; `nas search` makes one"
                    )
            if version < migrations.LATEST:
                if not create and is_settled(path):
                    raise StoreError(
                        f"the database {self.location} is of an earlier version and is brought up to date when it is "
                        "opened, but its folder cannot be written; copy it to one that can"
                    )
                # It takes the right to write before it reads, so that of two that open it at once the second waits.
                with self.engine.execution_options(writes=True).begin() as connection:
                    migrations.migrate(connection, self.location)
            with self.engine.connect() as connection:
                damage.check_schema(connection, self.location)
                said = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar() if create else "ok"
            if said != "ok":  # nothing is built on what is damaged
                raise damage.damaged(self.location, str(said))
            if create:
                # Readers go on while the driver writes. Set only now: it is written into the file, which is ours.
                with self.engine.connect() as connection:
                    connection.connection.driver_connection.execute("PRAGMA journal_mode = WAL")  # type: ignore[union-attr]
        except StoreError:
            self.close()
            raise
        except (DBAPIError, ValueError, TypeError, OverflowError) as error:
            self.close()
            raise damage.refused(error, self.location, verb="written" if create else "read") from error

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._finalizer()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: all of it is stored, or nothing. It waits for another process that writes.

        Raises:
            StoreError: The database is read-only, or the disk is full. What was stored before stays.
        """
        try:
            with self.engine.execution_options(writes=True).begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise damage.refused(error, self.location, verb="written") from error

    def row(self, table: Table, key: int) -> Any:
        """The row of a table with an id, which there is.

        Raises:
            StoreError: As `rows`.
        """
        (found,) = self.rows(select(table).where(table.c.id == key))
        return found

    def rows(self, query: Any) -> list[Any]:
        """The rows of a query as mappings.

        Raises:
            StoreError: The database is damaged, or cannot be read.
        """
        try:
            with self.engine.connect() as connection:
                result = connection.execute(query)
                names, rows = list(result.keys()), result.all()
        except (DBAPIError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise damage.refused(error, self.location) from error
        damage.check_types(list(getattr(query, "selected_columns", ())), rows, self.location)  # text states no types
        return [dict(zip(names, row, strict=True)) for row in rows]

    # --- studies -------------------------------------------------------------------------------------------------

    def studies(self) -> list[r.StudyRow]:
        """Every study of the database."""
        return self.rows(select(m.study).order_by(m.study.c.id))

    def study(self, name: str | None = None) -> r.StudyRow:
        """The study called `name`, or the only one.

        Raises:
            NotFoundError: There is none, or the name is needed to choose.
        """
        found = [row for row in self.studies() if name is None or row["name"] == name]
        if len(found) == 1:
            return found[0]
        names = ", ".join(row["name"] for row in self.studies())
        if not names:
            raise NotFoundError(f"the database {self.location} holds no study{self._lacking}; `nas search` makes one")
        raise NotFoundError(f"study {name!r} is not in {self.location} (studies: {names})")

    def add_study(self, **values: Any) -> int:
        """Records a study; returns its id."""
        with self.write() as connection:
            return insert(connection, m.study, **values, created_at=now())

    # --- reading a search ----------------------------------------------------------------------------------------

    def trials(self, study_id: int) -> list[r.TrialRow]:
        """The trials in the order of their numbers."""
        return self.rows(select(m.trial).where(m.trial.c.study_id == study_id).order_by(m.trial.c.number))

    @overload
    def evaluations(
        self, study_id: int, *, purpose: Literal["search"] = "search", split: str = "val"
    ) -> list[r.ResultRow]: ...
    @overload
    def evaluations(self, study_id: int, *, purpose: Literal["promotion"], split: str = "val") -> list[r.TestedRow]: ...

    def evaluations(
        self, study_id: int, *, purpose: Literal["search", "promotion"] = "search", split: str = "val"
    ) -> list[Any]:
        """Evaluations with their network's description and cost, in the order in which they were made."""
        query = (
            select(
                m.evaluation,
                m.architecture.c.description,
                m.cost.c.macs,
                m.cost.c.params,
                m.cost.c.train_macs,
                m.cost.c.activation_bytes,
                m.trial.c.number,
                m.trial.c.params.label("settings"),
                case((m.evaluation.c.purpose == "search", m.study.c.accuracy)).label("chosen_by"),
            )
            .join(m.architecture, m.architecture.c.digest == m.evaluation.c.digest)
            .join(m.study, m.study.c.id == m.evaluation.c.study_id)
            .join(
                m.cost,
                _cost_of(m.evaluation),
            )
            .outerjoin(m.trial, m.trial.c.id == m.evaluation.c.trial_id)
            .where(
                m.evaluation.c.study_id == study_id,
                m.evaluation.c.purpose == purpose,
                m.evaluation.c.split == split,
            )
            .order_by(m.evaluation.c.id)
        )
        return self.rows(query)

    def front(self, study: str) -> list[r.Row]:
        """The front of a study's objectives at its highest rung: of accuracy and MACs the view of that name.

        With others, or with constraints on what is measured, rows of `evaluations` that also have `study`, `accuracy`
        and each objective by its name.
        """
        row = self.study(study)
        names = recorded_objectives(row)
        floors = recorded_floors(row)
        if names == USUAL and not floors:
            return self._view(m.pareto_front, study)
        evaluations = self.evaluations(row["id"])
        top = max((one["rung"] for one in evaluations), default=0)
        there = [one for one in evaluations if one["rung"] == top]
        return [{"study": study, **one} for one in front_rows(there, names, floors)]

    def jobs(self, study_id: int, state: str | None = None) -> list[r.JobRow]:
        """Jobs with the number and digest of their trial and the MACs of its network, oldest first."""
        query = (
            select(m.job, m.trial.c.number, m.trial.c.digest, m.cost.c.macs)
            .join(m.trial)
            .join(m.study, m.study.c.id == m.trial.c.study_id)
            .outerjoin(
                m.cost,
                _cost_of(m.trial),
            )
            .where(m.trial.c.study_id == study_id, *([m.job.c.state == state] if state else []))
            .order_by(m.job.c.id)
        )
        return self.rows(query)

    def events(self, study_id: int) -> list[r.EventRow]:
        """Every decision and outcome in order."""
        return self.rows(select(m.event).where(m.event.c.study_id == study_id).order_by(m.event.c.seq))

    def epochs(self, trial_id: int) -> list[r.EpochRow]:
        """The epochs of one trial."""
        return self.rows(select(m.epoch).where(m.epoch.c.trial_id == trial_id).order_by(m.epoch.c.epoch))

    def promotions(self, study_id: int) -> list[r.PromotionRow]:
        """The promotions of a study, oldest first."""
        query = select(m.promotion).where(m.promotion.c.study_id == study_id).order_by(m.promotion.c.id)
        return self.rows(query)

    def sessions(self, study_id: int) -> list[r.SessionRow]:
        """Each start of the driver."""
        return self.rows(select(m.session).where(m.session.c.study_id == study_id).order_by(m.session.c.id))

    # --- scores --------------------------------------------------------------------------------------------------

    def put_scores(
        self, study_id: int, name: str, values: Mapping[str, float], *, basis: str, alone: bool = False
    ) -> None:
        """Stores what was computed of networks, in the place of what the same score was before.

        Args:
            study_id: Of the study.
            name: Of the score, such as `synflow`.
            values: By digest; finite.
            basis: What they were made from: clip, seed, weights.
            alone: Take away what the score was of any network on another basis; else each network has its own.
        """
        for digest, value in values.items():
            if not math.isfinite(value):
                raise ValueError(f"a score must be finite, but {name} of {digest[:10]} is {value}")
        if not values:
            return
        t = m.score
        of = {"study_id": study_id, "name": name}
        rows = [{**of, "digest": key, "value": float(value), "basis": basis} for key, value in values.items()]
        old = (t.c.study_id == study_id) & (t.c.name == name) & (t.c.digest == bindparam("old"))
        with self.write() as connection:
            if alone:
                other = (t.c.study_id == study_id) & (t.c.name == name) & (t.c.basis != basis)
                connection.execute(t.delete().where(other))
            connection.execute(t.delete().where(old), [{"old": key} for key in values])
            connection.execute(t.insert(), rows)

    def scores(self, study_id: int) -> list[r.ScoreRow]:
        """Scores of networks: `name`, `digest`, `value` and `basis`, by name and digest."""
        t = m.score
        return self.rows(select(t).where(t.c.study_id == study_id).order_by(t.c.name, t.c.digest))

    # --- ablations -----------------------------------------------------------------------------------------------

    def ablations(self, study_id: int) -> list[r.AblationRow]:
        """The ablations of a study, oldest first."""
        return self.rows(select(m.ablation).where(m.ablation.c.study_id == study_id).order_by(m.ablation.c.id))

    def arms(self, ablation_id: int) -> list[r.ArmRow]:
        """The arms of an ablation with their network's description and cost at their own clip."""
        query = (
            select(m.arm, m.architecture.c.description, m.cost.c.macs, m.cost.c.params, m.cost.c.train_macs)
            .join(m.ablation, m.ablation.c.id == m.arm.c.ablation_id)
            .join(m.study, m.study.c.id == m.ablation.c.study_id)
            .join(m.architecture, m.architecture.c.digest == m.arm.c.digest)
            .join(
                m.cost,
                (m.cost.c.digest == m.arm.c.digest)
                & (m.cost.c.clip == m.arm.c.clip)
                & (m.cost.c.num_classes == m.study.c.num_classes),
            )
            .where(m.arm.c.ablation_id == ablation_id)
            .order_by(m.arm.c.position)
        )
        return self.rows(query)

    def runs(self, study_id: int) -> list[r.RunRow]:
        """Every training of the study's ablations, oldest first."""
        query = select(m.run, m.study.c.accuracy.label("chosen_by")).join(m.study, m.study.c.id == m.run.c.study_id)
        return self.rows(query.where(m.run.c.study_id == study_id).order_by(m.run.c.id))

    def arm_runs(self, ablation_id: int) -> list[r.ArmRunRow]:
        """The runs of an ablation with their arm's position and their pair."""
        query = (
            select(m.run, m.arm.c.position, m.arm_run.c.pair, m.study.c.accuracy.label("chosen_by"))
            .join(m.study, m.study.c.id == m.run.c.study_id)
            .join(m.arm_run, m.arm_run.c.run_id == m.run.c.id)
            .join(m.arm, m.arm.c.id == m.arm_run.c.arm_id)
            .where(m.arm.c.ablation_id == ablation_id)
            .order_by(m.arm_run.c.pair, m.arm.c.position)
        )
        return self.rows(query)

    def effects(self, ablation_id: int) -> list[r.EffectRow]:
        """The effects of an ablation, in the order of its arms."""
        return self.rows(select(m.effect).where(m.effect.c.ablation_id == ablation_id).order_by(m.effect.c.id))

    def epoch_seconds(self, study_id: int, *, beyond: int = 0) -> list[r.SecondsRow]:
        """How long epochs of the study took: `seconds` and the network's `train_macs`, one row per training.

        Args:
            study_id: Of the study.
            beyond: Epochs of a trial that do not count: those at a lower fidelity.
        """
        by_trial = (
            select(func.avg(m.epoch.c.seconds).label("seconds"), m.cost.c.train_macs)
            .join(m.trial, m.trial.c.id == m.epoch.c.trial_id)
            .join(m.study, m.study.c.id == m.trial.c.study_id)
            .join(m.cost, _cost_of(m.trial))
            .where(m.trial.c.study_id == study_id, m.epoch.c.epoch > beyond)
            .group_by(m.trial.c.id, m.cost.c.train_macs)
        )
        by_run = (
            select((m.run.c.seconds / m.run.c.epochs).label("seconds"), m.cost.c.train_macs)
            .join(m.study, m.study.c.id == m.run.c.study_id)
            .join(m.cost, _cost_of(m.run))
            .where(m.run.c.study_id == study_id, m.run.c.state == "done")
        )
        return [*self.rows(by_trial), *self.rows(by_run)]

    def find(self, prefix: str) -> r.ArchitectureRow:
        """The architecture whose digest begins with `prefix`, of at least 4 letters.

        Raises:
            NotFoundError: No digest matches, or more than one does; or it is the number of a trial.
        """
        return lookup.architecture(self.rows, self.location, prefix)

    # --- motion tests --------------------------------------------------------------------------------------------

    def motion_tests(self, study: str) -> list[r.MotionTestRow]:
        """The rows of the view `motion_tests` for one study."""
        return self._view(m.motion_tests, study)

    def motion_outcomes(self, source: str, source_id: int, *, epochs: int, split: str) -> list[r.MotionRow]:
        """The motion tests of one trained network on one split, in the order in which they were made."""
        table = m.motion
        query = select(table).where(
            table.c.source == source,
            table.c.source_id == source_id,
            table.c.epochs == epochs,
            table.c.split == split,
        )
        return self.rows(query.order_by(table.c.id))

    # --- the report ----------------------------------------------------------------------------------------------

    def architectures(self, clip: str, num_classes: int) -> list[r.NetworkRow]:
        """Every network with its cost at a clip; the cost is none where it was not counted there."""
        a, c = m.architecture, m.cost
        at = (c.c.digest == a.c.digest) & (c.c.clip == clip) & (c.c.num_classes == num_classes)
        return self.rows(select(a, c.c.macs, c.c.params, c.c.activation_bytes).outerjoin(c, at).order_by(a.c.digest))

    def study_verdicts(self, study_id: int) -> list[r.VerdictRow]:
        """The verdicts of a study, in the order in which they were stored."""
        return self.rows(select(m.verdict).where(m.verdict.c.study_id == study_id).order_by(m.verdict.c.id))

    def view(self, name: Literal["ablation_effects", "importance"], study: str) -> list[r.Row]:
        """The rows of a view for one study."""
        return self._view({"ablation_effects": m.ablation_effects, "importance": m.importance_view}[name], study)

    def _view(self, view: Table, study: str) -> list[Any]:
        return self.rows(select(view).where(view.c.study == study))

    # --- looking -------------------------------------------------------------------------------------------------

    def holds_optuna(self) -> bool:
        """Whether Optuna's tables are there; they come with the first start of a search."""
        return bool(self.rows(text("SELECT name FROM sqlite_master WHERE name = 'studies'").columns(name=String)))

    def epoch_rows(self, study_id: int) -> list[r.CurveRow]:
        """Every stored epoch of every trial with the trial's number and digest, in this order."""
        query = (
            select(m.trial.c.number, m.trial.c.digest, m.epoch, m.study.c.accuracy.label("chosen_by"))
            .join(m.trial, m.trial.c.id == m.epoch.c.trial_id)
            .join(m.study, m.study.c.id == m.trial.c.study_id)
            .where(m.trial.c.study_id == study_id)
            .order_by(m.trial.c.number, m.epoch.c.epoch)
        )
        return self.rows(query)

    def described(self, study_id: int, table: Table) -> list[r.Row]:
        """The rows of a study's trials, promotions or runs with the description and cost of their network."""
        query = (
            select(table, m.architecture.c.description, m.cost.c.macs, m.cost.c.params.label("num_params"))
            .add_columns(m.cost.c.activation_bytes)
            .join(m.architecture, m.architecture.c.digest == table.c.digest)
            .join(m.study, m.study.c.id == table.c.study_id)
            .outerjoin(m.cost, _cost_of(table))
            .where(table.c.study_id == study_id)
            .order_by(table.c.id)
        )
        return self.rows(query)

    def run_states(self, study_id: int) -> list[r.RunStateRow]:
        """How many runs of each ablation are in each state; an ablation without runs has one row with no run state."""
        a, run = m.ablation, m.run
        query = (
            select(a.c.id, a.c.name, a.c.kind, a.c.state, run.c.state.label("run_state"))
            .add_columns(func.count(run.c.id.distinct()).label("runs"))  # several arms may share a run
            .select_from(a)
            .outerjoin(m.arm, m.arm.c.ablation_id == a.c.id)
            .outerjoin(m.arm_run, m.arm_run.c.arm_id == m.arm.c.id)
            .outerjoin(run, run.c.id == m.arm_run.c.run_id)
            .where(a.c.study_id == study_id)
            .group_by(a.c.id, run.c.state)
            .order_by(a.c.id, run.c.state)
        )
        return self.rows(query)


def _cost_of(table: Table) -> ColumnElement[bool]:
    """Which row of `nas_cost` is that of a table's network, for the clip and the classes of its study."""
    return and_(
        m.cost.c.digest == table.c.digest,
        m.cost.c.clip == m.study.c.clip,
        m.cost.c.num_classes == m.study.c.num_classes,
    )
