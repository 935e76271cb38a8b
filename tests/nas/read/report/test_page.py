"""The page as text: nothing is loaded, nothing hostile runs, every state of a study makes sense."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nas.cli.main import main
from nas.errors import NasError
from nas.read.report.gather import gather
from nas.read.report.page import TEMPLATE, html, write_report
from nas.read.report.values import Report
from nas.store.database import Store
from tests.nas.read.report.generated import CLASSES, empty_study, full_study

HOSTILE = '</script></style><img src=x onerror="window.pwned=1"><!-- \'\\u003c/script>{{ 7 * 7 }}'


class Tags(HTMLParser):
    """Every start tag with the names of its attributes, the scripts, and all text outside of them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.attributes: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._raw = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.attributes += [(name, value or "") for name, value in attrs]
        self._raw = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._raw = ""

    def handle_data(self, data: str) -> None:
        if self._raw == "script":
            self.scripts[-1] += data
        elif not self._raw:
            self.text += data


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return gather(full_study(tmp_path_factory.mktemp("full") / "study.db", trials=45))


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return html(report)


def test_the_page_refers_to_nothing_outside_itself(page: str) -> None:
    tags = Tags(page)
    links = [value for name, value in tags.attributes if name in ("src", "href", "srcset", "poster", "action", "data")]
    assert links
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert not re.search(r"url\(|@import|//[a-z]", page.replace("// ", ""))
    assert "http" not in page.replace("http-equiv", "")
    (policy,) = [value for name, value in tags.attributes if name == "content" and "src" in value]
    assert policy.startswith("default-src 'none'; ")


@pytest.mark.slow
def test_500_trials_with_500_learning_curves_take_less_than_3_megabytes(tmp_path: Path) -> None:
    values = gather(full_study(tmp_path / "study.db", trials=500, rungs=(10, 30, 90)))
    assert len(values.curves) >= 488
    content = html(values)
    assert content.count("<polyline") > 488
    assert len(content.encode()) < 3_000_000


def test_every_section_of_a_full_study_has_its_content(report: Report, page: str) -> None:
    text = Tags(page).text
    for piece in (
        "Which temporal operator, in which layers",  # question
        "Decision rule",
        "Survivors of each rung",
        "3 epochs9 epochs14",  # networks that both rungs have
        "too few",
        "tpe",  # who proposed
        "came true within the interval",
        "deciding",
        "5.0\u00a0%",  # of its session
        "3d is better than 2d by 31.2 points",  # answer of the ablation
        "contradicted",
        "reversed",
        "kind × placement",
        "Confusion on test",
        "Means over seeds",
        "1,024",  # clips of train
        "it ends after 2 of 30 frames",  # a broken video
        "CUDA out of memory",
        "nas search studies/demo.yaml data=motion",
        "2.15.0",  # a version
        "2 cores, no GPU",
    ):
        assert piece in text, piece
    assert 'class="empty"' not in page
    sections = re.findall(r'<section id="(\w+)">', page)
    assert sections == re.findall(r'<a href="#(\w+)">', page)


def test_each_section_explains_itself_in_one_sentence(page: str) -> None:
    for section in page.split("<section ")[2:]:
        how = re.findall(r'<p class="how">(.*?)</p>', section, re.DOTALL)
        assert how, section[:40]
        assert all(sentence.strip().endswith(".") for sentence in how)


def test_the_panel_of_a_network_holds_what_was_stored(report: Report, page: str) -> None:
    payload = json.loads(Tags(page).scripts[0])
    assert [n["digest"] for n in payload["networks"]] == list(report.networks)
    for stored, network in zip(payload["networks"], report.networks.values(), strict=True):
        rows = []
        for place in stored["blocks"]:
            columns, *values = payload["blocks"][place]
            rows.append(dict(zip(payload["columns"][columns], values, strict=True)))
        assert rows == [dict(block) for block in network.blocks]
    assert len(payload["blocks"]) < sum(len(n["blocks"]) for n in payload["networks"]) / 2


def test_points_and_rows_name_the_network_that_they_stand_for(report: Report, page: str) -> None:
    digests = list(report.networks)
    front = re.findall(r'class="mark front" data-n="(\d+)" data-l="[^"]*" role="button" tabindex="0"', page)
    assert {digests[int(n)] for n in front} == {p.digest for p in report.front}
    expected = page.split("What the model expected")[1].split("</figure>")[0]
    marks = re.findall(
        r'class="mark (?:top|c1)" data-n="(\d+)" data-l="([^"]*)" role="button" tabindex="(-?\d)"', expected
    )
    numbers = {p.digest: p.number for p in report.points}
    assert len(marks) == 4
    assert all(f"trial {numbers[digests[int(n)]]} began" in label for n, label, _ in marks)
    assert [place for *_, place in marks] == ["0", "-1", "-1", "-1"]  # one is reached by Tab, the others from there
    buttons = re.findall(r'class="network" data-n="(\d+)"[^>]*><span>[^<]*</span> <code>(\w+)</code>', page)
    assert len(buttons) > 45
    assert all(digests[int(n)].startswith(digest) for n, digest in buttons)


def hostile(report: Report, text: str) -> Report:
    """The report with every text replaced that a study, its data or its failures bring in."""
    study = dict(report.study)
    study["name"] = text
    words = dict.fromkeys(("question", "hypothesis", "baseline", "decision_rule", "budget"), text)
    study["config"] = {**study["config"], **words, "constraints": [text], "recipe": {text: text}}
    broken = [{"path": text, "reason": text}]
    names = [text] * len(CLASSES)
    study["data"] = {**study["data"], "name": text, "root": text, "classes": names, "broken": broken}
    found = report.promotions[0]
    assert found.confusion is not None
    confusion = replace(found.confusion, classes=tuple(names))
    ablation = report.ablations[0]
    effects = tuple(replace(e, factor=text, level=text, reference=text) for e in ablation.effects)
    environment = {**report.sessions[0].environment, "system": text, "command": ["nas", "search", text]}
    return replace(
        report,
        study=study,
        database=text,
        networks={d: replace(n, description=text, note=text) for d, n in report.networks.items()},
        points=tuple(replace(p, settings={text: text}) for p in report.points),
        promotions=(replace(found, description=text, confusion=confusion, missing=text), *report.promotions[1:]),
        ablations=(replace(ablation, name=text, sentence=text, state=text, effects=effects),),
        verdicts=tuple(replace(v, claim=text, document=text, word=text) for v in report.verdicts),
        failures=tuple(replace(f, what=text, reason=text, detail=text) for f in report.failures),
        motions=tuple(replace(x, description=text, source=text) for x in report.motions),
        importances=tuple(replace(i, objective=text, factors=((text, 0.5),)) for i in report.importances),
        marginals=tuple(
            replace(x, factor=text, levels=tuple(replace(v, level=text) for v in x.levels)) for x in report.marginals
        ),
        sessions=tuple(replace(x, environment=environment) for x in report.sessions),
    )


def test_hostile_texts_stay_texts(report: Report) -> None:
    tags = Tags(html(hostile(report, HOSTILE)))
    assert not [tag for tag, _ in tags.tags if tag in ("img", "iframe", "object")]
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    data, script = tags.scripts
    assert script == (TEMPLATE / "script.js").read_text(encoding="utf-8")
    network = json.loads(data)["networks"][0]
    assert network["text"] == HOSTILE
    assert network["settings"] == {HOSTILE: HOSTILE}
    assert tags.text.count(HOSTILE) > 60


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda t: t.strip()))
def test_no_text_changes_the_tags_of_the_page(report: Report, text: str) -> None:
    small = replace(report, points=report.points[-6:], curves=report.curves[:3])
    assert Tags(html(hostile(small, text))).tags == Tags(html(hostile(small, "x"))).tags


@pytest.mark.parametrize("config", [None, {}])
def test_a_study_that_nothing_has_happened_to_says_what_fills_each_section(
    tmp_path: Path, config: dict[str, Any] | None
) -> None:
    store, _ = empty_study(tmp_path / "study.db")
    values = gather(store, database="runs/demo/study.db")
    if config is not None:
        values = replace(values, study={**values.study, "config": config, "data": {}})
    content = html(values)
    empty = re.findall(r'<p class="empty">(.*?)</p>', content)
    assert len(empty) == 11
    told = " ".join(empty)
    for command in ("nas search", "nas importance", "nas ablate", "nas verdict", "nas motion", "nas promote"):
        assert f"<code>{command} " in told, command
    assert content.count("<circle") == 0


def test_where_importances_need_more_networks_the_page_does_not_advise_to_compute_them(tmp_path: Path) -> None:
    values = gather(full_study(tmp_path / "study.db", trials=8))
    few = replace(values, importances=())
    told = Tags(html(few)).text
    assert "Importances need 20 networks with settings at one rung, and the most that a rung has is 8" in told
    assert "have not been computed" not in told
    many = replace(few, points=few.points * 5)
    assert "Importances have not been computed" in Tags(html(many)).text


def test_a_search_that_has_just_begun_says_so(tmp_path: Path) -> None:
    values = gather(full_study(tmp_path / "study.db", trials=8))
    running = replace(values, states={"running": 2, "stopped": 6}, points=(), curves=(), steps=())
    assert "The search is not finished: 8 networks of 8 begun, 2 under way" in Tags(html(running)).text
    assert "is not finished" not in html(values)


def test_many_classes_become_a_list_of_those_that_are_taken_for_each_other(tmp_path: Path) -> None:
    classes = [f"class {i}" for i in range(60)]
    content = html(gather(full_study(tmp_path / "study.db", trials=8, classes=classes)))
    assert 'class="matrix"' not in content
    assert '<tr><td>class 0</td><td>class 1</td><td class="num">2</td>' in content


def test_the_command_writes_beside_the_database_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full_study(tmp_path / "study.db", trials=8).close()
    assert main(["report", str(tmp_path / "study.db")]) == 0
    assert f"report: {tmp_path / 'report.html'} (0.1 MB)" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "study.db"), "-o", str(tmp_path / "new" / "a.html")]) == 0
    assert (tmp_path / "new" / "a.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_page_cannot_overwrite_the_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    full_study(tmp_path / "study.db", trials=8).close()
    before = (tmp_path / "study.db").read_bytes()
    assert main(["report", str(tmp_path / "study.db"), "-o", str(tmp_path / "study.db")]) == 2
    assert "must end in .html" in capsys.readouterr().err
    assert (tmp_path / "study.db").read_bytes() == before


def test_a_missing_database_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "none.db")]) == 2
    assert "there is no database" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_page_that_cannot_be_written_leaves_nothing_behind(report: Report, tmp_path: Path) -> None:
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(NasError, match=r"taken\.html cannot be written"):
        write_report(report, tmp_path / "taken.html")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.html"]


def test_a_new_page_takes_the_place_of_an_old_one_whole(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old", encoding="utf-8")
    assert write_report(report, path) == path.stat().st_size > 50_000
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_report_with_networks_of_every_family_imports_no_torch(tmp_path: Path) -> None:
    full_study(tmp_path / "study.db", trials=8).close()
    code = (
        "import sys\nfrom nas.cli.main import main\n"
        f"assert main(['report', {str(tmp_path / 'study.db')!r}]) == 0\n"
        "heavy = {'torch', 'torchvision', 'timm', 'optuna', 'scipy', 'pandas', 'statsmodels'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_parts_of_the_page_are_installed_with_the_package() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["nas"]
    root = TEMPLATE.parents[2]
    installed = {path for pattern in patterns for path in root.glob(pattern)}
    assert set(TEMPLATE.iterdir()) <= installed
    assert any(line.startswith("jinja2") for line in project["project"]["dependencies"])


def test_an_older_database_is_read(tmp_path: Path) -> None:
    import shutil

    old = Path(__file__).parents[3] / "golden" / "databases" / "schema_1.db"
    shutil.copy(old, tmp_path / "study.db")
    store = Store(tmp_path / "study.db")
    page = html(gather(store))
    assert page.startswith("<!doctype html>")
    assert "What the model expected" not in page and "deciding" not in page  # there was no model
    assert "Who proposed them" in page
