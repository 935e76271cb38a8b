"""Whether a recipe and the data go together, as far as that can be known before a network is trained."""

from __future__ import annotations

from trainer.config import ConfigError, DataConfig
from trainer.data.clips import VideoData, num_batches
from trainer.optim import check_optimizer
from trainer.phases import check_phases
from trainer.recipe import Recipe


def check_ready(data: VideoData, config: DataConfig, recipe: Recipe) -> None:
    """Refuses what every training would end with, however good its network.

    Args:
        data: The opened data.
        config: How clips are taken from it.
        recipe: How to train.

    Raises:
        ConfigError: There is no such optimiser, the loss takes one label per video and these have several, there are
            fewer than two classes, or too few videos for a batch; the message says which.
    """
    check_optimizer(recipe)
    check_phases(config, recipe)
    check_loss(data, recipe)
    if len(data.classes) < 2:
        raise ConfigError(
            f"data must have at least 2 classes to be told apart, but {config.root} has {len(data.classes)}:"
            f" {', '.join(data.classes) or 'none'}"
        )
    if num_batches(data, config, split="train", batch_size=recipe.batch_size) < 1:
        raise ConfigError(f"the training split must fill one batch, but {config.root} gives none")


def check_loss(data: VideoData, recipe: Recipe) -> None:
    """Raises ConfigError where the loss or the balance takes one label per video, and the data has several."""
    if data.multi_label and recipe.loss == "cross_entropy":
        raise ConfigError(
            "recipe.loss must be bce, lsep or warp for data with several labels per video, but is cross_entropy"
        )
    if data.multi_label and recipe.balance != "none":
        raise ConfigError(
            f"recipe.balance must be none for data with several labels per video, but is {recipe.balance};"
            " recipe.class_weights takes them"
        )
