"""Finished trials written to Optuna's tables many at a time.

Optuna's own way takes a transaction and some fifty statements for each, more than all else that a search does for a
trial. What is written is the same to the letter, which a test holds for the schema that is stated here; a database of
any other schema is written in Optuna's own way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime

from optuna.distributions import BaseDistribution, check_distribution_compatibility, distribution_to_json
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

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
