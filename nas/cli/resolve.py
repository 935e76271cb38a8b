"""From what the user types to what it means: studies, databases and networks by name."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import NasError, NotFoundError, StudyError, unknown
from nas.places import is_database, path_of

if TYPE_CHECKING:
    from nas.store.database import Store
    from nas.store.records import StudyRow
    from nas.study.study import Study
    from search_spaces.spec import ArchSpec
    from trainer.config import DataConfig

RUNS = Path("runs")
_FOLDER_KEYS = ("layout", "annotations", "definition", "per_class", "exclude")


def database_of(study: str, db: str | None) -> Path:
    """The database that a study file or a database path names; `--db` goes first.

    Args:
        study: A YAML file or an SQLite file.
        db: The value of `--db`.

    Raises:
        StoreError: It is the address of a server.
    """
    if db is not None:
        return path_of(db)
    path = path_of(study)
    if is_database(path):
        return path
    from nas.study.files import load_study

    return database_for(load_study(path).name, None)


def database_for(name: str, db: str | None) -> Path:
    """The database of the study called `name`; `--db` goes first.

    Raises:
        StoreError: It is the address of a server.
    """
    return path_of(db) if db else RUNS / name / "study.db"


@contextmanager
def open_study(study: str, db: str | None) -> Iterator[tuple[Store, StudyRow]]:
    """An existing database and the row of its study, for the time of a `with` block.

    Raises:
        StoreError: There is no such database.
        NotFoundError: It holds no study.
    """
    from nas.store.database import Store

    with Store(database_of(study, db)) as store:
        yield store, store.study()


def load_target(target: str, overrides: list[str]) -> Study:
    """The study of a file, or the one that a database was made with.

    Args:
        target: A YAML file or an SQLite file.
        overrides: Settings laid over a file.

    Raises:
        StudyError: The study breaks a rule, or settings are given for a database.
    """
    if not is_database(target):
        from nas.study.files import load_study

        return load_study(target, overrides)
    from nas.study.study import study_of

    if overrides:
        raise StudyError(f"settings go with a study file, but {target} is a database, whose study is settled")
    with open_study(target, None) as (_, row):
        return dataclasses.replace(study_of(row["config"], target), num_classes=row["num_classes"])


_NEEDS_STUDY = "a digest needs --study STUDY|DB, a file ends in .json"


def needs_search(database: Path) -> str:
    """Why no network goes by its digest where there is no database that would know it."""
    return f"a digest needs a search before it, but there is no database {database}"


def find_spec(
    name: str, *, study: str | None, db: str | None, frames: int | None = None, otherwise: str = _NEEDS_STUDY
) -> ArchSpec:
    """The network that `name` means: a JSON file, a preset, settings, or the beginning of a digest in a database.

    Args:
        name: What the user typed; settings are those of a study's base, such as `{preset: rmc3_18, width: 0.5}`.
        study: Study or database in which digests are looked up.
        db: The value of `--db`.
        frames: Frames of the clip, which some presets depend on; those of their own clip unless given.
        otherwise: Said of a name that is no preset, where there is no database to look in.

    Raises:
        NotFoundError: Nothing goes by that name; the message says what would.
        SpecError: The JSON file does not hold a network.
    """
    from search_spaces import catalogue as presets
    from search_spaces import codec
    from search_spaces.errors import SpecError
    from trainer.files import content_of

    if name.lstrip().startswith("{"):
        return _stated(name, lambda inner: find_spec(inner, study=study, db=db, frames=frames, otherwise=otherwise))
    path = Path(name)
    if path.suffix == ".json" or path.is_file():
        try:
            return codec.loads(_spec_in(content_of(path).decode("utf-8")))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise NotFoundError(f"the network file {name} cannot be read: {reason}") from error
        except SpecError as error:
            raise NotFoundError(f"{name} does not hold a network: {error}") from error
    if name in presets.PRESETS:
        return presets.preset(name, frames=frames)
    if study is None and db is None:
        raise NotFoundError(f"{not_a_preset(name)}; {otherwise} (`nas presets` lists names)")
    from nas.store.database import Store

    with Store(database_of(study or "", db)) as store:
        try:
            return codec.decode(store.find(name)["spec"])
        except NotFoundError as error:
            raise NotFoundError(f"{not_a_preset(name)}, and {error}; `nas presets` lists names") from error


def _spec_in(text: str) -> str:
    """The JSON of a spec: the text itself, or what the `network.json` of a promoted folder holds as such."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return json.dumps(content["spec"]) if isinstance(content, dict) and {"format", "spec"} <= set(content) else text


def _stated(text: str, find: Callable[[str], ArchSpec]) -> ArchSpec:
    """The network of settings as text; `find` knows the one that they change."""
    import yaml

    from nas.study.networks import resolve
    from nas.study.plain import yaml_of

    try:
        settings = yaml_of(text)
    except yaml.YAMLError as error:
        raise NotFoundError(
            f"settings of a network must be like {{preset: r3d_18, width: 0.5}}, but are {text}"
        ) from error
    return resolve(settings, lambda name: (find(name), None))[0]


def has_name(network: str) -> bool:
    """Whether a network is a preset, settings or a JSON file, which no database has to know."""
    from search_spaces import catalogue as presets

    return network.lstrip().startswith("{") or Path(network).suffix == ".json" or network in presets.PRESETS


def not_a_preset(name: str) -> str:
    """Says so, with the nearest preset in brackets."""
    import difflib

    from search_spaces import catalogue as presets

    near = difflib.get_close_matches(name, list(presets.PRESETS), n=1, cutoff=0.5)
    return f"no preset is called {name!r}" + (f" (did you mean {near[0]}?)" if near else "")


def _beside(path: Path) -> str:
    """What was meant, perhaps, in brackets."""
    import difflib

    try:
        names = sorted(entry.name for entry in path.parent.iterdir() if not entry.name.startswith("."))
    except OSError:
        return f" ({path.parent} is not there either)"
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    return f" (did you mean {path.parent / near[0]}?)" if near else ""


def videos_of(target: str, overrides: Sequence[str]) -> DataConfig:
    """The videos that a study, a database or a plain folder means.

    Args:
        target: A YAML file, an SQLite file, or a folder of videos.
        overrides: Settings laid over a file; of a folder, where its lists lie and what is taken of it.

    Raises:
        NasError: There is no such thing, the study breaks a rule, or a setting is none of a folder.
    """
    if not path_of(target).exists():
        raise NotFoundError(f"there is no data folder, study file or database {target}{_beside(Path(target))}")
    if not Path(target).is_dir():
        return load_target(target, list(overrides)).located_data()
    from trainer.config import Clip, DataConfig

    values = folder_settings(target, overrides)
    clip = Clip(frames=1, height=1, width=1)
    return DataConfig(name="folder", root=target, cache="runs/cache", clip=clip, short_side=16, **values)


def folder_settings(target: str, overrides: Sequence[str], *, besides: Sequence[str] = ("input",)) -> dict[str, Any]:
    """What settings say of a folder of videos: where its lists lie, and what is taken of it.

    Args:
        target: The folder.
        overrides: `data.key=value`.
        besides: Keys that may be set, too.

    Raises:
        NasError: A setting is none of a folder.
    """
    from nas.study.plain import literal

    values: dict[str, Any] = {}
    names = [*_FOLDER_KEYS, *besides]
    for text in overrides:
        key, _, value = text.partition("=")
        if key.removeprefix("data.") not in names or not key.startswith("data."):
            keys = [f"data.{name}" for name in names]
            raise NasError(
                f"{unknown('setting', key, keys)}; other settings go with a study file, but {target} is a folder"
            )
        values[key.removeprefix("data.")] = literal(value)
    if "per_class" in values:
        if not re.fullmatch("[0-9]{1,9}", values["per_class"]):
            raise NasError(f"data.per_class must be a whole number, but is {values['per_class']!r}")
        values["per_class"] = int(values["per_class"])
    return values
