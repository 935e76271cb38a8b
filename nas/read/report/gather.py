"""From an open database to the values of a report; reads only, and any state of a search makes sense."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from nas.ablation.verdict import stated_confidence_of
from nas.read.learned import learned_of
from nas.read.report import parts as evidence
from nas.read.report.parts import marginals, networks_of, promotion, rungs, steps
from nas.read.report.values import Ablation, Curve, Failure, NetworkCard, Point, Promotion, Report, Session
from nas.store import tables as m
from nas.store.database import Store
from nas.store.drivers import CommandStart, begun_of, drivers_of
from nas.store.records import (
    ArmRow,
    ArmRunRow,
    CurveRow,
    EffectRow,
    PromotionRow,
    RunRow,
    StudyRow,
    TrialRow,
    VerdictRow,
)
from nas.store.write import now
from nas.study.fidelity import recorded_fidelity
from nas.study.metric import accuracy_of, interval_of, metric_in, metric_of
from nas.study.objectives import USUAL, averaged, meets, minimised, no_front, recorded_floors, recorded_objectives
from nas.train.recipe_names import told_apart


def gather(store: Store, *, database: str | None = None) -> Report:
    """Reads all that the page shows.

    A driver may be at work meanwhile: results are read before trials, so that every result has its trial.

    Args:
        store: The database.
        database: What the page's commands call it; its location by default.

    Raises:
        NotFoundError: The database does not hold exactly one study.
    """
    study = store.study()
    key, name = study["id"], study["name"]
    objectives, floors = recorded_objectives(study), recorded_floors(study)
    evaluations = store.evaluations(key)
    epochs = [row for row in store.epoch_rows(key) if row["top1"] is not None]
    front = {row["digest"] for row in store.front(name)}
    ablations = tuple(evidence.ablation(row, *_parts(store, row["id"])) for row in store.ablations(key))
    promotions, runs = store.promotions(key), store.runs(key)
    trials = store.trials(key)
    networks_at = averaged(evaluations)
    points = points_of(networks_at, front, objectives)
    below = {(row["digest"], row["rung"]) for row in networks_at if not meets(row, floors)}
    networks = networks_of(store.architectures(study["clip"], study["num_classes"]))
    verdicts = store.study_verdicts(key)
    jobs, fidelity = store.jobs(key), recorded_fidelity(study)
    begun = begun_of(store.location, jobs, evaluations, fidelity)
    return Report(
        study=study,
        database=database or store.location,
        made=now(),
        metric=metric_in(store, key),
        networks=_in_use(networks, trials, promotions, ablations),
        states=dict(Counter(row["state"] for row in trials)),
        trials=len(trials),
        points=points,
        curves=curves_of(epochs, trials, points),
        rungs=rungs(points, fidelity.ends),
        steps=steps(points, fidelity, below=below),
        no_front="" if front else no_front(study, evaluations),
        marginals=marginals(evaluations),
        importances=evidence.importances(store.view("importance", name)),
        ablations=ablations,
        verdicts=evidence.verdicts(verdicts),
        verdicts_confidence=_confidence(store, verdicts),
        motions=evidence.motions(store.motion_tests(name)),
        promotions=_promotions(store, study, promotions, networks),
        recipes=told_apart(promotions),
        sessions=tuple(_session(one) for one in drivers_of(store, key, datetime.now(UTC))),
        failures=failures(trials, promotions, runs),
        preempted=len(store.jobs(key, "preempted")),
        run_seconds=sum(row["seconds"] or 0.0 for row in runs),
        learned=learned_of(evaluations, trials, jobs, len(fidelity), objectives, floors),
        begun=sum(one.gained for one in begun.values()),
    )


def points_of(
    evaluations: Sequence[Mapping[str, Any]], front: set[str], objectives: Sequence[str] = USUAL
) -> tuple[Point, ...]:
    """The measurements of a search.

    Args:
        evaluations: Rows of `nas.study.objectives.averaged`.
        front: Digests of the front, which is of the highest rung alone.
        objectives: Of the search.
    """
    top = max((row["rung"] for row in evaluations), default=None)
    return tuple(
        Point(
            digest=row["digest"],
            number=row["number"],
            rung=row["rung"],
            epochs=row["epochs"],
            accuracy=accuracy_of(row),
            interval=interval_of(accuracy_of(row), row["num_clips"], metric_of([row])),
            num_clips=row["num_clips"],
            macs=row["macs"],
            settings=row["settings"] or {},
            front=row["rung"] == top and row["digest"] in front,
            values=minimised(row, objectives),
            balanced=row["balanced"],
            seeds=row["seeds"],
        )
        for row in evaluations
    )


def curves_of(epochs: Sequence[CurveRow], trials: Sequence[TrialRow], points: Sequence[Point]) -> tuple[Curve, ...]:
    """Learning curves in the order of trials.

    Args:
        epochs: Rows of `Store.epoch_rows` that were evaluated.
        trials: Rows of `Store.trials`.
        points: Of the search; they say who reached the highest rung, and who is on its front.
    """
    states = {row["number"]: row["state"] for row in trials}
    highest = max((p.rung for p in points), default=None)
    top = {key: p for p in points if p.rung == highest for key in (p.number, p.digest)}
    found = []
    for (number, digest), rows in groupby(epochs, key=lambda row: (row["number"], row["digest"])):
        state = states.get(number, "running")
        if number in top or (digest in top and state == "finished"):  # the latter with another seed
            kind = "front" if top[digest].front else "top"
        else:
            kind = {"failed": "failed", "running": "running", "preempted": "running"}.get(state, "stopped")
        values = tuple((row["epoch"], accuracy_of(row)) for row in rows)
        found.append(Curve(number=number, digest=digest, kind=kind, values=values))
    return tuple(found)


def failures(
    trials: Sequence[TrialRow], promotions: Sequence[PromotionRow], runs: Sequence[RunRow]
) -> tuple[Failure, ...]:
    """Every trial, promotion and run that failed, with its reason."""
    kinds = (("trial {number}", trials), ("promotion, seed {seed}", promotions), ("ablation run, seed {seed}", runs))
    return tuple(
        Failure(
            what=what.format_map(row),
            digest=row["digest"],
            reason=(row["reason"] or "").replace("_", " "),
            detail=row["detail"] or "",
        )
        for what, rows in kinds
        for row in rows
        if row["state"] == "failed"
    )


def _in_use(
    networks: Mapping[str, NetworkCard],
    trials: Sequence[TrialRow],
    promotions: Sequence[PromotionRow],
    ablations: Sequence[Ablation],
) -> Mapping[str, NetworkCard]:
    """The networks that the page may be asked about: of trials first, then of promotions and ablations."""
    wanted = [row["digest"] for row in (*trials, *promotions)]
    wanted += [effect.digest for ablation in ablations for effect in ablation.effects if effect.digest]
    return {digest: networks[digest] for digest in dict.fromkeys(wanted) if digest in networks}


def _confidence(store: Store, verdicts: Sequence[VerdictRow]) -> float | None:
    """Of the intervals of verdicts, all of which are of one ablation."""
    of = verdicts[0]["ablation_id"] if verdicts else None
    return None if of is None else stated_confidence_of(store, store.row(m.ablation, of), verdicts)


def _parts(store: Store, ablation: int) -> tuple[list[ArmRow], list[ArmRunRow], list[EffectRow]]:
    return store.arms(ablation), store.arm_runs(ablation), store.effects(ablation)


def _promotions(
    store: Store, study: StudyRow, rows: Sequence[PromotionRow], networks: Mapping[str, NetworkCard]
) -> tuple[Promotion, ...]:
    measured = [
        row for split in ("val", "test") for row in store.evaluations(study["id"], purpose="promotion", split=split)
    ]
    beside = Path(store.location).parent
    return tuple(promotion(row, networks, measured, study, beside) for row in rows)


def _session(driver: CommandStart) -> Session:
    row = driver.session
    return Session(
        started=row["started_at"],
        ended=row["ended_at"],
        workers=row["workers"],
        wall_seconds=driver.seconds,
        state="under way" if driver.alive else "killed" if driver.died else "",
        busy_seconds=row["busy_seconds"],
        decide_seconds=row["decide_seconds"],
        environment=row["environment"] or {},
    )
