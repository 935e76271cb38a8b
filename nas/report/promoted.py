"""Promotions: their accuracies from the database, their confusion matrices from the folders that they left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nas.accuracies import accuracy_of, broken_text
from nas.errors import NotFoundError
from nas.places import moved
from nas.promoted_folder import read_content
from nas.report.values import Accuracy, Confusion, Network, Promotion
from nas.store import Row


def promotion(
    row: Row, networks: Mapping[str, Network], measured: Sequence[Row], study: Row, beside: Path
) -> Promotion:
    """One promotion.

    Args:
        row: Of `Store.promotions`.
        networks: By digest.
        measured: Rows of `Store.evaluations` with the purpose `promotion`, of every split.
        study: Row of the study, which names the classes.
        beside: Folder of the database, where the promotion's folder is looked for, too.
    """
    digest = row["digest"]
    confusion, missing = None, ""
    if row["state"] == "done":
        confusion, missing = _confusion(row["folder"], beside, study["data"].get("classes", []))
    return Promotion(
        digest=digest,
        description=networks[digest].description if digest in networks else digest[:10],
        seed=row["seed"],
        recipe=row["recipe_digest"],
        epochs=row["epochs"],
        state=row["state"],
        folder=row["folder"],
        accuracies=tuple(
            Accuracy(
                split=e["split"],
                accuracy=accuracy_of(e),
                **{name: e[name] for name in ("low", "high", "clip1", "top1", "top5", "map_class", "num_clips")},
                views=e["views"] or "",
            )
            for e in measured
            if e["promotion_id"] == row["id"]
        ),
        confusion=confusion,
        missing=missing,
        broken=broken_text(row["broken"]),
    )


def _confusion(folder: str, beside: Path, classes: Sequence[str]) -> tuple[Confusion | None, str]:
    """The confusion matrix of the test split, else of val; or why there is none."""
    file = moved(folder, beside) / "network.json"
    if not file.is_file():
        return None, f"no confusion matrix: the folder {folder} is not there"
    try:
        content = read_content(file.parent)
        if content["record"].get("multi_label"):
            return None, ""  # of several labels there is no matrix
        matrices = content["record"]["confusion"]
        split = "test" if "test" in matrices else "val"
        counts = tuple(tuple(int(count) for count in line) for line in matrices[split])
        names = tuple(str(name) for name in (classes or content["classes"]))
    except (NotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        return None, f"no confusion matrix: {file} cannot be read ({type(error).__name__})"
    if len(names) != len(counts) or any(len(line) != len(counts) for line in counts):
        return None, f"no confusion matrix: {file} has {len(counts)} classes, and the study {len(names)}"
    return Confusion(split=split, classes=names, counts=counts), ""
