"""What a driver needs before it may decide anything: the lock, the data, and the study's row, each checked."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from nas.errors import NotFoundError, SearchError, StoreError
from nas.places import check_file
from nas.store import tables as m
from nas.store import write as s
from nas.store.database import Store
from nas.store.records import StudyRow
from nas.study.metric import AUTO, check_choice, few_videos
from nas.study.objectives import check_objectives
from nas.study.study import Study, changes
from nas.train.folder import read_record
from nas.train.left import Left
from search_spaces.errors import SpecError
from search_spaces.weights import check_source
from trainer.files import make_folder
from trainer.recipe import Init

if TYPE_CHECKING:
    from trainer.data.clips import Broken, VideoData


@dataclass(frozen=True, kw_only=True, slots=True)
class News:
    """Something the user may want to see.

    Attributes:
        kind: What happened, such as `start`, `promote`, `resume`, `result` or `fail`; `tick` is progress alone.
        text: One line; empty for a tick.
        done: Epochs (or videos, or networks) done.
        total: Of how many.
        left: The time that the search still needs, where it can be told.
    """

    kind: str
    text: str = ""
    done: int = 0
    total: int = 0
    left: Left | None = None


Listener = Callable[[News], None]

BEAT_SECONDS = 5.0  # between two signs of life of a driver
LOCK_SECONDS = 1.0  # `nas status` and `nas watch` ask for the lock, too, for a moment


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Holds the database for one driver; the lock goes with the process, however it ends.

    Raises:
        StoreError: Another driver holds it, or the folder cannot be written.
    """
    try:
        make_folder(database.parent)
        lock = FileLock(f"{database}.lock")
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        raise _held(database) from error
    except OSError as error:
        raise StoreError(f"the folder of {database} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def _held(database: Path) -> StoreError:
    return StoreError(f"one driver at a time: another process holds {database}; wait for it, or give --db another file")


def check_start(study: Study | None, database: Path) -> None:
    """Refuses a start for what can be known before torch is imported, which takes seconds.

    Args:
        study: As its file says; None where the record says what the study is.
        database: The SQLite file, which may not be there yet.

    Raises:
        StoreError: Another driver holds the database, or it was made with other settings.
        SearchError: There is no file or name of the initial weights.
    """
    check_file(database)
    if Path(f"{database}.lock").is_file():
        try:
            with FileLock(f"{database}.lock").acquire(timeout=0):
                pass
        except Timeout as error:
            raise _held(database) from error
        except OSError:  # who takes the lock says so
            pass
    if study is None:
        return
    check_init(study.recipe.init)
    if database.is_file() and database.stat().st_size:  # a driver that was killed at once leaves an empty file
        try:
            opened = Store(database)
        except StoreError:  # one that holds no study yet is begun by the driver, which says what else is wrong
            return
        with opened as store:
            for row in store.studies()[:1]:
                _check_same(store, row, study, apart=("recipe.init.weights", "recipe.init.checksum"))


def check_init(init: Init) -> None:
    """Raises SearchError where there are no such initial weights; reads none, and imports no torch."""
    if init.weights:
        folder = Path(init.weights)
        try:
            if folder.is_dir():
                read_record(folder)
            else:
                check_source(init.weights)
        except (SpecError, NotFoundError) as error:
            raise SearchError(f"recipe.init.weights: {error}") from error


def _check_same(store: Store, row: StudyRow, study: Study, apart: Sequence[str] = ()) -> None:
    """Raises StoreError where a record is of another study, or of other settings, those `apart` aside."""
    if row["name"] != study.name:
        raise StoreError(f"{store.location} holds the study {row['name']}, not {study.name}; give --db another file")
    config: Mapping[str, Any] = json.loads(json.dumps(study.config))
    differ = {key: values for key, values in changes(row["config"], config).items() if key not in apart}
    if differ:
        key, (old, new) = next(iter(differ.items()))
        more = f" and {len(differ) - 1} more" if len(differ) > 1 else ""
        raise StoreError(
            f"{store.location} was made with {key}={old}, but the study now says {new}{more}; undo the change, or give "
            "--db another file (search.trials and search.workers may change)"
        )


def opened_data(study: Study, listener: Listener) -> VideoData:
    """The study's data, decoded on first use; tells the listener how far it is.

    Raises:
        SearchError: The data does not have the classes that the study states, or no sense for its accuracy.
    """
    from trainer.data.clips import open_data

    data = open_data(
        study.located_data(), progress=lambda done, total: listener(News(kind="pack", done=done, total=total))
    )
    if data.layout is not None:
        listener(News(kind="pack", text=data.layout.line()))
    if data.broken:
        first, rest = data.broken[0], len(data.broken) - 1
        more = f", and {rest} more; `nas data check` names them" if rest else ""
        listener(News(kind="pack", text=f"left out: {first.path}, {first.reason}{more}"))
    if study.num_classes and study.num_classes != len(data.classes):
        raise SearchError(
            f"data.num_classes is {study.num_classes}, but {study.data.root} has {len(data.classes)} classes; "
            "name the data that the study is about, or leave data.num_classes out"
        )
    check_choice(study.search.accuracy, multi_label=data.multi_label)
    check_objectives(study.search.objectives, multi_label=data.multi_label, frames=study.data.clip.frames)
    warning = few_videos(len(data.split("val")), class_counts(data, "val"))
    if warning is not None:
        listener(News(kind="pack", text=warning))
    videos = len(data.split("train"))
    if study.recipe.batch_size > videos:
        text = (
            f"recipe.batch_size is {study.recipe.batch_size}, but there are {videos} training videos: a step takes all"
        )
        listener(News(kind="pack", text=text))
    return data


def class_counts(data: VideoData, split: str) -> tuple[int, ...]:
    """Videos of each class of a split; one with several labels counts for each of them."""
    counts = [0] * len(data.classes)
    for entry in map(data.split(split).entry, range(len(data.split(split)))):
        for label in entry.labels if data.multi_label else (entry.label,):
            counts[label] += 1
    return tuple(counts)


def environment() -> dict[str, Any]:
    """Machine and versions, as they are recorded with every session."""
    import torch

    packages = ("torch", "torchvision", "timm", "optuna", "av", "lightning-fabric", "video-nas")
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "versions": {name: version(name) for name in packages},
        "command": sys.argv,
    }


def data_record(study: Study, data: VideoData, lost: Sequence[Broken] = ()) -> dict[str, Any]:
    """What is recorded of the data: classes, clips per split, checksum, broken videos, layout and definition.

    `left_out`, where there is such, are the videos of val that were found to be unreadable after that.
    """
    layout = {} if data.layout is None else {"layout": data.layout.record()}
    return {
        **layout,
        **({} if data.flow is None else {"flow": asdict(data.flow)}),
        "name": study.data.name,
        "root": study.data.root,
        "checksum": data.checksum,
        "classes": list(data.classes),
        "clips": {name: len(split) for name, split in data.splits.items()},
        **({"multi_label": True} if data.multi_label else {}),
        "by_class": {name: list(class_counts(data, name)) for name in data.splits},
        "broken": [{"path": str(item.path), "reason": item.reason} for item in data.broken],
        **({"left_out": [{"path": str(item.path), "reason": item.reason} for item in lost]} if lost else {}),
    }


def left_out(row: StudyRow) -> tuple[str, ...]:
    """Paths of the videos of val that no network of a study is measured on; studies of before have none."""
    return tuple(one["path"] for one in row["data"].get("left_out", ()))


def _readable(study: Study, data: VideoData, listener: Listener) -> tuple[VideoData, tuple[Broken, ...]]:
    """The data without the videos of val that cannot be read, and those; every network is to see the same videos.

    Raises:
        SearchError: A class would have no video left.
    """
    from trainer.data.clips import unreadable, without
    from trainer.data.entries import class_without_videos

    found = unreadable(data, study.data, "val")
    if not found:
        return data, ()
    first, rest = found[0], len(found) - 1
    line = f"{first.path}, {first.reason}{f', and {rest} more' if rest else ''}"
    kept = without(data, "val", {one.path for one in found})
    empty = [title for title, count in zip(data.classes, class_counts(kept, "val"), strict=True) if not count]
    if empty:
        raise SearchError(class_without_videos(empty[0], f"val of {study.data.root}", f"none can be read ({line})"))
    listener(News(kind="pack", text=f"left out of val for all networks: {line}"))
    return kept, found


def study_row(store: Store, study: Study, data: VideoData, listener: Listener = lambda news: None) -> StudyRow:
    """The study's row, made on the first start; then videos of val that cannot be read are left out for good.

    Raises:
        SearchError: None of a class of val can be read.
        StoreError: The database holds another study, or this one with other settings or other data.
    """
    found = store.studies()
    config: Mapping[str, Any] = json.loads(json.dumps(study.config))
    if not found:
        data, lost = _readable(study, data, listener)
        store.add_study(
            name=study.name,
            seed=study.seed,
            clip=study.data.shape,
            num_classes=len(data.classes),
            config=config,
            data=data_record(study, data, lost),
            accuracy=None if study.search.accuracy == AUTO else study.search.accuracy,
        )
        return store.study(study.name)
    _check_same(store, found[0], study)
    if found[0]["data"]["checksum"] != data.checksum:
        raise StoreError(
            f"the videos under {study.data.root} have changed since {store.location} was made, so results could not be "
            "compared; bring them back, or give --db another file"
        )
    return found[0]


def with_budget(store: Store, row: StudyRow, study: Study) -> StudyRow:
    """The study's row with the trials and workers that its search has now, which may be others than when it began."""
    now = {"trials": study.search.trials, "workers": study.search.workers}
    config = row["config"]
    if now.items() <= config["search"].items():
        return row
    with store.write() as connection:
        changed = {**config, "search": {**config["search"], **now}}
        connection.execute(m.study.update().where(m.study.c.id == row["id"]).values(config=changed))
    return store.study(row["name"])


def open_session(store: Store, study: StudyRow, *, workers: int) -> int:
    """Records that a driver has started; returns the session's id."""
    with store.write() as connection:
        return s.insert(
            connection,
            m.session,
            study_id=study["id"],
            started_at=s.now(),
            seen_at=s.now(),
            workers=workers,
            environment=environment(),
        )


class Heartbeat:
    """Says in the record that a driver lives, every few seconds at most; the driver calls it as often as it likes.

    Args:
        store: The database, open for writing.
        session: Of the driver, which has just been opened.
        also: Columns of the session that are written with it.

    Attributes:
        wall_seconds: Of the session, once it is over.
    """

    def __init__(self, store: Store, session: int, also: Callable[[], Mapping[str, Any]] = dict) -> None:
        self._store, self._session, self._also, self._last = store, session, also, time.monotonic()
        self.wall_seconds = 0.0

    def __call__(self) -> None:
        """Writes when it is time."""
        if time.monotonic() - self._last < BEAT_SECONDS:
            return
        self._last = time.monotonic()
        # On a full disk, the next write that counts says so.
        with suppress(StoreError), self._store.write() as connection:
            change = m.session.update().where(m.session.c.id == self._session)
            connection.execute(change.values(seen_at=s.now(), **self._also()))


@contextmanager
def session_of(
    store: Store,
    study: StudyRow,
    *,
    workers: int,
    busy: Callable[[], float] | None = None,
    also: Callable[[], Mapping[str, Any]] = dict,
) -> Iterator[Heartbeat]:
    """A session for the time of a `with` block, recorded with what the driver did with its time.

    Args:
        store: The database, open for writing.
        study: The study's row.
        workers: Processes that train.
        busy: Seconds with a training under way; by default, all of the block is that.
        also: Further columns of the session.
    """
    began = time.perf_counter()
    session = open_session(store, study, workers=workers)
    beat = Heartbeat(store, session, also)

    def close() -> None:
        beat.wall_seconds = time.perf_counter() - began
        values = {"ended_at": s.now(), "wall_seconds": beat.wall_seconds, **also()}
        values["busy_seconds"] = beat.wall_seconds if busy is None else busy()
        with store.write() as connection:
            connection.execute(m.session.update().where(m.session.c.id == session).values(**values))

    try:
        yield beat
    except BaseException:
        with suppress(StoreError):  # what has ended the session is what is told
            close()
        raise
    close()
