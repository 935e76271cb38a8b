"""Training of a study's supernet, and the accuracy of the networks of its pool with the shared weights."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from nas.errors import SearchError
from nas.search.pool import Candidate, CandidatePool, build_pool
from nas.search.record import as_recorded
from nas.search.supernet.agreement import Agreement, agreements
from nas.search.supernet.paths import FAMILIES, Cover, Strategy, cover, log_share
from nas.search.supernet.sharing import Supernet, supernet_of
from nas.store.database import Store
from nas.store.records import StudyRow
from nas.study.metric import accuracy_of
from nas.study.objectives import averaged
from nas.study.study import Study
from nas.train.jobs import derived_seed
from nas.train.session import Listener, News, left_out, locked, opened_data, session_of, study_row
from nas.train.weights import settled_study
from search_spaces.catalogue import build
from trainer.batchnorm import estimate_statistics
from trainer.checkpoint import load_weights
from trainer.data.clips import VideoData, train_batches, without
from trainer.device import usual_device
from trainer.evaluate import evaluate
from trainer.files import content_of
from trainer.fit import fit
from trainer.loop import FREE
from trainer.metrics import EpochResult
from trainer.ready import check_ready
from trainer.recipe import Init, Recipe

SCORES: Mapping[Strategy, str] = MappingProxyType({"random": "supernet", "darts": "supernet_darts"})
"""Names of the accuracies with shared weights in `nas_score`, by strategy."""

SHARES = "darts"
"""Name there of the logarithm of a network's share by DARTS."""

CLIPS = 256  # of training, that the statistics of norms are estimated on for each network
_VERSION = 1  # of what a supernet is: weights of another version are never gone on with


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    """A network with the shared weights.

    Attributes:
        candidate: The network.
        accuracy: On val; a share of 1.
        loss: On val.
    """

    candidate: Candidate
    accuracy: float
    loss: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SupernetOutcome:
    """What a supernet says.

    Attributes:
        networks: Those that were measured, the most accurate first.
        covered: Networks of the pool that are paths of the supernet.
        pool: Networks of the pool.
        epochs: Of training.
        resumed_from: Epoch that training went on from.
        agreements: With stand-alone training, rung by rung.
        alone: Accuracy by stand-alone training at the highest rung of each network, by digest.
        shares: Of the forms at each place, by DARTS; else empty.
        log_shares: Of networks, the sum of the logarithms of their forms' shares, by digest.
        share_agreements: Of these with stand-alone training.
    """

    networks: tuple[Shared, ...]
    covered: int
    pool: int
    epochs: int
    resumed_from: int
    agreements: tuple[Agreement, ...]
    alone: Mapping[str, float]
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    log_shares: Mapping[str, float] = field(default_factory=dict)
    share_agreements: tuple[Agreement, ...] = ()


def run_supernet(
    study: Study, database: Path, *, strategy: Strategy, epochs: int, networks: int, listener: Listener
) -> SupernetOutcome:
    """Trains a study's supernet, or goes on with it, and measures networks of its pool with the shared weights.

    The weights lie in a folder beside the database, which networks, strategy, recipe, data and seed name; accuracies
    are stored as scores, too. What was measured is not measured again.

    Args:
        study: As its file says.
        database: The study's; made if absent.
        strategy: Of NNI.
        epochs: Of training.
        networks: To measure at most: those that were trained by themselves first, then others evenly by MACs.
        listener: Hears of videos, epochs and networks.

    Raises:
        SearchError, StoreError, ConfigError: As a search.
        TrainingFailed: The last checkpoint stands.
    """
    with locked(database):
        study = settled_study(study)
        data = opened_data(study, listener)
        recipe = recipe_of(study.recipe, epochs)
        check_ready(data, study.data, recipe)
        with Store(database, create=True) as store:
            row = study_row(store, study, data, listener)
            data = without(data, "val", left_out(row))
            pool = as_recorded(store, row, study, _pool(study, data, listener))
            known = {one.digest: one for one in pool.candidates if one.spec.family in FAMILIES}
            places = cover(
                {digest: one.spec for digest, one in known.items()},
                num_classes=len(data.classes),
                dropout=recipe.dropout,
                planes=study.data.planes,
            )
            basis = f"{epochs} epochs of {len(known)} networks, seed {study.seed}, {row['clip']}"
            _check_features(study, store, row, strategy)
            with session_of(store, row, workers=0) as beat:

                def heard(news: News) -> None:
                    beat()
                    listener(news)

                folder = database.parent / "supernet" / _key(study, data, recipe, places, strategy)
                published = recipe.zero_init == "as_published" and any(c.spec.begins_at_zero() for c in known.values())
                at_zero = recipe.zero_init is True or published
                torch.manual_seed(derived_seed(study.seed, "supernet weights"))
                net = supernet_of(places, strategy=strategy, zero_init=at_zero)
                resumed = _train(study, data, recipe, net, folder, epochs, heard, networks=len(known))
                evaluations = store.evaluations(row["id"])
                by_rung = sorted(averaged(evaluations), key=lambda one: int(one["rung"] or 0))
                alone = {one["digest"]: accuracy_of(one) for one in by_rung}
                chosen = _chosen(list(known.values()), set(alone), networks, study.seed)
                found = _measured(study, row, data, recipe, places, net, chosen, folder, epochs, heard)
            values = {one.candidate.digest: one.accuracy for one in found}
            store.put_scores(row["id"], SCORES[strategy], values, basis=basis, alone=True)
            shares = net.shares()
            logs = {key: log_share(places, places.paths[key], shares) for key in known} if shares else {}
            store.put_scores(row["id"], SHARES, logs, basis=basis, alone=True)
            return SupernetOutcome(
                networks=tuple(sorted(found, key=lambda one: (-one.accuracy, one.loss, one.candidate.cost.macs))),
                covered=len(known),
                pool=len(pool.candidates),
                epochs=epochs,
                resumed_from=resumed,
                agreements=agreements(values, evaluations),
                alone=alone,
                shares=shares,
                log_shares=logs,
                share_agreements=agreements(logs, evaluations),
            )


def _check_features(study: Study, store: Store, row: StudyRow, strategy: Strategy) -> None:
    """A search that has begun by the scores of a supernet goes on by the same ones, or it would not be one search."""
    if SCORES[strategy] in study.search.features and store.trials(row["id"]):
        raise SearchError(
            f"the search of {row['name']} has begun with search.features {SCORES[strategy]}, whose scores "
            "stay as they are; give another --db"
        )


def recipe_of(recipe: Recipe, epochs: int) -> Recipe:
    """The study's recipe as a supernet can follow it: from random weights, not compiled, its horizon the last epoch."""
    horizon = epochs if recipe.has_horizon else recipe.epochs
    return replace(
        recipe,
        epochs=horizon,
        eval_every=max(1, epochs),  # the accuracy of one path on the way says nothing
        init=Init(),
        compile=False,
        checkpointing=False,
        frozen_bn=False,
        freeze="none",
        freeze_epochs=0,
        layer_decay=1.0,
        head_lr=1.0,
    )


def _pool(study: Study, data: VideoData, listener: Listener) -> CandidatePool:
    return build_pool(
        study,
        num_classes=len(data.classes),
        progress=lambda done, total: listener(News(kind="cost", done=done, total=total)),
    )


def _key(study: Study, data: VideoData, recipe: Recipe, places: Cover, strategy: Strategy) -> str:
    """Twelve letters that name the training: networks, strategy, recipe, data and seed."""
    free = FREE if recipe.has_horizon else FREE | {"epochs"}
    same = {key: value for key, value in recipe.identity().items() if key not in free}
    content = [_VERSION, strategy, sorted(places.paths), study.data.identity(), same, study.seed, data.checksum]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _train(
    study: Study,
    data: VideoData,
    recipe: Recipe,
    net: Supernet,
    folder: Path,
    epochs: int,
    listener: Listener,
    *,
    networks: int,
) -> int:
    """Trains the supernet, which has the trained weights afterwards; returns the epoch that training went on from."""

    def say(epoch: EpochResult) -> None:
        text = f"epoch {epoch.epoch}: loss {epoch.train_loss:.3f}, {epoch.clips_per_s:.0f} clips/s"
        listener(News(kind="result", text=text, done=epoch.epoch, total=epochs))

    listener(News(kind="start", text=f"training a supernet of {networks} networks in {folder}"))
    result = fit(
        net,
        data,
        study.data,
        recipe,
        seed=derived_seed(study.seed, "supernet"),
        until_epoch=epochs,
        folder=folder,
        device=usual_device(),
        on_epoch=say,
        network=folder.name,
    )
    for text in result.damaged:
        listener(News(kind="resume", text=text))
    if result.resumed_from > epochs:
        raise SearchError(
            f"--epochs must be at least the {result.resumed_from} of the supernet in {folder}, but is {epochs}"
        )
    load_weights(folder / "last.pt", net)
    return result.resumed_from


def _chosen(candidates: Sequence[Candidate], first: set[str], most: int, seed: int) -> list[Candidate]:
    """Networks to measure: `first`, then others; where there is no room for all, one of each of equal parts by MACs."""
    rng, chosen = random.Random(f"supernet {seed}"), list[Candidate]()
    for some in (
        [one for one in candidates if one.digest in first],
        [one for one in candidates if one.digest not in first],
    ):
        room = min(most - len(chosen), len(some))
        bounds = [round(i * len(some) / room) for i in range(room + 1)] if room else []
        chosen += [some[rng.randrange(low, high)] for low, high in pairwise(bounds)]
    return chosen


def _measured(
    study: Study,
    row: StudyRow,
    data: VideoData,
    recipe: Recipe,
    places: Cover,
    net: Supernet,
    chosen: Sequence[Candidate],
    folder: Path,
    epochs: int,
    listener: Listener,
) -> list[Shared]:
    """Accuracy of networks with the shared weights; a line each in `networks.jsonl`, so that none is measured twice."""
    path = folder / "networks.jsonl"
    known = _lines(path, epochs)
    clips: list[Tensor] = []
    found = []
    for done, candidate in enumerate(chosen, start=1):
        line = known.get(candidate.digest)
        if line is None:
            clips = clips or _clips(study, data, recipe)
            line = _measure(study, data, recipe, places, net, candidate, clips)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"digest": candidate.digest, "epochs": epochs, **line}) + "\n")
        accuracy = accuracy_of({**line, "chosen_by": row["accuracy"]})
        found.append(Shared(candidate=candidate, accuracy=accuracy, loss=line["loss"]))
        listener(News(kind="shared", done=done, total=len(chosen)))
    return found


def _lines(path: Path, epochs: int) -> dict[str, dict[str, Any]]:
    """Measurements after a number of epochs, by digest; one that was cut short or is damaged is measured again."""
    try:
        text = content_of(path).decode("utf-8", "replace")
    except OSError:
        return {}
    found = {}
    for part in text.splitlines():
        with suppress(ValueError, KeyError, TypeError):
            line = json.loads(part)
            sound = all(isinstance(line[name], float | int) and math.isfinite(line[name]) for name in ("top1", "loss"))
            if line["epochs"] == epochs and sound and 0 <= line["top1"] <= 1:
                found[line["digest"]] = line
    if text and not text.endswith("\n"):
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")
    return found


def _clips(study: Study, data: VideoData, recipe: Recipe) -> list[Tensor]:
    """Clips of training for the statistics of norms, the same for all networks."""
    seed, found = derived_seed(study.seed, "supernet statistics"), list[Tensor]()
    source = train_batches(
        data, study.data, batch_size=recipe.batch_size, seed=seed, epoch=0, device=torch.device(usual_device())
    )
    for clips, _ in source:
        found.append(clips)
        if sum(map(len, found)) >= CLIPS:
            break
    return found


def _measure(
    study: Study,
    data: VideoData,
    recipe: Recipe,
    places: Cover,
    net: Supernet,
    candidate: Candidate,
    clips: Sequence[Tensor],
) -> dict[str, Any]:
    """A network by itself with the shared weights, its norms' statistics estimated anew, on val."""
    model = build(candidate.spec, num_classes=len(data.classes), dropout=recipe.dropout, planes=study.data.planes)
    model.load_state_dict(net.weights(places.paths[candidate.digest]))
    device = usual_device()
    model.to(device)
    estimate_statistics(model, clips, recipe, device, seed=derived_seed(study.seed, "supernet statistics"))
    metrics = evaluate(model, data, study.data, recipe, "val", device).metrics
    return metrics.plain()
