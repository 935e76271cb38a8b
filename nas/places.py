"""Where the folder of a training is now: beside its database, which may have been moved with all that belongs to it."""

from __future__ import annotations

from pathlib import Path


def moved(recorded: str, root: Path) -> Path:
    """The folder beside the database if it is there, or else as it was recorded.

    The one beside goes first: after a study was copied, its copy is meant, not what has become of the other.

    Args:
        recorded: As the database has it, such as `runs/mine/promoted/0b97ce5d9f-seed0-e7c92da6f4d5`.
        root: Folder of the database.
    """
    path = Path(recorded)
    beside = root / Path(*path.parts[-2:])
    return beside if beside.is_dir() or not path.is_dir() else path
