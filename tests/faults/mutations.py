"""Mutated study files and command lines, drawn by seed, and what the command line makes of them.

The tests try a few; `python -m tests.faults.mutations 1000 500` tries as many studies and command lines in a folder of
its own, and prints what it found.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from nas.cli.main import main
from nas.errors import LONGEST
from nas.study.schema import StudySchema
from tests.nas.studies import TINY, merged

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3, 7, 10**9, 10**12, 2**62, 2**64, -(2**64)),
    *(0.0, -0.5, 0.5, 1.5, 1e-300, 1e300, float("nan"), float("inf"), -float("inf")),
    *("", " ", "x", "none", "auto", "2d", "r3d_18", "1e-3", "1e3", "9" * 400, "x" * 300, "é" * 200),
    *("a\0b", "a\nb", "\x1b]0;x\x07", "[red]x[/red]", "%s%n", "'", '"', "\u202e"),
    *("../..", "/dev/zero", "/proc/self/mem", "pipe", "${data.root}", "${oc.env:NOTHING}", "${x"),
    *("macs <= 5G", "macs <= " + "9" * 60, "1|2|4", "1-1", "1-1-1-1-1-1-1-1", "0-0", "kind"),
    *("resnet", "timm", "slowfast"),
    *([], [None], [1, 2], [[1, 2], [3]], ["x"] * 50, [{}], [0.5, 0.1], [3, 2, 1], [1e300], [True], [-1]),
    list(range(300)),
    *({}, {"x": 1}, {"values": [1], "per": "block"}, {"values": 3, "per": "x"}, {1: 2}, {"": ""}),
    *({"family": "resnet"}, {"a": {"b": {"c": {}}}}),
)
TOKENS = (
    *("!!int 'x'", "!!timestamp 99", "!!binary '*'", "!!set {a}", "!!omap [a: 1]", "&a [*a]", "*b"),
    *("2020-01-01", "12:30:45", "0x1g", "<<: *a", "[" * 3000, "{" * 200, "- - - -", "\t", "\0", "%YAML 9"),
    *("---", "...", "? : ", "9" * 5000, "'", '"', "|", ">", "\ufeff", "\x80"),
)
COMMANDS = (
    ["space", "tiny.yaml"],
    ["space", "tiny.yaml", "data=other", "search.pool=5", "--json"],
    ["status", "tiny.yaml", "--trials"],
    ["status", "runs/tiny/study.db", "--json"],
    ["pareto", "tiny.yaml", "--db", "runs/tiny/study.db"],
    ["pareto", "tiny.yaml", "--expected"],
    ["show", "r3d_18"],
    ["show", "{preset: r3d_18, width: 0.5}", "--json"],
    ["show", "DIGEST", "--study", "tiny.yaml"],
    ["cost", "c3d", "--clip", "16x112x112", "--num-classes", "400"],
    ["diff", "r3d_18", "network.json"],
    ["path", "r3d_18", "r2plus1d_18"],
    ["presets", "--family", "resnet"],
    ["export", "tiny.yaml", "--table", "trials", "--csv"],
    ["compare", "runs/tiny/study.db", "runs/tiny/study.db"],
    ["ablate", "tiny.yaml", "--base", "r2d_18", "--dry-run"],
    ["versus", "r3d_18", "r2d_18", "--study", "tiny.yaml", "--seeds", "2", "--dry-run"],
    ["data", "check", "data/motion", "data.per_class=2"],
    # What could train is given a value besides that is always refused, or plans.
    ["search", "tiny.yaml", "search.sampler=tpe", "search.trials=0"],
    ["search", "tiny.yaml", "data=other", "--workers", "0", "search.trials=0"],
    ["promote", "tiny.yaml", "DIGEST", "promote.epochs=0"],
    ["promote", "tiny.yaml", "--best-under", "2G", "--seeds", "1", "promote.epochs=0"],
    ["promote", "runs/tiny/study.db", "--front", "promote.epochs=0"],
)
OPTIONS = (
    "--db",
    "--json",
    "--study",
    "--workers",
    "--seeds",
    "--clip",
    "--family",
    "--base",
    "--nothing",
    "-x",
    "--",
    "--ray",
)
TRAIN, PLAN = ("search", "promote"), ("ablate", "versus")
SETTINGS = ("space", *PLAN, *TRAIN)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command line came to.

    Attributes:
        argv: Its words.
        code: Exit code.
        error: Standard error.
        seconds: It took.
        faults: What must not be, in words; empty if nothing is wrong.
    """

    argv: Sequence[str]
    code: int
    error: str
    seconds: float
    faults: tuple[str, ...]


def full_study() -> dict[str, Any]:
    """A small study that states every key, so that any of them can be mutated."""
    stated = merged(asdict(StudySchema()), TINY)
    stated["ablation"] |= {
        "base": {"family": "resnet", "depth": "1-1", "stem_width": 8, "stem": "1x3x3/2"},
        "factors": {"kind": ["2d", "3d"], "recipe.lr": [0.1, 0.2]},
        "claims": [{"claim": "c", "document": "d", "arm": "kind=3d", "expect": "better", "stated": 1.0}],
    }
    stated["space"]["forbid"] = [{"kind": "3d", "kernel": 5}]
    stated["constraints"] = ["macs <= 5G"]
    stated["promote"]["recipe"] = {
        "epochs": 3,
        "warmup_epochs": 1,
        "phases": [{"epochs": 3, "frames": 4}],
        "init": {"mode": "centre"},
    }
    stated["search"]["start_with"] = [{"preset": "r3d_18", "width": 0.125}]
    stated["variants"] = {"other": {"data": {"name": "other", "clip": {"stride": 1}}}}
    return stated


def studies(seed: int, count: int) -> Iterator[bytes]:
    """Study files with one to three mutations each, of values and keys or of the text."""
    rng = random.Random(f"studies {seed}")
    for _ in range(count):
        study = full_study()
        for _ in range(rng.choice((1, 1, 2))):
            study = _mutated(study, rng)
        text = yaml.safe_dump(study, sort_keys=False, allow_unicode=rng.random() < 0.5)
        if rng.random() < 0.3:
            text = _mutated_text(text, rng)
        content = text.encode("utf-8", errors="surrogatepass")
        if rng.random() < 0.05:
            at = rng.randrange(len(content))
            content = content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
        yield content


def records(recorded: dict[str, Any], *, seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Recorded studies with one or two mutations each, as JSON can hold them."""
    rng = random.Random(f"records {seed}")
    for _ in range(count):
        config = _mutated(recorded, rng)
        config = _mutated(config, rng) if rng.random() < 0.3 else config
        yield json.loads(json.dumps(config))


def _mutated(study: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    study = copy.deepcopy(study)
    path = rng.choice(list(_paths(study)))
    at: Any = study
    for key in path[:-1]:
        at = at[key]
    match rng.randrange(6):
        case 0:
            del at[path[-1]]
        case 1 if isinstance(at, dict):
            at[f"{path[-1]}{rng.choice('sx. ')}"] = at.pop(path[-1])
        case 2:
            at[path[-1]] = [at[path[-1]]]
        case 3:
            other = study
            for key in rng.choice(list(_paths(study))):
                other = other[key]
            at[path[-1]] = copy.deepcopy(other)
        case _:
            at[path[-1]] = _hostile(at[path[-1]], rng)
    return study


def _hostile(old: Any, rng: random.Random) -> Any:
    """A value in the place of another: mostly of its own type, so that more than a check of types sees it."""
    alike = [value for value in HOSTILE if type(value) is type(old)]
    return copy.deepcopy(rng.choice(alike if alike and rng.random() < 0.7 else HOSTILE))


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from _paths(inner, (*path, key))


def _mutated_text(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            return text[: rng.randrange(len(text))]
        case 1:
            lines[at] = lines[at].partition(":")[0] + ": " + rng.choice(TOKENS)
        case 2:
            lines.insert(at, rng.choice(TOKENS))
        case _:
            lines[at] = rng.choice(("  ", "\t", "- ", "? ")) + lines[at]
    return "\n".join(lines)


def commands(seed: int, count: int, digest: str) -> Iterator[list[str]]:
    """Command lines with one to three mutated words each.

    Args:
        seed: Of what is drawn.
        count: How many.
        digest: Of a network in the database.
    """
    rng = random.Random(f"commands {seed}")
    stated = full_study()
    keys = {".".join(path): path for path in _paths(stated) if all(isinstance(key, str) for key in path)}
    broken = ["[" * 100, "{a:", "[1,2", "'x", "1,2", "été", "~x", "#", "a=b"]
    values = [str(value).replace("\0", "") for value in HOSTILE] + broken
    for _ in range(count):
        words = [digest[:10] if word == "DIGEST" else word for word in rng.choice(COMMANDS)]
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(words) + 1)
            match rng.randrange(6):
                case 0 if 0 < at < len(words):
                    words[at] = rng.choice(values)
                case 1 if 0 < at < len(words):
                    del words[at]
                case 2:
                    words.insert(max(1, at), rng.choice(OPTIONS))
                case 3 if 0 < at < len(words) and words[at]:
                    letters = list(words[at])
                    letters[rng.randrange(len(letters))] = rng.choice("x0=.-[]{}'\"~#%/\\ é")
                    words[at] = "".join(letters)
                case _ if words[0] in SETTINGS:
                    key = rng.choice(list(keys))
                    old: Any = stated
                    for part in keys[key]:
                        old = old[part]
                    value = rng.choice(values) if rng.random() < 0.3 else _written(_hostile(old, rng))
                    words.insert(max(2, at), f"{key}={value}".replace("\0", ""))
        if words[0] in TRAIN:  # whatever became of the others; the last of two goes first
            words = [word for word in words if word != "--"]
            words.append("search.trials=0" if words[0] == "search" else "promote.epochs=0")
        if words[0] in PLAN:
            words = [*(word for word in words if word not in ("--", "--dry-run")), "--dry-run"]
        yield words


def _written(value: Any) -> str:
    """A value as an override states it."""
    return str(value).replace("None", "null") if isinstance(value, list | dict) or value is None else str(value)


def tried(argv: Sequence[str], folder: Path) -> Outcome:
    """Runs a command line in this process, and looks for tracebacks, writes, and messages that are too long."""
    before = _content(folder)
    out, err = io.StringIO(), io.StringIO()
    faults = []
    began = time.perf_counter()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(list(argv))
        except BaseException as error:  # of any kind: that it came this far is the fault
            code = 3
            faults.append(f"traceback: {type(error).__name__}: {error}")
    seconds = time.perf_counter() - began
    errors = [line for line in err.getvalue().split("\n") if line.startswith("error: ")]
    if code == 3 and not faults:
        faults.append("traceback, in one line: " + " ".join(errors))
    if code == 2 and len(errors) != 1 and len(argv) > 1:
        faults.append(f"{len(errors)} lines of error")
    faults += [f"{len(line)} characters" for line in errors if len(line) > LONGEST]
    if _content(folder) != before:
        faults.append("a write")
    return Outcome(argv=argv, code=code, error=err.getvalue(), seconds=seconds, faults=tuple(faults))


def _content(folder: Path) -> dict[str, str]:
    """Every file and folder with a digest; what SQLite has beside an open database is no write of ours."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.name.endswith(("-wal", "-shm")):
            continue
        content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def make_world(folder: Path) -> str:
    """Writes a study, its data and a finished search into the working directory; returns a digest of the search."""
    from nas.store.database import Store
    from search_spaces import catalogue as presets
    from search_spaces import codec
    from trainer.data.motion_clips import make_motion

    make_motion(folder / "data" / "motion", train_per_class=2, val_per_class=1, test_per_class=1, frames=4, size=16)
    study = merged(
        TINY, {"search": {"trials": 2, "initial": 2, "rungs": [1]}, "variants": {"other": {"data": {"name": "other"}}}}
    )
    (folder / "tiny.yaml").write_text(yaml.safe_dump(study), "utf-8")
    (folder / "network.json").write_text(codec.dumps(presets.preset("mc3_18")), "utf-8")
    os.mkfifo(folder / "pipe")
    assert main(["search", "tiny.yaml"]) == 0
    assert main(["data", "check", "data/motion"]) == 0  # keeps what the headers say
    with Store(folder / "runs/tiny/study.db") as store:
        return str(store.trials(1)[0]["digest"])


STUDY_COMMANDS = (
    ["space", "STUDY"],
    ["ablate", "STUDY", "--dry-run"],
    ["space", "STUDY", "data=other", "--json"],
    ["versus", "r3d_18", "r2d_18", "--dry-run", "--study", "STUDY"],
)


def try_studies(folder: Path, seed: int, count: int) -> Iterator[Outcome]:
    """Gives mutated studies to commands that train nothing; `folder` is the working directory."""
    for number, content in enumerate(studies(seed, count)):
        (folder / "mutated.yaml").write_bytes(content)
        words = STUDY_COMMANDS[number % len(STUDY_COMMANDS)]
        yield tried(["mutated.yaml" if word == "STUDY" else word for word in words], folder)


def try_commands(folder: Path, digest: str, seed: int, count: int) -> Iterator[Outcome]:
    """Runs mutated command lines; `folder` is the working directory."""
    for words in commands(seed, count, digest):
        yield tried(words, folder)


def _run(num_studies: int, num_commands: int) -> int:
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        digest = make_world(folder)
        parts = {
            "studies": try_studies(folder, 0, num_studies),
            "command lines": try_commands(folder, digest, 0, num_commands),
        }
        for what, outcomes in parts.items():
            codes: dict[int, int] = {}
            slowest, total = 0.0, 0
            for number, outcome in enumerate(outcomes):
                total += 1
                codes[outcome.code] = codes.get(outcome.code, 0) + 1
                slowest = max(slowest, outcome.seconds)
                if outcome.faults or outcome.seconds > 20:
                    bad += 1
                    found = f"{outcome.faults} {outcome.seconds:.1f} s {outcome.error[-300:]!r}"
                    print(f"{what} {number}: {outcome.argv} {found}", flush=True)
            print(f"{total} {what}: exit codes {codes}, the slowest took {slowest:.1f} s", flush=True)
    print(f"{bad} with a traceback, a write, a message that is too long, or over 20 s")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(_run(*map(int, sys.argv[1:3])))
