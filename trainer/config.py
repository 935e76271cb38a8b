"""Clip and data of a training, as frozen values that are checked once."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from trainer.data.kinds import PLANES, Input, clip_text, problem_of
from trainer.settings import declared, faults, setting, values_of

Log = Literal["csv", "tensorboard", "mlflow", "wandb"]
Sampling = Literal["dense", "uniform"]
Balance = Literal["none", "even", "sqrt"]
Reversal = Literal["none", "eval", "always"]
ShortClips = Literal["skip", "loop"]
Source = Literal["cache", "pack", "decode"]

PLACES = ("root", "cache", "num_workers", "max_broken", "annotations", "exclude", "group")
"""Fields of DataConfig that say where data lies, who loads it and when that is given up; its checksum has the rest."""

# More than any video or machine has: what lies beyond is a slip, and would end in hours or in a full memory.
MOST_FRAMES = 100_000
MOST_PIXELS = 16_384
MOST_FPS = 1_000_000
MOST_CLIPS = 10_000


class ConfigError(ValueError):
    """A value is outside what its field allows; the message is one line with rule, value, field and choices."""


class CheckpointError(ConfigError):
    """A checkpoint is of another version, or not of the run that is to go on from it."""


def check_fields(value: Any, place: str) -> None:
    """Raises ConfigError for a field of a frozen class that is outside its range; `place` goes before its name."""
    for fault in faults(type(value), values_of(value), place):
        raise ConfigError(fault)


@dataclass(frozen=True, kw_only=True, slots=True)
class Clip:
    """The clip that a network sees; evaluation, costs and latency are of it, too."""

    frames: int = setting(16, "Frames of a clip, T.", at_least=1, at_most=MOST_FRAMES)
    height: int = setting(112, "Rows after cropping, in pixels.", at_least=1, at_most=MOST_PIXELS)
    width: int = setting(112, "Columns after cropping, in pixels.", at_least=1, at_most=MOST_PIXELS)
    stride: int = setting(
        1,
        "Distance between the frames of a clip, in frames of the video; `dense` only.",
        at_least=1,
        at_most=MOST_FRAMES,
    )

    def __post_init__(self) -> None:
        """Raises ConfigError unless all four are at least 1, and no more than a machine can hold."""
        check_fields(self, "clip.")

    @property
    def span(self) -> int:
        """Frames of video that one densely sampled clip covers."""
        return (self.frames - 1) * self.stride + 1

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which videos, and how clips are taken from them."""

    name: str = setting("folder", "What the data is called in records and in `data=NAME`.")
    root: str = setting(
        "",
        "Folder that all videos lie below: `{train,val[,test]}/<class>/*.mp4` (avi, mkv, webm, mov), or another layout"
        " of [data.md](data.md).",
    )
    cache: str = setting("runs/cache", "Folder for decoded frames; with `source: decode`, for the times of the frames.")
    clip: Clip = setting(Clip(), "The clip that a network sees.")
    sampling: Sampling = setting(
        "dense",
        "`dense`: every stride-th frame of a window. `uniform`: one frame from each of T equal parts of the video.",
    )
    short_side: int = setting(
        128, "Videos are decoded to this short side, in pixels; at least the crop.", at_least=1, at_most=MOST_PIXELS
    )
    max_frames: int = setting(
        0, "Largest number of frames that are kept of a video, evenly spaced; 0 keeps all.", at_least=0
    )
    crop_scale: tuple[float, float] | None = setting(
        None,
        "`[low, high]`: side of the random training crop as a share of the largest one of the clip's aspect. Empty"
        " crops exactly height x width.",
    )
    flip: bool = setting(False, "Mirror training clips left to right half of the time. Only if labels survive it.")
    reversal: Reversal = setting("none", "`eval` shows evaluation clips backwards, `always` training clips too.")
    short: ShortClips = setting(
        "skip",
        "A video with fewer frames than a clip needs: `skip` leaves it out and reports it, `loop` repeats it.",
    )
    eval_clips: int = setting(
        1,
        "Clips of each video whose class probabilities are averaged in evaluation.",
        at_least=1,
        at_most=MOST_CLIPS,
    )
    mean: tuple[float, float, float] = setting((0.43216, 0.394666, 0.37645), "Mean of each channel, of values in 0..1.")
    std: tuple[float, float, float] = setting(
        (0.22803, 0.22145, 0.216989), "Standard deviation of each channel, above 0."
    )
    num_workers: int = setting(
        0,
        "Loader processes of each training, at most its share of the cores; 0 loads in the training process.",
        at_least=0,
    )
    source: Source = setting(
        "cache",
        "`cache` decodes every video once into `data.cache`; `pack` reads a folder that `nas data pack` made, which"
        " `data.root` then names; `decode` decodes what a clip needs, each time. See [loading](loading.md).",
        added=True,
    )
    fps: float = setting(
        0.0,
        "Frames per second that the stride counts in: videos of other rates are seen as if they had this one, by frames"
        " left out or shown twice. 0 takes all as they are, as a video that does not say its rate always is.",
        at_least=0,
        at_most=MOST_FPS,
        added=True,
    )
    group: str = setting(
        "",
        "Regular expression of what must not be in two splits, found in each path, such as a person or a scene; data in"
        " which a group is in two is refused. `nas data split --group` keeps groups together.",
        added=True,
    )
    max_broken: float = setting(
        0.05,
        "Share of the clips of an epoch or an evaluation that may be of unreadable videos; above it training stops.",
        at_least=0,
        at_most=1,
        added=True,
    )
    eval_crops: int = setting(
        1,
        "Crops of each evaluation clip: 1 is the middle, 3 are the middle and both ends of the longer side.",
        choices=(1, 3),
        added=True,
    )
    crop_ratio: tuple[float, float] | None = setting(
        None,
        "`[low, high]`: aspect of the random training crop as a multiple of the clip's, drawn evenly in its logarithm."
        " Empty keeps the clip's. With `crop_scale` it makes a multi-scale crop.",
        added=True,
    )
    randaugment: tuple[int, int] | None = setting(
        None, "`[operations, magnitude]` of RandAugment, magnitude 0 to 30. Empty turns it off.", added=True
    )
    colour: float = setting(
        0.0,
        "Brightness, contrast and saturation of training clips change by a factor of up to 1 ± this.",
        at_least=0,
        at_most=1,
        added=True,
    )
    erasing: float = setting(
        0.0,
        "Share of the training clips of which a random rectangle is filled with the mean colour.",
        at_least=0,
        at_most=1,
        added=True,
    )
    layout: str = setting(
        "auto",
        "How the videos lie: `folders`, `cvdf`, `slowfast`, … `auto` looks, and refuses what it could read in two"
        " ways.",
        added=True,
    )
    annotations: str = setting("", "Folder of lists, or file of class names. Empty looks into the root.", added=True)
    definition: str = setting(
        "",
        "Which part of the data: `classes:a,b,c`, a file of classes, `mini-kinetics-200`, … Empty takes all.",
        added=True,
    )
    per_class: int = setting(
        0,
        "Largest number of videos of each class in each split, the same ones everywhere; 0 takes all.",
        at_least=0,
        added=True,
    )
    exclude: str = setting("", "File of paths that are left out, as `nas data check --exclude` writes it.", added=True)
    share: float = setting(
        1.0,
        "Share of the training videos, drawn within each class by the seed of the training; val and test are always"
        " whole.",
        above=0,
        at_most=1,
        added=True,
    )
    crop: tuple[int, int] | None = setting(
        None,
        "`[rows, columns]` that are cut from a frame and resized to the clip: the same view at another resolution."
        " Empty cuts the clip's own size. With `crop_scale`, it gives the aspect alone.",
        added=True,
    )
    input: Input = setting(
        "rgb",
        "`rgb`; `difference` of each frame to the next; `flow` of `nas data flow` or of folders that hold it. See"
        " [inputs](inputs.md).",
        added=True,
    )

    def __post_init__(self) -> None:
        """Raises ConfigError where a value is out of range."""
        if self.crop is not None and min(self.crop) < 1:
            raise ConfigError(f"data.crop must be [rows, columns] of at least 1 pixel, but is {self.crop}")
        least = min(self.box.height, self.box.width)
        if self.short_side < least:
            raise ConfigError(f"data.short_side must be at least {least}, but is {self.short_side}")
        check_fields(self, "data.")
        if not all(map(math.isfinite, self.mean)):
            raise ConfigError(f"data.mean must be finite in every channel, but is {self.mean}")
        if not all(0 < s < math.inf for s in self.std):
            raise ConfigError(f"data.std must be above 0 and finite in every channel, but is {self.std}")
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ConfigError(
                f"data.crop_scale must be [low, high] with 0 < low <= high <= 1, but is {self.crop_scale}"
            )
        if self.crop_ratio is not None and not 0 < self.crop_ratio[0] <= self.crop_ratio[1] < math.inf:
            raise ConfigError(f"data.crop_ratio must be [low, high] with 0 < low <= high, but is {self.crop_ratio}")
        if self.randaugment is not None and not (self.randaugment[0] >= 1 and 0 <= self.randaugment[1] <= 30):
            raise ConfigError(
                "data.randaugment must be [number of operations, magnitude] with at least one operation and a magnitude"
                f" of 0 to 30, but is {self.randaugment}"
            )
        problem = problem_of(self.input, frames=self.clip.frames, colour=self.colour, randaugment=self.randaugment)
        if problem is not None:
            raise ConfigError(problem)

    @property
    def planes(self) -> int:
        """Planes of what a network sees."""
        return PLANES[self.input]

    @property
    def shape(self) -> str:
        """The clip as it is recorded beside costs."""
        return clip_text(self.input, str(self.clip))

    @property
    def box(self) -> Clip:
        """The clip as it is cut from the frames, before its pixels are resized."""
        return self.clip if self.crop is None else replace(self.clip, height=self.crop[0], width=self.crop[1])

    def identity(self) -> dict[str, Any]:
        """Plain values that are equal where the same clips are taken of the same videos, wherever those lie."""
        return {name: value for name, value in identity_of(self).items() if name not in PLACES}


def identity_of(value: Any) -> dict[str, Any]:
    """The fields of a frozen class as plain values; those that came later are left out at their default."""
    values = asdict(value)
    usual = type(value)()
    for name, mark in declared(type(value)).items():
        if mark.added and getattr(value, name) == getattr(usual, name):
            del values[name]
    return values
