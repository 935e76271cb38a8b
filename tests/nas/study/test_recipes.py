"""The recipes in the texts can be read, and mean what the papers did."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nas.study.files import load_study
from tests.nas.studies import write_study
from trainer.optim import lr_at
from trainer.recipe import Phase, Recipe

TEXT = Path(__file__).parents[3] / "docs" / "recipes.md"
OVERLAYS = [yaml.safe_load(body) for body in re.findall(r"^```yaml\n(.*?)^```", TEXT.read_text("utf-8"), re.M | re.S)]


def recipes(tmp_path: Path) -> list[Recipe]:
    def read(overlay: dict[str, Any]) -> Recipe:
        return load_study(write_study(tmp_path / "tiny.yaml", {"promote": overlay})).promote.recipe

    return [read(overlay) for overlay in OVERLAYS]


def test_the_recipes_of_the_papers_can_be_read(tmp_path: Path) -> None:
    p3d, r2plus1d, s3d, moments = recipes(tmp_path)
    ends = [lr_at(p3d, epoch=epoch, step=0, num_steps=750) for epoch in (1, 4, 5, 8, 9, 10)]
    assert ends == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
    assert r2plus1d.phases == (Phase(epochs=30, frames=8), Phase(epochs=15, frames=32, lr=0.001))
    assert (s3d.momentum, s3d.aux_weight, s3d.batch_size) == (0, 0.4, 5)
    assert (moments.loss, moments.bce_scale, moments.steps) == ("bce", 160, (10, 20))
