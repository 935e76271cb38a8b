"""Searches, ablates and trains video networks; see `nas --help`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.read.notebook import Opened
    from nas.train.network import TrainedNetwork

__all__ = ["load", "open"]


def load(path: str | Path, *, device: str = "cpu") -> TrainedNetwork:
    """Opens a folder that `nas promote` left as an eval-mode network.

    Args:
        path: The folder.
        device: Where its weights go.

    Returns:
        An `nn.Module` from clips (N, C, T, H, W) to logits (N, classes), with `class_names`, `clip` and
        `normalisation`.

    Raises:
        NotFoundError: The folder does not hold a network.
    """
    from nas.train.network import load_network  # imports torch, which `nas --help` does without

    return load_network(Path(path), device=device)


def open(path: str | Path) -> Opened:  # noqa: A001  (`nas.open(…)` is what it is for)
    """Opens a study's database to look at: its tables as data frames, its networks as specs or modules.

    Args:
        path: The database, or the folder that holds `study.db`.

    Raises:
        StoreError: There is no such database, or it is not one of nas.
    """
    from nas.read.notebook import Opened  # imports the store, which `import nas` does without

    return Opened(path)
