"""Specs as canonical JSON: encoder, typed decoder, and a network's digest.

A network is written in the lowest version that can express it, so its digest is the one that every earlier release gave
it. What a name means changed from version 1 to version 2: `p3d_b` and `p3d_c` are the authors' blocks now, and were
those of a port, which are called `p3d_b_port` and `p3d_c_port` here; `nonlocal` had no bias for its queries, and what
it was is `nonlocal_unbiased`. So a digest never means two networks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from search_spaces.catalogue import family
from search_spaces.plain import from_plain, json_object, to_json, to_plain, written_fields
from search_spaces.spec import ArchSpec, SpecError

VERSION = 2
# What values of version 1 are called here, by the key that they stand under. One name can only be written in version 2:
# that which means something else in version 1.
_FORMER: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "kind": MappingProxyType({"p3d_b": "p3d_b_port", "p3d_c": "p3d_c_port"}),
        "attention": MappingProxyType({"nonlocal": "nonlocal_unbiased"}),
    }
)
_LATTER = {key: {new: old for old, new in names.items()} for key, names in _FORMER.items()}
# The same as it stands in canonical JSON, where nothing else can look like it: quotes within texts are escaped there.
_TEXTS = tuple((f'"{key}":"{old}"', f'"{key}":"{new}"') for key, names in _FORMER.items() for old, new in names.items())


def encode(spec: ArchSpec) -> dict[str, Any]:
    """Returns plain data (dicts, lists, scalars) with the format's version in it."""
    version, plain = _version(_parts(spec)), to_plain(spec)
    return {"version": version, **(_renamed(plain, _LATTER) if version == 1 else plain)}


def decode(obj: object) -> ArchSpec:
    """Reads what `encode` gave, in this version or an earlier one.

    Args:
        obj: Plain data, as from JSON or YAML.

    Raises:
        SpecError: The family is not in the catalogue, a key is unknown or missing, a value has the wrong type or is out
            of range, or the version is not one that this code reads; the message names the path.
    """
    if not isinstance(obj, Mapping):
        raise SpecError(f"a spec must be a mapping, but is {'nothing' if obj is None else type(obj).__name__}")
    data = dict(obj)
    version = data.pop("version", None)
    if version not in range(1, VERSION + 1) or isinstance(version, bool):
        raise SpecError(f"version must be 1 to {VERSION}, but is {version}")
    if version == 1:
        data = _renamed(data, _FORMER)
    return from_plain(family(data.get("family", "resnet")).spec, data)


def dumps(spec: ArchSpec) -> str:
    """Returns canonical JSON: sorted keys, no spaces, ASCII."""
    parts = _parts(spec)
    version = _version(parts)
    if version == 1:
        for old, new in _TEXTS:
            parts = {key: part.replace(new, old) for key, part in parts.items()}
    return json_object({**parts, "version": str(version)})


def loads(text: str) -> ArchSpec:
    """Reads JSON text; raises SpecError as `decode` does, and where the text is not JSON."""
    try:
        obj = json.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # also numbers of thousands of digits, lists in lists
        raise SpecError(f"a spec must be JSON, but {error}") from None
    return decode(obj)


def digest(spec: ArchSpec) -> str:
    """Returns the SHA-256 of the canonical form's JSON in hexadecimal: equal where the networks are equal."""
    return digest_canonical(spec.canonical())


def digest_canonical(spec: ArchSpec) -> str:
    """Returns `digest` of a spec that is known to be canonical, without making it so again."""
    return hashlib.sha256(dumps(spec).encode()).hexdigest()


def _parts(spec: ArchSpec) -> dict[str, str]:
    return {key: to_json(getattr(spec, key)) for key in written_fields(spec)}


def _version(parts: Mapping[str, str]) -> int:
    """The lowest version that can express a network, given its fields as canonical JSON."""
    return 2 if any(old in part for part in parts.values() for old, _ in _TEXTS) else 1


def _renamed(value: Any, names: Mapping[str, Mapping[str, str]]) -> Any:
    """Plain data with other names for some of its values, by the key that they stand under."""
    if isinstance(value, list | tuple):
        return [_renamed(item, names) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: names.get(key, {}).get(item, item) if isinstance(item, str) else _renamed(item, names)
        for key, item in value.items()
    }
