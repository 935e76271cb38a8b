"""Tables of a study: columns, CSV, LaTeX and Parquet, and `nas.open`."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nas
from nas.errors import NasError, NotFoundError, StoreError
from nas.read import formats
from nas.read import rows as tabular
from nas.store.database import Store
from tests.nas.read.conftest import Run
from tests.nas.read.made import made

TABLES = list(tabular.COLUMNS)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("export") / "study.db")


@pytest.mark.parametrize("table", TABLES)
def test_every_table_has_the_columns_that_it_states(searched: Path, table: str) -> None:
    store = Store(searched)
    rows = tabular.rows_of(store, store.study(), table)
    columns = tabular.columns_of(table, rows)
    assert all(set(row) <= set(columns) for row in rows)
    assert all(set(tabular.COLUMNS[table]) <= set(row) for row in rows)
    assert all(column.meaning for column in columns.values())
    assert tabular.for_paper(columns)


@pytest.mark.parametrize("table", ["front", "trials", "evaluations", "epochs", "promotions"])
def test_what_a_search_has_done_is_in_its_tables(searched: Path, table: str) -> None:
    store = Store(searched)
    assert tabular.rows_of(store, store.study(), table)


def test_trials_have_their_settings_and_their_last_result(database: Path) -> None:
    with nas.open(database) as study:
        trials = study.trials()
        evaluations = study.evaluations()
    assert len(trials) == 40
    assert {"setting.kind.stage0", "setting.kind.stage1", "setting.kernel"} <= set(trials.columns)
    last = evaluations.sort_values("rung").groupby("number").last()
    trials = trials.set_index("number")
    assert (trials.top1 == last.top1).all()
    assert (trials.epochs == last.epochs).all()


@pytest.mark.parametrize("table", TABLES)
def test_csv_holds_every_value(database: Path, run: Run, table: str) -> None:
    code, out, err = run("export", database, "--table", table, "--csv")
    assert code == 0, err
    store = Store(database)
    rows = tabular.rows_of(store, store.study(), table)
    read = list(csv.DictReader(io.StringIO(out)))
    assert out.split("\n")[0].split(",") == list(tabular.columns_of(table, rows))
    assert read == [
        {name: "" if row.get(name) is None else str(row[name]) for name in tabular.columns_of(table, rows)}
        for row in rows
    ]


@pytest.mark.parametrize("table", TABLES)
def test_parquet_has_one_type_a_column_whatever_the_rows(database: Path, tmp_path: Path, table: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    store = Store(database)
    rows = tabular.rows_of(store, store.study(), table)
    columns = tabular.columns_of(table, rows)
    for name, some in (("all", rows), ("none", [])):
        formats.write_parquet(some, columns, tmp_path / name)
    full, empty = (parquet.read_table(tmp_path / name) for name in ("all", "none"))
    assert full.schema == empty.schema
    assert full.to_pylist() == [{name: row.get(name) for name in columns} for row in rows]


def test_parquet_without_its_extra_names_the_command(
    database: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    code, _, err = run("export", database, "--table", "front", "--parquet", "-o", tmp_path / "front.parquet")
    assert code == 2
    assert "error: Parquet needs pyarrow: pip install 'video-nas[parquet]'" in err
    assert list(tmp_path.iterdir()) == []


def test_latex_is_a_table_with_rules_and_as_many_cells_as_columns(database: Path, run: Run, tmp_path: Path) -> None:
    code, out, _ = run("export", database, "--table", "front", "--latex")
    assert code == 0
    lines = out.splitlines()
    assert lines[1] == r"\begin{tabular}{llrrrrrr}"
    assert [line for line in lines if "rule" in line] == [r"\toprule", r"\midrule", r"\bottomrule"]
    cells = [re.split(r"(?<!\\)&", line) for line in lines if line.endswith(r"\\")]
    assert {len(row) for row in cells} == {8}
    assert len(cells) == 1 + len(Store(database).front("tiny"))
    assert run("export", database, "--table", "front", "--latex", "-o", tmp_path / "t" / "front.tex")[0] == 0
    assert (tmp_path / "t" / "front.tex").read_text() == out


def test_numbers_in_latex_are_those_of_papers() -> None:
    columns = tabular.columns_of("effects", [])
    row = {"factor": "kind", "level": "p3d_a", "reference": "2d", "pairs": 5, "difference": 0.0123, "low": -0.004}
    line = formats.to_latex([row], tabular.for_paper(columns), "x").splitlines()[5]
    assert line == r"kind & p3d\_a & 2d & 5 & $+1.2$ & $-0.4$ &  &  &  \\"
    cost = {
        "digest": "0123456789abcdef",
        "macs": 41_500_000_000,
        "params": 33_371_472,
        "accuracy": 0.7756,
        "epochs": 27,
    }
    line = formats.to_latex([cost], tabular.for_paper(tabular.columns_of("front", [])), "x").splitlines()[5]
    assert line == r"\texttt{0123456789} &  & 77.6 &  &  & 41.5 & 33.4 & 27 \\"
    cells = {0.0: "0", 0.0001: "$<$0.001", 1234567.0: "1234567", -0.5: "$-$0.5", 0.04567: "0.0457"}
    names = {"x": tabular.Column("number", "a number", "x")}
    for value, text in cells.items():
        assert formats.to_latex([{"x": value}], names, "x").splitlines()[5] == rf"{text} \\"


@given(st.text(max_size=30))
def test_nothing_in_a_text_means_anything_to_latex(text: str) -> None:
    safe = formats.escaped(text)
    commands = (
        r"\\textbackslash\{\}|\\textasciitilde\{\}|\\textasciicircum\{\}|\\text(?:less|greater|bar)\{\}|\\[&%$#_{}]"
    )
    assert not re.search(r"[&%$#_{}~^\\\n]", re.sub(commands, "", safe))


def test_columns_can_be_chosen_in_any_order(database: Path, run: Run) -> None:
    code, out, _ = run("export", database, "--table", "trials", "--csv", "--columns", "top1, setting.kernel,number")
    assert code == 0
    assert out.splitlines()[0] == "top1,setting.kernel,number"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--table", "fronts", "--csv"], "table 'fronts' is not known; did you mean front? (choices: front, trials,"),
        (["--table", "front"], "name one of --csv, --parquet and --latex, but got none"),
        (["--table", "front", "--csv", "--latex"], "but got --csv and --latex"),
        (["--table", "front", "--parquet"], "--parquet writes a file; give -o FILE"),
        (
            ["--table", "front", "--csv", "--columns", "acuracy"],
            "column 'acuracy' is not known; did you mean accuracy?",
        ),
        (
            ["--table", "front", "--csv", "-o", "/proc/none/front.csv"],
            "the file /proc/none/front.csv cannot be written",
        ),
    ],
)
def test_bad_input_gets_one_line(database: Path, run: Run, argv: list[str], message: str) -> None:
    code, _, err = run("export", database, *argv)
    assert code == 2
    assert [line for line in err.splitlines() if line.startswith("error: ") and message in line]


def test_an_opened_study_explains_its_columns(database: Path) -> None:
    with nas.open(database.parent) as study:
        for table in TABLES:
            frame = getattr(study, table)()
            assert set(study.columns(table)) <= set(frame.columns)
        assert study.columns("front")["macs"] == "multiply-accumulates of one clip"
        with pytest.raises(NasError, match="table 'fronts' is not known"):
            study.columns("fronts")
        front = study.front()
        assert list(front.macs) == sorted(front.macs)
        assert (study.name, study.data["clips"]["val"]) == ("tiny", 400)
        assert study.spec(front.digest[0]).describe() == front.description[0]


def test_importances_are_computed_where_none_are_stored(tmp_path: Path) -> None:
    with nas.open(made(tmp_path / "study.db")) as study:
        found = study.importance()
    best = found[(found.method == "fanova") & (found.objective == "accuracy")].iloc[0]
    assert best.factor == "kind.stage1"


def test_a_promoted_network_is_loaded_with_its_weights(searched: Path) -> None:
    import torch

    with nas.open(searched) as study:
        promoted = study.promotions()
        digest = promoted.digest[0]
        network = study.network(digest[:8])
        assert network.record["digest"] == digest
        assert network(torch.zeros(1, 3, 4, 16, 16)).shape == (1, 8)
        with pytest.raises(NotFoundError, match=r"was not promoted with seed 9 .* \(promoted: "):
            study.network(digest, seed=9)
        others = set(study.trials().digest) - {digest}
        with pytest.raises(NotFoundError, match="was not promoted"):
            study.network(others.pop())


def test_a_study_shows_itself_and_escapes_what_it_shows(tmp_path: Path) -> None:
    path = made(tmp_path / "<b>" / "study.db", over={"question": "Is <script>alert(1)</script> & co better?"})
    with nas.open(path) as study:
        assert repr(study).startswith("<study tiny in ")
        assert "40 networks at 1 epoch, best top-1 0." in repr(study)
        page = study._repr_html_()
    assert "<script>" not in page and "<b>" not in page
    assert "Is &lt;script&gt;alert(1)&lt;/script&gt; &amp; co better?" in page
    assert page.count("<tr>") >= 5


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no database at"):
        nas.open(tmp_path / "none.db")
    Store(tmp_path / "empty.db", create=True).close()
    with pytest.raises(NotFoundError):
        nas.open(tmp_path / "empty.db")


LIGHT = [
    ["export", "{db}", "--table", "trials", "--csv"],
    ["compare", "{db}", "{other}"],
    ["watch", "{db}", "--once"],
]


@pytest.mark.parametrize("argv", LIGHT, ids=lambda argv: argv[0])
def test_looking_imports_no_torch_and_nothing_heavy(database: Path, tmp_path: Path, argv: list[str]) -> None:
    other = made(tmp_path / "other.db", seed=4, optuna=False)
    words = [word.format(db=database, other=other) for word in argv]
    code = (
        "import sys\nfrom nas.cli.main import main\n"
        f"assert main({words!r}) == 0\n"
        "heavy = {'torch', 'torchvision', 'timm', 'optuna', 'scipy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("what", ["study.front()", "study.trials()", "study.importance()", "study.spec('')"])
def test_the_python_api_imports_no_torch(searched: Path, what: str) -> None:
    code = (
        f"import sys, nas\nstudy = nas.open({str(searched)!r})\n"
        f"try:\n    {what}\nexcept nas.errors.NotFoundError:\n    pass\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
