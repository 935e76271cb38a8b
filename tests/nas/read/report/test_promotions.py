"""Promotions of one network: what differs in more than the seed is never averaged, and is told apart."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from sqlalchemy import text as text_of

from nas.cli.main import main
from nas.read.report.gather import gather
from nas.read.report.page import html, means_over_seeds
from nas.store.database import Store
from nas.train.recipe_names import recipe_lines, told_apart
from tests.nas.read.report.generated import full_study, promote_again

ROOT = Path(__file__).parents[4]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A study whose one network was promoted with two seeds (94 % and 95 % on test)."""
    return full_study(tmp_path / "study.db", trials=8)


def means(store: Store) -> list[tuple[str, int, float]]:
    """Digits of the recipe, seeds and mean on test, as the report has them."""
    rows = means_over_seeds(gather(store).promotions)
    return [(row["recipe"][:6], row["seeds"], round(row["mean"], 4)) for row in rows if row["split"] == "test"]


def queried(store: Store) -> list[tuple[str, int, float]]:
    """The same by the query of the guide; of one seed, too."""
    text = (ROOT / "docs" / "database.md").read_text("utf-8")
    (query,) = re.findall(r"Promoted networks.*?```sql\n(.*?)```", text, re.DOTALL)
    rows = store.rows(text_of(query))
    return [(row["recipe"], row["seeds"], round(row["accuracy"], 4)) for row in rows if row["split"] == "test"]


def test_another_recipe_is_no_seed(store: Store) -> None:
    assert means(store) == queried(store) == [("cdcdcd", 2, 0.945)]
    promote_again(store, lr=0.02, top1=0.5)
    assert means(store) == [("cdcdcd", 2, 0.945)]
    assert sorted(queried(store)) == [("cdcdcd", 2, 0.945), ("efefef", 1, 0.5)]
    promote_again(store, lr=0.02, seed=1, top1=0.6)
    assert sorted(means(store)) == sorted(queried(store)) == [("cdcdcd", 2, 0.945), ("efefef", 2, 0.55)]


def test_other_views_are_no_seed(store: Store) -> None:
    promote_again(store, views="10x3", seed=7, top1=0.99)
    assert means(store) == [("cdcdcd", 2, 0.945)]
    assert sorted(queried(store)) == [("cdcdcd", 1, 0.99), ("cdcdcd", 2, 0.945)]


def test_recipes_are_told_apart_where_a_network_had_two(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def shown(*argv: str) -> str:
        capsys.readouterr()
        assert main(["status", str(tmp_path / "study.db"), *argv]) == 0
        return capsys.readouterr().out

    assert told_apart(store.promotions(1)) == {}
    assert " recipe " not in shown() and ">recipe</th>" not in html(gather(store))
    assert json.loads(shown("--json"))["recipes"] == {}
    promote_again(store, lr=0.02, top1=0.5)
    assert recipe_lines(told_apart(store.promotions(1))) == ["recipe cdcdcd: lr 0.003", "recipe efefef: lr 0.02"]
    page = html(gather(store))
    for text in (shown(), page):
        assert "recipe cdcdcd: lr 0.003" in text and "recipe efefef: lr 0.02" in text
    assert page.count(">recipe</th>") == 2
    assert "promotion, 60 epochs, seed 0, recipe efefef" in page
    told = json.loads(shown("--json"))
    assert {row["recipe_digest"] for row in told["promotions"]} == set(told["recipes"])


def test_a_latex_table_names_the_recipe_where_it_has_to(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for lr, head in ((None, 0), (0.02, 1)):
        if lr is not None:
            promote_again(store, lr=lr, top1=0.5)
        capsys.readouterr()
        assert main(["export", str(tmp_path / "study.db"), "--table", "promotions", "--latex"]) == 0
        out = capsys.readouterr().out
        assert [out.count("& recipe"), out.count(r"\texttt{efefefefef}")] == [head, 2 * head]


def test_other_epochs_alone_need_no_column_of_their_own() -> None:
    usual = {"digest": "a", "recipe": {"lr": 0.1, "epochs": 2}, "recipe_digest": "aa", "epochs": 2}
    longer = {**usual, "recipe": {"lr": 0.1, "epochs": 3}, "recipe_digest": "bb", "epochs": 3}
    assert told_apart([usual, longer]) == {}
    # A key that an earlier version did not record has its default.
    newer = {**usual, "recipe": {"lr": 0.1, "epochs": 2, "aux_weight": 0.2}, "recipe_digest": "cc"}
    assert list(told_apart([usual, newer])) == ["aa", "cc"]
    assert told_apart([usual, newer])["cc"] == "aux_weight 0.2"
