from __future__ import annotations

import operator
import signal
import sys
from pathlib import Path

import pytest

from tests.trainer.data import crash as crashes
from trainer.data import workers
from trainer.data.decode import Decoded
from trainer.data.entries import Task
from trainer.data.workers import CrashError, alone, decode_task, each
from trainer.failures import WorkerDied


@pytest.fixture
def tasks(tmp_path, write_video):
    paths = [write_video(tmp_path / f"{count}.mp4", count) for count in (3, 5, 4, 7, 6, 2)]
    return [Task(path=str(path), short_side=24) for path in paths]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_results_come_in_the_order_of_the_tasks(tasks, num_workers):
    Path(tasks[2].path).write_bytes(b"no video")
    results = list(each(tasks, decode_task, num_workers=num_workers))
    lengths = [len(r.frames) if isinstance(r, Decoded) else None for r in results]
    assert lengths == [3, 5, None, 7, 6, 2]
    assert str(results[2]).startswith("cannot be decoded: Invalid data")


def test_a_folder_of_frames_counts_as_its_images(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        for number in range(4):
            with (folder / f"img_{number}.jpg").open("wb") as file:
                file.truncate(7 * 2**20)
    tasks = [Task(path=str(folder), short_side=24, images=4) for folder in (one, two)]
    assert workers._little(tasks[:1]) and not workers._little(tasks)


def test_a_crash_costs_one_video_and_no_other(tasks, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    sys.modules.pop("crash", None)
    import crash

    tasks[1] = Task(path=str(Path(tasks[1].path).rename(tmp_path / "crash.mp4")), short_side=24)
    results = list(each(tasks * 2, crash.decode_or_crash, num_workers=1))
    lengths = [len(r.frames) if isinstance(r, Decoded) else r for r in results]
    assert lengths == [3, "the decoder crashed", 4, 7, 6, 2] * 2


@pytest.mark.parametrize(("how", "kind"), [(signal.SIGKILL, WorkerDied), (signal.SIGSEGV, CrashError)])
def test_a_killed_decoder_is_told_from_one_that_crashed(how, kind):
    """A file is at fault for the latter alone."""
    with pytest.raises(kind):
        alone(signal.raise_signal, how)


def test_what_a_process_of_its_own_gives_or_raises_comes_back():
    assert alone(operator.mul, 6, 7) == 42
    with pytest.raises(ZeroDivisionError):
        alone(operator.truediv, 1, 0)


def test_a_killed_decoder_is_never_a_reason_to_leave_a_video_out(tasks):
    with pytest.raises(WorkerDied, match="free some and give the same command again"):
        list(each(tasks, crashes.killed, num_workers=1))
