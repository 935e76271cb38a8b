"""A running search, looked at from its database while a driver writes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from nas.errors import NotFoundError, StoreError
from nas.read.watch import frame_of
from nas.search.budget import recorded_budget
from nas.store import tables as m
from nas.store import write as s
from nas.store.database import Store
from nas.store.drivers import is_held
from nas.train.session import Heartbeat, locked, open_session
from tests.nas.read.conftest import Run
from tests.nas.read.made import made
from tests.nas.studies import write_study

PATIENCE = 60.0  # seconds until what should be seen counts as not coming
COMMAND = "import sys; from nas.cli.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A search whose driver, if there is one, is at work on trial 39, and an ablation with two runs."""
    path = made(tmp_path / "study.db", rungs=2, optuna=False)
    store = Store(path)
    trial = store.trials(1)[39]
    with store.write() as connection:
        began = (datetime.now(UTC) - timedelta(seconds=100)).isoformat(timespec="seconds")
        s.insert(connection, m.session, study_id=1, started_at=began, workers=1, environment={})
        for other in store.trials(1)[36:39]:
            taken = {"started_at": began, "ended_at": s.now(), "seconds": 33.0}
            s.insert(connection, m.job, trial_id=other["id"], rung=0, epochs=1, state="done", **taken)
        jobs = {"trial_id": trial["id"], "started_at": s.now()}
        s.insert(connection, m.job, **jobs, rung=0, epochs=1, state="done", ended_at=s.now())
        s.insert(connection, m.job, **jobs, rung=2, epochs=3, state="running")
        for kind, rung in (("result", 1), ("promote", 2)):
            s.put_event(connection, 1, kind, trial=39, rung=rung)
        ablation = s.insert(
            connection,
            m.ablation,
            study_id=1,
            name="[red]kind[/red]",
            kind="ablate",
            design={},
            state="running",
            created_at=s.now(),
        )
        arms = [
            s.insert(
                connection,
                m.arm,
                ablation_id=ablation,
                position=position,
                factor="kind",
                level="[red]2d[/red]",
                digest=trial["digest"],
                clip="4x16x16",
                changes={},
                levels={},
            )
            for position in range(2)  # two arms that share their runs
        ]
        for seed, state in enumerate(("done", "done", "running")):
            run = s.insert(
                connection,
                m.run,
                study_id=1,
                key=f"k{seed}",
                digest=trial["digest"],
                seed=seed,
                epochs=3,
                folder="f",
                state=state,
                tries=1,
                started_at=s.now(),
            )
            for arm in arms:
                connection.execute(m.arm_run.insert().values(arm_id=arm, run_id=run, pair=seed))
    store.close()
    folder = tmp_path / "trials" / "00039-abc"
    folder.mkdir(parents=True)
    (folder / "progress.jsonl").write_text("{}\n{}\n")
    return path


@pytest.fixture
def running(begun: Path) -> Iterator[Path]:
    """The same with a driver."""
    with locked(begun):
        yield begun


def test_a_frame_tells_rungs_jobs_epochs_and_ablations(running: Path) -> None:
    store = Store(running)
    frame = frame_of(store, store.study(), datetime.now(UTC))
    assert not frame.ended
    assert [(rung["epochs"], rung["networks"]) for rung in frame.rungs] == [(1, 40), (2, 13), (3, 0)]
    assert frame.rungs[2]["best"] is None
    assert frame.states == {"stopped": 40}
    job, run = frame.running
    assert (job["what"], job["epoch"], job["until"]) == ("39", 2, 3)
    assert (run["what"], run["epoch"], run["until"]) == ("run, seed 2", 0, 3)
    assert frame.epochs_total == recorded_budget(store.study()).epochs == 40 + 13 + 4
    known = {row["trial_id"]: row["epochs"] for row in store.evaluations(1)}
    before = known[store.trials(1)[39]["id"]]
    assert frame.epochs_done == sum(known.values()) + 2 - before
    assert [event["text"] for event in frame.events][-1] == "trial 39 goes on to 3 epochs"
    assert frame.front[0]["epochs"] == 2
    (ablation,) = frame.ablations
    assert {key: ablation[key] for key in ("runs", "running", "done", "failed")} == {
        "runs": 3,
        "running": 1,
        "done": 2,
        "failed": 0,
    }


def test_the_time_that_is_left_is_that_of_the_networks_that_are_to_come(running: Path, run: Run) -> None:
    store = Store(running)
    frame = frame_of(store, store.study(), datetime.now(UTC))
    # An epoch took 33 seconds: 36, 13 and 3 are to come, and one is under way.
    assert frame.left is not None
    assert frame.left.middle == pytest.approx(53 * 33, rel=0.05)
    assert frame.left.low < frame.left.middle < frame.left.high
    assert str(frame.left) in run("watch", running)[1]
    assert f"under way: {frame.left}" in run("status", running)[1]


def test_a_search_that_ended_has_nothing_left(running: Path) -> None:
    store = Store(running)
    with store.write() as connection:
        connection.execute(m.session.update().values(ended_at=s.now()))
    assert not frame_of(store, store.study(), datetime.now(UTC)).ended  # another driver has taken the lock
    Path(f"{running}.lock").unlink()
    frame = frame_of(store, store.study(), datetime.now(UTC))
    assert frame.ended
    assert frame.left is None


def test_one_frame_is_printed_where_there_is_no_terminal(running: Path, run: Run) -> None:
    for argv in ([], ["--once"]):
        code, out, _ = run("watch", running, *argv)
        assert code == 0
        for text in (
            ": search running; ",
            "ETA ",
            "40 stopped",
            "under way",
            "front after 2 epochs",
            "[red]kind[/red]",
            "2/3",
        ):
            assert text in out
        assert "trial 39 goes on to 3 epochs" in out


def test_a_silent_driver_is_said_to_be_silent(running: Path, run: Run) -> None:
    assert "has said nothing" not in run("watch", running)[1]
    long_ago = {"started_at": "2020-01-01T00:00:00+00:00"}
    with Store(running) as store, store.write() as connection:
        connection.execute(m.event.update().values(at=long_ago["started_at"]))
        for table in (m.session, m.job, m.run):
            connection.execute(table.update().values(**long_ago))
        connection.execute(m.job.update().values(ended_at=None))
    assert "its driver is there, but has said nothing for" in run("watch", running)[1]


def test_a_driver_that_was_killed_is_said_to_be_dead(running: Path, run: Run, tmp_path: Path) -> None:
    """The lock goes with its process, however that ends; what it had under way is under way no more."""
    shutil.copytree(running.parent, tmp_path / "killed")
    path = tmp_path / "killed" / "study.db"
    with Store(path) as store, store.write() as connection:
        row = connection.execute(m.session.select()).mappings().one()
        seen = datetime.fromisoformat(row["started_at"]) + timedelta(seconds=970)
        connection.execute(m.session.update().values(seen_at=seen.isoformat(timespec="seconds")))
    with Store(path) as store:
        frame = frame_of(store, store.study(), datetime.now(UTC))
    assert (frame.ended, frame.driver, frame.running, frame.left) == (True, "", [], None)
    assert frame.died_at == seen.isoformat()
    text = f"its driver is dead, last seen at {seen:%Y-%m-%d %H:%M:%S} UTC; the same command goes on with it"
    for command in (("watch", "--once"), ("status",)):
        code, out, _ = run(command[0], path, *command[1:])
        assert code == 0
        assert text in out
    assert ": dead; " in run("watch", path, "--once")[1]
    assert "16m10s in 1 session(s)" in run("status", path)[1]
    assert "a driver is at work" not in run("status", path)[1]
    assert "a driver is at work: search" in run("status", running)[1]
    assert "1m4" in run("status", running)[1]  # 100 seconds so far


@pytest.mark.parametrize(
    ("command", "kind"),
    [("search", "search"), ("versus", "ablation"), ("ablate", "ablation"), ("promote", "promotion")],
)
def test_what_is_at_work_is_named_and_its_trainings_are_shown(running: Path, run: Run, command: str, kind: str) -> None:
    folder = running.parent / "promoted" / "p"
    (folder / "training").mkdir(parents=True)
    (folder / "training" / "progress.jsonl").write_text("{}\n" * 7)
    with Store(running) as store, store.write() as connection:
        connection.execute(m.session.update().values(environment={"command": ["nas", "--debug", command, "x"]}))
        digest = connection.execute(m.architecture.select()).mappings().first()["digest"]  # type: ignore[index]
        promotion = {"digest": digest, "seed": 1, "recipe_digest": "r", "recipe": {}, "epochs": 9, "state": "running"}
        s.insert(connection, m.promotion, study_id=1, folder="promoted/p", started_at=s.now(), **promotion)
    with Store(running) as store:
        frame = frame_of(store, store.study(), datetime.now(UTC))
    assert (frame.driver, frame.ended, frame.left is not None) == (kind, False, kind == "search")
    assert [(job["what"], job["epoch"], job["until"]) for job in frame.running] == [
        ("39", 2, 3), ("run, seed 2", 0, 3), ("promotion, seed 1", 7, 9)
    ]  # fmt: skip
    out = run("watch", running, "--once")[1]
    assert f": {kind} running; " in out
    assert "promotion, seed 1" in out and "7/9" in out


def test_a_driver_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path / "study.db", optuna=False)
    with Store(path) as store:
        beat = Heartbeat(store, open_session(store, store.study(), workers=1))

        def seen() -> str:
            return str(store.sessions(1)[-1]["seen_at"])

        monkeypatch.setattr("nas.store.write.now", lambda: "2030-01-01T00:00:00+00:00")
        beat()
        assert not seen().startswith("2030")  # it has been opened just now
        monkeypatch.setattr("nas.train.session.BEAT_SECONDS", 0.0)
        beat()
        assert seen().startswith("2030")


def test_who_asks_for_the_lock_does_not_keep_a_driver_out(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    assert is_held(path) is False
    with locked(path):
        assert is_held(path) is True
    assert is_held(path) is False
    asking = os.open(f"{path}.lock", os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    threading.Timer(0.2, lambda: os.close(asking)).start()
    with locked(path):
        assert is_held(path) is True


def test_a_study_without_any_result_can_be_watched(tmp_path: Path, run: Run) -> None:
    store = Store(tmp_path / "study.db", create=True)
    store.add_study(name="bare", seed=0, clip="8x32x32", num_classes=4, config={}, data={})
    code, out, _ = run("watch", tmp_path / "study.db")
    assert code == 0
    assert "bare" in out and "ended; 0 epochs; trials: none" in out
    with locked(tmp_path / "study.db"):  # a driver that has only begun: its session is not stored yet
        frame = frame_of(store, store.study("bare"), datetime.now(UTC))
        out = run("watch", tmp_path / "study.db", "--once")[1]
    assert (frame.ended, frame.driver, frame.died_at) == (False, "driver", None)
    assert "driver running; 0 epochs; trials: none" in out


def start(database: Path, terminal: int) -> subprocess.Popen[bytes]:
    # Ctrl-C has its usual meaning there, also where these tests run in the background of a shell that ignores it.
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {COMMAND}"
    argv = [sys.executable, "-c", code, "watch", str(database), "--every", "0.1"]
    return subprocess.Popen(argv, stdin=terminal, stdout=terminal, stderr=terminal, env={**os.environ, "TERM": "xterm"})


def seen(side: int, text: bytes) -> None:
    """Reads what a terminal shows until `text` stands in it."""
    shown, until = b"", time.monotonic() + PATIENCE
    while text not in shown:
        assert select.select([side], [], [], PATIENCE)[0], f"{text!r} is not in {shown!r}"
        shown = shown[-10_000:] + os.read(side, 4096)
        assert time.monotonic() < until, f"{text!r} is not in {shown!r}"


@pytest.mark.parametrize("how", ["ends", "interrupted"])
def test_on_a_terminal_it_follows_until_the_search_ends_or_ctrl_c(begun: Path, how: str) -> None:
    side, terminal = pty.openpty()
    with contextlib.ExitStack() as driver:
        driver.enter_context(locked(begun))
        watching = start(begun, terminal)
        try:
            seen(side, b"running")
            if how == "ends":
                with Store(begun) as store, store.write() as connection:
                    connection.execute(m.session.update().values(ended_at=s.now()))
                driver.close()
                seen(side, b"ended")
            else:
                watching.send_signal(signal.SIGINT)
            assert watching.wait(timeout=PATIENCE) == 0
        finally:
            watching.kill()
            watching.wait()
            os.close(side)
            os.close(terminal)


def test_a_driver_and_a_watcher_do_not_disturb_each_other(tmp_path: Path, motion: Path) -> None:
    over = {"data": {"root": str(motion), "cache": str(motion.parent / "cache")}, "search": {"trials": 3}}
    write_study(tmp_path / "tiny.yaml", over)
    path = tmp_path / "study.db"
    argv = [sys.executable, "-c", COMMAND, "search", str(tmp_path / "tiny.yaml"), "--db", str(path)]
    driver = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[3])
    frames = []
    try:
        while driver.poll() is None:
            time.sleep(0.05)
            if not path.is_file():
                continue
            try:
                store = Store(path)
                frames.append(frame_of(store, store.study(), datetime.now(UTC)))
                store.close()
            except (StoreError, NotFoundError):  # before the driver has begun
                continue
        assert driver.wait() == 0
    finally:
        driver.kill()
        driver.wait()
    store = Store(path)
    frames.append(frame_of(store, store.study(), datetime.now(UTC)))
    assert any(not frame.ended and frame.running for frame in frames)
    assert frames[-1].ended
    done = [frame.epochs_done for frame in frames]
    assert done == sorted(done)
    assert frames[-1].epochs_done == frames[-1].epochs_total == 4
