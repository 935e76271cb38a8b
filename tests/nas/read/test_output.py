"""What commands print: no control character of a name reaches the terminal, and no table breaks a number or a word."""

from __future__ import annotations

import ast
import io
import json
import os
import shutil
import sqlite3
import unicodedata
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nas
import search_spaces
import trainer
from nas.cli import output
from tests.nas.read.conftest import Run
from tests.nas.read.made import made
from tests.nas.read.widths import Table, faults, record
from tests.nas.studies import write_study

ROOT = Path(__file__).parents[3]
HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.\u2066[red]\r\n\x7f:boom:"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.\u2066[red]\r\n\x7f:boom:"
# What commands decide by, and what is compared with something else; a name stands in none of them.
PLAIN = ("at", "digest", "state", "kind", "clip", "key", "split", "purpose", "recipe_digest", "version", "accuracy")

PRINTS = ("print", "pprint", "typer.echo", "typer.secho", "Console")
PRINT_METHODS = (".print", "stdout.write", "stderr.write")

DESCRIBED = "timm test_resnet | 2d, 2d, 2d, p3d_c.5 d2, p3d_c.5 d2 | tsm 1/8 | average"


def test_one_file_of_the_project_prints() -> None:
    for package in (nas, search_spaces, trainer):
        for path in Path(package.__file__ or "").parent.rglob("*.py"):
            if path == Path(output.__file__):
                continue
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Call):
                    called = ast.unparse(node.func)
                    assert called not in ("print", "pprint", "typer.echo", "typer.secho", "Console"), (
                        f"{path}: {called}"
                    )
                    assert not called.endswith((".print", "stdout.write", "stderr.write")), f"{path}: {called}"


@settings(deadline=None)
@given(st.text(st.characters(categories=("L", "N", "P", "S", "Z", "C", "M"))), st.integers(20, 200))
def test_no_text_reaches_the_terminal_with_a_control_character(text: str, wide: int) -> None:
    rows = [{"a": text, "description": text, "n": 1.5, "digest": text}, {"a": "x", "description": None, "n": 20}]
    lines = output.table_lines(rows, {"a": "a", "n": "n", "digest": text, "description": "b"}, text, columns_wide=wide)
    assert hidden("\n".join(lines)) == []
    assert hidden(output.visible(text)) == []


@settings(deadline=None)
@given(st.recursive(st.text() | st.none(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_json_means_the_same_without_control_characters(value: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", written := io.StringIO())
        output.print_json(value)
    assert hidden(written.getvalue()) == []
    assert json.loads(written.getvalue()) == value


def test_a_terminal_without_unicode_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", newline="\n")
    monkeypatch.setattr("sys.stdout", stream)
    output.print_line("été ± 1")
    stream.flush()
    assert raw.getvalue() == rb"\xe9t\xe9 \xb1 1" + b"\n"


def test_a_name_is_shown_with_its_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_line(HOSTILE)
    output.print_table([{HOSTILE: HOSTILE}], {HOSTILE: HOSTILE}, HOSTILE)
    output.print_error(HOSTILE)
    out, err = capsys.readouterr()
    assert out.count(SHOWN) == 4
    assert err == f"{SHOWN}\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_shows_names_with_their_escapes(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    monkeypatch.setattr(written, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("TERM", "dumb")  # so that rich moves no cursor
    progress = output.Progress("videos", every=0.0)
    progress.update(1, 3, HOSTILE)
    progress.line(HOSTILE)
    progress.update(2, 3, HOSTILE)
    progress.close()
    assert SHOWN in written.getvalue()
    assert hidden(written.getvalue()) == []


def databases(tmp_path: Path) -> list[Path]:
    """Copies of a recorded database with hostile text: in the study, in what says how to read it, in the rest."""
    origin = ROOT / "tests" / "golden" / "databases" / "schema_4.db"
    with closing(sqlite3.connect(origin)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = [
            (table, row[1], row[2])
            for table in tables
            if table.startswith("nas_") and table != "nas_migrations"
            for row in connection.execute(f"PRAGMA table_info({table})")
            if (row[2].startswith("VARCHAR") or row[2] in ("TEXT", "JSON")) and not row[1].endswith("_at")
            if row[1] not in PLAIN
        ]
    found = []
    read_first = [("nas_study", "config", "JSON"), ("nas_architecture", "spec", "JSON")]
    study = [column for column in columns if column[0] == "nas_study" and column not in read_first]
    rest = [column for column in columns if column not in (*read_first, *study)]
    for number, spoilt in enumerate((rest, study, read_first)):
        path = tmp_path / str(number) / f"{HOSTILE.replace('/', '')}.db"
        path.parent.mkdir()
        shutil.copyfile(origin, path)
        with closing(sqlite3.connect(path)) as connection:
            for table, name, kind in spoilt:
                for row, value in connection.execute(f"SELECT rowid, {name} FROM {table}").fetchall():
                    text = json.dumps(spoil(json.loads(value or "null"))) if kind == "JSON" else f"{value}{HOSTILE}"
                    connection.execute(f"UPDATE {table} SET {name} = ? WHERE rowid = ?", (text, row))
            connection.execute(
                "INSERT INTO nas_ablation (study_id, name, kind, design, state, created_at) "
                "VALUES (1, ?, 'ablate', '{}', 'running', '2026-11-29T12:00:00')",
                (HOSTILE,),
            )
            connection.commit()
        found.append(path)
    return found


def spoil(value: Any) -> Any:
    """`value` with every text in a list or under a key that names a place or a thing made hostile."""
    if isinstance(value, dict):
        return {
            key: f"{item}{HOSTILE}"
            if key in ("name", "root", "question", "path", "reason", "sentence") and isinstance(item, str)
            else spoil(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [f"{item}{HOSTILE}" if isinstance(item, str) else spoil(item) for item in value]
    return value


READING: list[list[str]] = [
    ["status"],
    ["status", "--trials"],
    ["status", "--json"],
    ["pareto"],
    ["pareto", "--json"],
    ["watch"],
    ["compare"],
    ["importance"],
    ["export", "--table", "trials", "--csv"],
    ["export", "--table", "trials", "--latex"],
    ["export", "--table", "promotions", "--csv"],
    ["export", "--table", "effects", "--csv"],
]


def test_no_command_that_reads_a_database_prints_a_control_character(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = 0
    for path in databases(tmp_path):
        for command, *options in READING:
            more = [str(path)] if command == "compare" else []
            code, out, err = run(command, str(path), *more, *options)
            assert code in (0, 1, 2), (path, command, options)
            assert hidden(out) == hidden(err) == [], (path, command, options)
            shown += r"\x1b]0;owned" in out + err or r"\u001b]0;owned" in out
    assert shown > 20


def test_no_command_that_reads_a_folder_prints_a_control_character(
    tmp_path: Path, run: Run, motion: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = HOSTILE.replace("/", "")
    folder = tmp_path / name
    for split in ("train", "val"):
        for label in ("a", name):
            (folder / split / label).mkdir(parents=True)
            for number, video in enumerate(sorted((motion / split).rglob("*.mp4"))[:3]):
                shutil.copyfile(video, folder / split / label / f"{name}{number}.mp4")
            (folder / split / label / f"{name}.mp4").write_bytes(b"no video")
    (folder / "train" / "a" / os.fsdecode(b"\xff\x1b.mp4")).write_bytes(b"no video")
    for words in (
        ["data", "check", folder],
        ["data", "check", folder, "--json"],
        ["data", "check", f"{folder}{HOSTILE}"],
        ["data", "pack", folder, "--output", tmp_path / name / "packed"],
        ["data", "make", HOSTILE],
        ["status", folder],
        ["show", HOSTILE],
        ["show", "r3d_18", HOSTILE],
        ["path", "r3d_18", HOSTILE],
        ["search", f"{folder}/{HOSTILE}.yaml"],
        ["predict", folder, folder],
        ["evaluate", folder, folder],
        ["ensemble", folder, f"{folder}/train"],
        [HOSTILE],
        ["status", f"--{HOSTILE}"],
        ["data", HOSTILE],
    ):
        code, out, err = run(*words)
        assert code in (0, 1, 2), words
        assert hidden(out) == hidden(err) == [], words
        assert "owned" in out + err, words


def test_no_command_that_reads_a_study_prints_a_control_character(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"{HOSTILE}.yaml"
    shown = 0
    for over in (
        {"name": HOSTILE},
        {"question": HOSTILE},
        {HOSTILE: 1},
        {"data": {"root": HOSTILE}},
        {"data": {"name": HOSTILE, HOSTILE: 1}},
        {"space": {"domains": {"kind": [HOSTILE]}}},
        {"space": {"families": [HOSTILE]}},
        {"recipe": {"optimizer": HOSTILE}},
        {"search": {"sampler": HOSTILE, "start_with": [HOSTILE]}},
    ):
        write_study(path, over)
        for command in ("status", "space", "search", "ablate", "verdict", "promote"):
            code, out, err = run(command, path)
            assert code in (0, 1, 2), (over, command)
            assert hidden(out) == hidden(err) == [], (over, command)
            shown += SHOWN[:14] in err
    assert shown > 30
    path.write_bytes(b"name: \xff\x1b[2J\n" + HOSTILE.encode())
    assert hidden(run("status", path)[2]) == []


# The rest of the commands is asked by the slow test of the examples, which runs every command there is.
TABLES = [
    ["status", "DB"],
    ["status", "DB", "--trials"],
    ["pareto", "DB"],
    ["watch", "DB"],
    ["compare", "DB", "OTHER"],
    ["importance", "DB"],
    ["presets", "--family", "x3d"],
    ["path", "r3d_18", "mc3_18"],
    ["diff", "besnet_50", "p3d_50"],
    ["show", "slowfast_8x8_r50"],
    ["space", "STUDY", "search.pool=60"],
    ["ablate", "studies/ablate_r2plus1d.yaml", "data=motion", "--dry-run"],
    ["versus", "r3d_18", "mc3_18", "--study", "studies/gestures.yaml", "data.num_classes=10", "--dry-run"],
]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two searches of different studies, whose names have several words."""
    folder = tmp_path_factory.mktemp("two")
    first = made(folder / "a" / "study.db", optuna=False)
    over = {"name": "Another_study_with_a_long_name", "search": {"trials": 40}}
    return {
        "DB": str(first),
        "OTHER": str(made(folder / "b" / "study.db", over=over, optuna=False, seed=4)),
        "STUDY": str(first.with_suffix(".yaml")),
    }


@pytest.mark.parametrize("command", TABLES, ids=" ".join)
def test_tables_break_no_number_and_lose_no_network(
    command: list[str], two: dict[str, str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    tables = record(monkeypatch)
    code, _, err = run(*(two.get(word, word) for word in command))
    assert code == 0, err
    assert tables
    assert faults(tables) == []


def test_effects_and_classes_break_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    from nas.cli.ablate import print_effects

    tables = record(monkeypatch)
    effect = {"factor": "placement of time", "level": "kind=2plus1d, kernel=5", "reference": "kind=2d", "pairs": 12}
    effect |= {"difference": 0.699, "low": -0.204, "high": 0.738, "effect_size": 23.3, "p_holm": 1.0}
    print_effects([{**effect, "macs_ratio": 2.812, "word": "undecided"}], "effects of a study, in points")
    names = [f"class_{number}_of_many" for number in range(10)]
    matrix = [{"true": name, **dict.fromkeys(names, 100)} for name in names]
    output.print_table(matrix, {"true": "true \\ predicted", **{name: name for name in names}}, "confusion")
    assert faults(tables) == []


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.text(), st.text("ab 漢", min_size=50), st.floats(0, 1), st.integers(0, 10**13)), max_size=3),
    st.integers(60, 200),
)
def test_random_tables_break_nothing(rows: list[tuple[str, str, float, int]], wide: int) -> None:
    keys = ("digest", "description", "accuracy", "macs")
    columns = {"digest": "digest", "accuracy": "top-1", "macs": "MACs", "description": "network"}
    named = [{**dict(zip(keys, row, strict=True)), "digest": f"{number:010d}"} for number, row in enumerate(rows)]
    assert Table(rows=named, columns=columns, title="a title").faults(wide) == []


def test_the_front_at_80_columns() -> None:
    row = {"digest": "0b97ce5d9f", "accuracy": 0.951, "macs": 204_636_288, "params": 477_624}
    rows = [{**row, "description": DESCRIBED}]
    columns = {"digest": "digest", "accuracy": "top-1", "macs": "MACs", "params": "params", "description": "network"}
    assert output.table_lines(rows, columns, "front", columns_wide=80) == [
        "front",
        "digest      top-1    MACs   params",
        "  network",
        "──────────────────────────────────",
        "0b97ce5d9f  0.951  204.6M  477,624",
        f"  {DESCRIBED}",
    ]
    assert output.table_lines(rows, columns, "front", columns_wide=120)[3].endswith(f"477,624  {DESCRIBED}")


def hidden(text: str) -> list[str]:
    """The control and format characters of a text other than the ends of its lines."""
    return [char for char in text if char != "\n" and unicodedata.category(char) in output.HIDDEN]
