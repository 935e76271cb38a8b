"""Promotion: full training of chosen networks under a recipe of its own, beside the search that found them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas.cost.cost import cost_of
from nas.errors import NotFoundError, SearchError, StoreError
from nas.places import lines_of, moved
from nas.promotion.results import Promoted, joined, promoted_of
from nas.store import tables as m
from nas.store import write as s
from nas.store.database import Store
from nas.store.records import PromotionRow, StudyRow
from nas.study.metric import (
    accuracy_of,
    broken_text,
    field_of,
    interval_of,
    interval_text,
    metric_of,
    short_number,
    told,
)
from nas.study.objectives import no_front
from nas.study.study import PromoteConfig, Study
from nas.study.views import Views
from nas.train.folder import check_promotion
from nas.train.jobs import JobResult, TrainJob, after_cut, derived_seed, job_key
from nas.train.network import load_network, save_network
from nas.train.session import left_out, session_of
from nas.train.training import first_network, network, opened
from nas.train.weights import Begun, check_layers, check_networks, settled, words
from nas.use.multi_view import tested_once
from search_spaces import codec
from search_spaces.spec import ArchSpec
from trainer.checkpoint import load_weights
from trainer.data.clips import VideoData, without
from trainer.device import usual_device
from trainer.failures import EnvironmentFailed, TrainingFailed, disk_space, environment_failure, named
from trainer.fit import check_team, fit
from trainer.logs import check_logs
from trainer.metrics import EpochResult
from trainer.ready import check_ready

Listener = Callable[[str, int, int], None]


def choose(
    store: Store, study: StudyRow, *, prefix: str | None, best_under: int | None, whole_front: bool
) -> list[str]:
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
    front = store.front(study["name"])
    if not front:
        raise NotFoundError(f"{store.location} has no front: {no_front(study, store.evaluations(study['id']))}")
    if whole_front:
        return [row["digest"] for row in front]
    assert best_under is not None
    inside = [row for row in front if row["macs"] <= best_under]
    if not inside:
        raise NotFoundError(
            f"no network of the front has at most {best_under:,} MACs; the cheapest has {front[0]['macs']:,}"
        )
    return [max(inside, key=lambda row: (row["accuracy"], -row["macs"]))["digest"]]


def rivals(store: Store, study: StudyRow, digest: str, best_under: int) -> str | None:
    """Which networks may be as good as the one that `--best-under` takes, in words; None where none may.

    The most accurate of many is partly the luckiest, so what lies in its interval is as good a choice.

    Args:
        store: The database.
        study: The study's row.
        digest: The network that was taken.
        best_under: Most MACs.
    """
    rows = store.evaluations(study["id"])
    metric = metric_of(rows)
    epochs = max((row["epochs"] for row in rows), default=0)
    inside = [row for row in rows if row["epochs"] == epochs and row["macs"] <= best_under]
    best = next((row for row in inside if row["digest"] == digest), None)
    if best is None:
        return None
    accuracy = accuracy_of(best)
    interval = interval_of(accuracy, best["num_clips"], metric)
    others = sorted((row for row in inside if row is not best), key=lambda row: (-accuracy_of(row), row["macs"]))
    near = [row for row in others if interval is None or accuracy_of(row) >= interval[0]]
    if not near:
        return None
    second = near[0]
    if interval is None:
        error, more = f"{metric} {accuracy:.3f}, whose error is not known", ""
    else:
        error = f"{metric} {accuracy:.3f} ({interval_text(*interval)})"
        more = f", as are {len(near) - 1} more" if len(near) > 2 else ", as is 1 more" if len(near) == 2 else ""
    place = "the runner-up is" if interval is None else "within its error is the runner-up"
    return (
        f"{digest[:10]} has {error}; {place} {second['digest'][:10]} with {accuracy_of(second):.3f} at "
        f"{short_number(second['macs'])} MACs{more}; `nas versus` says which is better, with fresh seeds"
    )


def put_spec(store: Store, study: Study, row: StudyRow, spec: ArchSpec) -> str:
    """Records a network that no search has found, with its exact cost; returns its digest.

    Raises:
        ClipError: The study's clip is too short or too small for it.
    """
    data = study.data
    network = s.Architecture.of(
        spec.canonical(), cost_of(spec, data.clip, num_classes=row["num_classes"], planes=data.planes)
    )
    with store.write() as connection:
        s.put_network(connection, network, clip=row["clip"], num_classes=row["num_classes"])
    return network.digest


def promote(
    store: Store,
    study: Study,
    row: StudyRow,
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
        config: Epochs and recipe, devices, and what is kept.
        root: Folder of the study.
        listener: Hears each epoch.

    Raises:
        SearchError: The training failed, or was cut short by its environment, and the reason is recorded; or it cannot
            begin with the weights of `recipe.init`, and nothing is.
        StoreError: The videos are not those of the study.
        NotFoundError: It was promoted, but its folder is gone.
        ConfigError: There are too few devices, a log cannot be written, or a setting does not fit the data.
    """
    data = opened(study.data)
    if data.checksum != row["data"]["checksum"]:
        raise StoreError(
            f"a promotion is trained on the videos of its study, but those under {study.data.root} are not those that "
            f"{store.location} was made with; bring them back, or give --db another file"
        )
    lost = left_out(row)
    data = without(data, "val", lost)
    device = usual_device()
    team = check_team(config.recipe, device, config.devices)
    check_logs(config.logs)
    found = store.find(digest)
    spec = codec.decode(found["spec"])
    if not config.recipe.init.checksum:
        recipe = dataclasses.replace(config.recipe, init=settled(config.recipe.init))
        config = dataclasses.replace(config, recipe=recipe)
    patience = {"patience": config.patience} if config.patience else {}  # other weights are tested then
    identity = config.recipe.identity() | patience
    recipe_digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    split = "test" if "test" in data.splits else "val"
    job = TrainJob(
        spec=codec.dumps(spec),
        num_classes=len(data.classes),
        data=study.data,
        recipe=config.recipe,
        seed=derived_seed(seed, "promotion"),
        folder="",
        until_epoch=config.epochs,
        device=device,
        left_out=lost,
    )
    key = {"digest": digest, "seed": seed, "recipe_digest": recipe_digest, "epochs": config.epochs}
    old = next((one for one in store.promotions(row["id"]) if key.items() <= one.items()), None)
    done = old is not None and old["state"] == "done"
    folder = _folder(root, job, data.checksum, digest, seed, old, config.patience)
    begun: list[Begun] | None = None
    if not done:  # one that is done needs neither its initial weights nor its test any more
        check_ready(data, study.data, config.recipe)
        opened(config.test.data(study.data))
        check_layers(config.recipe, [spec], num_classes=job.num_classes)
        begun = check_networks(config.recipe.init, [spec], num_classes=job.num_classes, planes=study.data.planes)
        if begun is not None:
            listener(words(config.recipe.init, begun), 0, config.epochs)
    promotion = _begin(store, row, old, key, config, folder)

    def heard(text: str, done: int, total: int) -> None:
        if beat is not None:
            beat()
        listener(text, done, total)

    def carry_out() -> None:
        broken, best, trained = _train(store, row, promotion, job, data, folder, config, heard)
        listener(f"testing on {split}: {config.test} of each video", config.epochs, config.epochs)
        with named(f"the test on {split}"), disk_space(folder):
            lost = _report(
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
                broken=broken,
                best_epoch=best,
                trained=trained,
                devices=team,
            )
        for name, videos in lost.items():
            path, reason = next(iter(videos.items()))
            text = f"left out of the test on {name}: {len(videos)} of its videos (the first, {path}: {reason})"
            listener(text, config.epochs, config.epochs)

    def cut(text: str) -> None:
        listener(f"cut short: {text}", 0, config.epochs)

    tries: Counter[tuple[str, str]] = Counter()
    with nullcontext() if done else session_of(store, row, workers=0) as beat:
        while not done:
            try:
                carry_out()
                break
            except Exception as error:
                place = f"after epoch {lines_of(folder / 'training')}"
                _cut_short(store, promotion, error, digest, place, tries, cut)
    result = next(
        e for e in store.evaluations(row["id"], purpose="promotion", split=split) if e["promotion_id"] == promotion
    )
    return promoted_of(
        store.row(m.promotion, promotion), result, description=spec.describe(), folder=folder, fresh=not done
    )


def _cut_short(
    store: Store,
    promotion: int,
    error: Exception,
    digest: str,
    place: str,
    tries: Counter[tuple[str, str]],
    say: Callable[[str], None],
) -> None:
    """Records what ended a promotion, and raises it unless it goes on at once."""
    failure = environment_failure(error) or error
    if not isinstance(failure, TrainingFailed):
        raise error
    reason, detail = failure.reason, " ".join(str(failure).split())
    if isinstance(failure, EnvironmentFailed):
        tries[reason, place] += 1
        result = JobResult(epochs=(), seconds=0.0, reason=reason, detail=detail)
        try:
            failed = after_cut(result, tries[reason, place], place, say)
        except SearchError as stop:
            with suppress(StoreError):  # the disk may be full; a promotion that is under way goes on all the same
                _state(store, promotion, "preempted", reason=reason, detail=detail)
            raise stop from error
        if failed is None:
            return
        detail = str(failed.detail)
    _state(store, promotion, "failed", reason=reason, detail=detail)
    raise SearchError(f"the promotion of {digest[:10]} failed: {reason}: {detail}") from error


def _folder(
    root: Path, job: TrainJob, checksum: str, digest: str, seed: int, old: PromotionRow | None, patience: int
) -> Path:
    """Where a promotion lies: a new one by its name; one that was begun, where it was, or beside the moved database.

    Raises:
        NotFoundError: It is done, and its folder is gone: a second training would look at the test split again.
    """
    if old is None:
        name = f"{digest[:10]}-seed{seed}-{job_key(job, checksum)}"
        if job.recipe.epochs != job.until_epoch:  # else the recipe says how long, which is part of the key
            name += f"-{job.until_epoch}"
        name += f"-patience{patience}" if patience else ""
        return root / "promoted" / name
    if old["state"] != "done":  # goes on here, never in the folder of a study that this one is a copy of
        return root / "promoted" / Path(old["folder"]).name
    folder = moved(old["folder"], root)
    if not (folder / "network.json").is_file():
        raise NotFoundError(
            f"{digest[:10]} was promoted with seed {seed} and its test was looked at, but its folder {folder} is gone; "
            "bring it back, or give --db another file"
        )
    check_promotion(folder, digest=digest, seed=seed, epochs=old["epochs"])
    return folder


def _begin(
    store: Store, row: StudyRow, old: PromotionRow | None, key: dict[str, Any], config: PromoteConfig, folder: Path
) -> int:
    """The promotion's id; its row is made, or says that it is under way again."""
    if old is not None:
        if old["state"] in ("failed", "preempted"):
            _state(store, old["id"], "running")
        return int(old["id"])
    with store.write() as connection:
        return s.insert(
            connection,
            m.promotion,
            study_id=row["id"],
            recipe=asdict(config.recipe) | ({"patience": config.patience} if config.patience else {}),
            folder=str(folder),
            state="running",
            started_at=s.now(),
            **key,
        )


def _train(
    store: Store,
    study: StudyRow,
    promotion: int,
    job: TrainJob,
    data: VideoData,
    folder: Path,
    config: PromoteConfig,
    listener: Listener,
) -> tuple[dict[str, Any] | None, int | None, int]:
    """Trains to the end.

    Returns:
        The clips that could not be read, which are stored at once; with patience the epoch whose weights count; and the
        epochs trained.
    """
    model = first_network(job)
    data.met.reset()

    def say(epoch: EpochResult) -> None:
        text = f"epoch {epoch.epoch}: loss {epoch.train_loss:.3f}"
        if epoch.val is not None:
            text += f", val {told(epoch.val, study['accuracy'])} of {epoch.val.num_clips} clips"
        listener(text, epoch.epoch, job.until_epoch)

    result = fit(
        model,
        data,
        job.data,
        job.recipe,
        seed=job.seed,
        until_epoch=job.until_epoch,
        folder=folder / "training",
        device=job.device,
        devices=config.devices,
        checkpoint_steps=config.checkpoint_steps,
        keep_best=config.keep_best,
        best_by=field_of(study["accuracy"]),
        patience=config.patience,
        logs=config.logs,
        on_epoch=say,
        network=codec.digest(codec.loads(job.spec)),
    )
    for text in result.damaged:
        listener(text, len(result.epochs), job.until_epoch)
    before = store.row(m.promotion, promotion)["broken"]  # of an earlier start
    broken = joined(before, data.met.num_clips, data.met.videos)
    if broken is not None:
        with store.write() as connection:
            connection.execute(m.promotion.update().where(m.promotion.c.id == promotion).values(broken=broken))
    summary = broken_text(broken)
    if summary:
        listener(f"in training, {summary}", job.until_epoch, job.until_epoch)
    last = len(result.epochs)
    if not config.patience:
        return broken, None, last
    if last < job.until_epoch:
        text = f"training ended after epoch {last}: {config.patience} in a row were not better on val"
        listener(text, job.until_epoch, job.until_epoch)
    if result.best_epoch is None:
        listener(
            f"the weights of the best epoch are gone, so those of epoch {last} count", job.until_epoch, job.until_epoch
        )
    return broken, result.best_epoch, last


def _report(
    store: Store,
    row: StudyRow,
    promotion: int,
    job: TrainJob,
    data: VideoData,
    folder: Path,
    spec: Any,
    begun: list[Begun] | None,
    *,
    digest: str,
    seed: int,
    split: str,
    views: Views,
    broken: dict[str, Any] | None,
    best_epoch: int | None,
    trained: int,
    devices: int,
) -> dict[str, dict[str, str]]:
    """Measures the trained network in float32, as it will be used, then writes its folder and opens that once.

    Returns:
        The videos that could not be read: of each split the reason by path.
    """
    model = network(
        job.spec, num_classes=job.num_classes, dropout=job.recipe.dropout, seed=job.seed, planes=job.data.planes
    )
    load_weights(folder / "training" / ("last.pt" if best_epoch is None else "best.pt"), model)
    model.to(job.device).eval()
    splits = tuple(dict.fromkeys(("val", split)))
    record: dict[str, Any] = {
        "digest": digest,
        "seed": seed,
        "epochs": job.until_epoch,
        "recipe": asdict(job.recipe),
        "init": asdict(begun[0]) if begun is not None else None,
        "checksum": data.checksum,
        "multi_label": data.multi_label,
        "broken": broken,
        "devices": devices,
        **({"best_epoch": best_epoch, "trained_epochs": trained} if best_epoch is not None else {}),
        **({"flow": asdict(data.flow)} if data.flow is not None else {}),
    }
    rows = tested_once(model, job, folder, splits, views, record)
    save_network(folder, model, spec=spec, class_names=data.classes, data=job.data, record=record)
    load_network(folder)  # what cannot be opened again is not reported as done
    with store.write() as connection:
        for name, values in rows.items():
            s.insert(
                connection,
                m.evaluation,
                study_id=row["id"],
                digest=digest,
                seed=seed,
                purpose="promotion",
                promotion_id=promotion,
                epochs=trained,
                split=name,
                **values,
            )
        connection.execute(
            m.promotion.update().where(m.promotion.c.id == promotion).values(state="done", ended_at=s.now())
        )
    return dict(record.get("left_out", {}))


def _state(store: Store, promotion: int, state: str, *, reason: str | None = None, detail: str | None = None) -> None:
    with store.write() as connection:
        connection.execute(
            m.promotion.update()
            .where(m.promotion.c.id == promotion)
            .values(state=state, reason=reason, detail=detail, ended_at=s.now())
        )
