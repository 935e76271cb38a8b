"""The time that a search still needs: exact where costs are, and within its range where they are drawn."""

from __future__ import annotations

import io
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nas.cli.output import Progress
from nas.search.time_left import NOT_YET, Left, Work, search_left, time_left

EXACT = [(Work(rung=0, epochs=2, macs=macs), 2 * (1.0 + 1e-6 * macs)) for macs in (1e6, 3e6, 9e6)]


def test_the_model_is_exact_where_seconds_are_a_line_in_macs() -> None:
    under_way = [Work(rung=1, epochs=3, macs=5e6)]
    left = time_left(EXACT, under_way, {0: (2, 2.0)}, at_once=2)
    assert left is not None
    mean = 2 * (1.0 + 13 / 3)
    assert left.middle == pytest.approx((3 * 6.0 + 2 * mean) / 2 + mean / 4, rel=0.01)  # later jobs count a little more
    assert 0 < left.low < left.middle < left.high


def test_the_last_job_holds_the_end_while_other_workers_are_idle() -> None:
    alone = time_left(EXACT, [], {0: (8, 2.0)}, at_once=1)
    shared = time_left(EXACT, [], {0: (8, 2.0)}, at_once=4)
    assert alone is not None
    assert shared is not None
    assert shared.middle == pytest.approx(alone.middle * (1 / 4 + 0.5 * 0.75 / 8))


def test_networks_of_a_rung_cost_what_those_cost_that_it_has_had() -> None:
    dear = [(Work(rung=1, epochs=1, macs=20e6), 21.0)] * 30
    left = time_left([*EXACT, *dear], [], {1: (10, 1.0)}, at_once=1)
    assert left is not None
    assert left.middle == pytest.approx(210, rel=0.1)


def test_the_bar_of_a_search_states_no_rate_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    progress = Progress("epochs", every=0.0)
    for done, left in enumerate((NOT_YET, NOT_YET, Left(low=20, middle=50, high=80))):
        progress.update(done, 9, left=left)
    assert written.getvalue().count("ETA") == 1
    assert "ETA 20s to 80s" in written.getvalue()


def test_nothing_is_said_before_a_few_jobs_have_ended() -> None:
    assert time_left(EXACT[:2], [], {0: (2, 1.0)}, at_once=1) is None


@pytest.mark.parametrize("same", [True, False])
def test_it_is_finite_whatever_the_costs(same: bool) -> None:
    rng = random.Random(0)
    for _ in range(200):
        jobs = [
            (Work(rung=0, epochs=1, macs=1e6 if same else rng.uniform(1, 1e12)), rng.uniform(1e-3, 1e4))
            for _ in range(5)
        ]
        left = time_left(jobs, [jobs[0][0]], {0: (5, 1.0)}, at_once=1)
        assert left is not None
        assert 0 <= left.low <= left.middle <= left.high < float("inf")


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (38.0, 41.0, "ETA 40s"),
        (20.0, 80.0, "ETA 20s to 80s"),
        (400.0, 600.0, "ETA 7m to 10m"),
        (5000.0, 9000.0, "ETA 83m to 2h30m"),
    ],
)
def test_it_is_said_with_two_digits(low: float, high: float, text: str) -> None:
    assert str(Left(low=low, middle=(low + high) / 2, high=high)) == text


def test_it_is_within_30_percent_from_a_third_of_a_search_on() -> None:
    """Of simulated searches of 126 networks; what is beyond is the luck of who comes to the last rung."""
    off, held = [], []
    for seed in range(8):
        for workers in (1, 2):
            jobs, ended = simulated(seed, workers)
            session = {"started_at": at(0).isoformat(), "workers": workers}
            for moment in range(20, 57, 4):
                second = ended * moment / 60
                left = search_left(STUDY, session, *seen(jobs, second), at(second))
                assert left is not None
                off.append(abs(left.middle / (ended - second) - 1))
                held.append(left.low <= ended - second <= left.high)
    assert sorted(off)[len(off) // 2] < 0.2
    assert sum(error <= 0.3 for error in off) >= 0.85 * len(off)
    assert sum(held) >= 0.5 * len(held)


def test_epochs_of_which_nothing_is_known_take_what_one_took_on_average() -> None:
    same = time_left([(Work(rung=0, epochs=2, macs=1e6), 10.0)] * 4, [], {}, at_once=1, open_epochs=8.0)
    assert same is not None
    assert same.middle == pytest.approx(40.0)
    assert (same.low, same.high) == (pytest.approx(36.0), pytest.approx(44.0))
    drawn = time_left(EXACT, [], {}, at_once=1, open_epochs=8.0)
    assert drawn is not None
    assert drawn.middle == pytest.approx(8 * (2.0 + 4.0 + 10.0) / 3, rel=0.03)
    assert drawn.high - drawn.low > 0.3 * drawn.middle


@pytest.mark.parametrize(
    ("changed", "epochs"),
    [
        ({"scheduler": "freeze_thaw"}, 126 * 2 + 42 * 4 + 14 * 12 - 20),
        ({"scheduler": "freeze_thaw", "max_epochs": 100}, 80),
        ({"scheduler": "none"}, 126 * 18 - 20),
        ({"max_epochs": 100}, 80),
    ],
)
def test_the_time_follows_the_scheduler_and_the_limit_of_epochs(changed: dict[str, Any], epochs: int) -> None:
    study = {"config": {"search": STUDY["config"]["search"] | changed}}
    rows = [
        {
            "id": number,
            "number": number,
            "rung": 0,
            "epochs": 2,
            "state": "done",
            "seconds": 10.0,
            "started_at": at(10.0 * number).isoformat(),
            "macs": 1e7,
        }
        for number in range(10)
    ]
    left = search_left(study, {"started_at": at(0).isoformat(), "workers": 1}, rows, {}, at(100))
    assert left is not None
    assert left.middle == pytest.approx(5.0 * epochs, rel=0.05)


def test_a_driver_that_does_something_else_needs_no_time_for_the_search() -> None:
    jobs, ended = simulated(0, 1)
    rows, epochs = seen(jobs, ended + 1)
    assert search_left(STUDY, {"started_at": at(0).isoformat(), "workers": 1}, rows, epochs, at(ended + 1)) is None


RUNGS = [2, 6, 18]
TRIALS, ETA = 126, 3
STUDY = {"config": {"search": {"rungs": RUNGS, "trials": TRIALS, "eta": ETA}}}


def at(second: float) -> datetime:
    return datetime(2026, 11, 29, tzinfo=UTC) + timedelta(seconds=second)


def simulated(seed: int, workers: int) -> tuple[list[dict[str, Any]], float]:
    """Jobs of a search whose networks cost 1 to 30 and whose larger ones are somewhat better, and when it ends."""
    rng = random.Random(seed)
    networks = [{"macs": 1e7 * 30 ** rng.random(), "luck": rng.gauss(0, 1)} for _ in range(TRIALS)]
    results: list[list[tuple[float, int]]] = [[] for _ in RUNGS]
    gone: list[set[int]] = [set() for _ in RUNGS]
    slots, jobs, started = [0.0] * workers, list[dict[str, Any]](), 0
    pending: list[dict[str, Any]] = []
    while True:
        now = min(slots)
        for job in [job for job in pending if job["end"] <= now]:
            pending.remove(job)
            network = networks[job["number"]]
            results[job["rung"]].append((network["luck"] + 0.5 * network["macs"] / 3e8, job["number"]))
        chosen = None
        for rung in range(len(RUNGS) - 1, 0, -1):
            best = sorted(results[rung - 1], reverse=True)[: len(results[rung - 1]) // ETA]
            ready = [number for _, number in best if number not in gone[rung]]
            if ready and len(gone[rung]) < TRIALS // ETA**rung:
                chosen = (ready[0], rung)
                break
        if chosen is None and started < TRIALS:
            chosen, started = (started, 0), started + 1
        if chosen is None:
            if not pending:
                break
            slots[slots.index(now)] = min(job["end"] for job in pending)
            continue
        number, rung = chosen
        gone[rung].add(number)
        epochs = RUNGS[rung] - (0, *RUNGS)[rung]
        seconds = epochs * (1.0 + 4.0 * networks[number]["macs"] / 1e8) * rng.uniform(0.85, 1.15)
        job = {"number": number, "rung": rung, "epochs": RUNGS[rung], "macs": networks[number]["macs"]}
        jobs.append({**job, "begin": now, "end": now + seconds, "seconds": seconds})
        pending.append(jobs[-1])
        slots[slots.index(now)] = now + seconds
    return jobs, max(job["end"] for job in jobs)


def seen(jobs: list[dict[str, Any]], second: float) -> tuple[list[dict[str, Any]], dict[int, int]]:
    """The rows of jobs as they stand at a second, and the epochs of those under way."""
    rows, epochs = [], {}
    for job in (job for job in jobs if job["begin"] <= second):
        done = job["end"] <= second
        state = {"state": "done", "seconds": job["seconds"]} if done else {"state": "running", "seconds": None}
        rows.append({**job, **state, "started_at": at(job["begin"]).isoformat()})
        first = (0, *RUNGS)[job["rung"]]
        share = (second - job["begin"]) / (job["end"] - job["begin"])
        epochs[job["number"]] = first + int((job["epochs"] - first) * share)
    return rows, epochs
