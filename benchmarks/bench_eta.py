"""How well is the time told that a search still needs? Recorded searches are replayed from their databases.

    python benchmarks/bench_eta.py runs/a/study.db runs/b/study.db

At twenty moments of the longest session of each search, what was recorded by then is given to the model, and what it
says is compared with when the session ended. Beside it, what the rate of epochs alone would have said. Nothing is
trained; a database of a search that ended is needed, such as `nas search studies/kinetics_small.yaml data=motion`
leaves.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from nas.search.budget import recorded_budget
from nas.search.time_left import search_left
from nas.store.database import Store
from nas.study.fidelity import recorded_fidelity

MOMENTS = 20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("databases", nargs="+")
    for path in parser.parse_args().databases:
        store = Store(path)
        try:
            study = store.study()
            sessions = [row for row in store.sessions(study["id"]) if row["ended_at"]]
            session = max(sessions, key=lambda row: row["wall_seconds"] or 0.0)
            replay(path, study, session, store.jobs(study["id"]))
        finally:
            store.close()


def replay(path: str, study: Mapping[str, Any], session: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]]) -> None:
    """Prints what the model said at each moment of a session, and how far off that was."""
    jobs = [job for job in jobs if job["state"] == "done" and job["started_at"] <= session["ended_at"]]
    begin, end = min(map(_began, jobs)), max(_began(job) + timedelta(seconds=job["seconds"]) for job in jobs)
    whole = (end - begin).total_seconds()
    fidelity, total = recorded_fidelity(study), recorded_budget(study).epochs
    print(f"{path}: {len(jobs)} jobs, {total} epochs, {whole:.0f} s, {session['workers']} worker(s)")
    print(f"{'done':>6}{'left':>8}{'model':>8}{'range':>16}{'error':>8}{'by rate':>9}{'error':>8}")
    off = []
    for moment in range(2, MOMENTS):
        now = begin + moment / MOMENTS * (end - begin)
        rows, epochs, trained = _seen(jobs, now, (0, *fidelity.ends))
        left, true = search_left(study, session, rows, epochs, now), (end - now).total_seconds()
        rate = (total - trained) * (now - begin).total_seconds() / max(trained, 1e-9)
        if left is not None:
            error = left.middle / true - 1
            off += [abs(error)] if 3 * moment >= MOMENTS else []
            words = f"{left.middle:>7.0f}s{f'{left.low:.0f} to {left.high:.0f}':>16}{error:>+8.0%}"
        else:
            words = " " * 32
        print(f"{moment / MOMENTS:>6.0%}{true:>7.0f}s{words}{rate:>8.0f}s{rate / true - 1:>+8.0%}")
    within = sum(error <= 0.3 for error in off)
    print(f"from a third on: {within} of {len(off)} within 30 %, mean error {sum(off) / len(off):.0%}\n")


def _began(job: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(job["started_at"])


def _seen(
    jobs: Sequence[Mapping[str, Any]], now: datetime, starts: Sequence[int]
) -> tuple[list[dict[str, Any]], dict[int, int], float]:
    """Jobs as they stood at a moment, the epochs of those under way, and the epochs trained by then."""
    rows, epochs, trained = [], {}, 0.0
    for job in jobs:
        since = (now - _began(job)).total_seconds()
        if since < 0:
            continue
        share, first = min(1.0, since / job["seconds"]), starts[job["rung"]]
        rows.append(dict(job) if share == 1 else {**job, "state": "running", "seconds": None})
        epochs[job["number"]] = first + int((job["epochs"] - first) * share)
        trained += (job["epochs"] - first) * share
    return rows, epochs, trained


if __name__ == "__main__":
    main()
