"""The texts against the program: keys and defaults, commands, studies, queries and links."""

from __future__ import annotations

import dataclasses
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from nas.cli.main import app
from nas.store.database import Store
from nas.study.files import load_study
from nas.study.schema import StudySchema, keys_of
from search_spaces.catalogue import FAMILIES
from trainer.settings import declared

ROOT = Path(__file__).parents[3]
TEXTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
USERS = [path for path in TEXTS if path.name == "README.md" or path.parent.name == "docs"]
TYPES = {"text": str, "integer": int, "number": float, "true/false": bool, "list": list, "map": dict}
TYPES |= {"number or null": type(None), "true/false or null": type(None)}  # by their default


def text_of(paths: list[Path]) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


def blocks(language: str) -> list[Any]:
    """Every fenced block of a language, named by its file and number."""
    found = []
    for path in TEXTS:
        fenced = re.findall(r"^```(\w*)\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        bodies = [body for name, body in fenced if name == language]
        found += [pytest.param(body, id=f"{path.name}-{i}") for i, body in enumerate(bodies)]
    return found


def leaves(schema: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a study file by its dotted path, with its default."""
    for field in dataclasses.fields(schema):
        value = getattr(schema, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def commands() -> set[str]:
    """Every command as it is typed, without the leading `nas`."""
    group = typer.main.get_command(app)
    names = set()
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        names |= {f"{name} {inner}" for inner in below} if below else {name}
    return names


def test_every_key_of_a_study_stands_in_its_table() -> None:
    tables = re.findall(
        r"^\| key \| type \| default \| meaning \|\n\|[-|]+\|\n((?:\|.*\n)+)",
        (ROOT / "docs" / "studies.md").read_text("utf-8"),
        re.MULTILINE,
    )
    rows = "".join(tables).splitlines()
    assert sorted(rows) == sorted(key.row for key in keys_of())


def test_keys_are_shown_with_the_type_and_default_that_they_have() -> None:
    shown = {key.name: (TYPES[key.kind.split(",")[0]], yaml.safe_load(key.default)) for key in keys_of()}
    assert shown == {key: (type(default), default) for key, default in leaves(StudySchema())}


def test_the_meaning_of_a_key_names_all_of_its_choices() -> None:
    parts = {name: type(part) for name, part in vars(StudySchema()).items() if dataclasses.is_dataclass(part)}
    lists: list[tuple[type, str]] = [(StudySchema, ""), *((of, f"{name}.") for name, of in parts.items())]
    marks = {f"{place}{name}": mark for of, place in lists for name, mark in declared(of).items() if mark.choices}
    assert {"data.sampling", "recipe.loss", "search.scheduler", "ablation.design"} <= set(marks)
    default = {key.name: key.default for key in keys_of()}
    for name, mark in marks.items():
        left = [choice for choice in map(str, mark.choices) if not re.search(rf"\b{choice}\b", mark.text)]
        assert set(left) <= {default[name], "none"}, name


def test_every_command_is_named_for_users() -> None:
    text = text_of(USERS)
    assert commands()
    assert not [name for name in commands() if f"nas {name}" not in text]


def test_the_texts_name_no_command_that_is_not_there() -> None:
    groups = {name.split()[0] for name in commands()}
    fenced = "\n".join(body.values[0] for body in blocks(""))
    code = re.findall(r"`nas (\w+)", text_of(TEXTS)) + re.findall(r"^nas (\w+)", fenced, re.MULTILINE)
    assert len(code) > 20
    assert set(code) <= groups


def test_the_texts_name_no_target_that_make_does_not_know() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)(?:\w+=\S+ )?make ([\w-]+)", text_of(TEXTS), re.MULTILINE))
    assert "test" in named
    assert named <= targets


@pytest.mark.parametrize("body", [b for b in blocks("yaml") if b.values[0].startswith("name:")])
def test_a_study_in_the_texts_can_be_read(body: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(body, encoding="utf-8")
    study = load_study(path)
    assert study.num_classes
    assert study.space.size().networks > study.search.trials


@pytest.mark.parametrize("body", blocks("sql"))
def test_a_query_in_the_texts_runs_on_an_empty_database(body: str, tmp_path: Path) -> None:
    Store(tmp_path / "study.db", create=True).close()
    plain = sqlite3.connect(tmp_path / "study.db")
    try:
        assert plain.execute(body).description
    finally:
        plain.close()


def test_every_table_is_described(tmp_path: Path) -> None:
    Store(tmp_path / "study.db", create=True).close()
    plain = sqlite3.connect(tmp_path / "study.db")
    try:
        tables = {row[0] for row in plain.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        columns = [row[1] for row in plain.execute("PRAGMA table_info(pareto_front)")]
    finally:
        plain.close()
    text = (ROOT / "docs" / "database.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(nas_\w+)`", text, re.MULTILINE)) == tables
    assert ", ".join(f"`{name}`" for name in columns) in text


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\[[^\]]+\]\(([^)\s]+)\)", path.read_text(encoding="utf-8"))
    inside = [link.split("#")[0] for link in links if not re.match(r"https?:|#", link)]
    assert not [link for link in inside if not (path.parent / link).is_file()]


def test_files_that_the_guide_for_contributors_names_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    text = re.sub(r"```python.*?```", "", text, flags=re.DOTALL)  # a file that somebody would add
    named = re.findall(r"\b((?:nas|search_spaces|trainer|tests|docs|benchmarks)/[\w/]+\.(?:py|md))\b", text)
    assert len(named) > 20
    assert not [name for name in named if not (ROOT / name).is_file()]
    tests = text_of(sorted((ROOT / "tests").rglob("test_*.py")))
    assert not [name for name in re.findall(r"`(test_\w+)`", text) if f"def {name}(" not in tests]


def test_every_domain_of_every_family_is_explained() -> None:
    networks, studies = ((ROOT / "docs" / name).read_text("utf-8") for name in ("networks.md", "studies.md"))
    sections = {part.split("\n", 1)[0]: part for part in networks.split("\n### ")[1:]}
    for family in FAMILIES.values():
        rows = [line for line in sections[family.name].splitlines() if line.startswith("| ")]
        explained = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
        if family.name == "resnet":
            explained |= set(re.findall(r"^\| (\w+) \|", studies, re.MULTILINE))
        assert set(family.domains.scopes) <= explained, family.name
