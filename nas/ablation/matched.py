"""Cost-matched arms: each network's width rescaled so that its MACs are the base's, and a gain is not bought."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from nas.ablation.designs import Arm, Arms, Dropped
from nas.ablation.variants import Variant
from nas.cost import cost_of
from search_spaces.spec import ArchSpec, SpecError

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
