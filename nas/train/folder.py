"""The folder of a promoted network as stored: `network.json`, with a digest of itself and of every file beside it.

What was stored with a digest is never used when it differs. Reading needs no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from nas.errors import NotFoundError
from nas.study.views import Views, usual_views
from search_spaces import codec
from search_spaces.codec import from_plain
from search_spaces.errors import SpecError
from search_spaces.spec import ArchSpec
from trainer.config import ConfigError, DataConfig
from trainer.data.kinds import FlowSettings
from trainer.files import regular_file, write_whole

FORMAT = 2  # 1 had weights in `weights.pt`, and no digests
RECORD = "network.json"
WEIGHTS = "weights.safetensors"
OLD_WEIGHTS = "weights.pt"

# Far above what a real folder holds: a hostile one ends in a message, not in hours or in the machine's memory.
_MOST_BYTES = 256 * 2**20
_MOST_PARTS = 20_000
_MOST_CLASSES = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """What `network.json` says, every value checked.

    Attributes:
        folder: Where it lies.
        format: Of the folder.
        spec: The architecture.
        classes: Names of the outputs, in order.
        data: How clips are taken from a video.
        views: How each video was looked at when the network was tested.
        flow: How flow was computed, if the network sees flow and the record says it.
        record: Digest, recipe, seed, epochs and measured accuracies.
        files: SHA-256 of each file beside it, by name; empty in format 1.
    """

    folder: Path
    format: int
    spec: ArchSpec
    classes: tuple[str, ...]
    data: DataConfig
    views: Views
    flow: FlowSettings | None
    record: Mapping[str, Any]
    files: Mapping[str, str]


def write_record(
    folder: Path,
    *,
    spec: ArchSpec,
    classes: Sequence[str],
    data: DataConfig,
    record: Mapping[str, Any],
) -> None:
    """Writes `network.json` with the digest of every file that lies beside it; it appears whole or not at all."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix != ".part")
    content = {
        "format": FORMAT,
        "spec": codec.encode(spec),
        "classes": list(classes),
        "data": asdict(data),
        "record": dict(record),
        "files": {name: _digest_of(folder / name) for name in names if name != RECORD},
    }
    write_content(folder, content)


def write_content(folder: Path, content: Mapping[str, Any]) -> None:
    """Writes the content of `network.json` with a digest of it."""
    # As it will be read: keys are texts, tuples are lists.
    plain = {key: value for key, value in json.loads(json.dumps(content)).items() if key != "sha256"}
    text = json.dumps({**plain, "sha256": _digest(plain)}, indent=2, ensure_ascii=False)
    write_whole(folder / RECORD, f"{text}\n".encode())


def read_content(folder: Path) -> dict[str, Any]:
    """The content of `network.json`, with the digest of the whole checked, its values not.

    Raises:
        NotFoundError: There is none, it is no JSON, of another format, or was changed after it was written.
    """
    path = folder / RECORD
    with opened_file(path) as file:
        text = file.read(_MOST_BYTES + 1)
    try:
        if len(text) > _MOST_BYTES:
            raise ValueError(f"it is longer than {_MOST_BYTES:,} bytes")
        content = json.loads(text.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _refused(path, " ".join(str(error).split())[:200]) from error
    if not isinstance(content, dict):
        raise _refused(path, f"it holds a {type(content).__name__} instead of an object")
    found = content.get("format")
    if isinstance(found, bool) or found not in (1, FORMAT):
        raise NotFoundError(f"{folder} has format {str(found)[:50]}, and this nas reads formats 1 and {FORMAT}")
    if found != 1:
        digest = content.pop("sha256", None)
        if digest != _digest(content):
            raise NotFoundError(f"{path} was changed or damaged after it was written: its digest differs")
    return content


def read_record(folder: Path) -> Stored:
    """Reads `network.json` and checks every value that something else relies on.

    Raises:
        NotFoundError: As `read_content`, or a value has the wrong type or is out of range.
    """
    content = read_content(folder)
    path = folder / RECORD
    for key, kind in (("spec", dict), ("classes", list), ("data", dict), ("record", dict)):
        if not isinstance(content.get(key), kind):
            found = f"{type(content[key]).__name__} as {key}" if key in content else f"no {key}"
            raise _refused(path, f"it has {found}")
    files = content.get("files", {})
    if not isinstance(files, dict) or not all(isinstance(digest, str) for digest in files.values()):
        raise _refused(path, "its files must be an object of names and digests")
    if content["format"] != 1 and WEIGHTS not in files:
        raise _refused(path, f"it has no digest of {WEIGHTS}")
    if sum(1 for _ in _nodes(content["spec"], _MOST_PARTS)) > _MOST_PARTS:
        raise _refused(path, f"its spec has more than {_MOST_PARTS:,} values")
    classes, record = content["classes"], content["record"]
    if not all(isinstance(name, str) for name in classes) or not 0 < len(classes) <= _MOST_CLASSES:
        raise _refused(path, f"its classes must be 1 to {_MOST_CLASSES:,} names")
    try:
        spec = codec.decode(content["spec"])
        data = from_plain(DataConfig, content["data"], "data")
        kept = record.get("views")
        views = usual_views(data) if kept is None else from_plain(Views, kept, "record.views")
        flow = from_plain(FlowSettings, record["flow"], "record.flow") if record.get("flow") is not None else None
        if "recipe" in record:
            _check_recipe(record["recipe"])
        usual: dict[str, object] = {"digest": "", "multi_label": False, "checksum": ""}
        for key, value in usual.items():
            if type(record.get(key, value)) is not type(value):
                raise SpecError(f"record.{key} must be {type(value).__name__}, but is {type(record[key]).__name__}")
        digest = codec.digest(spec)
        if record.get("digest", digest) != digest:
            raise SpecError(f"record.digest must be that of the network, {digest[:10]}, but is {record['digest'][:20]}")
    except (SpecError, ConfigError, TypeError) as error:
        raise NotFoundError(f"{folder} holds no network that this version can open: {_line(error)}") from error
    return Stored(
        folder=folder,
        format=content["format"],
        spec=spec,
        classes=tuple(classes),
        data=data,
        views=views,
        flow=flow,
        record=record,
        files=files,
    )


def check_file(folder: Path, name: str, files: Mapping[str, str]) -> Path:
    """The path of a file of the folder, once its content is known to be what was written.

    Args:
        folder: Of the promoted network.
        name: Of the file.
        files: Digests by name; a file that is not among them is of format 1, and passes.

    Raises:
        NotFoundError: The file is not there, is no regular file, or its digest differs.
    """
    path = folder / name
    if name in files and _digest_of(path) != files[name]:
        raise NotFoundError(f"{path} was changed or damaged after it was written: its digest differs")
    return path


def check_promotion(folder: Path, *, digest: str, seed: int, epochs: int) -> None:
    """Holds a folder against the promotion that a database says lies there.

    Raises:
        NotFoundError: It holds another one, such as after two folders were swapped; or as `read_content`.
    """
    record = read_content(folder).get("record")
    for name, wanted in {"digest": digest, "seed": seed, "epochs": epochs}.items():
        found = (
            record.get(name, wanted) if isinstance(record, dict) else wanted
        )  # a hostile record is refused elsewhere
        if found != wanted:
            raise NotFoundError(
                f"{folder} must hold the promotion of {digest[:10]} with seed {seed} over {epochs} epochs, but its "
                f"{RECORD} says {name} {str(found)[:10]}; bring back the folder that was there"
            )


def known_files(folder: Path) -> Mapping[str, str]:
    """The digests that `network.json` holds; none in format 1.

    Raises:
        NotFoundError: As `read_content`.
    """
    files = read_content(folder).get("files", {})
    return files if isinstance(files, dict) else {}


def opened_file(path: Path) -> BufferedReader:
    """Opens a regular file for reading; never waits for a named pipe or a device.

    Raises:
        NotFoundError: There is no such file, it cannot be opened, or it is something else.
    """
    try:
        return regular_file(path)
    except OSError as error:
        raise _refused(path, error.strerror or "it cannot be opened") from error


def _refused(path: Path, reason: str) -> NotFoundError:
    return NotFoundError(f"{path.parent} must be a folder that `nas promote` wrote, but {path.name}: {reason}")


def _check_recipe(recipe: object) -> None:
    """Of a recipe, what an evaluation uses."""
    if not isinstance(recipe, Mapping):
        raise SpecError(f"record.recipe must be an object, but is {type(recipe).__name__}")
    size, last = recipe.get("batch_size", 16), recipe.get("channels_last", True)
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 1_000_000:
        raise SpecError(f"record.recipe.batch_size must be a whole number from 1 to 1,000,000, but is {str(size)[:50]}")
    if not isinstance(last, bool):
        raise SpecError(f"record.recipe.channels_last must be true or false, but is {str(last)[:50]}")


def _nodes(value: Any, most: int) -> Iterator[Any]:
    """Every value within plain data, one more than `most` at the most."""
    waiting, seen = [value], 0
    while waiting and seen <= most:
        one = waiting.pop()
        seen += 1
        yield one
        waiting.extend(one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _digest_of(path: Path) -> str:
    with opened_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _no_constant(name: str) -> None:
    raise ValueError(f"numbers must be finite, but one is {name}")


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
