"""`nas export`, `nas backup`, `nas dashboard` and `nas report`."""

from __future__ import annotations

from pathlib import Path

import typer

from nas.cli.options import DB, STUDY
from nas.cli.output import print_line, print_text
from nas.cli.resolve import database_of, open_study
from trainer.files import make_folder


def export(
    study: str = STUDY,
    table: str = typer.Option(
        ..., "--table", help="front, trials, evaluations, epochs, effects, importance, motion, promotions or verdicts."
    ),
    csv: bool = typer.Option(False, "--csv", help="Comma-separated values."),
    parquet: bool = typer.Option(False, "--parquet", help="A Parquet file; needs -o."),
    latex: bool = typer.Option(False, "--latex", help="A LaTeX table in the style of booktabs."),
    output: str | None = typer.Option(
        None, "-o", "--output", metavar="FILE", help="Output file; the terminal by default."
    ),
    columns: str | None = typer.Option(None, "--columns", metavar="a,b,c", help="Which columns, in this order."),
    db: str = DB,
) -> None:
    """Write a table of a study as CSV, Parquet or LaTeX.

    Example: nas export runs/kinetics_small/study.db --table front --latex -o front.tex
    """
    from nas.errors import NasError
    from nas.read import formats
    from nas.read import rows as tabular
    from trainer.files import check_replaceable

    chosen = [name for name, given in (("--csv", csv), ("--parquet", parquet), ("--latex", latex)) if given]
    if len(chosen) != 1:
        raise NasError(f"name one of --csv, --parquet and --latex, but got {' and '.join(chosen) or 'none'}")
    if parquet and output is None:
        raise NasError("--parquet writes a file; give -o FILE")
    with open_study(study, db) as (store, row):
        rows = tabular.rows_of(store, row, table)
    shown = tabular.columns_of(table, rows)
    if columns is not None:
        shown = tabular.picked(shown, [name.strip() for name in columns.split(",")])
    elif latex:
        shown = tabular.for_paper(shown)
    if output is None:
        print_text(formats.to_csv(rows, shown) if csv else formats.to_latex(rows, shown, f"{row['name']}: {table}"))
        return
    path = Path(output)
    part = path.parent / f"{path.name}.part"
    try:
        make_folder(path.parent)
        check_replaceable(path)
        if parquet:
            formats.write_parquet(rows, shown, part)
        else:
            text = formats.to_csv(rows, shown) if csv else formats.to_latex(rows, shown, f"{row['name']}: {table}")
            part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise NasError(f"the file {path} cannot be written: {error.strerror}") from error
    print_line(f"{len(rows)} rows: {path}")


def backup(
    study: str = STUDY,
    file: str = typer.Argument(..., metavar="FILE", help="The copy; it must not be there yet."),
    db: str = DB,
) -> None:
    """Copy the database of a study, also while a search or another command is writing to it.

    A plain copy of `study.db` would lack what lies in `study.db-wal` beside it.

    Example: nas backup runs/kinetics_small/study.db kinetics_small-copy.db
    """
    from nas.places import path_of
    from nas.store.backup import backup

    path = path_of(file)
    backup(database_of(study, db), path)
    print_line(f"backup: {path} ({path.stat().st_size / 1e6:.1f} MB)")


def dashboard(
    study: str = STUDY,
    port: int = typer.Option(8080, "--port", min=1, max=65535, help="Where it listens."),
    host: str = typer.Option("127.0.0.1", "--host", help="Which address it listens on; this machine only by default."),
    db: str = DB,
) -> None:
    """Start optuna-dashboard on a study's own database, one study per rung; Ctrl-C ends it.

    Example: nas dashboard runs/kinetics_small/study.db --port 8080
    """
    from nas.read.dashboard import prepared, serve

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


def report(
    study: str = typer.Argument(..., metavar="STUDY|DB", help="A study file, or a database."),
    output: str = typer.Option(None, "-o", "--output", metavar="FILE", help="The page; report.html by the database."),
    db: str = DB,
    open_it: bool = typer.Option(False, "--open", help="Open it in the browser."),
) -> None:
    """Write a study as one HTML file: question, front, how it was found, evidence, data, costs.

    The file loads nothing, so it can be sent to a colleague and opened offline. A search may be running.

    Example: nas report runs/kinetics_small/study.db -o report.html
    """
    from pathlib import Path

    from nas.errors import NasError
    from nas.read.report.gather import gather
    from nas.read.report.page import write_report
    from nas.store.database import Store

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
