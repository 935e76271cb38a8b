"""How a space is walked: what is offered at a place, what can be completed, how many settings there are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from math import prod

from search_spaces.domains import Domains, Place, Scalar, Settings

Params = tuple[tuple[str, Scalar], ...]
Where = tuple[tuple[str, tuple[Scalar, ...]], ...]
Choose = Callable[[Place, str, tuple[Scalar, ...]], Scalar]


class Engine:
    """A search space at work."""

    def __init__(
        self,
        domains: Domains,
        values: Mapping[str, tuple[Scalar, ...]],
        scopes: Mapping[str, str],
        rules: tuple[Where, ...],
    ) -> None:
        """Makes it.

        Args:
            domains: What the domains of the family mean.
            values: Values of each domain.
            scopes: Scope of each domain.
            rules: Forbidden combinations.
        """
        self.sites = domains.sites(scopes, values)
        self._blocks_by = domains.blocks_by
        self._values = dict(values)
        self._scopes = dict(scopes)
        self._rules = rules
        self._rules_of = {d: tuple(dict(rule)[d] for rule in rules if d in dict(rule)) for d in scopes}
        ruled = {domains.blocks_by}
        for domain in {d for rule in rules for d, _ in rule}:
            ruled |= {domain, *domains.gates.get(domain, ())}
        wanted = {*ruled, *domains.fit}
        # Whether a value that a stage or block chooses for itself may not suit the network.
        self._local_fit = any(scopes.get(d, "network") != "network" and self.sites.picky(d) for d in domains.fit)
        self._tied = {s: tuple(d for d in self.sites.order if d in wanted and scopes[d] == s) for s in _LEVELS}
        self._wanted = wanted & set(scopes)
        # What bears on stages and blocks, and all that is settled before the first of them that matters.
        self._ruled = tuple(d for d in self._tied["network"] if d in ruled)
        local = [i for i, d in enumerate(self.sites.order) if d in wanted and scopes[d] != "network"]
        self._early = frozenset(self.sites.order[: min(local, default=None)])
        self._completable: dict[Hashable, bool] = {}
        self._slots: dict[tuple[int, ...], list[tuple[Place, str]]] = {}

    def run(self, choose: Choose, settings: dict[Place, Scalar] | None = None) -> tuple[dict[Place, Scalar], Params]:
        """Settles every place in order, asking only where there is something to decide.

        Args:
            choose: From place, parameter name and choices to one of the choices.
            settings: An empty dict to fill, for a `choose` that looks at what was settled before.

        Returns:
            The settings, and the parameters that were asked for.
        """
        settings = {} if settings is None else settings
        params = []
        i = 0
        while (slot := self._slot(settings, i)) is not None:
            here, name = slot
            offered = self.offered(settings, here)
            if len(offered) > 1:
                name = self._name(name, here[0], offered)
                settings[here] = choose(here, name, offered)
                params.append((name, settings[here]))
            else:
                settings[here] = offered[0]
            i += 1
        return settings, tuple(params)

    def walk(self) -> Iterator[tuple[dict[Place, Scalar], Params]]:
        """Yields all that `run` can return. The settings are one dict that changes as the walk goes on."""
        yield from self._walk({}, (), 0)

    def _walk(
        self, settings: dict[Place, Scalar], params: Params, i: int
    ) -> Iterator[tuple[dict[Place, Scalar], Params]]:
        slot = self._slot(settings, i)
        if slot is None:
            yield settings, params
            return
        here, name = slot
        offered = self.offered(settings, here)
        if len(offered) > 1:
            name = self._name(name, here[0], offered)
        for value in offered:
            settings[here] = value
            yield from self._walk(settings, (*params, (name, value)) if len(offered) > 1 else params, i + 1)
        del settings[here]

    def offered(self, settings: Settings, here: Place) -> tuple[Scalar, ...]:
        """Returns the values that can be completed from here, one for each thing that they can do."""
        seen: set[Hashable] = set()
        out = []
        for value in self._values[here[0]]:
            if self._allowed(settings, here, value):
                meaning = self._meaning(settings, here, value)
                if meaning not in seen:
                    seen.add(meaning)
                    out.append(value)
        return tuple(out)

    def stand_in(self, settings: Settings, here: Place, value: Scalar, offered: tuple[Scalar, ...]) -> Scalar | None:
        """Returns the offered value that does what a value does, or None if that is not offered."""
        if value in offered:
            return value
        if not self._allowed(settings, here, value):
            return None
        meaning = self._meaning(settings, here, value)
        return next(v for v in offered if self._meaning(settings, here, v) == meaning)

    def feasible(self, settings: Settings) -> bool:
        """Returns whether the open places can be settled so that everything fits and no rule matches."""
        return self._complete_network(dict(settings), 0)

    def count(self) -> int:
        """Returns the number of assignments to all places that fit and obey the rules."""
        free = prod(len(v) for d, v in self._values.items() if self._scopes[d] == "network" and d not in self._wanted)
        return free * self._count_network({}, 0)

    def _slot(self, settings: Settings, i: int) -> tuple[Place, str] | None:
        """Returns place and base name number i, None behind the last.

        Settings must hold what decides on blocks, unless that is next.
        """
        if i == 0 and self._blocks_by in self._scopes:
            return (self._blocks_by,), self._blocks_by
        counts = self.sites.counts(settings)
        if counts not in self._slots:
            places = [here for d in self.sites.order for here in self._places(d, counts)]
            self._slots[counts] = [(here, _base_name(here)) for here in places]
        slots = self._slots[counts]
        return slots[i] if i < len(slots) else None

    def _places(self, domain: str, counts: tuple[int, ...]) -> list[Place]:
        if self._scopes[domain] == "network":
            return [(domain,)]
        if self._scopes[domain] == "stage":
            return [(domain, s) for s in range(len(counts))]
        return [(domain, s, b) for s, count in enumerate(counts) for b in range(count)]

    def _name(self, base: str, domain: str, offered: tuple[Scalar, ...]) -> str:
        return base if offered == self._values[domain] else f"{base}[{';'.join(map(str, offered))}]"

    def _meaning(self, settings: Settings, here: Place, value: Scalar) -> Hashable:
        """Returns what a value does: its effect, and the rules it is part of, which bear on what follows."""
        effect = self.sites.effect(settings, here, value)
        if effect is None:
            return None
        return effect, tuple(value in forbidden for forbidden in self._rules_of[here[0]])

    def _allowed(self, settings: Settings, here: Place, value: Scalar) -> bool:
        domain = here[0]
        if not self.sites.fits(settings, domain, value):
            return False
        if domain not in self._wanted:
            return True
        after = {**settings, here: value}
        if domain in self._early and len(here) == 1:
            key = tuple(after.get((d,)) for d in self._tied["network"])
            if key not in self._completable:
                self._completable[key] = self._complete_network(after, 0)
            return self._completable[key]
        bears = any((d,) not in settings for d in self._ruled)
        if len(here) == 1:
            # Where all that bears on stages and blocks was settled before, they can still be completed as then.
            return self._complete_network(after, 0, local=bears)
        if bears:
            return self._complete_network(after, 0)
        # Stages are tied to each other only by what holds for the whole network, and that is settled; blocks by what
        # holds for their stage.
        if len(here) == 2 or any((d, here[1]) not in after for d in self._tied["stage"]):
            return self._complete_stage(after, here[1], 0)
        return self._complete_block(after, here[1], here[2], 0)

    def _complete_network(self, settings: dict[Place, Scalar], i: int, *, local: bool = True) -> bool:
        tied = self._tied["network"]
        while i < len(tied) and (tied[i],) in settings:
            i += 1
        if i < len(tied):
            return any(
                self._complete_network({**settings, (tied[i],): value}, i + 1, local=local)
                for value in self._fitting(settings, tied[i])
            )
        if not self._local_fit and not (local and self._could_match(settings, -1, -1)):
            return True
        stages = range(len(self.sites.counts(settings)))
        return all(self._complete_stage(settings, s, 0) for s in stages)

    def _complete_stage(self, settings: dict[Place, Scalar], s: int, i: int) -> bool:
        if not self._local_fit and not self._could_match(settings, s, -1):
            return True
        tied = self._tied["stage"]
        while i < len(tied) and (tied[i], s) in settings:
            i += 1
        if i < len(tied):
            values = self._fitting(settings, tied[i])
            return any(self._complete_stage({**settings, (tied[i], s): value}, s, i + 1) for value in values)
        return all(self._complete_block(settings, s, b, 0) for b in range(self.sites.counts(settings)[s]))

    def _complete_block(self, settings: dict[Place, Scalar], s: int, b: int, i: int) -> bool:
        if not self._local_fit and not self._could_match(settings, s, b):
            return True
        tied = self._tied["block"]
        while i < len(tied) and (tied[i], s, b) in settings:
            i += 1
        if i < len(tied):
            values = self._fitting(settings, tied[i])
            return any(self._complete_block({**settings, (tied[i], s, b): value}, s, b, i + 1) for value in values)
        return not self._violates(settings, s, b)

    def _fitting(self, settings: Settings, domain: str) -> Iterator[Scalar]:
        """Yields the values of a domain that suit what is settled."""
        return (value for value in self._values[domain] if self.sites.fits(settings, domain, value))

    def _could_match(self, settings: Settings, s: int, b: int) -> bool:
        """Returns whether some rule may still match: every value settled here is one that it forbids."""
        for rule in self._rules:
            for domain, forbidden in rule:
                value = self.sites.value(settings, domain, s, b)
                if value is not None and value not in forbidden:
                    break
            else:
                return True
        return False

    def _violates(self, settings: Settings, s: int, b: int) -> bool:
        return any(
            all(
                self.sites.value(settings, domain, s, b) in forbidden and self.sites.in_effect(settings, domain, s, b)
                for domain, forbidden in rule
            )
            for rule in self._rules
        )

    def _count_network(self, settings: dict[Place, Scalar], i: int) -> int:
        tied = self._tied["network"]
        if i < len(tied):
            return sum(
                self._count_network({**settings, (tied[i],): value}, i + 1)
                for value in self._fitting(settings, tied[i])
            )
        counts = self.sites.counts(settings)
        return prod(self._count_stage(settings, s, counts[s], 0) for s in range(len(counts)))

    def _count_stage(self, settings: dict[Place, Scalar], s: int, blocks: int, i: int) -> int:
        tied = self._tied["stage"]
        if i < len(tied):
            values = self._fitting(settings, tied[i])
            return sum(self._count_stage({**settings, (tied[i], s): value}, s, blocks, i + 1) for value in values)
        return self._free("stage") * prod(self._count_block(settings, s, b, 0) for b in range(blocks))

    def _count_block(self, settings: dict[Place, Scalar], s: int, b: int, i: int) -> int:
        tied = self._tied["block"]
        if i < len(tied):
            values = self._fitting(settings, tied[i])
            return sum(self._count_block({**settings, (tied[i], s, b): value}, s, b, i + 1) for value in values)
        return 0 if self._violates(settings, s, b) else self._free("block")

    def _free(self, scope: str) -> int:
        """Returns the number of choices that no rule ties at one place of a scope, a stage or a block."""
        return prod(len(v) for d, v in self._values.items() if self._scopes[d] == scope and d not in self._wanted)


_LEVELS = ("network", "stage", "block")


def _base_name(here: Place) -> str:
    return here[0] + "".join(f".{level}{index}" for level, index in zip(_LEVELS[1:], here[1:], strict=False))
