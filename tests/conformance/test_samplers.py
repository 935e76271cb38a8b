"""Conformance of samplers: what Optuna publishes for samplers of its studies."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase, RelativeSamplerTestCase
from optuna.trial import TrialState

from nas.errors import StudyError
from nas.search.pool import Candidate, CandidatePool, build_pool
from nas.search.sampler import PoolSampler, nni_tuners
from nas.search.sampler.foreign import classes, maker, quiet, ready
from nas.search.sampler.optuna_samplers import Observation, Settings, _nearest, _replayed
from nas.study.files import load_study
from nas.study.samplers import Sampler, sampler_of
from nas.study.study import Study
from tests.nas.search.searched import Searched
from tests.nas.studies import write_study


@pytest.fixture(autouse=True)
def _quiet() -> None:
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class TestPoolSampler(BasicSamplerTestCase, RelativeSamplerTestCase, MultiObjectiveSamplerTestCase):
    """Optuna's own tests."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        """As it is made by default, but quick to learn."""
        return lambda: PoolSampler(seed=0, startup=1, pool=50)


def branin_like(trial: optuna.Trial) -> tuple[float, float]:
    """An error with a valley, and a cost that is known."""
    a, b = trial.suggest_categorical("a", ["x", "y", "z"]), trial.suggest_int("b", 1, 30)
    c = trial.suggest_int("c", 1, 16)
    error = 0.1 + {"x": 0.0, "y": 0.1, "z": 0.3}[a] + abs(b - 11) / 30 + 0.4 / c
    return error, float(c * c)


def volume(study: optuna.Study) -> float:
    """Of the front of a study."""
    from nas.study.front import hypervolume

    return hypervolume([(t.values[0], t.values[1] / 256) for t in study.trials if t.values[0] < 1.5], (1.5, 1.05))


def searched(sampler: BaseSampler, trials: int = 40) -> optuna.Study:
    """A study of that many trials."""
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
    study.optimize(branin_like, n_trials=trials)
    return study


def cost(params: Mapping[str, object]) -> float:
    """Of `branin_like`."""
    return float(str(params["c"])) ** 2


def test_a_known_cost_finds_the_front_sooner() -> None:
    ours = [volume(searched(PoolSampler(cost=cost, seed=seed))) for seed in range(3)]
    others = [volume(searched(optuna.samplers.TPESampler(seed=seed))) for seed in range(3)]
    assert min(ours) > max(others)


def test_no_trial_is_proposed_twice_and_seeds_repeat() -> None:
    first, second = (searched(PoolSampler(cost=cost, seed=5)) for _ in range(2))
    assert [trial.params for trial in first.trials] == [trial.params for trial in second.trials]
    later = [tuple(sorted(trial.params.items())) for trial in first.trials[10:]]
    assert len(set(later)) == len(later)


def test_settings_that_failed_are_not_asked_for_again() -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        width, depth = trial.suggest_categorical("w", [16, 32, 64, 128]), trial.suggest_int("d", 1, 8)
        return (math.nan if width == 128 and depth > 4 else 1.0 / (width * depth)), float(width * width * depth)

    sampler = PoolSampler(cost=lambda chosen: chosen["w"] ** 2 * chosen["d"], seed=1)
    study = optuna.create_study(directions=["minimize"] * 2, sampler=sampler)
    study.optimize(objective, n_trials=32)
    ended = [trial.number for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    asked = [tuple(trial.params.values()) for trial in study.trials]
    assert len(set(asked)) < len(asked), "the first ones are drawn"
    model = asked[ended[9] + 1 :]
    assert len(set(model)) == len(model) >= 15
    assert not set(model) & set(asked[: ended[9] + 1])


@pytest.mark.parametrize("how", ["pruned", "infinite"])
def test_what_came_to_nothing_is_not_asked_for_again(how: str) -> None:
    def objective(trial: optuna.Trial) -> float:
        width, depth = trial.suggest_categorical("w", [[1], [2], [3], [4]]), trial.suggest_int("d", 1, 8)
        if width == [1] and depth > 4:
            if how == "pruned":
                raise optuna.TrialPruned
            return math.inf
        return float(width[0]) - depth / 10

    study = optuna.create_study(sampler=PoolSampler(seed=0, pool=100))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of categories that are lists
        study.optimize(objective, n_trials=32)
    ended = [
        one.number for one in study.get_trials(states=[TrialState.COMPLETE]) if one.value and math.isfinite(one.value)
    ]
    model = [(one.params["w"][0], one.params["d"]) for one in study.trials[ended[9] + 1 :]]
    assert len(set(model)) == len(model) > 10


@pytest.mark.parametrize(("offset", "sign"), [(0, 1), (-3, 1), (1, 1), (0, -1)])
def test_a_known_cost_may_be_zero_negative_or_maximised(offset: int, sign: int) -> None:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        x, d = trial.suggest_float("x", 0, 1), trial.suggest_int("d", 0, 8)
        trial.suggest_categorical("only", [16])
        return (x - 0.3) ** 2 + (1 - d / 9 if sign > 0 else d / 9), float(d + offset)

    directions = ["minimize", "minimize" if sign > 0 else "maximize"]
    sampler = PoolSampler(seed=0, cost=lambda chosen: chosen["d"] + offset + 0 * chosen["only"])
    study = optuna.create_study(directions=directions, sampler=sampler)
    study.optimize(objective, n_trials=30)
    assert len({trial.params["d"] for trial in study.trials[10:]}) >= 5


def test_a_cost_that_is_no_number_is_said() -> None:
    study = optuna.create_study(directions=["minimize"] * 2, sampler=PoolSampler(seed=0, cost=lambda chosen: math.nan))
    with pytest.raises(ValueError, match="cost must give finite numbers, but gives nan for"):
        study.optimize(branin_like, n_trials=12)


def test_a_grid_goes_on_where_its_points_are_no_networks(pool: CandidatePool) -> None:
    pytest.importorskip("nni")
    table = Settings.of(pool)
    told = [(table.row(one.params), (0.5,)) for one in pool.candidates[:12]]
    found = [
        tuple((nni_tuners.asked(sampler_of("nni:GridSearch"), table.counts(), told[:count], 0, 0) or {}).values())
        for count in range(12)
    ]
    assert len(set(found)) == 12


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="pool must be at least 1, but is 0"):
        PoolSampler(pool=0)


# Every sampler that a study can name, over a pool.

QUICK: dict[str, dict[str, Any]] = {"nni:GP": {"selection_num_warm_up": 50, "selection_num_starting_points": 2}}
NAMED: list[Any] = [f"optuna:{name}" for name in classes()]
NAMED += [
    {"optuna": "TPESampler", "multivariate": True, "group": True},
    {"optuna": "NSGAIISampler", "population_size": 4},
]
NAMED += [{"nni": name, **QUICK.get(f"nni:{name}", {})} for name in nni_tuners.TUNERS]
HUB = str(Path(__file__).parent / "hub")
NAMED += [{"hub": "drawn", "path": HUB, "class": name} for name in ("Drawn", "Walk")]
SLOW = ("optuna:GPSampler", "nni:GP")
OBJECTIVES = ("error", "macs", "params")


def told(stated: Any) -> str:
    """A name for reports."""
    sampler = sampler_of(stated)
    return " ".join([str(sampler), *(f"{key}={value}" for key, value in sampler.settings if key != "path")])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A conditional space with a constraint."""
    kinds = {"values": ["2d", "3d", "p3d_a", "p3d_b"], "per": "stage"}
    over = {"space": {"domains": {"kind": kinds, "dilation": [1, 2, [1, 2]]}}, "constraints": ["macs <= 900k"]}
    return load_study(write_study(tmp_path_factory.mktemp("study") / "tiny.yaml", over))


@pytest.fixture(scope="module")
def pool(study: Study) -> CandidatePool:
    pool = build_pool(study, num_classes=8)
    assert len({frozenset(candidate.params) for candidate in pool.candidates}) > 1  # it is conditional
    return pool


def ready_or_skipped(stated: Any, objectives: int) -> Sampler:
    """The sampler, where its packages are installed and it takes so many objectives."""
    sampler = sampler_of(stated)
    try:
        ready(sampler, OBJECTIVES[:objectives])
    except StudyError as error:
        if "takes one objective" not in str(error) and " needs " not in str(error):
            raise
        pytest.skip(str(error))
    return sampler


def ended(search: Searched, candidate: Candidate, error: float, objectives: int) -> None:
    """A network has this error, and its own costs."""
    costs = [math.log10(candidate.quantity(name)) for name in OBJECTIVES[1:objectives]]
    search.tell(candidate, error, *costs)


def begun(study: Study, pool: CandidatePool, objectives: int, error: Callable[[Candidate], float]) -> Searched:
    """Sixteen networks, of which some failed and some are in training."""
    search = Searched(study, pool)
    for i, candidate in enumerate(pool.candidates[::3][:16]):
        if i % 6 == 4:
            search.fail(candidate)
        elif i % 6 == 5:
            search.tell(candidate, None)
        else:
            ended(search, candidate, error(candidate), objectives)
    return search


def made_up(candidate: Candidate) -> float:
    """An error that follows from the digest."""
    return int(candidate.digest[:4], 16) / 16**4


def check_proposal(search: Searched, stated: Any, objectives: int) -> Candidate:
    """Asks twice, as after a restart; what is proposed is new and keeps the constraints."""
    first, second = (search.ask(stated, objectives=objectives, seed=3) for _ in range(2))
    assert first is not None and second is not None
    assert (first.candidate.digest, first.origin) == (second.candidate.digest, second.origin)
    assert first.candidate.digest not in search.digests
    assert first.candidate.cost.macs <= 900_000
    assert first.origin.removesuffix(", nearest") == str(sampler_of(stated))
    return first.candidate


@pytest.mark.parametrize("objectives", [1, 2, 3])
@pytest.mark.parametrize("stated", NAMED, ids=told)
def test_every_name_proposes_what_is_new_and_allowed_and_the_same_again(
    study: Study, pool: CandidatePool, stated: Any, objectives: int
) -> None:
    """With failed and pending trainings; and where all networks are equally good."""
    sampler = ready_or_skipped(stated, objectives)
    search = begun(study, pool, objectives, made_up)
    state = random.getstate()
    for _ in range(1 if str(sampler) in SLOW else 3):
        candidate = check_proposal(search, stated, objectives)
        ended(search, candidate, made_up(candidate), objectives)
    assert len(set(search.digests)) == len(search.digests)
    assert random.getstate() == state
    if str(sampler) not in SLOW or objectives == 1:
        check_proposal(begun(study, pool, objectives, lambda candidate: 0.5), stated, objectives)


@pytest.mark.parametrize("stated", NAMED, ids=told)
def test_every_name_tries_every_network_once_and_then_stops(study: Study, pool: CandidatePool, stated: Any) -> None:
    sampler = ready_or_skipped(stated, 1)
    search = Searched(study, pool)
    left = 2 if str(sampler) in SLOW else 5
    for candidate in pool.candidates[:-left]:
        ended(search, candidate, made_up(candidate), 1)
    for _ in range(left):
        ended(search, check_proposal(search, stated, 1), 0.5, 1)
    assert search.ask(stated, objectives=1, seed=3) is None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_proposal_stands_whatever_was_tried(study: Study, pool: CandidatePool, data: st.DataObject) -> None:
    able = [one for one in NAMED if str(sampler_of(one)) not in SLOW and "nni" not in str(sampler_of(one))]
    stated, objectives = data.draw(st.sampled_from(able)), data.draw(st.integers(1, 3))
    try:
        ready(sampler_of(stated), OBJECTIVES[:objectives])
    except StudyError:
        return
    outcomes = st.none() | st.just("failed") | st.floats(0, 1)
    numbers = data.draw(st.lists(st.integers(0, len(pool.candidates) - 1), unique=True, min_size=10, max_size=25))
    search = Searched(study, pool)
    for number in numbers:
        outcome = data.draw(outcomes)
        candidate = pool.candidates[number]
        if outcome == "failed":
            search.fail(candidate)
        elif outcome is None:
            search.tell(candidate, None)
        else:
            ended(search, candidate, float(outcome), objectives)
    if sum(one.objectives is not None for one in search.history) >= 6:
        check_proposal(search, stated, objectives)


@pytest.fixture
def wanted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What samplers ask for, whatever is taken in its place."""
    asked: list[dict[str, Any]] = []
    settings_as_they_are = Settings.settings

    def kept(self: Settings, row: Mapping[str, int]) -> dict[str, Any]:
        asked.append(dict(row))
        return settings_as_they_are(self, row)

    monkeypatch.setattr(Settings, "settings", kept)
    return asked


def test_a_loss_that_diverged_does_not_make_all_others_equal() -> None:
    def loss(chosen: Mapping[str, Any]) -> float:
        return abs(chosen["d"] - 6) + (0.0 if chosen["kind"] == "b" else 3.0)

    def found(diverged: float) -> list[float]:
        def objective(trial: optuna.Trial) -> float:
            chosen = {"d": trial.suggest_int("d", 1, 30), "kind": trial.suggest_categorical("kind", ["a", "b", "c"])}
            return diverged if trial.number == 3 else loss(chosen)

        study = optuna.create_study(sampler=PoolSampler(seed=0, pool=60, startup=12))
        study.optimize(objective, n_trials=20)
        return [loss(trial.params) for trial in study.trials[12:]]

    assert sum(found(1e9)) < 1.5 * sum(found(20.0)) + 3


def test_cma_es_learns_from_the_networks_that_were_tried_in_place_of_its_own(pool: CandidatePool) -> None:
    """It would otherwise begin anew with each proposal."""
    ready_or_skipped("optuna:CmaEsSampler", 1)
    make, table, rng = maker(sampler_of("optuna:CmaEsSampler")), Settings.of(pool), random.Random(0)
    history: list[Observation] = []
    asked: list[float] = []
    for number in range(48):
        with quiet():
            wanted = _replayed(make(1), "ordered", pool, history, 1, number)
        taken = _nearest(pool.candidates, wanted, rng)
        asked.append(sum(values.index(wanted.get(name)) for name, values in table.choices.items()))
        error = float(sum(table.row(taken.params).values()))
        history.append(Observation(params=taken.params, objectives=(error,)))
    assert sum(asked[-12:]) < 0.75 * sum(asked[:12])


def test_a_sequence_goes_on_from_where_it_stood(
    study: Study, pool: CandidatePool, wanted: list[dict[str, Any]]
) -> None:
    """Sobol's points differ from each other, though the sampler is made anew for each; also where trainings fail."""
    search = begun(study, pool, 2, made_up)
    for i in range(6):
        found = search.ask({"optuna": "QMCSampler"}, seed=3)
        assert found is not None
        if i % 2:
            search.fail(found.candidate)
        else:
            ended(search, found.candidate, 0.5, 2)
    assert len({tuple(row.items()) for row in wanted}) == 6


def test_weights_of_a_scalarisation_are_drawn_for_each_proposal() -> None:
    objectives = [(0.1, 9.0), (0.5, 6.0), (0.9, 3.0)]
    rewards = [nni_tuners.rewards_of(objectives, seed) for seed in range(20)]
    assert len({row.index(max(row)) for row in rewards}) > 1
    assert nni_tuners.rewards_of(objectives, 7) == rewards[7]
    assert nni_tuners.rewards_of([(0.25,), (1.0,)], 0) == [0.75, 0.0]
    assert nni_tuners.rewards_of([(0.5, 1.0), (0.5, 1.0)], 0) == [1.0, 1.0]
