"""Recorded learning curves as a table.

A table is a file of JSON lines, gzipped if its name ends in `.gz`: `digest`, `seed`, and after each epoch `top1` and
`loss` on val and `seconds`, lists of one length. The space and the clip are those of a study file, so a table says
nothing of a network but what was measured.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.errors import SearchError
from nas.store.database import Store
from nas.store.records import StudyRow
from nas.study.fidelity import recorded_fidelity
from trainer.files import content_of, write_whole

_MOST = 10**9  # seconds of an epoch, and videos


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One training.

    Attributes:
        digest: Of the network.
        seed: Of the training.
        top1: On val after each epoch.
        loss: The same.
        seconds: Of each epoch.
        videos: That it was measured on; 0 where that is not known.
    """

    digest: str
    seed: int
    top1: tuple[float, ...]
    loss: tuple[float, ...]
    seconds: tuple[float, ...]
    videos: int = 0

    def line(self) -> str:
        """As it stands in a file."""
        row = {
            "digest": self.digest,
            "seed": self.seed,
            "top1": [round(value, 6) for value in self.top1],
            "loss": [round(value, 4) for value in self.loss],
            "seconds": [round(value, 2) for value in self.seconds],
            "videos": self.videos,
        }
        return json.dumps(row, separators=(",", ":"))


def read_curves(path: Path) -> list[Curve]:
    """The curves of a file.

    Raises:
        SearchError: It cannot be read, or a line is no curve; names the line.
    """
    try:
        content = content_of(path)
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise SearchError(f"the table {path} cannot be read: {said}") from error
    curves, lines = list[Curve](), dict[tuple[str, int], int]()
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            curve = _curve(json.loads(line))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise SearchError(
                f"line {number} of {path} must be an object with digest, seed and lists of one length top1, loss and "
                f"seconds, but is {line[:60]!r}"
            ) from error
        first = lines.setdefault((curve.digest, curve.seed), number)
        if first != number:
            raise SearchError(
                f"line {number} of {path} is of {curve.digest[:10]} with seed {curve.seed}, as is line {first}; a "
                "training stands once"
            )
        curves.append(curve)
    if not curves:
        raise SearchError(f"the table {path} must hold a curve, but is empty")
    return curves


def _curve(row: Mapping[str, Any]) -> Curve:
    if not all(isinstance(row[name], list) for name in ("top1", "loss", "seconds")):
        raise ValueError
    lists = [tuple(float(value) for value in row[name]) for name in ("top1", "loss", "seconds")]
    top1, loss, seconds = lists
    right = len(top1) == len(loss) == len(seconds) > 0 and all(math.isfinite(v) for one in lists for v in one)
    seed, videos = row["seed"], row.get("videos", 0)
    if not right or type(seed) is not int or type(videos) is not int or not isinstance(row["digest"], str):
        raise ValueError
    in_bounds = min(seconds) >= 0 and max(seconds) <= _MOST and 0 <= videos <= _MOST and abs(seed) < 2**63
    if not in_bounds or not all(0.0 <= value <= 1.0 for value in top1):
        raise ValueError
    return Curve(digest=row["digest"], seed=seed, top1=top1, loss=loss, seconds=seconds, videos=videos)


def write_curves(curves: Iterable[Curve], path: Path) -> None:
    """Writes a file, whole or not at all; the same curves give the same bytes.

    Raises:
        OSError: It cannot be written.
    """
    lines = "".join(f"{curve.line()}\n" for curve in sorted(curves, key=lambda curve: (curve.digest, curve.seed)))
    content = lines.encode()
    write_whole(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def curves_of(store: Store, study: StudyRow) -> tuple[list[Curve], int]:
    """The curves of a search's networks that got to its last rung, and how many did not.

    Raises:
        SearchError: The rungs of the search are no epochs of one training.
    """
    if not recorded_fidelity(study).continues:
        raise SearchError(
            "search.fidelity must be epochs for a table of learning curves, but the rungs of "
            f"{study['name']} are other fidelities"
        )
    whole, lacking = [], 0
    last = max((row["epochs"] for row in store.evaluations(study["id"])), default=0)
    for trial in store.trials(study["id"]):
        epochs = store.epochs(trial["id"])
        top1 = [value for row in epochs if (value := row["top1"]) is not None]
        loss = [value for row in epochs if (value := row["loss"]) is not None]
        if len(epochs) < last or min(len(top1), len(loss)) < len(epochs):
            lacking += 1
            continue
        whole.append(
            Curve(
                digest=trial["digest"],
                seed=trial["seed"],
                top1=tuple(top1),
                loss=tuple(loss),
                seconds=tuple(row["seconds"] for row in epochs),
                videos=epochs[-1]["num_clips"] or 0,
            )
        )
    return whole, lacking
