"""What fails around a training in mid-run: it is recorded, said in one line, and never counted against a network."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from nas.cli.main import main
from nas.errors import SearchError
from nas.promotion import promotion
from nas.search.driver import run_search
from nas.store import tables
from nas.store.database import Store
from nas.train import jobs
from nas.train import training as objective
from nas.train.session import News
from tests.nas.search.test_search import results_of, study_at
from tests.nas.studies import write_study
from trainer.data.layouts import DataGoneError
from trainer.data.pack.read import open_packed
from trainer.failures import BrokenClip, FolderBusy, NonFiniteLoss, WorkerDied

OVER = {"search": {"trials": 3, "initial": 3, "rungs": [1, 2]}}


def torch_without_room() -> RuntimeError:
    """What `torch.save` raises on a full disk."""
    error = RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 768 vs 662")
    error.__context__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return error


FAULTS: dict[str, tuple[Callable[[], Exception], str]] = {
    "full": (lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "last.pt"), "disk_full"),
    "quota": (lambda: OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "disk_full"),
    "torch": (torch_without_room, "disk_full"),
    "sqlite": (lambda: RuntimeError("database or disk is full"), "disk_full"),
    "disk": (lambda: OSError(errno.EIO, os.strerror(errno.EIO)), "disk_failed"),
    "gone": (lambda: DataGoneError("data.cache must stay in place"), "data_away"),
    "clips": (lambda: BrokenClip("at most data.max_broken = 0.05 of the clips"), "broken_clip"),
    "killed": (lambda: WorkerDied("a loader process was killed"), "worker_died"),
    "busy": (lambda: FolderBusy("another run has it"), "folder_busy"),
}
AT_ONCE = ("gone", "killed", "busy")  # tried again by the same command


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "PAUSE_SECONDS", 0.0)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, motion: Path) -> list[tuple[Any, ...]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    run_search(study_at(folder, motion, OVER), folder / "study.db", workers=0)
    return found(folder / "study.db")


def found(path: Path) -> list[tuple[Any, ...]]:
    with closing(Store(path)) as store:
        return results_of(store)


def jobs_of(path: Path) -> list[tuple[str, str | None]]:
    with closing(Store(path)) as store:
        return [(row["state"], row["reason"]) for row in store.jobs(1)]


def failing(monkeypatch: pytest.MonkeyPatch, module: Any, fault: Callable[[], Exception], calls: range) -> None:
    """Makes some of the calls of `fit` fail once their first epoch is over."""
    fit, count = module.fit, 0

    def sometimes(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count in calls:
            raise fault()
        return fit(*args, **kwargs)

    monkeypatch.setattr(module, "fit", sometimes)


@pytest.mark.parametrize("name", FAULTS)
def test_a_search_goes_on_as_if_nothing_had_been(
    tmp_path: Path, motion: Path, monkeypatch: pytest.MonkeyPatch, undisturbed: list[tuple[Any, ...]], name: str
) -> None:
    fault, reason = FAULTS[name]
    failing(monkeypatch, objective, fault, range(2, 3))
    study, path = study_at(tmp_path, motion, OVER), tmp_path / "study.db"
    if name not in AT_ONCE:
        with pytest.raises(SearchError, match=r"give the same command again to go on$") as caught:
            run_search(study, path, workers=0)
        assert jobs_of(path)[-1] == ("preempted", reason)
        assert len(str(caught.value)) < 500
    run_search(study, path, workers=0)
    assert [row for row in jobs_of(path) if row[0] != "done"] == [("preempted", reason)]
    assert found(path) == undisturbed


def test_a_checkpoint_that_is_not_of_its_trial_stops_the_search_and_fails_nobody(
    tmp_path: Path, motion: Path, undisturbed: list[tuple[Any, ...]]
) -> None:
    study, path = study_at(tmp_path, motion, OVER), tmp_path / "study.db"
    asked: list[Path] = []

    def newer(news: News) -> None:  # as a later version of nas would leave them
        if news.kind == "promote":
            asked.extend(path.parent.glob("trials/*/last.pt"))
            for file in asked:
                shutil.copy(file, file.with_name("aside"))
                torch.save(torch.load(file, weights_only=True) | {"version": 2}, file)

    with pytest.raises(SearchError, match=r"must be of version 1, but .* is of version 2; put that right and give"):
        run_search(study, path, workers=0, listener=newer)
    assert jobs_of(path)[-1] == ("preempted", "disk_failed")
    for file in asked:
        file.with_name("aside").replace(file)
    run_search(study, path, workers=0)
    assert found(path) == undisturbed


@pytest.mark.parametrize("name", AT_ONCE)
def test_what_does_not_pass_stops_the_search_and_fails_only_who_kills(
    tmp_path: Path, motion: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fault, reason = FAULTS[name]
    failing(monkeypatch, objective, fault, range(2, 2 + jobs.MAX_TRIES))
    study, path = study_at(tmp_path, motion, OVER), tmp_path / "study.db"
    if reason == "worker_died":
        assert run_search(study, path, workers=0).failed == 1
    else:
        with pytest.raises(SearchError, match=r"give the same command again to go on$"):
            run_search(study, path, workers=0)
        assert run_search(study, path, workers=0).failed == 0
    assert jobs_of(path).count(("preempted", reason)) == jobs.MAX_TRIES


def test_a_search_whose_every_trial_failed_is_no_success(
    tmp_path: Path, motion: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, objective, lambda: NonFiniteLoss(epoch=1, step=1, value=float("nan")), range(1, 100))
    over = {
        "data": {"root": str(motion), "cache": str(motion.parent / "cache")},
        "search": {"trials": 2, "initial": 2, "rungs": [1, 2]},
    }
    command = ["search", str(write_study(tmp_path / "tiny.yaml", over)), "--db", str(tmp_path / "study.db")]
    for _ in range(2):
        assert main(command) == 2
        assert "the first 2 networks all failed, the last with non_finite_loss" in capsys.readouterr().err


ABLATION = {
    "ablation": {
        "base": {"family": "resnet", "depth": "1-1", "stem_width": 8, "stem": "1x3x3/2", "kind": "3d"},
        "factors": {"kind": ["2d"]},
        "seeds": 2,
        "min_seeds": 2,
        "epochs": 1,
    }
}


@pytest.mark.parametrize("name", ["torch", "gone", "clips", "killed"])
def test_an_ablation_goes_on(
    tmp_path: Path, motion: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    fault, reason = FAULTS[name]
    failing(monkeypatch, objective, fault, range(2, 3))
    over = {"data": {"root": str(motion), "cache": str(motion.parent / "cache")}, **ABLATION}
    command = ["ablate", str(write_study(tmp_path / "tiny.yaml", over)), "--db", str(tmp_path / "study.db")]
    if name not in AT_ONCE:
        assert main(command) == 2
        assert capsys.readouterr().err.strip().endswith("give the same command again to go on")
        with closing(Store(tmp_path / "study.db")) as store:
            assert store.runs(1)[-1]["reason"] == reason
    assert main(command) == 0
    with closing(Store(tmp_path / "study.db")) as store:
        assert {row["state"] for row in store.runs(1)} == {"done"}


def test_an_ablation_whose_every_training_failed_is_no_success(
    tmp_path: Path, motion: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, objective, lambda: NonFiniteLoss(epoch=1, step=1, value=float("nan")), range(1, 100))
    over = {"data": {"root": str(motion), "cache": str(motion.parent / "cache")}, **ABLATION}
    command = ["ablate", str(write_study(tmp_path / "tiny.yaml", over)), "--db", str(tmp_path / "study.db")]
    for _ in range(3):
        assert main(command) == 2
        assert "failed, the last with non_finite_loss" in capsys.readouterr().err


@pytest.mark.parametrize("name", FAULTS)
def test_a_promotion_goes_on(
    tmp_path: Path, motion: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    fault, reason = FAULTS[name]
    over = {"data": {"root": str(motion), "cache": str(motion.parent / "cache")}, "search": {"trials": 1, "initial": 1}}
    assert main(["search", str(write_study(tmp_path / "tiny.yaml", over)), "--db", str(tmp_path / "study.db")]) == 0
    failing(monkeypatch, promotion, fault, range(1, 2))
    command = ["promote", str(tmp_path / "study.db"), "--best-under", "1T"]
    if name not in AT_ONCE:
        capsys.readouterr()
        assert main(command) == 2
        assert "give the same command again to go on" in capsys.readouterr().err
        with closing(Store(tmp_path / "study.db")) as store:
            [row] = store.promotions(1)
            assert (row["state"], row["reason"]) == ("preempted", reason)
    assert main(command) == 0
    with closing(Store(tmp_path / "study.db")) as store:
        [row] = store.promotions(1)
        assert row["state"] == "done"
        assert len(store.evaluations(1, purpose="promotion", split="test")) == 1


class WhenTraining:
    """A listener that does something once, as soon as a training has some epochs."""

    def __init__(self, folder: Path, act: Callable[[], None]) -> None:
        self.folder, self.act, self.news, self.done = folder, act, [], False

    def __call__(self, news: News) -> None:
        self.news.append(news.text)
        if not self.done and any(path.read_bytes().count(b"\n") >= 2 for path in self.folder.glob("trials/*/*.jsonl")):
            self.done = True
            self.act()


def loaders() -> list[int]:
    """Processes that load clips for a training of this one: children of a fork server that it started."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if b"forkserver" in (entry / "cmdline").read_bytes():
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(") ", 1)[1].split()[1])
        except (OSError, ValueError, IndexError):
            continue
    return [pid for pid, parent in parents.items() if parents.get(parent) == os.getpid()]


@pytest.mark.slow
def test_a_killed_loader_process_is_no_failure_of_the_network(tmp_path: Path, motion: Path) -> None:
    """As the out-of-memory killer does it."""
    over = {"data": {"num_workers": 1}, "search": {"trials": 1, "initial": 1, "rungs": [12]}}
    killed: list[int] = []
    stop = threading.Event()

    def hunt() -> None:
        deadline = time.monotonic() + 120
        while not stop.is_set() and len(killed) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
            if any(path.read_bytes().count(b"\n") > len(killed) for path in tmp_path.glob("trials/*/*.jsonl")):
                for pid in set(loaders()) - set(killed):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        run_search(study_at(tmp_path, motion, over), tmp_path / "study.db", workers=0)
    finally:
        stop.set()
        hunter.join()
    assert killed
    assert jobs_of(tmp_path / "study.db")[-1] == ("done", None)
    assert set(jobs_of(tmp_path / "study.db")[:-1]) == {("preempted", "worker_died")}


@pytest.mark.parametrize("source", ["cache", "decode"])
def test_data_that_is_away_for_a_moment_costs_nothing(
    tmp_path: Path, motion: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    shutil.copytree(motion, tmp_path / "data")
    monkeypatch.setattr(jobs, "PAUSE_SECONDS", 0.05)
    over = {"data": {"source": source}, "search": {"trials": 3, "initial": 3, "rungs": [3, 6]}}
    away: list[threading.Timer] = []

    def move() -> None:
        objective.close_data()  # what is open stays readable; the next training has to open it
        (tmp_path / "data").rename(tmp_path / "elsewhere")
        away.append(threading.Timer(0.5, lambda: (tmp_path / "elsewhere").rename(tmp_path / "data")))
        away[0].start()

    watch = WhenTraining(tmp_path, move)
    study = study_at(tmp_path, tmp_path / "data", over)
    summary = run_search(study, tmp_path / "study.db", workers=0, listener=watch)
    away[0].join()
    assert (summary.counts, summary.failed) == ((3, 1), 0)
    reasons = {reason for state, reason in jobs_of(tmp_path / "study.db") if state == "preempted"}
    assert reasons == {"data_away"}
    assert any("was cut short: the data is away" in text for text in watch.news)


def test_data_that_stays_away_stops_the_search_in_one_line(tmp_path: Path, motion: Path) -> None:
    shutil.copytree(motion, tmp_path / "data")
    over = {"data": {"source": "decode"}, "search": {"trials": 3, "initial": 3, "rungs": [3, 6]}}
    study = study_at(tmp_path, tmp_path / "data", over)

    def move() -> None:
        objective.close_data()
        (tmp_path / "data").rename(tmp_path / "elsewhere")

    with pytest.raises(SearchError, match=r"^the data is away: .*; bring it back and give the same command again"):
        run_search(study, tmp_path / "study.db", workers=0, listener=WhenTraining(tmp_path, move))
    (tmp_path / "elsewhere").rename(tmp_path / "data")
    assert run_search(study, tmp_path / "study.db", workers=0).failed == 0


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[None]:
    """A small file system of its own; the test is left out where nobody may mount one."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["700k", "1000k", "1400k"])
def test_a_disk_that_is_really_full_costs_no_trial(
    tmp_path: Path, motion: Path, undisturbed: list[tuple[Any, ...]], size: str
) -> None:
    """Wherever in a search it fills up: while a database, a checkpoint or a line is written."""
    small = tmp_path / "small"
    with mounted(small, size):
        write_study(
            tmp_path / "tiny.yaml", {"data": {"root": str(motion), "cache": str(motion.parent / "cache")}, **OVER}
        )
        command = [sys.executable, "-c", "from nas.cli.main import run; run()", "search", str(tmp_path / "tiny.yaml")]
        command += ["--db", str(small / "study.db")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert "full" in last or "space" in last or "disk I/O error" in last
        with closing(Store(small / "study.db")) as store:
            assert not [row for row in store.trials(1) if row["state"] == "failed"]
        subprocess.run(["mount", "-o", "remount,size=100m", str(small)], check=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert found(small / "study.db") == undisturbed


@pytest.fixture
def packed(tmp_path: Path, motion: Path) -> dict[str, Any]:
    """Settings of a pack of the videos, of which one of val was damaged afterwards."""
    over = {"data": {"root": str(motion), "cache": str(tmp_path / "cache")}}
    study = write_study(tmp_path / "packing.yaml", over)
    assert main(["data", "pack", str(study), "-o", str(tmp_path / "pack")]) == 0
    damage(tmp_path / "pack", 0)
    return {"data": {"root": str(tmp_path / "pack"), "cache": str(tmp_path / "cache"), "source": "pack"}}


def damage(pack: Path, video: int, split: str = "val") -> None:
    """Overwrites the frames of a video; nothing is read of them when a pack is opened."""
    entry = open_packed(pack).splits[split].entry(video)
    with (pack / f"{split}.bin").open("r+b") as file:
        file.seek(entry.offset)
        file.write(b"\xff" * 64)


def test_a_broken_video_of_val_is_left_out_for_all_networks_once(
    tmp_path: Path, packed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """One of 16 is more than `data.max_broken` allows, but no fault of any network."""
    study = str(write_study(tmp_path / "tiny.yaml", {**packed, **OVER, **ABLATION}))
    database = tmp_path / "study.db"
    capsys.readouterr()
    assert main(["search", study, "--db", str(database)]) == 0
    assert capsys.readouterr().err.count("left out of val for all networks: val/") == 1
    assert main(["search", study, "search.trials=4", "--db", str(database)]) == 0
    assert main(["ablate", study, "--db", str(database)]) == 0
    assert main(["promote", str(database), "--best-under", "1T"]) == 0
    assert "left out of val" not in capsys.readouterr().err
    with closing(Store(database)) as store:
        data = store.study()["data"]
        [lost] = data["left_out"]
        assert lost["path"].startswith("val/")
        assert "damaged" in lost["reason"]
        assert data["clips"]["val"] == 15
        assert {row["num_clips"] for row in store.evaluations(1)} == {15}
        assert {row["num_clips"] for row in store.runs(1)} == {15}
        assert [row["num_clips"] for row in store.evaluations(1, purpose="promotion", split="val")] == [15]
        assert {len(row["correct"]) for row in store.runs(1)} == {15}


def test_a_broken_video_of_test_is_left_out_as_far_as_is_allowed_and_told(
    tmp_path: Path, packed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    damage(tmp_path / "pack", 0, "test")
    study = str(write_study(tmp_path / "tiny.yaml", {**packed, **OVER}))
    database = tmp_path / "study.db"
    assert main(["search", study, "--db", str(database)]) == 0
    command = ["promote", study, "--best-under", "1T", "--db", str(database)]
    assert main(command) == 2
    assert "at most data.max_broken = 0.05 of the videos of a test may be unread" in capsys.readouterr().err
    assert main([*command, "data.max_broken=0.1"]) == 0
    assert "left out of the test on test: 1 of its videos (the first, test/" in capsys.readouterr().err
    with closing(Store(database)) as store:
        assert [row["num_clips"] for row in store.evaluations(1, purpose="promotion", split="test")] == [15]
        [promotion] = store.promotions(1)
    record = json.loads((Path(promotion["folder"]) / "network.json").read_text())["record"]
    [(path, reason)] = record["left_out"]["test"].items()
    assert path.startswith("test/") and "damaged" in reason
    assert "val" not in record["left_out"]


def test_a_class_keeps_a_readable_video_of_val(
    tmp_path: Path, packed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    damage(tmp_path / "pack", 1)  # of the same class
    study = str(write_study(tmp_path / "tiny.yaml", {**packed, **OVER}))
    assert main(["search", study, "--db", str(tmp_path / "study.db")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: a class must have at least one usable video in every split, but of ")
    with closing(Store(tmp_path / "study.db")) as store:
        assert store.studies() == []


def test_a_study_of_before_keeps_all_its_videos(
    tmp_path: Path, packed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """What is measured must be on the videos that its finished trainings saw; what is broken now stops the search."""
    study = str(write_study(tmp_path / "tiny.yaml", {**packed, **OVER}))
    assert main(["search", study, "search.trials=1", "--db", str(tmp_path / "study.db")]) == 0
    with closing(Store(tmp_path / "study.db", create=True)) as store, store.write() as connection:
        data = {key: value for key, value in store.study()["data"].items() if key != "left_out"}
        connection.execute(tables.study.update().values(data=data))
    assert main(["search", study, "--db", str(tmp_path / "study.db")]) == 2
    assert "error: videos cannot be read: at most data.max_broken = 0.05 of the clips" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("free", [0, 16, 64, 160])
@pytest.mark.parametrize("command", ["promote", "ablate", "report", "pack", "backup"])
def test_every_command_on_a_full_disk_says_so_in_one_line_and_goes_on(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str], command: str, free: int
) -> None:
    """With so many kilobytes left when it begins."""
    over = {"data": {"root": str(motion), "cache": str(motion.parent / "cache")}, "search": {"trials": 2, "initial": 2}}
    study = str(write_study(tmp_path / "tiny.yaml", {**over, **ABLATION}))
    small = tmp_path / "small"
    with mounted(small, "20m"):
        database = str(small / "study.db")
        assert main(["search", study, "--db", database]) == 0
        words = {
            "promote": ["promote", database, "--best-under", "1T"],
            "ablate": ["ablate", study, "--db", database],
            "report": ["report", database, "-o", str(small / "report.html")],
            "pack": ["data", "pack", study, "-o", str(small / "pack")],
            "backup": ["backup", database, str(small / "copy.db")],
        }[command]
        left = shutil.disk_usage(small).free - free * 1024
        (small / "filler").write_bytes(b"\0" * left)
        capsys.readouterr()
        code = main(words)
        said = capsys.readouterr().err.strip().splitlines()
        if code:
            assert code == 2
            assert said[-1].startswith("error: ")
            assert "full" in said[-1] or "space" in said[-1].lower() or "disk I/O error" in said[-1]
            assert len(said[-1]) <= 500
        else:
            assert free  # so little was to be written
        (small / "filler").unlink()
        assert main(words) == 0
        with closing(Store(database)) as store:
            assert not [
                row
                for row in (*store.trials(1), *store.promotions(1), *store.runs(1))
                if row["state"] != "done" and row["state"] not in ("stopped", "finished")
            ]
