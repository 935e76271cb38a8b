"""Processes that end together with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


def end_with_parent(number: int = 0) -> None:
    """Ends this process when the one that asked for it has ended, however that came.

    Torch's own watch over loader processes compares the parent's number, which is that of the fork server; and the
    server lives as long as a process of it does.

    Args:
        number: Of a loader process, as torch gives it; it does not matter here.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
