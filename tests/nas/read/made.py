"""Databases of finished searches whose accuracies are made up, so that what decides is known; all else is real."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nas.search.optuna_copies import OptunaCopies
from nas.store import tables as m
from nas.store import write as s
from nas.store.database import Store
from nas.store.write import Architecture
from nas.study.files import load_study
from search_spaces import codec
from tests.nas.studies import merged, write_study

SPACE: dict[str, Any] = {
    "space": {"domains": {"kind": {"values": ["2d", "3d", "2plus1d", "p3d_a", "p3d_b"], "per": "stage"}}},
    "search": {"trials": 40},
}
NUM_CLIPS = 400

Score = Callable[[Mapping[str, Any], int, random.Random], float]
Macs = Callable[[Mapping[str, Any], random.Random], int]


def kind_decides(settings: Mapping[str, Any], rung: int, rng: random.Random) -> float:
    """Top-1 that the operator of the second stage decides, the kernel a little, and the seed a little."""
    gain = {"2d": 0.0, "3d": 0.1, "2plus1d": 0.2, "p3d_a": 0.3, "p3d_b": 0.15}[settings["kind.stage1"]]
    kernel = 0.03 if settings.get("kernel") == 5 else 0.0
    return 0.3 + gain + kernel + 0.05 * rung + rng.uniform(-0.01, 0.01)


def macs_of(settings: Mapping[str, Any], rng: random.Random) -> int:
    """MACs that the first stage decides."""
    dear = {"2d": 1, "3d": 8, "2plus1d": 4, "p3d_a": 2, "p3d_b": 3}[settings["kind.stage0"]]
    return 1_000_000 * dear + rng.randrange(100_000)


def made(
    path: Path,
    *,
    over: Mapping[str, Any] | None = None,
    score: Score = kind_decides,
    macs: Macs = macs_of,
    seed: int = 3,
    rungs: int = 3,
    checksum: str = "c0ffee0000",
    optuna: bool = True,
) -> Path:
    """A study with 40 networks at the first rung; the best third of each rung goes on.

    Args:
        path: The database.
        over: Laid over the study.
        score: Top-1 of settings at a rung.
        macs: Cost of settings.
        seed: Of the study, the networks and the scores.
        rungs: How many rungs were reached.
        checksum: Of the data.
        optuna: Whether the rungs' Optuna studies are made, too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = write_study(path.with_suffix(".yaml"), merged(merged(SPACE, {"seed": seed}), dict(over or {})))
    study = load_study(file)
    rng = random.Random(seed)
    store = Store(path, create=True)
    data = {"name": "motion", "root": "", "checksum": checksum, "classes": list("abcdefgh"), "broken": []}
    data["clips"] = {"train": 32, "val": NUM_CLIPS}
    row = store.add_study(
        name=study.name,
        seed=seed,
        clip=str(study.data.clip),
        num_classes=8,
        config=dict(study.config),
        data=data,
    )
    points = {}
    while len(points) < study.search.trials:
        point = study.space.random(rng)
        points[point.digest] = point
    trials: list[tuple[int, Mapping[str, Any], str]] = []
    with store.write() as connection:
        for number, point in enumerate(points.values()):
            settings = dict(point.params)
            cost = macs(settings, rng)
            network = Architecture(
                digest=point.digest,
                description=point.spec.describe(),
                spec=codec.encode(point.spec),
                params=cost // 100,
                macs=cost,
                train_macs=3 * cost,
                activation_bytes=cost // 10,
            )
            s.put_network(connection, network, clip=str(study.data.clip), num_classes=8)
            trial = s.insert(
                connection,
                m.trial,
                study_id=row,
                number=number,
                digest=point.digest,
                seed=seed,
                stratum=0,
                params=settings,
                origin="random",
                state="stopped",
            )
            trials.append((trial, settings, point.digest))
        for rung, epochs in enumerate(study.search.rungs[:rungs]):
            results = []
            for trial, settings, digest in trials:
                top1 = round(min(1.0, max(0.0, score(settings, rung, rng))) * NUM_CLIPS) / NUM_CLIPS
                results.append((top1, trial, settings, digest))
                s.insert(
                    connection,
                    m.evaluation,
                    study_id=row,
                    digest=digest,
                    seed=seed,
                    purpose="search",
                    trial_id=trial,
                    rung=rung,
                    epochs=epochs,
                    split="val",
                    top1=top1,
                    top5=min(1.0, top1 + 0.2),
                    loss=1.0 - top1,
                    num_clips=NUM_CLIPS,
                )
                s.put_epochs(
                    connection,
                    trial,
                    [{"epoch": epochs, "train_loss": 1.0, "lr": 0.1, "seconds": 2.0, "top1": top1}],
                )
            results.sort(key=lambda result: -result[0])
            trials = [(trial, settings, digest) for _, trial, settings, digest in results[: len(results) // 3]]
    if optuna:
        reached = replace(study.search.fidelity, values=study.search.fidelity.values[:rungs])
        copies = OptunaCopies(str(path), study.name, reached, study.search.objectives, study.space)
        copies.sync(store.evaluations(row))
        copies.close()
    store.close()
    return path
