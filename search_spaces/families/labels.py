"""Labels that several families write their choices as: where time is, and dilations."""

from __future__ import annotations

import re
from functools import lru_cache

from search_spaces.domains import Scalar
from search_spaces.errors import SpecError, at_most
from search_spaces.families.resnet.make import place

_DILATIONS = re.compile(r"[1-9]\d*([|-][1-9]\d*)*")


def read_placement(name: str, value: Scalar) -> Scalar:
    """Returns a placement's label; a list has its blocks joined by commas. Raises SpecError for another form.

    Args:
        name: The domain, for the message.
        value: A label as `resnet.make.place` takes it.
    """
    label = str(value).replace("-", ",")
    try:
        # A network of nine stages of 200 blocks fits every label that has a valid form.
        place(label, (200,) * 9)
    except SpecError as error:
        raise SpecError(str(error).replace("placement", name, 1)) from None
    return label


@lru_cache(maxsize=4096)
def placement_fits(label: str, counts: tuple[int, ...]) -> bool:
    """Returns whether a placement suits a network with these numbers of blocks in its stages."""
    try:
        place(label, counts)
    except SpecError:
        return False
    return True


def read_dilation(name: str, value: Scalar) -> Scalar:
    """Returns dilations as one number, or as a label such as `1|2|4`; raises SpecError for another form.

    Args:
        name: The domain, for the message.
        value: A number, or numbers joined by `|` or `-`.
    """
    if isinstance(value, bool | float) or not _DILATIONS.fullmatch(str(value)):
        raise SpecError(f"{name} must be whole numbers of at least 1, alone or as 1|2|4, but is {value}")
    found = sorted({int(part) for part in re.split(r"[|-]", str(value))})
    at_most(name, found[-1])
    return found[0] if len(found) == 1 else "|".join(map(str, found))


@lru_cache(maxsize=1024)
def dilations(label: Scalar) -> tuple[int, ...]:
    """Returns the dilations of a label that was read."""
    return tuple(int(part) for part in str(label).split("|"))


def read_factor(name: str, value: Scalar) -> Scalar:
    """Returns a factor, as a float; raises SpecError unless it is a number above 0 and at most `MOST`."""
    if isinstance(value, str | bool) or not value > 0:
        raise SpecError(f"{name} must be a number above 0, but is {value}")
    at_most(name, value)
    return float(value)


def read_share(name: str, value: Scalar) -> Scalar:
    """Returns a share, as a float; raises SpecError unless it is a number above 0 and at most 1."""
    if isinstance(value, str | bool) or not 0 < value <= 1:
        raise SpecError(f"{name} must be a number above 0 and at most 1, but is {value}")
    return float(value)


def read_count(name: str, value: Scalar) -> Scalar:
    """Returns a number of things; raises SpecError unless it is a whole number of at least 1."""
    if isinstance(value, str | bool | float) or value < 1:
        raise SpecError(f"{name} must be a whole number of at least 1, but is {value}")
    at_most(name, value)
    return value
