"""Multi-objective search methods against each other, on tables of known results.

    python -m benchmarks.search --quick                                   (minutes)
    python -m benchmarks.search --tables macro,ec_nas --methods random,optuna_tpe --seeds 20
    python -m benchmarks.search --add ours=my.module:function --against ours
    python -m benchmarks.search --export                                  (tables as JSON, for the scripts of peers/)

Published tables are looked for in --benchmarks or NAS_BENCHMARKS. A network that is proposed twice is trained and paid
twice, as a user of that method would; a combination of settings that is no network costs nothing. Each search is kept
under --cache, so a comparison that was stopped goes on, and one more method does not run the others again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.search import plot, report, runs
from benchmarks.search.methods import METHODS, Entry, added
from benchmarks.search.readers import READERS, MissingTableError
from benchmarks.search.tables import Table, write_export

CACHE = Path("runs/benchmarks/search")
QUICK_TABLES, QUICK_SEEDS = ("macro", "ec_nas", "motion"), 3
FOCUS = ("ours", "project_freeze_thaw", "project_pool", "project_tpe")  # the first that a table has


def main() -> None:
    given = _arguments()
    methods = dict(METHODS)
    try:
        for text in given.add:
            entry = added(text)
            methods[entry.name] = entry
    except ValueError as error:
        _end(str(error))
    names = _chosen("--tables", given.tables, READERS, QUICK_TABLES if given.quick else tuple(READERS))
    quick = [name for name, entry in methods.items() if entry.quick or name not in METHODS]
    default = quick if given.quick else list(methods)
    entries = [methods[name] for name in _chosen("--methods", given.methods, methods, default)]
    tables = [table for name in names if (table := _read(name, given.benchmarks)) is not None]
    if given.against is not None:
        _chosen("--against", given.against, methods, ())
    if not tables:
        _end("no table can be read")
    if given.export:
        for table in tables:
            write_export(table, given.seeds, given.cache / "exports" / f"{table.name}.json")
        return
    seeds = range(min(given.seeds, QUICK_SEEDS) if given.quick else given.seeds)
    found = {table.name: _compare(table, entries, seeds, given.cache) for table in tables}
    _write(tables, found, given.against, given.out or given.cache / "figures.json")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few seeds, cheap tables, cheap methods")
    parser.add_argument("--tables", help=f"comma-separated: {', '.join(READERS)}")
    parser.add_argument("--methods", help=f"comma-separated: {', '.join(METHODS)}")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--add", action="append", default=[], metavar="NAME=MODULE:FUNCTION", help="one more method")
    parser.add_argument("--against", metavar="METHOD", help="the method that is tested against every other")
    parser.add_argument("--benchmarks", type=Path, metavar="FOLDER", help="of the published tables")
    parser.add_argument("--cache", type=Path, default=CACHE, metavar="FOLDER")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.json", help="figures; Markdown and SVG are written beside them"
    )
    parser.add_argument("--export", action="store_true", help="write the tables for the scripts of peers/, and end")
    return parser.parse_args()


def _chosen(option: str, text: str | None, valid: object, default: object) -> list[str]:
    names = list(default) if text is None else [name for name in text.split(",") if name]  # type: ignore[call-overload]
    for name in names:
        if name not in valid:  # type: ignore[operator]
            _end(f"{option}: {name} is unknown (valid: {', '.join(valid)})")  # type: ignore[arg-type]
    return names


def _read(name: str, folder: Path | None) -> Table | None:
    try:
        return READERS[name](folder)
    except MissingTableError as error:
        print(f"{name} is left out: {error}", file=sys.stderr)
        return None


def _compare(table: Table, entries: list[Entry], seeds: range, cache: Path) -> list[report.Figures]:
    found = []
    for entry in entries:
        if not entry.suits(table):
            continue
        done = runs.complete(cache, table, entry, seeds)
        if not done:
            print(f"{table.name} {entry.name}: not run; see benchmarks/search/peers", file=sys.stderr)
            continue
        figures = report.figures(table, entry, done)
        medians = " / ".join(f"{figures.quartiles(mark)[1]:.1f}" for mark in table.marks)
        print(f"{table.name:<15} {entry.name:<24} {medians:<28} {len(done)} seeds", flush=True)
        found.append(figures)
    return found


def _write(tables: list[Table], found: dict[str, list[report.Figures]], against: str | None, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    places = report.ranks({t.name: found[t.name] for t in tables}, {t.name: t.marks for t in tables})
    focus = {t.name: against or _focus(found[t.name]) for t in tables}
    content = {t.name: report.content(t, found[t.name], focus[t.name]) for t in tables}
    out.write_text(json.dumps({"tables": content, "mean_ranks": places}, indent=1) + "\n", encoding="utf-8")
    text = [report.markdown(t, found[t.name], focus[t.name]) for t in tables]
    if len(tables) > 1 and len(places) > 1:
        rows = "\n".join(f"| {METHODS[n].title if n in METHODS else n} | {rank:.1f} |" for n, rank in places.items())
        text.append(f"### Mean rank over tables and marks\n\n| method | rank |\n|---|---:|\n{rows}\n")
    out.with_suffix(".md").write_text("\n".join(text), encoding="utf-8")
    for table in tables:
        if found[table.name]:
            place = out.with_name(f"{out.stem}_{table.name}.svg")
            place.write_text(plot.svg(table, found[table.name]), encoding="utf-8")
    print(f"{out}, {out.with_suffix('.md').name} and a plot for each table are written")


def _focus(found: list[report.Figures]) -> str:
    names = [figures.entry.name for figures in found]
    return next((name for name in FOCUS if name in names), "")


def _end(message: str) -> None:
    print(message[:500], file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
