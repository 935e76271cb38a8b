"""Logs for other programs: a table as CSV, TensorBoard's events, and runs of MLflow and Weights & Biases.

A log gets rows of plain values, in the order in which they come to be: the epochs of a training, or the results of a
search. Each row stands in it once, whatever interrupts who writes it. A service that cannot be reached ends nothing:
what it lacks is written with the next row that it takes.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import os
import secrets
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, get_args

from trainer.config import ConfigError, Log
from trainer.failures import DiskFull, disk_space
from trainer.metrics import EpochResult, Metrics

Row = Mapping[str, Any]

COLUMNS = (
    *(f.name for f in fields(EpochResult) if f.name != "val"),
    *(f"val_{f.name}" for f in fields(Metrics)),
)
PROJECT = "video-nas"
"""Experiment of MLflow and project of Weights & Biases, where their own variables name none."""
# Package and extra of each log that needs one.
_PACKAGES: dict[str, tuple[str, str]] = {
    "tensorboard": ("tensorboard", "logs"),
    "mlflow": ("mlflow", "mlflow"),
    "wandb": ("wandb", "wandb"),
}


def check_logs(logs: Iterable[str]) -> None:
    """Raises ConfigError unless all logs are known and can be written here."""
    for log in logs:
        if log not in get_args(Log):
            raise ConfigError(f"logs must be one of {', '.join(get_args(Log))}, but is {log}")
        package, extra = _PACKAGES.get(log, ("csv", ""))
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"the log {log} needs the package {package}, which is not installed: pip install 'video-nas[{extra}]'; "
                "csv needs none"
            )


def row_of(result: EpochResult) -> dict[str, Any]:
    """An epoch as one row, by `COLUMNS`; metrics that were not measured are missing."""
    row = asdict(result) | {"val": None}
    del row["val"]
    return row | ({} if result.val is None else {f"val_{name}": value for name, value in result.val.plain().items()})


def to_csv(rows: Iterable[Row], columns: Sequence[str]) -> str:
    """Rows as a table with a head; an empty field is what was not measured."""
    text = io.StringIO()
    table = csv.DictWriter(text, columns, restval="", extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


class Sink(Protocol):
    """One log."""

    def write(self, rows: Sequence[Row]) -> None:
        """Writes the rows that it lacks.

        Args:
            rows: All rows so far; the step of a row is its place, from 1.
        """
        ...

    def close(self) -> None:
        """No more rows come."""
        ...


class Logs:
    """The logs of a training or a search, open for more rows; closed at the end of its `with` block.

    Args:
        folder: Where they lie, and where is kept which run of a service they are.
        names: Which.
        rows: That stand. What a table holds beyond them, from before a kill, is taken back.
        columns: Of the table.
        table: Its name, without `.csv`.
        title: Of the run at a service.
        settings: What the run was made with, for a service.
    """

    def __init__(
        self,
        folder: Path,
        names: Sequence[Log],
        rows: Iterable[Row],
        *,
        columns: Sequence[str] = COLUMNS,
        table: str = "progress",
        title: str = "",
        settings: Row | None = None,
    ) -> None:
        """A log that was written before gets the rows that it lacks."""
        self.rows = list(rows) if names else []
        self._sinks: dict[str, Sink] = {}
        for name in names:
            match name:
                case "csv":
                    self._sinks[name] = _Table(folder / f"{table}.csv", columns)
                case "tensorboard":
                    self._sinks[name] = _Events(folder / "tensorboard", len(self.rows))
                case "mlflow":
                    self._sinks[name] = _Mlflow(folder / "mlflow.json", title, settings or {})
                case "wandb":
                    self._sinks[name] = _Wandb(folder / "wandb.json", title, settings or {})
        self._told: set[str] = set()
        if self.rows:
            self._write()

    def add(self, row: Row) -> None:
        """Notes a row; it is in the files when this returns.

        Raises:
            DiskFull: There is no room for the table, which is as before.
        """
        self.extend([row])

    def extend(self, rows: Sequence[Row]) -> None:
        """Notes several rows, as `add`."""
        if self._sinks and rows:
            self.rows += rows
            self._write()

    def __enter__(self) -> Logs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, sink in self._sinks.items():
            self._tried(name, sink.close)

    def _write(self) -> None:
        for name, sink in self._sinks.items():
            self._tried(name, lambda sink=sink: sink.write(self.rows))

    def _tried(self, name: str, step: Any) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what services warn of is of their own insides
                step()
        except DiskFull:
            raise
        except Exception as error:  # of a service; which ones, only it knows
            if name not in self._told:
                self._told.add(name)
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                warnings.warn(f"the log {name} cannot be written, and is tried again later: {reason}", stacklevel=4)


class _Table:
    """`progress.csv`, replaced as a whole."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path, self._columns = path, columns

    def write(self, rows: Sequence[Row]) -> None:
        temporary = self._path.with_suffix(".csv.tmp")
        with disk_space(self._path):
            temporary.write_text(to_csv(rows, self._columns), encoding="utf-8")
            temporary.replace(self._path)

    def close(self) -> None:
        return


class _Events:
    """TensorBoard's events; of rows that are done again, it shows the later ones."""

    def __init__(self, folder: Path, held: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        fresh = not folder.exists()
        self._writer, self._held = SummaryWriter(str(folder), purge_step=held + 1), 0 if fresh else held

    def write(self, rows: Sequence[Row]) -> None:
        for step, row in enumerate(rows[self._held :], start=self._held + 1):
            for name, value in _numbers(row).items():
                place = f"val/{name.removeprefix('val_')}" if name.startswith("val_") else f"train/{name}"
                if name != "epoch":
                    self._writer.add_scalar(place, value, step)
        self._held = len(rows)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _Mlflow:
    """A run of MLflow, where MLFLOW_TRACKING_URI says."""

    def __init__(self, place: Path, title: str, settings: Row) -> None:
        self._place, self._title, self._settings = place, title, settings
        self._client: Any = None

    def write(self, rows: Sequence[Row]) -> None:
        from mlflow.entities import Metric

        run = self._run()
        now = int(time.time() * 1000)
        metrics = [
            Metric(name, float(value), now, step)
            for step, row in enumerate(rows[run["rows"] :], start=run["rows"] + 1)
            for name, value in _numbers(row).items()
        ]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(run["id"], metrics=metrics[start : start + _BATCH])
        _keep(self._place, {**run, "rows": max(run["rows"], len(rows))})

    def close(self) -> None:
        if self._client is not None:
            self._client.set_terminated(_kept(self._place)["id"])

    def _run(self) -> dict[str, Any]:
        """What is kept of the run, which is made where there is none."""
        from mlflow import MlflowClient
        from mlflow.entities import Param

        run = _kept(self._place)
        if self._client is None:
            self._client = MlflowClient()
            if run["id"]:
                self._client.update_run(run["id"], status="RUNNING")
        if not run["id"]:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            known = self._client.get_experiment_by_name(name)
            experiment = known.experiment_id if known is not None else self._client.create_experiment(name)
            run["id"] = self._client.create_run(experiment, run_name=self._title or None).info.run_id
            _keep(self._place, run)
            params = [Param(key, str(value)[:_LONGEST]) for key, value in _flat(self._settings).items()]
            for start in range(0, len(params), _PARAMS):
                self._client.log_batch(run["id"], params=params[start : start + _PARAMS])
        return run


# Limits of MLflow: metrics and parameters at once, characters of a parameter.
_BATCH, _PARAMS, _LONGEST = 1000, 100, 6000


class _Wandb:
    """A run of Weights & Biases; without an account here, a folder for `wandb sync`."""

    def __init__(self, place: Path, title: str, settings: Row) -> None:
        self._place, self._title, self._settings = place, title, settings
        self._run: Any = None

    def write(self, rows: Sequence[Row]) -> None:
        kept = _kept(self._place)
        if self._run is None:
            import wandb

            kept["id"] = kept["id"] or secrets.token_hex(4)
            _keep(self._place, kept)
            signed_in = os.environ.get("WANDB_MODE") or wandb.login(prompt=False)
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                id=kept["id"],
                resume="allow",
                name=self._title or None,
                dir=self._place.parent,
                config=dict(self._settings),
                mode=None if signed_in else "offline",
                settings=wandb.Settings(silent=True),
            )
        for step, row in enumerate(rows[kept["rows"] :], start=kept["rows"] + 1):
            self._run.log({key: value for key, value in row.items() if value is not None}, step=step)
        _keep(self._place, {**kept, "rows": max(kept["rows"], len(rows))})

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()


def _kept(place: Path) -> dict[str, Any]:
    """Which run of a service a log is, and how many rows that has."""
    try:
        found = json.loads(place.read_text("utf-8"))
        return {"id": str(found["id"]), "rows": int(found["rows"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"id": "", "rows": 0}


def _keep(place: Path, run: Row) -> None:
    temporary = place.with_suffix(".tmp")
    with disk_space(place):
        temporary.write_text(json.dumps(run), encoding="utf-8")
        temporary.replace(place)


def _numbers(row: Row) -> dict[str, float]:
    return {k: v for k, v in row.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _flat(settings: Row, before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return found
