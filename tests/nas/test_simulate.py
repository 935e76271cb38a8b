"""Searches on recorded trainings: the decisions of a real search, and what is wrong with a table in one line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from nas.cli.main import main
from nas.config import load_study
from nas.errors import SearchError
from nas.search import recorded
from nas.search.driver import run_search
from nas.search.recorded import Curve, Table, read_curves, simulate, write_curves
from nas.store import Store
from nas.study import Study
from tests.nas.studies import write_study

MODEL = {"sampler": "pool", "scheduler": "freeze_thaw", "initial": 4, "trials": 16}


def study_at(folder: Path, motion: Path, search: dict[str, Any] | None = None) -> Study:
    """The tiny study on the shared videos."""
    places = [f"data.root='{motion}'", f"data.cache='{motion.parent / 'cache'}'"]
    return load_study(write_study(folder / "tiny.yaml", {"search": search or {}}), places)


def made_up(study: Study, seeds: int = 2, epochs: int = 3, without: int = 0) -> list[Curve]:
    """Curves that hang on the digest, some of them left out."""
    from nas.search.pool import build_pool

    pool = build_pool(study, num_classes=8).candidates
    return [
        Curve(
            digest=one.digest,
            seed=seed,
            top1=tuple(round((int(one.digest[:4], 16) % 40 + 10 * epoch + seed) / 80, 6) for epoch in range(epochs)),
            loss=(1.0,) * epochs,
            seconds=(0.5 + i % 3,) * epochs,
            videos=80,
        )
        for i, one in enumerate(pool[without:])
        for seed in range(seeds)
    ]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, motion: Path) -> Path:
    """Every network of the tiny space, trained in full and recorded by the command."""
    folder = tmp_path_factory.mktemp("table")
    study = study_at(folder, motion, {"scheduler": "none", "trials": 100})
    run_search(study, folder / "study.db", workers=0)
    assert main(["record", str(folder / "study.db"), "-o", str(folder / "table.jsonl.gz")]) == 0
    return folder / "table.jsonl.gz"


@pytest.mark.parametrize("search", [{"trials": 12}, MODEL, {"sampler": "tpe", "scheduler": "hyperband", "trials": 12}])
def test_a_search_on_a_table_takes_the_decisions_of_a_real_one(
    tmp_path: Path, motion: Path, table: Path, search: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_at(tmp_path, motion, search)
    run_search(study, tmp_path / "study.db", workers=0)
    with Store(tmp_path / "study.db") as store:
        digests = {row["number"]: row["digest"] for row in store.trials(1)}
        real = [(e["kind"], digests[e["trial"]], e["rung"]) for e in store.events(1)]
    events: list[tuple[str, str, int]] = []

    class Watched(Store):
        def close(self) -> None:
            known = {row["number"]: row["digest"] for row in self.trials(1)}
            events.extend((e["kind"], known[e["trial"]], e["rung"]) for e in self.events(1))
            super().close()

    monkeypatch.setattr(recorded, "Store", Watched)
    found = simulate(Table(study, read_curves(table)), seed=study.seed, workers=1)
    assert events == real
    assert found.epochs == sum(study.search.rungs[rung] - (rung and study.search.rungs[rung - 1])
                               for kind, _, rung in real if kind == "result")  # fmt: skip


def test_time_is_that_of_the_table_and_workers_share_it(tmp_path: Path, motion: Path) -> None:
    study = study_at(tmp_path, motion, {"trials": 12})
    table = Table(study, made_up(study))
    one, four = (simulate(table, seed=0, workers=workers) for workers in (1, 4))
    assert one.epochs == four.epochs == 12 + 4 + 1
    assert one.seconds / 4 <= four.seconds < one.seconds
    again = simulate(table, seed=0, workers=4)
    assert again == four


def test_a_search_of_everything_finds_the_front(tmp_path: Path, motion: Path) -> None:
    study = study_at(tmp_path, motion, {"trials": 100, "scheduler": "none"})
    table = Table(study, made_up(study))
    found = simulate(table, seed=0, workers=3)
    assert found.networks == len(table.pool.candidates)
    assert found.gap == pytest.approx(0.0, abs=1e-9)
    assert [gap for _, gap in found.curve] == sorted((gap for _, gap in found.curve), reverse=True)


def test_files_are_read_as_they_were_written(tmp_path: Path, motion: Path) -> None:
    curves = made_up(study_at(tmp_path, motion))
    for name in ("table.jsonl", "table.jsonl.gz"):
        write_curves(reversed(curves), tmp_path / name)
        assert read_curves(tmp_path / name) == sorted(curves, key=lambda curve: (curve.digest, curve.seed))
    first = (tmp_path / "table.jsonl.gz").read_bytes()
    write_curves(curves, tmp_path / "table.jsonl.gz")
    assert (tmp_path / "table.jsonl.gz").read_bytes() == first


def test_the_command_prints_a_line_for_each_seed(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_at(tmp_path, motion)
    write_curves(made_up(study), tmp_path / "table.jsonl")
    command = ["simulate", str(tmp_path / "tiny.yaml"), "--table", str(tmp_path / "table.jsonl"), "--seeds", "2"]
    assert main([*command, "--scheduler", "iepoch"]) == 0
    text = capsys.readouterr().out
    assert "random, iepoch" in text
    assert "median" in text
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["seed"] for row in rows] == [3, 4]
    assert all(row["counts"][0] == 9 for row in rows)


GOOD = '{"digest":"a","seed":0,"top1":[0.5],"loss":[1.0],"seconds":[1.0]}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold a curve, but is empty"),
        (f"{GOOD}\n[1]", r"line 2 of .*table.jsonl must be an object with digest, seed and lists .* but is '\[1\]'"),
        (GOOD.replace("0.5", "NaN"), "line 1"),
        (GOOD.replace("0.5", "1.5"), "line 1"),
        (GOOD.replace("[1.0]", "[1.0, 2.0]", 1), "line 1"),
        (GOOD.replace('"seed":0', '"seed":true'), "line 1"),
        ("[" * 100_000, "line 1"),
    ],
)
def test_a_table_that_is_none_gets_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "table.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SearchError, match=message) as caught:
        read_curves(path)
    assert len(str(caught.value)) < 500


def test_a_table_that_is_cut_off_gets_one_line(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD.encode())[:-4])
    with pytest.raises(SearchError, match=r"the table .*table.jsonl.gz cannot be read"):
        read_curves(path)
    with pytest.raises(SearchError, match="cannot be read"):
        read_curves(tmp_path / "none.jsonl")


def test_a_table_must_have_every_network_and_epoch_of_the_space(tmp_path: Path, motion: Path) -> None:
    study = study_at(tmp_path, motion)
    with pytest.raises(SearchError, match=r"the table lacks [0-9a-f]{10} .* of \d+ networks of the space"):
        Table(study, made_up(study, without=1))
    with pytest.raises(SearchError, match="must end at most after the 2 epochs that the table has"):
        Table(study, made_up(study, epochs=2))


def test_a_search_that_is_not_over_is_recorded_as_far_as_it_got(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_at(tmp_path, motion)
    run_search(study, tmp_path / "study.db", workers=0)
    assert main(["record", str(tmp_path / "study.db"), "-o", str(tmp_path / "table.jsonl")]) == 0
    assert "1 networks to 3 epochs" in capsys.readouterr().out
    (curve,) = read_curves(tmp_path / "table.jsonl")
    assert len(curve.top1) == 3
