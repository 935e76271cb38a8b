"""How often and where a network looks at a video when it is tested, as a value."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trainer.config import MOST_CLIPS, MOST_PIXELS, ConfigError, DataConfig
from trainer.settings import faults, setting, values_of

CROPS = (1, 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Views:
    """The views of a video whose class probabilities are averaged: clips x crops x short sides.

    Ten clips and one or three crops are the papers' dense testing; several short sides besides are their multi-scale
    testing.
    """

    clips: int = setting(
        10,
        "Clips of each video, spread over its length, whose class probabilities are averaged when val and test are"
        " reported; see [Using a network](using.md).",
        at_least=1,
        at_most=MOST_CLIPS,
    )
    crops: int = setting(1, "Of each clip: 1 takes the middle, 3 both ends of the longer side, too.", choices=CROPS)
    short_sides: tuple[int, ...] = setting(
        (),
        "To which frames are resized, such as `[128, 144, 160]`; empty takes `data.short_side`. A larger one decodes"
        " the videos once more.",
    )
    full: bool = setting(
        False,
        "Crops span the whole short side, so that the network sees larger images than in training; otherwise they have"
        " the size of the clip.",
    )

    def __post_init__(self) -> None:
        """Raises ConfigError where a value is out of range."""
        for fault in faults(Views, values_of(self), ""):
            raise ConfigError(fault)
        if len(set(self.short_sides)) != len(self.short_sides) or any(
            not 1 <= side <= MOST_PIXELS for side in self.short_sides
        ):
            raise ConfigError(
                f"short sides must be from 1 to {MOST_PIXELS:,} pixels, each once, but are {list(self.short_sides)}"
            )

    @property
    def per_video(self) -> int:
        """Views of one video."""
        return self.clips * self.crops * max(1, len(self.short_sides))

    def sides(self, config: DataConfig) -> tuple[int, ...]:
        """The short sides in pixels.

        Raises:
            ConfigError: One is smaller than the crop.
        """
        sides = self.short_sides or (config.short_side,)
        least = min(config.box.height, config.box.width)
        if min(sides) < least and not self.full:
            raise ConfigError(f"short sides must be at least the crop's ({least} pixels), but are {list(sides)}")
        return sides

    def data(self, config: DataConfig) -> DataConfig:
        """The data decoded at the largest of the short sides; smaller ones are resized from it.

        Raises:
            ConfigError: The data is a pack, whose frames are smaller.
        """
        if config.source == "pack" and max(self.short_sides, default=0) > config.short_side:
            raise ConfigError(
                f"short sides must be at most that of the pack's frames ({config.short_side} pixels), but are"
                f" {list(self.short_sides)}"
            )
        return replace(config, short_side=max((config.short_side, *self.short_sides)))

    @property
    def short(self) -> str:
        """In a few letters, for a column: clips x crops @ short sides, such as `10x3@128,160` or `1x1 full`."""
        sides = "@" + ",".join(map(str, self.short_sides)) if self.short_sides else ""
        return f"{self.clips}x{self.crops}{sides}" + (" full" if self.full else "")

    def __str__(self) -> str:
        clips = f"{self.clips} {'clip' if self.clips == 1 else 'clips'} x {self.crops} "
        text = clips + ("crop" if self.crops == 1 else "crops")
        if self.short_sides:
            text += (
                f" x short {'side' if len(self.short_sides) == 1 else 'sides'} {', '.join(map(str, self.short_sides))}"
            )
        return text + (", full crops" if self.full else "")


def usual_views(config: DataConfig) -> Views:
    """The views of an evaluation in training."""
    return Views(clips=config.eval_clips, crops=config.eval_crops)
