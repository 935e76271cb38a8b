"""kill -9 of the driver and of workers at random moments: started again, the search ends as if nothing had been."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nas.store.database import Store
from nas.study.study import Study
from tests.nas.search.test_search import check_promotions, results_of, study_at

COMMAND = [sys.executable, "-c", "from nas.cli.main import run; run()", "search"]


def start(folder: Path, study: Study, database: Path, workers: int) -> subprocess.Popen[bytes]:
    """`nas search` as a process of its own."""
    settings = [f"data.root='{study.data.root}'", f"data.cache='{study.data.cache}'"]
    command = [*COMMAND, str(folder / "tiny.yaml"), *settings, "--db", str(database), "--workers", str(workers)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "driver.log").open("ab") as log:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=environment)


def events(database: Path) -> int:
    """Decisions and outcomes in the database so far; readers may look at any moment."""
    if not database.exists():
        return 0
    try:
        store = Store(database)
        count = len(store.events(1))
        store.close()
        return count
    except Exception:
        return 0


def workers_of(driver: int) -> list[int]:
    """Processes that were started by the driver and train."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rsplit(") ", 1)[1].split()[1])
            if parent == driver and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except (OSError, ValueError, IndexError):
            continue
    return found


def interrupted(folder: Path, study: Study, *, workers: int, kills: int, whom: str, seed: int) -> Path:
    """A search during which the driver, or one of its workers, is killed `kills` times."""
    rng = random.Random(seed)
    database = folder / f"{whom}-{workers}" / "study.db"
    process = start(folder, study, database, workers)
    done = 0
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        if process.poll() is not None:
            assert process.returncode == 0, (folder / "driver.log").read_text()
            break
        if done < kills:
            before = events(database)
            while process.poll() is None and events(database) == before and time.monotonic() < deadline:
                time.sleep(0.02)  # each try gets at least one step further
            time.sleep(rng.uniform(0, 0.3))
            victims = [process.pid] if whom == "driver" else workers_of(process.pid)
            if process.poll() is None and victims:
                os.kill(rng.choice(victims), signal.SIGKILL)
                done += 1
                if whom == "driver":
                    process.wait()
                    process = start(folder, study, database, workers)
        else:
            time.sleep(0.1)
    else:
        process.kill()
        raise AssertionError("the search does not end")
    assert done == kills, "the search was over before everything was killed"
    return database


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, motion: Path) -> tuple[Path, Study]:
    folder = tmp_path_factory.mktemp("killed")
    over = {"search": {"trials": 9, "rungs": [20, 60, 120]}}
    return folder, study_at(folder, motion, over)


def check(study: Study, database: Path) -> None:
    """No evaluation is lost or repeated, and every promotion is justified by the ledger of its moment."""
    store = Store(database)
    evaluations = store.evaluations(store.study()["id"])
    assert [sum(e["rung"] == rung for e in evaluations) for rung in range(3)] == [9, 3, 1]
    assert len({(e["digest"], e["epochs"], e["seed"]) for e in evaluations}) == len(evaluations)
    assert not [t for t in store.trials(1) if t["state"] not in ("stopped", "finished")]
    check_promotions(store, study)


def undisturbed(folder: Path, study: Study) -> Path:
    """The same search, left alone, in a process of its own."""
    database = folder / "undisturbed" / "study.db"
    if not database.exists():
        process = start(folder, study, database, 0)
        assert process.wait() == 0, (folder / "driver.log").read_text()
    return database


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_killed_driver_goes_on_bit_for_bit(study: tuple[Path, Study], tmp_path: Path, kills: int) -> None:
    folder, loaded = study
    database = interrupted(folder, loaded, workers=0, kills=kills, whom="driver", seed=kills)
    try:
        check(loaded, database)
        killed, alone = Store(database), Store(undisturbed(folder, loaded))
        assert results_of(killed) == results_of(alone)
        assert killed.front("tiny") == alone.front("tiny")
        assert killed.jobs(1, "preempted")
    finally:
        database.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["driver", "worker"])
def test_a_pool_loses_nothing_when_somebody_is_killed(study: tuple[Path, Study], whom: str) -> None:
    folder, loaded = study
    database = interrupted(folder, loaded, workers=2, kills=10, whom=whom, seed=1)
    check(loaded, database)


def test_a_killed_worker_is_replaced(study: tuple[Path, Study]) -> None:
    folder, loaded = study
    database = interrupted(folder, loaded, workers=1, kills=1, whom="worker", seed=2)
    check(loaded, database)
    assert [row["reason"] for row in Store(database).jobs(1, "preempted")] == ["worker_died"]


def test_workers_end_with_their_driver(study: tuple[Path, Study]) -> None:
    folder, loaded = study
    database = folder / "orphans" / "study.db"
    process = start(folder, loaded, database, 2)
    deadline = time.monotonic() + 120
    while not (found := workers_of(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found
    process.kill()
    process.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in found) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["data", "frames", "size"])
def test_a_killed_driver_goes_on_bit_for_bit_at_any_fidelity(tmp_path: Path, motion: Path, kind: str) -> None:
    """Each rung is a training of its own, and a kill within one goes on with that one."""
    rungs = {"data": [0.26, 0.5, 1.0], "frames": [1, 2, 4], "size": [8, 12, 16]}[kind]
    loaded = study_at(tmp_path, motion, {"search": {"trials": 9, "fidelity": kind, "epochs": 8, "rungs": rungs}})
    database = interrupted(tmp_path, loaded, workers=0, kills=2, whom="driver", seed=len(kind))
    check(loaded, database)
    killed, alone = Store(database), Store(undisturbed(tmp_path, loaded))
    assert results_of(killed) == results_of(alone)
    assert [e["loss"] for e in killed.epoch_rows(1)] == [e["loss"] for e in alone.epoch_rows(1)]
    assert killed.jobs(1, "preempted")
