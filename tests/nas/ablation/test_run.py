"""Ablations that really train: paired, recorded, gone on with, and shown the same way everywhere."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nas.ablation.answer import results_of
from nas.ablation.config import ablation_of
from nas.ablation.designs import OWN_LEVEL
from nas.ablation.plan import Searched, completed, config_of, prepared
from nas.cli.main import main
from nas.errors import StudyError
from nas.store import tables
from nas.store.database import Store
from nas.store.write import insert
from nas.study.files import load_study
from nas.train.jobs import TrainJob
from nas.train.training import first_network
from search_spaces import codec
from search_spaces.catalogue import FAMILIES as CATALOGUE
from search_spaces.settings import network_of
from tests.nas.ablation.plans import LOOKUP
from tests.nas.studies import TINY, content_of, merged, write_study
from trainer.config import Clip, DataConfig
from trainer.recipe import Recipe

ROOT = Path(__file__).parents[3]
BASE = {"family": "resnet", "depth": "1-1", "stem_width": 8, "stem": "1x3x3/2", "kind": "3d"}
ABLATION: dict[str, Any] = {
    "ablation": {"base": BASE, "factors": {"kind": ["2d", "p3d_a"]}, "seeds": 2, "min_seeds": 2, "epochs": 2}
}


def study(folder: Path, motion: Path, over: dict[str, Any] | None = None) -> tuple[str, str]:
    """A study file with an ablation on the tiny motion data, and where its database will be."""
    file = write_study(folder / "tiny.yaml", merged(merged(ABLATION, {"data": {"root": str(motion)}}), over or {}))
    return str(file), str(folder / "study.db")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command prints; it has to succeed."""
    capsys.readouterr()
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def test_an_ablation_ends_with_effects_that_the_database_and_the_command_agree_on(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file, db = study(tmp_path, motion)
    shown = json.loads(run(capsys, "ablate", file, "--db", db, "--workers", "0", "--json"))
    assert shown["state"] == "done"
    assert [(e["factor"], e["level"], e["pairs"]) for e in shown["effects"]] == [
        ("kind", "2d", 2),
        ("kind", "p3d_a", 2),
        ("A/A", "base, other seeds", 2),
    ]
    with contextlib.closing(sqlite3.connect(db)) as plain, plain:
        columns = "factor, level, difference, low, high, p_holm, word"
        rows = plain.execute(f"SELECT {columns} FROM ablation_effects").fetchall()
    plain.close()
    assert rows == [tuple(e[name.strip()] for name in columns.split(",")) for e in shown["effects"]]

    store = Store(db)
    runs = store.runs(store.study()["id"])
    assert [r["state"] for r in runs] == ["done"] * 8 and all(len(r["correct"]) == 16 for r in runs)
    for r in runs:
        assert r["correct"].count("1") / 16 == pytest.approx(r["top1"])
    arms = {(r["position"], r["pair"]): r for r in store.arm_runs(store.ablations(1)[0]["id"])}
    assert len(arms) == 8
    first = arms[1, 0]["top1"] - arms[0, 0]["top1"], arms[1, 1]["top1"] - arms[0, 1]["top1"]
    assert shown["effects"][0]["difference"] == pytest.approx(sum(first) / 2)
    store.close()

    # asked again, nothing is trained: the same effects come from the record
    again = json.loads(run(capsys, "ablate", file, "--db", db, "--workers", "0", "--json"))
    assert again["effects"] == [{**e, "id": a["id"]} for e, a in zip(shown["effects"], again["effects"], strict=True)]
    store = Store(db)
    assert [r["ended_at"] for r in store.runs(1)] == [r["ended_at"] for r in runs]
    store.close()

    # a training that had all its epochs when the driver was killed is one of the record
    store = Store(db, create=True)
    with store.write() as connection:
        connection.execute(tables.run.update().where(tables.run.c.id == 3).values(state="preempted"))
    store.close()
    assert "trainings: 0 now, 8 from the record, 0 failed" in run(capsys, "ablate", file, "--db", db, "--workers", "0")

    # one pair more is another question, and trains that pair alone
    text = run(capsys, "ablate", file, "ablation.seeds=3", "--db", db, "--workers", "0")
    assert "trainings: 4 now, 8 from the record, 0 failed" in text


def test_the_plan_is_shown_with_its_cost_and_trains_nothing(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file, db = study(tmp_path, motion, {"ablation": {"factors": {"kind": ["2d", "3d", "p3d_a"]}}})
    text = run(capsys, "ablate", file, "--db", db, "--dry-run")
    assert "dropped: kind=3d: it is the base's own level" in text
    assert "plan: 4 arms x 2 seeds = 8 trainings of 2 epochs; 0 are recorded, 16 epochs are left" in text
    assert not Path(db).exists()


def test_a_schedule_of_the_ablation_ends_with_its_trainings(tmp_path: Path, motion: Path) -> None:
    def recipe(*over: str) -> Recipe:
        file, _ = study(tmp_path, motion)
        read = load_study(file, list(over))
        plan = prepared(read, config_of(read, file), lookup=LOOKUP, num_classes=8, checksum="")
        return plan.trainings[0].job.recipe

    assert recipe() == recipe("ablation.recipe={schedule: anytime}")
    ending = recipe("ablation.recipe={schedule: onecycle, lr: 0.1}")
    assert (ending.schedule, ending.epochs, ending.lr) == ("onecycle", 2, 0.1)
    with pytest.raises(StudyError, match=r"ablation\.recipe key 'lrr'.*did you mean lr"):
        recipe("ablation.recipe={lrr: 0.1}")
    with pytest.raises(StudyError, match=r"recipe\.lr must be above 0"):
        recipe("ablation.recipe={lr: -1}")


# Of each family, a small network and factors that reach its own kinds of units.
FAMILIES: dict[str, tuple[dict[str, Any], dict[str, list[Any]]]] = {
    "resnet": ({"depth": "b1-1", "stem_width": 8, "head": "avg_max"}, {"attention": ["se", "gate", "nonlocal"]}),
    "inception_v1": ({"width": 0.125, "kind": "p3d_a"}, {"kind": ["3d"], "attention": ["gate"]}),
    "inception_v3": ({"width": 0.125, "stem_padding": "same", "reduction_padding": "same"}, {"aux": [False]}),
    "slowfast": ({"depth": "1-1", "width": 0.25}, {"fusion": ["sample", "time_to_channel", "none"]}),
    "x3d": ({"depth": "1-1", "width": 0.5}, {"attention": ["none", "nonlocal"], "kind": ["2plus1d"]}),
    "c3d": ({"width": 0.0625}, {"kind": ["2d"], "norm": ["batch"]}),
    "timm": ({"model": "mobilenetv3_small_050"}, {"shift": ["tsm"], "kind": ["3d"], "head": ["conv"]}),
}


def without_torch(folder: Path, commands: list[list[str]], *, check: bool = True, **environment: str) -> str:
    """What commands print in one process of their own, which has to do without torch if that is to be checked."""
    code = (
        "import sys; from nas.cli.main import main\n"
        f"assert [main(words) for words in {commands!r}] == [0] * {len(commands)}\n"
        f"assert not {check} or not {{'torch', 'timm'}} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_planning_imports_no_torch_whatever_the_family(tmp_path: Path, motion: Path) -> None:
    assert set(FAMILIES) == set(CATALOGUE)
    commands = []
    for family, (base, factors) in FAMILIES.items():
        ablation = {**ABLATION["ablation"], "base": {"family": family, **base}, "factors": factors, "match": "none"}
        data = {"root": str(motion), "short_side": 32, "clip": {"frames": 16, "height": 32, "width": 32}}
        over = {"data": data, "ablation": ablation}
        file = write_study(tmp_path / f"{family}.yaml", merged(TINY, over))
        commands.append(["ablate", str(file), "--dry-run"])
    # timm is asked once.
    without_torch(tmp_path, commands[-1:], check=False)
    text = without_torch(tmp_path, commands)
    assert text.count("plan: ") == len(FAMILIES) and "dropped" not in text


def test_plans_of_the_studies_import_no_torch(tmp_path: Path) -> None:
    commands = []
    for path in sorted((Path(__file__).parents[3] / "studies").glob("*.yaml")):
        stated = yaml.safe_load(path.read_text(encoding="utf-8"))
        commands += [
            ["ablate", str(path), f"data={name}", "--dry-run"]
            for name in stated.get("variants", {})
            if "base" in stated.get("ablation", {})
        ]
    assert len(commands) >= 13
    first = without_torch(tmp_path, commands, check=False, NAS_DATA=str(tmp_path))
    assert without_torch(tmp_path, commands, NAS_DATA=str(tmp_path)) == first


def test_verdicts_and_the_plan_of_a_comparison_import_no_torch(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    claims = [{"claim": "2d is worse", "document": "nobody", "arm": "kind=2d", "expect": "worse"}]
    over = {"ablation": {"factors": {"kind": ["2d"]}, "control": False, "epochs": 1, "claims": claims}}
    file, db = study(tmp_path, motion, over)
    run(capsys, "ablate", file, "--db", db, "--workers", "0", "--json")
    commands = [
        ["ablate", file, "--db", db, "--dry-run"],
        ["verdict", file, "--db", db],
        ["versus", "r3d_18", "x3d_xs", "--study", file, "--dry-run"],
    ]
    without_torch(tmp_path, commands)


def job(kind: str, *, seed: int = 0, base: str = "3d") -> TrainJob:
    """A job of the base with another kind, paired with the base."""
    clip = Clip(frames=4, height=16, width=16, stride=1)
    data = DataConfig(name="m", root="r", cache="c", clip=clip, short_side=16)
    settings = {key: value for key, value in BASE.items() if key != "family"}
    spec, other = (codec.dumps(network_of("resnet", {**settings, "kind": k})) for k in (kind, base))
    return TrainJob(
        spec=spec,
        num_classes=8,
        data=data,
        recipe=Recipe(),
        seed=seed,
        folder="",
        until_epoch=1,
        paired_with="" if kind == base else other,
    )


def test_paired_networks_begin_with_equal_values_where_shapes_agree() -> None:
    base, other = (first_network(job(kind)).state_dict() for kind in ("3d", "2d"))
    shared = [name for name in base if name in other and base[name].shape == other[name].shape]
    drawn = [name for name in shared if base[name].dtype.is_floating_point and base[name].unique().numel() > 1]
    assert any("head" in name or "fc" in name for name in drawn) and len(drawn) >= 3
    assert all(torch.equal(base[name], other[name]) for name in shared)
    alone = first_network(dataclasses.replace(job("2d"), paired_with="")).state_dict()
    assert any(not torch.equal(alone[name], other[name]) for name in drawn)


SEARCHED = {"search": {"trials": 3, "initial": 3, "rungs": [1, 2], "eta": 2}}


@pytest.mark.parametrize("command", ["ablate", "versus"])
def test_the_training_that_selected_a_network_is_no_evidence_for_it(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    file, db = study(tmp_path, motion, SEARCHED)
    run(capsys, "search", file, "--db", db, "--workers", "0", "--json")
    store = Store(db)
    digest, other = (row["digest"] for row in store.trials(1)[:2])
    assert {row["seed"] for row in store.trials(1)} == {3}
    store.close()
    asked = {
        "ablate": ["ablate", file, "ablation.factors={kernel:[3,5]}", "--base", digest],
        "versus": ["versus", digest, other, "--study", file, "--seeds", "2", "--epochs", "2"],
    }[command]
    said = f"seeds 4 to 5, which the search did not have for {digest[:10]}"
    plan = run(capsys, *asked, "--db", db, "--dry-run")
    assert said in " ".join(plan.split()) and "0 are recorded" in plan
    text = run(capsys, *asked, "--db", db, "--workers", "0")
    store = Store(db)
    runs = store.runs(1)
    assert {row["seed"] for row in runs} - {3, 1_000_003} and not {row["seed"] for row in runs} & {3}
    of_trials = {path.name.partition("-")[2] for path in (tmp_path / "trials").iterdir()}
    assert len(of_trials) == 3 and not of_trials & {row["key"] for row in runs}
    assert f"trainings: {len(runs)} now, 0 from the record, 0 failed" in text
    # a network that no search has trained keeps the seeds that its recorded ablations have
    store.close()
    named = run(capsys, "versus", "r3d_18", "mc3_18", "--study", file, "--db", db, "--dry-run")
    assert "no evidence" not in named


def test_runs_of_earlier_versions_that_selected_a_network_are_left_out_of_answers_and_verdicts(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    claims = [{"claim": "2d is worse", "document": "nobody", "arm": "kind=2d", "expect": "worse"}]
    over = {"ablation": {"factors": {"kind": ["2d"]}, "control": False, "epochs": 1, "claims": claims}}
    file, db = study(tmp_path, motion, over)
    run(capsys, "ablate", file, "--db", db, "--workers", "0", "--json")
    before = json.loads(run(capsys, "verdict", file, "--db", db, "--json"))["verdicts"]
    assert before[0]["pairs"] == 2
    store = Store(db, create=True)
    base = store.arms(1)[0]["digest"]
    with store.write() as connection:  # as if a search had tried the base, with the seed of pair 0
        values = {"number": 0, "digest": base, "seed": 3, "stratum": 0, "params": {}, "origin": "x", "state": "paused"}
        insert(connection, tables.trial, study_id=1, **values)
    found = results_of(store, 1)
    store.close()
    assert sorted(found[0]) == [1] and sorted(found[1]) == [0, 1]
    text = run(capsys, "verdict", file, "--db", db)
    assert "1 training of the search is left out" in " ".join(text.split())
    assert json.loads(run(capsys, "verdict", file, "--db", db, "--json"))["verdicts"][0]["pairs"] == 1


def test_every_network_of_a_search_can_be_ablated_by_the_settings_that_it_was_found_with() -> None:
    study = load_study(ROOT / "studies" / "kinetics_small.yaml", ["data=motion"])
    rng = random.Random(0)
    for _ in range(13):
        point = study.space.random(rng)
        params = dict(point.params)
        searched = Searched(trials={point.digest: {"digest": point.digest, "params": params, "seed": 0}})
        named = point.spec, searched.settings(study, point.spec)
        assert named[1] is not None

        def look(name: str, named: Any = named) -> Any:
            return named

        stated = completed(study, ablation_of({"base": point.digest}, last_rung=2, where="test"), look)
        plan = prepared(study, stated, lookup=look, num_classes=8, checksum="", searched=searched)
        own = {drop.factor: drop.level for drop in plan.arms.dropped if drop.reason == OWN_LEVEL}
        for name, value in params.items():
            domain = name.removeprefix(f"{point.spec.family}.").partition("[")[0]
            if domain in {factor.path for factor in stated.factors}:
                assert own[domain] == str(value)  # such as width 0.5, which is not the base's 1.0
        assert not any("settings" in drop.reason for drop in plan.arms.dropped)
        assert len(plan.arms.arms) >= 7


def test_an_empty_database_of_a_killed_driver_is_begun(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file, db = study(tmp_path, motion, {"ablation": {"control": False, "epochs": 1, "factors": {"kind": ["2d"]}}})
    Path(db).touch()
    assert "trainings: 4 now, 0 from the record" in run(capsys, "ablate", file, "--db", db, "--workers", "0")


def test_an_ablation_of_which_every_level_is_dropped_is_an_error_in_one_line(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file, db = study(tmp_path, motion)
    for factors in ("{kind:[t1x1_first,t1x1_all]}", "{kind:[3d]}", "{stem:[9x9x9/9],kind:[3d]}"):
        for dry in (["--dry-run"], ["--workers", "0"]):
            assert main(["ablate", file, f"ablation.factors={factors}", "--db", db, *dry]) == 2
            message = capsys.readouterr().err.strip().splitlines()[-1]
            assert "needs a level to compare with its base" in message and len(message) <= 500
    assert not Path(db).exists() or not Store(db).ablations(1)


def test_an_ablation_measures_motion_if_asked(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    over = {"ablation": {"factors": {"kind": ["2d"]}, "control": False, "motion": True, "epochs": 1}}
    file, db = study(tmp_path, motion, over)
    run(capsys, "ablate", file, "--db", db, "--workers", "0", "--json")
    with contextlib.closing(sqlite3.connect(db)) as plain, plain:
        rows = plain.execute("SELECT forward, reversed, single FROM motion_tests ORDER BY description, seed").fetchall()
        top1 = plain.execute("SELECT top1 FROM nas_run ORDER BY id").fetchall()
    plain.close()
    assert len(rows) == 4 and {(row[0],) for row in rows} <= set(top1)
    assert all(row[0] == row[1] for row in rows[:2])  # two runs of the network without time


def test_versus_says_in_one_sentence_which_network_is_better(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file, db = study(tmp_path, motion)
    for kind in ("2d", "3d", "p3d_a"):
        settings = {key: value for key, value in BASE.items() if key != "family"}
        (tmp_path / f"{kind}.json").write_text(codec.dumps(network_of("resnet", {**settings, "kind": kind})))
    arguments = ["--study", file, "--seeds", "2", "--epochs", "1", "--db", db, "--workers", "0", "--json"]
    two = json.loads(run(capsys, "versus", "2d.json", "3d.json", *arguments))
    assert len(two["effects"]) == 1 and "times its MACs" in two["sentence"]
    text = run(capsys, "versus", "2d.json", "3d.json", *arguments[:-1])
    assert text.count("3d.json against 2d.json is undecided") + text.count("3d.json is ") == 1  # the answer, once
    assert "trainings: 0 now, 4 from the record" in text and "in points, intervals of 95 %" in " ".join(text.split())
    three = json.loads(run(capsys, "versus", "2d.json", "3d.json", "p3d_a.json", *arguments))
    assert len(three["effects"]) == 3
    assert three["sentence"].startswith(
        ("undecided: none is better than all others", "2d.json is", "3d.json is", "p3d")
    )
    assert main(["versus", "2d.json", "--study", file]) == 2


def test_verdicts_hold_claims_against_the_runs(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    claims = [
        {"claim": "2d is worse", "document": "nobody", "arm": "kind=2d", "expect": "worse", "stated": -3},
        {"claim": "p3d_a is level with 2d", "document": "nobody", "arm": "kind=p3d_a", "than": "kind=2d"},
    ]
    file, db = study(tmp_path, motion, {"ablation": {"claims": claims}})
    assert main(["verdict", file, "--db", db]) == 2
    run(capsys, "ablate", file, "--db", db, "--workers", "0", "--json")
    shown = json.loads(run(capsys, "verdict", file, "--db", db, "--json"))
    assert [v["word"] for v in shown["verdicts"]] == ["undecided", "undecided"]  # two pairs of 16 clips decide nothing
    assert shown["verdicts"][0]["stated"] == "-3.0" and shown["verdicts"][0]["pairs"] == 2
    with contextlib.closing(sqlite3.connect(db)) as plain, plain:
        assert plain.execute("SELECT COUNT(*) FROM nas_verdict").fetchone() == (2,)
    plain.close()
    capsys.readouterr()
    # The rule is the one that was decided beforehand, whatever the study says after the results are in.
    later = {"claims": claims, "confidence": 0.5, "margin": 0.2, "seeds": 9}
    file, _ = study(tmp_path, motion, {"ablation": later})
    again = json.loads(run(capsys, "verdict", file, "--db", db, "--json"))
    assert again["verdicts"] == shown["verdicts"] and again["confidence"] == shown["confidence"] == pytest.approx(0.95)
    assert shown["differs"] == {}
    assert {name: values["now"] for name, values in again["differs"].items()} == {
        "seeds": 9,
        "confidence": 0.5,
        "margin": 0.2,
    }
    text = " ".join(run(capsys, "verdict", file, "--db", db).split())
    assert "was begun with other settings, which count here: seeds 2, now 9, confidence 0.95, now 0.5" in text
    assert main(["report", db, "-o", "page.html"]) == 0
    assert "in points of top-1; intervals of 95 %." in Path("page.html").read_text("utf-8")
    with contextlib.closing(sqlite3.connect(db)) as edited, edited:
        edited.execute("UPDATE nas_ablation SET design = json_set(design, '$.confidence', 7)")
    edited.close()
    capsys.readouterr()
    assert main(["verdict", file, "--db", db]) == 2
    assert "is damaged: the design of the ablation ofat-" in capsys.readouterr().err
    with contextlib.closing(sqlite3.connect(db)) as edited, edited:
        edited.execute("UPDATE nas_ablation SET design = json_set(design, '$.confidence', 0.95)")
    edited.close()
    file, _ = study(tmp_path, motion, {"ablation": {"claims": [{**claims[0], "arm": "kind=2dd"}]}})
    assert main(["verdict", file, "--db", db]) == 2
    assert "did you mean kind=2d" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_ablation_goes_on_without_repeating_a_training(tmp_path: Path, motion: Path) -> None:
    file, db = study(tmp_path, motion, {"ablation": {"seeds": 3, "epochs": 6}})
    command = [
        sys.executable, "-c", "from nas.cli.main import run; run()", "ablate", file, "--db", db, "--workers", "2"
    ]  # fmt: skip
    kills = 0
    ended: dict[int, str] = {}
    while kills < 4:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        goal = len(ended) + 2
        while process.poll() is None and len(done(db)) < goal:
            time.sleep(0.2)
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
        now = done(db)
        assert {run: now[run] for run in ended} == ended
        ended = now
    assert kills >= 3
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    final = done(db)
    assert len(final) == 12 and {run: final[run] for run in ended} == ended
    store = Store(db)
    for row in store.runs(1):
        lines = (Path(row["folder"]) / "progress.jsonl").read_text().splitlines()
        assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 7))
    store.close()


def done(db: str) -> dict[int, str]:
    """When each run ended that is done."""
    if not Path(db).is_file():
        return {}
    plain = sqlite3.connect(db, timeout=30)
    try:
        return dict(plain.execute("SELECT id, ended_at FROM nas_run WHERE state = 'done'").fetchall())
    except sqlite3.OperationalError:  # not made yet
        return {}
    finally:
        plain.close()


def test_an_ablation_whose_arm_was_another_network_is_not_gone_on_with(
    tmp_path: Path, motion: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As is so of a record of before a kind of that name meant another block."""
    monkeypatch.chdir(tmp_path)
    file, db = study(tmp_path, motion)
    run(capsys, "ablate", file, "--db", db, "--workers", "0", "--json")
    with contextlib.closing(sqlite3.connect(db)) as connection, connection:
        base = "(SELECT digest FROM nas_arm WHERE position = 0)"
        connection.execute(f"UPDATE nas_arm SET digest = {base} WHERE level = 'p3d_a'")
    before = content_of(Path(db))
    assert main(["ablate", file, "--db", db, "--workers", "0"]) == 2
    assert "its arm kind=p3d_a was another network" in capsys.readouterr().err
    assert content_of(Path(db)) == before
