"""How far a running search is, read from its database: one frame of `nas watch` as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from nas.accuracies import accuracy_of, metric_of, said
from nas.importance import rungs_of
from nas.store import Row, Store

EVENTS = 8  # that a frame shows


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """What a search and its ablations look like at one moment.

    Attributes:
        study: Its name.
        database: Where.
        ended: Nothing is under way (any more).
        rungs: `rung`, `epochs`, `networks` and `best` accuracy of each rung, best None before the first result.
        states: Number of trials in each state.
        epochs_done: Trained in the search, those of running jobs included.
        epochs_total: Of the whole search if nothing fails; 0 where that is not known.
        seconds_left: By the rate of the running session; None where it cannot be told.
        quiet_for: Seconds since the last event; None without events.
        running: `trial`, `digest`, `description`, `epoch` and `until` of each job under way.
        events: The last ones in words, the newest last, each with `at` (UTC) and `text`.
        front: Rows of the view `pareto_front`.
        metric: What accuracy is called: `top-1` or `mAP`.
        ablations: `name`, `kind`, `state` and the number of runs `running`, `done`, `failed` and in all.
    """

    study: str
    database: str
    ended: bool
    rungs: Sequence[Mapping[str, Any]]
    states: Mapping[str, int]
    epochs_done: int
    epochs_total: int
    seconds_left: float | None
    quiet_for: float | None
    running: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]
    front: Sequence[Row]
    metric: str
    ablations: Sequence[Mapping[str, Any]]


def frame_of(store: Store, study: Row, now: datetime) -> Frame:
    """The frame of this moment.

    Args:
        store: The database; a driver may write to it meanwhile.
        study: The study's row.
        now: With a time zone.
    """
    search = study["config"].get("search", {})
    rungs, eta = list(search.get("rungs", [])), search.get("eta", 2)
    evaluations = store.evaluations(study["id"])
    trials = store.trials(study["id"])
    jobs = store.jobs(study["id"])
    sessions = store.sessions(study["id"])
    events = store.events(study["id"])
    folder = Path(store.location).parent / "trials"
    running = [_job(job, trials, store, folder) for job in jobs if job["state"] == "running"]
    done = sum({row["trial_id"]: row["epochs"] for row in evaluations}.values())
    before = {row["number"]: row["epochs"] for row in evaluations}  # of a trial's highest rung: later rows are higher
    done += sum(max(0, job["epoch"] - before.get(job["trial"], 0)) for job in running)
    total = total_epochs(search.get("trials", 0), rungs, eta)
    ablations = _ablations(store.run_states(study["id"]))
    under_way = bool(sessions) and sessions[-1]["ended_at"] is None
    left = None
    if under_way and total > done:
        left = _seconds_left(sessions[-1], jobs, running, rungs, total - done, now)
    return Frame(
        study=study["name"],
        database=store.location,
        ended=not under_way and not any(row["running"] for row in ablations),
        rungs=_rungs(evaluations, rungs),
        states=_counts(trials),
        epochs_done=min(done, total) if total else done,
        epochs_total=total,
        seconds_left=left,
        quiet_for=(now - datetime.fromisoformat(events[-1]["at"])).total_seconds() if events else None,
        running=running,
        events=[_event(event, evaluations, trials, rungs) for event in events[-EVENTS:]],
        front=store.pareto_front(study["name"]),
        metric=metric_of(evaluations),
        ablations=ablations,
    )


def total_epochs(trials: int, rungs: Sequence[int], eta: int) -> int:
    """Epochs of a search in which nothing fails: floor(n / eta) of a rung's n networks go on."""
    total, count = 0, trials
    for low, high in zip((0, *rungs), rungs, strict=False):
        total += count * (high - low)
        count //= eta
    return total


def _rungs(evaluations: Sequence[Row], rungs: Sequence[int]) -> list[dict[str, Any]]:
    reached = rungs_of(evaluations)
    epochs = {rung: rows[0]["epochs"] for rung, rows in reached.items()} | dict(enumerate(rungs))
    return [
        {
            "rung": rung,
            "epochs": epochs[rung],
            "networks": len(reached.get(rung, ())),
            "best": max((accuracy_of(row) for row in reached.get(rung, ())), default=None),
        }
        for rung in sorted(epochs)
    ]


def _counts(trials: Sequence[Row]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in trials:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    return counts


def _job(job: Row, trials: Sequence[Row], store: Store, folder: Path) -> dict[str, Any]:
    lines = 0
    for progress in folder.glob(f"{job['number']:05d}-*/progress.jsonl"):
        try:
            lines = max(lines, progress.read_bytes().count(b"\n"))
        except OSError:  # the folder goes away when a search is begun anew
            continue
    return {
        "trial": job["number"],
        "digest": job["digest"],
        "description": store.find(job["digest"])["description"],
        "epoch": min(lines, job["epochs"]),
        "until": job["epochs"],
    }


def _seconds_left(
    session: Row,
    jobs: Sequence[Row],
    running: Sequence[Mapping[str, Any]],
    rungs: Sequence[int],
    left: int,
    now: datetime,
) -> float | None:
    """What is left at the rate of this session."""
    starts = (0, *rungs)
    seconds = (now - datetime.fromisoformat(session["started_at"])).total_seconds()
    mine = [job for job in jobs if job["started_at"] >= session["started_at"]]
    epochs = sum(job["epochs"] - starts[job["rung"]] for job in mine if job["state"] == "done")
    begun = {job["number"]: starts[job["rung"]] for job in mine if job["state"] == "running"}
    epochs += sum(max(0, job["epoch"] - begun.get(job["trial"], job["epoch"])) for job in running)
    return left * seconds / epochs if epochs > 0 and seconds > 0 else None


def _event(event: Row, evaluations: Sequence[Row], trials: Sequence[Row], rungs: Sequence[int]) -> dict[str, str]:
    number, rung = event["trial"], event["rung"]
    epochs = f"{rungs[rung]} epochs" if rung < len(rungs) else f"rung {rung}"
    match event["kind"]:
        case "result":
            found = [row for row in evaluations if row["number"] == number and row["rung"] == rung]
            result = said(found[0]) if found else "a result"
            text = f"trial {number} has {result} after {epochs}"
        case "promote":
            text = f"trial {number} goes on to {epochs}"
        case "start":
            text = f"trial {number} begins"
        case "resume":
            text = f"trial {number} goes on from its checkpoint to {epochs}"
        case "preempt":
            text = f"trial {number} was cut short on its way to {epochs}"
        case "fail":
            reason = next((row["reason"] for row in trials if row["number"] == number), None)
            text = f"trial {number} failed on its way to {epochs}: {reason or 'unknown'}"
        case other:
            text = f"trial {number}: {other} at {epochs}"
    return {"at": event["at"], "text": text}


def _ablations(states: Sequence[Row]) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for row in states:
        own = found.setdefault(
            row["id"],
            {"name": row["name"], "kind": row["kind"], "state": row["state"]}
            | dict.fromkeys(("runs", "running", "done", "failed"), 0),
        )
        own["runs"] += row["runs"]
        if row["run_state"] in ("running", "done", "failed"):
            own[row["run_state"]] += row["runs"]
    return list(found.values())
