"""optuna-dashboard on a study's own file: notes that say what a trial's network is, and tables to download."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIServer, make_server

import optuna
from filelock import FileLock, Timeout
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta, upload_artifact
from optuna.storages import RDBStorage

from nas.errors import NasError
from nas.read import formats
from nas.read import rows as tabular
from nas.search.levels import rungs_of
from nas.search.optuna_copies import close_storage, rung_name, storage_of
from nas.store.database import Store
from nas.store.records import Row, StudyRow
from nas.study.fidelity import recorded_fidelity
from nas.study.front import front
from nas.study.metric import accuracy_of
from search_spaces import codec

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

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


def prepared(store: Store, study: StudyRow) -> Board:
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
    try:
        with make_server(host, port, application(board, host), server_class=_server(host)) as server:
            server.serve_forever()
    except OSError as error:
        raise NasError(f"port {port} of {host} cannot be had: {error.strerror}; give --port another number") from error


def application(board: Board, host: str) -> WSGIApplication:
    """What is served: optuna-dashboard, for requests that mean this machine.

    It has no passwords and may delete, so a page of another site must not reach it through the user's browser: neither
    under a name of its own that points here (DNS rebinding), nor from its own origin. An address in numbers cannot be
    made to point elsewhere.

    Args:
        board: The study.
        host: Which address it listens on.
    """
    from optuna_dashboard import wsgi

    served = wsgi(board.storage, artifact_store=board.artifacts)
    names = {"localhost", host.lower(), socket.gethostname().lower()}

    def is_ours(netloc: str) -> bool:
        try:
            name = urlsplit(f"//{netloc}").hostname or ""
            if name in names:
                return True
            ip_address(name)
        except ValueError:
            return False
        return True

    def guarded(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        asked = environ.get("HTTP_HOST", "")
        origin = environ.get("HTTP_ORIGIN")
        if is_ours(asked) and origin in (None, f"http://{asked}", f"https://{asked}"):
            return cast("Iterable[bytes]", served(environ, start))
        text = (
            "the dashboard answers to localhost, addresses in numbers and the name of this machine, for its own pages"
        )
        start("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        return [text.encode()]

    return guarded


def _server(host: str) -> type[WSGIServer]:
    class Server(WSGIServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    return Server


def _installed() -> None:
    try:
        import optuna_dashboard  # noqa: F401
    except ImportError as error:
        raise NasError("the dashboard needs optuna-dashboard: pip install 'video-nas[dashboard]'") from error


def _annotate(
    storage: RDBStorage,
    artifacts: FileSystemArtifactStore,
    store: Store,
    study: StudyRow,
    rows: Sequence[Mapping[str, Any]],
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
    rung: optuna.Study,
    storage: RDBStorage,
    artifacts: FileSystemArtifactStore,
    name: str,
    rows: Sequence[Mapping[str, Any]],
) -> None:
    if name in {meta.filename for meta in get_all_artifact_meta(rung, storage=storage)}:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_text(formats.to_csv(rows, tabular.columns_of("evaluations", [])), encoding="utf-8")
        upload_artifact(artifact_store=artifacts, file_path=str(path), study_or_trial=rung, storage=storage)


def _question(study: StudyRow) -> str:
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
