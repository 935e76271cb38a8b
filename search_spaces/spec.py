"""What all networks have in common as values: frozen, validated on construction, free of torch.

A spec says everything that decides what is built except the number of classes. Two specs that build the same
network have the same canonical form (`ArchSpec.canonical`), so duplicates are found before anything is trained.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Self

from search_spaces.graph import Link

if TYPE_CHECKING:
    from torch import nn


class Twin(NamedTuple):
    """A unit with a 2D parent.

    Attributes:
        path: The unit's module in our network: a convolution with its norm, or a linear layer.
        conv: Prefix of the convolution's (or linear layer's) names in the 2D network's state dict.
        norm: Prefix of the norm's names; empty for a linear layer.
    """

    path: str
    conv: str
    norm: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ArchSpec(ABC):
    """A network as a value: all that `build` needs besides the number of classes. Each family has its own kind.

    Attributes:
        family: Its family in the catalogue.
    """

    family: str

    def canonical(self) -> Self:
        """Returns the one spec that stands for all specs of the same network: what has no effect takes its default."""
        return self

    @abstractmethod
    def links(self, *, num_classes: int, dropout: float = 0.0, planes: int = 3) -> tuple[Link, ...]:
        """Returns the network as a chain of units, from clips (N, planes, T, H, W) to logits (N, num_classes)."""

    @abstractmethod
    def describe(self) -> str:
        """Returns one line that differs wherever canonical specs differ."""

    @abstractmethod
    def rows(self) -> list[dict[str, object]]:
        """Returns a table of the network's parts; `site` is a part's path in the spec."""

    @abstractmethod
    def scaled(self, multiplier: float, *, multiple: int = 8) -> Self:
        """Returns the same network with all widths times a multiplier, as multiples of `multiple`."""

    def begins_at_zero(self) -> bool:
        """Returns whether, as published, the last norm of every residual branch has a weight of 0 at first."""
        return False

    def initialise(self, network: nn.Module) -> None:
        """Draws the network's initial values from torch's generator."""
        from search_spaces.modules import initialise

        initialise(network)

    def start_branches(self, network: nn.Module, *, at_zero: bool) -> None:
        """Sets whether every residual branch adds nothing at first, of a network that was just initialised."""
        from search_spaces.modules import zero_last_norms

        if at_zero:
            zero_last_norms(network)

    def twin(self) -> tuple[Twin, ...]:
        """Returns which layers can take the weights of which 2D network's; none unless the family says so."""
        return ()


def number_text(value: float) -> str:
    """A number as descriptions show it: with as many digits as tell it from any other."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def scale(width: int, multiplier: float, multiple: int = 8) -> int:
    """Returns the width times the multiplier, as a multiple of `multiple` that is at least 1.

    It is rounded to the nearest multiple, halves up. A multiplier of 1 leaves any width as it is.
    """
    return width if multiplier == 1 else max(multiple, int(width * multiplier / multiple + 0.5) * multiple)
