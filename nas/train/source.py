"""What is trained of a network, where its weights lie, and the way back to a module and to its clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, cast, get_args, get_origin, get_type_hints

from torch import nn

from nas.errors import NotFoundError, StoreError, unknown
from nas.places import moved
from nas.store.database import Store
from nas.store.records import Row, StudyRow
from nas.study.study import Study
from nas.train.folder import check_promotion
from nas.train.jobs import SOURCES, TrainJob, job_key
from nas.train.network import load_network
from nas.train.training import opened
from search_spaces import codec
from search_spaces.catalogue import build
from trainer.checkpoint import load_weights, run_of
from trainer.config import PLACES, ConfigError, DataConfig
from trainer.data.clips import VideoData
from trainer.recipe import Recipe

# What a checkpoint says of its data, but where the files lie, and what only names them.
_ELSEWHERE = {"name", *PLACES}


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """One training of a network whose weights are there.

    Attributes:
        source: `promotion`, `run` (of an ablation) or `trial` (of the search).
        source_id: Its row's id.
        digest: Of the network.
        seed: Of the training.
        epochs: That were trained, as recorded.
        folder: With the weights: what `nas.load` opens, or a run's folder with `last.pt`.
        before: Epochs that belong to trainings of the trial at lower rungs, which its checkpoint does not count.
    """

    source: str
    source_id: int
    digest: str
    seed: int
    epochs: int
    folder: Path
    before: int = 0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Loaded:
    """A trained network with all that is needed to evaluate it as it was evaluated when it was trained.

    Attributes:
        model: The network, in eval mode, on its device.
        data: The opened data.
        data_config: How clips are taken.
        recipe: Its batch size, precision and memory order are those of the evaluation.
        epochs: Of the checkpoint; of a trial that goes on, it may have more than are recorded.
    """

    model: nn.Module
    data: VideoData
    data_config: DataConfig
    recipe: Recipe
    epochs: int


def find_trained(
    store: Store, study: Study, row: StudyRow, digest: str, *, root: Path, sources: Sequence[str] = SOURCES
) -> list[Trained]:
    """The trainings of a network of the first source that has any: promotions, then runs of ablations, then its trial.

    Args:
        store: The database.
        study: The study as recorded.
        row: Its row.
        digest: The network's, in full.
        root: Folder of the study.
        sources: Which to look at, in this order.

    Raises:
        NotFoundError: A source is not known, or nothing is trained; the message names the folders that are missing.
    """
    finders: dict[str, Callable[[], list[Trained]]] = {
        "promotion": lambda: _promotions(store, row, digest, root),
        "run": lambda: _runs(store, row, digest, root),
        "trial": lambda: _trials(store, study, row, digest, root),
    }
    missing: list[str] = []
    for source in sources:
        if source not in finders:
            raise NotFoundError(unknown("source", source, SOURCES))
        recorded = finders[source]()
        found = [training for training in recorded if _weights(training).is_file()]
        if found:
            return found
        missing += [str(_weights(training)) for training in recorded]
    kinds = " or ".join(sources)
    if not missing:
        raise NotFoundError(f"no {kinds} of {digest[:10]} in {store.location} has trained an epoch to its end")
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    raise NotFoundError(f"the weights of {digest[:10]} are gone: there is no {missing[0]}{more}; train it again")


def load_trained(training: Trained, study: Study, row: StudyRow, spec: Mapping[str, Any], device: str) -> Loaded:
    """Builds a network, gives it its trained weights, and opens the data that it was trained on.

    Where the videos lie is the study's to say (it may be told with `data.root=…`); how clips are taken from them is
    what the training wrote down, which an ablation may have changed.

    Args:
        training: Which.
        study: The study as recorded, with the present place of its data.
        row: Its row.
        spec: The network as plain values.
        device: Where the model goes.

    Raises:
        NotFoundError: The videos or the weights are not where they were.
        StoreError: The videos are not those that the network was trained on.
        ConfigError: The checkpoint is damaged, or of another network.
        DataError: The videos cannot be read.
    """
    where = study.located_data()
    if not Path(where.root).is_dir():
        raise NotFoundError(
            f"the videos of {row['name']} were at {where.root}, which is no folder; say where they lie now with "
            "data.root=FOLDER"
        )
    if training.source == "promotion":
        check_promotion(training.folder, digest=training.digest, seed=training.seed, epochs=training.epochs)
        network = load_network(training.folder, device=device)
        config = dataclasses.replace(network.data, **{name: getattr(where, name) for name in PLACES})
        recipe = _promoted_recipe(network.record.get("recipe", {}))
        model: nn.Module = network
        epochs, checksum = training.epochs, network.record.get("checksum", row["data"]["checksum"])
    else:
        run = run_of(_weights(training))
        found = run.get("network", training.digest)  # earlier versions did not write it down
        if found != training.digest:
            raise NotFoundError(
                f"{_weights(training)} must hold the weights of {training.digest[:10]}, but holds those of "
                f"{found[:10]}; bring back the file that was there"
            )
        config, recipe = _data_of(run, where), _recipe_of(run, study.recipe)
        model = build(codec.decode(spec), num_classes=row["num_classes"], planes=config.planes)
        epochs, checksum = load_weights(_weights(training), model) + training.before, run["data checksum"]
        model.to(device).eval()
    # A rung may see smaller clips, but of the videos that are long enough for the full one.
    data = opened(where if training.source == "trial" else config)
    if data.checksum != checksum:
        raise StoreError(
            f"a network is measured on the videos that it was trained on, but those under {config.root} are not those "
            f"of {training.folder}; say where they lie with data.root=FOLDER"
        )
    return Loaded(model=model, data=data, data_config=config, recipe=recipe, epochs=epochs)


def _promotions(store: Store, row: StudyRow, digest: str, root: Path) -> list[Trained]:
    return [
        _trained("promotion", old, moved(old["folder"], root))
        for old in store.promotions(row["id"])
        if old["digest"] == digest and old["state"] == "done"
    ]


def _runs(store: Store, row: StudyRow, digest: str, root: Path) -> list[Trained]:
    return [
        _trained("run", old, moved(old["folder"], root))
        for old in store.runs(row["id"])
        if old["digest"] == digest and old["state"] == "done"
    ]


def _trials(store: Store, study: Study, row: StudyRow, digest: str, root: Path) -> list[Trained]:
    reached = {e["trial_id"]: e for e in store.evaluations(row["id"])}  # the last of each
    fidelity = study.search.fidelity
    found = []
    for trial in store.trials(row["id"]):
        if trial["digest"] != digest or trial["id"] not in reached:
            continue
        last = reached[trial["id"]]
        task = TrainJob(  # as the driver submits it
            spec=codec.dumps(codec.decode(store.find(digest)["spec"])),
            num_classes=row["num_classes"],
            data=fidelity.data_at(last["rung"], study.data),
            recipe=study.recipe,
            seed=trial["seed"],
            folder="",
            until_epoch=0,
        )
        folder = root / "trials" / f"{trial['number']:05d}-{job_key(task, row['data']['checksum'])}"
        training = _trained("trial", {**trial, "epochs": last["epochs"]}, folder)
        found.append(dataclasses.replace(training, before=fidelity.before(last["rung"])))
    return found


def _trained(source: str, row: Row, folder: Path) -> Trained:
    return Trained(
        source=source,
        source_id=row["id"],
        digest=row["digest"],
        seed=row["seed"],
        epochs=row["epochs"],
        folder=folder,
    )


def _weights(training: Trained) -> Path:
    return training.folder / ("network.json" if training.source == "promotion" else "last.pt")


def _promoted_recipe(values: Mapping[str, Any]) -> Recipe:
    """What a promotion's evaluation used: of its recipe what an evaluation depends on, in float32."""
    names = ("batch_size", "channels_last")
    return Recipe(precision="fp32", **{name: values[name] for name in names if name in values})


def _data_of(run: Mapping[str, str], where: DataConfig) -> DataConfig:
    """The data of a run, from the texts that it wrote down."""
    names = [field.name for field in dataclasses.fields(DataConfig) if field.name not in _ELSEWHERE]
    return dataclasses.replace(where, **_stated(run, "data.", DataConfig, names))


def _recipe_of(run: Mapping[str, str], usual: Recipe) -> Recipe:
    """Of the recipe of a run what an evaluation depends on."""
    return dataclasses.replace(usual, **_stated(run, "recipe.", Recipe, ("batch_size", "precision", "channels_last")))


def _stated(run: Mapping[str, str], place: str, of: type, names: Sequence[str]) -> dict[str, Any]:
    """Fields of a dataclass from the texts that a run wrote down, of those that it has.

    Raises:
        ConfigError: A text is none that `str` makes of a value of its type.
    """
    kinds = get_type_hints(of)
    values = {}
    for name in names:
        text = run.get(f"{place}{name}")
        if text is None:
            continue
        try:
            values[name] = _of_text(kinds[name], text)
        except ConfigError:  # of the type, but out of range
            raise
        except (ValueError, KeyError) as error:
            raise ConfigError(f"{place}{name} of a checkpoint must be a value of its type, but is {text!r}") from error
    return values


def _of_text(kind: Any, text: str) -> Any:
    """The value of a type whose `str` is `text`; of an object, that of its mapping."""
    parts = [part for part in get_args(kind) if part is not NoneType]
    if NoneType in get_args(kind):
        return None if text == "None" else _of_text(parts[0], text)
    if dataclasses.is_dataclass(kind):
        kinds = get_type_hints(kind)
        pairs = (pair.split(":") for pair in text.strip("{}").split(","))
        return cast(type, kind)(**{(key := name.strip(" '")): _of_text(kinds[key], value) for name, value in pairs})
    if get_origin(kind) is tuple:
        found = tuple(_of_text(parts[0], part) for part in text.strip("()[]").split(",") if part.strip())
        if parts[-1] is not Ellipsis and len(found) != len(parts):
            raise ValueError(f"it must hold {len(parts)} values, but holds {len(found)}")
        return found
    if kind is bool:
        return {"True": True, "False": False}[text.strip()]
    return kind(text) if kind in (int, float) else text
