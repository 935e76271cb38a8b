"""`nas doctor`: what this machine has, and whether what nas needs works on it."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import typer

from nas.cli.options import JSON
from nas.cli.output import print_json, print_table


def doctor(as_json: bool = JSON) -> None:
    """Check versions, devices, decoding, database and disk; exit code 1 if something is missing.

    Example: nas doctor
    """
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("python", platform.python_version),
        ("video-nas", lambda: version("video-nas")),
        ("torch", _torch),
        ("devices", _devices),
        ("precision", _precision),
        ("H.264 round trip", _video),
        ("optuna", lambda: version("optuna")),
        ("sqlite", _sqlite),
        ("disk", _disk),
        ("cores", lambda: str(os.cpu_count())),
    )
    rows = []
    for name, check in checks:
        try:
            rows.append({"check": name, "ok": True, "found": check()})
        except Exception as error:
            rows.append({"check": name, "ok": False, "found": f"{type(error).__name__}: {error}"})
    if as_json:
        print_json(rows)
    else:
        print_table(
            [{**row, "ok": "ok" if row["ok"] else "FAILED"} for row in rows],
            {"check": "check", "ok": "", "found": "found"},
        )
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)


def _torch() -> str:
    import torch

    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _devices() -> str:
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(names) or "cpu only"


def _precision() -> str:
    import torch

    from trainer.device import uses_bf16, usual_device

    device = torch.device(usual_device())
    return f"auto is {'bf16' if uses_bf16('auto', device) else 'fp32'} on {device.type}"


def _video() -> str:
    import numpy as np

    from trainer.data.decode import decode_video
    from trainer.data.motion_clips import write_clip

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_clip(path, np.full((4, 32, 32, 3), 128, np.uint8))
        frames = decode_video(path, short_side=32).frames
    if frames.shape != (4, 32, 32, 3) or abs(float(frames.mean()) - 128) > 8:
        raise RuntimeError(f"4 grey frames came back as {frames.shape}, mean {frames.mean():.0f}")
    return f"PyAV {version('av')}"


def _sqlite() -> str:
    return f"SQLite {sqlite3.sqlite_version}, SQLAlchemy {version('sqlalchemy')}"


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free
    return f"{free / 1e9:.0f} GB free here"
