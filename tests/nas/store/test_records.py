"""Types of rows against what the queries of the store select."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Select

from nas.store import records as r
from nas.store import tables as m
from nas.store.database import Store

QUERIES: dict[str, tuple[type, Callable[[Store], Any]]] = {
    "studies": (r.StudyRow, lambda store: store.studies()),
    "trials": (r.TrialRow, lambda store: store.trials(1)),
    "results": (r.ResultRow, lambda store: store.evaluations(1)),
    "tests": (r.TestedRow, lambda store: store.evaluations(1, purpose="promotion", split="test")),
    "jobs": (r.JobRow, lambda store: store.jobs(1)),
    "events": (r.EventRow, lambda store: store.events(1)),
    "epochs": (r.EpochRow, lambda store: store.epochs(1)),
    "curves": (r.CurveRow, lambda store: store.epoch_rows(1)),
    "promotions": (r.PromotionRow, lambda store: store.promotions(1)),
    "sessions": (r.SessionRow, lambda store: store.sessions(1)),
    "scores": (r.ScoreRow, lambda store: store.scores(1)),
    "ablations": (r.AblationRow, lambda store: store.ablations(1)),
    "arms": (r.ArmRow, lambda store: store.arms(1)),
    "runs": (r.RunRow, lambda store: store.runs(1)),
    "runs of arms": (r.ArmRunRow, lambda store: store.arm_runs(1)),
    "effects": (r.EffectRow, lambda store: store.effects(1)),
    "seconds": (r.SecondsRow, lambda store: store.epoch_seconds(1)),
    "motion tests": (r.MotionTestRow, lambda store: store.motion_tests("a")),
    "motion outcomes": (r.MotionRow, lambda store: store.motion_outcomes("run", 1, epochs=1, split="val")),
    "networks": (r.NetworkRow, lambda store: store.architectures("8x32x32", 8)),
    "verdicts": (r.VerdictRow, lambda store: store.study_verdicts(1)),
    "states of runs": (r.RunStateRow, lambda store: store.run_states(1)),
}


class Asked(Store):
    """A store that answers nothing, and keeps what it was asked."""

    def __init__(self) -> None:
        self.location = "asked.db"
        self.queries: list[Select[Any]] = []

    def rows(self, query: Any) -> list[Any]:
        self.queries.append(query)
        return []


@pytest.mark.parametrize("name", QUERIES)
def test_a_row_has_the_columns_of_its_type(name: str) -> None:
    of, ask = QUERIES[name]
    store = Asked()
    ask(store)
    assert store.queries
    for query in store.queries:
        assert {column.key for column in query.selected_columns} == of.__required_keys__  # type: ignore[attr-defined]


TABLES = {
    r.StudyRow: m.study,
    r.SessionRow: m.session,
    r.ArchitectureRow: m.architecture,
    r.TrialRow: m.trial,
    r.EpochRow: m.epoch,
    r.PromotionRow: m.promotion,
    r.EventRow: m.event,
    r.ScoreRow: m.score,
    r.AblationRow: m.ablation,
    r.EffectRow: m.effect,
    r.MotionRow: m.motion,
    r.VerdictRow: m.verdict,
    r.JobRow: m.job,
    r.ArmRow: m.arm,
    r.RunRow: m.run,
    r.EvaluationRow: m.evaluation,
}


@pytest.mark.parametrize("of", TABLES, ids=lambda of: of.__name__)
def test_a_column_that_may_lack_a_value_is_typed_so(of: type) -> None:
    texts = {name: kind.__forward_arg__ for name, kind in of.__annotations__.items()}
    for column in TABLES[of].columns:
        kind = re.fullmatch(r"ReadOnly\[(.+)\]", texts[column.key])
        assert kind is not None
        if kind[1] != "Any":
            assert kind[1].endswith(" | None") == bool(column.nullable), column.key
