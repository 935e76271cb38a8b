"""Ablations of small networks for tests."""

from __future__ import annotations

from typing import Any

from nas.ablation.config import AblationConfig, ablation_of
from nas.ablation.designs import Arms, arms_of
from nas.ablation.variants import Lookup, Variant, resolve
from search_spaces.catalogue import preset
from trainer.config import Clip, DataConfig
from trainer.recipe import Recipe

SMALL = {"family": "resnet", "depth": "1-1-1", "stem_width": 8, "stem": "1x3x3/2", "kind": "2plus1d"}


def preset_lookup(frames: int) -> Lookup:
    """A lookup that knows presets only, at a clip's number of frames."""
    return lambda name: (preset(name, frames=frames), None)


LOOKUP = preset_lookup(8)


def config(**over: Any) -> AblationConfig:
    """An ablation around `SMALL`."""
    return ablation_of({"base": SMALL, "factors": {"kind": ["2d", "3d"]}, **over}, last_rung=3, where="test.yaml")


def base(stated: Any = None) -> Variant:
    """The base as it is trained, at 8x32x32."""
    spec, settings = resolve(SMALL if stated is None else stated, LOOKUP)
    clip = Clip(frames=8, height=32, width=32, stride=1)
    data = DataConfig(name="motion", root="r", cache="c", clip=clip, sampling="uniform", short_side=40)
    return Variant(spec=spec, settings=settings, recipe=Recipe(batch_size=8), data=data)


def arms(**over: Any) -> Arms:
    """The arms of `config(**over)`."""
    read = config(**over)
    return arms_of(read, base(read.base), LOOKUP)
