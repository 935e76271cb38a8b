"""Specs as canonical JSON: encoder, typed decoder, and a network's digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from search_spaces.catalogue import family
from search_spaces.plain import from_plain, json_object, to_json, to_plain, written_fields
from search_spaces.spec import ArchSpec, SpecError

VERSION = 1


def encode(spec: ArchSpec) -> dict[str, Any]:
    """Returns plain data (dicts, lists, scalars) with the format's version in it."""
    return {"version": VERSION, **to_plain(spec)}


def decode(obj: object) -> ArchSpec:
    """Reads what `encode` gave.

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
    if version != VERSION or isinstance(version, bool):
        raise SpecError(f"version must be {VERSION}, but is {version}")
    return from_plain(family(data.get("family", "resnet")).spec, data)


def dumps(spec: ArchSpec) -> str:
    """Returns canonical JSON: sorted keys, no spaces, ASCII."""
    parts = {key: to_json(getattr(spec, key)) for key in written_fields(spec)}
    return json_object({**parts, "version": str(VERSION)})


def loads(text: str) -> ArchSpec:
    """Reads JSON text; raises SpecError as `decode` does, and where the text is not JSON."""
    try:
        obj = json.loads(text)
    except json.JSONDecodeError as error:
        raise SpecError(f"a spec must be JSON, but {error}") from None
    return decode(obj)


def digest(spec: ArchSpec) -> str:
    """Returns the SHA-256 of the canonical form's JSON in hexadecimal: equal where the networks are equal."""
    return digest_canonical(spec.canonical())


def digest_canonical(spec: ArchSpec) -> str:
    """Returns `digest` of a spec that is known to be canonical, without making it so again."""
    return hashlib.sha256(dumps(spec).encode()).hexdigest()
