"""Networks as the model sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from search_spaces.domains import Scalar


class Network(Protocol):
    """What is known of a network before it is trained; the candidates of a pool are such."""

    @property
    def digest(self) -> str:
        """Tells it from all others."""

    @property
    def params(self) -> Mapping[str, Scalar]:
        """Its settings; empty for a named network that no settings of the space give."""

    @property
    def traits(self) -> Mapping[str, Scalar]:
        """What can be said of a network of any family."""

    def quantity(self, name: str) -> int:
        """An exact cost, such as `macs`."""


def key_of(network: Network) -> tuple[object, ...]:
    """Of a network as the model sees it: it may have several settings."""
    return (network.digest, *network.params.items())
