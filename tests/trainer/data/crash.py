"""A decoder that takes its process down; lives in a module of its own so that other processes can import it."""

from __future__ import annotations

import os
from pathlib import Path

from trainer.data.workers import Result, Task, decode_task


def decode_or_crash(task: Task) -> Result:
    if Path(task.path).name == "crash.mp4":
        os._exit(9)
    return decode_task(task)
