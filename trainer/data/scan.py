"""Headers and contents of many videos, read by several processes, and kept in a journal: nothing is read twice."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from trainer.data.headers import ANY, Header, Needed, read_header
from trainer.data.layouts.values import DataError, Layout
from trainer.data.workers import CrashError, alone
from trainer.files import make_folder

FORMAT = 3
"""Raised whenever a line of the journal changes its form or a header its meaning."""

_CHUNK = 32  # files that a process takes at a time
_FEW = 96  # files that are read sooner than processes are started
_ENDS = 65_536  # bytes of the beginning and of the end that are compared before whole files are

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """One video to look at.

    Attributes:
        path: Path below the root.
        place: Where it is.
        images: Images of a folder of frames; 0 for a file.
        size: Bytes.
        time: Time of modification in nanoseconds; -1 if there is no such file.
    """

    path: str
    place: str
    images: int
    size: int
    time: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Scanned:
    """What was read.

    Attributes:
        headers: By path below the root.
        read: How many headers were read now; the others were in the journal.
    """

    headers: Mapping[str, Header]
    read: int


def files_of(layout: Layout) -> list[File]:
    """The videos of a layout with their sizes and times."""
    found = []
    for videos in layout.splits.values():
        for video in videos:
            place = str(layout.root / video.path)
            try:
                stat = os.stat(place)  # noqa: PTH116 - no Path for each of 100,000 files
                size, time = stat.st_size, stat.st_mtime_ns
            except OSError:
                size, time = 0, -1
            found.append(File(path=video.path, place=place, images=video.frames, size=size, time=time))
    return found


def scan(
    files: Sequence[File],
    *,
    needed: Needed = ANY,
    decode: bool = False,
    journal: Path | None = None,
    num_workers: int | None = None,
    progress: Progress | None = None,
) -> Scanned:
    """Reads the headers of videos.

    Args:
        files: The videos.
        needed: What a clip needs.
        decode: Decode every frame.
        journal: File that keeps what was read, line by line: a scan that was interrupted goes on from there, and a file
            that has not changed since is not read again. None keeps nothing.
        num_workers: Processes; 0 reads in this one, None takes as many as there are cores, or none for few files.
        progress: Called with (files done, files in all).

    Raises:
        DataError: The journal cannot be written.
    """
    with _Journal(journal, {"format": FORMAT, **asdict(needed), "decode": decode}) as book:
        headers = {file.path: found for file in files if (found := book.known(file)) is not None}
        todo = [file for file in files if file.path not in headers]
        done, total = len(headers), len(files)
        if progress is not None:
            progress(done, total)
        for file, header in _read(todo, needed, decode, num_workers):
            headers[file.path] = header
            book.add(file, header)
            done += 1
            if progress is not None and (done % _CHUNK == 0 or done == total):
                progress(done, total)
    return Scanned(headers=headers, read=len(todo))


def same_contents(files: Sequence[File]) -> list[tuple[File, ...]]:
    """Groups of files that hold the same bytes; folders of frames are not compared.

    Only files of one size can be equal, and of those only the ones whose beginnings and ends are: so hardly a file is
    read as a whole.
    """
    by_size: dict[int, list[File]] = defaultdict(list)
    for file in files:
        if file.time >= 0 and not file.images and file.size:
            by_size[file.size].append(file)
    groups: list[tuple[File, ...]] = []
    for size, alike in by_size.items():
        if len(alike) < 2:
            continue
        for ends in _parted(alike, lambda file, size=size: _digest(file, size, whole=False)):  # type: ignore[misc]
            if size <= 2 * _ENDS:
                groups.append(tuple(ends))
            else:
                groups += [
                    tuple(group)
                    for group in _parted(ends, lambda file, size=size: _digest(file, size, whole=True))  # type: ignore[misc]
                ]
    return groups


def _parted(files: Sequence[File], key: Callable[[File], bytes | None]) -> list[list[File]]:
    groups: dict[bytes, list[File]] = defaultdict(list)
    for file in files:
        digest = key(file)
        if digest is not None:
            groups[digest].append(file)
    return [group for group in groups.values() if len(group) > 1]


def _digest(file: File, size: int, *, whole: bool) -> bytes | None:
    try:
        with Path(file.place).open("rb") as opened:
            if whole:
                return hashlib.file_digest(opened, "sha256").digest()
            digest = hashlib.sha256(opened.read(_ENDS))
            opened.seek(max(size - _ENDS, opened.tell()))
            digest.update(opened.read(_ENDS))
            return digest.digest()
    except OSError:
        return None  # it is reported as unreadable by its header


class _Journal:
    """Lines of what was read; a torn last line, as a crash leaves it, is passed over."""

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        self._path = path
        self._settings = dict(settings)
        self._known: dict[str, tuple[int, int, int, dict[str, Any]]] = {}
        self._file: IO[str] | None = None

    def __enter__(self) -> _Journal:
        if self._path is None:
            return self
        try:
            whole = self._load()
            make_folder(self._path.parent)
            self._file = self._path.open("a" if whole else "w", encoding="utf-8")
            if not whole:
                self._known = {}
                self._file.write(json.dumps(self._settings) + "\n")
        except OSError as error:
            raise self._failed(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # add() has told about a full disk
                self._file.close()

    def known(self, file: File) -> Header | None:
        found = self._known.get(file.path)
        if found is None or found[:3] != (file.size, file.time, file.images):
            return None
        return Header(**{**found[3], "remarks": tuple(found[3]["remarks"])})

    def add(self, file: File, header: Header) -> None:
        if self._file is None:
            return
        try:
            self._file.write(json.dumps([file.path, file.size, file.time, file.images, asdict(header)]) + "\n")
        except OSError as error:
            raise self._failed(error) from error

    def _load(self) -> bool:
        """Reads the lines; False if there are none that fit."""
        assert self._path is not None
        try:
            lines = self._path.read_text(encoding="utf-8").split("\n")
            if json.loads(lines[0]) != self._settings:
                return False
        except (FileNotFoundError, ValueError):
            return False
        for line in lines[1:]:
            try:
                path, size, time, images, header = json.loads(line)
                Header(**header)
            except (ValueError, TypeError):
                continue
            self._known[path] = (size, time, images, header)
        if lines[-1]:  # the next line must not be glued to a torn one
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n")
        return True

    def _failed(self, error: OSError) -> DataError:
        return DataError(
            f"the journal of a check must be a file that can be written, but {self._path} cannot: {error.strerror}; "
            "free space, or choose another data.cache"
        )


def _read(
    files: Sequence[File], needed: Needed, decode: bool, num_workers: int | None
) -> Iterator[tuple[File, Header]]:
    if num_workers is None:
        num_workers = 0 if len(files) < (4 if decode else _FEW) else os.cpu_count() or 1
    if num_workers == 0:
        for file in files:
            yield file, read_header(file.place, num_images=file.images, needed=needed, decode=decode)
        return
    size = 1 if decode else _CHUNK
    chunks = [tuple(files[start : start + size]) for start in range(0, len(files), size)]
    lost: list[File] = []
    for chunk, headers in _in_processes(chunks, needed, decode, num_workers):
        if headers is None:
            lost += chunk
        else:
            yield from zip(chunk, headers, strict=True)
    # One of the files made the reader crash: each is read in a process of its own.
    for file in lost:
        try:
            (header,) = alone(_headers, (file,), needed, decode)
        except CrashError:
            header = Header(kind="undecodable", reason="the decoder crashed")
        yield file, header


def _in_processes(
    chunks: Sequence[tuple[File, ...]], needed: Needed, decode: bool, num_workers: int
) -> Iterator[tuple[tuple[File, ...], list[Header] | None]]:
    """Yields chunks with their headers as they are done; None for the chunks that were under way in a crash."""
    waiting = list(reversed(chunks))
    while waiting:
        # Not forked: this process may hold threads that a fork would leave in mid-air.
        pool = ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn"))
        under_way: dict[Future[list[Header]], tuple[File, ...]] = {}
        try:
            while waiting or under_way:
                while waiting and len(under_way) < 4 * num_workers:
                    chunk = waiting[-1]
                    under_way[pool.submit(_headers, chunk, needed, decode)] = chunk
                    waiting.pop()
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    headers = future.result()
                    yield under_way.pop(future), headers
        except BrokenProcessPool:
            for chunk in under_way.values():
                yield chunk, None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _headers(files: tuple[File, ...], needed: Needed, decode: bool) -> list[Header]:
    return [read_header(file.place, num_images=file.images, needed=needed, decode=decode) for file in files]
