"""Time that a search still needs, as a range, and its progress: epochs done of how many.

The scheduler gives most epochs to few networks, and networks of a space differ in cost by orders of magnitude, so that
epochs an hour say little. Here the seconds of jobs that have ended are explained by a + b x MACs per epoch. What is to
come is the rest of the jobs under way, the networks that are still to be drawn, and those that are still to go on to a
higher rung, each rung with the costs of the networks that it has had. Where a model decides who trains on, nothing is
known of who is to come: the epochs that are left then take what an epoch took on average. The range is of the mean of
what may come if costs are drawn as they were drawn so far; it knows nothing of a machine that gets other work.
`benchmarks/bench_eta.py` holds it against recorded searches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import inf, sqrt
from typing import Any

from nas.search.budget import Budget, recorded_budget
from nas.study.fidelity import recorded_fidelity
from nas.train.left import Left

WIDTH = 1.28  # standard errors on each side
MODEL_ERROR = 0.1  # share of the time by which the range is wide at least: machines are not that even
RECENT = 12  # jobs after which one counts half in what an epoch takes, for machines get other work
HALF = 32  # jobs after which one counts half
PRIOR = 3  # networks that the mean of the rung below counts as
FEW = 3  # jobs that must have ended before anything is said


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Training at one rung.

    Attributes:
        rung: From 0.
        epochs: In those of full fidelity.
        macs: Of the network, at the full clip.
        drawn: Whether a sampler drew the network; the initial design is spread over all costs, as later ones are not.
    """

    rung: int
    epochs: float
    macs: float
    drawn: bool = True


NOT_YET = Left(low=inf, middle=inf, high=inf)  # of a search of which nothing can be said yet


def search_left(
    study: Mapping[str, Any],
    session: Mapping[str, Any],
    jobs: Sequence[Mapping[str, Any]],
    epochs: Mapping[int, int],
    now: datetime,
) -> Left | None:
    """The time that a recorded search still needs.

    Args:
        study: Its row.
        session: Row of the start of the driver that is under way; where it has ended jobs enough, only those count.
        jobs: Rows of `Store.jobs`.
        epochs: By the number of its trial, the epochs that each job under way has reached.
        now: With a time zone.

    Returns:
        None where the driver trains no network of the search, or before enough jobs have ended to say.
    """
    fidelity, search = recorded_fidelity(study), study["config"].get("search", {})
    if not any(job["started_at"] >= session["started_at"] for job in jobs):
        return None  # the driver does something else
    starts = (0, *fidelity.ends)
    jobs = [job for job in jobs if job["rung"] < len(fidelity) and job["macs"]]
    latest = {job["number"]: job for job in jobs}
    cut = {(job["number"], job["rung"]) for job in jobs if job["state"] == "preempted"}

    def work(job: Mapping[str, Any], begun: int) -> Work:
        rung = job["rung"]
        epochs = max(0, job["epochs"] - begun) * fidelity.worth(rung)
        return Work(rung=rung, epochs=epochs, macs=job["macs"], drawn=job["number"] >= search.get("initial", 0))

    whole = [
        job for job in jobs if job["state"] == "done" and job["seconds"] and (job["number"], job["rung"]) not in cut
    ]
    mine = [job for job in whole if job["started_at"] >= session["started_at"]]
    measured = [(work(job, starts[job["rung"]]), job["seconds"]) for job in (mine if len(mine) >= 3 * FEW else whole)]
    under_way = [
        work(job, max(starts[job["rung"]], epochs.get(job["number"], 0)))
        for job in latest.values()
        if job["state"] in ("running", "preempted")
    ]
    budget = recorded_budget(study)
    here = [{job["number"]: job["state"] for job in jobs if job["rung"] == rung} for rung in range(len(fidelity))]
    counts = budget.networks([[number for number, state in own.items() if state == "failed"] for own in here])
    if counts is None:
        trained = sum(job["epochs"] - starts[job["rung"]] for job in whole)
        worth = sum(work(job, starts[job["rung"]]).epochs for job in whole) / trained if trained else 1.0
        open_epochs, counts = max(0, budget.epochs - _spent(budget, here)) * worth, (0,) * len(here)
    else:
        open_epochs = 0.0
    to_come = {
        rung: (max(0, count - len(own)), budget.steps[rung] * fidelity.worth(rung))
        for rung, (count, own) in enumerate(zip(counts, here, strict=True))
    }
    return time_left(measured, under_way, to_come, open_epochs=open_epochs, at_once=_at_once(session, jobs, now))


def _spent(budget: Budget, here: Sequence[Mapping[int, str]]) -> int:
    """Epochs of all jobs that have ended well, or are to."""
    return sum(
        sum(state != "failed" for state in own.values()) * step for own, step in zip(here, budget.steps, strict=True)
    )


def _at_once(session: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]], now: datetime) -> float:
    """Jobs that ran at a time on average lately."""
    mine = [job for job in jobs if job["started_at"] >= session["started_at"]][-4 * HALF :]
    workers = max(1, session["workers"] or 1)
    if len(mine) < FEW * workers:
        return float(workers)
    begun = [(now - datetime.fromisoformat(job["started_at"])).total_seconds() for job in mine]
    busy = sum(job["seconds"] or 0.0 for job in mine)
    busy += sum(since for job, since in zip(mine, begun, strict=True) if job["state"] == "running")
    return min(float(workers), max(0.2, busy / max(1.0, *begun)))


def time_left(
    measured: Sequence[tuple[Work, float]],
    under_way: Sequence[Work],
    to_come: Mapping[int, tuple[int, float]],
    *,
    at_once: float,
    open_epochs: float = 0.0,
) -> Left | None:
    """The time that a search still needs.

    Args:
        measured: Jobs that have ended, each with its seconds.
        under_way: What is left of the jobs that run or wait.
        to_come: By rung, how many networks are still to reach it, and the epochs that each takes there.
        at_once: Jobs that run at a time on average.
        open_epochs: Further epochs, of which it is not known on which networks and rungs they will be spent.

    Returns:
        None before enough jobs have ended to say.
    """
    measured = [(work, seconds) for work, seconds in measured if work.epochs > 0 and seconds > 0]
    if len(measured) < FEW:
        return None
    fixed, by_macs = _fit(measured)

    def predicted(work: Work) -> float:
        return work.epochs * (fixed + by_macs * work.macs)

    misses = [seconds / predicted(work) - 1.0 for work, seconds in measured]
    weights = _weights(len(misses), RECENT)
    scatter = sum(w * miss * miss for w, miss in zip(weights, misses, strict=True)) / sum(weights)  # of a job, relative
    total, last = sum(map(predicted, under_way)), 0.0
    variance = sum(predicted(work) ** 2 * scatter for work in under_way)
    costs = [(work, fixed + by_macs * work.macs) for work, _ in measured]
    design = [cost for work, cost in costs if not work.drawn] or [cost for _, cost in costs]
    mean = sum(design) / len(design)
    spread = sum((cost - mean) ** 2 for cost in design) / len(design)
    for rung, (count, epochs) in sorted(to_come.items()):
        own = _without_extremes([cost for work, cost in costs if work.rung == rung and (work.drawn or rung)])
        weights, below = _weights(len(own), HALF), mean
        weight = sum(weights) + PRIOR
        # A rung that has had few networks is taken to be like the rung below, and the first like the initial design.
        mean = (sum(w * cost for w, cost in zip(weights, own, strict=True)) + PRIOR * below) / weight
        off = sum(w * (cost - mean) ** 2 for w, cost in zip(weights, own, strict=True))
        spread = (off + PRIOR * (spread + (below - mean) ** 2)) / weight
        total += count * epochs * mean
        last = epochs * mean if count else last
        variance += (spread + scatter * mean * mean) * epochs**2 * (count + count**2 / weight)
    if open_epochs > 0:
        weights, each = _weights(len(measured), HALF), [seconds / work.epochs for work, seconds in measured]
        shares = [w * work.epochs for w, (work, _) in zip(weights, measured, strict=True)]
        mean = sum(share * cost for share, cost in zip(shares, each, strict=True)) / sum(shares)
        spread = sum(share * (cost - mean) ** 2 for share, cost in zip(shares, each, strict=True)) / sum(shares)
        a_job = sum(shares) / sum(weights)
        total += open_epochs * mean
        last = min(a_job, open_epochs) * mean
        variance += spread * open_epochs * (a_job + open_epochs / sum(weights))
    if not total:
        return None
    # At the end workers run dry one by one while the last job trains on: half of a job for each but one, on average.
    dry = 0.5 * (1.0 - 1.0 / at_once) * last if at_once > 1.0 else 0.0
    seconds = max(total / at_once + dry, max(map(predicted, under_way), default=0.0))
    half = max(WIDTH * sqrt(variance) / at_once, MODEL_ERROR * seconds)
    return Left(low=max(0.0, seconds - half), middle=seconds, high=seconds + half)


def _without_extremes(costs: Sequence[float]) -> list[float]:
    """The dearest tenth, one at least, as dear as the next: a mean of a few costs is otherwise that of one network."""
    if len(costs) <= FEW:
        return list(costs)
    most = sorted(costs)[-1 - max(1, len(costs) // 10)]
    return [min(cost, most) for cost in costs]


def _weights(count: int, half: float) -> list[float]:
    """Of jobs, oldest first: those of before count less, for samplers move on and machines get other work."""
    return [0.5 ** ((count - 1 - place) / half) for place in range(count)]


def _fit(measured: Sequence[tuple[Work, float]]) -> tuple[float, float]:
    """Least squares of seconds by epochs x (a + b x MACs), neither negative, so that the sum of seconds is right."""
    rows = [
        (w, x.epochs, x.epochs * x.macs, s) for w, (x, s) in zip(_weights(len(measured), RECENT), measured, strict=True)
    ]
    xx, yy = sum(w * x * x for w, x, _, _ in rows), sum(w * y * y for w, _, y, _ in rows)
    xy = sum(w * x * y for w, x, y, _ in rows)
    xs, ys = sum(w * x * s for w, x, _, s in rows), sum(w * y * s for w, _, y, s in rows)
    determinant = xx * yy - xy * xy
    if determinant > 1e-9 * xx * yy:
        a, b = (yy * xs - xy * ys) / determinant, (xx * ys - xy * xs) / determinant
    else:  # all networks cost the same
        a, b = xs / xx, 0.0
    if b < 0:
        a, b = xs / xx, 0.0
    elif a < 0:
        a, b = 0.0, ys / yy
    right = sum(w * s for w, _, _, s in rows) / sum(w * (a * x + b * y) for w, x, y, _ in rows)
    return a * right, b * right
