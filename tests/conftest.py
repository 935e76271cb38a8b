"""What tests of several rooms share: one small set of real videos."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# The networks of the tests are so small that a second thread costs more than it gives. Read when torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What is remembered from one command to the next is that of the tests alone."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def _no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's window limits what is printed, wherever the tests run, unless a test states one."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight classes of MP4 files, 4 train, 2 val and 2 test clips each of 4 frames of 16x16."""
    from trainer.data.motion_clips import make_motion

    root = tmp_path_factory.mktemp("motion")
    make_motion(root, train_per_class=4, val_per_class=2, test_per_class=2, frames=4, size=16)
    return root
