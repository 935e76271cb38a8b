"""Videos with several labels, from the search to the report: mean average precision decides, and is what is said."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

import nas
from nas.cli.main import main
from nas.search.record import Record
from nas.store.database import Store
from nas.use.probabilities import read_scores
from tests.nas.studies import write_study
from tests.nas.use.conftest import said_json
from tests.nas.use.several import CLASSES, write_several


@dataclass(frozen=True)
class Place:
    """A study of such videos, searched and promoted with two seeds."""

    data: Path
    study: Path
    database: Path
    said: dict[str, Any]
    texts: dict[str, str]

    @property
    def folders(self) -> list[Path]:
        return [Path(training["folder"]) for training in self.said["trainings"]]


def says(*argv: str) -> str:
    """What a command prints on both streams; it must end well."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = main(list(argv))
    assert code == 0, out.getvalue()
    return out.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("several")
    data = write_several(folder / "videos")
    over = {
        "data": {
            "name": "several",
            "root": str(data),
            "cache": str(folder / "cache"),
            "num_classes": len(CLASSES),
            "clip": {"frames": 4, "height": 12, "width": 12},
        },
        "space": {"domains": {"kind": {"values": ["2d", "3d"], "per": "network"}, "kernel": [3]}},
        "search": {"trials": 2, "initial": 2, "rungs": [1, 2], "eta": 2},
        "recipe": {"lr": 0.01, "weight_decay": 0.0, "loss": "bce", "bce_scale": 10.0},
        "promote": {
            "epochs": 4,
            "recipe": {"schedule": "onecycle"},
            "test": {"clips": 2, "crops": 3, "short_sides": [12, 16]},
            "keep_best": True,
            "logs": ["csv"],
        },
    }
    study, database = write_study(folder / "several.yaml", over), folder / "study.db"
    texts = {"search": says("search", str(study), "--db", str(database))}
    texts["promote"] = says("promote", str(database), "--best-under", "1T", "--seeds", "2")
    said = said_json("promote", str(database), "--best-under", "1T", "--seeds", "2", "--json")
    yield Place(data=data, study=study, database=database, said=said, texts=texts)


def test_the_search_goes_by_average_precision(place: Place) -> None:
    store = Store(place.database)
    rows = store.evaluations(1)
    assert len(rows) == 3 and all(row["map_sample"] != row["top1"] for row in rows)
    first, last = [row for row in rows if row["rung"] == 0], rows[-1]
    assert last["number"] == max(first, key=lambda row: (row["map_sample"], -row["macs"]))["number"]
    entries = Record(store, store.study(), ("error", "macs"), (1, 2)).ledger().entries
    decided = [(entry.number, rung, result[0]) for entry in entries for rung, result in enumerate(entry.results)]
    assert sorted(decided) == sorted((row["number"], row["rung"], 1 - row["map_sample"]) for row in rows)
    (front,) = store.front("tiny")
    assert front["accuracy"] == last["map_sample"]
    assert all(epoch["map_sample"] is not None for epoch in store.epochs(rows[0]["trial_id"]))
    import optuna

    storage = optuna.storages.RDBStorage(f"sqlite:///{place.database}")
    study = optuna.load_study(study_name="tiny/rung-1-2-epochs", storage=storage)
    assert [trial.values[0] for trial in study.trials] == [last["map_sample"]]
    storage.remove_session()
    storage.engine.dispose()


def test_the_number_that_decides_is_named_everywhere(place: Place, tmp_path: Path) -> None:
    database, page = str(place.database), tmp_path / "page.html"
    texts = {
        **place.texts,
        **{word: says(word, database) for word in ("status", "pareto", "importance")},
        "watch": says("watch", database, "--once"),
        "export": says("export", database, "--table", "front", "--latex"),
        "plot": says("pareto", database, "--plot", str(tmp_path / "front.html")),
        "report": says("report", database, "-o", str(page)) + page.read_text("utf-8").split("<script>")[0],
    }
    with nas.open(place.database) as study:
        texts["open"] = repr(study) + study._repr_html_()
        assert study.front()["metric"].tolist() == ["mAP"]
    for command, text in texts.items():
        assert "mAP" in text or command == "importance", command
        assert "top-1" not in text.lower(), command
    best = Store(place.database).front("tiny")[0]["accuracy"]
    for command in ("search", "status", "watch", "open"):
        assert f"{best:.3f}" in texts[command], command
    assert f"{100 * best:.1f}" in texts["report"] and f"{100 * best:.1f}" in texts["export"]


def test_no_standard_error_is_made_up_for_average_precision(place: Place, tmp_path: Path) -> None:
    database, page, plot = str(place.database), tmp_path / "page.html", tmp_path / "front.html"
    texts = [place.texts["search"], says("pareto", database, "--plot", str(plot))]
    texts.append(says("export", database, "--table", "front", "--latex"))
    assert all("s.e." not in text and "±" not in text for text in texts)
    drawn = plot.read_text("utf-8")
    assert "mAP on" in drawn and "bars of" not in drawn and 'class="bar"' not in drawn
    says("report", database, "-o", str(page))
    shown = page.read_text("utf-8").split("<script>")[0]
    assert "s.e." not in shown and "standard error" not in shown and 'class="bar"' not in shown
    assert re.findall(r"\d[^<]{0,3}±", re.sub("<table.*?</table>", "", shown.split("Means over seeds")[0])) == []
    with nas.open(place.database) as study:
        assert study.front()[["low", "high"]].isna().all(axis=None)
        assert "±" not in study._repr_html_()


def test_a_promotion_reports_what_scikit_learn_finds_in_its_scores(place: Place) -> None:
    store = Store(place.database)
    for row, folder in zip(store.evaluations(1, purpose="promotion", split="test"), place.folders, strict=True):
        scores = read_scores(folder / "scores-test.npz")
        assert scores.targets is not None
        listed = [line.split() for line in (place.data / "test.txt").read_text("utf-8").splitlines()]
        expected = {path: {int(label) for label in labels.split(",")} for path, _, labels in listed}
        assert {p: set(np.flatnonzero(t)) for p, t in zip(scores.paths, scores.targets, strict=True)} == expected
        for name, average in (("map_sample", "samples"), ("map_class", "macro")):
            wanted = average_precision_score(scores.targets, scores.probabilities, average=average)
            assert row[name] == pytest.approx(wanted, abs=1e-12)
        assert row["low"] < row["map_sample"] < row["high"]
        kept = json.loads((folder / "evaluation.json").read_text("utf-8"))["test"]["map_sample"]
        assert (row["low"], row["high"]) == (kept["low"], kept["high"])
        assert row["views"] == "2x3@12,16"
        assert row["top1"] == np.mean(
            [t[p.argmax()] for p, t in zip(scores.probabilities, scores.targets, strict=True)]
        )
    (line,) = place.said["networks"]
    assert (line["metric"], line["accuracy"]) == (
        "mAP",
        pytest.approx(np.mean([t["map_sample"] for t in trainings(place)])),
    )
    assert line["low"] < line["accuracy"] < line["high"]


def trainings(place: Place) -> list[dict[str, Any]]:
    return list(place.said["trainings"])


def test_a_study_without_a_search_names_it_too(place: Place, tmp_path: Path) -> None:
    database = tmp_path / "study.db"
    network = "{preset: f_r2d_18, depth: 1-1, widths: 8-16, stem: 3x3x3/2}"
    says("promote", str(place.study), network, "--db", str(database), "promote.epochs=1", "--seeds", "1")
    found = nas.open(str(database))
    assert found.metric == "mAP"
    (promotion,) = json.loads(says("status", str(database), "--json"))["promotions"]
    text = says("status", str(database))
    assert "mAP" in text and f"{promotion['accuracy']:.3f}" in text


def test_best_and_last_weights_and_the_log_are_kept(place: Place) -> None:
    for folder in place.folders:
        assert {"best.pt", "last.pt", "progress.csv"} <= {path.name for path in (folder / "training").iterdir()}


def test_an_evaluation_gives_the_promotion_s_number_again(place: Place) -> None:
    result = said_json("evaluate", str(place.folders[0]), str(place.study), "--split", "test", "--json")
    assert result["map_sample"]["value"] == pytest.approx(trainings(place)[0]["map_sample"], abs=1e-6)
    assert result["map_class"] == pytest.approx(trainings(place)[0]["map_class"], abs=1e-6)
    assert [row["name"] for row in result["classes"]] == list(CLASSES)
    assert all(0 <= row["precision"] <= 1 for row in result["classes"])
    assert result["confusion"] == []
    text = says("evaluate", str(place.folders[0]), str(place.data))
    assert "mAP over videos" in text and "average precision" in text and "confusion" not in text


def test_an_ensemble_stands_beside_its_members(place: Place) -> None:
    text = says("ensemble", *map(str, place.folders))
    assert "mAP" in text and "difference of mAP" in text
    found = said_json("ensemble", *map(str, place.folders), "--json")
    scores = [read_scores(folder / "scores-test.npz") for folder in place.folders]
    mean = np.mean([one.probabilities.astype(np.float64) for one in scores], axis=0).astype(np.float32)
    expected = average_precision_score(scores[0].targets, mean, average="samples")
    assert found["equal"]["map_sample"]["value"] == pytest.approx(expected, abs=1e-6)
    assert sum(one["weight"] for one in found["members"]) == pytest.approx(1)


def test_each_class_has_a_probability_of_its_own(place: Place) -> None:
    network = nas.load(place.folders[0])
    assert network.multi_label
    scores = read_scores(place.folders[0] / "scores-test.npz")
    said = network.predict(place.data / scores.paths[3])
    assert [said[name] for name in CLASSES] == pytest.approx(scores.probabilities[3].tolist(), abs=1e-5)
    assert sum(said.values()) != pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("command", ["features", "probe", "evaluate"])
def test_what_takes_one_label_says_so_in_one_line(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    more = {"features": ["-o", str(tmp_path / "f.npz")], "evaluate": ["--backwards"]}.get(command, [])
    assert main([command, str(place.folders[0]), str(place.data), *more]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(error) == 1 and "one label per video" in error[0]


def test_an_ablation_compares_average_precision_by_seeds(place: Place) -> None:
    base = "ablation.base={family:resnet,depth:'1-1',stem_width:8,stem:1x3x3/2,kind:3d}"
    settings = [base, "ablation.factors={kind:[2d]}", "ablation.seeds=2", "ablation.min_seeds=2", "ablation.epochs=1"]
    text = says("ablate", str(place.study), "--db", str(place.database), *settings, "ablation.control=false")
    assert "differences of val mAP in points" in text and "top-1" not in text
    assert "of new seeds only, since clips are not known" in text
    store = Store(place.database)
    value = {(row["position"], row["pair"]): row["map_sample"] for row in store.arm_runs(1)}
    (effect,) = store.effects(1)
    assert effect["difference"] == pytest.approx(np.mean([value[1, pair] - value[0, pair] for pair in (0, 1)]))
    assert effect["se_clips"] is None
