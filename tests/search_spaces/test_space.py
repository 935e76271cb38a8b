from __future__ import annotations

import random
import re

import optuna
import pytest

from search_spaces.catalogue import preset
from search_spaces.codec import digest
from search_spaces.errors import SpecError
from search_spaces.family_space import Domain, FamilySpace, Rule
from search_spaces.space import parse_space
from tests.search_spaces.small_spaces import SPACES
from tests.search_spaces.strategies import wide_space


def spaces():
    return [pytest.param(parse_space(SPACES[name]), id=name) for name in SPACES] + [
        pytest.param(wide_space(), id="wide")
    ]


@pytest.mark.parametrize("space", spaces())
def test_a_parameter_set_gives_back_its_point(space):
    rng = random.Random(1)
    for _ in range(40):
        point = space.random(rng)
        assert space.point(dict(point.params)) == point
        assert point.spec.canonical() == point.spec
        assert point.digest == digest(point.spec)
        choices = space.choices_of(point)
        assert list(choices) == [name for name, _ in point.params]
        assert all(value in choices[name] and len(choices[name]) > 1 for name, value in point.params)


@pytest.mark.parametrize("space", spaces())
def test_a_name_has_one_set_of_choices_for_ever(space):
    rng, known = random.Random(2), {}
    for _ in range(150):
        for name, choices in space.choices_of(space.random(rng)).items():
            assert known.setdefault(name, choices) == choices
            domain = next(d for d in space.families[0].domains if d.name == re.split(r"[.\[]", name)[0])
            assert ("[" in name) == (choices != domain.values)


@pytest.mark.parametrize("space", spaces())
def test_neighbours_differ_in_one_setting(space):
    rng, total = random.Random(3), 0
    for _ in range(3):
        point = space.random(rng)
        neighbours = space.neighbours(point)
        total += len(neighbours)
        digests = [n.digest for n in neighbours]
        assert len(set(digests)) == len(digests) and point.digest not in digests
        for other in neighbours:
            assert space.point(dict(other.params)) == other
            mine, theirs = ({name.split("[")[0]: v for name, v in p.params} for p in (point, other))
            changed = {name for name in mine.keys() & theirs.keys() if mine[name] != theirs[name]}
            # A value may give way to one that does the same, where only one of the two is offered.
            offered = {name.split("[")[0]: values for name, values in space.choices_of(other).items()}
            assert len([name for name in changed if mine[name] in offered[name]]) <= 1
    assert total > 0


def test_every_choice_of_an_unrestricted_point_is_a_neighbour():
    space = parse_space(
        {
            "domains": {
                "kind": ["3d", "2plus1d"],
                "kernel": [3, 5, 7],
                "dilation": [1, 2],
                "width": [0.5, 1.0],
                "stem": ["3x7x7", "1x7x7"],
            }
        }
    )
    point = space.point({"kind": "2plus1d", "kernel": 5, "dilation": 1, "width": 1.0, "stem": "3x7x7"})
    assert len(space.neighbours(point)) == 1 + 2 + 1 + 1 + 1
    for other in space.neighbours(point):
        assert len(set(other.params) - set(point.params)) == 1


def test_only_parameters_with_an_effect_are_asked_for():
    space = parse_space(
        {
            "domains": {
                "kind": {"values": ["2d", "2plus1d"], "per": "stage"},
                "kernel": {"values": [1, 3], "per": "stage"},
                "dilation": {"values": [1, 2], "per": "stage"},
                "midplanes": ["per_conv", "shared"],
                "placement": ["none", "rmc5"],
            }
        }
    )
    assert space.point({"placement": "none"}).params == (("placement", "none"),)
    flat = space.point({"placement": "rmc5", "kind.stage3": "2d"})
    assert flat.digest == space.point({"placement": "none"}).digest
    short = {"placement": "rmc5", "kind.stage3": "2plus1d", "kernel.stage3": 1, "midplanes": "shared"}
    assert dict(space.point(short).params) == short
    with pytest.raises(SpecError, match=r"parameter dilation.stage3 is missing"):
        space.point({**short, "kernel.stage3": 3})
    with pytest.raises(SpecError, match=r"parameter kernel.stage0 is not one of this architecture"):
        space.point({**short, "kernel.stage0": 3})
    with pytest.raises(SpecError, match=r"parameter kernel.stage3 must be one of its choices, but is 5"):
        space.point({**short, "kernel.stage3": 5})


def test_labels_that_come_to_the_same_are_offered_once():
    kinds = ["p3d_a", "p3d_b", "p3d_c", "p3d_mixed", "t1x1_both", "t1x1_all"]
    space = parse_space({"domains": {"depth": ["b2-1"], "widths": ["8-16"], "kind": {"values": kinds, "per": "block"}}})
    choices = space.choices_of(space.random(random.Random(0)))
    # Each block has one of the forms, and only the first of a stage has a shortcut with a convolution.
    first, second, third = (set(values) for values in choices.values())
    assert first == third == set(kinds) - {"p3d_mixed"}
    assert second == set(kinds) - {"p3d_mixed", "t1x1_all"}
    by_stage = parse_space(
        {"domains": {"depth": ["b2-1"], "widths": ["8-16"], "kind": {"values": kinds, "per": "stage"}}}
    )
    first, second = (set(values) for values in by_stage.choices_of(by_stage.random(random.Random(0))).values())
    assert (first, second) == (set(kinds), set(kinds) - {"p3d_mixed"})
    names = (
        "operators that every depth but one has",
        "conventions of midplanes",
        "pools as labels",
        "what is settled last",
    )
    for name in names:
        (family,) = parse_space(SPACES[name]).families
        assert len(list(family.engine().walk())) == family.size().networks, name


def test_optuna_samples_the_space_and_its_trials_rebuild():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = wide_space()
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        sampler = optuna.samplers.TPESampler(multivariate=True, group=True, n_startup_trials=8, seed=0)
    storage = optuna.storages.RDBStorage("sqlite:///:memory:")
    study = optuna.create_study(sampler=sampler, storage=storage)
    found = {}
    for i in range(16):
        trial = study.ask()
        found[trial.number] = space.sample(trial).digest
        study.tell(trial, (i * 7) % 5)
    for trial in study.trials:
        assert space.point(trial.params).digest == found[trial.number]
    storage.remove_session()
    storage.engine.dispose()


def test_rules_hold_for_every_block_of_many_samples():
    space, rng = wide_space(), random.Random(4)
    for _ in range(150):
        point = space.random(rng)
        params = dict(point.params)
        ops = [block.temporal for _, _, _, block in point.spec.walk()]
        # Where ReLUs come first, the blocks of the port, which no rule names, are the same.
        assert point.spec.relu_first or not any(op.kind == "p3d_b" and op.kernel == 5 for op in ops)
        assert not (params.get("depth") == 10 and params.get("width") == 2.0)


def test_a_space_without_choices_is_r3d_18():
    space = parse_space({"domains": {"depth": [18]}})
    point = space.random(random.Random(0))
    assert point.params == ()
    assert point.digest == digest(preset("r3d_18"))
    assert space.size().networks == 1
    assert space.neighbours(point) == []


def test_lists_become_labels():
    space = parse_space(
        {
            "domains": {
                "dilation": [1, [4, 1, 2]],
                "depth": [10, [1, 2]],
                "placement": [[0, 1], "all"],
                "width": [1, 0.5],
            },
            "forbid": [{"dilation": [[2, 1, 4]], "depth": [[1, 2]]}],
        }
    )
    values = {d.name: d.values for d in space.families[0].domains}
    assert values == {"dilation": (1, "1|2|4"), "depth": (10, "1-2"), "placement": ("0,1", "all"), "width": (1.0, 0.5)}
    assert space.families[0].forbid == (Rule((("dilation", ("1|2|4",)), ("depth", ("1-2",)))),)


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ({"domains": {"kinds": ["3d"]}}, "domains: unknown domain kinds of family resnet; did you mean kind?"),
        ({"domains": {"kind": ["2plus1"]}}, "domains.kind: kind must be one of its choices, but is 2plus1; did you"),
        ({"domains": {"kind": {"values": ["3d"], "per": "blok"}}}, "is blok; did you mean block? (valid: network"),
        ({"domains": {"width": {"values": [1], "per": "stage"}}}, "domains.width.per"),
        ({"domains": {"kind": {"value": ["3d"]}}}, "domains.kind: unknown key value; did you mean values?"),
        ({"domains": {"kind": "3d"}}, "domains.kind must be a list of values, but is 3d"),
        ({"domains": {"kind": []}}, "domains.kind must have at least 1 value"),
        ({"domains": {"kernel": [3, 3]}}, "domains.kernel: a value must stand once, but 3 is repeated"),
        ({"domains": {"kernel": [4]}}, "domains.kernel: kernel must be one of its choices, but is 4"),
        ({"domains": {"kernel": [True]}}, "domains.kernel"),
        ({"domains": {"depth": [19]}}, "domains.depth: depth must be one of 10, 18"),
        ({"domains": {"depth": [[1, 0]]}}, "domains.depth: depth must be one of"),
        ({"domains": {"width": [0]}}, "domains.width: width must be a number above 0"),
        ({"domains": {"stem": ["3x7"]}}, "domains.stem: stem must have a form such as 3x7x7"),
        ({"domains": {"stem": ["2x7x7"]}}, "domains.stem: temporal_kernel must be odd"),
        ({"domains": {"placement": ["mc7"]}}, "domains.placement: placement must have a form such as all"),
        ({"domains": {"dilation": [[0, 1]]}}, "domains.dilation: dilation must be whole numbers"),
        ({"domains": {"temporal_stride": ["1-x"]}}, "domains.temporal_stride"),
        ({"domains": {"depth": ["b1"]}}, "blocks per stage as 1-2-1 (basic) or b1-2-1 (bottlenecks), but is b1"),
        ({"domains": {"cut": [-1]}}, "domains.cut: cut must be a whole number of at least 0, but is -1"),
        ({"domains": {"cut": [3, 9], "depth": [10, 18]}}, "cut must be 0 to 8, the number of blocks, but is 9"),
        ({"domains": {"placement": ["top_heavy:9"]}}, "placement top_heavy:9 must cut at 0 to 8 in 8 blocks"),
        ({"domains": {"placement": ["top_heavy"]}}, "placement top_heavy needs a domain cut"),
        ({"domains": {"stem": ["3x7x7+max1"]}}, "domains.stem: stem must have a form such as 3x7x7"),
        ({"domains": {"time_pool": [[2, 0]]}}, "domains.time_pool: time_pool must be none or have 2 pools"),
        ({"domains": {"time_pool": {"values": ["none"], "per": "stage"}}}, "time_pool of a stage must be a whole"),
        ({"domains": {"stride_on": ["1x3"]}}, "domains.stride_on: stride_on must be one of its choices, but is 1x3"),
        ({"domains": {"attention": ["sE"]}}, "domains.attention: attention must be one of its choices, but is sE"),
        ({"domains": {"head": ["max"]}}, "domains.head: head must be one of its choices, but is max"),
        ({"domains": {"kind": {"values": ["csn"], "per": "block"}}}, "no combination of values"),
        ({"domains": {"kind": ["csn", "t1x1_all"], "depth": [18]}}, "no combination of values"),
        ({"domains": {"kind": ["3d"]}, "forbid": [{"kernel": 3}]}, "forbid.0: there is no domain kernel"),
        ({"domains": {"kind": ["3d"]}, "forbid": [{"kind": "2d"}]}, "forbid.0.kind: 2d is not a value of the domain"),
        ({"domains": {"kind": ["3d"]}, "forbid": [{"kind": "3d"}]}, "no combination of values"),
        ({"domains": {"kind": ["3d"]}, "forbid": [{}]}, "forbid.0 must name at least 1 domain"),
        ({"domains": {"kind": ["3d"]}, "forbid": {"kind": "3d"}}, "forbid must be a list"),
        ({"domains": {"widths": ["8-16"]}}, "no combination of values"),
        ({"domains": {"kind": ["3d"]}, "family": "resnets"}, "did you mean resnet?"),
        ({"domain": {}}, "unknown key domain; did you mean domains?"),
        ({}, "key domains is missing"),
        ({"domains": [1]}, "domains must be a mapping, but is list"),
        ([], "the search space must be a mapping"),
    ],
)  # fmt: skip
def test_a_bad_space_is_refused_in_one_line(obj, message):
    with pytest.raises(SpecError) as caught:
        parse_space(obj)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_space_made_by_hand_is_checked_too():
    with pytest.raises(SpecError, match="did you mean 2plus1d"):
        FamilySpace(domains=(Domain(name="kind", values=("2plus1",)),))
    with pytest.raises(SpecError, match="must stand once"):
        FamilySpace(domains=(Domain(name="kernel", values=(3,)), Domain(name="kernel", values=(5,))))
