"""What the workers of the tests are given to do; imports no torch, so that a process starts within a moment."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any


def double(value: int) -> int:
    return 2 * value


def lasting(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def die(code: int) -> None:
    os._exit(code)


def fail(text: str) -> None:
    raise ValueError(text)


class StubbornError(Exception):
    """An error that pickle cannot make again."""

    def __init__(self, *, name: str) -> None:
        super().__init__(f"no {name}")


def stubborn() -> None:
    raise StubbornError(name="way")


def hang(task: Any) -> None:
    """Gives no sign of life, and does not hear of anything but SIGKILL."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


def lock_and_hang() -> None:
    """Holds the locks of its process's threads for ever, as a thread that died with them would."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
