"""`nas search`, `nas record` and `nas simulate`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from statistics import median

import typer

from nas.cli.options import CPUS, DB, NEW_DB, OVERRIDES, RAY, STUDY, machines_of
from nas.cli.output import Progress, SearchPrinter, duration, print_error, print_json, print_line, print_table
from nas.cli.resolve import database_for, open_study


def search(
    study: str = typer.Argument(..., metavar="STUDY", help="The study file, such as studies/kinetics_small.yaml."),
    overrides: list[str] = OVERRIDES,
    db: str = NEW_DB,
    workers: int = typer.Option(None, "--workers", min=0, help="Worker processes; 0 trains in the driver."),
    ray: str = RAY,
    cpus: int = CPUS,
    as_json: bool = typer.Option(False, "--json", help="Print the front as JSON."),
) -> None:
    """Search the space of a study, or go on with a search; ends with the front and the path of its database.

    Example: nas search studies/kinetics_small.yaml data=motion
    """
    from nas.study.files import load_study

    loaded = load_study(study, overrides or [])
    machines = machines_of(ray, cpus, workers)
    path = database_for(loaded.name, db)

    from nas.train.session import check_start

    check_start(loaded, path)

    from nas.search.driver import run_search  # imports torch; only now, so that what is wrong is said at once

    progress = SearchPrinter()
    try:
        summary = run_search(
            loaded,
            path,
            workers=loaded.search.workers if workers is None else workers,
            machines=machines,
            listener=progress,
        )
    except KeyboardInterrupt:
        progress.close()
        print_error(f"stopped; everything so far is in {path}. Go on with: nas {shlex.join(sys.argv[1:])}")
        raise typer.Exit(130) from None
    finally:
        progress.close()

    from nas.cli.pareto import print_front
    from nas.store.database import Store

    with Store(path) as store:
        if as_json:
            print_json(store.front(loaded.name))
            return
        print_front(store, loaded.name)
    rungs = ", ".join(f"{count} at {loaded.search.fidelity.label(rung)}" for rung, count in enumerate(summary.counts))
    what = "trainings" if loaded.search.repeats else "networks"  # a network may be trained with several seeds
    print_line(f"{what}: {rungs}" + (f"; {summary.failed} failed" if summary.failed else ""))
    if summary.exhausted:
        print_line(f"the space has no more networks than these; search.trials={loaded.search.trials} was not reached")
    own = summary.wall_seconds - summary.busy_seconds
    print_line(f"time: {duration(summary.wall_seconds)}, of which {own:.1f} s outside training")
    print_line(f"database: {path}")


def record(
    study: str = STUDY,
    output: str = typer.Option(..., "-o", "--output", metavar="FILE", help="The table; gzipped if it ends in .gz."),
    db: str = DB,
) -> None:
    """Write the learning curves of a search as a table, on which searches can be simulated.

    Example: nas record runs/kinetics_small/study.db -o kinetics_small.jsonl.gz
    """
    from nas.errors import NasError
    from nas.search.curves import curves_of, write_curves
    from trainer.files import check_replaceable, make_folder

    path = Path(output)
    with open_study(study, db) as (store, row):
        curves, lacking = curves_of(store, row)
        searched = bool(store.evaluations(row["id"]))
    if not curves and searched:
        raise NasError(f"no training of {row['name']} was measured after each epoch (recipe.eval_every), as tables are")
    if not curves:
        raise NasError(f"no network of {row['name']} has been trained to a rung yet, so there is no table of it")
    try:
        make_folder(path.parent)
        check_replaceable(path)
        write_curves(curves, path)
    except OSError as error:
        raise NasError(f"the file {path} cannot be written: {error.strerror}") from error
    left = f"; {lacking} that did not get to the last rung are left out" if lacking else ""
    networks = len({curve.digest for curve in curves})
    seeds = f", {len(curves)} trainings," if len(curves) > networks else ""
    print_line(f"{networks} networks{seeds} to {len(curves[0].top1)} epochs: {path}{left}")


def simulate(
    study: str = typer.Argument(..., metavar="STUDY", help="The study file that the table is of."),
    overrides: list[str] = OVERRIDES,
    table: str = typer.Option(..., "--table", metavar="FILE", help="Learning curves, as `nas record` writes them."),
    sampler: str = typer.Option(None, "--sampler", help="In the place of search.sampler."),
    scheduler: str = typer.Option(None, "--scheduler", help="In the place of search.scheduler."),
    seeds: int = typer.Option(5, "--seeds", min=1, max=1000, help="Searches, each with another seed."),
    workers: int = typer.Option(1, "--workers", min=1, max=10_000, help="Trainings at once."),
    as_json: bool = typer.Option(False, "--json", help="Print the searches as JSON."),
) -> None:
    """Search a table of recorded trainings instead of training: the same decisions, in virtual time.

    The table has to have every network of the space, as after a search with search.scheduler=none.

    Example: nas simulate studies/kinetics_small.yaml data=motion --table kinetics_small.jsonl.gz --scheduler none
    """
    from nas.search.curves import read_curves
    from nas.study.files import load_study

    given = (("search.sampler", sampler), ("search.scheduler", scheduler))
    loaded = load_study(study, [*(overrides or []), *(f"{key}={value}" for key, value in given if value is not None)])
    curves = read_curves(Path(table))

    from nas.search.sampler.foreign import ready
    from nas.search.sampler.optuna_samplers import rehearse
    from nas.search.simulation import CurveTable, Simulated, simulate

    note = ready(loaded.search.sampler, loaded.search.objectives)
    loaded.space.check()
    rehearse(loaded.search.sampler, loaded.space, num_objectives=len(loaded.search.objectives), seed=loaded.seed)
    if note and not as_json:
        print_line(note)
    found = CurveTable(loaded, curves)
    progress, runs = Progress("searches"), list[Simulated]()
    try:
        for seed in range(loaded.seed, loaded.seed + seeds):
            progress.update(len(runs), seeds)
            runs.append(simulate(found, seed=seed, workers=workers))
    finally:
        progress.close()
    if as_json:
        print_json(
            [
                {
                    "seed": run.seed,
                    "epochs": run.epochs,
                    "seconds": round(run.seconds, 1),
                    "networks": run.networks,
                    "counts": list(run.counts),
                    "gap": round(run.gap, 4),
                    "curve": [[epochs, round(gap, 4)] for epochs, gap in run.curve],
                }
                for run in runs
            ]
        )
        return
    search = loaded.search
    print_line(f"{loaded.name}: {search.sampler}, {search.scheduler}, {workers} at once, on {Path(table).name}")
    rows = [
        {
            "seed": str(run.seed),
            "networks": str(run.networks),
            "last": str(run.counts[-1]),
            "epochs": str(run.epochs),
            "time": duration(run.seconds),
            "gap": f"{run.gap:.2f}",
        }
        for run in runs
    ]
    columns = {"seed": "seed", "networks": "networks", "last": "at the last rung", "epochs": "epochs", "time": "time"}
    print_table(rows, {**columns, "gap": "gap (%)"})
    middle = median(run.gap for run in runs)
    print_line(f"gap: the hypervolume that the front of the table has more, median {middle:.2f} %")
