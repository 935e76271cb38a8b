"""Study files and overrides: what is valid becomes a frozen value, what is not gets one line."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, Literal

import pytest

from nas.errors import StudyError
from nas.study.files import apply_promote, load_study
from nas.study.metric import parse_number, short_number
from nas.study.plain import kinds_of, schema_of
from nas.study.study import changes, limit, study_of
from tests.nas.studies import write_study
from trainer.recipe import Phase

STUDIES = sorted((Path(__file__).parents[3] / "studies").glob("*.yaml"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_of_the_project_states_its_question(path: Path) -> None:
    study = load_study(path)
    for name in ("question", "hypothesis", "baseline", "decision_rule", "budget"):
        assert study.texts[name], name


def test_a_study_is_a_frozen_value(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path / "tiny.yaml"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        study.seed = 1  # type: ignore[misc]
    assert study.search.rungs == (1, 2, 3)


def test_what_is_recorded_gives_the_same_study(tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path / "tiny.yaml"), ["search.trials=5", "constraints=['macs <= 5G']"])
    phases = "[{epochs: 2, frames: 4}, {epochs: 1, frames: 8, lr: 0.1}]"
    steps = ["recipe.schedule=steps", "recipe.steps=[1,2.5]", "recipe.momentum=0.8", "recipe.optimizer=sgd"]
    study = load_study(tmp_path / "tiny.yaml", [f"recipe.phases={phases}", *steps])
    assert study.recipe.phases == (Phase(epochs=2, frames=4), Phase(epochs=1, frames=8, lr=0.1))
    assert (study.recipe.steps, study.recipe.momentum, study.recipe.nesterov) == ((1.0, 2.5), 0.8, None)
    recorded = json.loads(json.dumps(study.config))
    again = study_of(recorded, "a database")
    assert dataclasses.replace(again, config={}) == dataclasses.replace(study, config={})


def test_overrides_go_over_the_file(tmp_path: Path) -> None:
    path = write_study(tmp_path / "tiny.yaml")
    study = load_study(
        path, ["recipe.lr=1e-2", "data.clip.frames=8", "space.domains.kernel=[3,7]", "search.rungs=[2,6]"]
    )
    assert study.recipe.lr == 0.01
    assert study.data.clip.frames == 8
    assert study.search.rungs == (2, 6)
    assert next(d.values for d in study.space.families[0].domains if d.name == "kernel") == (3, 7)


def test_a_variant_of_the_file_is_picked_by_data(tmp_path: Path) -> None:
    variants = {"small": {"data": {"name": "small", "clip": {"frames": 2}}, "space": {"domains": {"kernel": None}}}}
    path = write_study(tmp_path / "tiny.yaml", {"variants": variants})
    assert load_study(path).data.clip.frames == 4
    assert load_study(path, ["data=motion"]).data.clip.frames == 4
    study = load_study(path, ["data.clip.height=32", "data=small"])
    assert (study.data.clip.frames, study.data.clip.height, study.data.clip.width) == (2, 32, 16)
    assert "kernel" not in {domain.name for domain in study.space.families[0].domains}


def test_the_environment_is_read_where_the_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_study(tmp_path / "tiny.yaml", {"data": {"root": '${oc.env:NAS_DATA,""}'}})
    monkeypatch.delenv("NAS_DATA", raising=False)
    assert load_study(path).data.root == ""
    monkeypatch.setenv("NAS_DATA", "/videos")
    assert load_study(path).data.root == "/videos"


BAD: list[tuple[list[str], str]] = [
    (["search.trals=3"], "key 'search.trals' is not known; did you mean search.trials"),
    (["serch.trials=3"], "key 'serch' is not known; did you mean search"),
    (["search.trials=many"], "search.trials: Value 'many' of type 'str' could not be converted to Integer"),
    (["search.trials=0"], "search.trials must be at least 1, but is 0"),
    (["search.rungs=[3,3]"], r"search.rungs must be ascending .* but is \[3, 3\]"),
    (["search.rungs=[]"], "search.rungs must be ascending"),
    (["search.eta=1"], "search.eta must be at least 2, but is 1"),
    (["search.sampler=tpee"], "search.sampler 'tpee' is not known; did you mean tpe"),
    (["search.sampler=ray:TPE"], "search.sampler 'ray:TPE' is not known .*optuna:CLASS, hub:PACKAGE, nni:TUNER"),
    (
        ["search.sampler=optuna:TPESampeler"],
        "sampler optuna 'TPESampeler' is not known; did you mean TPESampler",
    ),
    (["search.sampler=optuna:a.b"], "search.sampler must read like optuna:CLASS, but optuna is 'a.b'"),
    (["search.sampler=hub:../x"], "search.sampler must read like hub:PACKAGE, but hub is '../x'"),
    (["search.sampler={tpe: 1}"], "must have one of the keys optuna, hub, nni, and settings beside it, but has tpe"),
    (["search.sampler={optuna: TPESampler, nni: TPE}"], "must have one of the keys .*, but has optuna, nni"),
    (["search.sampler={optuna: TPESampler, grup: true}"], "has no setting 'grup'; did you mean group"),
    (["search.sampler={optuna: TPESampler, group: 3}"], "optuna:TPESampler: group must be bool, but is 3"),
    (["search.sampler={optuna: TPESampler, gamma: 3}"], "gamma is nothing that a study can state .settings: consider"),
    (["search.sampler={optuna: TPESampler, seed: 3}"], "seed must not be set, since it follows from the study's seed"),
    (
        ["search.sampler={optuna: TPESampler, group: {a: 1}}"],
        "sampler.group must be text, a number, true, false",
    ),
    (
        ["search.sampler={optuna: QMCSampler, qmc_type: x}"],
        "not take its settings: ValueError: The `qmc_type='x'`",
    ),
    (["search.sampler=optuna:GridSampler"], "optuna:GridSampler needs search_space, which a study cannot state"),
    (
        ["search.sampler=optuna:CmaEsSampler"],
        "takes one objective, .*of Optuna, these take 2: .*NSGAIISampler",
    ),
    (["search.scheduler=freeze_thaw", "search.sampler=optuna:GPSampler"], "but search.sampler is optuna:GPSampler"),
    (["search.sampler=pool", "search.repeats=1"], "of the scheduler freeze_thaw, but search.scheduler is asha"),
    (["search.sampler=pool", "search.scheduler=freeze_thaw", "search.repeats=-1"], "search.repeats must be at least 0"),
    (["search.features=[synflo]"], "search.features 'synflo' is not known; did you mean synflow"),
    (["search.sampler=pool", "search.features=[zico,zico]"], r"must hold each score once, but is \['zico', 'zico'\]"),
    (["search.sampler=tpe", "search.features=[zico]"], "by the model of the sampler pool, but search.sampler is tpe"),
    (["search.sampler=pool", "search.features=zico"], "search.features must be a list, but is zico"),
    (["search.order=size"], "search.order 'size' is not known"),
    (["search.objectives=[macs]"], "search.objectives must begin with an accuracy"),
    (["search.objectives=[error,flops]"], "search.objectives 'flops' is not known"),
    (["recipe.lr=-1"], "recipe.lr must be above 0, but is -1.0"),
    (["recipe.schedule=step"], "recipe.schedule 'step' is not known; did you mean steps"),
    (["recipe.schedule=cosine"], "recipe.epochs must be at least 1 with schedule cosine"),
    (["data.clip.frames=0"], "clip.frames must be at least 1, but is 0"),
    (["data.sampling=all"], r"data.sampling 'all' is not known \(choices: dense, uniform\)"),
    (["data.mean=[0.5]"], r"data.mean must hold three numbers, one a channel, but is \[0.5\]"),
    (["data.crop_scale=[0.9,0.5]"], "data.crop_scale must be"),
    (["data=movies"], "data 'movies' is not known"),
    (["space.domains.kind=[4d]"], "kind must be one of its choices, but is 4d; did you mean 3d"),
    (["space.domains.colour=[1]"], "unknown domain colour"),
    (
        ["constraints=['macs < 5G']"],
        "a constraint must read like 'macs <= 5G' or 'accuracy >= 0.8', but is 'macs < 5G'",
    ),
    (["constraints=['flops <= 5G']"], "constraint quantity 'flops' is not known"),
    (["constraints=['macs <= 5X']"], "a number above 0 such as 300M or 2.5G is needed, but got '5X'"),
    (["promote.recipe={speed:1}"], "promote.recipe key 'speed' is not known"),
    (
        ["promote.recipe={phases:[{epochs:3,frame:8}]}"],
        "key 'promote.recipe.phases.frame' is not known; did you mean promote.recipe.phases.frames",
    ),
    (["promote.recipe={phases:[{frames:8}]}"], "promote.recipe.phases must each have epochs, but one has frames"),
    (["promote.recipe={phases:8}"], "promote.recipe.phases must be a list, but is 8"),
    (["promote.recipe={steps:[true]}"], "promote.recipe.steps must be a number, but is True"),
    (["promote.recipe={steps:[a]}"], "promote.recipe.steps must be a number, but is 'a'"),
    (["recipe.phases=[{epochs:0}]"], "recipe.phases' epochs must be at least 1, but is 0"),
    (["recipe.phases=[{epochs:1,frame:8}]"], "frame"),
    (["recipe.loss=mse"], "recipe.loss 'mse' is not known.* .choices: cross_entropy, bce, lsep, warp"),
    (["name='a b'"], "name must be letters, digits"),
    (["+search.trials=3"], "an override must read key=value without"),
    (["~search.trials"], "an override must read key=value without"),
    (["hydra.run.dir=x"], "an override must read key=value without"),
    (["search.trials"], "an override must read key=value, but is 'search.trials'"),
    (["search.trials=1,2"], "an override must name one value, but 'search.trials=1,2' names several"),
    (["search=fast"], "search must hold keys"),
    (["search.strata=1000000000"], "search.strata must be at most 1,000, but is 1000000000"),
    (["search.rungs=3"], "search.rungs must be a list, but is 3"),
    (["search.rungs={a: 1}"], "search.rungs must be a list, but is {'a': 1}"),
    (["space.forbid={kind: 2d}"], "space.forbid must be a list, but is {'kind': '2d'}"),
    (["space.domains=3"], "space.domains must be a mapping of keys, but is 3"),
    (["data.num_classes=-5"], "data.num_classes must be at least 0, but is -5"),
    (["recipe.zero_init={a:1}"], "recipe.zero_init must be true, false or as_published, but is {'a': 1}"),
    (["space.domains.width=[nan]"], "domains.width: width must be a number above 0, but is nan"),
    (["space.domains.width=[inf]"], "domains.width: width must be at most 2,147,483,647, but is inf"),
    (["space.domains.depth=['1-99999999']"], "depth must have numbers of at most 1,000, but has 99999999"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD, ids=[bad[0][0] for bad in BAD])
def test_bad_input_gets_one_line(tmp_path: Path, overrides: list[str], message: str) -> None:
    path = write_study(tmp_path / "tiny.yaml")
    with pytest.raises(StudyError, match=message) as caught:
        load_study(path, overrides)
    assert "\n" not in str(caught.value)


# Each line doubles the one before, forty times.
MERGES = "a0: &a0 {x: 1, y: 2}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 41))
REFERENCES = "promote:\n  recipe:\n    d0: text\n" + "".join(
    f"    d{i}: '${{promote.recipe.d{i - 1}}}${{promote.recipe.d{i - 1}}}'\n" for i in range(1, 41)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a\n- b\n", "must hold keys and values, but holds list"),
        ("a: [1,\n", r"tiny.yaml:\d+ must be YAML"),
        ("searhc: {}\n", "key 'searhc' is not known; did you mean search"),
        ("variants: {x: {dat: 1}}\n", r"key 'dat' is not known; did you mean data.*variants\.x"),
        (
            "search: {trials: 3}\nseed: 1\nsearch: {eta: 2}\n",
            r"tiny.yaml:3 .* must stand once, but search stands twice",
        ),
        ("search: {trials: 3, eta: 2, trials: 4}\n", r"tiny.yaml:1 .* must stand once, but trials stands twice"),
        (MERGES, r"tiny.yaml:\d+ must be YAML: a study must have at most 100,000 values, but merges have made more"),
        (REFERENCES, r"may have few references by .* where it is large, but has 80 of them"),
    ],
    ids=lambda value: value[:20],
)
def test_a_bad_file_gets_one_line_with_its_place(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(StudyError, match=message):
        load_study(path)


def test_a_study_may_merge_and_refer(tmp_path: Path) -> None:
    path = write_study(tmp_path / "tiny.yaml")
    more = "promote:\n  recipe: &late {lr: 0.01, ema_decay: 0.5}\nablation:\n  recipe: {<<: *late, lr: 0.02}\n"
    text = re.sub(r"(?ms)^promote:.*?(?=^\S|\Z)", "", path.read_text(encoding="utf-8"))
    path.write_text(text + more + "question: ${name}, ${seed} and ${data.name}\n", encoding="utf-8")
    study = load_study(path)
    assert study.config["ablation"]["recipe"] == {"lr": 0.02, "ema_decay": 0.5}
    assert study.texts["question"] == f"{study.name}, {study.seed} and {study.data.name}"


def test_a_sampler_is_the_same_however_it_is_stated(tmp_path: Path) -> None:
    """And an override replaces it with its settings."""
    tpe = {"optuna": "TPESampler", "multivariate": True, "group": True}
    path = write_study(tmp_path / "tiny.yaml", {"search": {"sampler": tpe}})
    study = load_study(path)
    assert (str(study.search.sampler), study.search.sampler.given) == (
        "optuna:TPESampler",
        {"group": True, "multivariate": True},
    )
    assert study_of(json.loads(json.dumps(study.config)), "a database").search.sampler == study.search.sampler
    turned = load_study(path, ["search.sampler={group: true, multivariate: true, optuna: TPESampler}"])
    assert changes(study.config, turned.config) == {}
    plain = load_study(path, ["search.sampler={optuna: TPESampler}"])
    assert plain.search.sampler.settings == ()
    assert changes(plain.config, load_study(path, ["search.sampler=optuna:TPESampler"]).config) == {}
    assert changes(study.config, load_study(path, ["search.sampler=tpe"]).config) == {
        "search.sampler": ('optuna:TPESampler {"group": true, "multivariate": true}', "tpe")
    }


def test_a_record_is_read_where_its_sampler_is_not_installed(tmp_path: Path) -> None:
    path = write_study(tmp_path / "tiny.yaml")
    for stated in ("nni:NoSuchTuner", "hub:nowhere/at_all"):
        study = load_study(path, [f"search.sampler={stated}"])
        assert str(study_of(study.config, "a database").search.sampler) == stated


def test_a_missing_file_names_those_beside_it(tmp_path: Path) -> None:
    write_study(tmp_path / "tiny.yaml")
    with pytest.raises(StudyError, match=r"nothing.yaml cannot be read: No such file .*tiny.yaml"):
        load_study(tmp_path / "nothing.yaml")


def test_numbers_with_units() -> None:
    assert [parse_number(text) for text in ("5G", "2.5 M", "300k", "7", ".5T")] == [
        5_000_000_000,
        2_500_000,
        300_000,
        7,
        500_000_000_000,
    ]
    assert str(limit("macs<=5G")) == "macs <= 5G"
    assert [short_number(n) for n in (40_697_000_000, 1_500, 12)] == ["40.7G", "1.5k", "12"]


def test_a_changed_study_is_told_from_a_longer_one(tmp_path: Path) -> None:
    path = write_study(tmp_path / "tiny.yaml")
    old = load_study(path).config
    longer = load_study(path, ["search.trials=99", "search.workers=2", "question=why", "data.root=elsewhere"]).config
    assert changes(old, longer) == {}
    other: dict[str, Any] = dict(changes(old, load_study(path, ["recipe.lr=0.1"]).config))
    assert other == {"recipe.lr": (0.003, 0.1)}
    assert "space.domains.kernel" in changes(old, load_study(path, ["space.domains.kernel=[3]"]).config)


def test_a_promotion_may_change_its_own_settings_alone(tmp_path: Path) -> None:
    recorded = load_study(write_study(tmp_path / "tiny.yaml")).config
    changed = study_of(apply_promote(recorded, ["promote.epochs=7", "data.root=/new"]), "test")
    assert changed.promote.epochs == 7
    assert changed.data.root == "/new"
    with pytest.raises(StudyError, match=r"a promotion keeps the search's recipe\.lr"):
        apply_promote(recorded, ["recipe.lr=1"])


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int = 3


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str = "a"
    way: Literal["up", "down"] = "up"
    pair: tuple[float, float] | None = None
    three: tuple[float, float, float] = (1.0, 2.0, 3.0)
    many: tuple[Inner, ...] = ()
    rate: float | None = None
    either: bool | Literal["auto"] = "auto"
    inner: Inner = dataclasses.field(default_factory=Inner)


def test_the_schema_has_the_keys_and_defaults_of_the_frozen_class() -> None:
    loose = schema_of(Outer, after={"name": ("count", int, 7)})
    kinds = kinds_of(loose)
    assert list(kinds) == ["name", "count", "way", "pair", "three", "many", "rate", "either", "inner"]
    assert [kinds[name] for name in ("name", "count", "way", "pair", "three", "rate", "either")] == [
        str,
        int,
        str,
        list[float],
        list[float],
        float | None,
        Any,
    ]
    assert list(kinds_of(kinds["inner"])) == ["size"] == list(kinds_of(kinds["many"].__args__[0]))
    assert dataclasses.asdict(loose()) == {
        "name": "a",
        "count": 7,
        "way": "up",
        "pair": [],
        "three": [1.0, 2.0, 3.0],
        "many": [],
        "rate": None,
        "either": "auto",
        "inner": {"size": 3},
    }
    loose().three.append(4.0)
    assert loose().three == [1.0, 2.0, 3.0]


def test_reading_a_study_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_study(tmp_path / "tiny.yaml")
    monkeypatch.chdir(tmp_path)
    load_study(path, ["search.trials=3"])
    assert Path.cwd() == tmp_path
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.yaml"]
