from __future__ import annotations

import itertools
import random
import re

import optuna
import pytest

from search_spaces.codec import digest
from search_spaces.families.resnet_assemble import Extras, make_resnet
from search_spaces.families.resnet_make import (
    depth_blocks,
    ints,
    make_stem,
    place,
    temporal_strides,
    time_pools,
)
from search_spaces.family_space import Domain, FamilySpace, Rule
from search_spaces.presets import preset
from search_spaces.space import SearchSpace, parse_space
from search_spaces.spec import SpecError, TemporalOp, scale
from tests.search_spaces.strategies import wide_space

SMALL = {"depth": ["1-1"], "widths": ["8-16"], "stem": ["1x3x3/1"]}
SPACES = {
    "dead end behind two kernels": {
        "domains": {**SMALL, "kind": {"values": ["2d", "3d", "p3d_a"], "per": "stage"}, "kernel": [3, 5]},
        "forbid": [{"kind": "3d", "kernel": 5}, {"kind": "3d", "kernel": 3}],
    },
    "kinds that need different kernels": {
        "domains": {**SMALL, "kind": {"values": ["3d", "2plus1d", "2d"], "per": "stage"}, "kernel": [3, 5]},
        "forbid": [{"kind": "3d", "kernel": 5}, {"kind": "2plus1d", "kernel": [3]}],
    },
    "placements and stems": {
        "domains": {
            **SMALL,
            "depth": ["1-1", "2-1-1"],
            "widths": ["8-16", "8-16-16"],
            "stem": ["3x3x3/1", "1x3x3/1", "r2plus1d"],
            "kind": ["2d", "3d", "2plus1d"],
            "placement": ["all", "none", "mc2", "mc3", "mc4", "rmc3", "top_heavy:1", "bottom_heavy:3", "stem,0,3"],
        },
        "forbid": [{"placement": "none", "kind": "3d"}, {"depth": "1-1", "placement": "mc3"}],
    },
    "a block at a time": {
        "domains": {
            "depth": ["1-2", "1-1"],
            "widths": ["8-16"],
            "stem": ["3x3x3/1"],
            "stem_width": [8, 16],
            "kind": {"values": ["3d", "2plus1d"], "per": "block"},
            "kernel": {"values": [1, 3], "per": "stage"},
            "midplanes": ["shared", "per_conv"],
        },
        "forbid": [{"kind": "2plus1d", "kernel": 1, "midplanes": "shared"}],
    },
    "dilations and strides": {
        "domains": {
            **SMALL,
            "depth": ["1-1", "1-1-1"],
            "widths": ["8-16", "8-16-16"],
            "width": [0.5, 1.0, 2],
            "kind": ["2d", "3d"],
            "kernel": [1, 3],
            "dilation": {"values": [1, [2, 1], 2], "per": "stage"},
            "temporal_stride": ["none", "as_paper", "1-2", [1, 1, 1]],
        },
        "forbid": [{"temporal_stride": "as_paper", "dilation": 2}, {"width": [0.5], "kernel": 3}],
    },
    "two names for one placement": {
        "domains": {**SMALL, "placement": ["all", "bottom_heavy:2"], "kernel": [3, 5]},
        "forbid": [{"placement": "all", "kernel": 5}],
    },
    "a stride concerns the first block": {
        "domains": {
            "depth": ["2-1"],
            "widths": ["8-16"],
            "kind": {"values": ["3d", "2d"], "per": "block"},
            "temporal_stride": {"values": [1, 2], "per": "stage"},
        },
        "forbid": [{"temporal_stride": 2, "kind": "3d"}],
    },
    "a stride a stage": {
        "domains": {
            **SMALL,
            "kind": {"values": ["2d", "3d"], "per": "stage"},
            "temporal_stride": {"values": ["none", "as_paper", 1, 2], "per": "stage"},
        },
        "forbid": [{"temporal_stride": 2, "kind": "2d"}],
    },
    "cuts": {
        "domains": {
            **SMALL,
            "depth": ["1-1", "b2-1-1"],
            "widths": ["8-16", "8-16-16"],
            "stem": ["3x3x3/1", "1x3x3/1+max2"],
            "placement": ["all", "top_heavy", "bottom_heavy", "top_heavy:1"],
            "cut": [0, 2, 3],
            "kind": ["2d", "3d", "csn"],
        },
        "forbid": [{"placement": "top_heavy", "cut": 2}, {"cut": 3, "kind": "csn"}],
    },
    "operators that only bottlenecks have": {
        "domains": {
            "depth": ["1-1", "b1-2"],
            "widths": ["8-16"],
            "stem": ["1x3x3/1"],
            "stem_width": [8, 32],
            "first_stride": [1, 2],
            "kind": {"values": ["3d", "t1x1_all", "t1x1_both", "p3d_mixed", "1plus2d"], "per": "block"},
            "temporal_stride": ["none", "2-1"],
        },
        "forbid": [{"kind": "p3d_mixed", "temporal_stride": "none"}],
    },
    "operators that every depth but one has": {
        "domains": {
            "depth": ["1-1", "b1-1"],
            "widths": ["8-16"],
            "kind": {"values": ["csn", "t1x1_first"], "per": "stage"},
            "kernel": {"values": [1, 3], "per": "block"},
        },
    },
    "conventions of midplanes": {
        "domains": {
            "depth": ["b1-1", "1-1"],
            "widths": ["8-16"],
            "stem_width": [8],
            "stem": ["1x3x3/1"],
            "kind": ["2plus1d", "1plus2d"],
            "kernel": {"values": [1, 3], "per": "stage"},
            "midplanes": {"values": ["per_conv", "equal", "shared"], "per": "block"},
        },
        "forbid": [{"midplanes": "equal", "kernel": 1}],
    },
    "what is settled last": {
        "domains": {
            "depth": ["1-1", "b1-1"],
            "widths": ["8-16"],
            "first_stride": [1, 2],
            "temporal_stride": {"values": ["none", 2], "per": "stage"},
            "stride_on": {"values": ["3x3", "1x1"], "per": "stage"},
            "time_pool": {"values": [1, 2], "per": "stage"},
            "attention": {"values": ["none", "gate"], "per": "block"},
            "head": ["avg", "avg_max"],
        },
        "forbid": [
            {"attention": "gate", "head": "avg_max"},
            {"stride_on": "1x1", "temporal_stride": 2},
            {"first_stride": 2, "time_pool": 2},
        ],
    },
    "pools as labels": {
        "domains": {
            **SMALL,
            "depth": ["1-1", "1-1-1"],
            "widths": ["8-16", "8-16-16"],
            "time_pool": ["none", "1-1", "2-1", [1, 2, 1]],
            "attention": ["none", "se"],
        },
        "forbid": [{"time_pool": "2-1", "attention": "se"}],
    },
}
DEFAULTS = {
    "depth": 18, "widths": None, "stem_width": None, "width": 1.0, "stem": "3x7x7", "placement": "all", "cut": None,
    "first_stride": 1, "kind": "3d", "kernel": 3, "dilation": 1, "midplanes": "per_conv", "temporal_stride": "as_paper",
    "stride_on": "3x3", "time_pool": "none", "attention": "none", "head": "avg",
}  # fmt: skip


def by_brute_force(space: SearchSpace) -> tuple[set[str], int]:
    """Digests of all networks of a space, and the number of its settings, by trying every assignment."""
    digests, settings = set(), 0
    (family,) = space.families
    domains = {d.name: d for d in family.domains}
    for depth in domains["depth"].values if "depth" in domains else [18]:
        kind, counts = depth_blocks(depth)
        sites = [(s, b) for s, n in enumerate(counts) for b in range(n)]
        places = []
        for d in family.domains:
            if d.name != "depth":
                places += {
                    "network": [(d.name,)],
                    "stage": [(d.name, s) for s in range(len(counts))],
                    "block": [(d.name, *at) for at in sites],
                }[d.per]
        for values in itertools.product(*(domains[at[0]].values for at in places)):
            chosen = {**dict(zip(places, values, strict=True)), ("depth",): depth}
            spec = assembled(chosen, kind, counts, family)
            if spec is not None:
                settings += 1
                digests.add(digest(spec))
    return digests, settings


def assembled(chosen, kind, counts, space):
    def get(name, s=0, b=0):
        for at in ((name,), (name, s), (name, s, b)):
            if at in chosen:
                return chosen[at]
        return DEFAULTS[name]

    num_stages, every = len(counts), [(s, b) for s, n in enumerate(counts) for b in range(n)]
    heavy = get("placement") in ("top_heavy", "bottom_heavy")
    own_pools = ("time_pool", 0) in chosen
    try:
        where = place(f"{get('placement')}:{get('cut')}" if heavy else get("placement"), counts)
        temporal_strides(str(get("temporal_stride")), [True] * num_stages) if ("temporal_stride",) in chosen else None
        pools = (
            [get("time_pool", s) for s in range(num_stages)] if own_pools else time_pools(get("time_pool"), num_stages)
        )
    except SpecError:
        return None
    if kind == "basic" and any(get("kind", *at) in ("csn", "t1x1_first", "t1x1_both", "t1x1_all") for at in every):
        return None
    widths = ints(get("widths")) if get("widths") else [(get("stem_width") or 64) * 2**s for s in range(num_stages)]
    if len(widths) != num_stages:
        return None
    stems = next((d.values for d in space.domains if d.name == "stem"), ["3x7x7"])
    own_strides = ("temporal_stride", 0) in chosen
    first = get("temporal_stride", 0) if own_strides else str(get("temporal_stride")).split("-")[0]
    ops = {}
    for index, (s, b) in enumerate(every):
        at = {name: get(name, s, b) for name in DEFAULTS}
        there = index in where.blocks
        effective = {
            "kind": there,
            "kernel": there and at["kind"] != "2d",
            "dilation": there and at["kind"] != "2d" and at["kernel"] > 1,
            "midplanes": there and at["kind"] in ("2plus1d", "1plus2d"),
            "temporal_stride": b == 0,
            "stride_on": kind == "bottleneck" and b == 0 and (s > 0 or get("first_stride") == 2 or str(first) == "2"),
            "cut": heavy and chosen.get(("kind",)) != "2d",
            "placement": chosen.get(("kind",)) != "2d" or any(not stem.startswith("1x") for stem in stems),
        }
        for rule in space.forbid:
            if all(at[name] in values and effective.get(name, True) for name, values in rule.where):
                return None
        label = {"p3d_mixed": f"p3d_{'abc'[index % 3]}", "1plus2d": "2plus1d"}.get(at["kind"], at["kind"])
        ops[s, b] = TemporalOp(
            kind=label if there else "2d",
            kernel=at["kernel"],
            dilation=tuple(int(d) for d in str(at["dilation"]).split("|")),
            midplanes=at["midplanes"],
            time_first=at["kind"] == "1plus2d",
        )

    def strides(temporal):
        if not own_strides:
            return temporal_strides(str(get("temporal_stride")), temporal)
        own = [get("temporal_stride", s) for s in range(num_stages)]
        paper = temporal_strides("as_paper", temporal)
        return [{"none": 1, "as_paper": paper[s]}.get(v, v) for s, v in enumerate(own)]

    width = get("width")
    return make_resnet(
        kind=kind,
        counts=counts,
        widths=[scale(w, width) for w in widths],
        stem=make_stem(get("stem"), width=scale(get("stem_width") or widths[0], width), temporal=where.stem),
        op_at=lambda s, b, _: ops[s, b],
        strides=strides,
        extras=Extras(
            stride_on=lambda s, b: get("stride_on", s, b),
            attention=lambda s, b: get("attention", s, b),
            pools=pools,
            head=get("head"),
            first_stride=get("first_stride"),
        ),
    )


@pytest.mark.parametrize("name", SPACES)
def test_counts_and_points_equal_brute_force(name):
    space = parse_space(SPACES[name])
    digests, settings = by_brute_force(space)
    size = space.size()
    assert (size.networks, size.exact, size.settings) == (len(digests), True, settings)
    points = list(space.points())
    assert len(points) == len({p.digest for p in points})
    assert {p.digest for p in points} == digests
    bound = space.size(limit=settings - 1)
    assert (bound.networks, bound.exact, bound.settings) == (settings, False, settings)


@pytest.mark.parametrize("name", SPACES)
def test_sampling_reaches_every_network_and_nothing_else(name):
    space = parse_space(SPACES[name])
    digests, _ = by_brute_force(space)
    rng = random.Random(0)
    seen = {space.random(rng).digest for _ in range(min(25 * len(digests), 1500))}
    assert seen <= digests
    assert len(seen) > 0.9 * min(len(digests), 150)


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
    study = optuna.create_study(sampler=sampler, storage="sqlite:///:memory:")
    found = {}
    for i in range(16):
        trial = study.ask()
        found[trial.number] = space.sample(trial).digest
        study.tell(trial, (i * 7) % 5)
    for trial in study.trials:
        assert space.point(trial.params).digest == found[trial.number]


def test_rules_hold_for_every_block_of_many_samples():
    space, rng = wide_space(), random.Random(4)
    for _ in range(150):
        point = space.random(rng)
        params = dict(point.params)
        ops = [block.temporal for _, _, _, block in point.spec.walk()]
        assert not any(op.kind == "p3d_b" and op.kernel == 5 for op in ops)
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
        ({"domains": {"depth": ["b1"]}}, "blocks a stage as 1-2-1 (basic) or b1-2-1 (bottlenecks), but is b1"),
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
