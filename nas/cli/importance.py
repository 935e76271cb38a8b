"""`nas importance`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.cli.options import DB, JSON, STUDY
from nas.cli.output import print_json, print_line, print_table
from nas.cli.resolve import open_study
from nas.study.metric import interval_text, metric_of

if TYPE_CHECKING:
    from nas.search.importance import RungImportances
    from nas.search.levels import MarginalFront, PartialEffect
    from nas.study.fidelity import Fidelity

PAIRS = 5  # that are printed for a rung; all are stored, and in --json


def importance(study: str = STUDY, db: str = DB, as_json: bool = JSON) -> None:
    """Say which settings decide: importances, mean accuracy per level, and the front if only one level were allowed.

    Each rung is looked at by itself. The importances are stored, too, and `SELECT * FROM importance` shows them.

    Example: nas importance runs/kinetics_small/study.db
    """
    from nas.search.importance import importances, keep
    from nas.search.levels import FEW, marginal_fronts, partial_effects, rungs_of
    from nas.study.fidelity import recorded_fidelity

    with open_study(study, db) as (store, row):
        evaluations = store.evaluations(row["id"])
        metric = metric_of(evaluations)
        rungs = importances(store, row)
        effects = [effect for rung in rungs_of(evaluations) for effect in partial_effects(evaluations, rung=rung)]
        fronts = marginal_fronts(evaluations)
    found = [item for rung in rungs for item in rung.found]
    why_not = keep(Path(store.location), found) if found else None
    if as_json:
        print_json(
            {
                "study": row["name"],
                "metric": metric,
                "rungs": [asdict(rung) for rung in rungs],
                "effects": [asdict(effect) for effect in effects],
                "marginal_fronts": [asdict(front) for front in fronts],
                "stored": bool(found) and why_not is None,
            }
        )
        return
    fidelity = recorded_fidelity(row)
    if not rungs:
        print_line(f"{row['name']}: no network has reached a rung yet")
        return
    for rung in rungs:
        _print_rung(row["name"], rung, metric, fidelity)
    first = min((effect.rung for effect in effects), default=None)
    if first is None:
        most = max(rung.networks for rung in rungs)
        print_line(f"what levels earn: at most {most} networks at a rung, and means per level need {FEW}")
    else:
        _print_effects([effect for effect in effects if effect.rung == first], metric, fidelity)
    _print_fronts(fronts, metric, fidelity)
    if why_not is not None:
        print_line(why_not)


def _print_rung(study: str, rung: RungImportances, metric: str, fidelity: Fidelity) -> None:
    head = f"{study}, rung {rung.rung} ({fidelity.label_of(rung.epochs)})"
    if not rung.found:
        for note in rung.notes:
            print_line(f"{head}: {note}")
        return
    columns = {"factor": "factor"}
    rows: dict[str, dict[str, Any]] = {}
    for item in rung.found:
        key = f"{item.method} {item.objective}"
        if not item.other:
            columns[key] = f"{_METHODS[item.method]}{' given MACs' if 'MACs' in item.objective else ''}"
            rows.setdefault(item.factor, {"factor": item.factor})[key] = item.importance
    title = f"{head}: importance of settings for {metric}, {rung.networks} networks"
    print_table(list(rows.values()), columns, title)
    print_line(f"log MACs explain {rung.cost_explains:.0%} of the variance of {metric}")
    for objective, share in rung.forest_explains.items():
        pairs = [item for item in rung.found if item.other and item.objective == objective]
        listed = ", ".join(f"{pair.factor} x {pair.other} {pair.importance:.3f}" for pair in pairs[:PAIRS])
        if share > 0:
            print_line(f"fANOVA of {objective}: explains {share:.0%} of networks not seen; pairs: {listed or 'none'}")
    for note in rung.notes:
        print_line(note)
    print_line()


_METHODS = {"pedanova": "PED-ANOVA", "fanova": "fANOVA"}


def _print_effects(effects: Sequence[PartialEffect], metric: str, fidelity: Fidelity) -> None:
    rows = [
        {
            "factor": effect.factor,
            "level": effect.level,
            "networks": effect.networks,
            "mean": effect.mean,
            "interval": interval_text(effect.low, effect.high),
            "adjusted": effect.adjusted,
            "adjusted_interval": interval_text(effect.adjusted_low, effect.adjusted_high),
        }
        for effect in effects
    ]
    columns = {
        "factor": "factor",
        "level": "level",
        "networks": "networks",
        "mean": f"mean {metric}",
        "interval": "95 %",
        "adjusted": "at equal MACs",
        "adjusted_interval": "95 % ",
    }
    print_table(rows, columns, f"what levels earn {fidelity.at_epochs(effects[0].epochs)} (rung {effects[0].rung})")


def _print_fronts(fronts: Sequence[MarginalFront], metric: str, fidelity: Fidelity) -> None:
    if not fronts:
        return
    rows = [
        {
            "factor": front.factor,
            "level": front.level,
            "networks": front.networks,
            "front": len(front.digests),
            "best": max(front.accuracy),
            "share": front.share,
        }
        for front in fronts
    ]
    columns = {
        "factor": "factor",
        "level": "level",
        "networks": "networks",
        "front": "on its front",
        "best": f"best {metric}",
        "share": "share of the front",
    }
    place = fidelity.at_epochs(fronts[0].epochs)
    title = f"the front if only one level were allowed, {place} (rung {fronts[0].rung})"
    print_table(rows, columns, title)
