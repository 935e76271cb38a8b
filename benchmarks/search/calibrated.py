"""How often measurements lie in the 90 % intervals that the model told before them, on tables of known results.

    python -m benchmarks.search.calibrated --tables macro,ec_nas --seeds 5

For each search by the sampler `pool`, with and without rungs: the share within the intervals as they are told, widened
or narrowed by how the model had fared (`nas.search.calibration`), and by the model's own deviation alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.search import ours
from benchmarks.search.purse import method
from benchmarks.search.readers import READERS
from benchmarks.search.tables import Table
from nas.search.calibration import expectations, interval
from nas.search.decide import Begin, Decider, GoOn


class Watched(Decider):
    """Keeps what the model expected of each step, as rows of jobs, and what came of it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As a decider."""
        super().__init__(*args, **kwargs)
        self.jobs: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []

    def decide(self, ledger: Any, seen: Any) -> Any:
        """As a decider's."""
        last = len(self._search.rungs) - 1
        place = {digest: number for number, digest in enumerate(seen.digests)}
        self.results = [
            {"trial_id": place[r.digest], "rung": r.rung, "num_clips": r.videos, "top1": 1 - r.errors[0]}
            for r in seen.results
            if r.rung == last
        ]
        decision = super().decide(ledger, seen)
        match decision:
            case Begin(proposal=proposal):
                self._keep(len(ledger), 0, proposal.reason)
            case GoOn(number=number, rung=rung, reason=reason):
                self._keep(number, rung, reason)
        return decision

    def _keep(self, number: int, rung: int, reason: Any) -> None:
        at = f"{len(self.jobs):08}"
        row = {"trial_id": number, "number": number, "digest": "", "rung": rung, "started_at": at, "ended_at": at}
        values = (None,) * 3 if reason is None else (reason.error, reason.deviation, reason.gain)
        names = ("expected_error", "expected_spread", "expected_gain")
        self.jobs.append({**row, **dict(zip(names, values, strict=True))})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default=",".join(READERS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--benchmarks", type=Path, metavar="FOLDER", help="of the published tables")
    given = parser.parse_args()
    for name in given.tables.split(","):
        table = READERS[name](given.benchmarks)
        for scheduler in ("none", "freeze_thaw") if len(table.fidelities) > 1 else ("none",):
            told, own, count = 0, 0, 0
            for seed in range(given.seeds):
                for one, within in watched(table, scheduler, seed):
                    told, own, count = told + one, own + within, count + 1
            print(
                f"{name} {scheduler}: {told} of {count} ({told / count:.3f}); own deviation {own / count:.3f}",
                flush=True,
            )


def watched(table: Table, scheduler: str, seed: int) -> list[tuple[bool, bool]]:
    """Of each expectation that was measured, whether it was within the interval told, and within the model's own."""
    made: list[Watched] = []

    def deciders(*args: Any, **kwargs: Any) -> Watched:
        made.append(Watched(*args, **kwargs))
        return made[-1]

    method(ours.decided("pool", scheduler, decider=deciders))(table, seed, table.budget)
    (decider,) = made
    num_rungs = 1 if scheduler == "none" else len(table.fidelities)
    found = []
    for one in expectations(decider.jobs, decider.results, num_rungs):
        if one.measured is None:
            continue
        spread = next(
            job["expected_spread"] for job in decider.jobs if (job["number"], job["rung"]) == (one.number, one.rung)
        )
        low, high = interval(1.0 - one.accuracy, spread, ours.VIDEOS)
        found.append((one.inside, low - 1e-12 <= 1.0 - one.measured <= high + 1e-12))
    return found


if __name__ == "__main__":
    main()
