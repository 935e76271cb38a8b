"""Samplers of Optuna over the pool.

What Optuna suggests is taken if it is in the pool and new; otherwise the nearest new network of the pool is. So no
network is tried twice, no constraint is broken, and nothing can loop for ever. GP and NSGA-II know only the settings
that all networks have, and draw the others at random: they are shown the settings of every network of the pool, one
that does not apply as a value of its own.
"""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseGASampler, BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState, create_trial

from nas.cost.cost import Cost
from nas.errors import NasError, SearchError, one_line
from nas.search.model.encoding import plain_settings
from nas.search.pool import Candidate, CandidatePool
from nas.search.sampler.foreign import Form, ability, maker, quiet
from nas.search.sampler.signature import seeded
from nas.study.samplers import Sampler
from search_spaces.errors import SpecError
from search_spaces.family_space import Point
from search_spaces.space import SearchSpace

POPULATION = 20
REHEARSED = 24  # made-up results, more than any sampler of Optuna draws at random before it begins


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What a sampler learns from: settings and the minimised objectives, or None while the network is in training."""

    params: Mapping[str, Any]
    objectives: tuple[float, ...] | None


def asked(
    *,
    sampler: Sampler,
    space: SearchSpace,
    pool: CandidatePool,
    free: Sequence[Candidate],
    history: Sequence[Observation],
    num_objectives: int,
    rng: random.Random,
    seed: int,
    num_tried: int,
) -> tuple[Candidate, str]:
    """The network that a sampler asks for, or the nearest of those that are free.

    Args:
        sampler: One of `SAMPLERS`, or a class of Optuna, of a hub or of NNI.
        space: The space whose settings Optuna sees.
        pool: What may be tried.
        free: Candidates of the pool that were not tried yet; at least one.
        history: One observation a trial, at one fidelity; those under way have none yet.
        num_objectives: Length of an observation's objectives.
        rng: Seeds the sampler, and breaks ties.
        seed: Of the study, for samplers that go through the history again.
        num_tried: Networks so far, also those that the history lacks.

    Returns:
        The candidate, and the name of the sampler, with `nearest` where it asked for another.

    Raises:
        SearchError: A sampler that is not the project's own fails.
    """
    draw, start = rng.randrange(2**31), random.Random(f"sampler {seed}").randrange(2**31)
    own, digest = sampler.own, ""
    if own:
        form: Form = "whole" if own in WHOLE else "conditional"
        wanted, digest = _wanted(SAMPLERS[own], form, space, pool, history, num_objectives, draw)
    else:
        try:
            with seeded(draw), quiet():
                if sampler.source == "nni":
                    from nas.search.sampler import nni_tuners  # an extra that takes seconds to import

                    table = Settings.of(pool)
                    told = [(table.row(item.params), item.objectives) for item in history if table.has(item.params)]
                    row = nni_tuners.asked(sampler, table.counts(), told, draw, start)
                    wanted = table.settings(row) if row is not None else {}
                else:
                    can = ability(sampler, num_objectives)
                    make = maker(sampler)
                    if can.replayed:
                        wanted = _replayed(make(start), can.form, pool, history, num_objectives, num_tried)
                    else:
                        wanted, digest = _wanted(make, can.form, space, pool, history, num_objectives, draw)
        except NasError:
            raise
        except (Exception, SystemExit) as error:  # of code that is not ours
            raise SearchError(one_line(f"search.sampler {sampler} failed: {type(error).__name__}: {error}")) from error
    match = next((one for one in free if one.digest == digest or plain_settings(one.params) == wanted), None)
    return (match, str(sampler)) if match is not None else (_nearest(free, wanted, rng), f"{sampler}, nearest")


def rehearse(sampler: Sampler, space: SearchSpace, *, num_objectives: int, seed: int) -> None:
    """Lets a sampler propose after made-up results, so that what it cannot do shows before anything is trained.

    Args:
        sampler: Any; the project's own can do what they are asked.
        space: Of the study.
        num_objectives: Of the search.
        seed: Of the study.

    Raises:
        SearchError: It fails.
    """
    if sampler.own:
        return
    rng, points = random.Random(f"rehearsal {seed}"), dict[str, Point]()
    for _ in range(4 * REHEARSED):
        with contextlib.suppress(SpecError):  # settings of no network
            point = space.random(rng)
            points.setdefault(point.digest, point)
    unpriced = cast(Cost, None)  # samplers do not see costs
    networks = [
        Candidate(digest=key, spec=point.spec, params=dict(point.params), cost=unpriced, stratum=0)
        for key, point in points.items()
    ]
    pool = CandidatePool(candidates=tuple(networks), named=(), dropped={}, whole=False)
    for count in (REHEARSED // 2, REHEARSED):
        told, free = networks[: min(count, len(networks) - 1)], networks[min(count, len(networks) - 1) :]
        results = [
            Observation(params=one.params, objectives=tuple(rng.random() for _ in range(num_objectives)))
            for one in told
        ]
        if told:
            asked(
                sampler=sampler,
                space=space,
                pool=pool,
                free=free,
                history=results,
                num_objectives=num_objectives,
                rng=rng,
                seed=seed,
                num_tried=len(told),
            )


def _nearest(free: Sequence[Candidate], params: Mapping[str, Any], rng: random.Random) -> Candidate:
    """The free candidate with the fewest settings that differ from `params`; ties are broken at random."""

    def distance(candidate: Candidate) -> int:
        own = plain_settings(candidate.params)
        return sum(params.get(name) != own.get(name) for name in params.keys() | own.keys())

    distances = [distance(candidate) for candidate in free]
    least = min(distances)
    return rng.choice([c for c, d in zip(free, distances, strict=True) if d == least])


def _tpe(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, n_startup_trials=1, constant_liar=True, seed=seed)


def _nsga2(seed: int) -> BaseSampler:
    return NSGAIISampler(population_size=POPULATION, seed=seed)


def _gp(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return GPSampler(seed=seed, n_startup_trials=1)


SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {"tpe": _tpe, "nsga2": _nsga2, "gp": _gp}
WHOLE = ("nsga2", "gp")  # see all settings of a space at once


class Settings:
    """All settings of a pool as one table of values, None where one does not apply.

    Args:
        choices: Values of each setting that has several; numbers rise, other values stand as they came.
        fixed: The value of each setting that has one.
    """

    def __init__(self, choices: Mapping[str, tuple[Any, ...]], fixed: Mapping[str, Any]) -> None:
        """Keeps them."""
        self.choices, self.fixed = choices, fixed

    @classmethod
    def of(cls, pool: CandidatePool) -> Settings:
        """Those of the networks of a pool."""
        rows = [plain_settings(candidate.params) for candidate in pool.candidates if candidate.params]
        names = list(dict.fromkeys(name for row in rows for name in row))
        values = {name: tuple(dict.fromkeys(row.get(name) for row in rows)) for name in names}
        return cls(
            {name: _risen(found) for name, found in values.items() if len(found) > 1},
            {name: found[0] for name, found in values.items() if len(found) == 1},
        )

    def has(self, params: Mapping[str, Any]) -> bool:
        """Whether settings are those of a network of the table."""
        own = plain_settings(params)
        return bool(params) and all(own.get(name) in values for name, values in self.choices.items())

    def row(self, params: Mapping[str, Any]) -> dict[str, int]:
        """The place of each setting's value among its choices."""
        own = plain_settings(params)
        return {name: values.index(own.get(name)) for name, values in self.choices.items()}

    def settings(self, row: Mapping[str, int]) -> dict[str, Any]:
        """The other way round, without settings that do not apply."""
        chosen = {name: values[row.get(name, 0)] for name, values in self.choices.items()}
        return {name: value for name, value in {**self.fixed, **chosen}.items() if value is not None}

    def counts(self) -> dict[str, int]:
        """How many choices each setting has."""
        return {name: len(values) for name, values in self.choices.items()}


def _risen(values: tuple[Any, ...]) -> tuple[Any, ...]:
    some = [value for value in values if value is not None]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in some):
        some.sort()
    return (*([None] if None in values else []), *some)


def _wanted(
    make: Callable[[int], BaseSampler],
    form: Form,
    space: SearchSpace,
    pool: CandidatePool,
    history: Sequence[Observation],
    num_objectives: int,
    seed: int,
) -> tuple[dict[str, Any], str]:
    """The settings that a fresh sampler asks for once it has been told the whole history; and the network's digest.

    The latter is empty where the sampler sees a whole space, of whose settings many make no network.
    """
    if form == "conditional":
        seen = [
            (item.params, distributions_of(space, item.params), item.objectives)
            for item in history
            if item.params  # not a named network outside the settings of the space
        ]
        trial = _told(make(seed), seen, num_objectives).ask()
        try:
            point = space.sample(trial)
        except SpecError:  # settings of no network
            return plain_settings(trial.params), ""
        return plain_settings(dict(point.params)), point.digest
    if form == "whole":
        return plain_settings(_asked(make, pool, history, num_objectives, seed)), ""
    table = Settings.of(pool)
    numbers = _numbers(table)
    rows = [(table.row(item.params), numbers, item.objectives) for item in history if table.has(item.params)]
    trial = _told(make(seed), rows, num_objectives).ask(fixed_distributions=dict(numbers))
    return table.settings(trial.params), ""


def _numbers(table: Settings) -> dict[str, BaseDistribution]:
    return {name: IntDistribution(0, count - 1) for name, count in table.counts().items()}


def _replayed(
    sampler: BaseSampler,
    form: Form,
    pool: CandidatePool,
    history: Sequence[Observation],
    num_objectives: int,
    num_tried: int,
) -> dict[str, Any]:
    """The settings that a sampler asks for which notes in a study where it stands, as CMA-ES does and a sequence.

    It is asked for each network of the history, and told that this network was its answer, with what it noted on it.
    Networks without a result at this fidelity count as asked for, so that a sequence goes on.
    """
    table = Settings.of(pool)
    ordered = _numbers(table)
    words = {name: CategoricalDistribution(range(count)) for name, count in table.counts().items()}
    numbers: dict[str, BaseDistribution] = ordered if form == "ordered" else dict(words)
    study = optuna.create_study(directions=["minimize"] * num_objectives, sampler=sampler)
    known = [item for item in history if table.has(item.params)]
    for item in known:
        trial = study.ask(fixed_distributions=dict(numbers))
        notes = study.get_trials(deepcopy=False)[trial.number].system_attrs
        study.tell(trial, state=TrialState.FAIL)
        done = item.objectives is not None
        study.add_trial(
            create_trial(
                params=table.row(item.params),
                distributions=dict(numbers),
                values=list(item.objectives) if item.objectives is not None else None,
                state=TrialState.COMPLETE if done else TrialState.RUNNING,
                system_attrs=dict(notes),
            )
        )
    for _ in range(num_tried - len(known)):
        study.tell(study.ask(fixed_distributions=dict(numbers)), state=TrialState.FAIL)
    return table.settings(study.ask(fixed_distributions=dict(numbers)).params)


def _asked(
    make: Callable[[int], BaseSampler],
    pool: CandidatePool,
    history: Sequence[Observation],
    num_objectives: int,
    seed: int,
) -> dict[str, Any]:
    """Asks a sampler for a value of every setting of the pool, None for one that does not apply."""
    rows = [plain_settings(candidate.params) for candidate in pool.candidates if candidate.params]
    names = list(dict.fromkeys(name for row in rows for name in row))
    choices = {name: tuple(dict.fromkeys(row.get(name) for row in rows)) for name in names}
    distributions: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(values) for name, values in choices.items() if len(values) > 1
    }
    seen = []
    for item in history:
        own = plain_settings(item.params)
        values = {name: own.get(name) for name in distributions}
        if item.params and all(value in choices[name] for name, value in values.items()):
            seen.append((values, distributions, item.objectives))
    trial = _told(make(seed), seen, num_objectives).ask(fixed_distributions=distributions)
    return {name: trial.params.get(name, choices[name][0]) for name in names}


def distributions_of(space: SearchSpace, params: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """Optuna's distributions of the settings of one network."""
    choices = space.choices_of(space.point(params))
    return {name: CategoricalDistribution(choices[name]) for name in params}


def _told(
    sampler: BaseSampler,
    seen: Sequence[tuple[Mapping[str, Any], Mapping[str, BaseDistribution], tuple[float, ...] | None]],
    num_objectives: int,
) -> optuna.Study:
    """A study in memory with settings, their distributions and their objectives.

    It holds COMPLETE trials, and RUNNING ones for what is in training, never a PRUNED one: pruned trials break Optuna's
    multi-objective samplers.
    """
    study = optuna.create_study(directions=["minimize"] * num_objectives, sampler=sampler)
    done = 0
    size = (sampler.population_size if isinstance(sampler, BaseGASampler) else None) or POPULATION
    for params, distributions, objectives in seen:
        if objectives is None:
            state, values, attrs = TrialState.RUNNING, None, dict[str, Any]()
        else:
            state, values = TrialState.COMPLETE, list(objectives)
            attrs = {sampler._get_generation_key(): done // size} if isinstance(sampler, BaseGASampler) else {}
            done += 1
        study.add_trial(
            create_trial(
                params=dict(params), distributions=dict(distributions), values=values, state=state, system_attrs=attrs
            )
        )
    return study
