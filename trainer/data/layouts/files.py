"""Files of a data set: what lies in its folders, and files that name its classes."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from trainer.data.layouts.text import forms, read_lines, read_table, read_text, unquoted
from trainer.data.layouts.values import OTHERS, SUFFIXES, DataError, LeftOut, listed

_STRANGE: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


class Listing:
    """The folders below a root, each read when it is first asked for.

    Symbolic links are followed, to files and to folders, wherever they lead; `nas data check` names those that leave
    the root. Only folders at known depths are read, so a link to a folder above cannot make an endless walk.
    """

    def __init__(self, root: Path) -> None:
        """Reads nothing yet."""
        self.root = root
        self._folders: dict[str, dict[str, bool | None]] = {}
        self._hidden: dict[str, list[str]] = {}  # folders with a dot before their names

    def entries(self, folder: str) -> dict[str, bool | None]:
        """Names in a folder, not hidden: True for a folder, False for a file, None for what is neither (see `strange`).

        Args:
            folder: Path below the root; empty for the root.

        Returns:
            The names, sorted; none if there is no such folder.

        Raises:
            DataError: The folder cannot be read.
        """
        if folder not in self._folders:
            self._folders[folder] = self._read(folder)
        return self._folders[folder]

    def is_file(self, path: str) -> bool:
        """Whether there is a file of that path."""
        return self._kind(path) is False

    def is_folder(self, path: str) -> bool:
        """Whether there is a folder of that path."""
        return self._kind(path) is True

    def videos(self, folder: str, *, split: str) -> tuple[list[str], list[LeftOut]]:
        """Paths of the video files of a folder by their suffix, and what looks like one but cannot be used."""
        found: list[str] = []
        left_out: list[LeftOut] = []
        for name, is_folder in self.entries(folder).items():
            path = f"{folder}/{name}" if folder else name
            if PurePosixPath(name).suffix.lower() not in SUFFIXES or is_folder:
                continue
            if is_folder is None:
                kind, reason = self.strange(path)
                left_out.append(LeftOut(path=printable(path), split=split, kind=kind, reason=reason))
            elif not utf8(name):
                reason = "its name is not UTF-8"
                left_out.append(LeftOut(path=printable(path), split=split, kind="name", reason=reason))
            else:
                found.append(path)
        return found, left_out

    def passed_over(self, folder: str, *, split: str) -> list[LeftOut]:
        """What a class folder holds that may be meant as videos: files of other suffixes, and folders with videos."""
        found: list[LeftOut] = []
        for name, is_folder in self.entries(folder).items():
            path = printable(f"{folder}/{name}")
            if is_folder:
                count = len(self.videos(f"{folder}/{name}", split=split)[0])
                if count:
                    reason = f"{count:,} videos lie in a folder of the class folder"
                    found.append(LeftOut(path=path, split=split, kind="misplaced", reason=reason))
            elif PurePosixPath(name).suffix.lower() in OTHERS:
                reason = f"its suffix is none of {' '.join(SUFFIXES)}"
                found.append(LeftOut(path=path, split=split, kind="suffix", reason=reason))
        return found

    def strange(self, path: str) -> tuple[str, str]:
        """What is there, but neither a file nor a folder: its kind of `LeftOut`, and words; else both are empty."""
        parent, _, name = path.rpartition("/")
        if self.entries(parent).get(name, False) is not None:
            return "", ""
        place = self.root / path
        try:
            link = place.is_symlink()
            mode = place.stat().st_mode
        except OSError as error:
            denied = error.errno in (errno.EACCES, errno.EPERM)
            return (
                "link",
                f"a link that cannot be followed: {error.strerror}" if denied else "a link that leads nowhere",
            )
        word = next((word for test, word in _STRANGE if test(mode)), "")
        if not word:
            return "", ""
        return ("link", f"a link to {word}") if link else ("special", f"it is {word}")

    def hidden(self, folder: str, *, split: str) -> list[LeftOut]:
        """The folders with videos that a folder of classes has, and that are passed over for the dot before their name.

        Raises:
            DataError: One cannot be read.
        """
        self.entries(folder)
        found: list[LeftOut] = []
        for name in self._hidden[folder]:
            count = len(self.videos(f"{folder}/{name}", split=split)[0])
            if count:
                reason = f"{count:,} videos lie in a folder that is hidden, by the dot before its name"
                path = printable(f"{folder}/{name}")
                found.append(LeftOut(path=path, split=split, kind="misplaced", reason=reason))
        return found

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder.

        Raises:
            DataError: A name is not UTF-8, so that the class could not be named.
        """
        names = [name for name, is_folder in self.entries(folder).items() if is_folder]
        for name in names:
            if not utf8(name):
                raise DataError(
                    f"a folder's name must be UTF-8, but {self.root / folder} has one called {printable(name)}; "
                    "rename it"
                )
        return names

    def other_form(self, path: str) -> str:
        """What a path without a file has to do with what is there, of its name or of one that looks the same.

        Returns:
            Words that begin with a semicolon; empty if there is nothing.
        """
        strange = self.strange(path)[1]
        if strange:
            return f"; what is there is {strange.removeprefix('it is ')}"
        known, found = "", ""
        for name in path.split("/"):
            alike = [one for one in self.entries(known) if forms(one, name) or one == name]
            if not alike:
                return ""
            known = f"{known}/{alike[0]}" if known else alike[0]
            found = found or (forms(name, alike[0]) if name not in alike else "")
        return f"; there is one of that name{found}" if found else ""

    def _kind(self, path: str) -> bool | None:
        parent, _, name = path.rpartition("/")
        return self.entries(parent).get(name)

    def _read(self, folder: str) -> dict[str, bool | None]:
        place = self.root / folder
        self._hidden[folder] = []
        try:
            with os.scandir(place) as entries:
                kinds = dict(_kinds(entries))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # of a list: no folder has such a name
                return {}
            raise DataError(f"data.root must be readable, but reading {place} failed: {error.strerror}") from error
        self._hidden[folder] = sorted(name for name, kind in kinds.items() if name.startswith(".") and kind)
        return dict(sorted((name, kind) for name, kind in kinds.items() if not name.startswith(".")))


def _kinds(entries: Iterator[os.DirEntry[str]]) -> Iterator[tuple[str, bool | None]]:
    for entry in entries:
        try:
            yield entry.name, True if entry.is_dir() else False if entry.is_file() else None
        except OSError:  # a link to itself
            yield entry.name, None


def utf8(name: str) -> bool:
    """Whether a name of the file system can be written as text."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    r"""A name of the file system with what is not UTF-8 written as `\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def below(root: Path, path: str, *, where: str) -> str:
    """A path of a list as a path below the root.

    Args:
        root: The data set's root.
        path: As the list gives it: relative to the root, or absolute.
        where: File and line, for messages.

    Raises:
        DataError: It does not lie below the root.
    """
    text = path.replace("\\", "/") if "\\" in path and "/" not in path else path
    pure = PurePosixPath(text)
    if pure.is_absolute():
        for base in (root, Path(os.path.abspath(root)), root.resolve()):  # noqa: PTH100 - keeps links, unlike resolve
            if pure.is_relative_to(base.as_posix()):
                pure = pure.relative_to(base.as_posix())
                break
        else:
            raise DataError(
                f"an absolute path of a list must lie below data.root, but {where} names {path}, and data.root is "
                f"{root}; set data.root to a folder above all videos"
            )
    if ".." in pure.parts:
        raise DataError(f"a path of a list must stay below data.root, but {where} names {path}")
    return pure.as_posix()


# What data sets call the file that names their classes, in the order of their indices.
CLASS_FILES = (
    "classes.txt",
    "classes.csv",
    "classes.json",
    "category.txt",
    "classInd.txt",
    "labels.txt",
    "label_map.txt",
    "label_map_k400.txt",
    "kinetics_400_labels.csv",
    "kinetics_classnames.json",
    "classnames.json",
)

# Columns of a table of classes; `label` is the number in some and the name in others.
_NAMES = ("label", "name", "class", "class_name", "label_name")
_NUMBERS = ("id", "index", "class_id", "label_id", "number", "label")
_FORMS = (r"(?P<number>\d{1,9})(?P<sep>[\s,]+)(?P<name>\S.*)", r"(?P<name>\S.*?)(?P<sep>[\s,]+)(?P<number>\d{1,9})")


def class_names(path: Path) -> tuple[str, ...]:
    """Class names of a file, in the order of their numbers.

    One name a line; lines `number name` or `name number`, from 0 (or 1, as in UCF101's classInd.txt), in any order; a
    table with a column of names (DeepMind's labels) and, if there is one, of numbers; a table of annotations with a
    column `label`; or JSON: a list, or name to index (SlowFast).

    Raises:
        DataError: It is none of these, names one class twice, or its numbers leave one out.
    """
    if path.suffix.lower() == ".json":
        names = _json_names(path)
    else:
        lines = [line for _, line in read_lines(path)]
        first = [cell.strip().lower() for cell in lines[0].split(",")] if lines else []
        table = set(first) & {"name", "label", "class"} or len(set(first) & {*_NAMES, *_NUMBERS}) > 1
        names = _of_table(path) if path.suffix.lower() == ".csv" and table else _of_lines(path, lines)
    if not names:
        raise DataError(f"a list of classes must name one at least, but {path} is empty")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"a list of classes must name each once, but {path} names {name[:100]!r} twice")
        if not name.strip() or not utf8(name):
            raise DataError(f"the name of a class must be text, but {path} has {name[:100]!r}")
        seen.add(name)
    return tuple(names)


def _of_table(path: Path) -> list[str]:
    rows = [row for _, row in read_table(path, [])]
    columns = list(rows[0]) if rows else []
    numbered = [name for name in columns if all(re.fullmatch("[0-9]{1,9}", row[name]) for row in rows)]
    titles = [name for name in _NAMES if name in columns]
    title = next((name for name in titles if name != "label" or name not in numbered), titles[0] if titles else None)
    if title is None:
        raise DataError(f"a table of classes must have a column {', '.join(_NAMES)}, but {path} has {listed(columns)}")
    names = [unquoted(row[title]) for row in rows]
    if title == "label" and ("youtube_id" in columns or len(set(names)) < len(names)):
        return sorted(set(names))  # a table of annotations: its classes are those of the whole data
    column = next((name for name in _NUMBERS if name in numbered and name != title), None)
    if column is None:
        return names
    ordered = _ordered([int(row[column]) for row in rows], names)
    if ordered is None:
        raise _gaps(path, [row[column] for row in rows])
    return ordered


def _of_lines(path: Path, lines: Sequence[str]) -> list[str]:
    """The names of lines, without their numbers where these number them."""
    for form in _FORMS:
        matches = [match for line in lines if (match := re.fullmatch(form, line))]
        if len(matches) < len(lines):
            continue
        numbers, names = [int(match["number"]) for match in matches], [unquoted(match["name"]) for match in matches]
        ordered = _ordered(numbers, names)
        if ordered is not None and (form == _FORMS[0] or len(set(names)) == len(names)):
            return ordered
        # A name may begin or end in a number of its own, as `route 66` does; but none stands off by a comma.
        twice = form == _FORMS[0] and numbers[:1] in ([0], [1]) and len(set(numbers)) < len(numbers)
        if twice or path.name == "classInd.txt" or any("," in match["sep"] for match in matches):
            raise _gaps(path, [match["number"] for match in matches])
    return [unquoted(line) for line in lines]


def _ordered(numbers: Sequence[int], names: Sequence[str]) -> list[str] | None:
    """Names in the order of their numbers; None unless these are 0, 1, 2, ... or 1, 2, 3, ... in some order."""
    pairs = sorted(zip(numbers, names, strict=True))
    if [number for number, _ in pairs] not in (list(range(len(pairs))), list(range(1, len(pairs) + 1))):
        return None
    return [name for _, name in pairs]


def _gaps(path: Path, numbers: Sequence[str]) -> DataError:
    return DataError(f"the classes of {path} must be numbered one by one, from 0 or 1, but are {listed(numbers)}")


def _json_names(path: Path) -> list[str]:
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} must be JSON, but: {error}") from error
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return [unquoted(name) for name in value]
    # Not by equality alone: true and 1.0 are equal to 1.
    if isinstance(value, dict) and all(type(number) is int for number in value.values()):
        names = sorted(value, key=lambda name: int(value[name]))
        if [value[name] for name in names] == list(range(len(names))):
            return [unquoted(name) for name in names]
    raise DataError(f"{path} must be a JSON list of class names, or name to whole number from 0 without gaps")
