"""Rows with stated columns as CSV, Parquet or LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.errors import NasError
from nas.read.rows import SETTING, Column
from nas.store.records import Row
from nas.study.metric import in_points


def to_csv(rows: Sequence[Row], columns: Mapping[str, Column]) -> str:
    """Comma-separated values with a head line; an empty field is a value that is not there."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: row.get(name) for name in columns} for row in rows)
    return text.getvalue()


def write_parquet(rows: Sequence[Row], columns: Mapping[str, Column], path: Path) -> None:
    """A Parquet file whose columns have the same types for no rows as for many.

    Raises:
        NasError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise NasError("Parquet needs pyarrow: pip install 'video-nas[parquet]', or take --csv") from error
    types = {"text": pyarrow.string(), "digest": pyarrow.string()}
    whole = dict.fromkeys(("count", "macs", "params", "bytes"), pyarrow.int64())
    fields = [
        pyarrow.field(
            name,
            {**types, **whole}.get(column.kind, pyarrow.float64()),
            metadata={"meaning": column.meaning},
        )
        for name, column in columns.items()
    ]
    plain = [{name: row.get(name) for name in columns} for row in rows]
    parquet.write_table(pyarrow.Table.from_pylist(plain, schema=pyarrow.schema(fields)), path)


def to_latex(rows: Sequence[Row], columns: Mapping[str, Column], caption: str) -> str:
    r"""A `tabular` in the style of booktabs (`\usepackage{booktabs}`).

    Accuracies are in per cent and differences in points, with one decimal; MACs in G and parameters in M, with three
    significant digits; digests are cut to ten letters.

    Args:
        rows: Of a table.
        columns: What to show.
        caption: Stands above as a comment.
    """
    numbers = {"count", "share", "difference", "macs", "params", "bytes", "seconds", "number"}
    form = "".join("r" if column.kind in numbers else "l" for column in columns.values())
    titles = [column.title or escaped(name.removeprefix(SETTING)) for name, column in columns.items()]
    body = [
        " & ".join(_latex_cell(row.get(name), column.kind) for name, column in columns.items()) + r" \\" for row in rows
    ]
    lines = [
        f"% {' '.join(caption.split())}; needs \\usepackage{{booktabs}}",
        rf"\begin{{tabular}}{{{form}}}",
        r"\toprule",
        " & ".join(titles) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """`text` with everything that means something to LaTeX made harmless."""
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    }
    return re.sub(r"\s+", " ", "".join(special.get(letter, letter) for letter in text))


def _latex_cell(value: Any, kind: str) -> str:
    if value is None or value == "":
        return ""
    match kind:
        case "digest":
            return rf"\texttt{{{escaped(str(value)[:10])}}}"
        case "share":
            return f"{100 * value:.1f}"
        case "difference":
            return f"${in_points(value)}$"
        case "macs":
            return _significant(value / 1e9)
        case "params" | "bytes":
            return _significant(value / 1e6)
        case "seconds":
            return f"{value:.1f}"
        case "number":
            return _significant(value)
        case "count":
            return f"{value:,}".replace(",", r"\,")
    return escaped(str(value))


def _significant(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    if abs(value) < 0.0005:
        return "$<$0.001" if value > 0 else "$-$0.000"
    text = f"{value:.3g}"
    return f"{value:.0f}" if "e" in text else text.replace("-", "$-$")
