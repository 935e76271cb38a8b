"""Logs for other programs: a table as CSV, TensorBoard's events, and runs of MLflow and Weights & Biases.

A log gets rows of plain values, in the order in which they come to be: the epochs of a training, or the results of a
search. Each row stands in it once, whatever interrupts who writes it. A service that cannot be reached ends nothing and
holds nothing up for long: it is tried again now and then, and what it lacks is written when it answers.
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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, get_args

from trainer.config import ConfigError, Log
from trainer.failures import DiskFull, disk_space
from trainer.files import make_folder
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

    def close(self, kind: type[BaseException] | None) -> None:
        """No more rows come; `kind` is what ended the run, if it did not end well."""
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
        owner: What tells the run from others whose logs have lain in this folder.
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
        owner: str = "",
    ) -> None:
        """A log that was written before gets the rows that it lacks."""
        self.rows = list(rows) if names else []
        makers: dict[str, Callable[[], Sink]] = {
            "csv": lambda: _Table(folder / f"{table}.csv", columns),
            "tensorboard": lambda: _Events(folder / "tensorboard", len(self.rows)),
            "mlflow": lambda: _Mlflow(_Kept(folder / "mlflow.json", owner), title, settings or {}),
            "wandb": lambda: _Wandb(_Kept(folder / "wandb.json", owner), title, settings or {}),
        }
        self._logs = {name: _Guarded(name, makers[name]) for name in names}
        if self._logs:
            make_folder(folder)
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
        if self._logs and rows:
            self.rows += rows
            self._write()

    def __enter__(self) -> Logs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for log in self._logs.values():
            log.close(self.rows, kind)

    def _write(self) -> None:
        for log in self._logs.values():
            log.write(self.rows)


class _Guarded:
    """A log whose failures end nothing; after one it rests, longer each time, so that it holds nobody up."""

    def __init__(self, name: str, make: Callable[[], Sink]) -> None:
        self._name, self._make = name, make
        self._sink: Sink | None = None
        self._rest, self._until, self._told, self._behind = _REST, 0.0, False, False

    def write(self, rows: Sequence[Row]) -> None:
        self._behind = True
        if time.monotonic() >= self._until:
            self._tried(lambda sink: sink.write(rows))

    def close(self, rows: Sequence[Row], kind: type[BaseException] | None) -> None:
        def end(sink: Sink) -> None:
            if self._behind:
                sink.write(rows)
            sink.close(kind)

        if self._sink is not None or rows:
            self._tried(end)

    def _tried(self, step: Callable[[Sink], None]) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what services warn of is of their own insides
                if self._sink is None:
                    self._sink = self._make()
                step(self._sink)
            self._rest, self._behind = _REST, False
        except DiskFull:
            raise
        except Exception as error:  # of a service; which ones, only it knows
            self._until, self._rest = time.monotonic() + self._rest, min(2 * self._rest, _LONGEST_REST)
            if not self._told:
                self._told = True
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                text = f"the log {self._name} cannot be written, and is tried again later: {reason}"
                warnings.warn(text, stacklevel=5)


_REST, _LONGEST_REST = 30.0, 1800.0  # seconds


class _Table:
    """`progress.csv`, replaced as a whole."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path, self._columns = path, columns

    def write(self, rows: Sequence[Row]) -> None:
        temporary = self._path.with_suffix(".csv.tmp")
        with disk_space(self._path):
            temporary.write_text(to_csv(rows, self._columns), encoding="utf-8")
            temporary.replace(self._path)

    def close(self, kind: type[BaseException] | None) -> None:
        return


class _Events:
    """TensorBoard's events; of rows that are done again, it shows the later ones."""

    def __init__(self, folder: Path, held: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        written = any(folder.glob("events.out.tfevents*"))
        self._writer, self._held = SummaryWriter(str(folder), purge_step=held + 1), held if written else 0

    def write(self, rows: Sequence[Row]) -> None:
        for step, row in enumerate(rows[self._held :], start=self._held + 1):
            for name, value in _numbers(row).items():
                place = f"val/{name.removeprefix('val_')}" if name.startswith("val_") else f"train/{name}"
                if name != "epoch":
                    self._writer.add_scalar(place, value, step)
        self._held = len(rows)
        self._writer.flush()

    def close(self, kind: type[BaseException] | None) -> None:
        self._writer.close()


class _Kept:
    """What is kept of a run of a service, in a file: which it is, and of whom."""

    def __init__(self, place: Path, owner: str) -> None:
        self.place, self._owner = place, owner
        try:
            found = json.loads(place.read_text("utf-8"))
            self.values = {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
        except (OSError, ValueError):
            self.values = {}
        if self.values.get("owner", "") != owner:
            self.values = {}

    def keep(self, **values: str) -> None:
        self.values = {**self.values, "owner": self._owner, **values}
        temporary = self.place.with_suffix(".tmp")
        with disk_space(self.place):
            temporary.write_text(json.dumps(self.values), encoding="utf-8")
            temporary.replace(self.place)


class _Mlflow:
    """A run of MLflow, where MLFLOW_TRACKING_URI says; else where MLflow would have it, in the folder of the start."""

    def __init__(self, kept: _Kept, title: str, settings: Row) -> None:
        self._kept, self._title, self._settings = kept, title, settings
        self._client: Any = None
        self._held = 0
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)

    def write(self, rows: Sequence[Row]) -> None:
        from mlflow.entities import Metric

        try:
            self._connect(rows)
            now, run = int(time.time() * 1000), self._kept.values["id"]
            while self._held < len(rows):  # whole rows at once: what fails is written again, and nothing twice
                metrics: list[Any] = []
                end = self._held
                while end < len(rows) and len(metrics) < _BATCH // 2:
                    values = _numbers(rows[end]).items()
                    metrics += [Metric(name, float(value), now, end + 1) for name, value in values]
                    end += 1
                self._client.log_batch(run, metrics=metrics)
                self._held = end
        except Exception:
            self._client = None  # so that the next try asks what is there
            raise

    def close(self, kind: type[BaseException] | None) -> None:
        if self._client is not None:
            status = "FINISHED" if kind is None else "KILLED" if issubclass(kind, KeyboardInterrupt) else "FAILED"
            self._client.set_terminated(self._kept.values["id"], status)

    def _connect(self, rows: Sequence[Row]) -> None:
        """The client, and how many rows the run has; a run is made where there is none any more."""
        if self._client is not None:
            return
        import mlflow
        from mlflow.entities import Param

        uri = os.environ.get("MLFLOW_TRACKING_URI") or self._kept.values.get("uri") or mlflow.get_tracking_uri()
        if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):  # of this folder, wherever it goes on
            uri = f"sqlite:///{Path(uri.removeprefix('sqlite:///')).resolve()}"
        client = mlflow.MlflowClient(uri)
        kept = self._kept.values
        if kept.get("id") and kept.get("uri") == uri:
            try:
                client.update_run(kept["id"], status="RUNNING")
            except mlflow.MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                kept = {}
        if not kept.get("id") or kept.get("uri") != uri:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            known = client.get_experiment_by_name(name)
            experiment = known.experiment_id if known is not None else client.create_experiment(name)
            run = client.create_run(experiment, run_name=self._title or None).info.run_id
            self._kept.keep(id=run, uri=uri, params="")
        run = self._kept.values["id"]
        if not self._kept.values.get("params"):
            params = [Param(key, str(value)[:_LONGEST]) for key, value in _flat(self._settings).items()]
            for start in range(0, len(params), _PARAMS):
                client.log_batch(run, params=params[start : start + _PARAMS])
            self._kept.keep(params="logged")
        first = next(iter(_numbers(rows[0])), "") if rows else ""
        history = client.get_metric_history(run, first) if first else []
        self._held = max((int(metric.step) for metric in history), default=0)
        self._client = client


# Of MLflow's requests, unless their variables say otherwise: a server that is away is not waited for.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
# Limits of MLflow: metrics and parameters at once, characters of a parameter.
_BATCH, _PARAMS, _LONGEST = 1000, 100, 6000


class _Wandb:
    """A run of Weights & Biases; without an account here, a folder for `wandb sync`.

    What it has of earlier starts is not known for certain, since it writes behind our back. So each start gives it all
    rows: a step that the run has already is not taken again.
    """

    def __init__(self, kept: _Kept, title: str, settings: Row) -> None:
        self._kept, self._title, self._settings = kept, title, settings
        self._run: Any = None
        self._held = 0

    def write(self, rows: Sequence[Row]) -> None:
        if self._run is None:
            import wandb

            if not self._kept.values.get("id"):
                self._kept.keep(id=secrets.token_hex(4))
            signed_in = os.environ.get("WANDB_MODE") or wandb.login(prompt=False, verify=False)
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                id=self._kept.values["id"],
                resume="allow",
                name=self._title or None,
                dir=self._kept.place.parent,
                config=dict(self._settings),
                mode=None if signed_in else "offline",
                settings=wandb.Settings(silent=True, init_timeout=20.0),
            )
        for step, row in enumerate(rows[self._held :], start=self._held + 1):
            values = {key: value for key, value in row.items() if value is not None}
            self._run.log(values, step=step, commit=True)
            self._held = step

    def close(self, kind: type[BaseException] | None) -> None:
        if self._run is not None:
            self._run.finish(exit_code=0 if kind is None else 1)


def _numbers(row: Row) -> dict[str, float]:
    return {k: v for k, v in row.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def _flat(settings: Row, before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return found
