"""`nas dashboard`."""

from __future__ import annotations

import typer

from nas.cli.inspect import DB, STUDY
from nas.cli.output import print_line
from nas.cli.resolve import open_study


def dashboard(
    study: str = STUDY,
    port: int = typer.Option(8080, "--port", min=1, max=65535, help="Where it listens."),
    host: str = typer.Option("127.0.0.1", "--host", help="Which address it listens on; this machine only by default."),
    db: str = DB,
) -> None:
    """Start optuna-dashboard on a study's own database, one study a rung; Ctrl-C ends it.

    Example: nas dashboard runs/kinetics_small/study.db --port 8080
    """
    from nas.search.dashboards import prepared, serve

    with open_study(study, db) as (store, row):
        board = prepared(store, row)
    try:
        if board.held:
            print_line("a running search holds the database, so notes and files stay as they are")
        print_line(f"{row['name']}: http://{host}:{port}/dashboard (Ctrl-C ends it)", flush=True)
        serve(board, host=host, port=port)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    finally:
        board.close()
