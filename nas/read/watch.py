"""How far a running search is, read from its database: one frame of `nas watch` as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from nas.places import lines_of, moved
from nas.read.learned import Learned, learned_of
from nas.search.budget import recorded_budget
from nas.search.levels import rungs_of
from nas.search.time_left import search_left
from nas.store import tables as m
from nas.store.database import Store
from nas.store.drivers import Begun, begun_of, drivers_of, is_held
from nas.store.records import EventRow, ResultRow, Row, RunStateRow, StudyRow, TrialRow
from nas.study.fidelity import Fidelity, recorded_fidelity
from nas.study.metric import accuracy_of, metric_of, said
from nas.study.objectives import recorded_floors, recorded_objectives
from nas.train.left import Left

EVENTS = 8  # that a frame shows


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """What a search and its ablations look like at one moment.

    Attributes:
        study: Its name.
        database: Where.
        ended: Nothing is under way (any more).
        driver: What is at work: `search`, `ablation` or `promotion`, or a `driver` that has only begun; empty where
            nothing is.
        died_at: When the last driver was last seen alive (UTC), where it was killed; else None.
        rungs: `rung`, `fidelity` in words, `epochs`, `networks` and `best` accuracy of each rung, best None before the
            first result.
        states: Number of trials in each state.
        epochs_done: Trained in the search, those of jobs under way or cut short included.
        epochs_total: Of the whole search if nothing fails; 0 where that is not known.
        left: The time that the search still needs; None where it cannot be told.
        quiet_for: Seconds since the driver at work last gave a sign of life; None where nothing is at work.
        running: `what` (a trial's number, or a training of an ablation or a promotion by its seed), `digest`,
            `description`, `epoch` and `until` of each training under way.
        events: The last ones in words, the newest last, each with `at` (UTC) and `text`.
        front: Rows of the view `pareto_front`.
        metric: What accuracy is called: `top-1` or `mAP`.
        fidelity: The rungs of the search.
        front_at: The rung that they are of, in words; empty without any.
        learned: Ranks, hypervolume, proposals and expectations.
        ablations: `name`, `kind`, `state` and the number of runs `running`, `done`, `failed` and in all.
    """

    study: str
    database: str
    ended: bool
    driver: str
    died_at: str | None
    rungs: Sequence[Mapping[str, Any]]
    states: Mapping[str, int]
    epochs_done: int
    epochs_total: int
    left: Left | None
    quiet_for: float | None
    running: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]
    front: Sequence[Row]
    metric: str
    fidelity: Fidelity
    front_at: str
    learned: Learned
    ablations: Sequence[Mapping[str, Any]]


def frame_of(store: Store, study: StudyRow, now: datetime) -> Frame:
    """The frame of this moment.

    Args:
        store: The database; a driver may write to it meanwhile.
        study: The study's row.
        now: With a time zone.
    """
    fidelity = recorded_fidelity(study)
    jobs = store.jobs(study["id"])  # before results: a job that ends meanwhile counts as one or the other
    trials = store.trials(study["id"])
    evaluations = store.evaluations(study["id"])
    drivers = drivers_of(store, study["id"], now)
    last = drivers[-1] if drivers else None
    at_work = last if last is not None and last.alive else None
    events = store.events(study["id"])
    begun = begun_of(store.location, jobs, evaluations, fidelity)
    under_way = [one for one in begun.values() if at_work is not None and one.job["state"] == "running"]
    running = [_job(one, store) for one in sorted(under_way, key=lambda one: int(one.job["id"]))]
    done = sum({row["trial_id"]: row["epochs"] for row in evaluations}.values())
    done += sum(one.gained for one in begun.values())
    total = recorded_budget(study).epochs
    front = store.front(study["name"])
    ablations = _ablations(store.run_states(study["id"]))
    left = None
    if at_work is not None and at_work.kind == "search":
        left = search_left(study, at_work.session, jobs, {job["trial"]: job["epoch"] for job in running}, now)
    begins = at_work is None and bool(is_held(Path(store.location)))  # it holds the lock, and has no session yet
    return Frame(
        study=study["name"],
        database=store.location,
        ended=at_work is None and not begins,
        driver="driver" if begins else "" if at_work is None else at_work.kind,
        died_at=last.seen.isoformat() if last is not None and last.died and not begins else None,
        rungs=_rungs(evaluations, fidelity),
        states=_counts(trials),
        epochs_done=min(done, total) if total else done,
        epochs_total=total,
        left=left,
        quiet_for=None if at_work is None else (now - at_work.seen).total_seconds(),
        running=[*running, *(_trainings(store, study["id"]) if at_work is not None else ())],
        events=[_event(event, evaluations, trials, fidelity) for event in events[-EVENTS:]],
        front=front,
        metric=metric_of(evaluations),
        fidelity=fidelity,
        front_at=fidelity.at_epochs(front[0]["epochs"]) if front else "",
        learned=learned_of(
            evaluations, trials, jobs, len(fidelity), recorded_objectives(study), recorded_floors(study)
        ),
        ablations=ablations,
    )


def _rungs(evaluations: Sequence[ResultRow], fidelity: Fidelity) -> list[dict[str, Any]]:
    reached = rungs_of(evaluations)
    epochs = {rung: rows[0]["epochs"] for rung, rows in reached.items()} | dict(enumerate(fidelity.ends))
    return [
        {
            "rung": rung,
            "fidelity": fidelity.label(rung),
            "epochs": epochs[rung],
            "networks": len(reached.get(rung, ())),
            "best": max((accuracy_of(row) for row in reached.get(rung, ())), default=None),
        }
        for rung in sorted(epochs)
    ]


def _counts(trials: Sequence[TrialRow]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in trials:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    return counts


def _job(begun: Begun, store: Store) -> dict[str, Any]:
    job = begun.job
    return {
        "trial": job["number"],
        "what": str(job["number"]),
        "digest": job["digest"],
        "description": store.find(job["digest"])["description"],
        "rung": job["rung"],
        "epoch": begun.epoch,
        "until": job["epochs"],
    }


def _trainings(store: Store, study: int) -> Iterator[dict[str, Any]]:
    """What ablations and promotions train."""
    root = Path(store.location).parent
    for table, what, inside in ((m.run, "run", ""), (m.promotion, "promotion", "training")):
        for row in store.described(study, table):
            if row["state"] == "running":
                lines = lines_of(moved(row["folder"], root) / inside)
                yield {
                    "what": f"{what}, seed {row['seed']}",
                    "digest": row["digest"],
                    "description": row["description"],
                    "epoch": min(lines, row["epochs"]),
                    "until": row["epochs"],
                }


def _event(
    event: EventRow, evaluations: Sequence[ResultRow], trials: Sequence[TrialRow], fidelity: Fidelity
) -> dict[str, str]:
    number, rung = event["trial"], event["rung"]
    place = fidelity.label(rung)
    match event["kind"]:
        case "result":
            found = [row for row in evaluations if row["number"] == number and row["rung"] == rung]
            result = said(found[0]) if found else "a result"
            text = f"trial {number} has {result} {fidelity.at(rung)}"
        case "promote":
            text = f"trial {number} goes on to {place}"
        case "start":
            text = f"trial {number} begins"
        case "resume":
            text = f"trial {number} goes on from its checkpoint to {place}"
        case "preempt":
            text = f"trial {number} was cut short on its way to {place}"
        case "fail":
            reason = next((row["reason"] for row in trials if row["number"] == number), None)
            text = f"trial {number} failed on its way to {place}: {reason or 'unknown'}"
        case other:
            text = f"trial {number}: {other} at {place}"
    return {"at": event["at"], "text": text}


def _ablations(states: Sequence[RunStateRow]) -> list[dict[str, Any]]:
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
