"""What a checkpoint says of its data and its recipe, read back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.train.source import _data_of, _recipe_of
from trainer.config import Clip, ConfigError, DataConfig
from trainer.recipe import Recipe

SHARE = st.floats(0.01, 1)
CONFIGS = st.builds(
    DataConfig,
    clip=st.builds(Clip, frames=st.integers(2, 64), height=st.integers(8, 64), width=st.integers(8, 64)),
    sampling=st.sampled_from(["dense", "uniform"]),
    flip=st.booleans(),
    crop_scale=st.none() | SHARE.map(lambda low: (low, 1.0)),
    randaugment=st.none() | st.just((2, 9)),
    mean=st.tuples(SHARE, SHARE, SHARE),
    share=SHARE,
    fps=st.sampled_from([0.0, 12.5, 1e-05]),
    definition=st.sampled_from(["", "classes:a,b", "None of (these)"]),
    crop=st.none() | st.just((48, 56)),
)


def texts(values: dict[str, Any], place: str) -> dict[str, str]:
    return {f"{place}{name}": str(value) for name, value in values.items()}


@given(config=CONFIGS)
def test_the_data_of_a_run_is_that_of_its_checkpoint(config: DataConfig) -> None:
    assert _data_of(texts(config.identity(), "data."), DataConfig()) == config


def test_where_videos_lie_and_what_they_are_called_is_not_the_checkpoints_to_say() -> None:
    where = DataConfig(name="here", root="/videos", num_workers=2)
    other = DataConfig(name="there", root="/other", flip=True)
    assert _data_of({**texts(other.identity(), "data."), "data.root": "/other"}, where) == replace(where, flip=True)


def test_of_a_recipe_an_evaluation_takes_what_it_depends_on() -> None:
    trained = Recipe(batch_size=5, precision="fp32", channels_last=False, lr=1.0)
    assert _recipe_of(texts(trained.identity(), "recipe."), Recipe(lr=0.5)) == replace(trained, lr=0.5)


@pytest.mark.parametrize(
    ("name", "text"), [("flip", "yes"), ("short_side", "1.5"), ("clip", "{'frame': 3}"), ("mean", "(a, b, c)")]
)
def test_a_text_that_no_value_has_is_refused(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.{name} of a checkpoint must be a value of its type"):
        _data_of({f"data.{name}": text}, DataConfig())
