"""Which sampler a study names: one of the project's own, or a class of Optuna, of a hub or of NNI with its settings.

    search.sampler: tpe
    search.sampler: optuna:CmaEsSampler
    search.sampler: {optuna: TPESampler, multivariate: true, group: true}
    search.sampler: {hub: samplers/auto_sampler, path: /home/me/registry}
    search.sampler: nni:Evolution

This is the value alone. Whether such a class is there, and takes these settings, is asked where a search starts
(`nas.search.sampler.foreign`), so that a record can be read where the class is not installed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nas.errors import StudyError, unknown

OWN = ("pool", "random", "tpe", "nsga2", "gp")
SOURCES = {"optuna": "optuna:CLASS", "hub": "hub:PACKAGE", "nni": "nni:TUNER"}
_KEY = "search.sampler"
_NAME = {"optuna": r"[A-Za-z]\w*", "hub": r"[A-Za-z0-9]\w*([./-]\w+)*", "nni": r"[A-Za-z]\w*"}

Plain = str | int | float | bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampler:
    """A sampler by name.

    Attributes:
        source: `optuna`, `hub`, `nni`, or empty for the project's own.
        name: Of the class, package or tuner.
        settings: Name and value, by name; lists are tuples.
    """

    source: str = ""
    name: str
    settings: tuple[tuple[str, Plain | tuple[Plain, ...]], ...] = ()

    def __str__(self) -> str:
        return f"{self.source}:{self.name}" if self.source else self.name

    @property
    def own(self) -> str:
        """The name of one of the project's own; empty for others."""
        return "" if self.source else self.name

    @property
    def given(self) -> dict[str, Any]:
        """The settings, by name, lists as lists."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self.settings}

    def described(self) -> str:
        """The name and all settings, in one spelling for all ways in which a study may state them."""
        return f"{self} {json.dumps(self.given, sort_keys=True)}" if self.settings else str(self)


def sampler_of(raw: Any) -> Sampler:
    """What a study states as `search.sampler`.

    Raises:
        StudyError: It is neither a name nor a name with settings, or a setting is neither a plain value nor a list.
    """
    if isinstance(raw, Mapping):
        return _with_settings(raw)
    source, colon, name = str(raw).partition(":")
    if colon and source in SOURCES and isinstance(raw, str):
        return Sampler(source=source, name=_named(source, name))
    if raw not in OWN:
        raise StudyError(unknown(_KEY, raw, [*OWN, *SOURCES.values()]))
    return Sampler(name=raw)


def _with_settings(raw: Mapping[str, Any]) -> Sampler:
    sources = [source for source in SOURCES if source in raw]
    if len(sources) != 1:
        raise StudyError(
            f"{_KEY} as a mapping must have one of the keys {', '.join(SOURCES)}, and settings beside it, but has "
            f"{', '.join(map(str, raw)) or 'none'}"
        )
    source = sources[0]
    settings = []
    for key, value in sorted((str(key), value) for key, value in raw.items() if key != source):
        flat = isinstance(value, list | tuple) and all(_plain(inner) for inner in value)
        if not flat and not _plain(value):
            raise StudyError(f"{_KEY}.{key} must be text, a number, true, false or a list of these, but is {value!r}")
        settings.append((key, tuple(value) if flat else value))
    return Sampler(source=source, name=_named(source, raw[source]), settings=tuple(settings))


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _named(source: str, name: Any) -> str:
    if not isinstance(name, str) or not re.fullmatch(_NAME[source], name):
        raise StudyError(f"{_KEY} must read like {SOURCES[source]}, but {source} is {name!r}")
    return name


def normal(config: Mapping[str, Any]) -> dict[str, Any]:
    """A recorded study in which the sampler is stated in its one spelling, for comparisons."""
    search = config.get("search")
    if not isinstance(search, Mapping) or "sampler" not in search:
        return dict(config)
    try:
        stated = sampler_of(search["sampler"]).described()
    except StudyError:  # as another version wrote it
        stated = json.dumps(search["sampler"], sort_keys=True, default=str)
    return {**config, "search": {**search, "sampler": stated}}
