"""The published networks of all families, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from search_spaces.catalogue import FAMILIES
from search_spaces.family import Preset
from search_spaces.spec import ArchSpec, SpecError, nearest

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {entry.name: entry for family in FAMILIES.values() for entry in family.presets}
)


def preset(name: str, *, frames: int | None = None) -> ArchSpec:
    """Returns a published network's spec.

    Args:
        name: Its name in `PRESETS`.
        frames: Frames of the clips that it will see; those that it was published for, unless given.

    Raises:
        SpecError: There is no such network (the message names the nearest), or frames is below 1.
    """
    if name not in PRESETS:
        raise SpecError(f"there is no network {name}{nearest(name, PRESETS)}")
    entry = PRESETS[name]
    if frames is not None and frames < 1:
        raise SpecError(f"frames must be at least 1, but is {frames}")
    return entry.make(entry.clip[0] if frames is None else frames)
