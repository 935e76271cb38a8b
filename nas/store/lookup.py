"""From the beginning of a digest, as people type it, to the network in a database."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import func, select

from nas.errors import NotFoundError
from nas.store import tables as m
from nas.store.records import ArchitectureRow

Rows = Callable[[Any], Sequence[Any]]  # of a query
SHORTEST = 4  # letters; fewer are more often a slip than a name


def architecture(rows: Rows, location: str, prefix: str) -> ArchitectureRow:
    """The row of the only architecture whose digest begins with `prefix`.

    Raises:
        NotFoundError: None or several do, it has too few letters, or it is the number of a trial.
    """
    names = f"`nas status {shlex.quote(location)} --trials` lists those of the search"
    numbered = _digest_of_trial(rows, prefix)
    if numbered is not None:  # some digest may well begin with these digits, but who writes them means the trial
        raise NotFoundError(
            f"a network goes by its digest, not by a number, but got {prefix}; trial {prefix} is {numbered[:10]}: "
            "write that"
        )
    if len(prefix) < SHORTEST:
        raise NotFoundError(
            f"the beginning of a digest must have at least {SHORTEST} letters, but is {prefix!r} ({names})"
        )
    pattern = prefix.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
    found = rows(select(m.architecture).where(m.architecture.c.digest.like(pattern, escape="\\")))
    if len(found) == 1:
        only: ArchitectureRow = found[0]
        return only
    if not found:
        total = rows(select(func.count().label("n")).select_from(m.architecture))[0]["n"]
        raise NotFoundError(f"no digest in {location} begins with {prefix!r} ({total} networks; {names})")
    listed = ", ".join(row["digest"][: len(prefix) + 4] for row in found[:5])
    raise NotFoundError(f"{len(found)} digests in {location} begin with {prefix!r} ({listed}); give more letters")


def _digest_of_trial(rows: Rows, text: str) -> str | None:
    """The digest of the trial that a number means; None for anything else."""
    if not re.fullmatch("0|[1-9][0-9]{0,8}", text):  # a digest may be all digits, too, but those are more
        return None
    found = rows(select(m.trial.c.digest).where(m.trial.c.number == int(text)))
    return str(found[0]["digest"]) if found else None
