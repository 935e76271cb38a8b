"""From values to one HTML file, by Jinja with everything escaped.

Charts are SVG of our own: it is there before a script runs, prints, follows the theme and the width of a phone, can be
read by a screen reader, and 500 learning curves take 0.3 MB, where plotly embeds 4.7 MB that must be unpacked first.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from nas.errors import NasError
from nas.read.learned import objectives_text, worst_text
from nas.read.report import axes as words
from nas.read.report import charts
from nas.read.report.values import Confusion, Point, Promotion, Report
from nas.search.levels import MIN_NETWORKS
from nas.study.metric import intervals
from nas.train.recipe_names import DIGITS, recipe_lines
from trainer.files import check_replaceable, make_folder
from trainer.outcomes import TESTS

TEMPLATE = Path(__file__).parent / "template"
MANY_CLASSES = 40  # above which a confusion matrix becomes a list of the pairs that are taken for each other most
MANY = 200  # broken videos or failures that are listed one by one


def write_report(report: Report, path: Path) -> int:
    """Writes the page; it appears whole or not at all.

    Args:
        report: What it shows.
        path: The file; its folder is made.

    Returns:
        Its size in bytes.

    Raises:
        NasError: It cannot be written there.
    """
    content = html(report).encode()
    part = path.with_name(f"{path.name}.part{os.getpid()}")
    try:
        make_folder(path.parent)
        check_replaceable(path)
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise NasError(f"the report {path} cannot be written: {error.strerror}") from error
    return len(content)


def html(report: Report) -> str:
    """The page as text."""
    index = {digest: place for place, digest in enumerate(report.networks)}
    script = (TEMPLATE / "script.js").read_text(encoding="utf-8")
    # Nothing may be loaded, and no script may run but ours: a second wall behind the escaping.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    return (
        environment()
        .get_template("page.html")
        .render(
            r=report,
            place=index.get,
            policy=policy,
            style=Markup((TEMPLATE / "style.css").read_text(encoding="utf-8")),
            script=Markup(script),
            payload=payload(report),
            last_points=last_points(report.points),
            epochs_trained=report.begun
            + sum({p.number: p.epochs * p.seeds for p in sorted(report.points, key=lambda p: p.epochs)}.values()),
            charts=_charts(report),
            forests=[charts.forest(ablation) for ablation in report.ablations],
            commands=commands(report),
            tests=TESTS,
            taken=taken_for,
            roc=charts.roc_chart,
            precision=charts.precision_chart,
            means=means_over_seeds(report.promotions),
            recipe_lines=recipe_lines(report.recipes),
            digits=DIGITS,
            min_networks=MIN_NETWORKS,
            many=MANY,
            many_classes=MANY_CLASSES,
        )
    )


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """The templates, everything escaped, with the words that they use."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "amount": words.amount,
        "percent": words.percent,
        "points": words.points,
        "duration": words.duration,
        "moment": words.moment,
        "number": words.number,
        "flat": words.flat,
    }
    made.globals |= {
        "plural": words.plural,
        "interval": words.interval,
        "levels": intervals,
        "shares": words.shares,
        "measured": words.measured,
        "objectives_text": objectives_text,
        "worst_text": worst_text,
        "by_split": lambda accuracies: {accuracy.split: accuracy for accuracy in accuracies},
    }
    return made


def last_points(points: Sequence[Point]) -> list[Point]:
    """Each network at its highest rung; the highest rungs first, and within one the most accurate."""
    last = {p.digest: p for p in sorted(points, key=lambda p: p.rung)}
    return sorted(last.values(), key=lambda p: (-p.rung, -p.accuracy, p.macs))


def payload(report: Report) -> dict[str, Any]:
    """What the panel of a network shows, for the page's script; equal blocks are stored once."""
    columns: dict[tuple[str, ...], int] = {}
    blocks: dict[tuple[Any, ...], int] = {}
    results: dict[str, list[list[str]]] = {}
    settings: dict[str, Mapping[str, Any]] = {}
    for point in report.points:
        settings[point.digest] = point.settings
        results.setdefault(point.digest, []).append(
            [
                f"search, {report.fidelity.label_of(point.epochs)}",
                "val",
                words.measured(point.accuracy, *(point.interval or (None, None))),
            ]
        )
    for promotion in report.promotions:
        for a in promotion.accuracies:
            recipe = f", recipe {promotion.recipe[:DIGITS]}" if report.recipes else ""
            results.setdefault(promotion.digest, []).append(
                [
                    f"promotion, {words.plural(promotion.epochs, 'epoch')}, seed {promotion.seed}{recipe}",
                    a.split,
                    words.measured(a.accuracy, a.low, a.high),
                ]
            )
    networks = []
    for network in report.networks.values():
        rows = []
        for block in network.blocks:
            names = columns.setdefault(tuple(block), len(columns))
            rows.append(blocks.setdefault((names, *block.values()), len(blocks)))
        networks.append(
            {
                "digest": network.digest,
                "text": network.description,
                "macs": words.amount(network.macs),
                "params": words.amount(network.params),
                "memory": f"{words.amount(network.activation_bytes)}B" if network.activation_bytes else "–",
                "note": network.note,
                "blocks": rows,
                "settings": {name: words.flat(value) for name, value in settings.get(network.digest, {}).items()},
                "results": results.get(network.digest, []),
            }
        )
    return {
        "networks": networks,
        "columns": list(columns),
        "blocks": list(blocks),
        "metric": report.metric,
        "show": shlex.join(["nas", "show", "DIGEST", "--study", report.database]),
    }


def commands(report: Report) -> dict[str, Any]:
    """The commands that made what the page shows, and those that fill its empty places."""
    argvs = [["nas", *map(str, argv[1:])] for argv in _argvs(report) if len(argv) > 1]
    name = f"studies/{report.study['name']}.yaml"
    searches = [argv for argv in argvs if argv[1] == "search"] or [["nas", "search", name]]
    promoted = dict.fromkeys((p.digest, p.epochs) for p in report.promotions)
    promotions = [
        shlex.join(["nas", "promote", report.database, digest[:10], f"promote.epochs={epochs}"])
        for digest, epochs in promoted
    ]
    return {
        "made": list(dict.fromkeys(shlex.join(argv) for argv in argvs)) or [shlex.join(searches[-1])],
        "search": shlex.join(searches[-1]),
        "study": _study_of(searches, argvs),
        "promotions": promotions,
        "database": shlex.quote(report.database),
    }


def _study_of(searches: list[list[str]], argvs: list[list[str]]) -> str:
    """The study as it was named to `nas search`, or to `nas ablate` where nothing was searched, with its settings."""
    ablations = [argv for argv in argvs if argv[1] == "ablate" and "--study" not in argv]
    known = any(argv in argvs for argv in searches) or not ablations
    words = (searches if known else ablations)[-1][2:]
    return shlex.join(takewhile(lambda word: not word.startswith("-"), words))


def taken_for(confusion: Confusion, most: int = 30) -> list[tuple[str, str, int, int]]:
    """The pairs of classes that were confused most: true class, predicted class, videos, videos of the true class."""
    found = [
        (confusion.classes[i], confusion.classes[j], count, sum(line))
        for i, line in enumerate(confusion.counts)
        for j, count in enumerate(line)
        if i != j and count
    ]
    return sorted(found, key=lambda row: -row[2])[:most]


def means_over_seeds(promotions: Sequence[Promotion]) -> list[dict[str, Any]]:
    """Mean and standard deviation of accuracy over the seeds of a network that differ in nothing else.

    Trainings with another recipe or other epochs, and tests with other views, have rows of their own.
    """
    groups: dict[tuple[str, str, int, str, str], list[float]] = {}
    texts = {p.digest: p.description for p in promotions}
    for p in promotions:
        for a in p.accuracies:
            groups.setdefault((p.digest, p.recipe, p.epochs, a.split, a.views), []).append(a.accuracy)
    rows = []
    for (digest, recipe, epochs, split, views), values in groups.items():
        if len(values) > 1:
            mean = sum(values) / len(values)
            deviation = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
            rows.append(
                {
                    "digest": digest,
                    "description": texts[digest],
                    "recipe": recipe,
                    "epochs": epochs,
                    "split": split,
                    "views": views,
                    "mean": mean,
                    "deviation": deviation,
                    "seeds": len(values),
                }
            )
    return rows


def _charts(report: Report) -> dict[str, Any]:
    classes, metric, largest = report.study["num_classes"], report.metric, report.largest_class
    if report.study["data"].get("multi_label"):
        classes = 0  # there is no one chance
    epochs = {rung.rung: rung.epochs for rung in report.rungs}
    return {
        "front": charts.front_chart(report.points, classes, metric, report.fidelity, largest),
        "curves": charts.curves_chart(report.curves, classes, metric, report.fidelity, largest),
        "expected": charts.expected_chart(report.learned.expected, metric, report.fidelity),
        "steps": charts.hypervolume_chart(report.steps, epochs, report.fidelity),
        "marginals": [charts.marginal_chart(marginal, metric) for marginal in report.marginals],
    }


def _argvs(report: Report) -> list[Sequence[Any]]:
    argvs = [session.environment.get("command", []) for session in report.sessions]
    return [argv for argv in argvs if isinstance(argv, list)]
