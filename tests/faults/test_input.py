"""Hostile study files, overrides and file names: one line, exit code 2, and no more than 500 characters."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from nas.cli.main import main
from nas.errors import LONGEST, NasError, StudyError, one_line
from nas.read.plots import draw_bands, draw_front
from nas.store.database import Store
from nas.study.files import apply_promote, load_study
from nas.study.study import study_of
from nas.use.probabilities import check_videos_file, write_arrays
from tests.faults import mutations
from tests.nas.studies import TINY, write_study
from trainer.data.layouts import DataError
from trainer.data.layouts.definitions import write_exclude
from trainer.files import content_of, write_whole

LAUGHS = "variants:\n  a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"  {chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)
STUDIES = [
    ("question: !!timestamp 99", ":45 must be YAML: a value cannot be read as timestamp"),
    ("question: !!int 'x'", ":45 must be YAML: a value cannot be read as int"),
    ("question: !!bool x", ":45 must be YAML: a value cannot be read as bool"),
    ("question: !!python/object:os.system x", "could not determine a constructor for the tag"),
    ("question: 2020-01-01", "question must be text, a number, a list or keys, but is date 2020-01-01"),
    ("question: !!binary aGVsbG8=", "question must be text, a number, a list or keys, but is bytes"),
    ("variants: !!set {a, b}", "variants must be text, a number, a list or keys, but is set"),
    ("budget: " + "9" * 4301, "a value cannot be read as int"),
    ("budget: " + "9" * 4299, "budget: a whole number must be below 2^63, but has 14281 bits"),
    ("budget: " + "[" * 3000 + "]" * 3000, "YAML must have at most 20 levels of lists and keys"),
    ("constraints: &a [*a]", "must have at most 20 levels and 100,000 values"),
    ("ablation: &a {factors: *a}", "must have at most 20 levels and 100,000 values"),
    (LAUGHS, "must have at most 20 levels and 100,000 values"),
    ("variants: text", "variants must hold a name and keys for each variant, but is 'text'"),
    ("variants: [1]", "variants must hold a name and keys for each variant, but is [1]"),
    ("variants: {a: text}", "the file must hold keys"),
    ("promote: {recipe: {warmup_epochs: [1]}}", "promote.recipe.warmup_epochs must be a number, but is [1]"),
    ("promote: {recipe: {batch_size: 1.5}}", "promote.recipe.batch_size must be a whole number, but is 1.5"),
    ("promote: {recipe: {init: {mode: [1]}}}", "promote.recipe.init.mode must be text, but is [1]"),
    ("promote: {recipe: {phases: [{epochs: {}}]}}", "promote.recipe.phases.epochs must be a whole number, but is {}"),
    ("promote: {recipe: {steps: {a: 1}}}", "promote.recipe.steps must be a list, but is {'a': 1}"),
    ("promote: {seeds: 1000000000000}", "promote.seeds must be at most 1,000,000,000"),
    ("data: null", "data"),
    ("budget: ${budget}", "budget"),
]


@pytest.mark.parametrize(("text", "message"), STUDIES, ids=[text[:40] for text, _ in STUDIES])
def test_a_hostile_study_gets_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "tiny.yaml"
    key = text.partition(":")[0]
    path.write_text(yaml.safe_dump({k: v for k, v in TINY.items() if k != key}) + text + "\n", encoding="utf-8")
    content = yaml.safe_dump({k: v for k, v in TINY.items() if k != key})
    line = content.count("\n") + 1
    assert main(["space", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert len(error.strip()) <= LONGEST
    assert message.replace(":45", f":{line}") in error


FILES = ["/dev/zero", "/proc/self/mem", "pipe", "pipe.json", ".", "n" * 300, "n" * 300 + ".json", "n" * 300 + ".db"]


@pytest.mark.parametrize("name", FILES, ids=[name[:20] + name[-5:] for name in FILES])
@pytest.mark.parametrize("command", [["space"], ["status"], ["show"], ["diff", "r3d_18"], ["promote", "tiny.yaml"]])
def test_what_is_no_file_is_refused_and_not_waited_for(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path / "tiny.yaml")
    for pipe in ("pipe", "pipe.json"):
        os.mkfifo(pipe)
    assert main([*command, name]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert len(error.strip()) <= LONGEST


NO_DATABASE = ["pipe", "folder", "/dev/zero"]


@pytest.mark.parametrize("name", NO_DATABASE)
@pytest.mark.parametrize("command", [["status"], ["search"], ["ablate", "--base", "r3d_18"], ["report"]], ids=" ".join)
def test_a_database_that_is_no_file_is_refused_before_anything_else(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path / "tiny.yaml")
    os.mkfifo("pipe")
    (tmp_path / "folder").mkdir()
    there = sorted(tmp_path.iterdir())
    assert main([command[0], "tiny.yaml", *command[1:], "--db", name]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: a database must be a file such as") and error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == there


def _export(path: Path) -> None:
    if main(["export", str(path.parent / "study.db"), "--table", "front", "--csv", "-o", str(path)]):
        raise NasError("refused")


WRITERS: dict[str, Callable[[Path], object]] = {
    "export": _export,
    "features": lambda path: write_arrays(path, {}),
    "videos": check_videos_file,
    "exclude": lambda path: write_exclude(path, []),
    "front": lambda path: draw_front({"name": "a"}, [], [{"epochs": 1}], path),
    "bands": lambda path: draw_bands([], [], path),
    "whole": lambda path: write_whole(path, b"new"),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("what", ["database", "pipe", "folder"])
def test_no_output_takes_the_place_of_a_database_or_a_device(tmp_path: Path, writer: str, what: str) -> None:
    """A file that is renamed over the null device, as root, is the end of the null device."""
    place = tmp_path / {"videos": "a.csv", "front": "a.html", "bands": "a.html"}.get(writer, "a.db")
    with Store(tmp_path / "study.db", create=True) as store:
        store.add_study(name="demo", seed=0, clip="8x32x32", num_classes=4, config={}, data={})
    if what == "database":
        shutil.copy(tmp_path / "study.db", place)
    elif what == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    before = place.stat().st_mode, place.read_bytes() if what == "database" else b""
    with pytest.raises((OSError, NasError, DataError)):
        WRITERS[writer](place)
    assert before == (place.stat().st_mode, place.read_bytes() if what == "database" else b"")
    assert {path.name for path in tmp_path.iterdir()} <= {"study.db", "study.db-wal", "study.db-shm", place.name}


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"12345")
    assert content_of(tmp_path / "list.txt", largest=5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        content_of(tmp_path / "list.txt", largest=4)
    with pytest.raises(OSError, match="null character"):
        content_of("a\0b")


PATHS = [
    "/data/été",
    "my data (1)",
    "a=b",
    "it's",
    "~x",
    "#",
    "1e3",
    "null",
    "true",
    "a,b",
    "[x",
    "{a: b}",
    "${oc.env:HOME}",
    "\\${x}",
    "C:\\videos",
    " ",
]


@pytest.mark.parametrize("value", PATHS)
def test_a_text_is_taken_as_it_was_typed(tmp_path: Path, value: str) -> None:
    path = write_study(tmp_path / "tiny.yaml")
    for key in ("data.root", "question", "data.definition"):
        assert load_study(path, [f"{key}={value}"]).config[key.split(".")[0]] in (
            value,
            {**load_study(path).config["data"], key.partition(".")[2]: value},
        )
    # As a shell gives back what was printed to be pasted; and from a record.
    pasted = shlex.split(shlex.join([f"data.root={value}"]))
    recorded = load_study(path, pasted).config
    assert study_of(apply_promote(recorded, ["promote.epochs=7"]), "test").data.root == value
    assert load_study(path, [f"data.root='{value}'"]).data.root == value


def test_a_text_below_any_key_is_taken_as_it_was_typed(tmp_path: Path) -> None:
    path = write_study(tmp_path / "tiny.yaml")
    config = load_study(path, ["promote.recipe.optimizer=1e3", "ablation.base=1234e567", "ablation.to={preset: c3d}"])
    assert config.promote.recipe.optimizer == "1e3"
    assert config.config["ablation"]["base"] == "1234e567"
    assert config.config["ablation"]["to"] == {"preset": "c3d"}
    assert load_study(path, ["recipe.lr=1e-2"]).recipe.lr == 0.01


def test_a_long_message_keeps_its_rule_and_its_place() -> None:
    text = "name must be letters, but is " + "x" * 5000 + " (in tiny.yaml)"
    line = one_line(text)
    assert len(line) == LONGEST
    assert line.startswith("name must be letters, but is xxx") and line.endswith("xxx (in tiny.yaml)")


def test_a_fault_of_ours_is_one_line_and_a_traceback_with_debug(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("nothing")

    monkeypatch.setattr("nas.study.files.load_study", broken)
    path = str(write_study(tmp_path / "tiny.yaml"))
    assert main(["space", path]) == 3
    error = capsys.readouterr().err
    assert error.startswith("error: a fault of nas, KeyError at test_input.py:") and error.count("\n") == 1
    with pytest.raises(KeyError):
        main(["space", path, "--debug"])


def test_a_second_interrupt_ends_at_once_and_in_one_line() -> None:
    code = (
        # Who starts the tests in the background has interrupts ignored, and so would this process.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import sys, time\nimport nas.cli.main as m\n"
        "def slow(*a, **k):\n"
        "    try:\n        print('ready', flush=True); time.sleep(600)\n"
        "    finally:\n        print('ending', flush=True); time.sleep(600)\n"
        "m.app = slow\nm.run()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "ending\n"
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 130
    assert error == "stopped at once; all that was recorded is kept\n"


def test_mutated_studies_and_command_lines_leave_one_line_and_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short run of `python -m tests.faults.mutations 1000 500`, on other draws."""
    monkeypatch.chdir(tmp_path)
    digest = mutations.make_world(tmp_path)
    outcomes = [*mutations.try_studies(tmp_path, 1, 60), *mutations.try_commands(tmp_path, digest, 1, 40)]
    assert [(list(outcome.argv), outcome.faults, outcome.error) for outcome in outcomes if outcome.faults] == []
    assert {outcome.code for outcome in outcomes} == {0, 2}


def test_a_fault_that_the_mutations_would_find_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text("question: !!int x\n" + yaml.safe_dump(TINY), "utf-8")
    argv = ["space", "tiny.yaml"]
    assert mutations.tried(argv, tmp_path).faults == ()

    def broken(*_: object) -> None:
        (tmp_path / "trace").write_text("x")
        raise KeyError("nothing")

    monkeypatch.setattr("nas.study.files.load_study", broken)
    assert [fault.partition(":")[0] for fault in mutations.tried(argv, tmp_path).faults] == [
        "traceback, in one line",
        "a write",
    ]


def test_a_record_that_was_edited_by_hand_is_a_study_or_one_error(tmp_path: Path) -> None:
    """What a database holds of a study is checked as its file is, however it came to be other than it was written."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(mutations.full_study()), "utf-8")
    recorded = load_study(path).config
    refused = 0
    for config in mutations.records(dict(recorded), seed=0, count=400):
        try:
            study_of(config, "a database")
        except StudyError:
            refused += 1
    assert 100 < refused < 400


COMMAND = "import sys; from nas.cli.main import run; sys.argv = ['nas', 'presets']; run()"


@pytest.mark.parametrize("shell", ["| true", ">&-", "2>&-"])
def test_who_reads_no_further_is_no_fault(shell: str) -> None:
    """Exit code 1 says that a check has found something, and 3 that nas has a fault."""
    line = f"set -o pipefail; {shlex.quote(sys.executable)} -c {shlex.quote(COMMAND)} {shell}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
