"""Logs of a run for other programs, made of its lines of progress: a table as CSV, and TensorBoard's events."""

from __future__ import annotations

import csv
import importlib.util
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, get_args

from trainer.config import ConfigError, Log
from trainer.failures import disk_space
from trainer.metrics import EpochResult, Metrics, from_line

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

COLUMNS = (
    *(f.name for f in fields(EpochResult) if f.name != "val"),
    *(f"val_{f.name}" for f in fields(Metrics)),
)


def check_logs(logs: Iterable[str]) -> None:
    """Raises ConfigError unless all logs are known and can be written here."""
    for log in logs:
        if log not in get_args(Log):
            raise ConfigError(f"logs must be one of {', '.join(get_args(Log))}, but is {log}")
        if log == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
            raise ConfigError(
                "the log tensorboard needs the package tensorboard, which is not installed; install video-nas[logs], "
                "or take the log csv"
            )


def row_of(result: EpochResult) -> dict[str, Any]:
    """An epoch as one row, by `COLUMNS`; metrics that were not measured are missing."""
    row = asdict(result) | {"val": None}
    del row["val"]
    return row | ({} if result.val is None else {f"val_{name}": value for name, value in result.val.plain().items()})


def to_csv(results: Sequence[EpochResult]) -> str:
    """Epochs as a table with a head; an empty field is what was not measured."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(row_of(result) for result in results)
    return text.getvalue()


@dataclass(slots=True)
class Logs:
    """The logs of one run, open for more epochs; closed at the end of its `with` block.

    Attributes:
        table: The CSV file; `None` without.
        events: TensorBoard's writer; `None` without.
        results: Epochs so far.
    """

    table: Path | None
    events: SummaryWriter | None
    results: list[EpochResult] = field(default_factory=list)

    @classmethod
    def open(cls, folder: Path, logs: Sequence[Log], *, lines: Sequence[str]) -> Logs:
        """Begins the logs, or goes on with them.

        Args:
            folder: Of the run.
            logs: Which.
            lines: Lines of progress that stand. What a log holds beyond them, from before a kill, is taken back.
        """
        events = None
        if "tensorboard" in logs:
            from torch.utils.tensorboard import SummaryWriter

            events = SummaryWriter(str(folder / "tensorboard"), purge_step=len(lines) + 1)
        own = cls(
            table=folder / "progress.csv" if "csv" in logs else None,
            events=events,
            results=[from_line(line) for line in lines] if logs else [],
        )
        if own.results:
            own._write_table()
        return own

    def add(self, result: EpochResult) -> None:
        """Notes an epoch; it is in the files when this returns.

        Raises:
            DiskFull: There is no room for the table, which is as before.
        """
        if self.table is None and self.events is None:
            return
        self.results.append(result)
        self._write_table()
        if self.events is not None:
            for name, value in row_of(result).items():
                if name != "epoch":
                    place = f"val/{name.removeprefix('val_')}" if name.startswith("val_") else f"train/{name}"
                    self.events.add_scalar(place, value, result.epoch)
            self.events.flush()

    def __enter__(self) -> Logs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.events is not None:
            self.events.close()

    def _write_table(self) -> None:
        if self.table is None:
            return
        temporary = self.table.with_suffix(".csv.tmp")
        with disk_space(self.table):
            temporary.write_text(to_csv(self.results), encoding="utf-8")
            temporary.replace(self.table)
