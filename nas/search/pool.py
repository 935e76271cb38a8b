"""The pool: distinct networks of a space with their exact cost, those that break a constraint left out."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from nas.cost.cost import Cost, cost_of
from nas.errors import SearchError, StudyError, one_line
from nas.study.metric import short_number
from nas.study.networks import resolve
from nas.study.study import Limit, Study
from search_spaces import catalogue as presets
from search_spaces import edit
from search_spaces.codec import digest
from search_spaces.domains import Scalar
from search_spaces.errors import ClipError, SpecError
from search_spaces.family_space import Point
from search_spaces.space import SearchSpace
from search_spaces.spec import ArchSpec

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Reason:
    """Why networks of the space are no candidates.

    Attributes:
        kind: They break a `limit`, do not fit the `clip` or that of a lower `rung`, or cannot be built (`network`).
        text: The limit, the rung, or why they cannot be built.
    """

    kind: Literal["limit", "clip", "rung", "network"]
    text: str = ""

    def __str__(self) -> str:
        match self.kind:
            case "limit":
                return self.text
            case "clip":
                return "does not fit the clip"
            case "rung":
                return f"does not fit {self.text}"
            case "network":
                return f"cannot be built: {self.text}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A network that may be tried.

    Attributes:
        digest: Of the canonical spec.
        spec: The canonical spec.
        params: Settings that give the network, as Optuna sees them; empty for a named network that no settings give.
        cost: Exact, for one clip of the study.
        stratum: Class of cost, 0 the cheapest.
        name: Preset or settings, if the study names the network.
    """

    digest: str
    spec: ArchSpec
    params: Mapping[str, Scalar]
    cost: Cost
    stratum: int
    name: str = ""

    @property
    def traits(self) -> Mapping[str, Scalar]:
        """What can be said of a network of any family."""
        return traits_of(self.spec)

    def quantity(self, name: str) -> int:
        """An exact cost: `macs`, `params` or `activation_bytes`."""
        return int(getattr(self.cost, name))


@dataclass(frozen=True)
class CandidatePool:
    """Candidates in order of their MACs.

    Attributes:
        candidates: Distinct by digest, ascending in MACs; the named networks of the study among them.
        named: The named networks, in the study's order.
        dropped: How many networks of the space are no candidates, by reason.
        whole: Every network of the space was looked at; otherwise they are a random draw.
        note: Says of how many settings no network can be made, with one example; empty where there are none.
    """

    candidates: tuple[Candidate, ...]
    named: tuple[Candidate, ...]
    dropped: Mapping[Reason, int]
    whole: bool
    note: str = ""

    @cached_property
    def by_digest(self) -> Mapping[str, Candidate]:
        """Candidates by digest."""
        return {candidate.digest: candidate for candidate in self.candidates}


def build_pool(study: Study, *, num_classes: int, progress: Progress = lambda done, total: None) -> CandidatePool:
    """Draws the study's pool; a pure function of the study.

    Args:
        study: Space, limits, clip and seed.
        num_classes: Classes of the data.
        progress: Called with networks costed and networks in all.

    Raises:
        SearchError: The space is empty, or no network meets the constraints.
    """
    study.space.check()
    points, whole, note = _draw(study.space, study.search.pool, study.seed)
    published = _named(study)
    named = {digest(spec): name for name, spec, _ in published}
    specs = {point.digest: (point.spec, dict(point.params)) for point in points}
    for _, spec, stated in published:
        specs.setdefault(digest(spec), (spec, stated))
    kept: list[tuple[str, ArchSpec, dict[str, Scalar], Cost]] = []
    dropped: Counter[Reason] = Counter()
    least: dict[str, int] = {}
    impossible: dict[str, str] = {}  # by family, why a network cannot be built
    buildable: set[str] = set()
    for done, (key, (spec, params)) in enumerate(specs.items(), start=1):
        found = _judged(spec, study, num_classes, least)
        if isinstance(found, Cost):
            kept.append((key, spec, params, found))
        elif key in named:
            raise SearchError(f"{named[key]} of search.start_with {_why(found, spec, study, num_classes)}")
        else:
            dropped[found] += 1
        if isinstance(found, Reason) and found.kind == "network":
            impossible.setdefault(spec.family, found.text)
        elif not (isinstance(found, Reason) and found.kind == "clip"):
            buildable.add(spec.family)
        progress(done, len(specs))
    for name, text in impossible.items():
        if name not in buildable:
            raise SearchError(f"no network of family {name} can be built: {text}")
    if not kept:
        smallest = ", ".join(f"least {quantity} {short_number(value)}" for quantity, value in least.items())
        limits = " and ".join(str(limit) for limit in study.limits) or "no constraint"
        if any(reason.kind == "rung" for reason in dropped):
            limits += f" and fits the clips of search.rungs ({', '.join(study.search.fidelity.clips(study.data))})"
        raise SearchError(
            f"no network of the space meets {limits} at clip {study.data.clip} ({len(specs)} networks, "
            f"{smallest or 'none fits'}); widen space.domains or loosen constraints"
        )
    kept.sort(key=lambda item: (item[3].macs, item[0]))
    strata = strata_of([item[3].macs for item in kept], study.search.strata)
    candidates = tuple(
        Candidate(digest=key, spec=spec, params=params, cost=price, stratum=stratum, name=named.get(key, ""))
        for (key, spec, params, price), stratum in zip(kept, strata, strict=True)
    )
    by_name = {candidate.name: candidate for candidate in candidates if candidate.name}
    first = tuple(by_name[name] for name in dict.fromkeys(named.values()))
    return CandidatePool(candidates=candidates, named=first, dropped=dropped, whole=whole, note=note)


def _judged(spec: ArchSpec, study: Study, num_classes: int, least: dict[str, int]) -> Cost | Reason:
    """The cost of a network that may be tried, or why it may not.

    Args:
        spec: The network.
        study: Its clips and limits.
        num_classes: Classes of the data.
        least: The smallest cost of each limited quantity so far, which is kept up to date.
    """
    try:
        price = cost_of(spec, study.data.clip, num_classes=num_classes, planes=study.data.planes)
    except ClipError:
        return Reason("clip")
    except SpecError as error:  # what only timm knows of its models, such as that one lacks a stage
        return Reason("network", str(error))
    broken = _broken(price, study.limits, least)
    if broken is not None:
        return Reason("limit", broken)
    small = _too_small(spec, study, num_classes)
    return price if small is None else Reason("rung", small)


def _why(reason: Reason, spec: ArchSpec, study: Study, num_classes: int) -> str:
    """What is said of a network that the study names."""
    match reason.kind:
        case "rung":
            return f"{reason} of search.rungs"
        case "network":
            return str(reason)
        case "clip":
            try:
                cost_of(spec, study.data.clip, num_classes=num_classes, planes=study.data.planes)
            except ClipError as error:
                return f"does not fit the clip {study.data.clip}: {error}"
            return str(reason)
        case "limit":
            price = cost_of(spec, study.data.clip, num_classes=num_classes, planes=study.data.planes)
            return (
                f"breaks {reason}: it has {short_number(price.macs)} macs, {short_number(price.params)} params, "
                f"{short_number(price.activation_bytes)} activation_bytes"
            )


def _too_small(spec: ArchSpec, study: Study, num_classes: int) -> str | None:
    """The first rung whose clip is too small for a network; None where it fits all of them."""
    for label, clip in study.search.fidelity.clips(study.data).items():
        try:
            cost_of(spec, clip, num_classes=num_classes, planes=study.data.planes)
        except ClipError:
            return label
    return None


def strata_of(macs: Sequence[int], strata: int) -> list[int]:
    """Splits the range of log MACs into `strata` parts of equal length, 0 the cheapest.

    Equal length, not equal numbers: a space may hold a thousand cheap networks for each dear one, and the front is
    wanted over the whole range.
    """
    logs = [math.log(value) for value in macs]
    low, high = min(logs), max(logs)
    if high == low:
        return [0] * len(logs)
    return [min(int((value - low) / (high - low) * strata), strata - 1) for value in logs]


def _draw(space: SearchSpace, limit: int, seed: int) -> tuple[list[Point], bool, str]:
    """Every network of a small space, else `limit` distinct ones at random; and what is said of settings of none."""
    size = space.size()
    if size.settings == 0:
        raise SearchError("the space is empty: every combination of space.domains is forbidden by space.forbid")
    if size.exact and size.networks <= limit:
        return list(space.points()), True, unmade_note(size.unmade, size.settings, "settings", size.example)
    rng = random.Random(f"pool {seed}")
    points: dict[str, Point] = {}
    drawn, unmade, example = 0, 0, ""
    # A large space repeats itself seldom; the bound on the draws ends the loop where it does.
    for _ in range(4 * limit):
        drawn += 1
        try:
            point = space.random(rng)
        except SpecError as error:  # as in `points`, such settings are of no network
            unmade, example = unmade + 1, example or str(error)
            continue
        points.setdefault(point.digest, point)
        if len(points) == limit:
            break
    return list(points.values()), False, unmade_note(unmade, drawn, "settings that were drawn", example)


def unmade_note(unmade: int, of: int, what: str, example: str) -> str:
    """One line on settings that were left out since no network can be made of them; empty where there are none."""
    if not unmade:
        return ""
    return f"note: no network can be made of {unmade:,} of {of:,} {what}; for example {one_line(example, 200)}"


def _named(study: Study) -> list[tuple[str, ArchSpec, dict[str, Scalar]]]:
    """Name, spec and settings of each network of `search.start_with`; no settings where the space has none for it."""

    def lookup(name: str) -> tuple[ArchSpec, None]:
        return presets.preset(name, frames=study.data.clip.frames), None

    found: list[tuple[str, ArchSpec, dict[str, Scalar]]] = []
    for value in study.search.start_with:
        try:
            spec, stated = resolve(value, lookup)
        except (SpecError, StudyError) as error:
            raise SearchError(f"search.start_with: {error}") from error
        point = study.space.point_of(spec.family, stated) if stated is not None else None
        params = dict(point.params) if point is not None and point.digest == digest(spec) else {}
        name = value if isinstance(value, str) else f"{{{', '.join(f'{key}: {of}' for key, of in value.items())}}}"
        found.append((name, spec, params))
    return found


def _broken(price: Cost, limits: Sequence[Limit], least: dict[str, int]) -> str | None:
    for limit in limits:
        value = getattr(price, limit.quantity)
        least[limit.quantity] = min(value, least.get(limit.quantity, value))
    return next((str(limit) for limit in limits if getattr(price, limit.quantity) > limit.bound), None)


class Supply:
    """Networks that may be proposed: those of the pool, and such as are found near the best or drawn afresh.

    What it gives is a function of the study and of what it is asked for. A network may have several settings, which a
    model tells apart: one of the pool has those of the pool, any other those that it is asked for with. Costs are kept,
    for they are asked for often.

    Args:
        study: Space, limits and clip.
        pool: As drawn at the start.
        num_classes: Classes of the data.
    """

    def __init__(self, study: Study, pool: CandidatePool, *, num_classes: int) -> None:
        """Nothing is drawn yet."""
        self.pool = pool
        self._study, self._num_classes = study, num_classes
        self._costs: dict[str, Cost | None] = {}
        self._near: dict[str, tuple[Candidate, ...]] = {}
        macs = [candidate.cost.macs for candidate in pool.candidates]
        self._low, self._high = math.log(min(macs)), math.log(max(macs))

    def candidate(self, point: Point) -> Candidate | None:
        """A point of the space as a candidate; None where it breaks a constraint or does not fit the clips."""
        known = self.pool.by_digest.get(point.digest)
        if known is not None:
            return known
        if point.digest not in self._costs:
            self._costs[point.digest] = self._cost(point.spec)
        price = self._costs[point.digest]
        if price is None:
            return None
        span = self._high - self._low
        place = (math.log(price.macs) - self._low) / span if span > 0 else 0.0
        stratum = min(max(int(place * self._study.search.strata), 0), self._study.search.strata - 1)
        return Candidate(digest=point.digest, spec=point.spec, params=dict(point.params), cost=price, stratum=stratum)

    def of(self, digest_: str, params: Mapping[str, Scalar]) -> Candidate | None:
        """The candidate of a trial, given its settings; None where the space has it no more."""
        known = self.pool.by_digest.get(digest_)
        return known if known is not None or not params else self.candidate(self._study.space.point(params))

    @property
    def candidates(self) -> Sequence[Candidate]:
        """Those of the pool."""
        return self.pool.candidates

    @property
    def whole(self) -> bool:
        """Whether the pool holds every network of the space."""
        return self.pool.whole

    def near(self, network: Candidate) -> Sequence[Candidate]:
        """Candidates one setting away from one that this has given; none from a network that no settings give."""
        if network.digest not in self._near:
            found = list[Candidate | None]()
            if network.params:
                point = Point(tuple(network.params.items()), network.spec, network.digest)
                found = [self.candidate(other) for other in self._study.space.neighbours(point)]
            self._near[network.digest] = tuple(one for one in found if one is not None)
        return self._near[network.digest]

    def drawn(self, count: int, rng: random.Random) -> list[Candidate]:
        """Candidates drawn from the space, fewer than `count` where it repeats itself or constraints are narrow."""
        found: dict[str, Candidate] = {}
        for _ in range(count):
            try:
                candidate = self.candidate(self._study.space.random(rng))
            except SpecError:  # settings of no network
                continue
            if candidate is not None:
                found.setdefault(candidate.digest, candidate)
        return list(found.values())

    def _cost(self, spec: ArchSpec) -> Cost | None:
        found = _judged(spec, self._study, self._num_classes, {})
        return found if isinstance(found, Cost) else None


def traits_of(spec: ArchSpec) -> dict[str, Scalar]:
    """What can be said of a network of any family.

    `@blocks`: how many places have a temporal operator or might; `@share`: which share of them has one; `@where`: how
    deep those are on average, 0 to 1; `@kind`: their operators; `@span`: how far they see, the sum of (kernel - 1) x
    dilation over them.
    """
    kinds: list[str] = []
    span = 0
    leaves = edit.leaves(spec)
    for path, value in leaves.items():
        if not path.endswith(".temporal.kind"):
            continue
        kinds.append(str(value))
        if value != "2d":
            place = path.removesuffix("kind")
            kernel, dilation = leaves.get(f"{place}kernel", 1), leaves.get(f"{place}dilation", (1,))
            assert isinstance(kernel, int) and isinstance(dilation, tuple)
            span += (kernel - 1) * max(dilation)
    timed = [i for i, kind in enumerate(kinds) if kind != "2d"]
    depth = max(1, len(kinds) - 1)
    return {
        "@blocks": len(kinds),
        "@share": round(len(timed) / max(1, len(kinds)), 2),
        "@where": round(sum(timed) / len(timed) / depth, 2) if timed else 0.0,
        "@kind": "+".join(sorted({kinds[i] for i in timed})) or "2d",
        "@span": span,
    }
