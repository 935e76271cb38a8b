"""Whole searches on real videos, small ones."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from nas.cli.main import main
from nas.errors import SearchError, StoreError
from nas.search.decide import rules_of
from nas.search.driver import run_search
from nas.search.ledger import Entry, Ledger
from nas.search.record import Record
from nas.search.scheduler import Promote, Start, asha
from nas.store.database import Store
from nas.store.records import EventRow, Row
from nas.study.files import load_study
from nas.study.front import front
from nas.study.objectives import minimised
from nas.study.study import Study
from nas.train.session import News, locked
from search_spaces import codec
from search_spaces.settings import network_of
from tests.nas.studies import content_of, write_study


def study_at(folder: Path, motion: Path, over: dict[str, Any] | None = None) -> Study:
    """The tiny study on the shared videos."""
    places = {"data.root": str(motion), "data.cache": str(motion.parent / "cache")}
    return load_study(write_study(folder / "tiny.yaml", over), [f"{key}='{value}'" for key, value in places.items()])


def results_of(store: Store) -> list[tuple[Any, ...]]:
    """Everything about evaluations that must not depend on how often the search was interrupted."""
    row = store.study()
    return [
        (e["number"], e["digest"], e["rung"], e["epochs"], e["top1"], e["top5"], e["loss"], e["num_clips"])
        for e in store.evaluations(row["id"])
    ]


def replay(
    events: Sequence[EventRow], results: Mapping[tuple[int, int], tuple[float, ...]], strata: Mapping[int, int]
) -> Iterator[tuple[EventRow, Ledger]]:
    """Every event with the ledger before it.

    Args:
        events: Rows of `Store.events`.
        results: Objectives by (trial, rung).
        strata: Stratum by trial.
    """
    ledger = Ledger()
    for event in events:
        number, rung, kind = event["trial"], event["rung"], event["kind"]
        yield event, ledger
        old = ledger[number] if number < len(ledger) else Entry(number=number, stratum=strata[number])
        known = (*old.results, results[number, rung]) if kind == "result" else old.results
        # A pre-empted job still stands for its promotion: it is submitted again before anything is decided.
        running = kind in ("start", "promote", "resume", "preempt")
        ledger = ledger.replace(replace(old, results=known, running=running, failed=kind == "fail"))


def check_promotions(store: Store, study: Study) -> None:
    """Holds every decision against the ledger of its moment."""
    row = store.study()
    evaluations = store.evaluations(row["id"])
    results = {(e["number"], e["rung"]): minimised(e, study.search.objectives) for e in evaluations}
    strata = {t["number"]: t["stratum"] for t in store.trials(row["id"])}
    rules = rules_of(study.search)
    for event, ledger in replay(store.events(row["id"]), results, strata):
        if event["kind"] == "promote":
            assert asha(ledger, rules) == Promote(event["trial"], event["rung"])
        elif event["kind"] == "start":
            assert asha(ledger, rules) == Start()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, motion: Path) -> tuple[Study, Path, list[News]]:
    """A search of nine networks that ran undisturbed."""
    folder = tmp_path_factory.mktemp("finished")
    study = study_at(folder, motion)
    news: list[News] = []
    run_search(study, folder / "study.db", workers=0, listener=news.append)
    return study, folder / "study.db", news


def test_the_rungs_are_those_of_successive_halving(finished: tuple[Study, Path, list[News]]) -> None:
    study, path, _ = finished
    store = Store(path)
    evaluations = store.evaluations(store.study()["id"])
    assert [sum(e["rung"] == rung for e in evaluations) for rung in range(3)] == [9, 3, 1]
    keys = [(e["digest"], e["epochs"], e["seed"]) for e in evaluations]
    assert len(keys) == len(set(keys))
    assert sorted({t["state"] for t in store.trials(store.study()["id"])}) == ["finished", "stopped"]
    check_promotions(store, study)


def test_every_epoch_of_every_network_is_kept(finished: tuple[Study, Path, list[News]]) -> None:
    _, path, _ = finished
    store = Store(path)
    for trial in store.trials(store.study()["id"]):
        reached = [e for e in store.evaluations(store.study()["id"]) if e["trial_id"] == trial["id"]]
        epochs = store.epochs(trial["id"])
        assert [e["epoch"] for e in epochs] == list(range(1, reached[-1]["epochs"] + 1))
        assert epochs[-1]["top1"] == reached[-1]["top1"]


def test_the_front_in_sql_is_the_front(finished: tuple[Study, Path, list[News]]) -> None:
    _, path, _ = finished
    with contextlib.closing(sqlite3.connect(path)) as plain, plain:
        plain.row_factory = sqlite3.Row
        rows = [dict(row) for row in plain.execute("SELECT * FROM pareto_front")]
    plain.close()
    store = Store(path)
    assert rows == [dict(row) for row in store.front("tiny")]
    last = [e for e in store.evaluations(store.study()["id"]) if e["rung"] == 2]
    assert {row["digest"] for row in rows} == {
        last[i]["digest"] for i in front([minimised(e, ["error", "macs"]) for e in last])
    }


def test_optuna_reads_a_study_a_rung_in_the_same_file(finished: tuple[Study, Path, list[News]]) -> None:
    _, path, _ = finished
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    names = sorted(summary.study_name for summary in optuna.get_all_study_summaries(storage))
    assert names == ["tiny/rung-0-1-epochs", "tiny/rung-1-2-epochs", "tiny/rung-2-3-epochs"]
    study = optuna.load_study(study_name=names[0], storage=storage)
    assert {t.state for t in study.trials} == {optuna.trial.TrialState.COMPLETE}
    store = Store(path)
    mine = {
        e["digest"]: (e["top1"], float(e["macs"])) for e in store.evaluations(store.study()["id"]) if e["rung"] == 0
    }
    assert {t.user_attrs["digest"]: tuple(t.values) for t in study.trials} == mine
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PED-ANOVA says which way is better
        assert optuna.importance.get_param_importances(study, target=lambda t: -t.values[0])
    storage.engine.dispose()


def test_optuna_dashboard_lists_the_studies(finished: tuple[Study, Path, list[News]]) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    storage = optuna.storages.RDBStorage(f"sqlite:///{finished[1]}")
    app = dashboard.wsgi(storage)
    body = b"".join(
        app(
            {
                "REQUEST_METHOD": "GET",
                "PATH_INFO": "/api/studies",
                "wsgi.input": None,
                "SERVER_NAME": "localhost",
                "SERVER_PORT": "80",
                "wsgi.url_scheme": "http",
            },
            lambda status, headers, exc_info=None: None,
        )
    )
    assert len(json.loads(body)["study_summaries"]) == 3
    storage.engine.dispose()


def test_a_finished_search_started_again_does_nothing(finished: tuple[Study, Path, list[News]], tmp_path: Path) -> None:
    study, path, _ = finished
    store = Store(path)
    before = results_of(store)
    news: list[News] = []
    run_search(study, path, workers=0, listener=news.append)
    assert results_of(store) == before
    assert not [n for n in news if n.kind in ("start", "promote", "resume", "result")]


def test_the_same_study_gives_the_same_search(
    finished: tuple[Study, Path, list[News]], tmp_path: Path, motion: Path
) -> None:
    study, path, _ = finished
    run_search(study, tmp_path / "study.db", workers=0)
    assert results_of(Store(tmp_path / "study.db")) == results_of(Store(path))


def test_another_program_that_writes_for_seconds_is_waited_for(
    finished: tuple[Study, Path, list[News]], tmp_path: Path, motion: Path
) -> None:
    """As a dashboard does that saves a note: the driver's own tables and Optuna's are written after it."""
    path = tmp_path / "study.db"
    threads: list[threading.Thread] = []

    def hold() -> None:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        began.set()
        time.sleep(2.5)
        other.execute("COMMIT")
        other.close()

    began = threading.Event()

    def listen(news: News) -> None:
        if news.kind in ("start", "result") and len(threads) < 2 and not any(t.is_alive() for t in threads):
            began.clear()
            threads.append(threading.Thread(target=hold))
            threads[-1].start()
            began.wait()

    study = study_at(tmp_path, motion)
    run_search(study, path, workers=0, listener=listen)
    for thread in threads:
        thread.join()
    assert len(threads) == 2
    with Store(path) as store, Store(finished[1]) as other:
        assert results_of(store) == results_of(other)


def test_news_tell_the_progress(finished: tuple[Study, Path, list[News]]) -> None:
    news = finished[2]
    assert [n.kind for n in news if n.kind in ("start", "result", "promote")][:2] == ["start", "result"]
    assert news[-1].done == news[-1].total == 9 * 1 + 3 * 1 + 1 * 1


def test_more_trials_go_on_where_the_search_ended(tmp_path: Path, motion: Path) -> None:
    short = study_at(tmp_path, motion, {"search": {"trials": 3}})
    run_search(short, tmp_path / "study.db", workers=0)
    assert Store(tmp_path / "study.db").trials(1)[0]["state"] in ("stopped", "paused", "finished")
    longer = study_at(tmp_path, motion, {"search": {"trials": 6}})
    assert run_search(longer, tmp_path / "study.db", workers=0).counts[:2] == (6, 2)
    check_promotions(Store(tmp_path / "study.db"), longer)
    assert Store(tmp_path / "study.db").study()["config"]["search"]["trials"] == 6


def test_a_search_stopped_at_any_moment_goes_on_to_the_same_end(
    finished: tuple[Study, Path, list[News]], tmp_path: Path
) -> None:
    study, path, _ = finished
    stops = iter([0, 3, 4, 7, 9])

    def stopper() -> Any:
        left = next(stops, None)
        heard = 0

        def listen(news: News) -> None:
            nonlocal heard
            heard += news.kind in ("start", "promote", "resume", "result")
            if left is not None and heard > left:
                raise KeyboardInterrupt

        return listen

    for _ in range(20):
        try:
            run_search(study, tmp_path / "study.db", workers=0, listener=stopper())
            break
        except KeyboardInterrupt:
            continue
    store = Store(tmp_path / "study.db")
    assert results_of(store) == results_of(Store(path))
    assert store.jobs(1, "preempted")
    check_promotions(store, study)


def test_two_workers_keep_the_rules(tmp_path: Path, motion: Path) -> None:
    study = study_at(tmp_path, motion)
    summary = run_search(study, tmp_path / "study.db", workers=2)
    assert summary.counts == (9, 3, 1)
    check_promotions(Store(tmp_path / "study.db"), study)


def test_a_failure_is_an_outcome_of_its_trial(tmp_path: Path, motion: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nas.train import training as objective
    from trainer.failures import OutOfMemory

    fit = objective.fit
    calls = 0

    def sometimes(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in (2, 6):
            raise OutOfMemory("out of memory in epoch 1: you tried to allocate 7 TB")
        return fit(*args, **kwargs)

    monkeypatch.setattr(objective, "fit", sometimes)
    study = study_at(tmp_path, motion)
    summary = run_search(study, tmp_path / "study.db", workers=0)
    store = Store(tmp_path / "study.db")
    failed = [t for t in store.trials(1) if t["state"] == "failed"]
    assert summary.failed == len(failed) == 2
    assert {t["reason"] for t in failed} == {"out_of_memory"}
    assert "7 TB" in failed[0]["detail"]
    check_promotions(store, study)


def test_a_mistake_that_meets_every_network_ends_the_search(
    tmp_path: Path, motion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas.train import training as objective

    def never(*_args: Any, **_kwargs: Any) -> Any:
        raise TypeError("this cannot work")

    monkeypatch.setattr(objective, "fit", never)
    with pytest.raises(
        SearchError, match="the first 3 networks all failed, the last with error: TypeError: this cannot"
    ):
        run_search(study_at(tmp_path, motion), tmp_path / "study.db", workers=0)
    errors = list((tmp_path / "trials").glob("*/error.txt"))
    assert len(errors) == 3
    assert "Traceback" in errors[0].read_text()


def test_a_full_disk_stops_the_search_and_it_goes_on_later(
    finished: tuple[Study, Path, list[News]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nas.train import training as objective
    from trainer.failures import DiskFull

    study, path, _ = finished
    fit = objective.fit
    calls = 0

    def full(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise DiskFull("no space left to write last.pt")
        return fit(*args, **kwargs)

    monkeypatch.setattr(objective, "fit", full)
    with pytest.raises(SearchError, match=r"the disk is full: no space left to write last\.pt; free some room"):
        run_search(study, tmp_path / "study.db", workers=0)
    run_search(study, tmp_path / "study.db", workers=0)
    assert results_of(Store(tmp_path / "study.db")) == results_of(Store(path))


def test_a_search_whose_names_meant_other_networks_can_be_read_and_is_not_mixed(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record of when `p3d_b` was the port's block, which is called `p3d_b_port` now."""

    def kinds(name: str) -> dict[str, Any]:
        domains = {"kind": {"values": ["2d", name], "per": "network"}, "kernel": [3]}
        return {"space": {"domains": domains}, "search": {"trials": 2, "initial": 2, "rungs": [1]}}

    path = tmp_path / "study.db"
    run_search(study_at(tmp_path, motion, kinds("p3d_b_port")), path, workers=0)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for table, column in (("study", "config"), ("trial", "params")):
            connection.execute(f"UPDATE nas_{table} SET {column} = replace({column}, 'p3d_b_port', 'p3d_b')")
    before, study = content_of(path), study_at(tmp_path, motion, kinds("p3d_b"))
    with pytest.raises(StoreError, match=r"temporal\.kind p3d_b_port, and p3d_b now\), so results would be mixed"):
        run_search(study, path, workers=0)
    assert content_of(path) == before
    for command in (["status", str(path)], ["pareto", str(path)], ["status", str(path), "--trials"]):
        assert main(command) == 0
    assert "p3d_b_port.3" in capsys.readouterr().out
    digest = next(t["digest"] for t in Store(path).trials(1) if t["params"]["kind"] == "p3d_b")
    (tmp_path / "spec.json").write_text(json.dumps(Store(path).find(digest)["spec"]))
    assert main(["show", str(tmp_path / "spec.json")]) == 0
    shown = capsys.readouterr().out
    assert digest in shown and "p3d_b_port" in shown


def test_a_named_network_stays_the_one_of_the_record(
    tmp_path: Path, motion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A preset may come to mean another network; a search that has tried the earlier one goes on as before."""
    path, tried = tmp_path / "study.db", []
    small = {"depth": "1-1", "stem_width": 8, "stem": "1x3x3/2", "width": 0.5}
    for trials, kind in ((3, "3d"), (5, "2plus1d"), (5, "3d")):
        spec = network_of("resnet", {**small, "kind": kind})
        monkeypatch.setattr("nas.search.pool.presets.preset", lambda name, frames, spec=spec: spec)
        over = {"search": {"trials": trials, "initial": 2, "rungs": [1], "start_with": ["r3d_18"]}}
        run_search(study_at(tmp_path, motion, over), path, workers=0)
        tried.append([(t["digest"], t["origin"]) for t in Store(path).trials(1)])
    assert [len(rows) for rows in tried] == [3, 5, 5]
    assert [origin for _, origin in tried[-1]].count("named") == 1
    assert tried[-1][0] == (codec.digest(spec), "named")
    assert tried[1][:3] == tried[0]


def test_a_changed_study_is_refused_and_nothing_is_harmed(finished: tuple[Study, Path, list[News]]) -> None:
    study, path, _ = finished
    before = content_of(path)
    other = load_study(
        path.parent / "tiny.yaml",
        ["recipe.lr=0.5", f"data.root='{study.data.root}'", f"data.cache='{study.data.cache}'"],
    )
    with pytest.raises(StoreError, match=r"was made with recipe\.lr=0\.003, but the study now says 0\.5"):
        run_search(other, path, workers=0)
    named = load_study(
        path.parent / "tiny.yaml",
        ["name=other", f"data.root='{study.data.root}'", f"data.cache='{study.data.cache}'"],
    )
    with pytest.raises(StoreError, match="holds the study tiny, not other"):
        run_search(named, path, workers=0)
    assert content_of(path) == before


def test_two_drivers_are_refused(finished: tuple[Study, Path, list[News]]) -> None:
    study, path, _ = finished
    with locked(path), pytest.raises(StoreError, match="one driver at a time"):
        run_search(study, path, workers=0)


def test_missing_data_is_said_in_one_line(tmp_path: Path, motion: Path) -> None:
    study = load_study(write_study(tmp_path / "tiny.yaml"), ["data.root=''"])
    with pytest.raises(Exception, match=r"data\.root is empty, so the videos of motion are missing"):
        run_search(study, tmp_path / "study.db", workers=0)
    classes = study_at(tmp_path, motion, {"data": {"num_classes": 5}})
    with pytest.raises(SearchError, match=r"data\.num_classes is 5, but .* has 8 classes"):
        run_search(classes, tmp_path / "study.db", workers=0)


@pytest.mark.parametrize("objectives", [["error"], ["error", "macs", "params"]])
def test_other_objectives(tmp_path: Path, motion: Path, objectives: list[str]) -> None:
    study = study_at(tmp_path, motion, {"search": {"objectives": objectives, "sampler": "tpe"}})
    assert run_search(study, tmp_path / "study.db", workers=0).counts == (9, 3, 1)
    check_promotions(Store(tmp_path / "study.db"), study)


@pytest.mark.parametrize("sampler", ["nni:Evolution", "optuna:NSGAIISampler"])
def test_a_sampler_of_another_package_searches(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str], sampler: str
) -> None:
    pytest.importorskip(sampler.partition(":")[0])
    places = [f"data.root='{motion}'", f"data.cache='{motion.parent / 'cache'}'"]
    study, db = write_study(tmp_path / "tiny.yaml"), str(tmp_path / "study.db")
    assert main(["search", str(study), *places, f"search.sampler={sampler}", "--workers", "1", "--db", db]) == 0
    assert "Pareto front after" in capsys.readouterr().out
    with Store(tmp_path / "study.db") as store:
        row = store.study()
        origins = [trial["origin"] for trial in store.trials(row["id"])]
        reached = [e["rung"] for e in store.evaluations(row["id"])]
    assert [reached.count(rung) for rung in range(3)] == [9, 3, 1]
    assert origins[:3] == ["initial"] * 3
    assert {origin.removesuffix(", nearest") for origin in origins[3:]} == {sampler}


def test_a_small_space_ends_before_the_budget(tmp_path: Path, motion: Path) -> None:
    study = study_at(tmp_path, motion, {"space": {"domains": {"kind": ["2d", "3d"], "kernel": [3]}}})
    summary = run_search(study, tmp_path / "study.db", workers=0)
    assert summary.exhausted
    assert summary.counts[0] == 2


def test_the_ledger_says_what_the_database_says(finished: tuple[Study, Path, list[News]]) -> None:
    study, path, _ = finished
    store = Store(path)
    row: Row = store.study()
    ledger = Record(store, row, study.search.objectives, study.search.rungs).ledger()
    assert ledger.counts(3) == (9, 3, 1)
    assert ledger.num_running == 0


def test_a_network_that_kills_every_worker_is_given_up(
    tmp_path: Path, motion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from concurrent.futures import Future

    from nas.train import crew
    from nas.train.executors import InProcess, WorkerLost
    from nas.train.jobs import MAX_TRIES

    class Deadly(InProcess):
        """Trains like InProcess, but whoever trains trial 1 dies."""

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            if "/00001-" not in args[0].folder:
                return super().submit(fn, *args, **kwargs)
            future: Future[Any] = Future()
            future.set_exception(WorkerLost("worker 0 died"))
            return future

    monkeypatch.setattr(crew, "executor", lambda workers: Deadly())
    study = study_at(tmp_path, motion)
    summary = run_search(study, tmp_path / "study.db", workers=0)
    store = Store(tmp_path / "study.db")
    assert summary.counts == (8, 2, 0)
    assert [t["number"] for t in store.trials(1) if t["reason"] == "worker_died"] == [1]
    assert len(store.jobs(1, "preempted")) == MAX_TRIES
    check_promotions(store, study)
