"""The scheduler on a table: the same rules as on training, and a price for every result."""

from __future__ import annotations

import random
from collections.abc import Sequence

from nas.search.scheduler import Rules
from nas.search.tables import TableRun, run_on_table

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
