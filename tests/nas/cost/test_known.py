"""Costs without torch: from values for our own networks, from what is remembered for those of timm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from nas.cost.meta import measured
from search_spaces.catalogue import links
from search_spaces.families.timm.family import make_timm

OURS = """
import json, random, sys
from nas.cost.cost import cost
from search_spaces.catalogue import FAMILIES
from search_spaces.catalogue import PRESETS, preset
from search_spaces.space import parse_space
for family in FAMILIES.values():
    if family.name == "timm":
        continue
    space, rng = parse_space({"families": {family.name: family.sample()}}), random.Random(0)
    frames, height, width = family.least_clip
    for _ in range(25):
        cost(space.random(rng).spec, frames=frames, height=height, width=width, num_classes=5)
for name, entry in PRESETS.items():
    if entry.family != "timm":
        frames, height, width = entry.clip
        cost(preset(name, frames=frames), frames=frames, height=height, width=width, num_classes=400)
print([m for m in ("torch", "timm", "numpy") if m in sys.modules])
"""

TIMM = """
import dataclasses, json, sys
from nas.cost.cost import cost
from search_spaces.families.timm.family import make_timm
specs = [
    make_timm("resnet18", shift="tin", frames=4),
    make_timm("mobilenetv3_small_050", head="trn", frames=4, kind="p3d_a", placed=(3, 4), pools=(4,)),
    make_timm("vit_tiny_patch16_224"),
    # Nothing is known of this one before it was built.
    make_timm("hardcorenas_a"),
]
found = []
for spec in specs:
    size = 224 if "vit" in spec.model else 64
    price = cost(spec, frames=4, height=size, width=size, num_classes=5)
    found.append(dataclasses.asdict(price) | {"rows": spec.rows()})
print(json.dumps([found, "torch" in sys.modules or "timm" in sys.modules]))
"""


def run(code: str, cache: Path) -> str:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_networks_of_our_own_families_are_counted_without_torch(tmp_path: Path) -> None:
    assert run(OURS, tmp_path) == "[]"
    assert not any(tmp_path.iterdir())


def test_networks_of_timm_are_counted_without_torch_from_the_second_time_on(tmp_path: Path) -> None:
    first, torch = json.loads(run(TIMM, tmp_path))
    assert torch
    assert json.loads(run(TIMM, tmp_path)) == [first, False]
    # What is damaged is measured again, and known from then on.
    files = list((tmp_path / "video-nas").iterdir())
    assert len(files) == 2
    for path in files:
        path.write_bytes(path.read_bytes().replace(b"1", b"2"))
    assert json.loads(run(TIMM, tmp_path)) == [first, True]
    assert json.loads(run(TIMM, tmp_path)) == [first, False]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_who_asks_while_evaluating_finds_the_memory_of_training(
    mode: Callable[[], AbstractContextManager[None]],
) -> None:
    spec = make_timm("resnet18", kind="2plus1d", placed=(1,))
    _, unit = next(iter(links(spec, num_classes=5)))
    expected = measured(unit, (3, 4, 32, 32))
    assert expected[0].cost.activation_bytes > 0
    with mode():
        assert measured(unit, (3, 4, 32, 32)) == expected
