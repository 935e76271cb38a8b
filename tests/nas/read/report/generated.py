"""Study databases of any size, filled as a search, its promotions, ablations and tests would fill them."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from nas.store import tables as m
from nas.store import write as s
from nas.store.database import Store
from nas.store.write import Architecture
from nas.train.folder import FORMAT, write_content
from search_spaces import codec, edit
from search_spaces.catalogue import preset
from search_spaces.spec import ArchSpec

CLIP, CLASSES = "8x32x32", ("clockwise", "contract", "counterclockwise", "down", "expand", "left", "right", "up")
FAMILIES = ("tsn_r18", "i3d", "s3d_v3", "c3d", "slowfast_4x16_r50", "x3d_xs", "r2plus1d_18")
KINDS = ("2d", "3d", "2plus1d", "p3d_a", "p3d_b")
WHEN = "2026-11-21T13:57:47+00:00"


def study_config(name: str, rungs: Sequence[int], trials: int, **words: str) -> dict[str, Any]:
    """A study as it is recorded."""
    return {
        "name": name,
        "question": "Which temporal operator, in which layers, gives the best accuracy for its MACs?",
        "hypothesis": "Factorised operators dominate full 3D convolutions at equal MACs.",
        "baseline": "r3d_18",
        "decision_rule": "The hypothesis stands if no network of kind 3d is on the front by more than two s.e.",
        "budget": f"{trials} networks",
        **words,
        "seed": 0,
        "data": {"name": "motion", "root": "data/motion", "sampling": "uniform", "short_side": 40, "mean": [0.4, 0.4]},
        "recipe": {"batch_size": 32, "lr": 0.003, "init": {"weights": ""}},
        "search": {"rungs": list(rungs), "trials": trials, "eta": 3, "sampler": "tpe"},
        "constraints": ["macs <= 100M"],
    }


def empty_study(path: Path, *, name: str = "demo", classes: Sequence[str] = CLASSES, **words: str) -> tuple[Store, int]:
    """A database with a study that nothing has happened to; returns its store, open for writing, and its key."""
    store = Store(path, create=True)
    key = store.add_study(
        name=name,
        seed=0,
        clip=CLIP,
        num_classes=len(classes),
        config=study_config(name, (3, 9, 27), 27, **words),
        data={
            "name": "motion",
            "root": "data/motion",
            "checksum": "ab" * 32,
            "classes": list(classes),
            "clips": {"train": 1024, "val": 512, "test": 512},
            "broken": [{"path": "train/up/7.mp4", "reason": "it ends after 2 of 30 frames"}],
        },
    )
    return store, key


def full_study(
    path: Path,
    *,
    trials: int = 40,
    rungs: Sequence[int] = (3, 9, 27),
    seed: int = 0,
    name: str = "demo",
    classes: Sequence[str] = CLASSES,
    **words: str,
) -> Store:
    """A finished study with everything that a report shows; networks of every family are among its first."""
    random_ = random.Random(seed)
    store, key = empty_study(path, name=name, classes=classes, **words)
    with store.write() as connection:
        config = study_config(name, rungs, trials, **words)
        connection.execute(m.study.update().values(config=config))
        _session(connection, key)
        specs = _specs(trials, random_)
        digests = [_network(connection, spec, random_, len(classes)) for spec in specs]
        numbers = [_trial(connection, key, i, digest, random_, failed=i % 41 == 40) for i, digest in enumerate(digests)]
        quality = {i: random_.betavariate(3, 2) for i in range(trials)}
        members, begun = [i for i in range(trials) if i % 41 != 40], 0
        for rung, until in enumerate(rungs):
            for i in members:
                curve = [_accuracy(quality[i], epoch, random_) for epoch in range(1, until + 1)]
                _epochs(connection, numbers[i], begun, curve)
                _evaluation(connection, key, digests[i], curve[-1], until, trial_id=numbers[i], rung=rung)
            begun = until
            members = sorted(members, key=lambda i: -quality[i])[: max(1, len(members) // 3)]
        _expectations(connection, numbers, quality, random.Random(seed))
        last = members[0]
        _promotions(connection, key, digests[last], path.parent, classes)
        _ablation(connection, key, digests[:9], random_)
        _motion(connection, key, digests[last])
        for factor, value in (("kind", 0.51), ("width", 0.3), ("placement", 0.19)):
            _importance(connection, key, factor, "", value, rungs[0], trials)
        _importance(connection, key, "kind", "placement", 0.12, rungs[0], trials)
    return store


def _specs(count: int, random_: random.Random) -> list[ArchSpec]:
    found = {codec.digest(spec): spec for spec in (preset(family) for family in FAMILIES)}
    base = preset("r3d_18")
    while len(found) < count:
        spec: ArchSpec = base
        for stage in range(4):
            for block in range(2):
                spec = edit.put(spec, f"stages.{stage}.blocks.{block}.temporal.kind", random_.choice(KINDS))
        spec = spec.canonical()
        found.setdefault(codec.digest(spec), spec)
    return list(found.values())[:count]


def _network(connection: Connection, spec: ArchSpec, random_: random.Random, num_classes: int) -> str:
    macs = int(10 ** random_.uniform(6.6, 8.4))
    network = Architecture(
        digest=codec.digest(spec),
        description=spec.describe(),
        spec=codec.encode(spec),
        params=macs // 40,
        macs=macs,
        train_macs=macs,
        activation_bytes=macs // 3,
    )
    s.put_network(connection, network, clip=CLIP, num_classes=num_classes)
    return network.digest


def _trial(connection: Connection, key: int, number: int, digest: str, random_: random.Random, *, failed: bool) -> int:
    settings = {
        "kind": random_.choice(KINDS),
        "placement": random_.choice(("all", "none", "mc3", "rmc3")),
        "width": random_.choice((0.5, 1.0, 1.5)),
        "dilation": random_.choice((1, 2)),
    }
    return s.insert(
        connection,
        m.trial,
        study_id=key,
        number=number,
        digest=digest,
        seed=0,
        stratum=0,
        params=settings,
        origin="tpe",
        state="failed" if failed else "stopped",
        reason="out_of_memory" if failed else None,
        detail="CUDA out of memory: tried to allocate 2.4 GiB" if failed else None,
    )


def _accuracy(quality: float, epoch: int, random_: random.Random) -> float:
    value = 0.125 + (quality - 0.125) * (1 - math.exp(-epoch / 5)) + random_.gauss(0, 0.012)
    return min(0.99, max(0.05, value))


def _epochs(connection: Connection, trial_id: int, begun: int, curve: Sequence[float]) -> None:
    rows = [
        {
            "epoch": epoch,
            "train_loss": 1 / epoch,
            "lr": 0.003,
            "seconds": 2.0,
            "top1": top1,
            "top5": min(1.0, top1 + 0.1),
            "loss": 1.0,
            "num_clips": 512,
        }
        for epoch, top1 in enumerate(curve, start=1)
        if epoch > begun
    ]
    s.put_epochs(connection, trial_id, rows)


def _evaluation(
    connection: Connection,
    key: int,
    digest: str,
    top1: float,
    epochs: int,
    *,
    split: str = "val",
    trial_id: int | None = None,
    rung: int | None = None,
    promotion_id: int | None = None,
    seed: int = 0,
) -> None:
    s.insert(
        connection,
        m.evaluation,
        study_id=key,
        digest=digest,
        seed=seed,
        purpose="search" if promotion_id is None else "promotion",
        trial_id=trial_id,
        promotion_id=promotion_id,
        rung=rung,
        epochs=epochs,
        split=split,
        top1=top1,
        top5=min(1.0, top1 + 0.1),
        loss=1.0,
        num_clips=512,
    )


def _expectations(
    connection: Connection, numbers: Sequence[int], quality: Mapping[int, float], rng: random.Random
) -> None:
    """What a model expected of the trials when they were begun; it is wrong about one in four."""
    for i, trial_id in enumerate(numbers):
        error = (1 - quality[i]) * (1.9 if i % 4 == 0 else rng.uniform(0.9, 1.1))
        s.insert(
            connection,
            m.job,
            trial_id=trial_id,
            rung=0,
            epochs=3,
            state="done",
            started_at=WHEN,
            ended_at=WHEN,
            seconds=6.0,
            expected_error=error,
            expected_spread=0.1,
            expected_gain=0.01,
        )


def _session(connection: Connection, key: int) -> None:
    s.insert(
        connection,
        m.session,
        study_id=key,
        started_at=WHEN,
        ended_at="2026-11-21T14:06:08+00:00",
        workers=2,
        environment={
            "command": ["/usr/bin/nas", "search", "studies/demo.yaml", "data=motion"],
            "cores": 2,
            "gpus": [],
            "python": "3.11.7",
            "system": "Linux-6.18-x86_64",
            "versions": {"torch": "2.15.0", "video-nas": "0.1.0"},
        },
        wall_seconds=500.2,
        busy_seconds=495.1,
        decide_seconds=25.01,
    )


def _promotions(connection: Connection, key: int, digest: str, root: Path, classes: Sequence[str]) -> None:
    """Three seeds: the first left its folder, the second's folder is gone, the third failed."""
    for seed in range(3):
        folder = f"runs/demo/promoted/{digest[:10]}-seed{seed}"
        promotion = s.insert(
            connection,
            m.promotion,
            study_id=key,
            digest=digest,
            seed=seed,
            recipe_digest="cd" * 32,
            recipe={"lr": 0.003},
            epochs=60,
            folder=folder,
            state="failed" if seed == 2 else "done",
            reason="non_finite_loss" if seed == 2 else None,
            detail="the loss is nan in epoch 4" if seed == 2 else None,
            started_at=WHEN,
        )
        if seed == 2:
            continue
        for split, top1 in (("val", 0.95), ("test", 0.94 + 0.01 * seed)):
            _evaluation(connection, key, digest, top1, 60, split=split, promotion_id=promotion, seed=seed)
        if seed == 0:
            put_folder(root / "promoted" / Path(folder).name, classes)


def promote_again(store: Store, *, lr: float = 0.003, views: str | None = None, seed: int = 0, top1: float) -> None:
    """One more promotion of the network that `full_study` promoted, with this recipe and these views."""
    first = store.promotions(1)[0]
    with store.write() as connection:
        promotion = s.insert(
            connection,
            m.promotion,
            study_id=1,
            digest=first["digest"],
            seed=seed,
            recipe_digest=("cd" if lr == first["recipe"]["lr"] else "ef") * 32,
            recipe={"lr": lr},
            epochs=60,
            folder=f"runs/demo/promoted/again-{lr}-{seed}",
            state="done",
            started_at=WHEN,
        )
        for split in ("val", "test"):
            _evaluation(connection, 1, first["digest"], top1, 60, split=split, promotion_id=promotion, seed=seed)
        change = m.evaluation.update().where(m.evaluation.c.promotion_id == promotion)
        connection.execute(change.values(views=views))


def put_folder(folder: Path, classes: Sequence[str]) -> None:
    """A promotion's folder, as far as the report reads it."""
    folder.mkdir(parents=True)
    size = len(classes)
    matrix = [[58 if i == j else 2 if abs(i - j) == 1 else 0 for j in range(size)] for i in range(size)]
    record = {"confusion": {"val": matrix, "test": matrix}}
    write_content(folder, {"format": FORMAT, "classes": list(classes), "record": record})


def _ablation(connection: Connection, key: int, digests: Sequence[str], random_: random.Random) -> None:
    ablation = s.insert(
        connection,
        m.ablation,
        study_id=key,
        name="operator and placement",
        kind="ablate",
        design={"factors": ["kind", "placement"], "seeds": 5, "epochs": 12, "margin": 0.01, "confidence": 0.95},
        state="done",
        sentence="3d is better than 2d by 31.2 points; the placement is undecided.",
        created_at=WHEN,
    )
    effects = (
        ("kind", "3d", "2d", 0.312, 0.281, 0.343, "better"),
        ("kind", "2plus1d", "3d", -0.041, -0.06, -0.022, "worse"),
        ("placement", "mc3", "all", 0.01, -0.02, 0.04, "undecided"),
        ("A/A", "control", "base", 0.001, -0.006, 0.008, "equivalent"),
        ("kind × placement", "3d, mc3", "additive", 0.02, None, None, "undecided"),
    )
    for position, ((factor, level, reference, difference, low, high, word), digest) in enumerate(
        zip(effects, digests, strict=False)
    ):
        arm = s.insert(
            connection,
            m.arm,
            ablation_id=ablation,
            position=position,
            reference=0,
            factor=factor,
            level=level,
            digest=digest,
            clip=CLIP,
            changes={},
            levels={},
        )
        for seed in range(5):
            failed = position == 1 and seed == 4
            run = s.insert(
                connection,
                m.run,
                study_id=key,
                key=f"{position}-{seed}",
                digest=digest,
                seed=seed,
                epochs=12,
                folder="runs/demo/runs/x",
                state="failed" if failed else "done",
                reason="broken_clip" if failed else None,
                detail="val/up/3.mp4 cannot be decoded" if failed else None,
                tries=1,
                started_at=WHEN,
                seconds=30.0,
                top1=0.8,
            )
            connection.execute(m.arm_run.insert().values(arm_id=arm, run_id=run, pair=seed))
        s.insert(
            connection,
            m.effect,
            ablation_id=ablation,
            arm_id=arm,
            factor=factor,
            level=level,
            reference=reference,
            pairs=5,
            difference=difference,
            low=low,
            high=high,
            macs_ratio=1.5,
            p_holm=0.0004 if word == "better" else 0.2 if low is not None else None,
            word=word,
        )
    for claim, stated, difference, word in (
        ("3d is better than 2d where motion decides", 0.1, 0.312, "reproduced"),
        ("(2+1)D is better than 3D at equal parameters", 0.02, -0.041, "contradicted"),
        ("mixed convolutions are enough", None, 0.01, "undecided"),
    ):
        s.insert(
            connection,
            m.verdict,
            study_id=key,
            ablation_id=ablation,
            claim=claim,
            document="Tran et al. 2018, table 2",
            stated=stated,
            difference=difference,
            low=difference - random_.uniform(0.01, 0.03),
            high=difference + 0.02,
            pairs=5,
            word=word,
        )


def _motion(connection: Connection, key: int, digest: str) -> None:
    tests = {"forward": 0.94, "reversed": 0.31, "shuffled": 0.22, "frozen": 0.13, "single": 0.12}
    for test, top1 in tests.items():
        s.insert(
            connection,
            m.motion,
            study_id=key,
            digest=digest,
            source="promotion",
            source_id=1,
            seed=0,
            epochs=60,
            split="test",
            test=test,
            order_seed=0,
            top1=top1,
            loss=1.0,
            num_clips=512,
            correct="1" * 512,
        )


def _importance(
    connection: Connection, key: int, factor: str, other: str, value: float, epochs: int, networks: int
) -> None:
    s.insert(
        connection,
        m.importance,
        study_id=key,
        rung=0,
        epochs=epochs,
        method="pedanova" if not other else "fanova",
        objective="error",
        factor=factor,
        other=other,
        importance=value,
        networks=networks,
    )
