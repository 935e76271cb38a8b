"""Tables that commands printed, drawn again at several widths: no number and no word is broken, nothing is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from rich.cells import cell_len

from nas.cli import output, watch

WIDTHS = (80, 100, 160)
DRAW = output.table_lines  # as it is, for `record` puts another in its place
TOGETHER = ("digest", "accuracy", "macs")  # of one network, always on one line


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a command gave to be printed."""

    rows: Sequence[Mapping[str, Any]]
    columns: Mapping[str, str]
    title: str

    def faults(self, wide: int) -> list[str]:
        """What is broken, lost or too wide at a width; empty if nothing is."""
        lines = DRAW(self.rows, self.columns, self.title, columns_wide=wide)
        words = [word for line in lines for word in line.split()]
        texts = [self.title, *self.columns.values()]
        texts += [output._cell(key, row.get(key)) for row in self.rows for key in self.columns]
        asked = Counter(
            word for text in texts for word in output.visible(text).split() if cell_len(word) <= wide // 2 - 1
        )
        lost = asked - Counter(word.rstrip(":") for word in words) - Counter(words)
        faults = [f"lost or broken: {word}" for word in lost]
        faults += [f"too wide: {line}" for line in lines if cell_len(line) > wide]
        together = [key for key in TOGETHER if key in self.columns]
        for row in self.rows if len(together) == len(TOGETHER) else ():
            whole = [output._cell(key, row[key]) for key in together]
            if not any(set(whole) <= set(line.split()) for line in lines):
                faults.append(f"not on one line: {whole}")
        return faults


def record(patch: pytest.MonkeyPatch) -> list[Table]:
    """The list to which every table that is printed from now on is added."""
    found: list[Table] = []

    def table_lines(
        rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], title: str = "", *, columns_wide: int
    ) -> list[str]:
        found.append(Table(rows=rows, columns=columns, title=title))
        return DRAW(rows, columns, title, columns_wide=columns_wide)

    patch.setattr(output, "table_lines", table_lines)
    patch.setattr(watch, "table_lines", table_lines)
    return found


def faults(tables: Sequence[Table]) -> list[str]:
    """Those of some tables at every width."""
    return [f"{table.title}, {wide}: {fault}" for table in tables for wide in WIDTHS for fault in table.faults(wide)]
