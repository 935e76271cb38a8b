"""The command line: what people script, and one line for whatever is wrong."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from nas.cli import data
from nas.cli.main import app, main
from nas.store.database import Store
from nas.store.tables import pareto_front
from nas.study.files import load_study
from search_spaces.weights import check_source
from tests.nas.studies import content_of, write_study
from trainer.data.dataset import open_data

COMMANDS = [
    ["deploy"],
    ["latency"],
    ["ablate"],
    ["versus"],
    ["verdict"],
    ["motion"],
    ["report"],
    ["importance"],
    ["watch"],
    ["new"],
    ["dashboard"],
    ["compare"],
    ["export"],
    ["backup"],
    ["record"],
    ["simulate"],
    ["supernet"],
    ["search"],
    ["status"],
    ["pareto"],
    ["promote"],
    ["evaluate"],
    ["predict"],
    ["ensemble"],
    ["features"],
    ["probe"],
    ["show"],
    ["cost"],
    ["diff"],
    ["presets"],
    ["path"],
    ["space"],
    ["keys"],
    ["doctor"],
    ["data", "make"],
    ["data", "check"],
    ["data", "split"],
    ["data", "get"],
]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, motion: Path) -> Path:
    """A folder with a study, and in it a finished search and its promotion."""
    folder = tmp_path_factory.mktemp("cli")
    over = {"data": {"root": str(motion), "cache": str(motion.parent / "cache")}, "search": {"trials": 3}}
    write_study(folder / "tiny.yaml", {**over, "variants": {"other": {"data": {"name": "other"}}}})
    return folder


@pytest.fixture(autouse=True)
def _inside(searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(searched)
    monkeypatch.delenv("NAS_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    if not (searched / "runs").exists():
        assert main(["search", "tiny.yaml"]) == 0


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(list(argv))
    out = capsys.readouterr()
    return code, out.out, out.err


def test_the_help_lists_every_command_once_in_a_whole_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, out, _ = run(capsys, "--help")
    rows = re.findall(r"^  ([a-z]+)  +(\S.*)$", out.partition("Search:")[2], re.MULTILINE)
    assert sorted(name for name, _ in rows) == sorted({command[0] for command in COMMANDS})
    assert all(text.endswith(".") and "..." not in text for _, text in rows)


def test_every_command_is_known_here() -> None:
    names = {command.name for command in app.registered_commands}
    assert names == {command[0] for command in COMMANDS if len(command) == 1}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("empty", ["", " "], ids=["empty", "blanks"])
def test_every_text_has_to_say_something(capsys: pytest.CaptureFixture[str], command: list[str], empty: str) -> None:
    of = app if len(command) == 1 else data.app
    (function,) = [one.callback for one in of.registered_commands if one.name == command[-1]]
    assert function is not None
    parameters = inspect.signature(function).parameters.values()
    for asked in parameters:
        if "str" not in str(asked.annotation):
            continue
        words = []
        for other in parameters:
            value = empty if other is asked else "x" if "str" in str(other.annotation) else "1"
            if other is asked or other.default.default is ...:
                words += [*(other.default.param_decls or ())[-1:], value]
        code, _, err = run(capsys, *command, *words)
        assert (code, err.count("\n")) == (2, 1), words
        assert f"must not be empty, but is {empty!r}" in err, words


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    code, out, _ = run(capsys, *command, "--help")
    assert code == 0
    assert "Usage: nas" in out


@pytest.mark.parametrize("argv", [["--help"], ["search", "--help"], ["pareto", "tiny.yaml"], ["status", "tiny.yaml"]])
def test_starting_up_and_looking_import_no_torch(argv: list[str]) -> None:
    heavy = {"torch", "torchvision", "timm", "optuna", "scipy", *(["numpy"] if "--help" in argv else [])}
    code = (
        "import sys\nfrom nas.cli.main import main\n"
        f"assert main({argv!r}) == 0\n"
        f"heavy = {heavy!r} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


LIGHT = [
    (["search", "tiny.yaml", "recipe.init.weights=none.pth", "--db", "b.db"], "there is no file none.pth with weights"),
    (["search", "tiny.yaml", "recipe.init.weights=timm:resnt50", "--db", "b.db"], "timm has no model resnt50; did you"),
    (["search", "tiny.yaml", "recipe.init.weights=torchvision:resnt50"], "torchvision has no model resnt50; did you"),
    (["search", "tiny.yaml", "recipe.lr=0.5"], "was made with recipe.lr=0.003, but the study now says 0.5"),
    (["ablate", "tiny.yaml", "--base", "r2d_18", "recipe.lr=0.5"], "was made with recipe.lr=0.003, but the study now"),
    (["promote", "tiny.yaml", "r2d_18", "recipe.lr=0.5"], "was made with recipe.lr=0.003, but the study now says 0.5"),
    (
        ["promote", "tiny.yaml", "--front", "promote.recipe.init.weights=none.pt"],
        "there is no file none.pt with weights",
    ),
    (["promote", "tiny.yaml", "abcdabcd"], "no digest in runs/tiny/study.db begins with 'abcdabcd'"),
    (["search", "tiny.yaml", "--db", "held.db"], "one driver at a time: another process holds held.db"),
    (["promote", "tiny.yaml", "r2d_18", "--db", "held.db"], "one driver at a time: another process holds held.db"),
    (
        ["ablate", "tiny.yaml", "--base", "r2d_18", "--db", "held.db"],
        "one driver at a time: another process holds held.db",
    ),
]


@pytest.mark.parametrize(("argv", "message"), LIGHT, ids=[" ".join(argv)[:60] for argv, _ in LIGHT])
def test_what_needs_no_torch_to_be_known_is_said_before_it_is_imported(argv: list[str], message: str) -> None:
    code = (
        "import sys\nfrom nas.cli.main import main\n"
        f"assert main({argv!r}) == 2\n"
        "heavy = {'torch', 'torchvision', 'timm'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    with FileLock("held.db.lock"):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not Path("b.db").exists()


def test_every_model_of_the_hubs_is_known_without_them() -> None:
    import timm
    from torchvision import models

    for name in (*timm.list_models(), *timm.list_models(pretrained=True)):
        check_source(f"timm:{name}")
    for name in models.list_models(module=models):
        check_source(f"torchvision:{name}")


def test_a_promotion_takes_the_variant_that_the_search_was_made_with(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "promote", "tiny.yaml", "--best-under", "1T", "data=motion", "promote.epochs=1")
    assert code == 0
    assert "tiny: promoted" in out


def test_fewer_trials_than_there_are_read_sensibly(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree("runs/tiny", "fewer", dirs_exist_ok=True)
    assert run(capsys, "search", "tiny.yaml", "search.trials=2", "--db", "fewer/study.db")[0] == 0
    out = run(capsys, "status", "fewer/study.db")[1]
    assert "trials: 3, search.trials is now 2 (3 stopped)" in out


def test_search_ends_with_the_front_and_the_database(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "search", "tiny.yaml")
    assert code == 0
    assert "Pareto front after 2 epochs, on 16 val clips" in out
    assert "networks: 3 at 1 epoch, 1 at 2 epochs, 0 at 3 epochs" in out
    assert out.rstrip().endswith("database: runs/tiny/study.db")


@pytest.mark.parametrize("target", ["tiny.yaml", "runs/tiny/study.db"])
def test_pareto_by_study_or_database(capsys: pytest.CaptureFixture[str], target: str) -> None:
    code, out, _ = run(capsys, "pareto", target, "--json")
    rows = json.loads(out)
    assert code == 0
    assert list(rows[0]) == [column.name for column in pareto_front.columns]
    assert 0 <= rows[0]["accuracy"] <= 1


def test_the_front_of_what_is_expected(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "pareto", "tiny.yaml", "--expected", "--json")
    assert code == 0
    assert all(row["expected_low"] < row["expected"] < row["expected_high"] for row in json.loads(out))
    code, out, _ = run(capsys, "pareto", "tiny.yaml", "--expected")
    assert code == 0 and "Pareto front of what a model expects after 2 epochs" in out and "90 %" in out
    code, _, err = run(capsys, "pareto", "tiny.yaml", "--expected", "--plot", str(tmp_path / "front.png"))
    assert code == 2 and err == "error: --plot draws the front as it was measured; leave out --expected\n"


@pytest.mark.parametrize(
    ("name", "magic"), [("front.html", b"<html"), ("front.svg", b"<svg"), ("front.png", b"\x89PNG")]
)
def test_pareto_plots(capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, magic: bytes) -> None:
    code, _, err = run(capsys, "pareto", "tiny.yaml", "--plot", str(tmp_path / name))
    assert code == 0, err
    assert magic in (tmp_path / name).read_bytes()[:40]
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_status(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "status", "tiny.yaml", "--json")
    report = json.loads(out)
    assert code == 0
    assert [rung["networks"] for rung in report["rungs"]] == [3, 1, 0]
    assert report["epochs_trained"] == 4
    assert run(capsys, "status", "tiny.yaml")[0] == 0


def test_status_lists_the_networks_by_which_commands_find_them(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "status", "tiny.yaml", "--trials", "--json")
    rows = json.loads(out)["networks"]
    assert code == 0
    assert [row["number"] for row in rows] == [0, 1, 2]
    assert sorted(row["epochs"] for row in rows) == [1, 1, 2]
    plain = run(capsys, "status", "tiny.yaml", "--trials")[1]
    for row in rows:
        (line,) = [line for line in plain.splitlines() if line.startswith(f"{row['number']:>5}  {row['digest'][:10]}")]
        assert f"{row['accuracy']:.3f}" in line and row["state"] in line
        assert run(capsys, "show", row["digest"][:10], "--study", "tiny.yaml")[0] == 0
    assert "networks" not in json.loads(run(capsys, "status", "tiny.yaml", "--json")[1])


def test_cost_has_the_keys_that_people_script(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "cost", "r3d_18", "--clip", "16x112x112", "--num-classes", "400", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["params"] == 33_371_472
    assert round(report["macs"] / 1e9, 3) == 40.697


def test_a_network_goes_by_preset_digest_or_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    digest = json.loads(run(capsys, "pareto", "tiny.yaml", "--json")[1])[0]["digest"]
    code, out, _ = run(capsys, "show", digest[:8], "--study", "tiny.yaml", "--json")
    assert code == 0
    file = tmp_path / "network.json"
    file.write_text(out)
    for name in (digest[:6], str(file)):
        code, out, _ = run(capsys, "diff", digest, name, "--study", "tiny.yaml", "--json")
        assert (code, json.loads(out)) == (0, [])
    code, out, _ = run(capsys, "cost", digest[:8], "--study", "tiny.yaml", "--json")
    assert json.loads(out)["clip"] == "4x16x16"
    assert run(capsys, "show", "mc3_18")[0] == 0


def test_diff_names_the_paths_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "diff", "r2plus1d_18", "r2plus1d_18_torchvision", "--json")
    paths = {row["path"] for row in json.loads(out)}
    assert code == 0
    assert paths
    assert {path for path in paths if not path.endswith("temporal.midplanes")} == {"norm_eps"}


def test_presets(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "presets", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["mc3_18"]["params"] == 11_695_440
    assert rows["r2plus1d_18"]["cited"]
    assert {row["clip"] for row in rows.values()} >= {"16x112x112", "32x112x112"}
    code, out, _ = run(capsys, "presets", "--family", "c3d", "--clip", "16x64x64", "--num-classes", "10", "--json")
    (row,) = json.loads(out)
    assert (row["family"], row["clip"], row["num_classes"]) == ("c3d", "16x64x64", 10)
    assert row["params"] < rows["c3d"]["params"]
    assert run(capsys, "presets", "--family", "c3d")[0] == 0


def test_path_lists_valid_steps_with_their_cost(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "path", "r3d_18_vmz", "r2plus1d_18", "--json")
    rows = json.loads(out)
    assert code == 0
    assert len(rows) == 10
    assert (rows[1]["from"], rows[1]["to"]) == ("3d", "2plus1d")
    assert rows[0]["params"] == 33_371_472
    assert rows[-1]["params"] == 33_370_839
    assert rows[-1]["macs"] == 41_496_308_736
    assert "midplanes 0" in rows[-1]["from"]
    assert "width" not in rows[-1]["from"]
    code, out, _ = run(capsys, "path", "r3d_18_vmz", "r2plus1d_18", "--clip", "8x32x32")
    assert code == 0
    assert "8x32x32" in out
    assert len(json.loads(run(capsys, "path", "r3d_18", "r3d_18", "--json")[1])) == 1


def test_space(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "space", "tiny.yaml", "constraints=['macs <= 900k']", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["exact"]
    assert report["pool"] + report["dropped"]["macs <= 900k"] == report["networks"]
    assert run(capsys, "space", "tiny.yaml")[0] == 0
    code, out, _ = run(capsys, "space", "runs/tiny/study.db", "--json")
    assert code == 0
    assert json.loads(out)["networks"] == report["networks"]


def test_data_check_and_doctor(capsys: pytest.CaptureFixture[str], motion: Path) -> None:
    code, out, _ = run(capsys, "data", "check", "tiny.yaml", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["splits"]["train"]["num_videos"] == 32
    assert report["broken"] == []
    assert run(capsys, "data", "check", str(motion))[0] == 0
    assert run(capsys, "data", "check", "runs/tiny/study.db", "--json")[1] == out
    code, out, _ = run(capsys, "doctor", "--json")
    assert code == 0
    assert all(row["ok"] for row in json.loads(out)), out


def test_data_check_says_that_a_cache_or_a_pack_has_no_digests(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = [f"data.cache={tmp_path / 'cache'}"]
    packed = [*over, "data.source=pack", f"data.root={tmp_path / 'pack'}"]
    monkeypatch.setattr("trainer.data.pack.write.digests_of", lambda parts: b"")
    open_data(load_study("tiny.yaml", over).located_data())
    assert run(capsys, "data", "pack", "tiny.yaml", "-o", str(tmp_path / "pack"), "--workers", "0")[0] == 0
    assert "has no digests of its frames, so that damage" in run(capsys, "data", "check", "tiny.yaml", *over)[1]
    assert f"; {tmp_path / 'pack'} has no digests of its" in run(capsys, "data", "check", "tiny.yaml", *packed)[2]


SERVER = ("--db", "postgresql://me:secret@host/db")
ADDRESSED = [
    *(
        ([*command], [SERVER, ("--db", "sqlite:///b.db")])
        for command in (
            ["search", "tiny.yaml"],
            ["status", "tiny.yaml"],
            ["pareto", "tiny.yaml"],
            ["report", "tiny.yaml"],
            ["watch", "tiny.yaml", "--once"],
            ["importance", "tiny.yaml"],
            ["export", "tiny.yaml", "--csv", "--table", "front"],
            ["promote", "tiny.yaml", "--front"],
            ["promote", "tiny.yaml", "r3d_18"],
            ["ablate", "tiny.yaml", "ablation={base: f_r2d_18, factors: {kind: [2d, 3d]}}"],
            ["versus", "r3d_18", "r2d_18", "--study", "tiny.yaml"],
            ["motion", "--front"],
            ["show", "abcd"],
            ["dashboard", "tiny.yaml"],
        )
    ),
    *(
        ([*command], [("postgresql://me:secret@host/db",)])
        for command in (
            ["search"],
            ["status"],
            ["compare"],
            ["space"],
            ["data", "check"],
            ["show", "abcd", "--study"],
        )
    ),
]
DEEP = "a/" * 2000 + "b.db"  # of more folders than Python's own functions go down
BAD = [
    *(
        (argv, "a path of more than 256 folders")
        for argv in (
            ["search", "tiny.yaml", "--db", DEEP],
            ["search", "tiny.yaml", "--db", "b.db", f"data.cache={DEEP}"],
            ["promote", "tiny.yaml", "r2d_18", "--db", DEEP],
            ["ablate", "tiny.yaml", "--base", "r2d_18", "--db", DEEP],
            ["export", "tiny.yaml", "--csv", "--table", "front", "-o", DEEP],
            ["pareto", "tiny.yaml", "--plot", f"{DEEP}.html"],
            ["report", "tiny.yaml", "-o", f"{DEEP}.html"],
            ["data", "check", "tiny.yaml", "--exclude", DEEP],
            ["data", "make", "motion", "--root", DEEP],
            ["data", "get", "kinetics", "--root", DEEP],
        )
    ),
    (["search", "tiny.yaml", "--db", "b" * 300 + ".db"], "File name too long"),
    (["search", "tiny.yaml", "search.trals=3"], "'search.trals' is not known; did you mean search.trials?"),
    (["search", "tiny.yaml", "seed=-1", "--db", "b.db"], "seed must be at least 0, but is -1"),
    (["search", "tiny.yaml", "recipe.optimizer=adamz", "--db", "b.db"], "must be an optimiser of timm, but is adamz"),
    # Before videos are looked for, let alone decoded.
    (["search", "tiny.yaml", "recipe.optimizer=adamz", "data.root=nowhere", "--db", "b.db"], "but is adamz"),
    (
        ["promote", "tiny.yaml", "r3d_18", "promote.recipe.optimizer=adamz", "data.root=nowhere", "--db", "b.db"],
        "but is adamz",
    ),
    (
        ["ablate", "tiny.yaml", "--base", "f_r2d_18", "recipe.optimizer=adamz", "data.root=nowhere", "--db", "b.db"],
        "but is adamz",
    ),
    (["promote", "tiny.yaml", "--front", "promote.recipe.optimizer=adamz"], "an optimiser of timm, but is adamz"),
    (
        ["ablate", "tiny.yaml", "ablation={base: f_r2d_18, factors: {recipe.optimizer: [sgd, adamz]}}"],
        "recipe.optimizer=adamz: recipe.optimizer must be an optimiser of timm, but is adamz",
    ),
    (["search", "tiny.yaml", "search.rungs=[3,2]", "--db", "b.db"], "(in tiny.yaml with search.rungs=[3,2])"),
    (["search", "runs/tiny/study.db"], "a study file is needed, but runs/tiny/study.db is a database"),
    (["search", "tiny.yaml", "data.definition=classes:up,dwn", "--db", "b.db"], "dwn"),
    (["search", "none.yaml"], "study file none.yaml cannot be read"),
    (["search", "tiny.yaml", "recipe.lr=0.5"], "was made with recipe.lr=0.003, but the study now says 0.5"),
    (["search", "tiny.yaml", "data.root=nowhere", "--db", "b.db"], "nowhere does not exist"),
    (["search", "tiny.yaml", "data.root=", "--db", "b.db"], "data.root is empty"),
    (["pareto", "none.db"], "there is no database at none.db"),
    (["pareto", "tiny.yaml", "--plot", "front.gif"], "a plot must end in .html, .svg or .png, but is front.gif"),
    (["show", "r3d_81"], "no preset is called 'r3d_81' (did you mean r3d_18?)"),
    (
        ["show", "zzzz", "--study", "tiny.yaml"],
        "begins with 'zzzz' (3 networks; `nas status runs/tiny/study.db --tr",
    ),
    (["space", "tiny.yaml", "search.trials@x=3"], "must read key=value without @, but is 'search.trials@x=3'"),
    (["space", "tiny.yaml", "name@x=3"], "must read key=value without @, but is 'name@x=3'"),
    (["probe", "x", "--kind", ","], "--kind must name svm, mlp or both, but is ','"),
    (["ensemble", "runs", "./runs/"], "an ensemble needs different networks, but runs and ./runs/ hold the same one"),
    (["show", "zz", "--study", "tiny.yaml"], "the beginning of a digest must have at least 4 letters, but is 'zz'"),
    (
        ["versus", "r3d_81", "r2d_18", "--study", "tiny.yaml"],
        "no preset is called 'r3d_81' (did you mean r3d_18?), and",
    ),
    (["versus", "abcd", "r2d_18", "--study", "tiny.yaml", "--db", "b.db"], "there is no database b.db"),
    (["ablate", "abcd", "--study", "tiny.yaml", "--db", "b.db"], "a digest needs a search before it, but there is no"),
    (["show", "{preset: abcd}", "--study", "tiny.yaml"], "no digest in runs/tiny/study.db begins with 'abcd'"),
    (["promote", "tiny.yaml", "{preset: abcd}", "--db", "b.db"], "settings change a preset or a .json file"),
    (["features", "r3d_81", "tiny.yaml", "--weights", "w.pt", "-o", "f.npz"], "--weights goes with a preset or a"),
    (["promote", "tiny.yaml", "--front", "data=movies"], "data 'movies' is not known; did you mean motion?"),
    (["promote", "tiny.yaml", "--front", "data=other"], "the search's data, which are motion, but data=other takes"),
    (["promote", "tiny.yaml", "1"], "a network goes by its digest, not by a number, but got 1; trial 1 is "),
    (["show", "none.json"], "the network file none.json cannot be read"),
    (["show", "tiny.yaml"], "tiny.yaml does not hold a network"),
    (["cost", "r3d_18", "--clip", "16x112"], "a clip must read frames x height x width"),
    (["cost", "r3d_18", "--clip", "axbxc"], "a clip must read frames x height x width"),
    (["cost", "r2d_18", "--clip", "0x8x8"], "a clip must read frames x height x width"),
    (["cost", "c3d", "--clip", "4x112x112"], "a clip of 4x112x112 is too short or too small for the network: at pool4"),
    (["path", "r3d_18", "c3d"], "a path needs two networks of one family, but they are of resnet and c3d"),
    (["presets", "--family", "resnets"], "family must be one of the catalogue, but is resnets; did you mean resnet?"),
    (["promote", "tiny.yaml"], "name one of: a digest, --best-under MACS"),
    (["promote", "tiny.yaml", "--best-under", "10"], "no network of the front has at most 10 MACs; the cheapest has"),
    (["promote", "tiny.yaml", "--best-under", "much"], "a number above 0 such as 300M or 2.5G is needed"),
    (["promote", "tiny.yaml", "a", "b"], "name one network, but got 2"),
    (["promote", "tiny.yaml", "--front", "recipe.lr=1"], "a promotion keeps the search's recipe.lr"),
    (
        ["promote", "tiny.yaml", "r3d_81", "--db", "b.db"],
        "no preset is called 'r3d_81' (did you mean r3d_18?); a digest needs a search before it, but there is no"
        " database b.db",
    ),
    (["promote", "tiny.yaml", "r3d_18", "promote.epochs=0", "--db", "b.db"], "promote.epochs must be at least 1"),
    (["promote", "tiny.yaml", "r3d_18", "promote.epoch=1", "--db", "b.db"], "did you mean promote.epochs?"),
    *(
        ([*command, *where], f"an address that begins with {where[-1].partition('://')[0]}://")
        for command, places in ADDRESSED
        for where in places
    ),
    (["promote", "none.db", "--front"], "there is no database at none.db"),
    (["space", "tiny.yaml", "data.num_classes=0"], "data.num_classes must be stated"),
    (["space", "tiny.yaml", "constraints=['macs <= 1']"], "no network of the space meets macs <= 1"),
    (["space", "tiny.yaml", "space.domains.kind=[]"], "must have at least 1 value, but is empty"),
    (["space", "runs/tiny/study.db", "seed=1"], "settings go with a study file, but runs/tiny/study.db is a database"),
    (["keys", "recipe.lrr"], "key 'recipe.lrr' is not known; did you mean recipe.lr?"),
    (["data", "make", "kinetics"], "data set 'kinetics' is not known"),
    (["data", "check", "nowhere"], "there is no data folder, study file or database nowhere"),
    (["data", "check", "/no/where"], "there is no data folder, study file or database /no/where (/no is not there"),
    (["predict", "/no/where", "a.mp4"], "/no/where must be a folder that `nas promote` wrote, but there is no such"),
    (["data", "check", ".", "data.layuot=cvdf"], "setting 'data.layuot' is not known; did you mean data.layout?"),
    (["data", "check", ".", "data.per_class=few"], "data.per_class must be a whole number, but is 'few'"),
    (["data", "check", ".", "data.layout=tree"], "data.layout must be one of auto, folders, torchvision"),
    (["data", "check", "tiny.yaml", "data.definition=mini-kinetics"], "two definitions go by that name"),
    (["data", "get", "imagenet"], "data set 'imagenet' is not known"),
    (["data", "get", "kinetics", "--base", "s3://kinetics"], "a base address must begin with http:// or https://"),
    (["data", "get", "kinetics", "--base", "http://[::1"], "a base address must read http://HOST/PATH, but is"),
    (["data", "get", "kinetics", "--base", "http://me:secret@h/k"], "must read http://HOST/PATH without a user, a"),
    (["data", "check", "tiny.yaml", "--exclude", "runs/tiny/study.db"], "runs/tiny/study.db holds something else"),
    (["search", "tiny.yaml", "data.fps=1e308", "--db", "b.db"], "data.fps must be at most 1,000,000, but is 1e+308"),
    (["data", "check", "tiny.yaml", "data.source=pack"], "videos are needed for a check, but data.source is pack"),
]


@pytest.mark.parametrize(("argv", "message"), BAD, ids=[" ".join(argv)[:50] for argv, _ in BAD])
def test_bad_input_gets_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    database = Path("runs/tiny/study.db")
    before = content_of(database)
    code, _, err = run(capsys, *argv)
    assert code == 2
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "secret" not in err
    assert "Traceback" not in err
    assert content_of(database) == before
    assert not list(Path().glob("*:"))
    assert not Path("b.db").exists()


def test_data_check_says_what_is_wrong_and_a_study_can_leave_it_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, motion: Path
) -> None:
    root = tmp_path / "mine"
    shutil.copytree(motion, root)
    for path in root.rglob("*.mp4"):  # clips of 4 frames may be equal in two classes
        path.write_bytes(path.read_bytes() + b"\0\0\0\x30free" + str(path.relative_to(root)).ljust(40).encode())
    classes = sorted(path.name for path in (root / "train").iterdir())
    first, second = (sorted((root / "train" / classes[0]).iterdir()))[:2]
    first.write_bytes(b"")
    shutil.copyfile(second, root / "val" / classes[0] / "leak.mp4")
    code, out, _ = run(capsys, "data", "check", str(root), "--exclude", str(tmp_path / "out.txt"))
    assert code == 1
    assert f"{root} is read as folders: 8 classes, train 32, val 17, test 16" in out
    assert "left out: 1 empty" in out
    assert f"leak: the same bytes: {second.relative_to(root)} ({classes[0]}), val/{classes[0]}/leak.mp4" in out
    assert "2 videos written to" in out
    code, out, _ = run(capsys, "data", "check", str(root), f"data.exclude={tmp_path / 'out.txt'}", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["splits"]["train"]["num_videos"] == 30
    assert report["layout"]["definition"] == "2 excluded by out.txt"
    code, out, _ = run(
        capsys, "data", "check", str(root), "data.definition=classes:" + ",".join(classes[1:4]), "--decode"
    )
    assert code == 0
    assert "every frame was decoded" in out
    assert run(capsys, "data", "check", str(root), "--exclude", "/proc/nas/out.txt")[0] == 2


def test_the_record_of_a_run_has_layout_definition_and_class_map(
    capsys: pytest.CaptureFixture[str], motion: Path
) -> None:
    settings = ["data.definition='classes:left,right,up'", "data.per_class=2", "data.num_classes=3", "search.trials=1"]
    code, _, err = run(capsys, "search", "tiny.yaml", *settings, "--db", "part/study.db")
    assert code == 0, err
    assert f"{motion} is read as folders: 3 classes, train 6, val 6, test 6; the classes left, right, up" in err
    store = Store(Path("part/study.db"))
    layout = store.study()["data"]["layout"]
    store.close()
    assert layout["kind"] == "folders"
    assert layout["definition"] == "the classes left, right, up; at most 2 of each class in each split"
    assert layout["class_map"] == {"left": "left", "right": "right", "up": "up"}
    assert layout["videos"] == {"train": 6, "val": 6, "test": 6}


def test_data_make(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.data import motion_clips as maker

    few = {"train_per_class": 1, "val_per_class": 1, "test_per_class": 0, "frames": 2, "size": 16}
    make = maker.make_motion
    monkeypatch.setattr(maker, "make_motion", lambda root, **settings: make(root, **{**settings, **few}))
    root = str(tmp_path / "m")
    for written in (16, 0):
        code, out, _ = run(capsys, "data", "make", "motion", "--root", root, "--json")
        assert (code, json.loads(out)["written"]) == (0, written)
    assert "already complete" in run(capsys, "data", "make", "--root", root)[1]


def test_debug_shows_the_traceback() -> None:
    from nas.errors import StoreError

    with pytest.raises(StoreError):
        main(["pareto", "none.db", "--debug"])


def test_a_traceback_shows_control_characters_as_escapes() -> None:
    code = "from nas.cli.main import run; run()"
    argv = [sys.executable, "-c", code, "--debug", "pareto", "no\x1b]0;owned\x07\u202e.db"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback (most recent call last):" in done.stderr and "StoreError: there is no database" in done.stderr
    assert r"no\x1b]0;owned\x07\u202e.db" in done.stderr
    assert not {"\x1b", "\x07", "\u202e"} & set(done.stderr)


def test_unknown_commands_and_options_exit_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "serch")[0] == 2
    assert run(capsys, "pareto", "--colour")[0] == 2
