"""A run's folder: `progress.jsonl`, one line per epoch, and `last.pt` with `prev.pt` behind it, to go on from.

The checkpoint is the truth. It carries the lines of all epochs up to its own: after a kill at any instant the
file of lines is made equal to them, and the epochs after it are trained again, with the same result.

Order after an epoch: append the line, write `last.pt.tmp`, rename `last.pt` to `prev.pt`, rename the new file
to `last.pt`; each is on the disk before the next begins. At every instant a complete checkpoint has its name.
Where it is asked for, `best.pt` holds the weights of the most accurate epoch, and is written before `last.pt`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import pickle
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch import Tensor, nn

from trainer.config import CheckpointError, ConfigError
from trainer.failures import FolderBusy, disk_space
from trainer.files import make_folder

_VERSION = 1
_MARK = b"sha256:"  # begins the comment of a checkpoint's archive; 64 hexadecimal digits follow
_END = 22  # bytes of the record that ends an archive without a comment
_NO_COMMENT = b"\0\0"  # the last two bytes of an archive without a comment: the length of one
_DAMAGE = (
    zipfile.BadZipFile,
    pickle.UnpicklingError,
    EOFError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    zlib.error,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Partial:
    """Where a run stands within an epoch.

    Attributes:
        step: Steps of the epoch that are done.
        num_clips: Clips of these steps.
        total: Sum of their losses.
        seconds: Wall time of these steps.
        generators: State of torch's generators, of the CPU and where there is one of the GPU, of each process.
    """

    step: int
    num_clips: int
    total: float
    seconds: float
    generators: Sequence[Sequence[Tensor]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """What a run needs to go on after an epoch; no generator's state, as every epoch seeds its own.

    Attributes:
        epoch: Last epoch that is done.
        run: What must be the same for the run to go on (seed, recipe, data), by name.
        model: State of the network.
        ema: State of the averaged network, if the recipe has one.
        optimizer: State of the optimiser.
        lines: Lines of progress of epochs 1 to `epoch`.
        partial: Where the run stands in the epoch after it; `None` at the end of an epoch.
    """

    epoch: int
    run: Mapping[str, str]
    model: Mapping[str, Tensor]
    ema: Mapping[str, Tensor] | None
    optimizer: Mapping[str, Any]
    lines: Sequence[str]
    partial: Partial | None = None


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run; hold `locked()` around every change.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.path / "last.pt"

    @property
    def previous(self) -> Path:
        """The checkpoint before it."""
        return self.path / "prev.pt"

    @property
    def best(self) -> Path:
        """The weights of the most accurate epoch."""
        return self.path / "best.pt"

    @property
    def progress(self) -> Path:
        """The lines, one an epoch."""
        return self.path / "progress.jsonl"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder and keeps it to this process; the lock goes with the process, however that ends.

        Raises:
            FolderBusy: Another run has it, such as a worker that outlived its driver.
        """
        make_folder(self.path)
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise FolderBusy(f"a folder must be free to train in, but another run has {self.path}") from error
        try:
            yield
        finally:
            os.close(handle)

    def restore(self) -> tuple[Checkpoint | None, tuple[str, ...]]:
        """Reads the newest readable checkpoint and makes the folder agree with it.

        Returns:
            The checkpoint, or `None` to start anew, and a line for every checkpoint that was damaged.

        Raises:
            ConfigError: A checkpoint is of another version of this program.
            DiskFull: There is no room to correct the lines.
        """
        for path in (self.last, self.best):
            path.with_suffix(".pt.tmp").unlink(missing_ok=True)
        damaged: list[str] = []
        found = None
        for path in (self.last, self.previous):
            if not path.exists():
                continue
            try:
                found = _read(path)
            except ConfigError:
                raise
            except _DAMAGE as error:
                damaged.append(_harm(path, error))
                continue
            if path != self.last:
                path.replace(self.last)  # or the next write would put the damaged one in its place
            break
        self._set_lines(() if found is None else found.lines)
        if found is None:
            self.previous.unlink(missing_ok=True)
            self.last.unlink(missing_ok=True)
            self.best.unlink(missing_ok=True)
        return found, tuple(damaged)

    def newest(self) -> Checkpoint | None:
        """What `restore` has found, for the other processes of a team."""
        return _read(self.last) if self.last.exists() else None

    def best_line(self) -> tuple[str | None, tuple[str, ...]]:
        """The line of progress of the epoch whose weights are in `best.pt`, and what `restore` says of damage."""
        try:
            return _read(self.best).lines[-1] if self.best.exists() else None, ()
        except _DAMAGE as error:
            return None, (_harm(self.best, error),)

    def append(self, line: str) -> None:
        """Adds one line of progress, on the disk when this returns.

        Raises:
            DiskFull: There is no room; the lines are as before.
        """
        with disk_space(self.progress), self.progress.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                _write_all(file.fileno(), line.encode() + b"\n")
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    os.truncate(self.progress, before)
                raise

    def write(self, checkpoint: Checkpoint) -> None:
        """Makes a checkpoint the newest one, on the disk when this returns.

        Raises:
            DiskFull: There is no room; the checkpoints are as before.
        """
        with self._written(self.last, checkpoint):
            if self.last.exists():
                self.last.replace(self.previous)

    def write_best(self, checkpoint: Checkpoint) -> None:
        """Makes a checkpoint the best one, on the disk when this returns.

        Raises:
            DiskFull: There is no room; the checkpoints are as before.
        """
        with self._written(self.best, checkpoint):
            pass

    @contextmanager
    def _written(self, path: Path, checkpoint: Checkpoint) -> Iterator[None]:
        """Puts a checkpoint at a path, after the block, which runs once the content is on the disk."""
        temporary = path.with_suffix(".pt.tmp")
        fields = {name: getattr(checkpoint, name) for name in Checkpoint.__slots__}
        fields |= {"version": _VERSION, "run": dict(checkpoint.run), "lines": list(checkpoint.lines)}
        partial = fields.pop("partial")
        if partial is not None:  # an earlier version of this program reads checkpoints without it
            fields["partial"] = asdict(partial)
        with disk_space(temporary):
            try:
                with temporary.open("wb") as file:
                    _save(fields, file)
                    file.flush()
                    os.fsync(file.fileno())
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            yield
            temporary.replace(path)
            self._sync_names()

    def _set_lines(self, lines: Sequence[str]) -> None:
        content = "".join(f"{line}\n" for line in lines).encode()
        if not content:
            self.progress.unlink(missing_ok=True)
            return
        if self.progress.is_file() and self.progress.read_bytes() == content:
            return
        temporary = self.progress.with_suffix(".jsonl.tmp")
        with disk_space(self.progress):
            with temporary.open("wb", buffering=0) as file:
                _write_all(file.fileno(), content)
                os.fsync(file.fileno())
            temporary.replace(self.progress)
            self._sync_names()

    def _sync_names(self) -> None:
        handle = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def load_weights(path: Path, model: nn.Module, *, averaged: bool = True) -> int:
    """Puts the weights that a checkpoint's evaluation used (averaged, where there are such) into a network.

    Args:
        path: A `last.pt`, or a `best.pt`.
        model: The network that was trained.
        averaged: False takes the network's own weights even where there are averaged ones.

    Returns:
        The checkpoint's epoch.

    Raises:
        FileNotFoundError: There is no such file.
        ConfigError: The checkpoint is damaged, of another version, of another network, or of a moment within an epoch.
    """
    checkpoint = _readable(path)
    if checkpoint.partial is not None:
        raise ConfigError(
            f"weights must be those of the end of an epoch, but {path} is of step {checkpoint.partial.step} of epoch "
            f"{checkpoint.epoch + 1}; let the run go on to the end of that epoch"
        )
    weights = checkpoint.model if checkpoint.ema is None or not averaged else checkpoint.ema
    difference = _difference(model, weights)
    if difference:
        raise CheckpointError(f"weights must be of this network, but in {path} {difference}")
    model.load_state_dict(weights)
    return checkpoint.epoch


def run_of(path: Path) -> Mapping[str, str]:
    """What the run of a checkpoint was told (seed, recipe, data), by name, as `fit` wrote it down.

    Raises:
        FileNotFoundError: There is no such file.
        ConfigError: The checkpoint is damaged, or of another version.
    """
    return _readable(path).run


def check_network(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Raises CheckpointError, naming the first difference, unless a run goes on with the network that it began with."""
    difference = _difference(model, weights)
    if difference:
        raise CheckpointError(f"a run must go on with the same network, but in {path} {difference}; use another folder")


def _difference(model: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """The first tensor that is another, in words; empty where all agree."""
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    kept = {name: tuple(value.shape) for name, value in weights.items()}
    for name in {**own, **kept}:
        if own.get(name) != kept.get(name):
            return f"{name} is {kept.get(name, 'absent')}, and {own.get(name, 'absent')} in the network"
    return ""


def _readable(path: Path) -> Checkpoint:
    try:
        return _read(path)
    except ConfigError:
        raise
    except _DAMAGE as error:
        raise ConfigError(f"a checkpoint must be readable, but {path} is damaged") from error


class _Hashed:
    """A file for torch.save: hashes what passes, and keeps the error that torch answers with one of its own.

    Attributes:
        hash: SHA-256 of what was written.
        error: Of the first write that failed.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.hash = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, content: bytes | memoryview) -> int:
        try:
            written = self.file.write(content)
        except OSError as error:
            self.error = self.error or error
            raise
        self.hash.update(content)
        return written

    def flush(self) -> None:
        self.file.flush()


def _save(fields: Mapping[str, Any], file: BinaryIO) -> None:
    """Writes an archive as torch does, with the SHA-256 of all of it as its comment, which torch passes over.

    The checksums of an archive are of its entries alone: a bit that flips in its table of contents may yield other
    tensors without a word.
    """
    hashed = _Hashed(file)
    try:
        torch.save(dict(fields), cast("IO[bytes]", hashed))
    except RuntimeError:
        if hashed.error is not None:  # such as a full disk, of which torch says `unexpected pos`
            raise hashed.error from None
        raise
    comment = _MARK + hashed.hash.hexdigest().encode()
    file.seek(-len(_NO_COMMENT), os.SEEK_END)
    file.write(len(comment).to_bytes(2, "little") + comment)


def _check_digest(file: BinaryIO) -> bool:
    """Whether a checkpoint has a digest, which is then known to be right; earlier versions wrote none.

    Raises:
        BadZipFile: It is another one.
    """
    length = len(_MARK) + 64
    size = file.seek(0, os.SEEK_END) - length - len(_NO_COMMENT)
    if size < 0:
        return False
    file.seek(size)
    tail = file.read()
    if not tail[len(_NO_COMMENT) :].startswith(_MARK):
        return False
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0:
        chunk = file.read(min(size, 1 << 20))
        digest.update(chunk)
        size -= len(chunk)
    digest.update(_NO_COMMENT)
    if tail != length.to_bytes(2, "little") + _MARK + digest.hexdigest().encode():
        raise zipfile.BadZipFile("its checksum is wrong")
    return True


def _check_archive(file: BinaryIO) -> None:
    """Raises BadZipFile unless an archive without a digest is as torch writes it, as far as can be told."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
    end = file.read()
    if not (end.startswith(b"PK\x05\x06") and end.endswith(_NO_COMMENT)):  # such as a part of a digest
        raise zipfile.BadZipFile("its end is missing")
    try:
        with zipfile.ZipFile(file) as archive:
            if any(part.compress_size != part.file_size or part.external_attr for part in archive.infolist()):
                raise zipfile.BadZipFile("its table of contents is damaged")
            bad = archive.testzip()  # torch writes checksums but does not look at them
    except OSError as error:
        if error.errno != errno.EINVAL:  # rights, or a disk that does not answer: the checkpoint may be whole
            raise
        raise zipfile.BadZipFile("its table of contents points to a place before its beginning") from error
    if bad is not None:
        raise zipfile.BadZipFile(f"checksum of {bad} is wrong")


def _read(path: Path) -> Checkpoint:
    if not path.is_dir() and not path.is_file() and path.exists():  # opening a named pipe would wait for ever
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        if not _check_digest(file):
            _check_archive(file)
    fields = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(fields, dict):
        raise ValueError(f"it holds no fields, but a {type(fields).__name__}")
    version = fields.pop("version")
    if version != _VERSION:
        raise CheckpointError(f"checkpoints must be of version {_VERSION}, but {path} is of version {version}")
    partial = fields.pop("partial", None)
    return Checkpoint(**fields, partial=None if partial is None else Partial(**partial))


def _harm(path: Path, error: Exception) -> str:
    # Torch's own words on code in a file say how to run it.
    reason = "it holds objects that are not loaded" if isinstance(error, pickle.UnpicklingError) else str(error)
    return f"{path} is damaged ({(reason.splitlines() or ['empty'])[0]})"


def _write_all(handle: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]
