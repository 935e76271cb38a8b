"""Scores as features of the model: what it learns from them, what it asks for, and what is kept."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas.errors import SearchError
from nas.search.driver import run_search
from nas.search.model.belief import SHORT, Model, Result
from nas.search.model.encoding import REFERENCE, CandidateLike, FeatureColumns
from nas.search.pool import Candidate, CandidatePool, Supply, build_pool
from nas.search.sampler.pool import proposed
from nas.search.scores.score import StudyScores, score
from nas.store.database import Store
from nas.study.files import load_study
from nas.study.study import Study
from tests.nas.studies import write_study

WIDE = {"space": {"domains": {"kind": {"values": ["2d", "3d", "2plus1d", "p3d_a", "p3d_b"], "per": "stage"}}}}


def luck(digest: str) -> float:
    """What no setting says of a network, from 0 to 1."""
    return int(digest[:6], 16) / 16**6


class Table:
    """Scores by digest; counts what it is asked for."""

    def __init__(self, value: Callable[[str], float | None]) -> None:
        self.names: Sequence[str] = ("synflow",)
        self.value = value
        self.asked: set[str] = set()

    def of(self, name: str, networks: Sequence[CandidateLike]) -> list[float | None]:
        self.asked |= {one.digest for one in networks}
        return [self.value(one.digest) for one in networks]


def study_at(folder: Path, **search: Any) -> Study:
    return load_study(write_study(folder / "tiny.yaml", WIDE | {"search": {"sampler": "pool", **search}}))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return study_at(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def pool(study: Study) -> CandidatePool:
    return build_pool(study, num_classes=8)


def miss(pool: CandidatePool, scores: Table | None, seed: int, error: Callable[[str], float]) -> float:
    """Root mean square by which a model of 16 results misses the log errors of the others."""
    model = Model(pool.candidates, ("macs",), 1, scores)
    order = list(pool.candidates)
    random.Random(seed).shuffle(order)
    seen, rest = order[:16], order[16:]
    results = [Result(digest=one.digest, rung=0, errors=(error(one.digest),), videos=1000) for one in seen]
    belief = model.believe(results, {one.digest: one for one in seen})
    found = belief.expect(rest, against=belief.digests, reference=(1.0, 1.05), scored=True)
    return float(np.sqrt(np.mean((np.log(found.error) - np.log([error(one.digest) for one in rest])) ** 2)))


def test_the_model_learns_from_an_informative_score_and_is_not_misled_by_another(pool: CandidatePool) -> None:
    def error(digest: str) -> float:
        return 0.1 + 0.6 * luck(digest)

    plain, informed, misled = (
        np.mean([miss(pool, scores, seed, error) for seed in range(5)])
        for scores in (None, Table(lambda digest: 10.0 * luck(digest) ** 3), Table(lambda digest: luck(digest[::-1])))
    )
    assert informed < 0.5 * plain
    assert misled < 1.15 * plain


def test_a_guess_does_not_depend_on_what_was_scored_before(pool: CandidatePool) -> None:
    one, other = (Model(pool.candidates, ("macs",), 1, Table(luck)).encoder.features for _ in range(2))
    assert one is not None and other is not None
    one.known(pool.candidates)
    assert np.array_equal(one.guessed(pool.candidates), other.guessed(pool.candidates))


def test_a_guess_is_what_settings_say() -> None:
    """A score that follows from cost is guessed well, also of networks that were never scored."""
    low, high = np.random.default_rng(0).uniform(0, 1, (2, 300))
    columns = {str(i): np.asarray([a, b, 1.0]) for i, (a, b) in enumerate(zip(low, high, strict=True))}
    networks: Any = [type("N", (), {"digest": key, "params": {}})() for key in columns]
    scores = Table(lambda digest: float(columns[digest] @ [3.0, 1.0, 0.0]))
    features = FeatureColumns(scores, networks[:200], lambda asked: np.stack([columns[one.digest] for one in asked]))
    rest = networks[200:]
    assert np.abs(features.guessed(rest) - features.known(rest)).mean() < 0.08


def test_quantiles_are_of_the_pool_and_a_network_without_the_score_is_guessed(pool: CandidatePool) -> None:
    lacking = pool.candidates[3].digest
    features = Model(
        pool.candidates, (), 1, Table(lambda digest: None if digest == lacking else luck(digest))
    ).encoder.features
    assert features is not None
    known = features.known(pool.candidates)[:, 0]
    assert (
        np.argsort(known[np.arange(len(known)) != 3]).tolist()
        == np.argsort([luck(one.digest) for one in pool.candidates if one.digest != lacking]).tolist()
    )
    assert 0 <= known.min() < 0.05 and 0.95 < known.max() <= 1
    assert known[3] == features.guessed(pool.candidates[3:4])[0, 0]


def test_a_score_that_no_network_has_is_refused(pool: CandidatePool) -> None:
    with pytest.raises(SearchError, match=r"search\.features synflow: no network of the pool has this score"):
        Model(pool.candidates, (), 1, Table(lambda digest: None))


def test_a_proposal_scores_few_networks_and_is_the_same_whatever_was_scored_before(tmp_path: Path) -> None:
    domains = {"depth": ["2-2-2"], "kind": {"values": ["2d", "3d", "2plus1d", "p3d_a", "p3d_b"], "per": "block"}}
    large = load_study(write_study(tmp_path / "t.yaml", {"space": {"domains": domains}, "search": {"pool": 500}}))
    pool = build_pool(large, num_classes=8)
    assert len(pool.candidates) > REFERENCE
    scores = Table(luck)
    model, supply = Model(pool.candidates, ("macs",), 1, scores), Supply(large, pool, num_classes=8)
    assert len(scores.asked) == REFERENCE
    seen = random.Random(0).sample(pool.candidates, 30)
    results = [Result(digest=one.digest, rung=0, errors=(1.0 - 0.9 * luck(one.digest),), videos=1000) for one in seen]
    networks: Mapping[str, Candidate] = {one.digest: one for one in seen}
    before = scores.asked | set(networks)
    found = proposed(model, supply, networks, results, [], set(networks), random.Random(1))
    assert found is not None
    short = scores.asked - before
    assert len(short) <= SHORT + 1
    assert luck(found[0].digest) > 0.7  # which no setting says
    again = proposed(model, supply, networks, results, [], set(networks), random.Random(1))
    fresh = Model(pool.candidates, ("macs",), 1, Table(luck))
    other = proposed(fresh, Supply(large, pool, num_classes=8), networks, results, [], set(networks), random.Random(1))
    assert again is not None and other is not None
    assert found[0].digest == again[0].digest == other[0].digest


def test_what_is_stored_decides_and_what_was_made_otherwise_does_not(
    tmp_path: Path, study: Study, pool: CandidatePool
) -> None:
    study = study_at(tmp_path, features=["params"])
    first, second = pool.candidates[:2]
    exact = score("params", first.spec, study.data.clip, num_classes=8)
    with Store(tmp_path / "study.db", create=True) as store:
        row = store.add_study(name="tiny", seed=3, clip="4x16x16", num_classes=8, config={}, data={})
        scores = StudyScores(study, num_classes=8, store=(store, row))
        assert scores.of("params", [first]) == [exact]
        (kept,) = store.scores(row)
        assert (kept["digest"], kept["value"]) == (first.digest, exact)
        store.put_scores(row, "params", {first.digest: 42.0}, basis=kept["basis"])
        store.put_scores(row, "params", {second.digest: 43.0}, basis="another")
        again = StudyScores(study, num_classes=8, store=(store, row))
        assert again.of("params", [first, second]) == [
            42.0,
            score("params", second.spec, study.data.clip, num_classes=8),
        ]


def test_a_supernet_that_was_not_trained_is_asked_for(tmp_path: Path, pool: CandidatePool) -> None:
    study = study_at(tmp_path, features=["supernet"])
    with Store(tmp_path / "study.db", create=True) as store:
        row = store.add_study(name="tiny", seed=3, clip="4x16x16", num_classes=8, config={}, data={})
        with pytest.raises(SearchError, match=r"search\.features supernet is what `nas supernet STUDY` stores"):
            StudyScores(study, num_classes=8, store=(store, row))
        store.put_scores(row, "supernet", {pool.candidates[0].digest: 0.5}, basis="weights")
        scores = StudyScores(study, num_classes=8, store=(store, row))
        assert scores.of("supernet", pool.candidates[:2]) == [0.5, None]


def test_a_search_with_features_goes_on_as_it_would_have(tmp_path: Path, motion: Path) -> None:
    places = [f"data.root='{motion}'", f"data.cache='{motion.parent / 'cache'}'"]
    search = {"sampler": "pool", "initial": 4, "rungs": [1], "scheduler": "none", "features": ["naswot", "temporal"]}
    tried = []
    for name, stops in (("whole", [8]), ("parts", [5, 8])):
        (tmp_path / name).mkdir()
        for trials in stops:
            file = write_study(tmp_path / name / "tiny.yaml", WIDE | {"search": search | {"trials": trials}})
            run_search(load_study(file, places), tmp_path / name / "study.db", workers=0)
        with Store(tmp_path / name / "study.db") as store:
            row = store.study()
            tried.append([trial["digest"] for trial in store.trials(row["id"])])
            rows = store.scores(row["id"])
            assert {one["name"] for one in rows} == {"naswot", "temporal"}
            assert all("clips of" in one["basis"] for one in rows if one["name"] == "naswot")
            assert {trial["origin"] for trial in store.trials(row["id"])} > {"initial"}
    assert tried[0] == tried[1]
