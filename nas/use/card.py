"""A model card: what a trained network is, what it was trained and tested on, and what it was not, as Markdown.

The sections are those of Mitchell et al. 2019, "Model cards for model reporting", as far as a record can fill them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas.cost.cost import Cost
from nas.study.metric import interval_text, short_number
from nas.train.network import TrainedNetwork
from nas.use.accuracy import judged
from nas.use.detection import calibration_error, detections, is_detection
from nas.use.latency import Latency
from nas.use.multi_view import kept_scores
from nas.use.probabilities import Scores
from trainer.recipe import Recipe

_WORST = 5  # classes


def card(
    network: TrainedNetwork, folder: Path, price: Cost, latency: Latency | None, machine: str, files: Mapping[str, str]
) -> str:
    """The card of a promoted network.

    Args:
        network: As loaded from its folder.
        folder: That `nas promote` left, whose scores of each video are read.
        price: Of one clip.
        latency: Of one clip, if it was measured.
        machine: On which that was.
        files: What was written of the network: kind by name.
    """
    record, data = network.record, network.data
    tested = [scores for split in ("test", "val") if (scores := kept_scores(folder, split)) is not None]
    parts = [
        f"# {_cell(network.spec.describe())}",
        _intended(network),
        "## Network",
        _table(
            ("", ""),
            [
                ("network", _cell(network.spec.describe())),
                ("digest", f"`{record.get('digest', 'not recorded')}`"),
                ("clip", f"{data.clip.frames} frames of {data.clip.height}x{data.clip.width}, {_sampling(network)}"),
                ("MACs of one clip", f"{price.macs:,} ({short_number(price.macs)})"),
                ("parameters", f"{price.params:,}"),
                ("latency of one clip", _latency(latency, machine)),
                *((f"file, {kind}", _cell(name)) for name, kind in files.items()),
            ],
        ),
        "## Training",
        _table(("", ""), _training(network)),
        "## Accuracy",
        *(_accuracy(scores, network) for scores in tested),
    ]
    if not tested:
        parts.append("No test of each video is kept beside the network.")
    return "\n\n".join([*parts, "## Limits", _bullets(_limits(network, tested))]) + "\n"


def _intended(network: TrainedNetwork) -> str:
    names = ", ".join(_cell(name) for name in network.class_names)
    number = len(network.class_names)
    if network.multi_label:
        return f"It says for each of {number} classes how probable it is that a video shows it: {names}."
    return f"It names the one of {number} classes that a video shows: {names}."


def _sampling(network: TrainedNetwork) -> str:
    data = network.data
    if data.sampling == "uniform":
        return "spread over the video"
    rate = f" at {data.fps:g} frames per second" if data.fps else ""
    return f"stride {data.clip.stride}{rate}"


def _latency(latency: Latency | None, machine: str) -> str:
    if latency is None:
        return "not measured"
    return f"{latency.median:.3g} ms, quartiles {latency.low:.3g} to {latency.high:.3g}, on {machine}"


def _training(network: TrainedNetwork) -> list[tuple[str, str]]:
    record, data = network.record, network.data
    rows = [
        (
            "data",
            f"{_cell(data.name)}, checksum of the videos `{str(record.get('checksum', ''))[:16] or 'not recorded'}`",
        ),
        ("input", data.input),
        ("epochs", str(record.get("trained_epochs") or record.get("epochs", "not recorded"))),
        ("seed", str(record.get("seed", "not recorded"))),
    ]
    if record.get("best_epoch"):
        rows.append(("weights", f"of epoch {record['best_epoch']}, the best on val"))
    begun = record.get("init")
    if isinstance(begun, Mapping):
        rows.append(
            ("initial weights", _cell(", ".join(f"{key} {value}" for key, value in begun.items() if value))[:300])
        )
    recipe = record.get("recipe")
    if isinstance(recipe, Mapping):
        usual = json.loads(json.dumps(asdict(Recipe())))  # as a record holds it
        own = {key: value for key, value in recipe.items() if key != "init" and value != usual.get(key)}
        text = ", ".join(f"{key} {value}" for key, value in sorted(own.items())) or "as by default"
        rows.append(("recipe, where it is not the default", _cell(text)))
    if isinstance(record.get("broken"), Mapping):
        rows.append(("clips that could not be read", str(record["broken"].get("num_clips"))))
    return rows


def _accuracy(scores: Scores, network: TrainedNetwork) -> str:
    result = judged(scores)
    shares = [("mAP over videos", result.map_sample), ("clip@1", result.clip1), ("video@1", result.video1)]
    if len(result.classes) > 5:
        shares.append(("video@5", result.video5))
    rows = [(name, f"{one.value:.3f}", interval_text(one.low, one.high)) for name, one in shares if one is not None]
    if result.balanced is not None:
        rows.append(("balanced accuracy", f"{result.balanced:.3f}", ""))
    error = calibration_error(scores)
    if error is not None:
        rows.append(("expected calibration error", f"{error:.3f}", ""))
    about = f"On {scores.split}: {result.num_videos:,} videos, {result.views}."
    parts = [about, _table(("measure", "value", "95 % over videos"), rows)]
    if is_detection(scores):
        parts.append(
            _table(
                ("class", "videos", "AUC", "average precision"),
                [
                    (
                        _cell(row.name),
                        f"{row.positives} of {row.positives + row.negatives}",
                        _with(row.auc, row.auc_interval),
                        _with(row.precision, row.precision_interval),
                    )
                    for row in detections(scores)
                ],
            )
        )
    elif not network.multi_label and len(network.class_names) > 2:
        known = [row for row in result.classes if row.accuracy is not None]
        worst = sorted(known, key=lambda row: row.accuracy.value if row.accuracy else 0.0)[:_WORST]
        parts.append(
            _table(
                ("weakest classes", "video@1", "videos", "most often taken for"),
                [
                    (
                        _cell(row.name),
                        f"{row.accuracy.value:.3f}" if row.accuracy else "",
                        str(row.accuracy.num_videos) if row.accuracy else "",
                        _cell(f"{row.taken_for} ({row.taken})") if row.taken else "",
                    )
                    for row in worst
                ],
            )
        )
    return "\n\n".join(parts)


def _limits(network: TrainedNetwork, tested: Sequence[Scores]) -> list[str]:
    found = [f"Trained and tested on videos of {_cell(network.data.name)} alone; what it does on others is not known."]
    if not network.multi_label:
        found.append("It names one of its classes in any case, also where a video shows none of them or several.")
    if not any(scores.split == "test" for scores in tested):
        found.append("There is no test split: figures are of val, on which networks may have been chosen.")
    if any(scores.split == "test" for scores in tested):
        found.append("Figures of val are too good by as much as networks were chosen on it; those of test are not.")
    found.append("Intervals are over videos; another seed of the training would differ as well.")
    few = min((len(scores.paths) for scores in tested), default=0)
    if 0 < few < 100:
        found.append(f"A split has {few} videos: differences of a few points say nothing.")
    left = sum(len(videos) for videos in (network.record.get("left_out") or {}).values())
    if left:
        found.append(f"{left} videos of the test could not be read and are left out.")
    return found


def _with(value: float, interval: tuple[float, float] | None) -> str:
    return f"{value:.3f}" + ("" if interval is None else f" ({interval_text(*interval)})")


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def _bullets(texts: Iterable[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)


def _cell(text: str) -> str:
    """Text that cannot break a table or become markup, in one line."""
    line = " ".join(str(text).split())
    return "".join(f"\\{letter}" if letter in "\\|<>`*_[]~&" else letter for letter in line if letter.isprintable())
