"""Tuners of NNI 3.0 as samplers. NNI, an extra, is imported here alone.

A tuner sees every setting of the pool as the place of its value among the values, so that those which know numbers
alone (`GP`) take any space. It takes one number of a network: 1 - error, or with several objectives an
augmented Chebyshev scalarisation (Knowles 2006, ParEGO), whose weights are drawn anew for each proposal. A network in
training counts as the mean of those that were measured.
"""

from __future__ import annotations

import contextlib
import io
import random
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module, resources
from typing import Any
from unittest import mock

import numpy as np
import scipy.optimize
import yaml

from nas.errors import StudyError, one_line, unknown
from nas.search.sampler.signature import KEY, checked, seeded, seeded_anew
from nas.study.samplers import Sampler

TUNERS = ("TPE", "Evolution", "Anneal", "GP", "Random", "GridSearch", "SMAC")
"""Those that choose settings. Others schedule trainings or build networks of their own; Metis takes minutes a time."""

_OURS = {
    "seed": "it follows from the study's seed",
    "optimize_mode": "a search minimises its objectives",
    "algorithm_name": "it follows from the tuner's name",
    "parallel_optimize": "networks in training are told as the mean of results",
    "constant_liar_type": "networks in training are told as the mean of results",
}
_SHARE = 0.05  # of the sum of objectives in a scalarisation
_LEAST = 1e-12  # NNI leaves out results of 0

Row = Mapping[str, int]


def check(sampler: Sampler) -> None:
    """Makes sure that a tuner is there and takes its settings.

    Raises:
        StudyError: It is not, or does not.
    """
    if sampler.name not in TUNERS:
        raise StudyError(unknown(f"{KEY} nni", sampler.name, TUNERS))
    with seeded(0), _still():
        try:
            _tuner(sampler, {"a": 2, "b": 2}, 0).generate_parameters(0)
        except ImportError as error:
            name = (error.name or "").partition(".")[0]
            if name in ("nni", ""):
                raise StudyError(f"{KEY} {sampler} needs nni: pip install 'video-nas[nni]'") from error
            raise StudyError(f"{KEY} {sampler} needs {name}: pip install 'nni[{sampler.name}]==3.0'") from error
        except StudyError:
            raise
        except (Exception, SystemExit) as error:
            raise StudyError(
                f"{KEY} {sampler} does not take its settings: {one_line(f'{type(error).__name__}: {error}', 200)}"
            ) from error


def note(sampler: Sampler, objectives: Sequence[str]) -> str:
    """One line on what a tuner is told."""
    if len(objectives) == 1:
        return f"note: {sampler} takes one number of a network: it is told 1 - error"
    return (
        f"note: {sampler} takes one number of a network: it is told an augmented Chebyshev scalarisation of "
        f"{', '.join(objectives)} (costs in logs), with weights drawn by the study's seed for each proposal"
    )


def asked(
    sampler: Sampler,
    counts: Mapping[str, int],
    seen: Sequence[tuple[Row, tuple[float, ...] | None]],
    seed: int,
    start: int,
) -> dict[str, int] | None:
    """What a fresh tuner asks for once it was told a history.

    Args:
        sampler: One of `TUNERS`, with settings.
        counts: How many choices each setting has.
        seen: The choices of each network and its minimised objectives; None while it is in training.
        seed: Of this proposal.
        start: Of all proposals, for the tuner that goes through the history again.

    Returns:
        A choice of each setting; None where the tuner has no more.
    """
    rewards = rewards_of([objectives for _, objectives in seen if objectives is not None], seed)
    mean = sum(rewards) / len(rewards) if rewards else 0.0
    left = iter(rewards)
    told = [(dict(row), next(left) if objectives is not None else mean) for row, objectives in seen]
    again = sampler.name == "Evolution"  # it cannot import results
    with seeded(start if again else seed), _still():
        import nni

        tuner = _tuner(sampler, counts, start if again else seed)
        try:
            with _as_of_its_day():
                if again:
                    _gone_through(tuner, told)
                elif sampler.name == "GridSearch":  # its place is how often it was asked, whatever was tried instead
                    for number in range(len(told)):
                        tuner.generate_parameters(number)
                elif told:
                    tuner.import_data([{"parameter": row, "value": reward or _LEAST} for row, reward in told])
                found = tuner.generate_parameters(len(told))
        except nni.NoMoreTrialError:
            return None
    return {name: int(found[name]) for name in counts}


def rewards_of(objectives: Sequence[tuple[float, ...]], seed: int) -> list[float]:
    """What a tuner maximises, for each network.

    Args:
        objectives: Minimised, `error` first.
        seed: Draws the weights of several objectives.
    """
    if not objectives or len(objectives[0]) == 1:
        return [1.0 - own[0] for own in objectives]
    rng = random.Random(f"weights {seed}")
    drawn = [rng.expovariate(1.0) for _ in objectives[0]]
    weights = [weight / sum(drawn) for weight in drawn]
    lows = [min(column) for column in zip(*objectives, strict=True)]
    spans = [max(column) - low or 1.0 for column, low in zip(zip(*objectives, strict=True), lows, strict=True)]
    rewards = []
    for own in objectives:
        parts = [w * (value - low) / span for w, value, low, span in zip(weights, own, lows, spans, strict=True)]
        rewards.append(1.0 - max(parts) - _SHARE * sum(parts))
    return rewards


def _tuner(sampler: Sampler, counts: Mapping[str, int], seed: int) -> Any:
    """A tuner that was told the space, and nothing else."""
    import nni

    nni.silence_stdout()
    path = resources.files("nni") / "runtime" / "default_config" / "builtin_algorithms.yml"
    known = {one["builtinName"]: one for one in yaml.safe_load(path.read_text("utf-8"))["tuners"]}[sampler.name]
    module, _, name = known["className"].rpartition(".")
    of = getattr(import_module(module), name)
    given: dict[str, Any] = dict(known.get("classArgs", {}))
    takes = of.__init__.__code__.co_varnames
    if "tpe_args" in takes:  # NNI keeps them apart
        given["tpe_args"] = checked(sampler, import_module(module).TpeArguments.__new__, sampler.given, _OURS)
    else:
        given |= _valid(sampler, known, checked(sampler, of.__init__, sampler.given, _OURS))
    if "optimize_mode" in takes:
        given["optimize_mode"] = "maximize"
    if "seed" in takes:
        given["seed"] = seed
    with seeded_anew(seed):
        tuner = of(**given)
        tuner.update_search_space(
            {name: {"_type": "choice", "_value": list(range(count))} for name, count in counts.items()}
        )
    return tuner


@contextlib.contextmanager
def _as_of_its_day() -> Iterator[None]:
    """Within it, NNI and hyperopt 0.1.2 find SciPy and Python as they were when they were written.

    SciPy took a row as a starting point and gave the least value as an array; `int` took an array of one number.
    """
    with contextlib.ExitStack() as stack:
        if "nni.algorithms.hpo.gp_tuner.util" in sys.modules:
            util = sys.modules["nni.algorithms.hpo.gp_tuner.util"]
            stack.enter_context(mock.patch.object(util, "minimize", _minimised))
        if "hyperopt.anneal" in sys.modules:
            anneal = sys.modules["hyperopt.anneal"]
            stack.enter_context(mock.patch.object(anneal, "int", lambda value: int(np.ravel(value)[0]), create=True))
        yield


def _minimised(fun: Any, x0: Any, args: Any = (), **given: Any) -> Any:
    found = scipy.optimize.minimize(lambda x, *own: float(np.ravel(fun(x, *own))[0]), np.ravel(x0), args, **given)
    found.fun = np.atleast_1d(found.fun)
    return found


def _valid(sampler: Sampler, known: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as NNI's own check of them has it; whole numbers are floats where it wants those."""
    if "classArgsValidator" not in known:
        return dict(given)
    module, _, name = known["classArgsValidator"].rpartition(".")
    validator = getattr(import_module(module), name)()
    valid: dict[str, Any] = {}
    for key, stated in given.items():
        for value in (stated, float(stated)) if type(stated) is int else (stated,):
            try:
                validator.validate_class_args(optimize_mode="maximize", **{key: value})
            except (Exception, SystemExit) as error:
                fault = error
            else:
                valid[key] = value
                break
        else:
            text = one_line(str(fault), 200)
            raise StudyError(f"{KEY} {sampler}: {key} is {stated!r}, which NNI does not take: {text}") from fault
    return valid


def _gone_through(tuner: Any, told: Sequence[tuple[dict[str, int], float]]) -> None:
    """Asks an evolution for each network of the history, and tells it that this network was its answer."""
    for number, (row, reward) in enumerate(told):
        tuner.generate_parameters(number)
        tuner.running_trials[number].config = {name: {"_index": at, "_value": at} for name, at in row.items()}
        tuner.receive_trial_result(number, row, reward)


@contextlib.contextmanager
def _still() -> Iterator[None]:
    """Without what tuners print, and without warnings of code that is older than its libraries."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
