"""The networks that a study names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from nas.errors import StudyError
from search_spaces import codec
from search_spaces.errors import SpecError
from search_spaces.settings import network_of, settings_of
from search_spaces.spec import ArchSpec

Settings = Mapping[str, Any]
Lookup = Callable[[str], tuple[ArchSpec, Settings | None]]


def resolve(value: Any, lookup: Lookup) -> tuple[ArchSpec, Settings | None]:
    """Returns the network that a study names, and the settings that it is stated by or was found with, if any.

    Args:
        value: A preset, digest or JSON file; or settings: `preset` or `family`, and values of domains laid over.
        lookup: From a name to its spec, with the settings that a search gave it.

    Raises:
        NasError: There is no such network.
    """
    if isinstance(value, str) and value:
        spec, found = lookup(value)
        return spec.canonical(), found
    if isinstance(value, Mapping):  # a variant of a study takes a key away by null
        value = {key: other for key, other in value.items() if other is not None}
    if not isinstance(value, Mapping) or not {"preset", "family"} & set(value):
        raise StudyError(
            "a network must be named (a preset, a digest, a .json file) or stated as settings with preset or family, "
            f"but is {value!r}"
        )
    rest = {key: other for key, other in value.items() if key not in ("preset", "family")}
    try:
        if "preset" in value:
            spec = lookup(str(value["preset"]))[0].canonical()
            if not rest:
                return spec, None
            family_name, settings = spec.family, {**stated(codec.dumps(spec)), **rest}
        else:
            family_name, settings = str(value["family"]), rest
        return network_of(family_name, settings), settings
    except SpecError as error:
        raise StudyError(f"the network {dict(value)}: {error}") from error


@lru_cache(maxsize=256)
def stated(spec: str) -> Settings:
    """Returns the settings that give a network, of its JSON."""
    return settings_of(codec.loads(spec))
