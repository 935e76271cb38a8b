"""What an ablation's runs say so far: effects with their words, whether it may stop, and one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas.ablation.config import BASE, CONTROL, AblationConfig
from nas.store import tables as m
from nas.store.database import Store
from nas.store.records import ArmRow
from nas.study.metric import TOP1, accuracy_of, in_points, metric_of

if TYPE_CHECKING:
    from nas.evidence.words import Looks

OVER = ("done", "failed")
Arm = Mapping[int, Any]  # pair -> nas.evidence.values.Result


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """How an ablation stands.

    Attributes:
        sentence: The answer in one sentence.
        details: One sentence an effect.
        reason: Why it may stop: `decided`, `precise` or `spent`; empty where it goes on.
        state: `decided`, `precise` or `done` (its seeds are spent) where it may stop, else `running`.
        rows: Effects, as they are stored.
    """

    sentence: str
    reason: str
    state: str
    rows: tuple[Mapping[str, Any], ...]
    details: tuple[str, ...] = ()


def results_of(store: Store, ablation: int) -> dict[int, dict[int, Any]]:
    """Results by position of the arm and by pair, of the runs that ended well.

    Left out are runs with which the search of the database selected a network, as ablations of earlier versions have.
    """
    from nas.evidence.values import Result

    found: dict[int, dict[int, Any]] = {}
    chosen = selecting(store, store.row(m.ablation, ablation)["study_id"])
    for row in store.arm_runs(ablation):
        if row["state"] == "done" and (row["digest"], row["seed"]) not in chosen:
            # Marks of right and wrong say nothing of mean average precision, and weigh classes by their videos: where
            # networks are chosen by other than top-1, runs are compared by seeds alone.
            by_clip = row["map_sample"] is None and metric_of([row]) == TOP1
            accuracy, correct = accuracy_of(row), row["correct"]
            result = Result.of(correct, top1=accuracy) if correct and by_clip else Result(top1=accuracy)
            found.setdefault(row["position"], {})[row["pair"]] = result
    return found


def selecting(store: Store, study: int) -> set[tuple[str, int]]:
    """Digest and seed of the trainings by which the search of a study selects networks: no evidence for these."""
    return {(row["digest"], int(row["seed"])) for row in store.trials(study)}


def answer_of(store: Store, ablation: int, config: AblationConfig) -> Answer:
    """Reads an ablation's runs and says what they show.

    At each look that all arms have reached, the pairs up to it alone are judged, at the look's own level. The first
    that may stop the ablation is its answer, so the order in which runs end does not matter. Before that, nothing is
    decided.

    Args:
        store: The database.
        ablation: Its id.
        config: Margin, confidence, looks and precision.
    """
    from nas.evidence.words import stop

    arms = store.arms(ablation)
    kind = store.row(m.ablation, ablation)["kind"]
    results = results_of(store, ablation)
    plan, reached = _looks(config), _reached(store, ablation, arms, _looks(config))
    for look in reached:
        effects, owners = _effects(arms, _first(results, plan.seeds[look]), config, kind, plan.confidence(look))
        reason = stop(effects, plan, look)
        if reason is not None:
            return _judged(effects, owners, arms, plan.level(look), config, kind, reason)
    look = min(len(reached), len(plan.seeds) - 1)
    effects, owners = _effects(arms, results, config, kind, plan.confidence(look))
    if not effects:
        return Answer(sentence="no pair of trainings is complete yet", reason="", state="running", rows=())
    return _judged(effects, owners, arms, plan.level(look), config, kind, None)


def level_of(store: Store, ablation: int, config: AblationConfig) -> float:
    """The level at which an ablation's runs may be judged: that of the last look which they have reached."""
    plan = _looks(config)
    reached = _reached(store, ablation, store.arms(ablation), plan)
    return plan.level(reached[-1] if reached else 0)


def stated_confidence(effects: Sequence[Mapping[str, Any]], design: Mapping[str, Any]) -> float | None:
    """The confidence of an ablation's intervals; None where an earlier version, with several looks, did not keep it.

    Args:
        effects: Rows of `nas_effect`.
        design: Of the ablation, as it is recorded.
    """
    kept = {effect["confidence"] for effect in effects}
    if len(kept) == 1 and None not in kept:
        return float(kept.pop())
    confidence = design.get("confidence")
    return confidence if isinstance(confidence, float) and design.get("looks", 1) == 1 else None


def _looks(config: AblationConfig) -> Looks:
    from nas.evidence.words import Looks

    return Looks.between(
        min(config.min_seeds, config.seeds),
        config.seeds,
        looks=config.looks,
        alpha=1 - config.confidence,
        margin=config.margin,
        half_width=config.precision or None,
    )


def _reached(store: Store, ablation: int, arms: Sequence[ArmRow], plan: Looks) -> list[int]:
    """Looks of which every pair is over."""
    whole = _whole_pairs(store, ablation, arms)
    return [look for look, seeds in enumerate(plan.seeds) if seeds <= whole]


def _effects(
    arms: Sequence[ArmRow], results: Mapping[int, Arm], config: AblationConfig, kind: str, confidence: float
) -> tuple[list[Any], list[tuple[ArmRow, ArmRow] | None]]:
    if config.design in ("factorial", "fractional"):
        return _factorial(arms, results, config, confidence)
    return _pairs(arms, results, config, confidence, all_pairs=kind == "versus")


def _first(results: Mapping[int, Arm], pairs: int) -> dict[int, Arm]:
    return {position: {p: r for p, r in arm.items() if p < pairs} for position, arm in results.items()}


def _whole_pairs(store: Store, ablation: int, arms: Sequence[ArmRow]) -> int:
    """Pairs, from the first, of which every arm's run is over, however it ended."""
    over: dict[int, set[int]] = {}
    for row in store.arm_runs(ablation):
        if row["state"] in OVER:
            over.setdefault(row["pair"], set()).add(row["position"])
    pair = 0
    while len(over.get(pair, ())) == len(arms):
        pair += 1
    return pair


def _pairs(
    arms: Sequence[ArmRow], results: Mapping[int, Arm], config: AblationConfig, confidence: float, *, all_pairs: bool
) -> tuple[list[Any], list[tuple[ArmRow, ArmRow] | None]]:
    """Each arm against its reference, or every two of them."""
    from nas.evidence.paired import paired

    by_position = {arm["position"]: arm for arm in arms}
    if all_pairs:
        wanted = [(arms[i], arms[j]) for j in range(len(arms)) for i in range(j)]
    else:
        wanted = [
            _as_level(arm, arms[0])
            if config.against.get(arm["factor"]) == arm["level"]
            else (by_position[arm["reference"]], arm)
            for arm in arms
            if arm["reference"] is not None
        ]
    effects, owners = [], []
    for reference, arm in wanted:
        base, other = results.get(reference["position"], {}), results.get(arm["position"], {})
        if not base.keys() & other.keys():
            continue
        effects.append(
            paired(
                base,
                other,
                factor=arm["factor"],
                level=_short(arm, config),
                reference=_short(reference, config),
                confidence=confidence,
                margin=config.margin,
                resamples=0,
            )
        )
        owners.append((reference, arm))
    return effects, list(owners)


def _as_level(reference: ArmRow, base: ArmRow) -> tuple[ArmRow, ArmRow]:
    """The base beside a level that its factor is compared with: there, it is one of the factor's levels."""
    factor = reference["factor"]
    return reference, {**base, "factor": factor, "level": base["levels"][factor]}


def _factorial(
    arms: Sequence[ArmRow], results: Mapping[int, Arm], config: AblationConfig, confidence: float
) -> tuple[list[Any], list[tuple[ArmRow, ArmRow] | None]]:
    """Main effects and interactions of a factorial design, and its control against the base."""
    from nas.evidence.factorial import Combination, factorial

    cells = [
        Combination(levels=dict(arm["levels"]), results=results.get(arm["position"], {}))
        for arm in arms
        if arm["levels"]
    ]
    if len({seed for cell in cells for seed in cell.results}) < 2:
        return [], []
    factors = {factor.path: tuple(level.label for level in factor.levels) for factor in config.factors}
    fitted = factorial([c for c in cells if c.results], factors, confidence=confidence, margin=config.margin)
    effects = list(fitted.effects)
    owners: list[tuple[ArmRow, ArmRow] | None] = [None] * len(effects)
    control = [arm for arm in arms if arm["factor"] == CONTROL]
    more, more_owners = (
        _pairs([*control, *arms[:1]], results, config, confidence, all_pairs=False) if control else ([], [])
    )
    return effects + more, owners + more_owners


def _judged(
    effects: Sequence[Any],
    owners: Sequence[tuple[ArmRow, ArmRow] | None],
    arms: Sequence[ArmRow],
    level: float,
    config: AblationConfig,
    kind: str,
    reason: str | None,
) -> Answer:
    """Words for effects, as rows of `nas_effect`, and what they say together."""
    from nas.evidence.words import judge

    judged = judge(effects, alpha=level, margin=config.margin, early=reason is None)
    rows = []
    for item, owner in zip(judged, owners, strict=True):
        effect = item.effect
        reference, arm = owner if owner is not None else (None, None)
        rows.append(
            {
                "arm_id": arm["id"] if arm is not None else None,
                "factor": effect.factor,
                "level": arm["level"] if arm is not None else effect.level,
                "reference": effect.reference,
                "pairs": effect.pairs,
                "difference": effect.difference,
                "low": effect.low,
                "high": effect.high,
                "effect_size": effect.effect_size,
                "se_seeds": effect.se_seeds,
                "se_clips": effect.se_clips,
                "p": effect.p,
                "p_holm": item.p_holm,
                "p_wilcoxon": effect.p_wilcoxon,
                "p_equivalent": effect.p_equivalent,
                "visible": item.visible,
                "macs_ratio": arm["macs"] / reference["macs"] if arm is not None and reference is not None else None,
                "word": item.word,
                "confidence": effect.confidence,
            }
        )
    sentence = winner(judged, owners, arms, config) if kind == "versus" else summary(judged)
    state = {None: "running", "decided": "decided", "precise": "precise", "spent": "done"}[reason]
    details = tuple(item.sentence for item in judged)
    return Answer(sentence=sentence, reason=reason or "", state=state, rows=tuple(rows), details=details)


def summary(judged: Sequence[Any]) -> str:
    """What all effects come to, in one sentence: what was decided by name, the rest by number."""
    parts = []
    for word in ("better", "worse", "equivalent"):
        mine = [item.effect for item in judged if item.word == word]
        if mine:
            names = ", ".join(f"{effect.level} ({in_points(effect.difference)})" for effect in mine)
            parts.append(f"{word}: {names}")
    left = sum(item.word == "undecided" for item in judged)
    if left:
        parts.append(f"undecided: {left} of {len(judged)}")
    return "; ".join(parts)


def winner(
    judged: Sequence[Any],
    owners: Sequence[tuple[ArmRow, ArmRow] | None],
    arms: Sequence[ArmRow],
    config: AblationConfig,
) -> str:
    """Which of several networks is better, in one sentence."""
    if len(judged) == 1:
        reference, arm = owners[0] or (arms[0], arms[1])
        ratio = arm["macs"] / reference["macs"]
        return f"{judged[0].sentence}, at {ratio:.2f} times its MACs"
    beaten: dict[int, set[int]] = {arm["position"]: set() for arm in arms}
    for item, owner in zip(judged, owners, strict=True):
        if owner is None or item.word not in ("better", "worse"):
            continue
        low, high = owner if item.word == "better" else owner[::-1]
        beaten[high["position"]].add(low["position"])
    best = [arm for arm in arms if len(beaten[arm["position"]]) == len(arms) - 1]
    if best:
        others = ", ".join(_short(arm, config) for arm in arms if arm is not best[0])
        return f"{_short(best[0], config)} is better than each of {others}"
    never = [_short(arm, config) for arm in arms if not any(arm["position"] in losers for losers in beaten.values())]
    return f"undecided: none is better than all others; not beaten by any are {', '.join(never)}"


def _short(arm: ArmRow, config: AblationConfig) -> str:
    """An arm in a sentence: a network by its name, the base as such, a level with its factor."""
    if arm["factor"] == BASE:
        return config.base if isinstance(config.base, str) else "the base"
    return str(arm["level"]) if arm["factor"] in ("network", CONTROL) else f"{arm['factor']}={arm['level']}"
