"""Full training as it is asked for: several processes, what is kept, and clips that could not be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import nas
from nas.cli.main import main
from nas.store.database import Store
from nas.train.training import opened
from tests.nas.studies import write_study
from trainer.data.motion_clips import make_motion


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a search of one network whose videos are decoded when they are needed."""
    folder = tmp_path_factory.mktemp("full")
    make_motion(folder / "data", train_per_class=4, val_per_class=1, test_per_class=1, frames=4, size=16)
    data = {"root": str(folder / "data"), "cache": str(folder / "cache"), "source": "decode", "max_broken": 0.2}
    over = {"data": data, "search": {"trials": 1, "initial": 1, "rungs": [1]}, "promote": {"test": {"clips": 1}}}
    study = write_study(folder / "tiny.yaml", over)
    assert main(["search", str(study), "--db", str(folder / "study.db")]) == 0
    return folder


def promoted(
    capsys: pytest.CaptureFixture[str], folder: Path, *settings: str, code: int = 0
) -> tuple[dict[str, Any], str]:
    """What `nas promote --json` says of its one training, and what it prints beside."""
    capsys.readouterr()
    assert main(["promote", str(folder / "study.db"), "--best-under", "1T", "--json", *settings]) == code
    out, err = capsys.readouterr()
    return (json.loads(out)["trainings"][0] if code == 0 else {}), err


@pytest.mark.slow
def test_two_processes_train_what_one_trains(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["promote.recipe.precision=fp32", "promote.recipe.batch_size=16"]
    two, _ = promoted(capsys, searched, "promote.epochs=3", "--devices", "2", *settings)
    record = json.loads((Path(two["folder"]) / "network.json").read_text("utf-8"))["record"]
    assert record["devices"] == 2
    lines = [
        json.loads(line) for line in (Path(two["folder"]) / "training" / "progress.jsonl").read_text().splitlines()
    ]
    Path(two["folder"]).rename(searched / "two")
    with Store(searched / "study.db", create=True).write() as connection:
        from sqlalchemy import text

        connection.execute(text("DELETE FROM nas_evaluation WHERE purpose = 'promotion'"))
        connection.execute(text("DELETE FROM nas_promotion"))
    one, _ = promoted(capsys, searched, "promote.epochs=3", *settings)
    alone = [
        json.loads(line) for line in (Path(one["folder"]) / "training" / "progress.jsonl").read_text().splitlines()
    ]
    assert [line["train_loss"] for line in lines] == pytest.approx([line["train_loss"] for line in alone], rel=1e-4)
    assert two["folder"] == one["folder"]


def test_best_weights_checkpoints_within_epochs_and_logs_are_kept_as_asked(
    searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, _ = promoted(capsys, searched, "promote.epochs=1")
    assert {"last.pt", "progress.jsonl"} <= names(plain)
    assert not {"best.pt", "progress.csv", "prev.pt"} & names(plain)
    asked = ["promote.epochs=2", "promote.keep_best=true", "promote.logs=[csv]", "promote.checkpoint_steps=1"]
    full, _ = promoted(capsys, searched, *asked)
    assert {"last.pt", "best.pt", "progress.csv"} <= names(full)
    training = Path(full["folder"]) / "training"
    assert len((training / "progress.csv").read_text().splitlines()) == 3
    before = torch.load(training / "prev.pt", weights_only=True)  # the checkpoint before the last one
    assert (before["epoch"], before["partial"]["step"]) == (1, 3)


def test_patience_ends_a_promotion_and_its_best_epoch_is_tested(
    searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast = ["promote.epochs=30", "promote.recipe.lr=0.1", "promote.recipe.ema_decay=0"]
    patient, said = promoted(capsys, searched, *fast, "promote.patience=1")
    folder = Path(patient["folder"])
    lines = [json.loads(line)["val"] for line in (folder / "training" / "progress.jsonl").read_text().splitlines()]
    ranks = [(line["top1"], -line["loss"]) for line in lines]
    best = len(ranks) - 2
    assert len(ranks) < 30 and ranks[-1] <= ranks[best] == max(ranks)
    assert ranks == sorted(ranks[:-1]) + ranks[-1:]
    assert f"training ended after epoch {len(ranks)}: 1 in a row were not better on val" in said
    record = json.loads((folder / "network.json").read_text("utf-8"))["record"]
    assert (record["best_epoch"], record["trained_epochs"]) == (best + 1, len(ranks)) and patient["epochs"] == len(
        ranks
    )
    kept = torch.load(folder / "training" / "best.pt", weights_only=True)["model"]
    assert all(torch.equal(value, kept[name]) for name, value in nas.load(folder).model.state_dict().items())
    again, _ = promoted(capsys, searched, *fast, "promote.patience=1")
    assert not again["fresh"] and again["folder"] == patient["folder"]
    (row,) = [one for one in Store(searched / "study.db").promotions(1) if one["folder"] == str(folder)]
    assert row["recipe"]["patience"] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["promote.patience=-1"], "promote.patience must be at least 0, but is -1"),
        (["--devices", "0"], "devices must be at least 1, or 0 for all visible GPUs on cuda, but is 0 on cpu"),
        (["--devices", "5"], "recipe.batch_size must be at least 2 for each of 5 devices, but is 8"),
        (["promote.devices=-1"], "promote.devices must be at least 0, but is -1"),
        (["promote.checkpoint_steps=-1"], "promote.checkpoint_steps must be at least 0, but is -1"),
        (["promote.logs=[tensorbord]"], "did you mean tensorboard? (choices: csv, tensorboard, mlflow, wandb)"),
        (["promote.keepbest=true"], "promote.keep_best"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_recorded(
    searched: Path, capsys: pytest.CaptureFixture[str], settings: list[str], message: str
) -> None:
    before = Store(searched / "study.db").promotions(1)
    _, error = promoted(capsys, searched, "promote.epochs=7", *settings, code=2)
    assert message in error.splitlines()[-1] and error.splitlines()[-1].startswith("error:")
    assert Store(searched / "study.db").promotions(1) == before


def test_clips_that_training_could_not_read_are_recorded_and_shown(
    searched: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    database = str(searched / "study.db")
    store = Store(database)
    data = opened(next(iter(_configs(store))))
    gone = data.split("train").entry(3).path
    path = Path(searched / "data" / gone)
    content = path.read_bytes()
    path.unlink()
    try:
        training, err = promoted(capsys, searched, "promote.epochs=2", "promote.recipe.lr=0.002")
    finally:
        path.write_bytes(content)
    assert training["broken"]["num_clips"] == 2 and list(training["broken"]["videos"]) == [gone]
    said = f"2 clips of 1 video could not be read (the first, {gone}: "
    assert said in err
    record = json.loads((Path(training["folder"]) / "network.json").read_text("utf-8"))["record"]
    assert record["broken"] == training["broken"]
    for command in (["status", database], ["export", database, "--table", "promotions", "--csv"]):
        assert main(command) == 0
        assert said in " ".join(capsys.readouterr().out.split())
    assert main(["report", database, "-o", str(tmp_path / "page.html")]) == 0
    assert "2 clips of 1 video could not be read" in (tmp_path / "page.html").read_text("utf-8")


def test_clips_that_several_processes_met_are_added_up() -> None:
    from nas.promotion.results import joined
    from trainer.data.dataset import Met
    from trainer.data.entries import Broken

    one, other = Met(), Met()
    for met, name in ((one, "a"), (other, "b"), (other, "a")):
        met.add(Broken(path=name, reason=f"{name} is empty"))
    one.join(other)
    assert (one.num_clips, one.videos) == (3, {"a": "a is empty", "b": "b is empty"})
    assert joined(None, 0, {}) is None
    assert joined({"num_clips": 1, "videos": {"c": "gone"}}, 3, one.videos) == {
        "num_clips": 4,
        "videos": {"c": "gone", "a": "a is empty", "b": "b is empty"},
    }


def test_the_figures_of_a_test_are_stored_and_shown_wherever_promotions_are_listed(
    searched: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    database = str(searched / "study.db")
    settings = ["promote.epochs=1", "promote.recipe.lr=0.001", "promote.test.clips=2", "promote.test.crops=3"]
    training, _ = promoted(capsys, searched, *settings)
    store = Store(database)
    mine = next(row for row in store.promotions(1) if row["folder"] == training["folder"])
    row = next(e for e in store.evaluations(1, purpose="promotion", split="test") if e["promotion_id"] == mine["id"])
    kept = json.loads((Path(training["folder"]) / "evaluation.json").read_text("utf-8"))["test"]
    assert [row[name] for name in ("clip1", "top1", "top5", "low", "high", "views")] == [
        kept["clip1"]["value"],
        kept["video1"]["value"],
        kept["video5"]["value"],
        kept["video1"]["low"],
        kept["video1"]["high"],
        "2x3",
    ]
    assert row["map_sample"] is None
    interval = f"{row['low']:.3f} to {row['high']:.3f}"
    assert main(["status", database]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("clip@1", "video@1", "video@5", "2x3", interval, f"{row['clip1']:.3f}"))
    assert main(["export", database, "--table", "promotions", "--csv", "--columns", "split,clip1,low,high,views"]) == 0
    assert f"test,{row['clip1']},{row['low']},{row['high']},2x3" in capsys.readouterr().out.splitlines()
    assert main(["report", database, "-o", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text("utf-8")
    assert f"{100 * row['low']:.1f} to {100 * row['high']:.1f}" in page and "2x3" in page and "clip@1" in page


def names(training: dict[str, Any]) -> set[str]:
    return {path.name for path in (Path(training["folder"]) / "training").iterdir()}


def _configs(store: Store) -> Any:
    from nas.study.study import study_of

    yield study_of(store.study()["config"], "the record").data
