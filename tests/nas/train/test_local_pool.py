"""Which GPU the processes of a pool see; no GPU is needed to be told its name."""

from __future__ import annotations

import os

import pytest

from nas.train.executors import LocalPool


@pytest.mark.parametrize(
    ("visible", "seen"),
    [("4, GPU-5f2a,-1,1", ["4", "GPU-5f2a", "4"]), (None, ["0", "1", "0"])],
)
def test_processes_share_the_gpus_that_the_driver_was_kept_to(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, seen: list[str]
) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    pool = LocalPool(3, num_gpus=2)
    try:
        futures = [pool.submit(os.getenv, "CUDA_VISIBLE_DEVICES") for _ in seen]
        assert [future.result() for future in futures] == seen
    finally:
        pool.shutdown()
