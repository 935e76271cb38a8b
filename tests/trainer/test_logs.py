"""Logs hold what the lines of progress hold, whatever interrupts a run."""

from __future__ import annotations

import csv
import importlib.util
import warnings

import pytest

from trainer.config import ConfigError
from trainer.logs import COLUMNS, Logs, check_logs, row_of, to_csv


def table(folder):
    with (folder / "progress.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def events(folder):
    """{name: {epoch: value}} of the TensorBoard log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        log = loading.EventAccumulator(str(folder / "tensorboard"))
        log.Reload()
    return {name: {one.step: one.value for one in log.Scalars(name)} for name in log.Tags()["scalars"]}


def test_the_table_is_the_lines(toy, tmp_path):
    result = toy.train(tmp_path, 3, logs=["csv"], eval_every=2)
    rows = table(tmp_path)
    assert list(rows[0]) == list(COLUMNS)
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert [float(row["train_loss"]) for row in rows] == [e.train_loss for e in result.epochs]
    assert [row["val_top1"] for row in rows] == ["", *(str(e.val.top1) for e in result.epochs[1:])]
    assert {row["val_map_class"] for row in rows} == {""}  # one label per clip
    assert (tmp_path / "progress.csv").read_text() == to_csv(map(row_of, result.epochs), COLUMNS)


def test_tensorboard_shows_every_epoch_once_after_an_interruption(toy, tmp_path):
    pytest.importorskip("tensorboard")

    def stop(result):
        if result.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.train(tmp_path, 4, logs=["csv", "tensorboard"], on_epoch=stop, checkpoint_every=3)
    assert [row["epoch"] for row in table(tmp_path)] == ["1", "2"]
    result = toy.train(tmp_path, 4, logs=["csv", "tensorboard"], checkpoint_every=3)
    assert result.resumed_from == 0  # epochs 1 and 2 were logged, but not kept
    assert [row["epoch"] for row in table(tmp_path)] == ["1", "2", "3", "4"]
    found = events(tmp_path)
    assert found["train/train_loss"] == pytest.approx({e.epoch: e.train_loss for e in result.epochs})
    assert found["val/top1"] == pytest.approx({e.epoch: e.val.top1 for e in result.epochs})
    assert set(found) >= {"train/lr", "train/clips_per_s", "val/loss", "val/top5"}


def test_logs_change_nothing_in_the_run_and_may_come_later(toy, tmp_path):
    toy.train(tmp_path / "plain", 2)
    assert not (tmp_path / "plain" / "progress.csv").exists()
    toy.train(tmp_path / "logged", 1)
    toy.train(tmp_path / "logged", 2, logs=["csv"])
    toy.same_run(tmp_path / "plain", tmp_path / "logged")
    assert len(table(tmp_path / "logged")) == 2


def test_logs_that_cannot_be_written_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match=r"logs must be one of csv, tensorboard, mlflow, wandb, but is aim"):
        check_logs(["aim"])
    there = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: there(name) if name == "csv" else None)
    check_logs(["csv"])
    for log, extra in (("tensorboard", "logs"), ("mlflow", "mlflow"), ("wandb", "wandb")):
        with pytest.raises(ConfigError, match=rf"needs the package {log},.*pip install 'video-nas\[{extra}\]'"):
            check_logs([log])


def interrupted(toy, folder, log):
    """Four epochs, of which the first two are trained twice since their checkpoint was not written."""

    def stop(result):
        if result.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        toy.train(folder, 4, logs=[log], on_epoch=stop, checkpoint_every=3)
    return toy.train(folder, 4, logs=[log], checkpoint_every=3)


def test_mlflow_has_one_run_with_every_epoch_once(toy, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "toys")
    folder = tmp_path / "toy-seed0" / "training"
    result = interrupted(toy, folder, "mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("toys").experiment_id])
    assert (run.info.run_name, run.info.status) == ("toy-seed0", "FINISHED")
    assert run.data.params["recipe.lr"] == str(toy.recipe().lr)
    for name, values in (
        ("train_loss", [e.train_loss for e in result.epochs]),
        ("val_top1", [e.val.top1 for e in result.epochs]),
    ):
        history = client.get_metric_history(run.info.run_id, name)
        assert [one.step for one in history] == [1, 2, 3, 4]
        assert [one.value for one in history] == pytest.approx(values)


def test_a_tracker_that_is_away_ends_nothing_and_gets_what_it_lacks_later(toy, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    place = tmp_path / "away"
    place.write_text("a file where a folder should be")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place}/mlflow.db")
    with pytest.warns(UserWarning, match="the log mlflow cannot be written, and is tried again later") as said:
        toy.train(tmp_path / "run", 2, logs=["mlflow", "csv"])
    assert len([one for one in said if "the log mlflow" in str(one.message)]) == 1
    assert len(table(tmp_path / "run")) == 2
    place.unlink()
    place.mkdir()
    toy.train(tmp_path / "run", 3, logs=["mlflow"])
    client = mlflow.MlflowClient(f"sqlite:///{place}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("video-nas").experiment_id])
    assert [one.step for one in client.get_metric_history(run.info.run_id, "train_loss")] == [1, 2, 3]


def records(content):
    """The records of a `.wandb` file: a log of LevelDB's form behind seven bytes."""
    position, part, block = 7, b"", 32768
    while position + 7 <= len(content):
        if block - position % block < 7:
            position += block - position % block
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        part += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield part
            part = b""


def test_wandb_leaves_a_folder_to_sync_with_every_epoch_once(toy, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "toy" / "training"
    result = interrupted(toy, folder, "wandb")
    names, found = set(), {}
    for file in sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        found = {}  # each start has all rows, so the last one is whole
        for data in records(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "run":
                names.add((record.run.run_id, record.run.display_name))
            for item in record.history.item:
                key = item.key or "/".join(item.nested_key)
                if key == "train_loss":
                    assert record.history.step.num not in found
                    found[record.history.step.num] = float(item.value_json)
    assert found == pytest.approx({e.epoch: e.train_loss for e in result.epochs})
    assert len(names) == 1 and next(iter(names))[1] == "toy"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A store of MLflow, and what a run of it holds: the steps of `loss` in their order, and the parameters."""
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr("trainer.logs._REST", 0.0)

    def runs():
        client = mlflow.MlflowClient(uri)
        found = client.search_runs([client.get_experiment_by_name("video-nas").experiment_id])
        return [
            ([one.step for one in client.get_metric_history(run.info.run_id, "loss")], run.data.params, run.info.status)
            for run in reversed(found)
        ]

    return runs


ROWS = [{"loss": 1 / step, "name": f"row {step}"} for step in range(1, 1300)]


def test_a_write_that_fails_half_way_leaves_nothing_twice_and_nothing_out(server, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    real, calls = MlflowClient.log_batch, []

    def unsteady(self, *args, **kwargs):
        calls.append(kwargs)
        if len(calls) in (1, 4):
            raise ConnectionError("gone for a moment")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "log_batch", unsteady)
    with (
        pytest.warns(UserWarning, match="gone for a moment"),
        Logs(tmp_path / "logs", ["mlflow"], (), columns=("loss",), settings={"lr": {"peak": 0.1}}) as logs,
    ):
        for rows in (ROWS[:2], ROWS[2:1200], ROWS[1200:]):
            logs.extend(rows)
    ((steps, params, status),) = server()
    assert steps == list(range(1, 1300)) and params == {"lr.peak": "0.1"} and status == "FINISHED"


def test_a_run_that_was_killed_goes_on_where_the_service_is(server, tmp_path):
    for rows in (ROWS[:3], ROWS[:5]):  # the first start ends without a word
        Logs(tmp_path / "logs", ["mlflow"], rows, columns=("loss",))
    ((steps, _, _),) = server()
    assert steps == [1, 2, 3, 4, 5]
    with pytest.raises(KeyboardInterrupt), Logs(tmp_path / "logs", ["mlflow"], ROWS[:6], columns=("loss",)):
        raise KeyboardInterrupt
    assert server()[0][2] == "KILLED"


def test_another_study_in_the_same_folder_has_a_run_of_its_own(server, tmp_path):
    for owner, count in (("a", 2), ("b", 3)):
        with Logs(tmp_path / "logs", ["mlflow"], ROWS[:count], columns=("loss",), owner=owner):
            pass
    assert [steps for steps, _, _ in server()] == [[1, 2], [1, 2, 3]]


def test_a_service_that_is_away_holds_nobody_up(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    asked = []

    def away(self, rows):
        asked.append(len(rows))
        raise ConnectionError("no route to host")

    monkeypatch.setattr("trainer.logs._Mlflow.write", away)
    with pytest.warns(UserWarning, match="no route to host"):
        logs = Logs(tmp_path / "logs", ["mlflow", "csv"], ())
        for row in ROWS[:100]:
            logs.add(row)
    assert asked == [1]  # it rests, and is not asked with each row
    with logs:
        pass
    assert asked == [1, 100]


def test_rows_of_any_kind_go_into_a_table(tmp_path):
    rows = [{"trial": 0, "digest": "ab", "top1": 0.5, "other": 1}, {"trial": 1, "digest": "cd"}]
    with Logs(tmp_path, ["csv"], rows[:1], columns=("trial", "digest", "top1"), table="search") as logs:
        logs.extend(rows[1:])
    assert (tmp_path / "search.csv").read_text() == "trial,digest,top1\n0,ab,0.5\n1,cd,\n"
