"""Designs: from a base and its factors to the arms that are trained and compared. Pure."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nas.ablation.config import BASE, CONTROL, AblationConfig, label_of
from nas.ablation.variants import LevelError, Variant, changed, check_path, is_own_level, own_level, settings_between
from nas.cost.cost import cost_of
from nas.study.networks import Lookup, resolve
from search_spaces.codec import digest
from search_spaces.edit import steps
from search_spaces.errors import SpecError
from search_spaces.spec import ArchSpec

OWN_LEVEL = "it is the base's own level"
_REASON = 330  # characters of a reason that are shown in an error, which may have 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """One thing that is trained with every seed.

    Attributes:
        position: In the plan, from 0.
        reference: Position of the arm that it is compared with; None where it is compared with none.
        factor: What was changed; `base` for the base.
        level: To what.
        variant: What is trained.
        changes: What differs from the base, by path.
        levels: The level of every factor, of a factorial design; the base's own, of factors with another reference.
    """

    position: int
    reference: int | None
    factor: str
    level: str
    variant: Variant
    changes: Mapping[str, Any] = field(default_factory=dict)
    levels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """A level that is not trained, and why."""

    factor: str
    level: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Arms:
    """What a design comes to.

    Attributes:
        arms: In order of their positions; the first is the base, or where a path begins.
        dropped: Levels that are not trained.
        aliases: Effects of a fractional design that cannot be told apart, such as `kind = placement x kernel`.
    """

    arms: tuple[Arm, ...]
    dropped: tuple[Dropped, ...]
    aliases: tuple[str, ...] = ()


def arms_of(config: AblationConfig, base: Variant, lookup: Lookup) -> Arms:
    """Returns the arms of an ablation.

    Args:
        config: Design and factors.
        base: What everything is compared with.
        lookup: From a name to its spec.

    Raises:
        LevelError: A factor names nothing in the base, or no level is left to compare.
    """
    builder = _Builder(base, lookup)
    for factor in config.factors:
        check_path(base, factor.path)
    if config.design == "path":
        _path(builder, config)
    elif config.design in ("factorial", "fractional"):
        _factorial(builder, config)
    else:
        for factor in config.factors:
            for level in factor.levels:
                builder.add(factor.path, level.label, {factor.path: level.value}, reference=0)
        for path, label in config.against.items():
            builder.compare_with(path, label)
    if config.control:
        builder.add_control()
    aliases = fraction_of([f.path for f in config.factors], config.fraction)[1] if config.design == "fractional" else ()
    arms = Arms(arms=tuple(builder.arms), dropped=tuple(builder.dropped), aliases=tuple(aliases))
    check_left(arms, config.design)
    return arms


def check_left(arms: Arms, design: str) -> None:
    """Refuses a design of which nothing is left to compare: a control alone answers no question about a factor.

    Raises:
        LevelError: No level is left; the message names the first that was dropped, and why.
    """
    if design == "control" or sum(arm.factor != CONTROL for arm in arms.arms) > 1:
        return
    if not arms.dropped:
        raise LevelError("an ablation needs a level to compare with its base, but no factor has one")
    total = len(arms.dropped)
    first = next((item for item in arms.dropped if item.reason != OWN_LEVEL), arms.dropped[0])
    reason = first.reason.removeprefix(f"factor {first.factor}, level {first.level}: ")
    if len(reason) > _REASON:
        reason = f"{reason[:_REASON]}…"
    which = "the only one was dropped" if total == 1 else f"all {total} were dropped, the first"
    raise LevelError(
        f"an ablation needs a level to compare with its base, but {which}: {first.factor}={first.level}: {reason}"
    )


class _Builder:
    def __init__(self, base: Variant, lookup: Lookup) -> None:
        self.base, self.lookup = base, lookup
        self.arms = [Arm(position=0, reference=None, factor=BASE, level=base.spec.describe(), variant=base)]
        self.dropped: list[Dropped] = []

    def vary(self, start: Variant, changes: Mapping[str, Any]) -> Variant:
        variant = start
        for path, value in changes.items():
            variant = changed(variant, path, value, self.lookup)
        return variant

    def add(
        self, factor: str, level: str, changes: Mapping[str, Any], *, reference: int, start: Variant | None = None
    ) -> None:
        """Appends an arm, or drops it with a word: its network is not valid, or nothing differs from its reference."""
        try:
            variant = self.vary(start or self.base, changes)
        except LevelError as error:
            self.dropped.append(Dropped(factor=factor, level=level, reason=str(error)))
            return
        if variant == self.arms[reference].variant:
            own = reference == 0 and all(is_own_level(self.base, path, value) for path, value in changes.items())
            same = OWN_LEVEL if own else "it changes nothing"
            self.dropped.append(Dropped(factor=factor, level=level, reason=same))
            return
        twin = next((arm for arm in self.arms if arm.variant == variant and arm.factor == factor), None)
        if twin is not None:
            reason = f"it is the same network as level {twin.level}"
            self.dropped.append(Dropped(factor=factor, level=level, reason=reason))
            return
        self.arms.append(
            Arm(
                position=len(self.arms),
                reference=reference,
                factor=factor,
                level=level,
                variant=variant,
                changes=dict(changes),
            )
        )

    def compare_with(self, factor: str, level: str) -> None:
        """Makes one level what the factor's other levels are compared with; the base's own level is one of them."""
        reference = next((arm for arm in self.arms if (arm.factor, arm.level) == (factor, level)), None)
        if reference is None:
            reason = next(
                (d.reason for d in self.dropped if (d.factor, d.level) == (factor, level)), "it is not a level"
            )
            raise LevelError(f"ablation.against.{factor} cannot be {level}: {reason}")
        base = dataclasses.replace(self.arms[0], levels={**self.arms[0].levels, factor: own_level(self.base, factor)})
        others = [
            dataclasses.replace(arm, reference=reference.position) if arm.factor == factor and arm != reference else arm
            for arm in self.arms[1:]
        ]
        self.arms = [base, *others]

    def add_control(self) -> None:
        variant = dataclasses.replace(self.base, other_seeds=True)
        self.arms.append(
            Arm(position=len(self.arms), reference=0, factor=CONTROL, level="base, other seeds", variant=variant)
        )


def _path(builder: _Builder, config: AblationConfig) -> None:
    """From the base to another network, one change at a time, in one order or several."""
    spec, settings = resolve(config.to, builder.lookup)
    goal = dataclasses.replace(builder.base, spec=spec, settings=settings)
    between = settings_between(builder.base, goal)
    if between is None:  # no settings say it: block by block, in the order of the layers
        position = 0
        for step in steps(builder.base.spec, goal.spec):
            variant = dataclasses.replace(builder.base, spec=step.spec, settings=None)
            builder.arms.append(
                Arm(
                    position=len(builder.arms),
                    reference=position,
                    factor=step.path or "network",
                    level=f"step {len(builder.arms)}",
                    variant=variant,
                    changes={"network": digest(step.spec)},
                )
            )
            position = len(builder.arms) - 1
        return
    for order in _orders(list(between), config.orders):
        position, done = 0, {}
        for domain in order:
            done[domain] = between[domain]
            before = len(builder.arms)
            after = f" after {', '.join(list(done)[:-1])}" if len(done) > 1 and config.orders > 1 else ""
            builder.add(f"{domain}{after}", label_of(between[domain]), dict(done), reference=position)
            if len(builder.arms) > before:
                position = before


def _orders(domains: list[str], number: int) -> list[tuple[str, ...]]:
    """The given order, its reverse, then random ones; all distinct, the same every time."""
    rng = random.Random(0)
    most = 1
    for i in range(2, len(domains) + 1):
        most *= i
    found = [tuple(domains), tuple(reversed(domains))]
    while len(dict.fromkeys(found)) < min(number, most):
        found.append(tuple(rng.sample(domains, len(domains))))
    return list(dict.fromkeys(found))[:number]


def _factorial(builder: _Builder, config: AblationConfig) -> None:
    """Every combination of levels, or a regular fraction of them."""
    factors = config.factors
    chosen = None
    if config.design == "fractional":
        chosen = set(fraction_of([factor.path for factor in factors], config.fraction)[0])
    arms: list[Arm] = []
    for indices in itertools.product(*(range(len(factor.levels)) for factor in factors)):
        if chosen is not None and indices not in chosen:
            continue
        levels = {f.path: f.levels[i].label for f, i in zip(factors, indices, strict=True)}
        values = {f.path: f.levels[i].value for f, i in zip(factors, indices, strict=True)}
        label = ", ".join(f"{path}={level}" for path, level in levels.items())
        try:
            variant = builder.vary(builder.base, values)
        except LevelError as error:
            builder.dropped.append(Dropped(factor="combination", level=label, reason=str(error)))
            continue
        twin = next((arm for arm in arms if arm.variant == variant), None)
        if twin is not None:
            reason = f"it is the same network as {twin.level}"
            builder.dropped.append(Dropped(factor="combination", level=label, reason=reason))
            continue
        arms.append(
            Arm(
                position=len(arms),
                reference=None,
                factor="combination",
                level=label,
                variant=variant,
                changes=values,
                levels=levels,
            )
        )
    # The base is a combination like others, and first, so that all begin with its values.
    arms.sort(key=lambda arm: arm.variant != builder.base)
    if not any(arm.variant == builder.base for arm in arms) and arms:
        builder.base = arms[0].variant
    builder.arms = [dataclasses.replace(arm, position=i) for i, arm in enumerate(arms)]


def fraction_of(names: Sequence[str], fraction: int) -> tuple[list[tuple[int, ...]], list[str]]:
    """A regular fraction of the 2^k combinations of two levels, of the highest resolution.

    Args:
        names: The k factors.
        fraction: Denominator of the fraction of combinations that is trained, a power of 2.

    Returns:
        The combinations as indices of levels, and the generators in words: which effects cannot be told apart.
        (Box and Hunter 1961, "The 2^(k-p) fractional factorial designs".)
    """
    k, p = len(names), fraction.bit_length() - 1
    basic = k - p
    words = [c for size in range(basic, 1, -1) for c in itertools.combinations(range(basic), size)]
    best: tuple[tuple[int, float], tuple[tuple[int, ...], ...]] | None = None
    for generators in itertools.combinations(words, p):
        relations = [set(word) | {basic + i} for i, word in enumerate(generators)]
        lengths = []
        for size in range(1, p + 1):
            for subset in itertools.combinations(relations, size):
                product: set[int] = set()
                for relation in subset:
                    product ^= relation
                lengths.append(len(product))
        key = (min(lengths), -float(lengths.count(min(lengths))))
        if best is None or key > best[0]:
            best = (key, generators)
    assert best is not None, "fraction is below the number of combinations"
    rows = []
    for bits in itertools.product((0, 1), repeat=basic):
        signs = [1 if bit else -1 for bit in bits]
        rest = []
        for word in best[1]:
            sign = 1
            for i in word:
                sign *= signs[i]
            rest.append((sign + 1) // 2)
        rows.append((*bits, *rest))
    aliases = [f"{names[basic + i]} = {' x '.join(names[j] for j in word)}" for i, word in enumerate(best[1])]
    return rows, aliases


TOLERANCE = 0.02


def matched(arms: Arms, *, num_classes: int) -> Arms:
    """Returns arms whose networks have the first arm's MACs within 2 %; those that cannot have are dropped.

    Args:
        arms: The first is the one to match.
        num_classes: Classes of the data.
    """
    goal = _macs(arms.arms[0].variant, num_classes)
    assert goal is not None, "the base was costed before"
    kept: list[Arm] = [arms.arms[0]]
    places = {0: 0}
    dropped = list(arms.dropped)
    for arm in arms.arms[1:]:
        variant = rescaled(arm.variant, goal, num_classes=num_classes)
        if variant is None:
            reason = f"no width gives {goal:,} MACs within {TOLERANCE:.0%}"
            dropped.append(Dropped(factor=arm.factor, level=arm.level, reason=reason))
            continue
        reference = None if arm.reference is None else places.get(arm.reference)
        if arm.reference is not None and reference is None:
            dropped.append(Dropped(factor=arm.factor, level=arm.level, reason="what it is compared with was dropped"))
            continue
        places[arm.position] = len(kept)
        kept.append(dataclasses.replace(arm, position=len(kept), reference=reference, variant=variant))
    return dataclasses.replace(arms, arms=tuple(kept), dropped=tuple(dropped))


def rescaled(variant: Variant, goal: int, *, num_classes: int) -> Variant | None:
    """Returns a variant whose network has another width and `goal` MACs within 2 %, None where no width does."""
    best: tuple[float, ArchSpec] | None = None
    for spec in _widths(variant, goal, num_classes):
        macs = _macs(dataclasses.replace(variant, spec=spec), num_classes)
        if macs is None:
            continue
        off = abs(macs / goal - 1)
        if best is None or off < best[0]:
            best = (off, spec)
        if off <= TOLERANCE:
            break
    if best is None or best[0] > TOLERANCE:
        return None
    return dataclasses.replace(variant, spec=best[1])


def _widths(variant: Variant, goal: int, num_classes: int) -> Iterator[ArchSpec]:
    """Yields the network as it is, then of ever nearer widths (MACs grow with it), in ever finer steps of width."""
    yield variant.spec
    for multiple in (8, 4, 2, 1):
        low, high = 1 / 16, 16.0
        for _ in range(20):
            factor = (low * high) ** 0.5
            try:
                spec = variant.spec.scaled(factor, multiple=multiple).canonical()
            except SpecError:
                low = factor
                continue
            yield spec
            macs = _macs(dataclasses.replace(variant, spec=spec), num_classes)
            if macs is None or macs < goal:
                low = factor
            else:
                high = factor


def _macs(variant: Variant, num_classes: int) -> int | None:
    clip = variant.data.clip
    try:
        return cost_of(variant.spec, clip, num_classes=num_classes, planes=variant.data.planes).macs
    except SpecError:
        return None
