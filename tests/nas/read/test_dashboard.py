"""optuna-dashboard on a study's own file: notes, files, and the command itself over HTTP."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nas.store.database import Store
from nas.train.session import locked
from tests.nas.read.conftest import Run, fetched, free_port
from tests.nas.read.made import made

dashboard = pytest.importorskip("optuna_dashboard")
COMMAND = "import sys; from nas.cli.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return made(tmp_path / "study.db", over={"question": "Which operator?", "decision_rule": "The front decides."})


def asked(board: Any, path: str) -> Any:
    """What the server's application answers."""
    app = dashboard.wsgi(board.storage, artifact_store=board.artifacts)
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "wsgi.input": io.BytesIO(),
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
    }
    body = b"".join(app(environ, lambda status, headers, exc_info=None: None))
    return json.loads(body)


def test_each_rung_has_a_name_the_question_and_a_table(database: Path) -> None:
    from nas.read.dashboard import prepared

    store = Store(database)
    board = prepared(store, store.study())
    studies = asked(board, "/api/studies")["study_summaries"]
    assert [study["study_name"] for study in studies] == [f"tiny/rung-{r}-{r + 1}-epochs" for r in range(3)]
    first = asked(board, "/api/studies/1")
    assert "**Question.** Which operator?" in first["note"]["body"]
    assert "**Decision rule.** The front decides." in first["note"]["body"]
    assert [file["filename"] for file in first["artifacts"]] == ["networks-40.csv"]
    file = database.parent / "artifacts" / first["artifacts"][0]["artifact_id"]
    assert len(file.read_text().splitlines()) == 41
    board.close()


def test_networks_of_a_front_have_their_blocks_as_a_note(database: Path) -> None:
    from nas.read.dashboard import prepared

    store = Store(database)
    board = prepared(store, store.study())
    front = {row["digest"] for row in store.front("tiny")}
    trials = asked(board, "/api/studies/3")["trials"]
    noted = {
        attr["value"].strip('"'): trial["note"]["body"]
        for trial in trials
        for attr in trial["user_attrs"]
        if attr["key"] == "digest" and trial["note"]["body"]
    }
    assert set(noted) == front
    for digest, body in noted.items():
        assert body.startswith(f"`{digest[:10]}`")
        assert "| site | block |" in body and "stages.1.blocks.0" in body
    board.close()


def test_starting_again_writes_nothing_and_own_notes_stay(database: Path) -> None:
    import optuna
    from optuna_dashboard import get_note, save_note

    from nas.read.dashboard import prepared

    store = Store(database)
    board = prepared(store, store.study())
    assert board.notes > 3
    study = optuna.load_study(study_name="tiny/rung-0-1-epochs", storage=board.storage)
    save_note(study, "mine")
    board.close()
    files = sorted((database.parent / "artifacts").iterdir())
    again = prepared(store, store.study())
    assert (again.notes, again.held) == (0, False)
    assert get_note(optuna.load_study(study_name="tiny/rung-0-1-epochs", storage=again.storage)) == "mine"
    assert sorted((database.parent / "artifacts").iterdir()) == files
    again.close()


def test_a_running_search_is_shown_and_not_written_to(database: Path) -> None:
    from nas.read.dashboard import prepared

    store = Store(database)
    with locked(database):
        board = prepared(store, store.study())
    assert board.held
    assert asked(board, "/api/studies/1")["note"]["body"] == ""
    assert not (database.parent / "artifacts").exists()
    board.close()


def test_the_command_serves_the_page(database: Path) -> None:
    port = free_port()
    argv = [sys.executable, "-c", COMMAND, "dashboard", str(database), "--port", str(port)]
    server = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert server.stdout is not None
        assert f"http://127.0.0.1:{port}/dashboard".encode() in server.stdout.readline()
        page = fetched(server, f"http://127.0.0.1:{port}/dashboard")
        assert b"<title>Optuna Dashboard</title>" in page
        assert len(json.loads(fetched(server, f"http://127.0.0.1:{port}/api/studies"))["study_summaries"]) == 3
    finally:
        server.kill()
        server.communicate()


@pytest.mark.parametrize(
    ("host", "origin", "served"),
    [
        ("127.0.0.1:8080", None, True),
        ("localhost:8080", "http://localhost:8080", True),
        ("[::1]:8080", None, True),
        ("192.168.1.7:8080", "http://192.168.1.7:8080", True),
        (f"{socket.gethostname()}:8080", None, True),
        ("evil.example", None, False),
        ("evil.example:8080", None, False),
        ("localhost.evil.example", None, False),
        ("127.0.0.1.evil.example:8080", None, False),
        ("127.0.0.1:8080", "http://evil.example", False),
        ("127.0.0.1:8080", "null", False),
        ("[", None, False),
        ("", None, False),
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_only_requests_that_mean_this_machine_are_served(
    database: Path, host: str, origin: str | None, served: bool, method: str
) -> None:
    from nas.read.dashboard import application, prepared

    with Store(database) as store:
        board = prepared(store, store.study())
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": "/api/studies/1",
        "wsgi.input": io.BytesIO(),
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
        "HTTP_HOST": host,
        **({} if origin is None else {"HTTP_ORIGIN": origin}),
    }
    said: list[str] = []
    b"".join(application(board, "127.0.0.1")(environ, lambda status, headers, exc_info=None: said.append(status)))  # type: ignore[arg-type,return-value]
    names = {study["study_name"] for study in asked(board, "/api/studies")["study_summaries"]}
    board.close()
    assert said[0].startswith("2" if served else "403")
    assert ("tiny/rung-0-1-epochs" in names) == (not served or method == "GET")


def test_a_port_that_is_taken_is_said_in_one_line(database: Path, run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = run("dashboard", database, "--port", port)
    assert code == 2
    assert f"error: port {port} of 127.0.0.1 cannot be had: Address already in use; give --port another number" in err


def test_without_its_extra_the_command_names_what_to_install(
    database: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    code, _, err = run("dashboard", database)
    assert code == 2
    assert "error: the dashboard needs optuna-dashboard: pip install 'video-nas[dashboard]'" in err
