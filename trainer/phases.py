"""Clip-length schedules: which phase of a recipe an epoch belongs to, and what changes in it."""

from __future__ import annotations

import dataclasses

from trainer.config import ConfigError, DataConfig
from trainer.recipe import Phase, Recipe


def phase_at(recipe: Recipe, epoch: int) -> tuple[Phase | None, int]:
    """The phase of an epoch, and the epoch's number within it.

    Args:
        recipe: Its phases follow each other; the last one goes on for as long as training does.
        epoch: From 1.

    Returns:
        `None` and the epoch itself where the recipe has no phases.
    """
    if not recipe.phases:
        return None, epoch
    for phase in recipe.phases[:-1]:
        if epoch <= phase.epochs:
            return phase, epoch
        epoch -= phase.epochs
    return recipe.phases[-1], epoch


def recipe_at(recipe: Recipe, epoch: int) -> tuple[Recipe, int]:
    """The recipe of an epoch's phase as one without phases, and the epoch's number within it."""
    phase, epoch = phase_at(recipe, epoch)
    if phase is None:
        return recipe, epoch
    return dataclasses.replace(recipe, phases=(), epochs=phase.epochs, lr=phase.lr or recipe.lr), epoch


def data_at(config: DataConfig, recipe: Recipe, epoch: int) -> DataConfig:
    """How training clips are taken in an epoch.

    Raises:
        ConfigError: A phase's clip covers more of a video than the data's does; videos are chosen by the latter.
    """
    phase, _ = phase_at(recipe, epoch)
    return config if phase is None else _with_clip(config, phase)


def check_phases(config: DataConfig, recipe: Recipe) -> None:
    """Raises ConfigError unless the clips of all phases can be taken from the data."""
    for phase in recipe.phases:
        _with_clip(config, phase)


def _with_clip(config: DataConfig, phase: Phase) -> DataConfig:
    clip = dataclasses.replace(
        config.clip,
        frames=phase.frames or config.clip.frames,
        stride=phase.stride or config.clip.stride,
        height=phase.size or config.clip.height,
        width=phase.size or config.clip.width,
    )
    if clip.frames > config.clip.frames or (config.sampling == "dense" and clip.span > config.clip.span):
        raise ConfigError(
            f"clips of recipe.phases must be at most as long as data.clip, which has {config.clip.frames} frames over "
            f"{config.clip.span} frames of video, but one has {clip.frames} over {clip.span}; make data.clip.frames "
            "that of the longest phase"
        )
    return dataclasses.replace(config, clip=clip)
