"""optuna-dashboard on a study's own file: notes that say what a trial's network is, and tables to download."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.storages import RDBStorage

from nas import formats, tabular
from nas.accuracies import accuracy_of
from nas.compare import front
from nas.errors import NasError
from nas.fidelity import recorded_fidelity
from nas.importance import rungs_of
from nas.search.rungs import close_storage, rung_name, storage_of
from nas.store import Row, Store
from search_spaces import codec

FOLDER = "artifacts"  # beside the database


@dataclass(frozen=True, kw_only=True, slots=True)
class Board:
    """What is served.

    Attributes:
        storage: Optuna's view of the database.
        artifacts: Files that trials and studies can be looked up by.
        notes: Notes that were written now.
        held: Whether nothing was written because a search holds the database.
    """

    storage: RDBStorage
    artifacts: FileSystemArtifactStore
    notes: int
    held: bool

    def close(self) -> None:
        """Closes the connections."""
        close_storage(self.storage)


def prepared(store: Store, study: Row) -> Board:
    """The board of a study. Each rung's study gets a note with the question, and a table of its networks as a file; the
    networks of each rung's front get a note with their blocks. Notes that somebody wrote stay as they are.

    Raises:
        NasError: optuna-dashboard is not installed.
    """  # noqa: D205
    _installed()
    database = Path(store.location)
    storage = storage_of(database)
    folder = database.parent / FOLDER
    lock = FileLock(f"{database}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return Board(storage=storage, artifacts=FileSystemArtifactStore(folder), notes=0, held=True)
    try:
        folder.mkdir(exist_ok=True)
        artifacts = FileSystemArtifactStore(folder)
        notes = sum(
            _annotate(storage, artifacts, store, study, rows)
            for rows in rungs_of(store.evaluations(study["id"])).values()
        )
    except OSError as error:
        raise NasError(f"the folder {folder} cannot be written: {error.strerror}") from error
    finally:
        lock.release()
    return Board(storage=storage, artifacts=artifacts, notes=notes, held=False)


def serve(board: Board, *, host: str, port: int) -> None:
    """Serves the board until Ctrl-C.

    Raises:
        NasError: The port cannot be had.
    """
    from optuna_dashboard import run_server

    try:
        run_server(board.storage, host=host, port=port, artifact_store=board.artifacts)
    except OSError as error:
        raise NasError(f"port {port} of {host} cannot be had: {error.strerror}; give --port another number") from error


def _installed() -> None:
    try:
        import optuna_dashboard  # noqa: F401
    except ImportError as error:
        raise NasError("the dashboard needs optuna-dashboard: pip install 'video-nas[dashboard]'") from error


def _annotate(
    storage: RDBStorage, artifacts: FileSystemArtifactStore, store: Store, study: Row, rows: Sequence[Row]
) -> int:
    """Notes and files of one rung; returns how many notes are new."""
    from optuna_dashboard import get_note, save_note

    name = rung_name(study["name"], rows[0]["rung"], recorded_fidelity(study))
    try:
        rung = optuna.load_study(study_name=name, storage=storage, sampler=optuna.samplers.RandomSampler())
    except KeyError:
        return 0
    notes = 0
    if not get_note(rung):
        save_note(rung, _question(study))
        notes += 1
    trials = {trial.user_attrs.get("evaluation"): trial for trial in rung.get_trials(deepcopy=False)}
    for place in front([(1 - accuracy_of(row), row["macs"]) for row in rows]):
        frozen = trials.get(rows[place]["id"])
        if frozen is None:
            continue
        trial = optuna.trial.Trial(rung, frozen._trial_id)
        if not get_note(trial):
            save_note(trial, _network(store, rows[place]))
            notes += 1
    _upload(rung, storage, artifacts, f"networks-{len(rows)}.csv", rows)
    return notes


def _upload(
    rung: optuna.Study, storage: RDBStorage, artifacts: FileSystemArtifactStore, name: str, rows: Sequence[Row]
) -> None:
    if name in {meta.filename for meta in get_all_artifact_meta(rung, storage=storage)}:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(formats.to_csv(rows, tabular.columns_of("evaluations", [])), encoding="utf-8")
        upload_artifact(artifact_store=artifacts, file_path=str(path), study_or_trial=rung, storage=storage)


def _question(study: Row) -> str:
    texts = (("Question", "question"), ("Hypothesis", "hypothesis"), ("Decision rule", "decision_rule"))
    lines = [f"**{title}.** {study['config'][key]}" for title, key in texts if study["config"].get(key)]
    return "\n\n".join([f"## {study['name']}", *lines, f"Clip {study['clip']}, {study['num_classes']} classes."])


def _network(store: Store, row: Row) -> str:
    """A network's blocks as a Markdown table."""
    blocks = codec.decode(store.find(row["digest"])["spec"]).rows()
    columns = list(dict.fromkeys(name for block in blocks for name in block))
    head = f"`{row['digest'][:10]}` {_cell(row['description'])}\n\n{row['macs']:,} MACs, {row['params']:,} parameters"
    table = [columns, ["---"] * len(columns), *([_cell(block.get(name, "")) for name in columns] for block in blocks)]
    return f"{head}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in table)


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|")
