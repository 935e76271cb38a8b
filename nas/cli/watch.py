"""`nas watch`, and the lines in which it and `nas status` say what a search has learned."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.options import DB, STUDY
from nas.cli.output import (
    console,
    duration,
    print_line,
    print_table,
    print_words,
    shown,
    table_lines,
    width,
    words_lines,
)
from nas.cli.resolve import open_study
from nas.search.calibration import CONFIDENCE
from nas.store.drivers import died_text
from nas.study.fidelity import Fidelity

if TYPE_CHECKING:
    from nas.read.learned import Learned, Origin
    from nas.read.watch import Frame
    from nas.search.budget import Budget


def learned_report(learned: Learned, budget: Budget, deciding: tuple[float, float] | None) -> dict[str, Any]:
    """All figures as plain values; those that the record has nothing for are empty or None."""
    return {
        "scheduler": budget.scheduler,
        "epochs_total": budget.epochs,
        "planned": budget.networks(),
        "ranks": [asdict(one) for one in learned.ranks],
        "hypervolume": None if learned.volume is None else asdict(learned.volume),
        "proposals": [asdict(one) for one in learned.origins],
        "calibration": None if learned.calibration is None else asdict(learned.calibration),
        "expected_still": learned.still,
        "deciding": None if deciding is None else {"seconds": deciding[0], "of": deciding[1]},
    }


def print_learned(
    learned: Learned, budget: Budget, deciding: tuple[float, float] | None, fidelity: Fidelity, metric: str
) -> None:
    """Prints it all."""
    if budget.epochs:
        print_words(budget_line(budget))
    if learned.origins:
        rows = [
            {**asdict(one), "origin": said(one), "at": "" if one.rung is None else fidelity.label(one.rung)}
            for one in learned.origins
        ]
        columns = {"origin": "proposed by", "networks": "networks", "at": "highest rung", "there": "there"}
        print_table(rows, {**columns, "best": f"best {metric} there"})
    for line in learned_lines(learned, fidelity):
        print_words(line)
    if deciding is not None:
        seconds, whole = deciding
        share = f", {100 * seconds / whole:.1f} % of the time of its sessions" if whole > 0 else ""
        print_words(f"deciding what is trained: {duration(seconds)}{share}")


def learned_lines(learned: Learned, fidelity: Fidelity) -> list[str]:
    """Ranks, hypervolume and calibration, a line each, as far as there is something to say."""
    from nas.read.learned import objectives_text, worst_text

    found = []
    if learned.ranks:
        found.append(f"rank correlation: {ranks_text(learned, fidelity)}")
    if learned.volume is not None:
        own = learned.volume
        found.append(
            f"hypervolume: {own.share:.3f} {fidelity.at(own.rung)} ({objectives_text(tuple(own.worst))} scaled over "
            f"the networks tried; the reference is 5 % of the range beyond {worst_text(own.worst)})"
        )
    if learned.still is not None and learned.volume is not None:
        found.append(f"expected still: its last step was to add {learned.still:.2%} of the hypervolume, by the model")
    if learned.calibration is not None:
        told = learned.calibration
        ratio = "" if told.ratio is None else f"; the median error is {told.ratio:.2f} of what was expected"
        width = f"; the last one had {told.widening:.2f} times the model's own deviation"
        found.append(
            f"calibration: {told.inside} of {told.expectations} within the {100 * CONFIDENCE:.0f} % interval that the "
            f"model expected ({told.share:.2f}, 95 % interval {told.low:.2f} to {told.high:.2f}){ratio}{width}"
        )
    return found


def ranks_text(learned: Learned, fidelity: Fidelity) -> str:
    """The rank correlations of rungs in words."""
    unit = " epochs" if fidelity.continues else ""

    def name(rung: int) -> str:
        return f"{fidelity.ends[rung]}" if fidelity.continues else fidelity.label(rung)

    return "; ".join(f"{name(one.low)} with {name(one.high)}{unit} {one.text}" for one in learned.ranks)


def proposals_line(origins: Sequence[Origin]) -> str:
    """How many networks each origin has proposed."""
    return f"proposals: {', '.join(f'{one.networks} {said(one)}' for one in origins)}"


def said(origin: Origin) -> str:
    """Its name without a comma: `pool near`."""
    return origin.origin.replace(",", "")


def budget_line(budget: Budget) -> str:
    """What the search takes in all."""
    counts = budget.networks()
    if counts is None:
        return f"budget: {budget.epochs:,} epochs, which the model of {budget.scheduler} spends"
    most = f", search.max_epochs {budget.max_epochs:,}" if budget.max_epochs else ""
    networks = ", ".join(f"{count:,}" for count in counts)
    return f"budget: {budget.epochs:,} epochs ({budget.scheduler}{most}; networks at the rungs: {networks})"


FRONT_ROWS = 8
JOB_ROWS = 8
QUIET_SECONDS = 600  # without any event, after which the driver may have been killed


def watch(
    study: str = STUDY,
    db: str = DB,
    once: bool = typer.Option(False, "--once", help="Print one frame and exit; the default without a terminal."),
    every: float = typer.Option(2.0, "--every", min=0.1, max=86_400, metavar="SECONDS", help="Between two frames."),
) -> None:
    """Watch a running search, and its ablations, until they end or Ctrl-C; only reads.

    Example: nas watch runs/kinetics_small/study.db --once
    """
    import time
    from datetime import UTC, datetime

    from rich.live import Live

    from nas.read.watch import frame_of

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

    lines = words_lines(_head(frame), columns_wide)
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
