"""`nas report`."""

from __future__ import annotations

import typer

from nas.cli.output import print_line
from nas.cli.resolve import database_of


def report(
    study: str = typer.Argument(..., metavar="STUDY|DB", help="A study file, or a database."),
    output: str = typer.Option(None, "-o", "--output", metavar="FILE", help="The page; report.html by the database."),
    db: str = typer.Option(None, "--db", help="The database, where it is not runs/<study>/study.db."),
    open_it: bool = typer.Option(False, "--open", help="Open it in the browser."),
) -> None:
    """Write a study as one HTML file: question, front, how it was found, evidence, data, costs.

    The file loads nothing, so it can be sent to a colleague and opened offline. A search may be running.

    Example: nas report runs/kinetics_small/study.db -o report.html
    """
    from pathlib import Path

    from nas.errors import NasError
    from nas.report.gather import gather
    from nas.report.page import write_report
    from nas.store import Store

    database = database_of(study, db)
    path = Path(output) if output is not None else database.parent / "report.html"
    if path.suffix not in (".html", ".htm"):
        raise NasError(f"a report must end in .html, but is {path}")
    with Store(database) as store:
        values = gather(store, database=str(database))
    size = write_report(values, path)
    print_line(f"report: {path} ({size / 1e6:.1f} MB)")
    if open_it:
        typer.launch(str(path))
