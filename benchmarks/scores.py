"""What scores of untrained networks say of trained ones: rank correlations on a table of recorded curves.

    python -m benchmarks.scores benchmarks/tables/motion.yaml                    (the table beside it)
    python -m benchmarks.scores benchmarks/tables/motion.yaml --table part.jsonl --scores temporal,synflow
    python -m benchmarks.scores benchmarks/tables/motion.yaml --scores supernet --db runs/motion_table/study.db

For each score, Kendall's tau with the accuracy after the last epoch, the mean of the table's seeds: over all networks;
within the best fifth of them; and given MACs, the partial tau. Intervals are percentiles of a bootstrap over networks.
A part of a table will do. What was computed is kept in --cache by study, network and score. Scores that look at clips
see the study's, or with --noise standard normal ones. Those of a supernet are read from --db, where `nas supernet` has
stored them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.search.curves import read_curves
from nas.search.pool import Candidate, build_pool
from nas.search.scores.data import Batches, training_batches
from nas.search.scores.score import VERSION, ScoreError, score
from nas.search.supernet import agreement
from nas.store.database import Store
from nas.study.features import BY_DATA, SCORES
from nas.study.files import load_study
from nas.study.study import Study

Array = NDArray[np.float64]

BEST = 0.2  # share of the networks that count as the best
RESAMPLES = 999


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--table", type=Path)
    parser.add_argument("--scores", default=",".join(SCORES))
    parser.add_argument("--epochs", type=int, default=0, help="accuracy after so many; the last by default")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of the scores, whose mean is taken")
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--db", type=Path, help="that stores the scores which are not computed here")
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmarks/scores"))
    given = parser.parse_args()
    study = load_study(given.study, given.overrides)
    table = given.table or next(
        (path for path in (given.study.with_suffix(".jsonl"), given.study.with_suffix(".jsonl.gz")) if path.exists()),
        None,
    )
    if table is None:
        sys.exit(f"there is no table beside {given.study}; benchmarks/record.py makes it, or name one with --table")
    pool = build_pool(study, num_classes=study.num_classes).by_digest
    accuracies = accuracies_of(table, pool, given.epochs)
    networks = [pool[digest] for digest in accuracies]
    print(f"{len(networks)} of {len(pool)} networks, {table.name}", flush=True)
    accuracy = np.asarray([np.mean(values) for values in accuracies.values()])
    logs = np.log([network.cost.macs for network in networks])
    rows = [line("MACs", logs, accuracy, None, 0.0)]
    for name in given.scores.split(","):
        values, seconds = (
            scored(study, networks, name, given) if name in SCORES else (stored(given.db, networks, name), 0.0)
        )
        rows.append(line(name, values, accuracy, logs, seconds))
    repeated = [values for values in accuracies.values() if len(values) > 1]
    if len(repeated) > 4:
        pairs = np.asarray([values[:2] for values in repeated])
        rows.append(
            line("another seed", pairs[:, 1], pairs[:, 0], logs[[len(v) > 1 for v in accuracies.values()]], 0.0)
        )
    print("| score | all networks | best fifth | given MACs | seconds per network |\n|---|---|---|---|---|")
    print("\n".join(rows))


def accuracies_of(table: Path, pool: dict[str, Candidate], epochs: int) -> dict[str, list[float]]:
    """Top-1 by network, one for each seed in their order."""
    found: dict[str, list[float]] = {}
    for curve in sorted(read_curves(table), key=lambda curve: (curve.digest, curve.seed)):
        if curve.digest in pool:
            found.setdefault(curve.digest, []).append(curve.top1[(epochs or len(curve.top1)) - 1])
    return found


def stored(database: Path | None, networks: Sequence[Candidate], name: str) -> Array:
    """(networks,) of a score in a database, not a number where it has none."""
    if database is None:
        sys.exit(f"{name} is not computed here (valid: {', '.join(SCORES)}); name the database that has it with --db")
    with Store(database) as store:
        known = {row["digest"]: row["value"] for row in store.scores(store.study()["id"]) if row["name"] == name}
    return np.asarray([known.get(network.digest, float("nan")) for network in networks])


def scored(study: Study, networks: Sequence[Candidate], name: str, given: argparse.Namespace) -> tuple[Array, float]:
    """(networks,) of a score, not a number where it has none; and the median of the seconds that one took."""
    batches: dict[int, Batches] = {}
    if name in BY_DATA and not given.noise:
        from trainer.data.clips import DataError, open_data

        try:
            data = open_data(study.located_data())
        except DataError as error:
            sys.exit(f"{name} looks at clips: {error}, or score it on --noise")
        batches = {seed: training_batches(data, study.data, seed) for seed in range(given.seeds)}
    clips = "clips" if batches else "noise"
    kept = (
        given.cache / f"{study.name}-{study.data.shape}-{name}-{VERSION}{f'-{clips}' if name in BY_DATA else ''}.json"
    )
    known: dict[str, list[float]] = json.loads(kept.read_text()) if kept.exists() else {}
    for count, network in enumerate(networks, start=1):
        for seed in range(given.seeds):
            key = f"{network.digest} {seed}"
            if key not in known:
                began = time.perf_counter()
                try:
                    value = score(
                        name,
                        network.spec,
                        study.data.clip,
                        num_classes=study.num_classes,
                        planes=study.data.planes,
                        seed=seed,
                        batches=batches.get(seed),
                    )
                except ScoreError as error:
                    print(error, file=sys.stderr)
                    value = float("nan")
                known[key] = [value, time.perf_counter() - began]
        if count % 20 == 0 or count == len(networks):
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(known))
    mine = np.asarray([[known[f"{network.digest} {seed}"] for seed in range(given.seeds)] for network in networks])
    return mine[:, :, 0].mean(axis=1), float(np.median(mine[:, :, 1]))


def line(name: str, values: Array, accuracy: Array, logs: Array | None, seconds: float) -> str:
    """A row of the table; given MACs where these are."""
    there = np.isfinite(values)
    values, accuracy = values[there], accuracy[there]
    best = accuracy >= np.quantile(accuracy, 1 - BEST)
    parts = (
        [values, accuracy],
        [values[best], accuracy[best]],
        None if logs is None else [values, accuracy, logs[there]],
    )
    cells = [interval(*part) if part is not None else "" for part in parts]
    return f"| {name} | {' | '.join(cells)} | {f'{seconds:.2g}' if seconds else ''} |"


def interval(values: Array, accuracy: Array, logs: Array | None = None) -> str:
    """Kendall's tau with its interval of 95 % over networks."""
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(values), (RESAMPLES, len(values)))
    found = [tau(values, accuracy, logs)]
    found += [tau(values[rows], accuracy[rows], None if logs is None else logs[rows]) for rows in draws]
    if not np.isfinite(found[0]):
        return "all alike"
    low, high = np.nanquantile(found[1:], [0.025, 0.975])
    return f"{found[0]:.2f} ({low:.2f} to {high:.2f})"


def tau(values: Array, accuracy: Array, logs: Array | None = None) -> float:
    """Kendall's tau-b, or the partial one given log MACs; not a number where it says nothing."""
    mine, theirs = values.tolist(), accuracy.tolist()
    found = agreement.tau(mine, theirs) if logs is None else agreement.partial_tau(mine, theirs, logs.tolist())
    return float("nan") if found is None else found


if __name__ == "__main__":
    main()
