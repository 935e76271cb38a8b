"""What a training run is told: clip, data and recipe, as frozen values that are checked once."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from trainer.data.kinds import PLANES, Input, clip_text, problem_of
from trainer.settings import declared, faults, setting, values_of

Log = Literal["csv", "tensorboard"]
Sampling = Literal["dense", "uniform"]
Reversal = Literal["none", "eval", "always"]
ShortClips = Literal["skip", "loop"]
Schedule = Literal["anytime", "cosine", "onecycle", "steps"]
Source = Literal["cache", "pack", "decode"]
Precision = Literal["auto", "fp32", "bf16"]
Loss = Literal["cross_entropy", "bce", "lsep", "warp"]
ClassWeights = Literal["none", "balanced", "sqrt", "frequency", "sqrt_frequency"]
ZeroInit = bool | Literal["as_published"]
InitMode = Literal["replicate", "centre", "random", "identity"]

PLACES = ("root", "cache", "num_workers", "max_broken", "annotations", "exclude")
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


def _check(value: Any, place: str) -> None:
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
        _check(self, "clip.")

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
        "Frames a second that the stride counts in: videos of other rates are seen as if they had this one, by frames"
        " left out or shown twice. 0 takes all as they are, as a video that does not say its rate always is.",
        at_least=0,
        at_most=MOST_FPS,
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
        _check(self, "data.")
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
        return {name: value for name, value in _identity(self).items() if name not in PLACES}


@dataclass(frozen=True, kw_only=True, slots=True)
class Init:
    """Which weights a network begins with. The trainer gets networks that are initialised; this says how they were.

    `checksum` is empty where the weights were not read yet.
    """

    weights: str = setting(
        "",
        "What every network begins with: a file, the folder of a promoted network, `timm:NAME` or `torchvision:NAME`."
        " Weights of images are inflated; those of clips are taken where name and shape agree; see"
        " [weights](weights.md). Empty: drawn.",
    )
    mode: InitMode = setting("replicate", "How 2D kernels get time: `replicate`, `centre`, `identity`, `random`.")
    checksum: str = setting(
        "", "Which weights it has to be. Recorded in any case, and held to: other weights are another study."
    )
    at_least: float = setting(
        0.0,
        "Share of the parameters before the classifier that weights of clips have to give; a network that takes less is"
        " refused.",
        at_least=0,
        at_most=1,
        added=True,
    )

    def __post_init__(self) -> None:
        """Raises ConfigError where a value is out of range."""
        _check(self, "recipe.init.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A stretch of training on clips of its own; what is 0 is as everywhere else.

    The recipe's schedule begins anew with each phase: its warm-up, its milestones and its horizon are those of the
    phase. Evaluation always sees the clip of the data, so that accuracies of all phases are of one kind.
    """

    epochs: int = setting(
        0,
        "Epochs of the phase, which has to state them; the last one goes on where the schedule can be prolonged.",
        at_least=1,
    )
    frames: int = setting(0, "Frames of a training clip, at most those of the data's clip.", at_least=0)
    stride: int = setting(0, "Distance between its frames, in frames of the video.", at_least=0)
    size: int = setting(0, "Rows and columns of a training clip, in pixels.", at_least=0)
    lr: float = setting(0.0, "Peak learning rate.", at_least=0)

    def __post_init__(self) -> None:
        """Raises ConfigError where a value is out of range."""
        _check(self, "recipe.phases' ")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a network is trained."""

    batch_size: int = setting(16, "Clips a step.", at_least=1)
    optimizer: str = setting("adamw", "Any optimiser of timm by name, such as `adamw` or `sgd`.")
    lr: float = setting(1e-3, "Peak learning rate.", above=0)
    weight_decay: float = setting(0.05, "Weight decay; not applied to norms and biases.", at_least=0)
    schedule: Schedule = setting(
        "anytime",
        "`anytime`: warm-up, then constant, so that training can go on at any horizon. `steps`: the same with drops at"
        " `recipe.steps`. `cosine` and `onecycle` end at zero after `recipe.epochs` and cannot be prolonged.",
    )
    epochs: int = setting(
        0,
        "Horizon of `cosine` and `onecycle`. In a promotion, `promote.epochs` unless `promote.recipe` says otherwise.",
    )
    warmup_epochs: float = setting(
        1.0, "Epochs of linear warm-up from zero; `onecycle` has its own rise of 30 %.", at_least=0
    )
    ema_decay: float = setting(
        0.99,
        "Decay a step of the averaged weights, which are the ones evaluated, warmed up; 0 turns averaging off.",
        at_least=0,
        below=1,
    )
    label_smoothing: float = setting(0.0, "Share of the target that is spread over all classes.", at_least=0, below=1)
    mixup: float = setting(0.0, "Alpha of mixup; 0 is off.", at_least=0)
    dropout: float = setting(0.0, "Share of features dropped before the classifier.", at_least=0, below=1)
    clip_grad: float = setting(0.0, "Largest norm of the gradient; 0 does not clip.", at_least=0)
    precision: Precision = setting(
        "auto", "`fp32`, `bf16` (autocast), or `auto`: bf16 where the hardware computes it natively."
    )
    channels_last: bool = setting(True, "Channels-last memory order of activations; a matter of speed.")
    eval_every: int = setting(
        1,
        "Epochs between evaluations on val; rungs and the last epoch of a run are always evaluated.",
        at_least=1,
    )
    aux_weight: float = setting(
        0.4,
        "Weight of the loss of each auxiliary classifier, in networks that have them. It is in the training loss, not"
        " in val's. The default is that of the authors' code for Inception-v3 (the paper of Inception-v1 says 0.3).",
        at_least=0,
        added=True,
    )
    init: Init = setting(Init(), "Weights to begin with.", added=True)
    momentum: float | None = setting(
        None,
        "Momentum, of optimisers that have one; null is the optimiser's own (0.9 for timm's `sgd`).",
        at_least=0,
        below=1,
        added=True,
    )
    nesterov: bool | None = setting(
        None, "Nesterov's momentum; null is the optimiser's own (timm's `sgd` has it).", added=True
    )
    steps: tuple[float, ...] = setting(
        (), "Milestones of schedule `steps` in epochs, such as `[10, 20]`; also parts of epochs.", added=True
    )
    step_factor: float = setting(
        0.1, "What the rate is multiplied by at each milestone.", above=0, at_most=1, added=True
    )
    loss: Loss = setting(
        "cross_entropy",
        "`cross_entropy` for one label a video. For several labels `bce`, `lsep` (Li et al. 2017) or `warp` (Weston et"
        " al. 2011).",
        added=True,
    )
    bce_scale: float = setting(
        1.0,
        "Factor of `bce`, which is a mean over clips and classes; 160 for hundreds of classes.",
        above=0,
        added=True,
    )
    class_weights: ClassWeights = setting(
        "none",
        "What the loss of a class is multiplied by. With N videos of it in training and N̄ in the mean one: `balanced`"
        " N̄/N, `sqrt` its root; `frequency` N/N̄, `sqrt_frequency` its root.",
        added=True,
    )
    cutmix: float = setting(
        0.0,
        "Alpha of cutmix, one box for all frames of a clip; 0 is off. With mixup, each step takes either.",
        at_least=0,
        added=True,
    )
    frozen_bn: bool = setting(
        False,
        "Batch norm keeps the running statistics that it begins with, those of `recipe.init`; its weights still learn.",
        added=True,
    )
    accumulate: int = setting(
        1,
        "Parts in which a batch goes through the network. Gradients are those of the whole batch; batch norm sees each"
        " part alone.",
        at_least=1,
        added=True,
    )
    checkpointing: bool = setting(
        False,
        "Compute activations inside of blocks again instead of keeping them: less memory, about a third more time, the"
        " same weights.",
        added=True,
    )
    compile: bool = setting(False, "`torch.compile`; needs a C++ compiler.", added=True)
    phases: tuple[Phase, ...] = setting(
        (),
        "Stretches of training on other clips, with a schedule each, such as 8 frames first and 32 then: maps of"
        " `epochs`, `frames`, `stride`, `size` and `lr`; see [recipes](recipes.md).",
        added=True,
    )
    zero_init: ZeroInit = setting(
        "as_published",
        "Whether the last norm of every residual branch begins with a weight of 0 (Goyal et al. 2017): `true`,"
        " `false`, or as the network's authors have it.",
        added=True,
    )

    def __post_init__(self) -> None:
        """Raises ConfigError where a value is out of range."""
        _check(self, "recipe.")
        self._check_together()
        if self.has_horizon and self.epochs < 1:
            raise ConfigError(f"recipe.epochs must be at least 1 with schedule {self.schedule}, but is {self.epochs}")

    @property
    def has_horizon(self) -> bool:
        """Whether the schedule ends at zero, so that training cannot be prolonged."""
        return self.schedule in ("cosine", "onecycle")

    def _check_together(self) -> None:
        if self.accumulate > self.batch_size:
            raise ConfigError(
                f"recipe.accumulate must be at most recipe.batch_size = {self.batch_size}, but is {self.accumulate}"
            )
        if not all(a < b < math.inf for a, b in zip((0.0, *self.steps), self.steps, strict=False)):
            raise ConfigError(f"recipe.steps must be ascending and above 0, and finite, but is {list(self.steps)}")
        if not isinstance(self.zero_init, bool) and self.zero_init != "as_published":
            raise ConfigError(f"recipe.zero_init must be true, false or as_published, but is {self.zero_init}")
        if bool(self.steps) != (self.schedule == "steps"):
            raise ConfigError(
                f"recipe.steps must be given with schedule steps and no other, but is {list(self.steps)} with "
                f"schedule {self.schedule}"
            )
        if self.loss in ("lsep", "warp"):
            for name in ("mixup", "cutmix", "label_smoothing"):
                if getattr(self, name):
                    raise ConfigError(
                        f"recipe.{name} must be 0 with the ranking loss {self.loss}, whose labels are 0 or 1, "
                        f"but is {getattr(self, name)}; bce takes it"
                    )
            if self.class_weights != "none":
                raise ConfigError(
                    f"recipe.class_weights must be none with the ranking loss {self.loss}, but is "
                    f"{self.class_weights}; bce takes them"
                )
        if self.compile and self.checkpointing:
            raise ConfigError(
                "recipe.checkpointing must be off with recipe.compile, which chooses itself what to compute again"
            )
        length = sum(phase.epochs for phase in self.phases)
        if self.phases and self.has_horizon and length != self.epochs:
            raise ConfigError(
                f"recipe.phases must have recipe.epochs = {self.epochs} epochs in all with schedule {self.schedule}, "
                f"but have {length}"
            )

    def identity(self) -> dict[str, Any]:
        """Plain values that are equal where recipes train alike.

        Initial weights go by their checksum once they have one: where they lie does not matter.
        """
        values = _identity(self)
        values.pop("init", None)
        if self.init.weights:
            values["init"] = {"weights": self.init.checksum or self.init.weights, "mode": self.init.mode}
        return values


def _identity(value: DataConfig | Recipe) -> dict[str, Any]:
    values = asdict(value)
    usual = type(value)()
    for name, mark in declared(type(value)).items():
        if mark.added and getattr(value, name) == getattr(usual, name):
            del values[name]
    return values
