"""`nas search`."""

from __future__ import annotations

import shlex
import sys

import typer

from nas.cli.machines import CPUS, RAY, machines_of
from nas.cli.output import SearchProgress, duration, print_error, print_json, print_line
from nas.cli.resolve import database_for


def search(
    study: str = typer.Argument(..., metavar="STUDY", help="The study file, such as studies/kinetics_small.yaml."),
    overrides: list[str] = typer.Argument(None, metavar="[key=value …]", help="Settings laid over the file."),
    db: str = typer.Option(None, "--db", help="The database; runs/<study>/study.db by default."),
    workers: int = typer.Option(None, "--workers", min=0, help="Processes that train; 0 trains in this one."),
    ray: str = RAY,
    cpus: int = CPUS,
    as_json: bool = typer.Option(False, "--json", help="Print the front as JSON."),
) -> None:
    """Search the space of a study, or go on with a search; ends with the front and the path of its database.

    Example: nas search studies/kinetics_small.yaml data=motion
    """
    from nas.config import load_study

    loaded = load_study(study, overrides or [])
    machines = machines_of(ray, cpus, workers)
    path = database_for(loaded.name, db)

    from nas.search.session import check_start

    check_start(loaded, path)

    from nas.search.driver import run_search  # imports torch; only now, so that what is wrong is said at once

    progress = SearchProgress()
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

    from nas.cli.inspect import front_rows, print_front
    from nas.store import Store

    with Store(path) as store:
        if as_json:
            print_json(front_rows(store, loaded.name))
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
