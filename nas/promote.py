"""Promotion: full training of chosen networks under a recipe of its own, beside the search that found them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from nas import store as s
from nas import tables as m
from nas.errors import NotFoundError, SearchError
from nas.exported import load_network, save_network
from nas.jobs import TrainJob, derived_seed, job_key
from nas.objective import first_network, network, opened
from nas.store import Row, Store
from nas.study import PromoteConfig, Study
from nas.using.accuracy import judged
from nas.using.promoted import evaluated_once, kept_over_seeds, kept_scores, tested_once
from nas.using.views import Views
from nas.weights import check_networks, settled
from search_spaces import codec
from search_spaces.inflate import Inflated
from trainer.checkpoint import load_weights
from trainer.data.clips import VideoData
from trainer.failures import TrainingFailed
from trainer.loop import fit
from trainer.metrics import EpochResult

Listener = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Promoted:
    """One network, trained in full with one seed.

    Attributes:
        digest: Of the network.
        description: In one line.
        seed: Of the training.
        split: What was reported: `test`, or `val` where the data has no test split.
        top1: Share of 1 on `split`.
        top5: Share of 1 on `split`.
        num_clips: Videos of `split`.
        epochs: Trained.
        folder: What `nas.load` opens.
        fresh: False where an earlier promotion was found.
        clip1: Share of single views that are right; None where an earlier version did not count it.
        low: Of the interval of top-1 over videos.
        high: Of it.
        views: How each video was looked at.
    """

    digest: str
    description: str
    seed: int
    split: str
    top1: float
    top5: float
    num_clips: int
    epochs: int
    folder: str
    fresh: bool
    clip1: float | None = None
    low: float | None = None
    high: float | None = None
    views: str = ""


def choose(store: Store, study: Row, *, prefix: str | None, best_under: int | None, whole_front: bool) -> list[str]:
    """Digests of the networks to promote.

    Args:
        store: The database.
        study: The study's row.
        prefix: Beginning of a digest.
        best_under: Most MACs; the most accurate network of the front below is taken.
        whole_front: Every network of the front.

    Raises:
        NotFoundError: None of the three or several are given, or nothing fits.
    """
    if sum((prefix is not None, best_under is not None, whole_front)) != 1:
        raise NotFoundError("name one of: a digest, --best-under MACS (such as 2G), or --front")
    if prefix is not None:
        return [store.find(prefix)["digest"]]
    front = store.pareto_front(study["name"])
    if not front:
        raise NotFoundError(f"the study {study['name']} in {store.location} has no front yet; run `nas search` first")
    if whole_front:
        return [row["digest"] for row in front]
    assert best_under is not None
    inside = [row for row in front if row["macs"] <= best_under]
    if not inside:
        raise NotFoundError(
            f"no network of the front has at most {best_under:,} MACs; the cheapest has {front[0]['macs']:,}"
        )
    return [max(inside, key=lambda row: (row["accuracy"], -row["macs"]))["digest"]]


def promote(
    store: Store,
    study: Study,
    row: Row,
    digest: str,
    *,
    seed: int,
    config: PromoteConfig,
    root: Path,
    listener: Listener = lambda text, done, total: None,
) -> Promoted:
    """Trains one network in full, reports its test split once, and leaves a folder for `nas.load`.

    A promotion that was interrupted goes on from its last checkpoint; one that is done is returned as it is, so that
    the test split is never looked at twice.

    Args:
        store: The database, open for writing; the caller holds its lock.
        study: The study as recorded.
        row: Its row.
        digest: The network.
        seed: Of the training.
        config: Epochs and recipe.
        root: Folder of the study.
        listener: Hears each epoch.

    Raises:
        SearchError: The training failed, and the reason is recorded; or it cannot begin with the weights of
            `recipe.init`, and nothing is.
    """
    data = opened(study.data)
    found = store.find(digest)
    spec = codec.decode(found["spec"])
    if not config.recipe.init.checksum:
        recipe = dataclasses.replace(config.recipe, init=settled(config.recipe.init))
        config = dataclasses.replace(config, recipe=recipe)
    recipe_digest = hashlib.sha256(json.dumps(config.recipe.identity(), sort_keys=True).encode()).hexdigest()
    split = "test" if "test" in data.splits else "val"
    job = TrainJob(
        spec=codec.dumps(spec),
        num_classes=len(data.classes),
        data=study.data,
        recipe=config.recipe,
        seed=derived_seed(seed, "promotion"),
        folder="",
        until_epoch=config.epochs,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    folder = root / "promoted" / f"{digest[:10]}-seed{seed}-{job_key(job, data.checksum)}"
    begun: Inflated | None = None
    if not (folder / "network.json").is_file():  # a promotion that is done needs its initial weights no more
        begun = check_networks(config.recipe.init, [spec], num_classes=job.num_classes)
    promotion, done = _begin(store, row, digest, seed, recipe_digest, config, folder)
    if not done:
        try:
            _train(job, data, folder, listener)
            listener(f"testing on {split}: {config.test} of each video", config.epochs, config.epochs)
            _report(
                store,
                row,
                promotion,
                job,
                data,
                folder,
                spec,
                begun,
                digest=digest,
                seed=seed,
                split=split,
                views=config.test,
            )
        except TrainingFailed as error:
            _state(store, promotion, "failed", reason=error.reason, detail=str(error))
            raise SearchError(f"the promotion of {digest[:10]} failed: {error.reason}: {error}") from error
    result = next(
        e for e in store.evaluations(row["id"], purpose="promotion", split=split) if e["promotion_id"] == promotion
    )
    scores = kept_scores(folder, split)
    found_test = judged(scores) if scores is not None else None
    return Promoted(
        digest=digest,
        description=spec.describe(),
        seed=seed,
        split=split,
        top1=result["top1"],
        top5=result["top5"],
        num_clips=result["num_clips"],
        epochs=result["epochs"],
        folder=str(folder),
        fresh=not done,
        clip1=found_test.clip1.value if found_test else None,
        low=found_test.video1.low if found_test else None,
        high=found_test.video1.high if found_test else None,
        views=str(found_test.views) if found_test else "",
    )


def summarise(results: Sequence[Promoted]) -> list[dict[str, Any]]:
    """One row a network: mean and standard deviation of top-1 over its seeds, with intervals.

    `low` and `high` are of the mean over seeds on other videos; `low_both` and `high_both` are of other seeds and other
    videos. Both, clip@1 and the views are None where an earlier version did not keep the scores of each video.
    """
    rows = []
    for digest in dict.fromkeys(result.digest for result in results):
        mine = [result for result in results if result.digest == digest]
        mean = sum(r.top1 for r in mine) / len(mine)
        spread = math.sqrt(sum((r.top1 - mean) ** 2 for r in mine) / (len(mine) - 1)) if len(mine) > 1 else None
        first = mine[0]
        over = kept_over_seeds([Path(result.folder) for result in mine], first.split)
        rows.append(
            {
                "digest": digest,
                "description": first.description,
                "split": first.split,
                "top1": mean,
                "std": spread,
                "seeds": len(mine),
                "num_clips": first.num_clips,
                "epochs": first.epochs,
                "top5": sum(r.top5 for r in mine) / len(mine),
                "clip1": over.clip1.value if over else None,
                "low": over.video1.low if over else None,
                "high": over.video1.high if over else None,
                "low_both": over.both[0] if over and over.both else None,
                "high_both": over.both[1] if over and over.both else None,
                "views": "; ".join(dict.fromkeys(r.views for r in mine)) if over else None,
            }
        )
    return rows


def _begin(
    store: Store, row: Row, digest: str, seed: int, recipe_digest: str, config: PromoteConfig, folder: Path
) -> tuple[int, bool]:
    """The promotion's id, and whether it is done already."""
    key = {"digest": digest, "seed": seed, "recipe_digest": recipe_digest, "epochs": config.epochs}
    for old in store.promotions(row["id"]):
        if all(old[name] == value for name, value in key.items()):
            done = old["state"] == "done" and (folder / "network.json").is_file()
            if old["state"] == "failed":
                _state(store, old["id"], "running")
            return old["id"], done
    with store.write() as connection:
        return (
            s.insert(
                connection,
                m.promotion,
                study_id=row["id"],
                recipe=asdict(config.recipe),
                folder=str(folder),
                state="running",
                started_at=s.now(),
                **key,
            ),
            False,
        )


def _train(job: TrainJob, data: VideoData, folder: Path, listener: Listener) -> None:
    model = first_network(job)

    def say(epoch: EpochResult) -> None:
        text = f"epoch {epoch.epoch}: loss {epoch.train_loss:.3f}"
        if epoch.val is not None:
            text += f", val top-1 {epoch.val.top1:.3f} of {epoch.val.num_clips} clips"
        listener(text, epoch.epoch, job.until_epoch)

    fit(
        model,
        data,
        job.data,
        job.recipe,
        seed=job.seed,
        until_epoch=job.until_epoch,
        folder=folder / "training",
        device=job.device,
        on_epoch=say,
    )


def _report(
    store: Store,
    row: Row,
    promotion: int,
    job: TrainJob,
    data: VideoData,
    folder: Path,
    spec: Any,
    begun: Inflated | None,
    *,
    digest: str,
    seed: int,
    split: str,
    views: Views,
) -> None:
    """Exports the trained network, then measures what was exported, in float32 as it will be used."""
    model = network(
        job.spec, num_classes=job.num_classes, dropout=job.recipe.dropout, seed=job.seed, planes=job.data.planes
    )
    load_weights(folder / "training" / "last.pt", model)
    model.to(job.device).eval()
    splits = tuple(dict.fromkeys(("val", split)))
    record: dict[str, Any] = {
        "digest": digest,
        "seed": seed,
        "epochs": job.until_epoch,
        "recipe": asdict(job.recipe),
        "init": asdict(begun) if begun is not None else None,
        "checksum": data.checksum,
        **({"flow": asdict(data.flow)} if data.flow is not None else {}),
    }
    if data.multi_label:
        metrics = evaluated_once(model, job, data, splits, record)
    else:
        metrics = tested_once(model, job, folder, splits, views, record)
    save_network(folder, model, spec=spec, class_names=data.classes, data=job.data, record=record)
    load_network(folder)  # what cannot be opened again is not reported as done
    with store.write() as connection:
        for name, metric in metrics.items():
            s.insert(
                connection,
                m.evaluation,
                study_id=row["id"],
                digest=digest,
                seed=seed,
                purpose="promotion",
                promotion_id=promotion,
                epochs=job.until_epoch,
                split=name,
                **metric.plain(),
            )
        connection.execute(
            m.promotion.update().where(m.promotion.c.id == promotion).values(state="done", ended_at=s.now())
        )


def _state(store: Store, promotion: int, state: str, *, reason: str | None = None, detail: str | None = None) -> None:
    with store.write() as connection:
        connection.execute(
            m.promotion.update()
            .where(m.promotion.c.id == promotion)
            .values(state=state, reason=reason, detail=detail, ended_at=s.now())
        )
