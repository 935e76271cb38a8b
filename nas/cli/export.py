"""`nas export` and `nas backup`."""

from __future__ import annotations

from pathlib import Path

import typer

from nas.cli.inspect import DB, STUDY
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
        None, "-o", "--output", metavar="FILE", help="Where to; the terminal by default."
    ),
    columns: str | None = typer.Option(None, "--columns", metavar="a,b,c", help="Which columns, in this order."),
    db: str = DB,
) -> None:
    """Write a table of a study as CSV, Parquet or LaTeX.

    Example: nas export runs/kinetics_small/study.db --table front --latex -o front.tex
    """
    from nas import formats, tabular
    from nas.errors import NasError
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
    from nas.store import backup

    path = path_of(file)
    backup(database_of(study, db), path)
    print_line(f"backup: {path} ({path.stat().st_size / 1e6:.1f} MB)")
