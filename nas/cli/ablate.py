"""`nas ablate`, `nas versus` and `nas verdict`: which decision earned what, and what documents claim."""

from __future__ import annotations

import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from nas.cli.options import CPUS, DB, JSON, NEW_DB, OVERRIDES, RAY, machines_of
from nas.cli.output import SearchPrinter, duration, print_error, print_json, print_line, print_table, print_words
from nas.study.metric import few_videos, in_points, intervals, recorded_counts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nas.ablation.plan import Estimate, Plan, Searched
    from nas.store.database import Store
    from nas.store.records import EffectRow
    from nas.study.networks import Lookup
    from nas.study.study import Study
    from nas.train.machines import Machines
    from search_spaces.spec import ArchSpec


DRY = typer.Option(False, "--dry-run", help="Print the plan with its cost, and train nothing.")
WORKERS = typer.Option(None, "--workers", min=0, help="Worker processes; 0 trains in the driver.")

EFFECTS = {
    "factor": "factor",
    "level": "level",
    "reference": "against",
    "difference": "points",
    "low": "low",
    "high": "high",
    "pairs": "pairs",
    "effect_size": "g",
    "p_holm": "p (Holm)",
    "macs_ratio": "MACs x",
    "word": "word",
}


def ablate(
    study: str = typer.Argument(
        ..., metavar="STUDY|SPEC", help="The study file or database; or, with --study, a network."
    ),
    overrides: list[str] = OVERRIDES,
    of: str = typer.Option(None, "--study", metavar="STUDY", help="The study, where the first argument is a network."),
    base: str = typer.Option(
        None, "--base", metavar="SPEC", help="The network that is changed: preset, digest, .json."
    ),
    db: str = NEW_DB,
    workers: int = WORKERS,
    ray: str = RAY,
    cpus: int = CPUS,
    dry_run: bool = DRY,
    as_json: bool = JSON,
) -> None:
    """Train a base and its variations with paired seeds, and say which decision earned what.

    Example: nas ablate studies/ablate_r2plus1d.yaml data=motion --dry-run
    """
    from nas.ablation.plan import config_of

    machines = machines_of(ray, cpus, workers)
    target, around = (of, study) if of is not None else (study, base)
    loaded = _study(target, overrides or [])
    config = config_of(loaded, target, {"base": around} if around else None)
    _run(loaded, config, kind="ablate", db=db, workers=workers, machines=machines, dry_run=dry_run, as_json=as_json)


def versus(
    networks: list[str] = typer.Argument(
        ..., metavar="A B [C …] [key=value …]", help="Presets, digests or .json files."
    ),
    of: str = typer.Option(..., "--study", metavar="STUDY", help="The study file or database: data, recipe, seed."),
    seeds: int = typer.Option(8, "--seeds", min=2, help="Pairs of trainings at most."),
    epochs: int = typer.Option(0, "--epochs", min=0, help="Epochs of each training; the study's last rung by default."),
    db: str = NEW_DB,
    workers: int = WORKERS,
    ray: str = RAY,
    cpus: int = CPUS,
    dry_run: bool = DRY,
    as_json: bool = JSON,
) -> None:
    """Say which of some networks is better on your data: paired seeds, added until the answer is decided.

    Example: nas versus r2plus1d_18 r3d_18 --study studies/kinetics_small.yaml data=motion --dry-run
    """
    from nas.ablation.config import ablation_of
    from nas.ablation.plan import between
    from nas.errors import StudyError

    machines = machines_of(ray, cpus, workers)
    names = [word for word in networks if "=" not in word]
    loaded = _study(of, [word for word in networks if "=" in word])
    if len(names) < 2 or len(set(names)) < len(names):
        raise StudyError(f"versus compares at least 2 different networks, but got {', '.join(names) or 'none'}")
    raw = between(names, seeds=seeds, epochs=epochs, config=dict(loaded.config.get("ablation", {})))
    config = ablation_of(raw, last_rung=loaded.search.fidelity.full_epochs, where=of)
    _run(loaded, config, kind="versus", db=db, workers=workers, machines=machines, dry_run=dry_run, as_json=as_json)


def _study(target: str, overrides: list[str]) -> Study:
    from nas.cli.resolve import load_target

    return load_target(target, overrides)


def _run(
    study: Study,
    config: Any,
    *,
    kind: str,
    db: str | None,
    workers: int | None,
    machines: Machines | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    from nas.ablation.answer import stated_confidence
    from nas.ablation.plan import completed
    from nas.cli.resolve import database_for
    from nas.store.database import Store
    from nas.study.metric import metric_in

    path = database_for(study.name, db)
    config = completed(study, config, _lookup(study, path, _searched(path)))
    if dry_run:
        with Store(path) if path.is_file() and path.stat().st_size else nullcontext() as store:
            _show_plan(study, config, store, path, kind=kind, workers=workers, as_json=as_json)
        return

    from nas.train.session import check_start

    check_start(study, path)

    from nas.ablation.plan import prepared, priced
    from nas.ablation.runner import check_arms, run_plan
    from nas.train.crew import joined
    from nas.train.session import News, locked, opened_data, study_row
    from nas.train.weights import settled_study
    from trainer.optim import check_optimizer

    check_optimizer(study.recipe)  # before videos are decoded
    study = settled_study(study)
    progress = SearchPrinter()
    num = study.search.workers if workers is None else workers
    try:
        with locked(path):
            data = opened_data(study, progress)
            searched = _searched(path)
            plan = prepared(
                study,
                config,
                lookup=_lookup(study, path, searched),
                num_classes=len(data.classes),
                checksum=data.checksum,
                searched=searched,
            )
            config = plan.config
            check_arms(plan, data)
            with Store(path, create=True) as store:
                row = study_row(store, study, data, progress)
                with joined(machines, path, study, progress) as cluster:
                    for line in _plan_lines(plan, priced(plan, store, row), cluster.slots if cluster else num):
                        progress(News(kind="plan", text=line))
                    outcome = run_plan(
                        store,
                        row,
                        plan,
                        kind=kind,
                        name=_name(config, kind),
                        root=path.parent,
                        workers=num,
                        cluster=cluster,
                        listener=progress,
                    )
                rows, metric = store.effects(outcome.ablation), metric_in(store, store.study(study.name)["id"])
    except KeyboardInterrupt:
        progress.close()
        print_error(f"stopped; everything so far is in {path}. Go on with: nas {shlex.join(sys.argv[1:])}")
        raise typer.Exit(130) from None
    finally:
        progress.close()
    if as_json:
        effects = [dict(row) for row in rows]
        answer = outcome.answer
        print_json({"sentence": answer.sentence, "details": answer.details, "state": answer.state, "effects": effects})
        return
    title = (
        f"{study.name}: {_name(config, kind)}, {config.epochs} epochs, differences of val {metric} in points, "
        f"{intervals(stated_confidence(rows, config.record()))}"
    )
    print_effects(rows, title)
    for line in outcome.answer.details:
        if not outcome.answer.sentence.startswith(line):  # of two networks, the sentence is the answer
            print_line(line)
    print_line(outcome.answer.sentence)
    own = outcome.wall_seconds - outcome.busy_seconds
    print_line(
        f"trainings: {outcome.trained} now, {outcome.reused} from the record, {outcome.failed} failed; "
        f"time: {duration(outcome.wall_seconds)}, of which {own:.1f} s outside training"
    )
    print_line(f"database: {path} (SELECT * FROM ablation_effects)")


def _name(config: Any, kind: str) -> str:
    name: str = config.name()
    return name if kind == "ablate" else name.replace(config.design, kind)


def _searched(path: Path) -> Searched:
    """The networks that the search of a database trained; none where there is no database, or nothing in it yet."""
    from nas.ablation.plan import Searched
    from nas.store.database import Store

    if not path.is_file() or not path.stat().st_size:  # a driver that was killed at once leaves an empty file
        return Searched()
    with Store(path) as store:
        return Searched.of(store)


def _lookup(study: Study, path: Path, searched: Searched) -> Lookup:
    from nas.cli.resolve import find_spec, needs_search

    def look(name: str) -> tuple[ArchSpec, Mapping[str, Any] | None]:
        db = str(path) if path.is_file() else None
        absent = needs_search(path)
        spec = find_spec(name, study=None, db=db, frames=study.data.clip.frames, otherwise=absent).canonical()
        return spec, searched.settings(study, spec)

    return look


def _show_plan(
    study: Study, config: Any, store: Store | None, path: Path, *, kind: str, workers: int | None, as_json: bool
) -> None:
    from nas.ablation.plan import Searched, prepared, priced
    from nas.errors import StudyError

    row = store.study(study.name) if store is not None and store.studies() else None
    num_classes = row["num_classes"] if row is not None else study.num_classes
    if not num_classes:
        raise StudyError(
            "data.num_classes must be stated to plan before the data is read, but is 0; add it to the study"
        )
    searched = Searched.of(store)
    plan = prepared(
        study,
        config,
        lookup=_lookup(study, path, searched),
        num_classes=num_classes,
        checksum=row["data"]["checksum"] if row is not None else "",
        searched=searched,
    )
    config = plan.config
    priced_plan = priced(plan, store, row)
    num = study.search.workers if workers is None else workers
    arms = _arm_rows(plan)
    if as_json:
        left = priced_plan
        print_json(
            {
                "ablation": _name(config, kind),
                "arms": arms,
                "dropped": [{"factor": d.factor, "level": d.level, "reason": d.reason} for d in plan.arms.dropped],
                "seeds": config.seeds,
                "first_seed": plan.seeds[0],
                "searched": list(plan.searched),
                "epochs": config.epochs,
                "trainings": left.trainings,
                "recorded": left.done,
                "epochs_left": left.epochs,
                "hours_of_one_worker": left.hours,
            }
        )
        return
    columns = {"factor": "factor", "level": "level", "macs": "MACs", "ratio": "x base", "network": "network"}
    print_table(arms, columns, f"{study.name}: {_name(config, kind)}, clip {study.data.shape}")
    for line in _plan_lines(plan, priced_plan, num):
        print_words(line)
    counted = recorded_counts(row["data"]) if row is not None else (0, ())
    warning = few_videos(*counted) if counted[0] else None
    if warning is not None:
        print_words(warning)


def _arm_rows(plan: Plan) -> list[dict[str, Any]]:
    rows = []
    for arm, price in zip(plan.arms.arms, plan.costs, strict=True):
        rows.append(
            {
                "factor": arm.factor,
                "level": "" if arm.factor == "base" else arm.level,
                "macs": price.macs,
                "ratio": price.macs / plan.costs[0].macs,
                "network": arm.variant.spec.describe(),
            }
        )
    return rows


def _plan_lines(plan: Plan, left: Estimate, workers: int) -> list[str]:
    lines = [f"dropped: {d.factor}={d.level}: {d.reason}" for d in plan.arms.dropped]
    lines += [f"cannot be told apart: {alias}" for alias in plan.arms.aliases]
    text = (
        f"plan: {len(plan.arms.arms)} arms x {plan.config.seeds} seeds = {left.trainings} trainings of "
        f"{plan.config.epochs} epochs; {left.done} are recorded, {left.epochs:,} epochs are left"
    )
    if left.hours is None:
        lines.append(f"{text}; how long that takes is known once a training of this study is recorded")
    else:
        slots = max(1, workers)
        lines.append(f"{text}: about {duration(3600 * left.hours / slots)} with {slots} worker(s)")
    if plan.searched:
        first, last = plan.seeds
        more = f" and {len(plan.searched) - 1} more" if len(plan.searched) > 1 else ""
        lines.append(
            f"seeds {first} to {last}, which the search did not have for {plan.searched[0][:10]}{more}: a result that "
            "selected a network is no evidence for it"
        )
    if plan.config.looks > 1 or plan.config.precision:
        goal = f" or a half-width of {100 * plan.config.precision:g} points" if plan.config.precision else ""
        lines.append(
            f"it stops early at a decided answer{goal}: {plan.config.looks} look(s) from {plan.config.min_seeds} pairs "
            "on, the error spread over them"
        )
    return lines


def print_effects(rows: Sequence[EffectRow], title: str) -> None:
    """Prints effects as rows of the view have them, in points of accuracy."""
    shown = []
    for row in rows:
        line: dict[str, Any] = dict(row)
        for key in ("difference", "low", "high"):
            line[key] = None if line[key] is None else in_points(line[key])
        shown.append(line)
    print_table(shown, EFFECTS, title)


COLUMNS = {
    "claim": "claim",
    "stated": "stated",
    "difference": "measured",
    "low": "low",
    "high": "high",
    "pairs": "pairs",
    "word": "verdict",
    "document": "document",
}


def verdict(
    study: str = typer.Argument(..., metavar="STUDY", help="The study file, whose claims are asked about."),
    overrides: list[str] = OVERRIDES,
    db: str = DB,
    as_json: bool = JSON,
) -> None:
    """Say which claims of a study's documents were reproduced, contradicted or left undecided.

    Differences are in points of top-1, or of mAP, with the interval that the word rests on.

    Example: nas verdict studies/p3d_blocks.yaml data=motion
    """
    from nas.ablation.answer import level_of
    from nas.ablation.plan import config_of
    from nas.ablation.verdict import (
        changed,
        keep_verdicts,
        latest,
        left_out,
        recorded_config,
        under_way,
        verdicts_of,
    )
    from nas.cli.resolve import database_for, load_target
    from nas.errors import StudyError
    from nas.store.database import Store
    from nas.study.metric import metric_in

    loaded = load_target(study, overrides or [])
    config = config_of(loaded, study)
    if not config.claims:
        raise StudyError(f"ablation.claims of {study} is empty, so there is nothing to hold against the results")
    with Store(database_for(loaded.name, db)) as store:
        row = store.study(loaded.name)
        ablation = latest(store, row)
        asked, config = config, recorded_config(store, ablation, config.claims)
        differ = changed(asked, config)
        found, confidence = verdicts_of(store, ablation, config), 1 - level_of(store, ablation["id"], config)
        keep_verdicts(store, row, ablation, found)
        early = under_way(store, ablation, config)
        metric, searched = metric_in(store, row["id"]), left_out(store, row, ablation)
    rows: list[dict[str, Any]] = [
        {
            "claim": item.claim.text,
            "stated": None if item.claim.stated is None else f"{item.claim.stated:+.1f}",
            "difference": _points(item.difference),
            "low": _points(item.low),
            "high": _points(item.high),
            "pairs": item.pairs,
            "word": item.word,
            "document": item.claim.document,
        }
        for item in found
    ]
    if as_json:
        print_json(
            {
                "study": loaded.name,
                "ablation": ablation["name"],
                "confidence": confidence,
                "differs": {name: {"now": now, "recorded": then} for name, (now, then) in differ.items()},
                "verdicts": rows,
            }
        )
        return
    what = f"differences of val {metric} in points, {intervals(confidence)}"
    title = f"{loaded.name}: claims against {ablation['name']}, {what}"
    print_table(rows, COLUMNS, title)
    if differ:
        settings = ", ".join(f"{name} {then}, now {now}" for name, (now, then) in differ.items())
        print_line(f"note: {ablation['name']} was begun with other settings, which count here: {settings}")
    if early:
        print_line(
            f"note: {ablation['name']} is under way; claims are decided when it ends (`nas ablate` again goes on)"
        )
    if searched:
        trainings = "1 training of the search is" if searched == 1 else f"{searched} trainings of the search are"
        print_line(
            f"{trainings} left out: a result that selected a network is no evidence for it; "
            "`nas ablate` again trains with other seeds"
        )


def _points(value: float | None) -> str | None:
    return None if value is None else in_points(value)
