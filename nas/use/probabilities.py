"""The class probabilities of the videos of a split, as a value and as a file beside the network."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.errors import NotFoundError
from nas.study.plain import frozen
from nas.study.views import Views
from trainer.config import ConfigError
from trainer.files import check_replaceable, make_folder, regular_file, write_whole

if TYPE_CHECKING:
    from trainer.data.entries import Broken

FORMAT = 1
_ROUNDING = 1e-3  # of means of shares


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scores:
    """What a network says of every video of a split.

    Attributes:
        split: Name of the split.
        classes: Names of the network's outputs, K of them.
        paths: Of the videos below the data's root, V of them.
        labels: (V,) true classes, indices into `classes`; of videos with several labels the first, -1 without any.
        probabilities: (V, K) means over the views, float32.
        clips_right: (V,) share of the views whose own most probable class is the true one.
        views: How each video was looked at.
        checksum: Of the decoded data.
        decoded: How the data was decoded, on which the checksum depends.
        targets: (V, K) which classes a video has, where it may have several; else None.
        left_out: Videos of the split that could not be read, with reasons; the file of scores does not hold them.
    """

    split: str
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    clips_right: NDArray[np.float64]
    views: Views
    checksum: str = ""
    decoded: str = ""
    targets: NDArray[np.bool_] | None = None
    left_out: tuple[Broken, ...] = ()

    @property
    def predictions(self) -> NDArray[np.int64]:
        """(V,) most probable classes."""
        return np.asarray(self.probabilities.argmax(1), dtype=np.int64)

    @property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """The true classes of each video by name: one, or of data with several labels any number."""
        if self.targets is None:
            return tuple((self.classes[label],) if label >= 0 else () for label in self.labels.tolist())
        return tuple(tuple(self.classes[k] for k in np.flatnonzero(row).tolist()) for row in self.targets)

    @property
    def right(self) -> NDArray[np.float64]:
        """(V,) 1 where the most probable class is the true one, or one of them, else 0."""
        if self.targets is not None:
            return self.targets[np.arange(len(self.targets)), self.predictions].astype(np.float64)
        return np.asarray(self.predictions == self.labels, dtype=np.float64)


def scores_file(folder: Path, split: str) -> Path:
    """Where a promotion keeps its scores of a split."""
    return folder / f"scores-{split}.npz"


def save_scores(path: Path, scores: Scores) -> None:
    """Writes scores as plain arrays; the file appears whole or not at all."""
    about = {
        "format": FORMAT,
        "split": scores.split,
        "classes": list(scores.classes),
        "views": asdict(scores.views),
        "checksum": scores.checksum,
        "decoded": scores.decoded,
    }
    arrays: dict[str, Any] = {
        "paths": np.array(scores.paths, dtype=np.str_),
        "labels": scores.labels,
        "probabilities": scores.probabilities,
        "clips_right": scores.clips_right,
        "about": np.array(json.dumps(about, ensure_ascii=False)),
    }
    if scores.targets is not None:
        arrays["targets"] = scores.targets
    write_arrays(path, arrays)


def read_scores(path: Path) -> Scores:
    """Reads what `save_scores` wrote.

    Raises:
        NotFoundError: There is no such file, or it holds something else.
    """
    what = "scores that `nas promote` wrote"
    arrays, about = read_arrays(path, what)
    with read_as(path, what):
        classes = names(about["classes"], "classes")
        count = len(np.atleast_1d(arrays["paths"]))
        several = "targets" in arrays
        check_array(arrays, "paths", "U", (count,))
        check_array(arrays, "labels", "iu", (count,), least=-1 if several else 0, most=len(classes) - 1)
        check_array(arrays, "probabilities", "f", (count, len(classes)), least=-_ROUNDING, most=1 + _ROUNDING)
        check_array(arrays, "clips_right", "f", (count,), least=-_ROUNDING, most=1 + _ROUNDING)
        if several:
            check_array(arrays, "targets", "b", (count, len(classes)))
        return Scores(
            split=text(about, "split"),
            classes=classes,
            paths=tuple(arrays["paths"].tolist()),
            labels=arrays["labels"],
            probabilities=arrays["probabilities"],
            clips_right=arrays["clips_right"],
            views=frozen(Views, about["views"]),
            checksum=text(about, "checksum"),
            decoded=text(about, "decoded"),
            targets=arrays.get("targets"),
        )


def check_videos_file(path: Path) -> None:
    """Refuses a file that `save_videos` could not write, before a long test.

    Raises:
        NotFoundError: It is neither `.csv` nor `.jsonl`, or its folder cannot be made.
    """
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise NotFoundError(f"the file of --videos must end in .csv or .jsonl, but is {str(path)[:200]}")
    try:
        make_folder(path.parent)
        check_replaceable(path)
    except OSError as error:
        raise _unwritable(path, error) from error


def save_videos(path: Path, scores: Scores) -> None:
    """Writes path, label and probabilities of each video, a row each; the file appears whole or not at all.

    In CSV the column of a class is `p:<class>`, and several labels of a video stand in one cell with `; ` between. In
    JSON Lines `label` is a text, a list where videos have several labels, or null where a video has none, and
    `probabilities` is an object by class.

    Args:
        path: Ends in `.csv` or `.jsonl`.
        scores: Of the videos.

    Raises:
        NotFoundError: It cannot be written.
    """
    # The shortest number that is the same in single precision.
    rows = [[float(np.format_float_positional(one, unique=True)) for one in row] for row in scores.probabilities]
    if path.suffix.lower() == ".csv":
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["path", "label", *(f"p:{name}" for name in scores.classes)])
        writer.writerows(
            [name, "; ".join(labels), *row] for name, labels, row in zip(scores.paths, scores.names, rows, strict=True)
        )
        content = text.getvalue()
    else:
        several = scores.targets is not None
        content = "".join(
            json.dumps(
                {
                    "path": name,
                    "label": list(labels) if several else labels[0] if labels else None,
                    "probabilities": dict(zip(scores.classes, row, strict=True)),
                },
                ensure_ascii=False,
            )
            + "\n"
            for name, labels, row in zip(scores.paths, scores.names, rows, strict=True)
        )
    try:
        make_folder(path.parent)
        write_whole(path, content.encode("utf-8"))
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> NotFoundError:
    return NotFoundError(f"the file {str(path)[:200]} cannot be written: {error.strerror}")


def write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Writes an .npz file that `numpy.load(…, allow_pickle=False)` reads; it appears whole or not at all.

    Raises:
        NotFoundError: The file cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        make_folder(path.parent)
        check_replaceable(path)
        with part.open("wb") as file:
            np.savez(file, **arrays)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise NotFoundError(f"the file {path} cannot be written: {error.strerror}") from error


def read_arrays(path: Path, what: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of an .npz file and what its `about` says.

    Raises:
        NotFoundError: There is no such file, it is of a newer format, or it does not hold `what`.
    """
    import zipfile

    try:
        with regular_file(path) as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays.pop("about")))
    except OSError as error:
        reason = error.strerror or "it is damaged"
        raise NotFoundError(f"{path} must hold {what}, but {reason}") from error
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, AttributeError, RecursionError) as error:
        raise NotFoundError(f"{path} must hold {what}, but is something else or damaged") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else about
        raise NotFoundError(f"{path} has format {str(found)[:50]}, and this nas reads format {FORMAT}")
    return arrays, about


@contextlib.contextmanager
def read_as(path: Path, what: str) -> Iterator[None]:
    """Turns what is wrong with the arrays of a file, which are looked at in this block, into one line.

    Raises:
        NotFoundError: The file does not hold `what`.
    """
    try:
        yield
    except KeyError as error:
        raise NotFoundError(f"{path} must hold {what}, but lacks {error}") from error
    except (ValueError, TypeError, ConfigError) as error:
        raise NotFoundError(f"{path} must hold {what}, but {str(error)[:200]}") from error


def check_array(
    arrays: Mapping[str, NDArray[Any]],
    name: str,
    kinds: str,
    shape: tuple[int, ...],
    *,
    least: float = -np.inf,
    most: float = np.inf,
) -> None:
    """Holds an array of a file against what it has to be.

    Args:
        arrays: By name.
        name: Of the array.
        kinds: Letters of NumPy's kinds, such as `iu` for whole numbers.
        shape: Its shape; a length of -1 is any from 1.
        least: The smallest value that can be.
        most: The largest.

    Raises:
        KeyError: It is not there.
        ValueError: It is something else.
    """
    array = arrays[name]
    fits = array.ndim == len(shape) and all(
        a == b or (b == -1 and a > 0) for a, b in zip(array.shape, shape, strict=True)
    )
    if array.dtype.kind not in kinds or not fits:
        raise ValueError(f"its {name} are {array.dtype} of shape {array.shape}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        place = np.argwhere(np.isnan(array))[0]
        raise ValueError(f"its {name} hold no number at [{', '.join(map(str, place))}]")
    if array.dtype.kind in "iuf" and ((array < least) | (array > most)).any():
        raise ValueError(f"its {name} are not all from {least:g} to {most:g}")


def names(values: object, name: str) -> tuple[str, ...]:
    """Names that differ; raises ValueError where they are something else."""
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise ValueError(f"its {name} are not all texts")
    if len(set(values)) != len(values):
        raise ValueError(f"its {name} are not all different")
    return tuple(values)


def text(about: Mapping[str, Any], name: str) -> str:
    """A text of what a file says about itself; raises KeyError or ValueError where there is none."""
    if not isinstance(about[name], str):
        raise ValueError(f"its {name} is no text")
    return str(about[name])
