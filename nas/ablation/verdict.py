"""Verdicts: what documents claim, held against what an ablation of the same comparison measured."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nas.ablation.answer import answer_of, level_of, results_of, selecting
from nas.ablation.config import BASE, AblationConfig, Claim, recorded
from nas.errors import NotFoundError, StoreError, StudyError, unknown
from nas.store import tables as m
from nas.store import write as s
from nas.store.damage import damaged
from nas.store.database import Store
from nas.store.records import AblationRow, ArmRow, StudyRow, VerdictRow

RULE = ("seeds", "min_seeds", "looks", "epochs", "confidence", "margin", "precision")
"""What of a design decides when it is looked at, and at which level."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """One claim and what was measured.

    Attributes:
        claim: As the study states it.
        word: `reproduced`, `contradicted` or `undecided`.
        difference: Of top-1, in shares of 1; None where no pair was trained.
        low: Lower end of its interval.
        high: Upper end.
        pairs: Trained with equal seeds.
    """

    claim: Claim
    word: str
    difference: float | None
    low: float | None
    high: float | None
    pairs: int


def latest(store: Store, study: StudyRow) -> AblationRow:
    """The newest ablation of a study that answers its claims.

    Raises:
        NotFoundError: There is none.
    """
    found = [row for row in store.ablations(study["id"]) if row["kind"] == "ablate"]
    if not found:
        raise NotFoundError(
            f"{study['name']} has no ablation in {store.location} yet; run `nas ablate` on the study first"
        )
    return found[-1]


def recorded_config(store: Store, ablation: AblationRow, claims: Sequence[Claim] = ()) -> AblationConfig:
    """What was decided before an ablation was begun, by which its results are judged, whatever its study says today.

    Args:
        store: The database.
        ablation: Its row.
        claims: Of the study; they are no part of the design.

    Raises:
        StoreError: The design in the database is damaged.
    """
    try:
        return dataclasses.replace(recorded(ablation["design"]), claims=tuple(claims))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        name = ablation["name"]
        raise damaged(store.location, f"the design of the ablation {name} cannot be read: {error!r}") from error


def changed(config: AblationConfig, begun: AblationConfig) -> dict[str, tuple[Any, Any]]:
    """Where a study says something else of the rule of decision than when the ablation was begun: now, and then."""
    pairs = {name: (getattr(config, name), getattr(begun, name)) for name in RULE}
    return {name: (now, then) for name, (now, then) in pairs.items() if now != then}


def stated_confidence_of(store: Store, ablation: AblationRow, verdicts: Sequence[VerdictRow]) -> float | None:
    """The confidence of the intervals of stored verdicts; None where the record does not say.

    With several looks it depends on how many were reached, and trainings that ended later may have reached more.

    Args:
        store: The database.
        ablation: The row of the one that they were held against.
        verdicts: Rows of `Store.study_verdicts`.
    """
    try:
        config = recorded_config(store, ablation)
    except StoreError:
        return None
    if config.looks > 1:
        runs = [row for row in store.arm_runs(ablation["id"]) if row["state"] == "done"]
        most = max(Counter(row["position"] for row in runs).values(), default=0)
        if max((row["pairs"] for row in verdicts), default=0) < most:
            return None
    return 1 - level_of(store, ablation["id"], config)


def verdicts_of(store: Store, ablation: AblationRow, config: AblationConfig) -> list[Verdict]:
    """Holds every claim of a study against an ablation's runs; Holm's correction is over the claims.

    While the ablation is under way, all are undecided.

    Args:
        store: The database.
        ablation: Its row.
        config: The claims, margin and confidence.

    Raises:
        StudyError: A claim names an arm that the ablation does not have.
    """
    from nas.evidence.paired import paired
    from nas.evidence.words import judge

    arms, level = store.arms(ablation["id"]), level_of(store, ablation["id"], config)
    results = results_of(store, ablation["id"])
    pairs = [(_arm(arms, claim.than), _arm(arms, claim.arm)) for claim in config.claims]
    effects: dict[int, Any] = {}
    for i, (claim, (than, arm)) in enumerate(zip(config.claims, pairs, strict=True)):
        base, other = results.get(than["position"], {}), results.get(arm["position"], {})
        if base.keys() & other.keys():
            effects[i] = paired(
                base,
                other,
                factor=claim.arm,
                level=claim.arm,
                reference=claim.than,
                confidence=1 - level,
                margin=config.margin,
                resamples=0,
            )
    early = under_way(store, ablation, config)
    judged = judge(list(effects.values()), alpha=level, margin=config.margin, early=early) if effects else []
    words = dict(zip(effects, judged, strict=True))
    found = []
    for i, claim in enumerate(config.claims):
        effect = effects.get(i)
        found.append(
            Verdict(
                claim=claim,
                word=verdict(claim.expect, words[i].word) if effect is not None else "undecided",
                difference=effect.difference if effect is not None else None,
                low=effect.low if effect is not None else None,
                high=effect.high if effect is not None else None,
                pairs=effect.pairs if effect is not None else 0,
            )
        )
    return found


def under_way(store: Store, ablation: AblationRow, config: AblationConfig) -> bool:
    """Whether an ablation has not ended, nor reached the look at which it ends, so that no claim is decided yet."""
    return ablation["state"] == "running" and not answer_of(store, ablation["id"], config).reason


def left_out(store: Store, study: StudyRow, ablation: AblationRow) -> int:
    """How many runs of an ablation are trainings by which the search of its study selected a network."""
    chosen = selecting(store, study["id"])
    return sum((row["digest"], row["seed"]) in chosen for row in store.arm_runs(ablation["id"]))


def verdict(expect: str, word: str) -> str:
    """Whether what was measured is what was claimed: any other decided word contradicts it."""
    if word == "undecided":
        return "undecided"
    return "reproduced" if word == expect else "contradicted"


def keep_verdicts(store: Store, study: StudyRow, ablation: AblationRow, verdicts: Sequence[Verdict]) -> None:
    """Stores verdicts in the place of earlier ones of the same study."""
    with store.write() as connection:
        connection.execute(m.verdict.delete().where(m.verdict.c.study_id == study["id"]))
        for item in verdicts:
            stated = item.claim.stated
            s.insert(
                connection,
                m.verdict,
                study_id=study["id"],
                ablation_id=ablation["id"],
                claim=item.claim.text,
                document=item.claim.document,
                stated=None if stated is None else stated / 100,
                difference=item.difference,
                low=item.low,
                high=item.high,
                pairs=item.pairs,
                word=item.word,
            )


def _arm(arms: Sequence[ArmRow], name: str) -> ArmRow:
    known: Mapping[str, ArmRow] = {
        BASE if arm["position"] == 0 else f"{arm['factor']}={arm['level']}": arm for arm in arms
    }
    if name not in known:
        raise StudyError(unknown("arm of ablation.claims", name, known))
    return known[name]
