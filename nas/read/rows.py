"""The tables of a study as rows with stated columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nas.errors import NasError, unknown
from nas.search.calibration import Expected, expectations
from nas.search.levels import levels_of
from nas.store import tables as m
from nas.store.database import Store
from nas.store.records import Row, StudyRow, TestedRow, subset
from nas.study.fidelity import recorded_fidelity
from nas.study.metric import BALANCED, MAP, broken_text, interval_of, metric_in
from nas.study.objectives import ERROR, OBJECTIVES, recorded_objectives
from nas.train.recipe_names import are_several

SETTING = "setting."  # before a factor's name, so that no factor can be mistaken for another column


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        kind: `text`, `digest`, `count`, `share` (of 1), `difference` (of shares), `macs`, `params`, `bytes`, `seconds`
            or `number`.
        meaning: With its unit.
        title: In LaTeX; empty for a column that is left out there unless asked for.
    """

    kind: str
    meaning: str
    title: str = ""


_NETWORK = {
    "digest": Column("digest", "sha256 of the network's canonical spec", "network"),
    "description": Column("text", "the network in one line", "architecture"),
}
_COST = {
    "macs": Column("macs", "multiply-accumulates of one clip", "GMACs"),
    "params": Column("params", "parameters", "params (M)"),
}
_BESIDE = {
    "map_sample": Column("share", "where videos have several labels: mAP, the mean over videos; what is optimised"),
    "map_class": Column("share", "where videos have several labels: mAP as the mean over classes"),
    "balanced": Column("share", "where videos have one label: the mean over classes of top-1"),
}
_MEASURED = {
    "top1": Column("share", "top-1 accuracy (of promotions: video@1), a share of 1", r"top-1 (\%)"),
    "top5": Column("share", "top-5 accuracy (of promotions: video@5), a share of 1"),
    "loss": Column("number", "mean cross-entropy"),
    "num_clips": Column("count", "videos that were measured"),
    **_BESIDE,
}
_EPOCHS = Column("count", "epochs of training", "epochs")
_SEED = Column("count", "seed of the training", "seed")
_WORD = Column("text", "the answer in a word", "verdict")

# Of a search whose model said what it expects.
EXPECTED = {
    "expected": Column("share", "accuracy that the model expected at the last rung when it last chose the trial"),
    "expected_low": Column("share", "lower end of the 90 % interval of what is measured there"),
    "expected_high": Column("share", "upper end of it"),
    "expected_gain": Column("number", "growth of the hypervolume that it expected"),
}

# Where rungs are trainings of their own, epochs alone do not say what a rung is.
FIDELITY = "fidelity"
_FIDELITY = Column("text", "the rung: its share of the data, frames or rows; epochs are numbered on", FIDELITY)
_BY_RUNG = ("front", "trials", "evaluations", "importance")

COLUMNS: Mapping[str, Mapping[str, Column]] = {
    "front": {
        **_NETWORK,
        "accuracy": Column("share", "what networks are chosen by on val, a share of 1", r"top-1 (\%)"),
        "metric": Column("text", "what that is: top-1, balanced accuracy or mAP"),
        "low": Column("share", "lower end of the 95 % interval of top-1 over videos (Wilson's)", r"low (\%)"),
        "high": Column("share", "upper end of it", r"high (\%)"),
        "num_clips": Column("count", "val videos"),
        "seeds": Column("count", "trainings of the network, whose mean the accuracy is"),
        **_COST,
        "epochs": _EPOCHS,
    },
    "trials": {
        "number": Column("count", "order in which the search began them, from 0", "trial"),
        **_NETWORK,
        "origin": Column("text", "named, initial, repeat, random, or the sampler"),
        "state": Column("text", "running, preempted, paused, stopped, finished, failed", "state"),
        "reason": Column("text", "why it failed or was cut short"),
        "detail": Column("text", "that in one line"),
        "seed": _SEED,
        **_COST,
        "rung": Column("count", "highest rung with a result"),
        "epochs": Column("count", "epochs of that rung", "epochs"),
        "top1": Column("share", "top-1 on val there, a share of 1", r"top-1 (\%)"),
        **_BESIDE,
    },
    "evaluations": {
        "number": Column("count", "of the trial", "trial"),
        **_NETWORK,
        "seed": _SEED,
        "rung": Column("count", "rung, from 0", "rung"),
        "epochs": _EPOCHS,
        **_MEASURED,
        **_COST,
        "train_macs": Column("macs", "multiply-accumulates of one clip in training, forward only"),
        "activation_bytes": Column("bytes", "activations that training keeps of one clip, in float32"),
    },
    "epochs": {
        "number": Column("count", "of the trial", "trial"),
        "digest": _NETWORK["digest"],
        "epoch": Column("count", "from 1", "epoch"),
        "train_loss": Column("number", "mean loss of the epoch", "train loss"),
        "lr": Column("number", "learning rate at its end"),
        "seconds": Column("seconds", "wall time of the epoch", "seconds"),
        **_MEASURED,
    },
    "effects": {
        "ablation": Column("text", "name of the ablation"),
        "factor": Column("text", "path that was changed", "factor"),
        "level": Column("text", "its value", "level"),
        "reference": Column("text", "the value that it is compared with", "against"),
        "pairs": Column("count", "pairs of trainings with one seed", "pairs"),
        "difference": Column(
            "difference",
            "mean paired difference of top-1 (of mAP with several labels), in shares of 1",
            "difference (points)",
        ),
        "low": Column("difference", "lower end of its interval", "low"),
        "high": Column("difference", "upper end of its interval", "high"),
        "effect_size": Column("number", "Hedges' g of the paired differences"),
        "se_seeds": Column("difference", "standard error that comes from the seeds"),
        "se_clips": Column("difference", "standard error that comes from the val clips"),
        "p": Column("number", "paired t test"),
        "p_holm": Column("number", "the same, by Holm over the family", "$p$ (Holm)"),
        "p_wilcoxon": Column("number", "Wilcoxon signed-rank test"),
        "p_equivalent": Column("number", "test that the difference is below the margin"),
        "visible": Column("difference", "difference that these pairs would show with probability 0.8"),
        "macs_ratio": Column("number", "MACs over those of the reference"),
        "word": _WORD,
        "confidence": Column("number", "of the interval; with several looks it is that of the look"),
    },
    "importance": {
        "rung": Column("count", "rung, from 0"),
        "epochs": _EPOCHS,
        "method": Column("text", "pedanova or fanova", "method"),
        "objective": Column("text", "accuracy, or accuracy given MACs", "objective"),
        "factor": Column("text", "a domain of the study", "factor"),
        "other": Column("text", "the second factor of a pair, else empty", "with"),
        "importance": Column("number", "0 to 1", "importance"),
        "networks": Column("count", "that it rests on", "networks"),
    },
    "motion": {
        **_NETWORK,
        "source": Column("text", "promotion, run or trial"),
        "seed": _SEED,
        "epochs": Column("count", "epochs of training"),
        "split": Column("text", "val or test"),
        "num_clips": Column("count", "videos that were measured"),
        "forward": Column("share", "top-1 on clips as they are, a share of 1", r"forward (\%)"),
        "reversed": Column("share", "with the frames in reversed order", r"reversed (\%)"),
        "shuffled": Column("share", "in shuffled order", r"shuffled (\%)"),
        "frozen": Column("share", "with the middle frame in all places", r"frozen (\%)"),
        "single": Column("share", "with one of its frames in all places, averaged over all choices", r"single (\%)"),
    },
    "promotions": {
        **_NETWORK,
        "seed": _SEED,
        "epochs": _EPOCHS,
        "state": Column("text", "running, preempted, done or failed"),
        "reason": Column("text", "why it failed"),
        "split": Column("text", "test, and val", "split"),
        **_MEASURED,
        "clip1": Column("share", "clip@1: share of single views that are right", r"clip@1 (\%)"),
        "low": Column("share", "lower end of the 95 % interval over videos, of mAP or video@1", r"low (\%)"),
        "high": Column("share", "upper end of it", r"high (\%)"),
        "views": Column("text", "how often each video was looked at: clips x crops @ short sides", "views"),
        "broken": Column("text", "clips that training could not read"),
        **_COST,
        "recipe_digest": Column("digest", "sha256 of the recipe"),
        "folder": Column("text", "what nas.load opens"),
    },
    "verdicts": {
        "claim": Column("text", "what the document says", "claim"),
        "document": Column("text", "which document", "document"),
        "ablation": Column("text", "name of the ablation that measured it"),
        "stated": Column("difference", "the document's difference, in shares of 1", "stated (points)"),
        "difference": Column("difference", "the measured one", "measured (points)"),
        "low": Column("difference", "lower end of its interval", "low"),
        "high": Column("difference", "upper end of its interval", "high"),
        "pairs": Column("count", "pairs of trainings with one seed", "pairs"),
        "word": Column("text", "reproduced, contradicted or undecided", "verdict"),
    },
}


def columns_of(table: str, rows: Sequence[Row]) -> dict[str, Column]:
    """The columns of a table, those of the settings included.

    Raises:
        NasError: There is no such table.
    """
    if table not in COLUMNS:
        raise NasError(unknown("table", table, COLUMNS))
    fixed = dict(COLUMNS[table])
    if any(row.get("map_sample") is not None or row.get("metric") == MAP for row in rows):  # then mAP has decided
        for name, title in (("top1", ""), ("map_sample", r"mAP (\%)"), ("accuracy", r"mAP (\%)")):
            if name in fixed:
                fixed[name] = replace(fixed[name], title=title)
    named = {row.get("metric") for row in rows}
    if table == "front" and named & {MAP, BALANCED}:  # of which the number of videos tells no interval
        fixed |= {name: replace(fixed[name], title="") for name in ("low", "high")}
        if BALANCED in named:
            fixed["accuracy"] = replace(fixed["accuracy"], title=r"balanced (\%)")
    if table == "promotions" and are_several(rows):
        fixed["recipe_digest"] = replace(fixed["recipe_digest"], title="recipe")
    fixed |= _objectives(rows) if table == "front" else {}
    factors = dict.fromkeys(name for row in rows for name in row if name.startswith(SETTING))
    settings = {name: Column("text", f"level of {name.removeprefix(SETTING)}") for name in sorted(factors)}
    own = {FIDELITY: _FIDELITY} if any(FIDELITY in row for row in rows) else {}
    own |= EXPECTED if any("expected" in row for row in rows) else {}
    return {**fixed, **own, **settings}


def rows_of(store: Store, study: StudyRow, table: str) -> list[dict[str, Any]]:
    """The rows of a table, each with its columns and no others; trials and evaluations also have their settings.

    Args:
        store: The database.
        study: The study's row.
        table: A key of `COLUMNS`.

    Raises:
        NasError: There is no such table.
    """
    if table not in COLUMNS:
        raise NasError(unknown("table", table, COLUMNS))
    found = _READERS[table](store, study)
    fixed, fidelity = dict(COLUMNS[table]), recorded_fidelity(study)
    fixed |= EXPECTED if any("expected" in row for row in found) else {}
    fixed |= _objectives(found) if table == "front" else {}
    rows = [
        {**{name: row.get(name) for name in fixed}, **{k: v for k, v in row.items() if k.startswith(SETTING)}}
        for row in found
    ]
    if not fidelity.continues and table in _BY_RUNG:
        for row in rows:
            row[FIDELITY] = None if row["epochs"] is None else fidelity.label_of(row["epochs"])
    return rows


def picked(columns: Mapping[str, Column], names: Sequence[str]) -> dict[str, Column]:
    """The named columns in their order; all for no names.

    Raises:
        NasError: A name is not a column.
    """
    for name in names:
        if name not in columns:
            raise NasError(unknown("column", name, columns))
    return {name: columns[name] for name in names} if names else dict(columns)


def for_paper(columns: Mapping[str, Column]) -> dict[str, Column]:
    """Those columns that LaTeX shows unless others are asked for."""
    return {name: column for name, column in columns.items() if column.title}


def _front(store: Store, study: StudyRow) -> list[dict[str, Any]]:
    fixed, names = COLUMNS["front"], recorded_objectives(study)
    kept = (*fixed, *(name for name in names if name != ERROR))
    rows = [{name: row[name] for name in kept if name in row} for row in store.front(study["name"])]
    metric = metric_in(store, study["id"])
    for row in rows:
        row["metric"] = metric
        row["low"], row["high"] = interval_of(row["accuracy"], row["num_clips"], metric) or (None, None)
    return rows


def _objectives(rows: Sequence[Row]) -> dict[str, Column]:
    """Columns of the objectives of a front that the usual one has not."""
    names = [name for name in OBJECTIVES if name not in COLUMNS["front"] and any(name in row for row in rows)]
    return {name: Column("share" if OBJECTIVES[name].measured else "bytes", OBJECTIVES[name].title) for name in names}


def _settings(settings: Mapping[str, Any] | None) -> dict[str, str]:
    return {f"{SETTING}{factor}": level for factor, level in levels_of(settings or {}).items()}


def _trials(store: Store, study: StudyRow) -> list[dict[str, Any]]:
    evaluations = store.evaluations(study["id"])
    last = {row["trial_id"]: row for row in evaluations}  # later rungs come later
    stated = expectations(store.jobs(study["id"]), evaluations, len(recorded_fidelity(study)))
    expected = {one.number: one for one in stated}  # the newest of a trial
    found = []
    for row in store.described(study["id"], m.trial):
        reached: Mapping[str, Any] = last.get(row["id"], {})
        own = {**row, **_settings(row["params"]), "params": row["num_params"]}
        own |= _expected(expected.get(row["number"])) if expected else {}
        found.append({**own, **{name: reached.get(name) for name in ("rung", "epochs", "top1", *_BESIDE)}})
    return found


def _expected(one: Expected | None) -> dict[str, float | None]:
    values = (None,) * 4 if one is None else (one.accuracy, one.low, one.high, one.gain)
    return dict(zip(EXPECTED, values, strict=True))


def _evaluations(store: Store, study: StudyRow) -> list[dict[str, Any]]:
    return [{**row, **_settings(row["settings"])} for row in store.evaluations(study["id"])]


def _promotions(store: Store, study: StudyRow) -> list[dict[str, Any]]:
    measured: dict[int, list[TestedRow]] = {}
    for split in ("test", "val"):
        for row in store.evaluations(study["id"], purpose="promotion", split=split):
            measured.setdefault(row["promotion_id"], []).append(row)
    names = ("split", *_MEASURED, "clip1", "low", "high", "views")
    found = []
    for one in store.described(study["id"], m.promotion):
        own = {**one, "params": one["num_params"], "broken": broken_text(one["broken"])}
        found += [{**own, **subset(result, names)} for result in measured.get(one["id"], [])] or [own]
    return found


def _verdicts(store: Store, study: StudyRow) -> list[dict[str, Any]]:
    names = {row["id"]: row["name"] for row in store.ablations(study["id"])}
    return [{**row, "ablation": names.get(row["ablation_id"])} for row in store.study_verdicts(study["id"])]


_READERS: Mapping[str, Callable[[Store, StudyRow], list[dict[str, Any]]]] = {
    "front": _front,
    "trials": _trials,
    "evaluations": _evaluations,
    "epochs": lambda store, study: [dict(row) for row in store.epoch_rows(study["id"])],
    "effects": lambda store, study: [dict(row) for row in store.view("ablation_effects", study["name"])],
    "importance": lambda store, study: [dict(row) for row in store.view("importance", study["name"])],
    "motion": lambda store, study: [dict(row) for row in store.motion_tests(study["name"])],
    "promotions": _promotions,
    "verdicts": _verdicts,
}
