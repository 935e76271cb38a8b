"""What a report says, before it is a page: values from databases in every state."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.evidence.interval import wilson
from nas.read.learned import VolumeBox
from nas.read.report.gather import gather
from nas.read.report.page import html
from nas.read.report.parts import TIMM_NOTE, rungs, steps
from nas.read.report.values import Point, Report
from nas.store import tables as m
from nas.store import write as s
from nas.store.database import Store
from nas.study.views import Views
from nas.train.folder import read_content, write_content
from nas.use.probabilities import Scores, save_scores, scores_file
from search_spaces import codec
from tests.nas.read.report.generated import empty_study, full_study


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return full_study(tmp_path_factory.mktemp("full") / "study.db", trials=45)


@pytest.fixture(scope="module")
def report(full: Store) -> Report:
    return gather(full)


def test_the_front_is_that_of_the_view(full: Store, report: Report) -> None:
    rows = full.front("demo")
    expected = [(r["digest"], r["accuracy"], r["macs"]) for r in rows]
    assert [(p.digest, p.accuracy, p.macs) for p in report.front] == expected
    assert {p.rung for p in report.front} == {2}


def test_every_measurement_is_a_point_with_its_interval(full: Store, report: Report) -> None:
    assert len(report.points) == len(full.evaluations(1)) > 45
    point = report.points[0]
    assert point.interval == wilson(point.accuracy, 512)


def test_curves_say_who_was_stopped_early_who_went_on_and_who_failed(full: Store, report: Report) -> None:
    assert len(report.curves) == 44  # one trial failed before its first epoch
    kinds = {c.number: c.kind for c in report.curves}
    last = {p.number: p.rung for p in report.points}
    front = {p.number for p in report.front}
    for number, kind in kinds.items():
        assert kind == ("front" if number in front else "top" if last[number] == 2 else "stopped")
    assert {len(c.values) for c in report.curves} == {3, 9, 27}


def test_a_trial_under_way_and_a_failed_one_have_curves_of_their_own_kind(tmp_path: Path) -> None:
    store = full_study(tmp_path / "study.db", trials=12)
    with store.write() as connection:
        connection.execute(m.trial.update().where(m.trial.c.number == 3).values(state="running"))
        connection.execute(m.trial.update().where(m.trial.c.number == 4).values(state="failed", reason="error"))
    values = gather(store)
    reached = {p.number: p.rung for p in values.points}
    kinds = {c.number: c.kind for c in values.curves if reached[c.number] < 2}
    assert kinds.get(3, "running") == "running"
    assert kinds.get(4, "failed") == "failed"
    assert {"running", "failed"} & set(kinds.values())


def test_each_rung_counts_its_survivors(report: Report) -> None:
    assert [(r.epochs, r.networks) for r in report.rungs] == [(3, 44), (9, 14), (27, 4)]
    best = [r.best for r in report.rungs]
    assert best[-1] == max(p.accuracy for p in report.points if p.rung == 2)


def test_planned_rungs_that_nobody_reached_are_there_too() -> None:
    assert [(r.epochs, r.networks, r.best) for r in rungs([], [3, 9])] == [(3, 0, None), (9, 0, None)]


points = st.lists(
    st.builds(
        lambda number, rung, top1, macs: Point(
            digest=str(number),
            number=number,
            rung=rung,
            epochs=3 ** (rung + 1),
            accuracy=top1,
            interval=None,
            num_clips=10,
            macs=macs,
            settings={},
            front=False,
            values=(1.0 - top1, math.log10(macs)),
        ),
        st.integers(0, 20),
        st.integers(0, 2),
        st.floats(0, 1),
        st.integers(1, 10**12),
    ),
    max_size=30,
)


@given(points)
def test_the_hypervolume_of_a_rung_never_falls_and_ends_at_that_of_all_its_networks(found: list[Point]) -> None:
    made = steps(found)
    for rung in {p.rung for p in found}:
        line = [(step.epochs, step.share) for step in made if step.rung == rung]
        assert line == sorted(line)
        here = [p for p in found if p.rung == rung]
        assert line[-1][1] == pytest.approx(VolumeBox.of([p.values for p in found]).share([p.values for p in here]))
        assert -1e-9 <= line[-1][1] <= 1 + 1e-9
    spent = {p.number: 0 for p in found}
    for p in found:
        spent[p.number] = max(spent[p.number], p.epochs)
    if found:
        assert made[-1].epochs == sum(spent.values())


def test_the_most_accurate_network_at_the_lowest_cost_dominates_the_whole_rectangle() -> None:
    box = VolumeBox.of([(0.2, 1.0), (0.9, 3.0), (0.4, 2.0)])
    assert box.share([(0.2, 1.0)]) == pytest.approx(1.0)
    assert box.share([(0.9, 3.0)]) == pytest.approx(0.05**2 / 1.05**2)
    assert box.share([]) == 0.0


def test_marginal_fronts_are_of_a_rung_with_enough_results_and_cover_every_setting(report: Report) -> None:
    assert {marginal.factor for marginal in report.marginals} == {"kind", "placement", "width", "dilation"}
    assert {marginal.epochs for marginal in report.marginals} == {9}  # 14 results; the last rung has 4
    for marginal in report.marginals:
        assert sum(level.networks for level in marginal.levels) == 14
        shares = [level.share for level in marginal.levels]
        assert shares == sorted(shares, reverse=True)
        assert shares[-1] >= 0 and shares[0] <= 1 + 1e-9


def test_networks_have_the_blocks_that_nas_show_prints(full: Store, report: Report) -> None:
    assert len(report.networks) == 45
    asked = 0
    for row in full.rows(m.architecture.select()):
        spec, network = codec.decode(row["spec"]), report.networks[row["digest"]]
        if row["spec"]["family"] == "timm":
            assert network.note == TIMM_NOTE
            assert [block["site"] for block in network.blocks][:5] == [f"stages.{i}" for i in range(5)]
            continue
        asked += 1
        assert [dict(b) for b in network.blocks] == [{k: str(v) for k, v in b.items()} for b in spec.rows()]
    assert asked == 44


def test_a_spec_that_cannot_be_read_has_no_blocks_and_says_why(tmp_path: Path) -> None:
    store = full_study(tmp_path / "study.db", trials=8)
    digest = store.trials(1)[0]["digest"]
    with store.write() as connection:
        connection.execute(m.architecture.update().where(m.architecture.c.digest == digest).values(spec={"version": 9}))
    network = gather(store).networks[digest]
    assert network.blocks == ()
    assert "version must be 1 to 2" in network.note


def test_effects_are_those_of_the_view_with_their_networks(full: Store, report: Report) -> None:
    (ablation,) = report.ablations
    rows = full.view("ablation_effects", "demo")
    assert [(e.factor, e.level, e.difference, e.low, e.word) for e in ablation.effects] == [
        (r["factor"], r["level"], r["difference"], r["low"], r["word"]) for r in rows
    ]
    assert (ablation.runs, ablation.done, ablation.margin) == (25, 24, 0.01)
    assert all(e.digest in report.networks for e in ablation.effects)


def test_importances_are_grouped_by_method_with_the_highest_first(report: Report) -> None:
    methods = {i.method: i for i in report.importances}
    assert methods["pedanova"].factors == (("kind", 0.51), ("width", 0.3), ("placement", 0.19))
    assert methods["fanova"].pairs == (("kind × placement", 0.12),)


def test_verdicts_and_motion_tests_are_as_stored(report: Report) -> None:
    assert [v.word for v in report.verdicts] == ["reproduced", "contradicted", "undecided"]
    (motion,) = report.motions
    assert motion.top1 == {"forward": 0.94, "reversed": 0.31, "shuffled": 0.22, "frozen": 0.13, "single": 0.12}


def test_all_failures_are_named_trials_promotions_and_runs(report: Report) -> None:
    assert [(f.what, f.reason) for f in report.failures] == [
        ("trial 40", "out of memory"),
        ("promotion, seed 2", "non finite loss"),
        ("ablation run, seed 4", "broken clip"),
    ]


def test_a_confusion_matrix_is_found_beside_the_database_and_a_missing_folder_is_said(report: Report) -> None:
    found, gone, failed = report.promotions
    assert found.confusion is not None
    assert found.confusion.split == "test"
    assert found.confusion.counts[0][:3] == (58, 2, 0)
    assert {a.split: a.top1 for a in found.accuracies} == {"val": 0.95, "test": 0.94}
    assert gone.confusion is None
    assert "is not there" in gone.missing
    assert (failed.state, failed.missing, failed.accuracies) == ("failed", "", ())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "cannot be read"),
        ('{"format": 1, "record": {}}', "cannot be read"),
        ('{"format": 1, "record": {"confusion": {"val": [[1, 2], [3, 4]]}}}', "has 2 classes, and the study 8"),
    ],
)
def test_a_damaged_folder_of_a_promotion_is_said_and_stops_nothing(tmp_path: Path, content: str, reason: str) -> None:
    store = full_study(tmp_path / "study.db", trials=8)
    (file,) = tmp_path.glob("promoted/*/network.json")
    file.write_text(content, encoding="utf-8")
    assert reason in gather(store).promotions[0].missing


def test_without_a_test_split_the_matrix_of_val_is_shown(tmp_path: Path) -> None:
    store = full_study(tmp_path / "study.db", trials=8)
    (file,) = tmp_path.glob("promoted/*/network.json")
    content = read_content(file.parent)
    del content["record"]["confusion"]["test"]
    write_content(file.parent, content)
    confusion = gather(store).promotions[0].confusion
    assert confusion is not None and confusion.split == "val"


def scores(split: str, classes: tuple[str, ...]) -> Scores:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % len(classes)
    odds = np.exp(rng.normal(size=(40, len(classes))) + 2 * np.eye(len(classes))[labels])
    return Scores(
        split=split,
        classes=classes,
        paths=tuple(f"{i}.mp4" for i in range(40)),
        labels=labels,
        probabilities=(odds / odds.sum(1, keepdims=True)).astype(np.float32),
        clips_right=np.ones(40),
        views=Views(),
    )


def test_two_classes_are_reported_as_a_question_of_yes_or_no(tmp_path: Path) -> None:
    store = full_study(tmp_path / "study.db", trials=8)
    (file,) = tmp_path.glob("promoted/*/network.json")
    assert "Each class against the rest" not in html(gather(store))
    for split in ("val", "test"):
        save_scores(scores_file(file.parent, split), scores(split, ("<b>calm</b>", "fight")))
    report = gather(store)
    found = report.promotions[0].detection
    assert found is not None and found.split == "test" and [row.name for row in found.rows] == ["<b>calm</b>", "fight"]
    page = html(report)
    assert "Each class against the rest on test" in page and f"{found.rows[0].auc:.3f}" in page
    assert "ROC curves of 2 classes" in page and "Precision-recall curves of 2 classes" in page
    assert "<b>calm" not in page
    save_scores(scores_file(file.parent, "test"), scores("test", ("a", "b", "c")))
    assert gather(store).promotions[0].detection is None


def test_a_study_that_nothing_has_happened_to_has_an_empty_report(tmp_path: Path) -> None:
    store, _ = empty_study(tmp_path / "study.db")
    values = gather(store)
    assert (values.points, values.front, values.curves, values.steps, values.marginals) == ((), (), (), (), ())
    assert [rung.networks for rung in values.rungs] == [0, 0, 0]


def test_a_database_that_is_being_written_is_read_as_it_was_committed(tmp_path: Path) -> None:
    driver = full_study(tmp_path / "study.db", trials=8)
    reader = Store(tmp_path / "study.db")
    with driver.write() as connection:
        row = connection.execute(m.trial.select()).mappings().first()
        assert row is not None
        values = {key: value for key, value in row.items() if key != "id"} | {"number": 99, "seed": 7}
        s.insert(connection, m.trial, **values)
        assert gather(reader).trials == 8
    assert gather(reader).trials == 9


def test_a_copy_of_the_folder_finds_its_promotions_wherever_it_lies(tmp_path: Path) -> None:
    full_study(tmp_path / "here" / "study.db", trials=8).close()
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert gather(Store(tmp_path / "there" / "study.db")).promotions[0].confusion is not None
