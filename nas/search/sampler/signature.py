"""Settings and seeds of samplers of other packages: what a constructor takes, and draws by a seed alone."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import numpy as np

from nas.errors import StudyError
from nas.study.samplers import Sampler

KEY = "search.sampler"
_OURS = {"seed": "it follows from the study's seed"}
_PLAIN: Mapping[str, tuple[type, ...]] = {"bool": (bool,), "int": (int,), "float": (int, float), "str": (str,)}


def checked(
    sampler: Sampler, function: Callable[..., Any], settings: Mapping[str, Any], ours: Mapping[str, str] = _OURS
) -> dict[str, Any]:
    """Settings that a function takes, held against its signature.

    Args:
        sampler: For messages.
        function: Takes the settings by name.
        settings: As the study states them.
        ours: Arguments that a study does not set, and why.

    Raises:
        StudyError: An argument is not known, is of another kind, or nothing that a study can state.
    """
    known = {name: kinds_of(one) for name, one in inspect.signature(function).parameters.items() if by_name(one)}
    names = [name for name, kinds in known.items() if kinds and name not in ours]
    given: dict[str, Any] = {}
    for name, value in settings.items():
        if name in ours and name in known:
            raise StudyError(f"{KEY} {sampler}: {name} must not be set, since {ours[name]}")
        if name in known and not known[name]:
            raise StudyError(
                f"{KEY} {sampler}: {name} is nothing that a study can state (settings: {', '.join(names) or 'none'})"
            )
        if name not in known:
            near = ", ".join(difflib.get_close_matches(name, names, n=3, cutoff=0.5))
            hint = f"; did you mean {near}?" if near else ""
            raise StudyError(f"{KEY} {sampler} has no setting {name!r}{hint} (settings: {', '.join(names) or 'none'})")
        if not _fits(value, known[name]):
            raise StudyError(f"{KEY} {sampler}: {name} must be {' or '.join(known[name])}, but is {value!r}")
        given[name] = value
    return given


def kinds_of(parameter: inspect.Parameter) -> tuple[str, ...]:
    """What a study may state for an argument, by its annotation; by its default where it has none."""
    text = getattr(parameter.annotation, "__forward_arg__", parameter.annotation)
    if text is inspect.Parameter.empty:
        usual = type(parameter.default).__name__
        return ("float",) if usual == "int" else (usual,) if usual in _PLAIN else ()
    text = text if isinstance(text, str) else getattr(text, "__name__", str(text)).replace("NoneType", "None")
    parts = [part.strip() for part in text.split("|")] if "Literal" not in text else ["str", "None"]
    found = [part for part in parts if part in _PLAIN or part == "None" or _of_plain(part)]
    return tuple(found) if set(found) - {"None"} else ()


def _of_plain(part: str) -> bool:
    inner = part.partition("[")[2].rstrip("]").replace(", ...", "")
    return part.lower().startswith(("list[", "sequence[", "tuple[")) and inner in _PLAIN


def _fits(value: Any, kinds: Sequence[str]) -> bool:
    if value is None:
        return "None" in kinds
    if isinstance(value, list):
        return any(_of_plain(kind) for kind in kinds)
    if isinstance(value, bool):
        return "bool" in kinds
    return any(isinstance(value, _PLAIN[kind]) for kind in kinds if kind in _PLAIN and kind != "bool")


def by_name(parameter: inspect.Parameter) -> bool:
    """Whether an argument can be given by its name."""
    return parameter.name != "self" and parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it, the generators of the process begin at a seed; after it, they go on as if nothing had been drawn."""
    kept, numbers = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(kept)
        np.random.set_state(numbers)


@contextlib.contextmanager
def seeded_anew(usual: int) -> Iterator[None]:
    """Within it, a `numpy.random.RandomState` that is made without a seed has this one."""
    made = np.random.RandomState

    class Seeded(made):  # type: ignore[misc, valid-type]
        def __init__(self, seed: object = None) -> None:
            super().__init__(usual % 2**32 if seed is None else seed)

    with mock.patch.object(np.random, "RandomState", Seeded):
        yield
