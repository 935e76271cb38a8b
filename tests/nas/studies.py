"""Small studies for tests."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import yaml

TINY: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "data": {
        "name": "motion",
        "root": "data/motion",
        "num_classes": 8,
        "clip": {"frames": 4, "height": 16, "width": 16},
        "sampling": "uniform",
        "short_side": 16,
    },
    "space": {
        "domains": {
            "depth": ["1-1"],
            "stem_width": [8],
            "stem": ["1x3x3/2"],
            "kind": {"values": ["2d", "3d", "p3d_a"], "per": "stage"},
            "kernel": [3, 5],
        }
    },
    "recipe": {"batch_size": 8, "lr": 0.003, "ema_decay": 0.9},
    "search": {"trials": 9, "initial": 3, "rungs": [1, 2, 3], "sampler": "random"},
    "promote": {"epochs": 2},
}


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid over `base`."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def write_study(path: Path, over: dict[str, Any] | None = None) -> Path:
    """Writes the tiny study, changed by `over`, to `path`."""
    path.write_text(yaml.safe_dump(merged(TINY, over or {})), encoding="utf-8")
    return path


def content_of(path: Path) -> list[str]:
    """All that a database holds; its bytes also depend on when SQLite moved its log into the file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return list(connection.iterdump())
