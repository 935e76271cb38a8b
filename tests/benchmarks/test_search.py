"""The comparison of search methods: what a table, a purse and the score have to hold, on a table made up here."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.search import cells, gap, plot, report, runs
from benchmarks.search.denoise import denoised
from benchmarks.search.methods import METHODS, Entry, added
from benchmarks.search.peers.exported import Exported
from benchmarks.search.purse import Event, Purse, SpentError
from benchmarks.search.readers import recorded
from benchmarks.search.tables import NONE, Setting, Table, write_export
from nas.search.pool import build_pool
from nas.study.files import load_study
from nas.study.front import hypervolume


def made_up() -> Table:
    """Depth and kind; a kernel only where the kind is `3d`, and no kernel of 5 at depth 3."""
    settings = (
        Setting(name="depth", values=(1, 2, 3), ordered=True),
        Setting(name="kind", values=("2d", "3d")),
        Setting(name="kernel", values=(3, 5), ordered=True),
        Setting(name="width", values=(8, 16, 32), ordered=True),
    )
    rows = [
        (d, k, s if k else NONE, w)
        for d, k, s, w in product(range(3), range(2), range(2), range(3))
        if not (k == 0 and s) and (d, k, s) != (2, 1, 1)
    ]
    networks = np.array(rows, dtype=np.int16)
    macs = np.array([(d + 1) * (1 + 2 * k + max(s, 0)) * 4**w * 1000 + s for d, k, s, w in rows], dtype=np.int64)
    rng = np.random.default_rng(0)
    final = 60 - 8 * networks[:, 0] - 10 * networks[:, 1] - 5 * networks[:, 3] + rng.normal(0, 1, (2, len(rows)))
    errors = np.stack([final + 20, final + 8, final])
    return Table(
        name="made_up",
        title="made up",
        settings=settings,
        networks=networks,
        macs=macs,
        fidelities=(1, 3, 9),
        errors=errors,
        truth=final.mean(axis=0),
        reference=60.0,
        marks=(45, 90, 180),
    )


TABLE = made_up()


def test_settings_and_networks_give_each_other() -> None:
    for network in range(len(TABLE)):
        assert TABLE.find({"kernel": 3, **TABLE.values(network)}) == network
    assert "kernel" not in TABLE.values(0)
    assert TABLE.find({"depth": 3, "kind": "3d", "kernel": 5, "width": 8}) is None


def test_a_setting_that_does_not_apply_is_not_asked_for() -> None:
    asked = list[str]()

    def first(name: str, choices: object) -> object:
        asked.append(name)
        return {"depth": 1, "kind": "2d", "width": 8}[name]

    assert TABLE.ask(first) == 0 and asked == ["depth", "kind", "width"]


def test_neighbours_differ_in_one_setting() -> None:
    network = TABLE.find({"depth": 3, "kind": "2d", "width": 8})
    assert network is not None
    depth, kind, kernel, width = (sorted(map(int, found)) for found in TABLE.neighbours(network))
    assert [TABLE.values(n) for n in kind] == [{"depth": 3, "kind": "3d", "kernel": 3, "width": 8}]
    assert (len(depth), len(kernel), len(width)) == (2, 0, 2)


def test_the_gap_is_the_missing_share_of_the_hypervolume() -> None:
    points = [(e / 60, p) for e, p in zip(TABLE.truth, TABLE.place, strict=True)]
    whole = hypervolume(points, (1.0, 1.05))
    assert gap.gap(TABLE, range(len(TABLE))) == pytest.approx(0)
    assert gap.gap(TABLE, [3, 5]) == pytest.approx(100 * (1 - hypervolume([points[3], points[5]], (1.0, 1.05)) / whole))
    events = [Event(3, 0, 1), Event(3, 2, 9), Event(5, 1, 12), Event(5, 2, 18)]
    assert gap.at(gap.curve(TABLE, events), 8) == 100  # only what was trained in full counts
    assert gap.at(gap.curve(TABLE, events), 17) == pytest.approx(gap.gap(TABLE, [3]))
    assert gap.at(gap.curve(TABLE, events), 18) == pytest.approx(gap.gap(TABLE, [3, 5]))


def test_a_purse_counts_from_the_checkpoint_and_never_overspends() -> None:
    purse = Purse(table=TABLE, seed=1, budget=20)
    purse.train(4, 0)
    assert purse.train(4, 1, after=0) == TABLE.errors[1, 1, 4]
    purse.train(4)
    with pytest.raises(SpentError):
        purse.train(5)
    assert purse.events == [(4, 0, 1), (4, 1, 3), (4, 2, 12)]


@pytest.mark.parametrize("name", [name for name, entry in METHODS.items() if entry.run and not entry.slow])
def test_a_method_is_a_function_of_its_seed_and_pays_for_what_it_trains(name: str) -> None:
    run = METHODS[name].run
    assert run is not None
    events = run(TABLE, 3, TABLE.budget)
    assert events == run(TABLE, 3, TABLE.budget)
    assert any(event.fidelity == TABLE.top for event in events) and events[-1].epochs <= TABLE.budget
    assert all(a.epochs < b.epochs for a, b in pairwise(events))
    costs = {TABLE.fidelities[a] - (TABLE.fidelities[b] if b < a else 0) for a in range(3) for b in range(3)}
    assert {b.epochs - a.epochs for a, b in pairwise(events)} <= costs | {8}  # 8: from the first rung to the last
    if name.startswith("project"):
        assert gap.duplicates(events) == 0


def test_searches_are_kept_and_not_run_again(tmp_path: Path) -> None:
    calls = list[int]()

    def run(table: Table, seed: int, budget: int) -> list[Event]:
        calls.append(seed)
        return [Event(seed, table.top, 9)]

    entry = Entry(name="mine", title="mine", run=run)
    first = runs.complete(tmp_path, TABLE, entry, range(3))
    assert runs.complete(tmp_path, TABLE, entry, range(4))[1].events == first[1].events and calls == [0, 1, 2, 3]
    changed = replace(TABLE, reference=59.0)
    assert runs.read(tmp_path, changed, "mine") == {}


def test_a_report_names_medians_tests_and_ranks(tmp_path: Path) -> None:
    entries = [METHODS["random"], METHODS["evolution"]]
    found = [report.figures(TABLE, e, runs.complete(tmp_path, TABLE, e, range(6))) for e in entries]
    tests = report.tests(TABLE, found, "evolution")
    assert [(t.method, t.epochs) for t in tests] == [("random", mark) for mark in TABLE.marks]
    assert all(0 < t.p <= 1 and t.seeds == 6 for t in tests)
    text = report.markdown(TABLE, found, "evolution")
    assert "| random |" in text and "of 6, p = " in text
    assert set(report.ranks({"made_up": found}, {"made_up": TABLE.marks})) == {"random", "evolution"}
    assert plot.svg(TABLE, found).count("<path") > 4
    json.dumps(report.content(TABLE, found, "evolution"))


def test_a_peer_sees_what_a_search_sees(tmp_path: Path) -> None:
    noisy = replace(TABLE, noise=(3.0, 1.0, 0.0))
    write_export(noisy, 5, tmp_path / "table.json")
    peer = Exported(tmp_path / "table.json")
    peer.begin(4)
    purse = Purse(table=noisy, seed=4, budget=noisy.budget)
    assert peer.train(7, 0) == pytest.approx(purse.train(7, 0), abs=1e-5)
    assert peer.train(7, 2, after=0) == pytest.approx(purse.train(7, 2, after=0), abs=1e-5)
    assert peer.events == [tuple(event) for event in purse.events]
    for values in product(*(setting.values for setting in TABLE.settings)):
        config = dict(zip(peer.names, values, strict=True))
        assert peer.find(config) == TABLE.find(config)


def test_macs_are_the_published_ones() -> None:
    assert cells.macs_201([0] * 6) == 7_782_400 and cells.macs_201([3] * 6) == 220_119_040
    # A cell of EC-NAS with the parameters that its table states; two further ones, of two and of five vertices.
    cell = cells.Cell.of([[0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], [-1, 2, 2, -2])
    assert cells.cost_101(cell)[0] == 1_756_298
    rows = [[0, 1, 1, 1, 1], [0, 0, 1, 1, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    assert cells.cost_101(cells.Cell.of(rows, [-1, 2, 0, 0, -2]))[0] == 6_843_402


def test_what_like_networks_say_takes_the_luck_out_of_few_seeds() -> None:
    rng = np.random.default_rng(1)
    networks = np.array(list(product(range(3), repeat=5)), dtype=np.int16)
    true = networks @ np.array([3.0, 1.0, 2.0, 0.5, 1.0]) + 2.0 * (networks[:, 0] == networks[:, 1])
    place = networks.sum(axis=1) / 10
    errors = true + rng.normal(0, 2.0, (2, len(true)))
    found, weight = denoised(networks, place, errors)
    assert np.std(found - true) < 0.6 * np.std(errors.mean(axis=0) - true) and weight < 0.3
    exact, weight = denoised(networks, place, np.stack([true, true]))
    assert weight == 1.0 and exact == pytest.approx(true)


def test_a_recorded_table_counts_what_every_seed_has_trained(tmp_path: Path) -> None:
    study = Path(__file__).parents[2] / "benchmarks" / "tables" / "motion.yaml"
    content = yaml.safe_load(study.read_text(encoding="utf-8"))
    content["space"]["families"] = {"inception_v3": content["space"]["families"]["inception_v3"]}
    (tmp_path / "motion.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    config = load_study(tmp_path / "motion.yaml", [])
    pool = build_pool(config, num_classes=config.num_classes).candidates
    lines = [
        {"digest": c.digest, "seed": seed, "top1": [min(0.9, 0.02 * (i % 7) + 0.03 * epoch) for epoch in range(1, 19)]}
        for i, c in enumerate(pool[:25])
        for seed in (0, 1)
    ]
    text = "\n".join(json.dumps(line) for line in lines[:-1])  # the last network lacks a seed
    (tmp_path / "motion.jsonl").write_text(text, encoding="utf-8")
    table = recorded(tmp_path / "motion.yaml")
    assert len(table) == 24 and table.fidelities == (2, 6, 18)
    assert table.macs.tolist() == [c.cost.macs for c in pool[:24]]
    assert table.error(3, 1, 0) == pytest.approx(100 - 100 * (0.06 + 0.18))
    for network in range(len(table)):
        of = table.values(network)
        assert table.ask(lambda name, _, of=of: of[name]) == network


def test_a_method_from_outside_is_named_by_its_place() -> None:
    assert added("mine=benchmarks.search.gap:curve").name == "mine"
    with pytest.raises(ValueError, match="name=module:function"):
        added("mine")
