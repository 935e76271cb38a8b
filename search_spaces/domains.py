"""What the domains of a family mean to a search, and a way to declare them that is enough for most families.

Settings are a mapping from places to values. A place is `(domain,)`, `(domain, stage)` or `(domain, stage, block)`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Protocol

from search_spaces.errors import SpecError, nearest
from search_spaces.spec import ArchSpec

Scalar = str | int | float | bool
Place = tuple[str] | tuple[str, int] | tuple[str, int, int]
Settings = Mapping[Place, Scalar]

ANY_SCOPE = ("network", "stage", "block")


class Sites(Protocol):
    """The places of one space of a family, and what values do there."""

    @property
    def order(self) -> tuple[str, ...]:
        """The space's domains in the order in which they are settled; one that decides on blocks goes first."""

    def counts(self, settings: Settings) -> tuple[int, ...]:
        """Returns blocks of each stage; the first domain in order is settled."""

    def value(self, settings: Settings, domain: str, s: int, b: int) -> Scalar | None:
        """Returns a domain's value at a block, None while it is open."""

    def picky(self, domain: str) -> bool:
        """Returns whether, after what may be settled before it, no value of a domain may fit at a stage or block."""

    def fits(self, settings: Settings, domain: str, value: Scalar) -> bool:
        """Returns whether a value suits what is settled; for a domain of the network, no stage or block matters."""

    def in_effect(self, settings: Settings, domain: str, s: int, b: int) -> bool:
        """Returns whether a domain says anything about a block; a rule matches only where all of its do."""

    def effect(self, settings: Settings, here: Place, value: Scalar) -> Hashable:
        """Returns something equal for values that do the same here; None where none does anything.

        Args:
            settings: Everything before this place in the order of domains.
            here: The place.
            value: A value that fits.
        """

    def build(self, settings: Settings) -> ArchSpec:
        """Returns the canonical spec of settings that are complete."""


class Domains(Protocol):
    """What a search may choose in a family."""

    @property
    def defaults(self) -> Mapping[str, Scalar]:
        """What a domain is where a space leaves it out."""

    @property
    def scopes(self) -> Mapping[str, tuple[str, ...]]:
        """At which of network, stage and block a domain may be chosen."""

    @property
    def fit(self) -> tuple[str, ...]:
        """Domains that decide which values of others fit, or whose values do not always fit."""

    @property
    def gates(self) -> Mapping[str, tuple[str, ...]]:
        """For a domain, those that decide whether it has an effect."""

    @property
    def blocks_by(self) -> str:
        """The domain that decides how many blocks there are; empty where that is fixed."""

    def normalise(self, domain: str, value: object, scope: str) -> Scalar:
        """Returns a value of a domain as the scalar that stands for it.

        Raises:
            SpecError: The value is not one that the domain can have.
        """

    def sites(self, scopes: Mapping[str, str], values: Mapping[str, tuple[Scalar, ...]]) -> Sites:
        """Returns the places of a space with these domains."""


class At:
    """What is settled, seen from one block."""

    def __init__(self, value: Callable[[str, int, int], Scalar | None], stage: int = 0, block: int = 0) -> None:
        """Makes the view.

        Args:
            value: From domain, stage and block to the value there.
            stage: Index of the stage.
            block: Index of the block in the stage.
        """
        self._value, self.stage, self.block = value, stage, block

    def __call__(self, domain: str) -> Scalar | None:
        """Returns a domain's value here, None while it is open."""
        return self._value(domain, self.stage, self.block)


def always(*_: object) -> bool:
    """Returns True: a domain that has an effect everywhere, a value that always fits."""
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A domain, declared.

    Attributes:
        name: What is chosen.
        default: Its value where a space leaves it out.
        valid: All valid values, if they can be listed.
        read: Else, from a value to its normal form; raises SpecError for one that is not valid.
        per: Scopes that a space may choose it at.
        when: Whether it does anything at a block. It must not depend on domains that are declared after it.
        fits: Whether a value suits what is settled before. For a choice of the network, this asks for no choice of a
            stage or block.
        needs: The domains that `when` and `fits` ask for.
    """

    name: str
    default: Scalar
    valid: tuple[Scalar, ...] = ()
    read: Callable[[Scalar], Scalar] | None = None
    per: tuple[str, ...] = ("network",)
    when: Callable[[At], bool] = always
    fits: Callable[[Scalar, At], bool] = always
    needs: tuple[str, ...] = ()


class Pick(Protocol):
    """Values of complete settings."""

    def __call__(self, domain: str, stage: int = 0, block: int = 0) -> Scalar:
        """Returns a domain's value at a block."""


class Declared:
    """The domains of a family, declared one by one."""

    def __init__(
        self,
        choices: tuple[Choice, ...],
        *,
        counts: Callable[[At], tuple[int, ...]],
        make: Callable[[Pick], ArchSpec],
        blocks_by: str = "",
    ) -> None:
        """Makes them.

        Args:
            choices: The domains, in the order in which they are settled.
            counts: Blocks of each stage, given the first domain.
            make: From complete settings to the canonical spec.
            blocks_by: The domain that `counts` asks for, which must be the first; empty where none.
        """
        self.choices = {choice.name: choice for choice in choices}
        self.counts, self.make, self.blocks_by = counts, make, blocks_by
        self.defaults = {choice.name: choice.default for choice in choices}
        self.scopes = {choice.name: choice.per for choice in choices}
        self.gates = {choice.name: choice.needs for choice in choices if choice.needs}
        fitting = [choice for choice in choices if choice.fits is not always]
        needed = {name for choice in fitting for name in choice.needs}
        self.fit = tuple(c.name for c in choices if c in fitting or c.name in needed or c.name == blocks_by)

    def normalise(self, domain: str, value: object, scope: str) -> Scalar:
        """Returns a value of a domain as the scalar that stands for it; a list becomes a label joined by `-`."""
        choice = self.choices[domain]
        if isinstance(value, list | tuple) and value and choice.read is not None:
            value = ("|" if domain == "dilation" else "-").join(map(str, value))
        if not isinstance(value, str | int | float):
            raise SpecError(f"a value of {domain} must be text or a number, but is {value}")
        if choice.read is not None:
            return choice.read(value)
        if not any(type(value) is type(c) and value == c for c in choice.valid):
            raise SpecError(f"{domain} must be one of its choices, but is {value}{nearest(value, choice.valid)}")
        return value

    def sites(self, scopes: Mapping[str, str], values: Mapping[str, tuple[Scalar, ...]]) -> Sites:
        """Returns the places of a space with these domains."""
        return _DeclaredSites(self, scopes)


class _DeclaredSites:
    def __init__(self, declared: Declared, scopes: Mapping[str, str]) -> None:
        self.scopes = dict(scopes)
        self.order = tuple(name for name in declared.choices if name in scopes)
        self._declared = declared

    def counts(self, settings: Settings) -> tuple[int, ...]:
        return self._declared.counts(At(lambda domain, s, b: self.value(settings, domain, s, b)))

    def value(self, settings: Settings, domain: str, s: int, b: int) -> Scalar | None:
        scope = self.scopes.get(domain)
        if scope is None:
            return self._declared.defaults[domain]
        if scope == "network":
            return settings.get((domain,))
        return settings.get((domain, s) if scope == "stage" else (domain, s, b))

    def picky(self, domain: str) -> bool:
        return self._declared.choices[domain].fits is not always

    def fits(self, settings: Settings, domain: str, value: Scalar) -> bool:
        return self._declared.choices[domain].fits(value, self._at(settings, 0, 0))

    def in_effect(self, settings: Settings, domain: str, s: int, b: int) -> bool:
        return self._declared.choices[domain].when(self._at(settings, s, b))

    def effect(self, settings: Settings, here: Place, value: Scalar) -> Hashable:
        return (
            value if any(self.in_effect(settings, here[0], s, b) for s, b in self._blocks_at(settings, here)) else None
        )

    def build(self, settings: Settings) -> ArchSpec:
        def pick(domain: str, stage: int = 0, block: int = 0) -> Scalar:
            found = self.value(settings, domain, stage, block)
            assert found is not None, f"{domain} is open"
            return found

        return self._declared.make(pick)

    def _at(self, settings: Settings, s: int, b: int) -> At:
        return At(lambda domain, stage, block: self.value(settings, domain, stage, block), s, b)

    def _blocks_at(self, settings: Settings, here: Place) -> list[tuple[int, int]]:
        if len(here) == 3:
            return [(here[1], here[2])]
        if self._declared.blocks_by == here[0]:
            return [(0, 0)]
        counts = self.counts(settings)
        stages = range(len(counts)) if len(here) == 1 else (here[1],)
        return [(s, b) for s in stages for b in range(counts[s])]
