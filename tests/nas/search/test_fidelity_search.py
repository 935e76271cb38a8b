"""Whole searches whose rungs are trainings of their own: on more data, more frames, more pixels."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import pytest

from nas.cli.main import main
from nas.cost.cost import cost
from nas.errors import SearchError, StoreError
from nas.read.rows import columns_of, rows_of
from nas.read.watch import frame_of
from nas.search.driver import run_search
from nas.search.pool import Reason, build_pool
from nas.store import tables as m
from nas.store.database import Store
from nas.study.study import Study
from nas.train.jobs import TrainJob
from nas.train.session import News, locked
from nas.train.source import find_trained, load_trained
from nas.train.training import run_job
from search_spaces import codec
from tests.nas.search.test_search import check_promotions, results_of, study_at
from tests.nas.studies import content_of
from trainer.config import Clip, DataConfig
from trainer.data.motion_clips import make_motion
from trainer.evaluate import evaluate

RUNGS: dict[str, list[Any]] = {"data": [0.26, 0.5, 1.0], "frames": [1, 2, 4], "size": [8, 12, 16]}
LABELS = {
    "data": ["26 % of the data", "50 % of the data", "100 % of the data"],
    "frames": ["1 frame", "2 frames", "4 frames"],
    "size": ["8 pixels", "12 pixels", "16 pixels"],
}
NAMES = {
    "data": ["rung-0-0.26-of-data", "rung-1-0.5-of-data", "rung-2-1-of-data"],
    "frames": ["rung-0-1-frames", "rung-1-2-frames", "rung-2-4-frames"],
    "size": ["rung-0-8-pixels", "rung-1-12-pixels", "rung-2-16-pixels"],
}


class Found(NamedTuple):
    """A search that ran to its end undisturbed."""

    kind: str
    study: Study
    path: Path
    news: list[News]

    @property
    def store(self) -> Store:
        return Store(self.path)


def rungs_of(kind: str, **over: Any) -> dict[str, Any]:
    """The changes to the tiny study that give it rungs of a kind."""
    return {"search": {"fidelity": kind, "epochs": 2, "trials": 9, "rungs": RUNGS[kind], **over}}


def second_rung(kind: str, data: DataConfig) -> DataConfig:
    """How the middle rung takes clips, written out."""
    return {
        "data": replace(data, share=0.5),
        "frames": replace(data, clip=Clip(frames=2, height=16, width=16)),
        "size": replace(data, clip=Clip(frames=4, height=12, width=12), crop=(16, 16)),
    }[kind]


@pytest.fixture(scope="module", params=list(RUNGS))
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, motion: Path) -> Found:
    kind = str(request.param)
    folder = tmp_path_factory.mktemp(kind)
    study = study_at(folder, motion, rungs_of(kind))
    news: list[News] = []
    run_search(study, folder / "study.db", workers=0, listener=news.append)
    return Found(kind, study, folder / "study.db", news)


def test_rungs_are_those_of_successive_halving_and_epochs_are_numbered_on(found: Found) -> None:
    evaluations = found.store.evaluations(1)
    assert [sum(e["rung"] == rung for e in evaluations) for rung in range(3)] == [9, 3, 1]
    assert {(e["rung"], e["epochs"]) for e in evaluations} == {(0, 2), (1, 4), (2, 6)}
    check_promotions(found.store, found.study)
    for trial in found.store.trials(1):
        reached = [e for e in evaluations if e["trial_id"] == trial["id"]]
        epochs = found.store.epochs(trial["id"])
        assert [e["epoch"] for e in epochs] == list(range(1, reached[-1]["epochs"] + 1))
        assert [epochs[e["epochs"] - 1]["loss"] for e in reached] == [e["loss"] for e in reached]


def test_the_whole_validation_split_is_evaluated_at_each_rung(found: Found) -> None:
    assert {e["num_clips"] for e in found.store.evaluations(1)} == {16}


def test_a_rung_is_this_network_trained_from_scratch_at_its_fidelity(found: Found, tmp_path: Path) -> None:
    evaluations = found.store.evaluations(1)
    for rung, data in ((1, second_rung(found.kind, found.study.data)), (2, found.study.data)):
        one = next(e for e in evaluations if e["rung"] == rung)
        job = TrainJob(
            spec=codec.dumps(codec.decode(found.store.find(one["digest"])["spec"])),
            num_classes=8,
            data=data,
            recipe=found.study.recipe,
            seed=one["seed"],
            folder=str(tmp_path / str(rung)),
            until_epoch=2,
        )
        val = run_job(job).epochs[-1].val
        assert val is not None
        assert (val.top1, val.loss) == (one["top1"], one["loss"])


def test_costs_are_those_of_the_full_clip(found: Found) -> None:
    for row in found.store.evaluations(1):
        spec = codec.decode(found.store.find(row["digest"])["spec"])
        assert row["macs"] == cost(spec, frames=4, height=16, width=16, num_classes=8).macs


def test_each_rung_has_an_optuna_study_of_its_name(found: Found) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{found.path}")
    names = sorted(summary.study_name for summary in optuna.get_all_study_summaries(storage))
    assert names == [f"tiny/{name}" for name in NAMES[found.kind]]
    assert [len(optuna.load_study(study_name=name, storage=storage).trials) for name in names] == [9, 3, 1]
    storage.engine.dispose()


def test_commands_name_the_fidelity(found: Found, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    database, (low, _, full) = str(found.path), LABELS[found.kind]
    page = tmp_path / "page.html"
    shown = {
        "status": [low, full, "spent: 26 epochs (worth "],
        "pareto": [f"Pareto front at {full}, on 16 val clips of 4x16x16 (MACs of one clip)"],
        "watch": [low, full, f"front at {full}"],
        "importance": [f"rung 0 ({low})"],
    }
    for command, texts in shown.items():
        assert main([command, database, *(["--once"] if command == "watch" else [])]) == 0
        out = " ".join(capsys.readouterr().out.split())
        for text in texts:
            assert text in out, command
    assert main(["report", database, "-o", str(page)]) == 0
    html = page.read_text("utf-8")
    for text in (f"front at {full}", f"lower rungs ({low}, ", "of full fidelity", "are trained anew at"):
        assert text in html
    assert "6 epochs" not in html


def test_the_news_name_the_fidelity(found: Found) -> None:
    texts = [news.text for news in found.news]
    low, middle, full = LABELS[found.kind]
    rungs = next(text for text in texts if text.startswith("rungs: "))
    assert low in rungs
    assert rungs.endswith("; 2 epochs of training at each")
    assert any(f"on 16 clips at {low} (" in text for text in texts)
    assert any(text.endswith(f"goes on to {middle}") for text in texts)
    assert any(f"on 16 clips at {full} (" in text for text in texts)
    assert found.news[-1].done == found.news[-1].total == 9 * 2 + 3 * 2 + 1 * 2
    assert {news.done for news in found.news if news.kind == "tick"} == set(range(1, 27))  # epoch by epoch


def test_exported_tables_name_the_fidelity(found: Found) -> None:
    row = found.store.study()
    for table in ("front", "trials", "evaluations"):
        rows = rows_of(found.store, row, table)
        assert {line["fidelity"] for line in rows} <= set(LABELS[found.kind])
        assert "fidelity" in columns_of(table, rows)
    (front, *_) = rows_of(found.store, row, "front")
    assert (front["fidelity"], front["epochs"]) == (LABELS[found.kind][2], 6)


def test_what_was_spent_counts_by_its_share_of_the_work(found: Found, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(found.path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    low, middle = {"data": (0.26, 0.5), "frames": (0.25, 0.5), "size": (0.25, 0.5625)}[found.kind]
    assert report["epochs_trained"] == 26
    assert report["full_epochs_worth"] == pytest.approx(2 * (9 * low + 3 * middle + 1))
    assert [rung["fidelity"] for rung in report["rungs"]] == LABELS[found.kind]


def test_a_trial_is_measured_as_it_was_at_its_rung(found: Found) -> None:
    row = found.store.study()
    for rung in (1, 2):
        one = [e for e in found.store.evaluations(1) if e["rung"] == rung]
        last = next(e for e in one if rung == 2 or e["number"] not in _finished(found))
        (training,) = find_trained(
            found.store, found.study, row, last["digest"], root=found.path.parent, sources=("trial",)
        )
        spec = found.store.find(last["digest"])["spec"]
        loaded = load_trained(training, found.study, row, spec, "cpu")
        assert loaded.epochs == training.epochs == last["epochs"]
        measured = evaluate(loaded.model, loaded.data, loaded.data_config, loaded.recipe, "val", "cpu").metrics
        assert measured.top1 == last["top1"]


def _finished(found: Found) -> set[int]:
    return {t["number"] for t in found.store.trials(1) if t["state"] == "finished"}


def test_a_search_stopped_at_any_moment_goes_on_to_the_same_end(found: Found, tmp_path: Path) -> None:
    stops = iter([1, 2, 3, 5, 4, 6])

    def stopper() -> Any:
        left, heard = next(stops, None), 0

        def listen(news: News) -> None:
            nonlocal heard
            heard += news.kind == "tick" and bool(news.total)
            if left is not None and heard > left:
                raise KeyboardInterrupt

        return listen

    for _ in range(20):
        try:
            run_search(found.study, tmp_path / "study.db", workers=0, listener=stopper())
            break
        except KeyboardInterrupt:
            continue
    store = Store(tmp_path / "study.db")
    assert results_of(store) == results_of(found.store)
    assert store.jobs(1, "preempted")
    assert [e["loss"] for e in store.epoch_rows(1)] == [e["loss"] for e in found.store.epoch_rows(1)]
    check_promotions(store, found.study)


def test_another_fidelity_is_another_study(found: Found, motion: Path) -> None:
    before = content_of(found.path)
    other = study_at(found.path.parent, motion, rungs_of(found.kind, epochs=3))
    with pytest.raises(StoreError, match=r"was made with search\.epochs=2, but the study now says 3"):
        run_search(other, found.path, workers=0)
    with pytest.raises(StoreError, match=rf"was made with search\.\w+={found.kind}|search\.epochs=2"):
        run_search(study_at(found.path.parent, motion), found.path, workers=0)
    assert content_of(found.path) == before


@pytest.mark.slow
def test_workers_keep_the_rules_at_any_fidelity(tmp_path: Path, motion: Path) -> None:
    study = study_at(tmp_path, motion, rungs_of("size", trials=4, eta=2, rungs=[8, 16], epochs=1))
    assert run_search(study, tmp_path / "study.db", workers=2).counts == (4, 2)
    check_promotions(Store(tmp_path / "study.db"), study)


def test_a_schedule_that_ends_may_be_searched_with(tmp_path: Path, motion: Path) -> None:
    over = rungs_of("data", trials=3, rungs=[0.5, 1.0]) | {"recipe": {"schedule": "cosine", "warmup_epochs": 0}}
    study = study_at(tmp_path, motion, over)
    assert run_search(study, tmp_path / "study.db", workers=0).counts == (3, 1)
    store = Store(tmp_path / "study.db")
    trial = store.evaluations(1)[-1]["trial_id"]
    rates = [row["lr"] for row in store.epochs(trial)]
    assert len(rates) == 4
    assert rates[1] < 0.2 * study.recipe.lr < rates[0]  # it ends with the first rung, and again with the second
    assert rates[3] < 0.2 * study.recipe.lr < rates[2]


def test_a_schedule_that_ends_too_soon_is_refused_before_anything_is_trained(tmp_path: Path, motion: Path) -> None:
    study = study_at(tmp_path, motion, {"recipe": {"schedule": "cosine", "epochs": 2}})
    with pytest.raises(SearchError, match=r"recipe\.epochs must be at least the last of search\.rungs, 3, with"):
        run_search(study, tmp_path / "study.db", workers=0)


def test_shares_that_take_the_same_videos_are_refused(tmp_path: Path, motion: Path) -> None:
    study = study_at(tmp_path, motion, rungs_of("data", rungs=[0.01, 0.1, 1.0]))
    with pytest.raises(SearchError, match=r"1 % of the data and 10 % of the data both are 8 of the 32 training videos"):
        run_search(study, tmp_path / "study.db", workers=0)
    assert not Store(tmp_path / "study.db", create=True).studies()


UNPADDED = {"space": {"domains": {"stem": ["1x3x3/2", "3x3x3-unpadded"], "kind": ["2d"], "kernel": [3]}}}


def test_networks_that_do_not_fit_a_rung_are_left_out_and_said_to_be(tmp_path: Path, motion: Path) -> None:
    whole = build_pool(study_at(tmp_path, motion, UNPADDED), num_classes=8)
    study = study_at(tmp_path, motion, UNPADDED | rungs_of("frames", rungs=[1, 4], epochs=1))
    pool = build_pool(study, num_classes=8)
    assert pool.dropped == {Reason("rung", "1 frame"): 1}
    assert len(pool.candidates) == len(whole.candidates) - 1
    assert [c.cost for c in pool.candidates] == [c.cost for c in whole.candidates if c.digest in pool.by_digest]
    news: list[News] = []
    run_search(study, tmp_path / "study.db", workers=0, listener=news.append)
    assert "1 network does not fit 1 frame, a rung of this search, and is left out" in [n.text for n in news]
    assert not [t for t in Store(tmp_path / "study.db").trials(1) if t["state"] == "failed"]


def test_a_rung_that_no_network_fits_is_refused(tmp_path: Path, motion: Path) -> None:
    over = {"space": {"domains": {"stem": ["3x3x3-unpadded"]}}} | rungs_of("frames", rungs=[1, 4], epochs=1)
    with pytest.raises(
        SearchError, match=r"no network .* meets no constraint and fits the clips of search\.rungs \(1 f"
    ):
        build_pool(study_at(tmp_path, motion, over), num_classes=8)


def test_a_named_network_that_does_not_fit_a_rung_is_refused(tmp_path: Path, motion: Path) -> None:
    over = rungs_of("frames", rungs=[1, 16], start_with=["c3d"])
    over["data"] = {"clip": {"frames": 16, "height": 112, "width": 112}, "short_side": 112}
    with pytest.raises(SearchError, match=r"c3d of search\.start_with does not fit 1 frame of search\.rungs"):
        build_pool(study_at(tmp_path, motion, over), num_classes=8)


def test_videos_too_short_for_the_full_clip_are_seen_at_no_rung(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    make_motion(root, train_per_class=2, val_per_class=2, test_per_class=1, frames=6, size=16)
    make_motion(tmp_path / "short", train_per_class=1, val_per_class=1, test_per_class=1, frames=3, size=16)
    for video in sorted((tmp_path / "short" / "val").glob("*/*.mp4")):  # one of the two of each class
        shutil.copy(video, root / "val" / video.parent.name / video.name)
    over = rungs_of("frames", rungs=[2, 6], trials=2, eta=2, epochs=1) | {"data": {"clip": {"frames": 6}}}
    run_search(study_at(tmp_path, root, over), tmp_path / "study.db", workers=0)
    assert {(e["rung"], e["num_clips"]) for e in Store(tmp_path / "study.db").evaluations(1)} == {(0, 8), (1, 8)}


def test_a_job_at_a_higher_rung_is_watched_in_the_epochs_of_its_trial(found: Found, tmp_path: Path) -> None:
    shutil.copytree(found.path.parent, tmp_path / "copy")
    store = Store(tmp_path / "copy" / "study.db")
    last = store.jobs(1)[-1]
    with store.write() as connection:
        connection.execute(m.evaluation.delete().where(m.evaluation.c.rung == 2))
        connection.execute(m.job.update().where(m.job.c.id == last["id"]).values(state="running"))
        connection.execute(m.session.update().values(ended_at=None))
    (progress,) = [
        file
        for file in (tmp_path / "copy" / "trials").glob(f"{last['number']:05d}-*/progress.jsonl")
        if file.parent.name == _folder_of(found, last)
    ]
    progress.write_text(progress.read_text().splitlines(keepends=True)[0])
    with locked(tmp_path / "copy" / "study.db"):  # as a driver at work does
        frame = frame_of(store, store.study(), datetime.now(UTC))
    (job,) = frame.running
    assert (job["trial"], job["rung"], job["epoch"], job["until"]) == (last["number"], 2, 5, 6)
    assert (frame.epochs_done, frame.epochs_total) == (25, 26)
    assert frame.front_at == f"at {LABELS[found.kind][1]}"
    assert frame.left is not None  # an epoch of the last rung
    assert 0 <= frame.left.low < frame.left.middle < frame.left.high


def _folder_of(found: Found, job: Any) -> str:
    (training,) = find_trained(
        found.store, found.study, found.store.study(), job["digest"], root=found.path.parent, sources=("trial",)
    )
    return training.folder.name


def test_searches_are_compared_at_equal_training_of_full_fidelity(
    found: Found, tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "study.db"
    run_search(study_at(tmp_path, motion, {"search": {"trials": 2, "rungs": [1, 2], "eta": 2}}), other, workers=0)
    assert main(["compare", str(found.path), str(other)]) == 0  # two epochs on everything in both
    assert "best top-1 after 2 epochs, on 16 val clips" in " ".join(capsys.readouterr().out.split())
    assert main(["compare", str(found.path), str(other), "--fidelity", "1"]) == 2
    assert "has no rung of 1 epochs (epochs that it has: 2)" in capsys.readouterr().err
