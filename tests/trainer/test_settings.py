"""Settings: ranges and choices of fields, stated once and checked."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from math import inf, nan
from typing import Any, Literal

import pytest

from trainer.config import Clip, ConfigError, DataConfig
from trainer.recipe import Init, Phase, Recipe
from trainer.settings import declared, faults, setting, values_of


@dataclass(frozen=True, kw_only=True)
class Some:
    count: int = setting(1, "A count.", at_least=1, at_most=1_000)
    rate: float = setting(0.5, "A rate.", above=0)
    share: float | None = setting(None, "A share.", at_least=0, below=1)
    way: Literal["up", "down"] = setting("up", "A way.", added=True)
    crops: int = setting(1, "Crops.", choices=(1, 3))
    names: list[str] = setting([], "Names.")
    other: int = field(default=-5)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"count": 0}, "a.count must be at least 1, but is 0"),
        ({"count": 1_001}, "a.count must be at most 1,000, but is 1001"),
        ({"rate": 0.0}, "a.rate must be above 0, but is 0.0"),
        ({"rate": inf}, "a.rate must be finite and above 0, but is inf"),
        ({"rate": nan}, "a.rate must be finite and above 0, but is nan"),
        ({"share": 1.0}, "a.share must be in [0, 1), but is 1.0"),
        ({"share": nan}, "a.share must be in [0, 1), but is nan"),
        ({"way": "left"}, "a.way must be one of up, down, but is left"),
        ({"crops": 2}, "a.crops must be one of 1, 3, but is 2"),
    ],
)
def test_a_value_out_of_range_gives_one_line(values: dict[str, Any], line: str) -> None:
    assert list(faults(Some, values_of(Some(**values)), "a.")) == [line]


@pytest.mark.parametrize("values", [{}, {"count": 1_000}, {"rate": 1e-300}, {"share": 0.0}, {"crops": 3}, {"other": 7}])
def test_a_value_at_its_bound_is_good(values: dict[str, Any]) -> None:
    assert not list(faults(Some, values_of(Some(**values)), "a."))


def test_a_default_that_can_be_changed_is_its_objects_own() -> None:
    Some().names.append("a")
    assert Some().names == []


@pytest.mark.parametrize("of", [Clip, DataConfig, Init, Phase, Recipe])
def test_every_field_of_a_configuration_says_what_it_means(of: type) -> None:
    marks = declared(of)
    assert list(marks) == [one.name for one in fields(of)]
    assert all(mark.text[0].isupper() or mark.text[0] in "`2" for mark in marks.values())
    assert all(mark.text.endswith(".") for mark in marks.values())


def test_what_came_later_leaves_identities_as_they_were() -> None:
    assert "loss" not in Recipe().identity()
    assert Recipe(loss="bce").identity()["loss"] == "bce"
    assert "share" not in DataConfig().identity()
    assert DataConfig(share=0.5).identity()["share"] == 0.5


def test_bounds_are_checked_where_objects_are_made() -> None:
    with pytest.raises(ConfigError, match=r"data\.eval_crops must be one of 1, 3, but is 2"):
        DataConfig(eval_crops=2)
    with pytest.raises(ConfigError, match=r"recipe\.init\.mode must be one of replicate"):
        Init(mode="twice")  # type: ignore[arg-type]
