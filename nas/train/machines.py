"""Many machines as one: what the user asks for, and whether a machine may train here; free of Ray and torch.

What a node must be able to do is tried, not asked: it sees a file that the driver wrote, and its lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nas.errors import SearchError
from trainer.files import make_folder

PACKAGES = ("nas", "search_spaces", "trainer")
MOST_NAMES = 2000  # of a folder of data that are compared
PATIENCE = 150.0  # seconds: Ray ends a node that has lost its head after 60, an NFS server frees locks after 90


@dataclass(frozen=True, kw_only=True, slots=True)
class Machines:
    """A Ray cluster as the user names it.

    Attributes:
        address: `auto`, `local`, or `host:port` of the head.
        cpus: CPUs, and so threads, of each job.
        at_most: Jobs at once; 0 for as many as the cluster has room for.
    """

    address: str
    cpus: int = 1
    at_most: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What must be the same wherever jobs of one study are trained.

    Attributes:
        python: Version of Python.
        torch: Version of torch.
        video_nas: Version of this program, with a checksum of its source: development has many a 0.1.0.
        precision: What `recipe.precision=auto` is there; empty where the recipe states it, or GPUs train.
    """

    python: str
    torch: str
    video_nas: str
    precision: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeProbe:
    """What a node is shown before it may train.

    Attributes:
        file: A file that the driver wrote, and whose lock it holds.
        token: What it wrote.
        cwd: Where the command was given; relative paths of the study begin there.
        places: Files and folders of the data, each with folders below it that the driver sees.
        precision: Whether it matters what `recipe.precision=auto` is on the node's CPU.
    """

    file: str
    token: str
    cwd: str
    places: Mapping[str, Sequence[str]]
    precision: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeAnswer:
    """What a node says to a probe: its facts, and what it could not do; empty if nothing."""

    facts: Facts
    problem: str = ""


def facts(*, precision: bool = False) -> Facts:
    """The facts of this machine; imports torch only for the precision."""
    auto = ""
    if precision:
        import torch

        from trainer.device import uses_bf16

        auto = "bf16" if uses_bf16("auto", torch.device("cpu")) else "fp32"
    return Facts(
        python=platform.python_version(),
        torch=_version("torch"),
        video_nas=f"{_version('video-nas')} (source {_source()})",
        precision=auto,
    )


@contextmanager
def shown(file: Path, places: Sequence[str], *, precision: bool) -> Iterator[NodeProbe]:
    """Writes the file of a probe and holds its lock until the context ends.

    Args:
        file: In the study's folder.
        places: Files and folders of the data.
        precision: As in `NodeProbe`.

    Raises:
        SearchError: The file system has no locks.
    """
    token = secrets.token_hex(8)
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            raise SearchError(
                f"the file system of {file.parent} gives no locks ({error.strerror}), which keep two machines from "
                "training in one folder; mount it with locks"
            ) from error
        os.ftruncate(handle, 0)
        os.write(handle, token.encode())
        os.fsync(handle)
        yield NodeProbe(
            file=str(file.resolve()),
            token=token,
            cwd=str(Path.cwd()),
            places={str(Path(place).resolve()): tuple(names(Path(place))) for place in places},
            precision=precision,
        )
    finally:
        file.unlink(missing_ok=True)
        os.close(handle)


def look(probe: NodeProbe) -> NodeAnswer:
    """Tries on a node what a job will need there."""
    here = facts(precision=probe.precision)
    return NodeAnswer(facts=here, problem=_problem(probe))


def refusal(node: str, mine: Facts, seen: NodeAnswer) -> str | None:
    """Why a node cannot train for this driver, in one line; None if it can."""
    for name, value in asdict(mine).items():
        other = getattr(seen.facts, name)
        if other != value and name == "precision":
            return (
                f"recipe.precision is auto, which is {other} on node {node}, but {value} on this machine, and results "
                "could not be compared; state recipe.precision=fp32 or bf16"
            )
        if other != value:
            label = name.replace("_", "-")
            return (
                f"every node must have the same python, torch and video-nas, but node {node} has {label} {other}, and "
                f"this machine has {value}"
            )
    return f"node {node} {seen.problem}" if seen.problem else None


def names(place: Path) -> list[str]:
    """Folders in a folder and in those, in order, at most `MOST_NAMES`; none of a file.

    Files are left out: those of a cache come and go while other studies decode.
    """
    found: list[str] = []
    for name in _folders(place):
        found += [name, *(f"{name}/{below}" for below in _folders(place / name))]
        if len(found) >= MOST_NAMES:
            break
    return found[:MOST_NAMES]


def places_of(*values: Any) -> list[str]:
    """Texts in the fields of some values that name a file or folder on this machine, each once."""
    texts = [text for value in values for text in asdict(value).values() if isinstance(text, str)]
    return [text for text in dict.fromkeys(texts) if text and Path(text).exists()]


def room(resources: Mapping[str, float], *, cpus: int, gpu: bool) -> int:
    """Jobs that a node has room for at once: `cpus` CPUs each, and one GPU where GPUs train."""
    jobs = int(resources.get("CPU", 0.0) // cpus)
    return min(jobs, int(resources.get("GPU", 0.0))) if gpu else jobs


@contextmanager
def alone(folder: Path, *, patience: float = PATIENCE) -> Iterator[bool]:
    """Keeps a job's folder to this process on all machines; waits while another has it.

    The folder's own lock, which `fit` takes, is that of a directory, and NFS keeps those on one machine.
    A file opened for writing is locked for all machines. A node that lost its head may train on for a minute.

    Yields:
        Whether the folder is free.
    """
    try:
        make_folder(folder)
        handle = os.open(folder / "machines.lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # a full disk, as a rule: training will say so
        yield True
        return
    try:
        deadline = time.monotonic() + patience
        while not (free := _lock(handle)) and time.monotonic() < deadline:
            time.sleep(0.2)
        yield free
    finally:
        os.close(handle)


def _problem(probe: NodeProbe) -> str:
    shared = "; the study's folder and its data must lie on a file system that all nodes share"
    try:
        os.chdir(probe.cwd)
    except OSError:
        return f"has no folder {probe.cwd}, where the command was given{shared}"
    file = Path(probe.file)
    try:
        handle = os.open(file, os.O_RDWR)
    except PermissionError:
        return f"cannot write in {file.parent}; every node must be able to"
    except OSError:
        return f"does not see {file}, which this machine wrote{shared}"
    try:
        if os.read(handle, 100).decode(errors="replace") != probe.token:
            return f"sees another {file} than this machine wrote{shared}"
        if _lock(handle):
            return (
                f"does not see the lock that this machine holds on {file}; mount the file system with locks for all "
                "nodes (NFS: without nolock or local_lock, Lustre: with flock)"
            )
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        return f"cannot write in {file.parent}: {error.strerror}; every node must be able to"
    finally:
        os.close(handle)
    for place, expected in probe.places.items():
        if not Path(place).exists():
            return f"does not see {place}{shared}"
        missing = [name for name in expected if not (Path(place) / name).exists()]
        if missing:
            return f"does not see {Path(place) / missing[0]}{shared}"
    return ""


def _folders(place: Path) -> list[str]:
    if not place.is_dir():
        return []
    with os.scandir(place) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


@lru_cache(maxsize=1)
def _source() -> str:
    """Eight letters that name the Python files of this program."""
    root = Path(__file__).parents[2]
    content = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            content.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return content.hexdigest()[:8]
