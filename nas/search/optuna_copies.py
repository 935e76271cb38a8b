"""The trials of a search in Optuna's own tables: one Optuna study per rung, in the search's database.

Optuna's own way takes a transaction and some fifty statements for each, more than all else that a search does for a
trial. What is written is the same to the letter, which a test holds for the schema that is stated here; a database of
any other schema is written in Optuna's own way.

Its trials are all COMPLETE and of equal fidelity, as dashboards, importances and plots need them.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from nas.search.sampler import distributions_of
from nas.store.connection import optuna_options, patiently, url_of
from nas.store.damage import reading_optuna
from nas.study.fidelity import Fidelity
from nas.study.objectives import OBJECTIVES, value_of
from search_spaces.space import SearchSpace

SCHEMA = "v3.2.0.a"  # Optuna's name of it

_TRIAL = (
    "INSERT INTO trials (trial_id, number, study_id, state, datetime_start, datetime_complete) "
    "VALUES (?, ?, ?, 'COMPLETE', ?, ?)"
)
_VALUE = "INSERT INTO trial_values (trial_id, objective, value, value_type) VALUES (?, ?, ?, 'FINITE')"
_PARAM = "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) VALUES (?, ?, ?, ?)"
_NOTE = "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (?, ?, ?)"


def can_write(storage: RDBStorage) -> bool:
    """Whether a database has the schema that is known here."""
    return storage.get_current_version() == SCHEMA


class Writer:
    """Writes to one study of Optuna.

    Args:
        storage: Of a schema that is known here.
        study: Name of the study.
    """

    def __init__(self, storage: RDBStorage, study: str) -> None:
        """The study is there."""
        self._storage, self._study = storage, storage.get_study_id_from_name(study)
        self._known: dict[str, BaseDistribution] = {}
        self._texts: dict[str, str] = {}  # the distributions as JSON

    def add(self, trials: Sequence[FrozenTrial]) -> None:
        """Adds complete trials, whose values are finite, in one transaction.

        Raises:
            ValueError: A setting has other choices than in an earlier trial.
            sqlite3.Error: The database cannot be written.
        """
        connection = self._storage.engine.raw_connection()
        try:
            cursor = connection.cursor()
            cursor.execute("BEGIN IMMEDIATE")
            (last,) = cursor.execute("SELECT COALESCE(MAX(trial_id), 0) FROM trials").fetchone()
            count = "SELECT COUNT(*) FROM trials WHERE study_id = ?"
            (number,) = cursor.execute(count, (self._study,)).fetchone()
            keyed = list(enumerate(trials, start=last + 1))
            cursor.executemany(
                _TRIAL,
                [
                    (key, number + place, self._study, _at(trial.datetime_start), _at(trial.datetime_complete))
                    for place, (key, trial) in enumerate(keyed)
                ],
            )
            cursor.executemany(
                _VALUE, [(key, place, value) for key, trial in keyed for place, value in enumerate(trial.values)]
            )
            cursor.executemany(
                _PARAM,
                [
                    (key, name, dist.to_internal_repr(trial.params[name]), self._text(name, dist))
                    for key, trial in keyed
                    for name, dist in trial.distributions.items()
                ],
            )
            cursor.executemany(
                _NOTE,
                [(key, name, json.dumps(value)) for key, trial in keyed for name, value in trial.user_attrs.items()],
            )
            connection.commit()
        except BaseException:
            connection.rollback()
            raise
        finally:
            connection.close()

    def _text(self, name: str, distribution: BaseDistribution) -> str:
        """A distribution as JSON; one setting has one in all trials."""
        known = self._known.setdefault(name, distribution)
        if known != distribution:
            check_distribution_compatibility(known, distribution)
            return distribution_to_json(distribution)
        if name not in self._texts:
            self._texts[name] = distribution_to_json(distribution)
        return self._texts[name]


def _at(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(sep=" ", timespec="microseconds")


AT_ONCE = 1000  # trials in one transaction


class OptunaCopies:
    """The Optuna studies of a search.

    They are copies of what the ledger holds, made after it was stored: `sync` adds what is missing, so a driver that
    died between the two leaves nothing behind that the next does not mend. What Optuna holds is read once.

    Args:
        location: Path of the SQLite file.
        study: Name of the study; rung r of 9 epochs is called `<study>/rung-r-9-epochs`.
        fidelity: The rungs.
        objectives: Names of `nas.study.objectives.OBJECTIVES`; what is measured is to be maximised here.
        space: The space, for the distributions of the settings.
    """

    def __init__(
        self, location: str, study: str, fidelity: Fidelity, objectives: Sequence[str], space: SearchSpace
    ) -> None:
        """Opens or makes the studies."""
        self._location = location
        with reading_optuna(location):
            self._storage = patiently(lambda: storage_of(location), location)
        self._space = space
        self._distributions: dict[str, BaseDistribution] = {}  # by the name of a setting
        self._objectives = tuple(objectives)
        try:
            with reading_optuna(location):
                self._studies = [
                    patiently(functools.partial(self._opened, rung_name(study, rung, fidelity)), location)
                    for rung in range(len(fidelity))
                ]
                writes = can_write(self._storage)
                self._writers = [Writer(self._storage, opened.study_name) for opened in self._studies if writes]
                self._known = [
                    {t.user_attrs["evaluation"] for t in opened.get_trials(deepcopy=False)} for opened in self._studies
                ]
        except BaseException:
            self.close()
            raise

    def _opened(self, name: str) -> optuna.Study:
        opened = optuna.create_study(
            storage=self._storage,
            study_name=name,
            directions=["maximize" if OBJECTIVES[name].measured else "minimize" for name in self._objectives],
            load_if_exists=True,
        )
        if opened.metric_names is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                opened.set_metric_names(["accuracy" if name == "error" else name for name in self._objectives])
        return opened

    def sync(self, evaluations: Iterable[Mapping[str, Any]]) -> None:
        """Adds the evaluations that their rung's study does not hold yet.

        Args:
            evaluations: Rows of `Store.evaluations`.
        """
        missing: list[list[Mapping[str, Any]]] = [[] for _ in self._studies]
        for row in evaluations:
            if row["id"] not in self._known[row["rung"]]:
                missing[row["rung"]].append(row)
        for rung, rows in enumerate(missing):
            for begin in range(0, len(rows), AT_ONCE):
                part = rows[begin : begin + AT_ONCE]
                with reading_optuna(self._location):
                    self._add(rung, [self._trial(row) for row in part])
                self._known[rung].update(row["id"] for row in part)

    def _trial(self, row: Mapping[str, Any]) -> FrozenTrial:
        """An evaluation as Optuna's trial."""
        settings = dict(row["settings"])
        if not settings.keys() <= self._distributions.keys():  # a name says what there was to choose from
            self._distributions |= distributions_of(self._space, settings)
        return create_trial(
            state=TrialState.COMPLETE,
            params=settings,
            distributions={name: self._distributions[name] for name in settings},
            values=[value_of(row, name) for name in self._objectives],
            user_attrs={
                "evaluation": row["id"],
                "trial": row["number"],
                "digest": row["digest"],
                "network": row["description"],
                "epochs": row["epochs"],
                "seed": row["seed"],
                "num_clips": row["num_clips"],
                "top5": row["top5"],
                "params": row["params"],
            },
        )

    def _add(self, rung: int, trials: Sequence[FrozenTrial]) -> None:
        if self._writers:
            patiently(functools.partial(self._writers[rung].add, trials), self._location)
            return
        for trial in trials:
            patiently(functools.partial(self._studies[rung].add_trial, trial), self._location)

    def close(self) -> None:
        """Closes the connections."""
        close_storage(self._storage)


def storage_of(location: str | Path, *, create: bool = True) -> RDBStorage:
    """Optuna's view of a database.

    Args:
        location: Path of the SQLite file.
        create: Make Optuna's tables where they are not there; otherwise it is only read.
    """
    return RDBStorage(url_of(Path(location)), engine_kwargs=optuna_options(), skip_table_creation=not create)


def close_storage(storage: RDBStorage) -> None:
    """Closes the connections of Optuna's view of a database."""
    storage.remove_session()
    storage.engine.dispose()


def rung_name(study: str, rung: int, fidelity: Fidelity) -> str:
    """What the Optuna study of a rung is called."""
    return f"{study}/rung-{rung}-{fidelity.slug(rung)}"
