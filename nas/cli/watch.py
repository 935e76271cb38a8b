"""`nas watch`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.inspect import DB, STUDY
from nas.cli.learned import lines as learned_lines
from nas.cli.learned import proposals_line
from nas.cli.output import console, duration, print_line, shown, table_lines, width, words_lines
from nas.cli.resolve import open_study
from nas.drivers import died_text

if TYPE_CHECKING:
    from nas.watching import Frame

FRONT_ROWS = 8
JOB_ROWS = 8
QUIET_SECONDS = 600  # without any event, after which the driver may have been killed


def watch(
    study: str = STUDY,
    db: str = DB,
    once: bool = typer.Option(False, "--once", help="Show one frame and end; so it is where there is no terminal."),
    every: float = typer.Option(2.0, "--every", min=0.1, max=86_400, metavar="SECONDS", help="Between two frames."),
) -> None:
    """Watch a running search, and its ablations, until they end or Ctrl-C; only reads.

    Example: nas watch runs/kinetics_small/study.db --once
    """
    import time
    from datetime import UTC, datetime

    from rich.live import Live

    from nas.watching import frame_of

    with open_study(study, db) as (store, row), suppress(KeyboardInterrupt):  # the search goes on
        frame = frame_of(store, row, datetime.now(UTC))
        if once or not sys.stdout.isatty():
            for line in frame_lines(frame, columns_wide=width()):
                print_line(line)
            return
        screen = console()
        first = shown(frame_lines(frame, columns_wide=screen.width))
        with Live(first, console=screen, auto_refresh=False, vertical_overflow="ellipsis") as live:
            while not frame.ended:
                time.sleep(every)
                frame = frame_of(store, row, datetime.now(UTC))
                live.update(shown(frame_lines(frame, columns_wide=width())), refresh=True)


def frame_lines(frame: Frame, *, columns_wide: int) -> list[str]:
    """One frame as lines of a terminal of this width."""

    def table(title: str, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> list[str]:
        return [*table_lines(rows, columns, title, columns_wide=columns_wide), ""]

    lines = [_head(frame)]
    if frame.quiet_for is not None and frame.quiet_for > QUIET_SECONDS and not frame.ended:
        ago = duration(frame.quiet_for)
        lines.append(f"its driver is there, but has said nothing for {ago}")
    if frame.died_at is not None:
        lines.append(died_text(frame.died_at))
    rungs = {"rung": "rung", "fidelity": "fidelity", "networks": "networks", "best": f"best {frame.metric}"}
    lines += table("rungs", frame.rungs, rungs)
    texts = [proposals_line(frame.learned.origins)] if frame.learned.origins else []
    texts += learned_lines(frame.learned, frame.fidelity)
    if texts:
        lines += [*(line for text in texts for line in words_lines(text, columns_wide)), ""]
    if frame.running:
        jobs = [{**job, "progress": f"{job['epoch']}/{job['until']}"} for job in frame.running[:JOB_ROWS]]
        columns = {"what": "trial", "progress": "epochs", "digest": "digest", "description": "network"}
        lines += table("under way", jobs, columns)
    if frame.front:
        columns = {"digest": "digest", "accuracy": frame.metric, "macs": "MACs", "description": "network"}
        more = f", {len(frame.front)} networks" if len(frame.front) > FRONT_ROWS else ""
        best = sorted(frame.front, key=lambda row: -row["accuracy"])[:FRONT_ROWS]
        lines += table(f"front {frame.front_at}{more}", sorted(best, key=lambda row: row["macs"]), columns)
    if frame.ablations:
        columns = {name: name for name in ("name", "kind", "state", "runs", "running", "done", "failed")}
        lines += table("ablations", frame.ablations, columns)
    return [*lines, *(f"{event['at'][11:19]}  {event['text']}" for event in frame.events)]


def _head(frame: Frame) -> str:
    states = ", ".join(f"{count} {state}" for state, count in frame.states.items())
    epochs = f"{frame.epochs_done:,}" + (f" of {frame.epochs_total:,}" if frame.epochs_total else "") + " epochs"
    if frame.left is not None:
        epochs += f", {frame.left}"
    state = f"{frame.driver} running" if frame.driver else "ended" if frame.died_at is None else "dead"
    return f"{frame.study} ({frame.database}): {state}; {epochs}; trials: {states or 'none'}"
