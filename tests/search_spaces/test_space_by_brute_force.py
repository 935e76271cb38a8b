"""A space counts and yields exactly the networks that trying every assignment of its parameters gives."""

from __future__ import annotations

import itertools
import random

import pytest

from search_spaces.codec import digest
from search_spaces.errors import SpecError
from search_spaces.families.resnet.make import (
    Extras,
    depth_blocks,
    ints,
    make_resnet,
    make_stem,
    place,
    temporal_strides,
    time_pools,
)
from search_spaces.operators import TemporalOp
from search_spaces.space import SearchSpace, parse_space
from search_spaces.spec import scale
from tests.search_spaces.small_spaces import SPACES

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
    if kind == "basic" and any(
        get("kind", *at) in ("csn", "csn_ip", "t1x1_first", "t1x1_both", "t1x1_all") for at in every
    ):
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
