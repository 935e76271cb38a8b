"""Samplers by name: nothing twice, nothing outside the pool, the same for the same ledger, and always an end."""

from __future__ import annotations

import contextlib
import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import optuna
import pytest
import yaml
from optuna.samplers import GPSampler, RandomSampler

from nas.cli.main import main
from nas.errors import SearchError, StudyError
from nas.search.model.belief import Model
from nas.search.model.encoding import Encoder
from nas.search.notices import gaps, too_small
from nas.search.pool import Candidate, CandidatePool, Reason, Supply, build_pool, strata_of
from nas.search.sampler import hub, nni_tuners
from nas.search.sampler.foreign import ready
from nas.search.sampler.optuna_samplers import rehearse
from nas.study.files import load_study
from nas.study.samplers import OWN as SAMPLERS
from nas.study.samplers import sampler_of
from nas.study.study import Study
from search_spaces.family_space import Point
from tests.nas.search.searched import Searched
from tests.nas.studies import write_study

STUDIES = Path(__file__).parents[3] / "studies"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    return load_study(
        write_study(
            folder / "tiny.yaml",
            {
                "space": {
                    "domains": {
                        "kind": {"values": ["2d", "3d", "p3d_a", "p3d_b"], "per": "stage"},
                        "dilation": [1, 2, [1, 2]],
                    },
                    "forbid": [{"kind": "3d", "kernel": 5}],
                },
                "constraints": ["macs <= 900k"],
            },
        )
    )


@pytest.fixture(scope="module")
def pool(study: Study) -> CandidatePool:
    return build_pool(study, num_classes=8)


def proposals(study: Study, pool: CandidatePool, sampler: str, count: int, start: Sequence[str] = ()) -> list[str]:
    """A search in which a network's error is made up from its digest."""
    search = Searched(study, pool)
    for digest in start:
        _try(search, pool.by_digest[digest])
    while len(search.digests) < count:
        found = search.ask(sampler, seed=study.seed)
        if found is None:
            break
        _try(search, found.candidate)
    return search.digests


def _try(search: Searched, candidate: Candidate) -> None:
    search.tell(candidate, int(candidate.digest[:6], 16) / 16**6, float(candidate.cost.macs))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_tries_every_network_once_and_then_stops(study: Study, pool: CandidatePool, sampler: str) -> None:
    """Also at the end, when nearly all that the sampler likes was tried: no livelock."""
    assert len(pool.candidates) > 20
    start = proposals(study, pool, "random", len(pool.candidates) - 6)
    seen = proposals(study, pool, sampler, len(pool.candidates) + 5, start=start)
    assert sorted(seen) == sorted(pool.by_digest)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_proposal_is_a_function_of_the_ledger(study: Study, pool: CandidatePool, sampler: str) -> None:
    assert proposals(study, pool, sampler, 16) == proposals(study, pool, sampler, 16)


@pytest.mark.parametrize(
    ("sampler", "start", "count"), [("pool", 10, 20), ("tpe", 10, 25), ("gp", 10, 20), ("nsga2", 20, 50)]
)
def test_a_sampler_learns(tmp_path: Path, sampler: str, start: int, count: int) -> None:
    """Where an error follows from the settings, proposals after the start are better than a random draw."""
    kinds = {"values": ["2d", "3d", "2plus1d", "p3d_a", "p3d_b"], "per": "stage"}
    large = write_study(tmp_path / "t.yaml", {"space": {"domains": {"depth": ["1-1-1"], "kind": kinds}}})
    study = load_study(large)
    pool = build_pool(study, num_classes=8)
    score = {c.digest: sum(v == "2d" for k, v in c.params.items() if k.startswith("kind")) for c in pool.candidates}
    search = Searched(study, pool)
    for _ in range(count):
        found = search.ask(sampler, initial=start, objectives=1, seed=1)
        assert found is not None
        search.tell(found.candidate, (3 - score[found.candidate.digest]) / 4 + 0.1)
    seen = search.digests
    late = [score[digest] for digest in seen[start:]]
    rest = [value for digest, value in score.items() if digest not in seen[:start]]
    assert sum(late) / len(late) > sum(rest) / len(rest) + 0.2


def test_the_start_is_even_over_log_macs(study: Study, pool: CandidatePool) -> None:
    low, high = (math.log(pool.candidates[i].cost.macs) for i in (0, -1))

    def part(digest: str) -> int:
        return min(5, int(6 * (math.log(pool.by_digest[digest].cost.macs) - low) / (high - low)))

    filled = {part(digest) for digest in pool.by_digest}
    assert {part(digest) for digest in proposals(study, pool, "random", 6)} == filled
    assert len(filled) > 3


def test_networks_in_training_are_not_proposed_again(study: Study, pool: CandidatePool) -> None:
    seen = proposals(study, pool, "random", 12)
    search = Searched(study, pool)
    for digest in seen[:11]:
        search.tell(pool.by_digest[digest], 0.5, 1.0)
    search.tell(pool.by_digest[seen[11]], None)
    for sampler in SAMPLERS:
        found = search.ask(sampler)
        assert found is not None
        assert found.candidate.digest not in seen


def test_a_proposal_of_the_model_says_what_it_expects(study: Study, pool: CandidatePool) -> None:
    def error(candidate: Candidate) -> float:
        return 0.9 if "2d" in candidate.params.values() else 0.2

    search = Searched(study, pool)
    for candidate in pool.candidates[::2]:
        search.tell(candidate, error(candidate), 1.0)
    found = search.ask("pool")
    assert found is not None
    assert found.reason is not None
    assert found.reason.error == pytest.approx(error(found.candidate), rel=0.2)
    assert 0 < found.reason.deviation < 0.5
    assert found.reason.gain > 0


@pytest.mark.parametrize("fresh", [0, 100])
def test_a_large_space_is_searched_beyond_the_pool_that_was_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: int
) -> None:
    """Neighbours of the front join it, also without fresh draws: the best network is found though the pool lacks it."""
    monkeypatch.setattr("nas.search.sampler.pool.FRESH", fresh)
    kinds = {"values": ["2d", "3d", "2plus1d", "p3d_a", "p3d_b"], "per": "stage"}
    study = load_study(
        write_study(tmp_path / "t.yaml", {"space": {"domains": {"kind": kinds}}, "search": {"pool": 12}})
    )
    search = Searched(study, build_pool(study, num_classes=8))
    for _ in range(30):
        found = search.ask("pool")
        assert found is not None
        right = sum(value == "p3d_b" for name, value in found.candidate.params.items() if name.startswith("kind"))
        search.tell(found.candidate, 0.8 - 0.3 * right, float(found.candidate.cost.macs))
    assert min(result.errors[0] for result in search.results) == pytest.approx(0.2)
    assert len(set(search.digests)) == 30
    assert not set(search.digests) <= set(search.pool.by_digest)


def test_what_a_model_sees_of_a_network_does_not_depend_on_what_was_met_before() -> None:
    """Of several settings of a network each stays what it is, or a search that is taken up again decides otherwise."""
    study = load_study(STUDIES / "kinetics_small.yaml", ["data=motion", "search.pool=20"])
    pool = build_pool(study, num_classes=8)
    rng, points, supply = random.Random(0), dict[str, Point](), Supply(study, pool, num_classes=8)
    while True:
        one = study.space.random(rng)
        other = points.setdefault(one.digest, one)
        if other.params != one.params and one.digest not in pool.by_digest and supply.candidate(one) is not None:
            break
    orders = []
    for pair in ((one, other), (other, one)):
        supply = Supply(study, pool, num_classes=8)
        candidates = [supply.candidate(point) for point in pair]
        bits = Encoder(pool.candidates).encode([found for found in candidates if found is not None]).bits
        orders.append(
            {
                found.digest + str(found.params): row.tolist()
                for found, row in zip(candidates, bits, strict=True)
                if found
            }
        )
    assert len(orders[0]) == 2 and orders[0] == orders[1]
    while (met := study.space.random(rng)).digest not in pool.by_digest or dict(met.params) == (
        pool.by_digest[met.digest].params
    ):
        pass
    assert supply.candidate(met) is pool.by_digest[met.digest]


def test_the_pool_keeps_the_constraints_and_says_what_they_took(study: Study, pool: CandidatePool) -> None:
    assert all(candidate.cost.macs <= 900_000 for candidate in pool.candidates)
    assert pool.dropped == {Reason("limit", "macs <= 900k"): sum(pool.dropped.values())}
    assert pool.whole
    assert len(pool.candidates) + sum(pool.dropped.values()) == study.space.size().networks


def test_named_networks_come_first(tmp_path: Path) -> None:
    study = load_study(
        write_study(
            tmp_path / "t.yaml", {"data": {"clip": {"frames": 8}}, "search": {"start_with": ["mc3_18", "r3d_18"]}}
        )
    )
    pool = build_pool(study, num_classes=8)
    first = proposals(study, pool, "random", 2)
    assert {pool.by_digest[digest].name for digest in first} == {"mc3_18", "r3d_18"}


def test_settings_come_first_too_and_the_sampler_learns_from_them(tmp_path: Path) -> None:
    stated = [
        {"family": "resnet", "depth": "1-1", "stem_width": 8, "stem": "1x3x3/2", "kind": "3d", "kernel": 5},
        {"preset": "r3d_18", "width": 0.125},
    ]
    study = load_study(write_study(tmp_path / "t.yaml", {"search": {"start_with": stated}}))
    pool = build_pool(study, num_classes=8)
    inside, outside = pool.named
    assert dict(inside.params) == {"kind.stage0": "3d", "kind.stage1": "3d", "kernel": 5}
    assert inside.name == "{depth: 1-1, family: resnet, kernel: 5, kind: 3d, stem: 1x3x3/2, stem_width: 8}"
    assert not outside.params
    assert proposals(study, pool, "random", 2) == [inside.digest, outside.digest]


def test_one_network_that_cannot_be_built_is_left_out(tmp_path: Path) -> None:
    """timm alone knows that a model lacks a stage, or is no chain of parts that time can be put into."""
    space = {"family": "timm", "domains": {"model": ["resnet18", "poolformer_s12", "mixer_s32_224"]}}
    path = tmp_path / "t.yaml"
    for domains in ({"attention": {"values": ["none", "se"], "per": "stage"}}, {"shift": ["none", "tsm"]}):
        stated: dict[str, object] = {**space, "domains": {**space["domains"], **domains}}  # type: ignore[dict-item]
        write_study(path, {"data": {"clip": {"frames": 8, "height": 64, "width": 64}, "short_side": 64}})
        content = yaml.safe_load(path.read_text("utf-8"))
        path.write_text(yaml.safe_dump({**content, "space": stated}), "utf-8")
        study = load_study(path)
        pool = build_pool(study, num_classes=8)
        assert "resnet18" in {getattr(candidate.spec, "model", "") for candidate in pool.candidates}
        assert any(reason.kind == "network" for reason in pool.dropped), pool.dropped
        assert study.space.size().networks >= len(pool.candidates)
        assert any("left out, since it cannot be built" in text for text in too_small(pool))


@pytest.mark.parametrize(("most", "of"), [(100, "2 of 6 settings"), (2, "settings that were drawn")])
def test_settings_of_which_no_network_can_be_made_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], most: int, of: str
) -> None:
    domains = {"model": ["resnet18", "poolformer_s12", "mixer_s32_224"], "kind": ["3d", "p3d_a"]}
    over = {"data": {"clip": {"frames": 8, "height": 64, "width": 64}, "short_side": 64}, "search": {"pool": most}}
    path = write_study(tmp_path / "t.yaml", over)
    content = yaml.safe_load(path.read_text("utf-8"))
    path.write_text(yaml.safe_dump({**content, "space": {"family": "timm", "domains": domains}}), "utf-8")
    note = build_pool(load_study(path), num_classes=8).note
    assert note.startswith("note: no network can be made of ") and of in note
    assert "mixer_s32_224 is no chain of parts" in note
    assert "\n" not in note and len(note) < 300
    assert main(["space", str(path)]) == 0
    assert note in capsys.readouterr().out
    assert build_pool(load_study(write_study(tmp_path / "whole.yaml")), num_classes=8).note == ""


@pytest.mark.parametrize("sampler", ["gp", "nsga2"])
def test_every_setting_of_a_conditional_space_is_of_the_sampler(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    """Optuna draws the settings that some networks lack at random, with a warning for each."""
    study = load_study(STUDIES / "kinetics_small.yaml", ["data=motion", "search.pool=300"])
    pool = build_pool(study, num_classes=8)
    assert len({frozenset(candidate.params) for candidate in pool.candidates}) > 1  # it is conditional
    drawn: list[str] = []

    def independent(self: object, study: object, trial: object, name: str, distribution: object) -> object:
        drawn.append(name)
        raise AssertionError(name)

    monkeypatch.setattr(GPSampler, "sample_independent", independent)
    caplog.set_level("WARNING")
    optuna.logging.enable_propagation()
    search = Searched(study, pool)
    for i, candidate in enumerate(pool.candidates[::20]):
        search.tell(candidate, int(candidate.digest[:4], 16) / 65536, i / 10)
    origins = []
    for _ in range(3):
        found = search.ask(sampler, initial=10, seed=1)
        assert found is not None
        origins.append(found.origin)
        search.tell(found.candidate, 0.5, 0.5)
    optuna.logging.disable_propagation()
    assert not drawn
    assert not caplog.records
    assert {origin.partition(",")[0] for origin in origins} == {sampler}


def test_what_a_search_has_not_tried_or_cannot_tell_apart_is_said() -> None:
    pool = [
        {"kind": kind, **({"kernel[3;5]": kernel} if kind != "2d" else {}), "depth": depth}
        for kind in ("2d", "3d", "csn")
        for kernel in (3, 5)
        for depth in ("1-1", "2-2")
    ]
    assert gaps(pool, []) == []
    assert gaps(pool, pool) == []
    assert gaps(pool, [row for row in pool if row["kind"] != "csn"]) == ["never tried: kind=csn (of 8 networks)"]
    # A kernel stands with an operator that has one; that it stands with one depth alone is the search's doing.
    tied = [row for row in pool if row.get("kernel[3;5]") != 5 or row["depth"] == "2-2"]
    assert gaps(pool, tied) == [
        "tried only together, so that their effects cannot be told apart: depth=2-2 with kernel=5"
    ]


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"search": {"start_with": [{"kind": "3d"}]}}, "search.start_with: a network must be named"),
        ({"search": {"start_with": [{"family": "resnet", "kind": "4d"}]}}, "kind must be one of its choices"),
        ({"constraints": ["macs <= 10"]}, r"no network of the space meets macs <= 10 at clip 4x16x16 .*least macs"),
        (
            {"search": {"start_with": ["r3d_18"]}, "constraints": ["macs <= 1M"]},
            r"r3d_18 of search.start_with breaks macs <= 1M: it has .* macs",
        ),
        ({"search": {"start_with": ["r3d_81"]}}, "search.start_with: there is no network r3d_81; did you mean r3d_18"),
    ],
)
def test_a_pool_that_cannot_be_gets_one_line(tmp_path: Path, over: dict[str, object], message: str) -> None:
    study = load_study(write_study(tmp_path / "t.yaml", over))
    with pytest.raises(SearchError, match=message):
        build_pool(study, num_classes=8)


def test_a_large_space_is_drawn_from(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path / "t.yaml", {"search": {"pool": 10}}))
    pool = build_pool(study, num_classes=8)
    assert (len(pool.candidates), pool.whole) == (10, False)
    assert [c.digest for c in build_pool(study, num_classes=8).candidates] == [c.digest for c in pool.candidates]


def test_strata_are_equal_parts_of_log_macs() -> None:
    assert strata_of([1, 9, 10, 99, 100, 1000], 3) == [0, 0, 1, 1, 2, 2]
    assert strata_of([5, 5], 3) == [0, 0]


class _Hub(ModuleType):
    """Stands for optunahub; what it is asked to load is written down."""

    asked: ClassVar[list[str]] = []

    @staticmethod
    def load_module(package: str, **given: Any) -> ModuleType:
        _Hub.asked.append(package)
        raise OSError("no such package\nin that hub")


def test_a_sampler_whose_package_is_missing_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the data is looked for."""
    path = str(write_study(tmp_path / "t.yaml", {"data": {"root": "nowhere"}}))
    for name in ("nni", "optunahub"):
        monkeypatch.setitem(sys.modules, name, None)
    for sampler, extra in (("nni:TPE", "nni"), ("hub:auto", "hub"), (f"{{hub: auto, path: {tmp_path}}}", "hub")):
        assert main(["search", path, f"search.sampler={sampler}", "--db", str(tmp_path / "s.db")]) == 2
        assert f"needs {'nni' if extra == 'nni' else 'optunahub'}: pip install 'video-nas[{extra}]'" in (
            capsys.readouterr().err
        )


@pytest.mark.parametrize(
    ("settings", "reached", "message"),
    [
        ({}, False, "hub:samplers/far cannot be had, since github.com cannot be reached"),
        ({}, True, "hub:samplers/far cannot be loaded from github.com: OSError: no such package in that hub"),
        (
            {"path": "/nowhere"},
            True,
            r"path must be a folder with far/__init__.py, but /nowhere has none",
        ),
        ({"path": 3}, True, "search.sampler.path must be text, but is 3"),
    ],
)
def test_a_hub_that_cannot_be_read_gets_one_line(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], reached: bool, message: str
) -> None:
    def connected(*given: Any, **more: Any) -> Any:
        if not reached:
            raise OSError("unreachable")
        return contextlib.nullcontext()

    monkeypatch.setitem(sys.modules, "optunahub", _Hub("optunahub"))
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(hub.socket, "create_connection", connected)
    _Hub.asked.clear()
    with pytest.raises(StudyError, match=message) as caught:
        ready(sampler_of({"hub": "far", **settings}), ["error"])
    assert "\n" not in str(caught.value)
    assert _Hub.asked == (["samplers/far"] if reached and not settings else [])


def test_a_sampler_that_fails_in_the_midst_gets_one_line(
    study: Study, pool: CandidatePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: object, *given: object) -> None:
        raise RuntimeError("no\nmore")

    search = Searched(study, pool)
    for candidate in pool.candidates[:12]:
        search.tell(candidate, 0.5, 1.0)
    assert search.ask("optuna:RandomSampler") is not None
    monkeypatch.setattr(RandomSampler, "sample_independent", failing)
    with pytest.raises(SearchError, match="optuna:RandomSampler failed: RuntimeError: no more"):
        search.ask("optuna:RandomSampler")


@pytest.mark.parametrize(
    "stated",
    [{"optuna": "TPESampler", "n_ei_candidates": 0}, {"optuna": "TPESampler", "n_ei_candidates": 10**12}],
    ids=str,
)
def test_a_sampler_that_would_fail_in_the_midst_is_refused_before(study: Study, stated: dict[str, Any]) -> None:
    with pytest.raises(SearchError, match=r"search.sampler .* failed: "):
        rehearse(sampler_of(stated), study.space, num_objectives=2, seed=0)


@pytest.mark.parametrize("stated", ["optuna:NSGAIISampler", "optuna:TPESampler", "pool", "tpe", "optuna:QMCSampler"])
def test_a_rehearsal_lets_pass_what_works(study: Study, stated: str) -> None:
    rehearse(sampler_of(stated), study.space, num_objectives=2, seed=0)


def test_brute_force_is_no_choice() -> None:
    with pytest.raises(StudyError, match=r"search.sampler optuna .*choices: (?!.*BruteForce)"):
        ready(sampler_of("optuna:BruteForceSampler"), ["error", "macs"])


@pytest.mark.parametrize("text", ["raise SystemExit(3)", "import sys\nsys.exit('bye')"])
def test_a_package_that_exits_gets_one_line(tmp_path: Path, text: str) -> None:
    pytest.importorskip("optunahub")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text(text, encoding="utf-8")
    with pytest.raises(StudyError, match="cannot be loaded: SystemExit"):
        ready(sampler_of({"hub": "mine", "path": str(tmp_path)}), ["error"])


def test_a_tuner_says_what_it_is_told() -> None:
    assert nni_tuners.note(sampler_of("nni:TPE"), ["error"]).endswith("it is told 1 - error")
    assert "augmented Chebyshev scalarisation of error, macs" in nni_tuners.note(
        sampler_of("nni:GP"), ["error", "macs"]
    )


def test_networks_below_a_constraint_on_accuracy_have_nothing_to_add(study: Study, pool: CandidatePool) -> None:
    """Networks below half of the MACs are at chance, and nothing is expected of such ones where 0.5 is asked for."""
    search = Searched(study, pool)
    middle = math.sqrt(pool.candidates[0].cost.macs * pool.candidates[-1].cost.macs)
    for candidate in pool.candidates[:: max(1, len(pool.candidates) // 24)]:
        search.tell(candidate, 0.9 if candidate.cost.macs < middle else 0.1, float(candidate.cost.macs))
    networks = {key: pool.by_digest[key] for key in search.digests}

    def share_of_cheap(most: float) -> float:
        belief = Model(pool.candidates, ("macs",), 1, most=(most,)).believe(search.results, networks)
        reference = belief.reference(belief.digests)
        assert reference[0] <= most
        new = [one for one in pool.candidates if one.digest not in networks]
        gain = belief.expect(new, against=belief.digests, reference=reference).gain
        cheap = [one.cost.macs < 0.8 * middle for one in new]
        return float(gain[cheap].sum() / gain.sum())

    assert share_of_cheap(0.5) < 0.2 * share_of_cheap(math.inf)
