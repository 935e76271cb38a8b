"""A network as a chain of modules, built link by link from a spec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from search_spaces.spec import Link


class SideHead(nn.Module):
    """A module beside the chain: in training it sees what the next link sees, and its logits are set aside.

    An auxiliary classifier (Szegedy et al. 2015) is one. In evaluation it does not run.
    """


class Network(nn.Module):
    """The chain of a spec's links."""

    def __init__(self, links: Sequence[Link]) -> None:
        """Builds every link's module under its name."""
        super().__init__()
        self.names = tuple(link.name for link in links)
        for name, unit in links:
            *parents, last = name.split(".")
            owner: nn.Module = self
            for parent in parents:
                if parent not in owner._modules:
                    owner.add_module(parent, nn.Module())
                owner = owner.get_submodule(parent)
            owner.add_module(last, unit.build())

    def forward(self, clips: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Maps clips (N, C, T, H, W) to logits (N, classes).

        In training mode, a network with side heads returns a tuple: its logits, then those of each side head.
        """
        x: Any = clips
        sides: list[Tensor] = []
        for name in self.names:
            module = self.get_submodule(name)
            if not isinstance(module, SideHead):
                x = module(x)
            elif self.training:
                sides.append(module(x))
        logits: Tensor = x
        return (logits, *sides) if sides else logits
