"""The scheduler on a table: the same rules as on training, and a price for every result."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from benchmarks.search.decisions import TableRun, decide_on_table, run_on_table
from nas.search.decide import Begin, Decider, Decision
from nas.search.ledger import Ledger
from nas.search.pool import Candidate, Supply, build_pool
from nas.search.sampler import History
from nas.search.scheduler import Rules
from nas.study.files import load_study
from tests.nas.studies import write_study

MACS = [10 ** (6 + i / 10) for i in range(40)]
RULES = Rules(num_rungs=3, eta=3, num_trials=27)


def run(seed: int, *, trials: int = 40) -> TableRun:
    """A search whose networks get better with MACs and with training."""
    order = random.Random(seed).sample(range(40), trials)

    def choose(tried: Sequence[int]) -> int | None:
        return order[len(tried)] if len(tried) < trials else None

    return run_on_table(
        macs=[int(m) for m in MACS],
        error=lambda row, rung: 1.0 - row / 80 - rung / 10,
        choose=choose,
        rules=RULES,
        rungs=(1, 3, 9),
        strata=1,
    )


def test_a_table_is_searched_like_training() -> None:
    result = run(0)
    assert result.ledger.counts(3) == (27, 9, 3)
    assert len(set(result.networks)) == 27
    assert result.spent[-1][0] == 27 * 1 + 9 * 2 + 3 * 6
    assert [spent for spent, _, _ in result.spent] == sorted(spent for spent, _, _ in result.spent)


def test_the_same_choices_give_the_same_search() -> None:
    assert run(1) == run(1)
    assert run(1).networks != run(2).networks


def test_a_table_that_runs_out_ends_the_search() -> None:
    assert run(0, trials=9).ledger.counts(3) == (9, 3, 1)


def test_a_search_ends_when_the_model_expects_little_more(tmp_path: Path) -> None:
    """Errors follow from the operators, so after some networks nothing is open any more."""
    kinds = {"values": ["2d", "3d", "2plus1d", "p3d_a", "p3d_b"], "per": "block"}
    space = {"domains": {"depth": ["2-2"], "kind": kinds}}
    pool = None
    counts = []
    for patience in (0, 3):
        search = {"sampler": "pool", "scheduler": "none", "trials": 80, "patience": patience, "rungs": [3]}
        study = load_study(write_study(tmp_path / "t.yaml", {"space": space, "search": search}))
        pool = pool or build_pool(study, num_classes=8)
        tried: list[Candidate] = []

        def train(candidate: Candidate, rung: int, tried: list[Candidate] = tried) -> tuple[float, int]:
            tried.append(candidate)
            return 0.2 + 0.1 * sum(value == "2d" for value in candidate.params.values()), 1000

        decider = Decider(study.search, study.space, Supply(study, pool, num_classes=8), study.seed)
        ledger = decide_on_table(decider, num_rungs=1, costs=("macs",), train=train)
        counts.append(len(ledger))
        best = min(c.cost.macs for c in pool.candidates if "2d" not in c.params.values())
        assert min(c.cost.macs for c in tried if "2d" not in c.params.values()) == best
    assert counts[0] == 80
    assert counts[1] < 60


def test_named_networks_and_the_even_start_come_before_the_model(tmp_path: Path) -> None:
    named = [{"family": "resnet", "depth": "1-1", "stem_width": 8, "stem": "1x3x3/2", "kind": k} for k in ("2d", "3d")]
    search = {"sampler": "pool", "scheduler": "freeze_thaw", "trials": 12, "initial": 4, "start_with": named}
    study = load_study(write_study(tmp_path / "t.yaml", {"search": search}))
    pool = build_pool(study, num_classes=8)
    origins = []

    class Heard(Decider):
        def decide(self, ledger: Ledger, seen: History) -> Decision:
            decision = super().decide(ledger, seen)
            if isinstance(decision, Begin):
                origins.append(decision.proposal.origin)
            return decision

    decider = Heard(study.search, study.space, Supply(study, pool, num_classes=8), study.seed)
    decide_on_table(decider, num_rungs=3, costs=("macs",), train=lambda candidate, rung: (0.5 - rung / 10, 100))
    assert origins[:6] == ["named"] * 2 + ["initial"] * 4
    assert {origin.partition(",")[0] for origin in origins[6:]} <= {"pool"}
