from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainer.data import workers
from trainer.data.decode import Decoded
from trainer.data.workers import Task, decode_all


@pytest.fixture
def tasks(tmp_path, write_video):
    paths = [write_video(tmp_path / f"{count}.mp4", count) for count in (3, 5, 4, 7, 6, 2)]
    return [Task(path=str(path), short_side=24) for path in paths]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_results_come_in_the_order_of_the_tasks(tasks, num_workers):
    Path(tasks[2].path).write_bytes(b"no video")
    results = list(decode_all(tasks, num_workers=num_workers))
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
    results = list(decode_all(tasks * 2, num_workers=1, function=crash.decode_or_crash))
    lengths = [len(r.frames) if isinstance(r, Decoded) else r for r in results]
    assert lengths == [3, "the decoder crashed", 4, 7, 6, 2] * 2
