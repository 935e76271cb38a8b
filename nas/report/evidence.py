"""Importances, ablations, verdicts and motion tests, from rows of the store to values. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from nas.ablation.answer import stated_confidence
from nas.report.values import Ablation, Effect, Importance, Motion, Verdict
from nas.store import Row

TESTS = ("forward", "reversed", "shuffled", "frozen", "single")


def importances(rows: Sequence[Row]) -> tuple[Importance, ...]:
    """Of each rung, method and objective; the highest rung first.

    Args:
        rows: Of the view `importance`.
    """

    def key(row: Row) -> tuple[int, str, str]:
        return -row["rung"], row["method"], row["objective"]

    found = []
    for _, group in groupby(sorted(rows, key=key), key=key):
        members = sorted(group, key=lambda row: -row["importance"])
        first = members[0]
        found.append(
            Importance(
                method=first["method"],
                objective=first["objective"],
                epochs=first["epochs"],
                networks=first["networks"],
                factors=tuple((row["factor"], row["importance"]) for row in members if not row["other"]),
                pairs=tuple(
                    (f"{row['factor']} × {row['other']}", row["importance"]) for row in members if row["other"]
                ),
            )
        )
    return tuple(found)


def ablation(row: Row, arms: Sequence[Row], runs: Sequence[Row], effects: Sequence[Row]) -> Ablation:
    """One ablation with its effects.

    Args:
        row: Of `Store.ablations`.
        arms: Of `Store.arms`; they know the networks.
        runs: Of `Store.arm_runs`; one that stands for two arms counts twice.
        effects: Of `Store.effects`.
    """
    digests = {arm["id"]: arm["digest"] for arm in arms}
    return Ablation(
        name=row["name"],
        kind=row["kind"],
        state=row["state"],
        sentence=row["sentence"] or "",
        design=row["design"] or {},
        margin=_margin(row["design"]),
        confidence=stated_confidence(effects, row["design"] if isinstance(row["design"], dict) else {}),
        runs=len(runs),
        done=sum(run["state"] == "done" for run in runs),
        effects=tuple(_effect(effect, digests.get(effect["arm_id"])) for effect in effects),
    )


def verdicts(rows: Sequence[Row]) -> tuple[Verdict, ...]:
    """Every verdict.

    Args:
        rows: Of `Store.study_verdicts`.
    """
    return tuple(
        Verdict(
            claim=row["claim"],
            document=row["document"],
            stated=row["stated"],
            difference=row["difference"],
            low=row["low"],
            high=row["high"],
            pairs=row["pairs"],
            word=row["word"],
        )
        for row in rows
    )


def motions(rows: Sequence[Row]) -> tuple[Motion, ...]:
    """Every network's motion tests.

    Args:
        rows: Of the view `motion_tests`.
    """
    return tuple(
        Motion(
            digest=row["digest"],
            description=row["description"],
            source=row["source"],
            seed=row["seed"],
            epochs=row["epochs"],
            split=row["split"],
            num_clips=row["num_clips"],
            top1={test: row[test] for test in TESTS if row[test] is not None},
        )
        for row in rows
    )


def _effect(row: Row, digest: str | None) -> Effect:
    return Effect(
        factor=row["factor"],
        level=row["level"],
        reference=row["reference"],
        digest=digest,
        pairs=row["pairs"],
        difference=row["difference"],
        low=row["low"],
        high=row["high"],
        p_holm=row["p_holm"],
        macs_ratio=row["macs_ratio"],
        word=row["word"],
    )


def _margin(design: Any) -> float | None:
    value = design.get("margin") if isinstance(design, dict) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None
