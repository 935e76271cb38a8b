"""Samplers of Optuna, or of a hub, by name: whether one is there, takes its settings, and draws by its seed alone.

Nothing of that is written down here. A class is asked: its signature for settings, a small study for the number of
objectives, for the settings that it models together, and for what it notes in a study.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseGASampler, BaseSampler
from optuna.trial import create_trial

from nas.errors import StudyError, one_line, unknown
from nas.search.sampler import hub
from nas.search.sampler.signature import KEY, by_name, checked, seeded
from nas.study.samplers import Sampler

Form = Literal["conditional", "whole", "ordered"]

_EXTRAS = {"cmaes": "cmaes", "optunahub": "hub"}  # packages that samplers need, and the extra that brings them


@dataclass(frozen=True, kw_only=True, slots=True)
class Ability:
    """How a sampler is asked.

    Attributes:
        form: `conditional`, each setting as it comes up; `whole`, all settings of a space, one that does not apply
            having a value of its own; `ordered`, the same as whole numbers, for samplers that know numbers alone.
        replayed: It notes in a study where it stands, so that a study has to be gone through with it.
    """

    form: Form
    replayed: bool


def check(sampler: Sampler, objectives: Sequence[str]) -> None:
    """Makes sure that a sampler of Optuna or of a hub can do what a study asks.

    Raises:
        StudyError: It does not exist, lacks a package, or does not take a setting or the number of objectives.
    """
    make = maker(sampler)
    try:
        _asked(make, len(objectives))
    except ImportError as error:
        raise StudyError(missing(sampler, error)) from error
    except (Exception, SystemExit) as error:
        if len(objectives) > 1 and _works(make, 1, lacking=True):
            raise StudyError(
                f"{KEY} {sampler} takes one objective, but search.objectives is [{', '.join(objectives)}] (of Optuna, "
                f"these take {len(objectives)}: {', '.join(able(len(objectives)))})"
            ) from error
        raise StudyError(f"{KEY} {sampler} cannot be used: {_told(error)}") from error


def ready(sampler: Sampler, objectives: Sequence[str]) -> str:
    """Makes sure that a sampler can do what a study asks, before anything else is done.

    Args:
        sampler: Any.
        objectives: Names of the search's objectives.

    Returns:
        A line on what it is told, where that is not all there is; else nothing.

    Raises:
        StudyError: It cannot.
    """
    if sampler.source == "nni":
        from nas.search.sampler import nni_tuners  # an extra that takes seconds to import

        nni_tuners.check(sampler)
        return nni_tuners.note(sampler, objectives)
    if not sampler.own:
        check(sampler, objectives)
    return ""


def able(num_objectives: int) -> list[str]:
    """Classes of Optuna that take a number of objectives with their default settings."""
    return [name for name, of in classes().items() if _works(partial(_built, of, given={}), num_objectives)]


def classes() -> dict[str, type[BaseSampler]]:
    """The classes of `optuna.samplers` that can be made of plain settings, by name."""
    # Brute force follows a tree of settings to its end, which a pool with constraints and other proposals is not.
    names = [name for name in optuna.samplers.__all__ if name != "BruteForceSampler"]
    found = {name: getattr(optuna.samplers, name) for name in names}
    return {
        name: of
        for name, of in found.items()
        if inspect.isclass(of) and issubclass(of, BaseSampler) and not inspect.isabstract(of) and not _needs(of)
    }


@lru_cache(maxsize=16)
def maker(sampler: Sampler) -> Callable[[int], BaseSampler]:
    """How the sampler is made of a seed.

    Raises:
        StudyError: There is no such class, or it does not take a setting.
    """
    settings = sampler.given
    if sampler.source == "hub":
        of, settings = hub.class_of(sampler.name, settings)
    elif sampler.name in classes():
        of = classes()[sampler.name]
    else:
        stated = getattr(optuna.samplers, sampler.name, None)
        if inspect.isclass(stated) and issubclass(stated, BaseSampler) and _needs(stated):
            raise StudyError(
                f"{KEY} {sampler} needs {', '.join(_needs(stated))}, which a study cannot state "
                f"(choices: {', '.join(classes())})"
            )
        raise StudyError(unknown(f"{KEY} optuna", sampler.name, classes()))
    given = checked(sampler, of.__init__, settings)
    try:
        _built(of, 0, given)
    except ImportError as error:
        raise StudyError(missing(sampler, error)) from error
    except (Exception, SystemExit) as error:
        raise StudyError(f"{KEY} {sampler} does not take its settings: {_told(error)}") from error
    return partial(_built, of, given=given)


def _needs(of: type[BaseSampler]) -> list[str]:
    """Arguments without which a class cannot be made."""
    signature = inspect.signature(of.__init__).parameters.values()
    return [one.name for one in signature if by_name(one) and one.default is one.empty]


def _built(of: type[BaseSampler], seed: int, given: Mapping[str, Any]) -> BaseSampler:
    own = {"seed": seed} if "seed" in inspect.signature(of.__init__).parameters else {}
    with quiet():
        return of(**own, **given)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what samplers say of experimental settings, and of settings that they draw on their own."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


@lru_cache(maxsize=16)
def ability(sampler: Sampler, num_objectives: int) -> Ability:
    """What a sampler can be told, asked of itself."""
    study, trial = _asked(maker(sampler), num_objectives)
    with quiet():
        together = study.sampler.infer_relative_search_space(study, trial)
    if not together or "sometimes" in together:
        return Ability(form="conditional", replayed=False)
    notes = {*trial.system_attrs, *study._storage.get_study_system_attrs(study._study_id)}
    own = {note for note in notes if ":relative_params:" not in note}
    replayed = bool(own) and not isinstance(study.sampler, BaseGASampler)
    return Ability(form="whole" if "word" in together else "ordered", replayed=replayed)


_SMALL: Mapping[str, BaseDistribution] = {"word": CategoricalDistribution(["a", "b"]), "number": IntDistribution(0, 3)}


def _asked(make: Callable[[int], BaseSampler], num_objectives: int) -> tuple[optuna.Study, optuna.trial.FrozenTrial]:
    """A small study of words, numbers and a setting that not all trials have, and a trial that the sampler asks for."""
    with quiet(), seeded(0):
        study = optuna.create_study(directions=["minimize"] * num_objectives, sampler=make(0))
        for i in range(2):
            params: dict[str, Any] = {"word": "ab"[i], "number": i}
            known = dict(_SMALL)
            if i:
                params, known = {**params, "sometimes": "a"}, {**known, "sometimes": known["word"]}
            study.add_trial(create_trial(params=params, distributions=known, values=[float(i)] * num_objectives))
        trial = study.ask(dict(_SMALL))
        return study, study._storage.get_trial(trial._trial_id)


def _works(make: Callable[[int], BaseSampler], num_objectives: int, *, lacking: bool = False) -> bool:
    """Whether a sampler proposes something, or, if `lacking`, would with a package that is missing."""
    try:
        _asked(make, num_objectives)
    except ImportError:
        return lacking
    except (Exception, SystemExit):
        return False
    return True


def missing(sampler: Sampler, error: ImportError) -> str:
    """One line on a package that a sampler needs."""
    name = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(name)
    how = f": pip install 'video-nas[{extra}]'" if extra else f" ({_told(error)})"
    return f"{KEY} {sampler} needs {name or 'a package that is missing'}{how}"


def _told(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}", 200)
