"""Kinetics from CVDF's bucket, or from a mirror of it: archives fetched, checked, unpacked and arranged by class.

The bucket (https://github.com/cvdfoundation/kinetics-dataset) holds, below a base address, the archives of each split,
`{split}/k400_{split}_path.txt` with the address of one a line, `annotations/{split}.csv`, and replacements of corrupted
videos. What is done stands in `ROOT/get.jsonl`, one line an archive: the same call goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

from filelock import FileLock, Timeout

from trainer.data.download import LARGEST, FetchError, Unpacked, fetch, fetch_text, unpack
from trainer.data.layouts import SPLITS, DataError
from trainer.data.layouts.files import Listing
from trainer.data.layouts.folders import is_table, read_flat, replaced, replacements_of, tables
from trainer.data.layouts.text import read_text
from trainer.files import make_folder

CVDF = "https://s3.amazonaws.com/kinetics/400"
"""Base address of Kinetics-400."""

REPLACEMENT = "replacement_for_corrupted_k400.tgz"

_BOOK = "get.jsonl"
_ARCHIVES = ".archives"
_LOCK = ".get.lock"
_ARCHIVE = re.compile(r"[\w.-]{1,100}\.(?:tar\.gz|tgz)", re.ASCII)
_MOST = 10_000  # archives of a split: Kinetics-400 has 242 of train
_LARGEST_TABLE = 256 * 2**20  # bytes: that of train has 15 MB

Listener = Callable[[str, int, int], None]
"""Called with (what is done, done, in all): bytes of an archive, or archives."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Archive:
    """One archive.

    Attributes:
        split: Whose videos it holds; `replacement` for those that stand in for corrupted ones.
        name: Of its file.
        state: `unpacked`, or `broken` where it could not be fetched or unpacked whole.
        reason: Of `broken`.
        sha256: Of the archive; empty where it was not fetched.
        videos: Taken from it.
        refused: What stood in it and was not taken: a path out of the folder, a link, no video.
    """

    split: str
    name: str
    state: str
    reason: str = ""
    sha256: str = ""
    videos: int = 0
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Got:
    """What `get_kinetics` has left on disk.

    Attributes:
        root: The data set, as `cvdf` (arranged) or `cvdf-flat`.
        archives: What became of each.
        videos: Videos of each split.
        unlisted: Videos that are in no table, or under several classes of it; they are moved to `ROOT/unlisted`.
        unused: Names that `checksums` has and no archive of these splits.
    """

    root: Path
    archives: tuple[Archive, ...]
    videos: Mapping[str, int]
    unlisted: int
    unused: tuple[str, ...] = ()

    @property
    def broken(self) -> tuple[Archive, ...]:
        """Archives that could not be used; the same call tries them again."""
        return tuple(one for one in self.archives if one.state == "broken")


def get_kinetics(
    root: str | Path,
    *,
    base: str = CVDF,
    splits: Sequence[str] = ("train", "val"),
    limit: int = 0,
    checksums: Mapping[str, str] | None = None,
    arrange: bool = True,
    keep: bool = False,
    unpack_limit: int = 0,
    tries: int = 5,
    listener: Listener = lambda text, done, total: None,
) -> Got:
    """Prepares what CVDF offers of Kinetics-400.

    Archives are taken from the folder of their split below `base`, whatever host the list names, so that a mirror needs
    no lists of its own. An archive that cannot be fetched or is damaged is recorded, and the others go on.

    Args:
        root: Folder of the data set; made if there is none.
        base: Base address, http or https.
        splits: Which splits.
        limit: Number of archives of each split to take, from the first; 0 takes all.
        checksums: SHA-256 or MD5 by name of archive, as lower-case hex; by `split/name` where splits have archives of
            one name. Without one, an ETag that is an MD5 is held to, and else what gzip and tar check themselves.
        arrange: Move the videos to `videos/<split>/<class>/`; else they stay flat. Either is a layout that is read.
        keep: Keep the archives.
        unpack_limit: Bytes that an archive may have and unpack to; 0 as `unpack` allows.
        tries: How often an archive is tried, with pauses that grow.
        listener: Hears how far it is.

    Returns:
        What is there now.

    Raises:
        DataError: The base address, a list or a checksum cannot be used, another process fetches into the folder, or
            the disk is full; what was done is kept.
    """
    root = Path(root)
    base = _checked(base).rstrip("/")
    for split in splits:
        if split not in SPLITS:
            raise DataError(f"a split must be one of {', '.join(SPLITS)}, but is {split!r}")
    try:
        make_folder(root)
        with _alone(root):
            (root / _ARCHIVES).mkdir(exist_ok=True)
            whole = _plan(root, base, splits)
            plan = _first(whole, limit)
            unused = _unused(whole, splits, checksums or {})
            sums = _sums(plan, checksums or {})
            book = _book(root)
            for number, (split, name, address) in enumerate(plan):
                listener(f"{split} {name}", number, len(plan))
                before = book.get((split, name))
                if before is not None and before.state == "unpacked":
                    continue
                checksum = sums.get((split, name), "")
                archive = _one(root, split, name, address, checksum, tries, keep, unpack_limit, listener)
                book[split, name] = archive
                _note(root, archive)
            listener("archives", len(plan), len(plan))
            unlisted = _arrange(root, splits) if arrange else 0
            if not keep:
                with contextlib.suppress(OSError):  # what is left of a broken archive stays for the next try
                    (root / _ARCHIVES).rmdir()
    except OSError as error:
        raise DataError(
            f"the data needs a disk with room that can be written, but using {error.filename or root} failed: "
            f"{error.strerror}; mend that and give the same command again, it goes on"
        ) from error
    except FetchError as error:
        raise DataError(f"{error}; give the same command again, it goes on") from error
    done = tuple(book[split, name] for split, name, _ in plan)
    return Got(root=root, archives=done, videos=_count(root, splits), unlisted=unlisted, unused=unused)


def _checked(base: str) -> str:
    """A base address that can be printed and recorded.

    Raises:
        DataError: It cannot be used, or there may be a secret in it, which the message does not repeat.
    """
    if "@" in base.partition("?")[0] or "?" in base or "#" in base:
        raise DataError(
            "a base address must read http://HOST/PATH without a user, a password or a query, since it is printed and "
            "recorded; what needs a password is fetched by other means"
        )
    try:
        parts = urlparse(base)
        if parts.scheme not in ("http", "https"):
            raise DataError(f"a base address must begin with http:// or https://, but is {base[:200]!r}")
        if not parts.hostname or parts.port == 0:
            raise ValueError("it names no host or port")
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"a base address must read http://HOST/PATH, but is {base[:200]!r}: {error}") from error
    return base


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    lock = FileLock(root / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DataError(f"one process must fetch into a folder, but another one is fetching into {root}") from error
    try:
        yield
    finally:
        lock.release()


def _plan(root: Path, base: str, splits: Sequence[str]) -> list[tuple[str, str, str]]:
    """Split, name and address of each archive; fetches lists and tables."""
    plan: list[tuple[str, str, str]] = []
    (root / "annotations").mkdir(exist_ok=True)
    for split in splits:
        address = f"{base}/{split}/k400_{split}_path.txt"
        names = [_name(line.strip()) for line in fetch_text(address).split("\n") if line.strip()]
        odd = next((name for name in names if not _ARCHIVE.fullmatch(name)), None)
        if not names or odd is not None:
            raise DataError(
                f"a list of archives must name one .tar.gz a line, but {address} holds "
                f"{'nothing' if odd is None else repr(odd[:100])}"
            )
        if len(names) > _MOST:
            raise DataError(f"a list must name at most {_MOST:,} archives, but {address} names {len(names):,}")
        plan += [(split, name, f"{base}/{split}/{name}") for name in names]
        table = root / "annotations" / f"{split}.csv"
        if not table.is_file():
            _fetch_table(f"{base}/annotations/{split}.csv", table)
        elif not is_table(table):
            raise DataError(f"a table must have a header with a column youtube_id, but {table} has none; remove it")
    try:
        fetch_text(f"{base}/{REPLACEMENT}", head=True)
    except FetchError:
        return plan  # a mirror may do without
    return [*plan, ("replacement", REPLACEMENT, f"{base}/{REPLACEMENT}")]


def _first(plan: Sequence[tuple[str, str, str]], limit: int) -> list[tuple[str, str, str]]:
    """The first archives of each split up to a limit; all where it is 0."""
    counts: Counter[str] = Counter()
    found = []
    for split, name, address in plan:
        counts[split] += 1
        if not limit or counts[split] <= limit:
            found.append((split, name, address))
    return found


def _unused(
    plan: Sequence[tuple[str, str, str]], splits: Sequence[str], checksums: Mapping[str, str]
) -> tuple[str, ...]:
    """Names of checksums that no archive has; of splits that are not asked for, none can be told."""
    known = {one for split, name, _ in plan for one in (name, f"{split}/{name}")}
    others = tuple(f"{split}/" for split in SPLITS if split not in splits)
    return tuple(sorted(name for name in checksums if name not in known and not name.startswith(others)))


def _fetch_table(address: str, place: Path) -> None:
    """Fetches a table; what a mirror sends in its place is not kept, since it would stand in the way for ever."""
    fetch(address, place, largest=_LARGEST_TABLE)
    if not is_table(place):
        place.unlink()
        raise DataError(
            f"a table must have a header with a column youtube_id, but {address} has none; give the same command again "
            "once it has, it goes on"
        )


def _name(line: str) -> str:
    """The last part of an address; the line as it is, where it is none."""
    try:
        return PurePosixPath(urlparse(line).path).name
    except ValueError:
        return line


def _sums(plan: Sequence[tuple[str, str, str]], checksums: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """The checksum of each archive that has one, by split and name."""
    found = {}
    for split, name, _ in plan:
        others = [other for other, same, _ in plan if same == name and other != split]
        if name in checksums and others and not all(f"{one}/{name}" in checksums for one in (split, *others)):
            raise DataError(
                f"a checksum must be that of one archive, but {split} and {others[0]} have a {name} each; write "
                f"{split}/{name}"
            )
        checksum = checksums.get(f"{split}/{name}") or checksums.get(name)
        if checksum:
            found[split, name] = checksum
    return found


def _one(
    root: Path,
    split: str,
    name: str,
    address: str,
    checksum: str,
    tries: int,
    keep: bool,
    limit: int,
    listener: Listener,
) -> Archive:
    place = root / _ARCHIVES / f"{split}-{name}"

    def say(done: int, total: int) -> None:
        listener(f"{split} {name}: bytes", done, total)

    try:
        digest = fetch(address, place, checksum=checksum, tries=tries, largest=limit or LARGEST, progress=say)
    except FetchError as error:
        return Archive(split=split, name=name, state="broken", reason=str(error))
    unpacked: Unpacked = unpack(place, root / split, limit=limit)
    if unpacked.problem:
        place.unlink()  # it is whole as it was sent, so only another copy can help
        return Archive(split=split, name=name, state="broken", reason=unpacked.problem, sha256=digest)
    if not keep:
        place.unlink()
    return Archive(
        split=split, name=name, state="unpacked", sha256=digest, videos=unpacked.videos, refused=unpacked.refused
    )


def _arrange(root: Path, splits: Sequence[str]) -> int:
    """Moves flat videos to the folders of their classes; returns how many have none."""
    unlisted = 0
    _replace(root, splits)
    listing = Listing(root)
    annotations = tables([root / "annotations"])
    present = [split for split in splits if listing.videos(split, split=split)[0]]
    if not present:
        return 0
    layout = read_flat(listing, annotations=annotations, splits=present)
    for split, videos in layout.splits.items():
        for video in videos:
            title = layout.classes[video.label]
            if title.startswith(".") or "/" in title or "\0" in title:
                raise DataError(
                    "a class must be the name of a folder that is not hidden, without a slash and a dot before it, but"
                    f" {annotations[split]} has {title[:100]!r}"
                )
            folder = root / "videos" / split / title
            make_folder(folder)
            (root / video.path).rename(folder / PurePosixPath(video.path).name)
        for path in Listing(root).videos(split, split=split)[0]:
            place = root / "unlisted" / path
            make_folder(place.parent)
            (root / path).rename(place)
            unlisted += 1
        with contextlib.suppress(OSError):
            (root / split).rmdir()
    return unlisted


def _replace(root: Path, splits: Sequence[str]) -> None:
    """Puts replacements in the place of corrupted videos, flat or arranged: they may have come later than those."""
    listing = Listing(root)
    replacements = replacements_of(listing)
    for split in splits if replacements else ():
        folders = [split, *(f"videos/{split}/{title}" for title in listing.folders(f"videos/{split}"))]
        paths = [path for folder in folders for path in listing.videos(folder, split=split)[0]]
        for path, replacement in replaced(paths, replacements).items():
            place = (root / path).with_suffix(PurePosixPath(replacement).suffix)
            (root / replacement).rename(place)  # in one step: a kill leaves the one or the other
            if place != root / path:
                (root / path).unlink()


def _count(root: Path, splits: Sequence[str]) -> dict[str, int]:
    places = {split: [*(root / "videos" / split).glob("*/*.*"), *(root / split).glob("*.*")] for split in splits}
    return {split: len(paths) for split, paths in places.items()}


def _book(root: Path) -> dict[tuple[str, str], Archive]:
    found: dict[tuple[str, str], Archive] = {}
    path = root / _BOOK
    for line in read_text(path).split("\n") if path.is_file() else []:
        try:
            values = json.loads(line)
            archive = Archive(**{**values, "refused": tuple(values["refused"])})
        except (ValueError, TypeError, KeyError):
            continue  # a line that a crash has torn
        found[archive.split, archive.name] = archive
    return found


def _note(root: Path, archive: Archive) -> None:
    with (root / _BOOK).open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps(asdict(archive)) + "\n")  # the first break ends a torn line
