"""`nas watch`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.inspect import DB, STUDY
from nas.cli.output import duration
from nas.cli.resolve import open_study

if TYPE_CHECKING:
    from rich.console import RenderableType

    from nas.watching import Frame

FRONT_ROWS = 8
JOB_ROWS = 8
QUIET_SECONDS = 600  # without any event, after which the driver may have been killed


def watch(
    study: str = STUDY,
    db: str = DB,
    once: bool = typer.Option(False, "--once", help="Show one frame and end; so it is where there is no terminal."),
    every: float = typer.Option(2.0, "--every", min=0.1, metavar="SECONDS", help="Between two frames."),
) -> None:
    """Watch a running search, and its ablations, until they end or Ctrl-C; only reads.

    Example: nas watch runs/kinetics_small/study.db --once
    """
    import time
    from datetime import UTC, datetime

    from rich.live import Live

    from nas.cli.output import console
    from nas.watching import frame_of

    store, row = open_study(study, db)
    try:
        frame = frame_of(store, row, datetime.now(UTC))
        if once or not sys.stdout.isatty():
            console().print(drawn(frame))
            return
        with Live(drawn(frame), auto_refresh=False, vertical_overflow="ellipsis") as live:
            while not frame.ended:
                time.sleep(every)
                frame = frame_of(store, row, datetime.now(UTC))
                live.update(drawn(frame), refresh=True)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None  # the search goes on
    finally:
        store.close()


def drawn(frame: Frame) -> RenderableType:
    """One frame for a terminal."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(_head(frame), style="bold")]
    if frame.quiet_for is not None and frame.quiet_for > QUIET_SECONDS and not frame.ended:
        ago = duration(frame.quiet_for)
        parts.append(Text(f"nothing new for {ago}; if its driver was killed, the same `nas search` goes on with it"))
    parts.append(
        _table(
            "rungs",
            frame.rungs,
            {"rung": "rung", "fidelity": "fidelity", "networks": "networks", "best": f"best {frame.metric}"},
        )
    )
    if frame.running:
        jobs = [{**job, "progress": f"{job['epoch']}/{job['until']}"} for job in frame.running[:JOB_ROWS]]
        columns = {"trial": "trial", "progress": "epochs", "digest": "digest", "description": "network"}
        parts.append(_table("under way", jobs, columns))
    if frame.front:
        columns = {"digest": "digest", "accuracy": frame.metric, "macs": "MACs", "description": "network"}
        more = f", {len(frame.front)} networks" if len(frame.front) > FRONT_ROWS else ""
        best = sorted(frame.front, key=lambda row: -row["accuracy"])[:FRONT_ROWS]
        title = f"front {frame.front_at}{more}"
        parts.append(_table(title, sorted(best, key=lambda row: row["macs"]), columns))
    if frame.ablations:
        columns = {name: name for name in ("name", "kind", "state", "runs", "running", "done", "failed")}
        parts.append(_table("ablations", frame.ablations, columns))
    for event in frame.events:
        parts.append(Text(f"{event['at'][11:19]}  {event['text']}"))
    return Group(*parts)


def _head(frame: Frame) -> str:
    states = ", ".join(f"{count} {state}" for state, count in frame.states.items())
    epochs = f"{frame.epochs_done:,}" + (f" of {frame.epochs_total:,}" if frame.epochs_total else "") + " epochs"
    if frame.seconds_left is not None:
        epochs += f", ETA {duration(frame.seconds_left)}"
    state = "ended" if frame.ended else "running"
    return f"{frame.study} ({frame.database}): {state}; {epochs}; trials: {states or 'none'}"


def _table(title: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> RenderableType:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for key, name in columns.items():
        number = all(isinstance(row.get(key), int | float) or row.get(key) is None for row in rows)
        wide = key == "description"
        table.add_column(name, justify="right" if number else "left", no_wrap=wide, overflow="ellipsis")
    for row in rows:
        table.add_row(*(Text(_cell(key, row.get(key))) for key in columns))  # a name is text, never markup
    return table


def _cell(key: str, value: Any) -> str:
    from nas.study import short_number

    if value is None:
        return ""
    if key == "digest":
        return str(value)[:10]
    if key == "macs":
        return short_number(value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)
