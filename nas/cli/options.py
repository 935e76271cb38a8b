"""Options that several commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from nas.train.machines import Machines

STUDY = typer.Argument(..., metavar="STUDY|DB", help="A study file, or a database.")
DB = typer.Option(None, "--db", help="The database, where it is not runs/<study>/study.db.")
NEW_DB = typer.Option(None, "--db", help="The database; runs/<study>/study.db by default.")
OVERRIDES = typer.Argument(None, metavar="[key=value …]", help="Settings laid over the file.")
JSON = typer.Option(False, "--json", help="Print JSON.")
RAY = typer.Option(None, "--ray", metavar="ADDRESS", help="Train on a Ray cluster: auto, local or HOST:PORT.")
CPUS = typer.Option(None, "--cpus", min=1, help="With --ray: CPUs of each job; 1 by default.")


def machines_of(ray: str | None, cpus: int | None, workers: int | None) -> Machines | None:
    """The cluster that the options name, if any.

    Args:
        ray: Its address.
        cpus: CPUs of each job.
        workers: Jobs at once at most; all that the cluster has room for by default.

    Raises:
        SearchError: The options contradict each other.
    """
    from nas.errors import SearchError
    from nas.train.machines import Machines

    if ray is None:
        if cpus is not None:
            raise SearchError(f"--cpus {cpus} is of jobs on a cluster; give --ray ADDRESS with it, or leave it out")
        return None
    if workers == 0:
        raise SearchError(f"--workers 0 trains in this process, and --ray {ray} on a cluster; leave one of them out")
    return Machines(address=ray, cpus=cpus or 1, at_most=workers or 0)
